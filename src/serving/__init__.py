"""Answers of saved models over HTTP, by the Open Inference Protocol (`python -m serving`)."""
