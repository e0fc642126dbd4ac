"""python -m datamodules prepare|fingerprint [OVERRIDES]: the caches of a configuration, without training.

  prepare       builds what `python train.py OVERRIDES` would build before training, and prints one line of
  JSON fingerprint   prints what identifies the data's content, as one line of JSON

OVERRIDES are those of train.py, such as data=squad model=bert data.max_train=1000. The cache lies in
data.cache_dir, else in $ISOTRAIN_CACHE, else in ~/.cache/isotrain; every run and every trial of a search on
this machine shares it.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from config.errors import for_people


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m datamodules",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("prepare", "fingerprint"))
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE")
    chosen = parser.parse_intermixed_args(arguments)
    with for_people():
        print(json.dumps(_run(chosen.command, chosen.overrides), ensure_ascii=False), flush=True)


def _run(command: str, overrides: Sequence[str]) -> dict[str, object]:
    import logging

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    from datamodules import configured
    from datamodules.sources.hub_needs import refuse_early

    config = configured.composed(overrides)
    if command == "prepare":
        # Before the imports, which take seconds.
        refuse_early(config.data, config.model)

    data = configured.build(config.data)
    if command == "prepare":
        data.prepare_data()
        data.setup("fit")
        return {"fingerprints": data.fingerprints, "cache": str(data.root), **data.describe()}
    return dict(data.fingerprints)


if __name__ == "__main__":
    main()
