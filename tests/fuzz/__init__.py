"""Mutated inputs for every reader of every command (`python -m tests.fuzz --help`), and processes killed at random moments."""
