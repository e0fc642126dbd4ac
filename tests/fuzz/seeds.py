"""Targets and seeds of damage that once was taken for a bug of isotrain."""

SEEDS: list[tuple[str, int]] = []
