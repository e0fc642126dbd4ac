"""Paths of what a command writes: they are in a file system."""

import re
from collections.abc import Sequence

from config.errors import InputError

_KEYS = ("hydra.run.dir", "hydra.sweep.dir", "metrics_file", "population_dir", "data.cache_dir")
_URL = re.compile(rf"""\+{{0,2}}({"|".join(map(re.escape, _KEYS))})=(["']?)([a-zA-Z][\w+.-]*://)""")


def refuse_urls(words: Sequence[str]) -> None:
    """Check that no override names a URL as a place to write to, of which a folder such as `s3:` would be made.

    Args:
        words: The command line.

    Raises:
        InputError: An override does.
    """
    if match := next(filter(None, map(_URL.match, words)), None):
        raise InputError(
            f"{match[1]}={match[3]}…: is a URL; a run is written to a file system: name a folder, or mount the bucket as one"
        )
