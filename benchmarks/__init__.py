"""Our figures beside a peer's, measured in one run: `make bench`."""
