"""Targets and seeds of damage that once was taken for a bug of isotrain."""

SEEDS: list[tuple[str, int]] = [
    ("resume checkpoint", 6357),  # an impossible offset in the directory of the archive
]
