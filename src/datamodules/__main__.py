"""python -m datamodules prepare|fingerprint [OVERRIDES]: build the caches of a configuration, without training.

  prepare       builds what `python train.py OVERRIDES` would build before training, and prints one line of JSON
  fingerprint   prints what identifies the data's content, as one line of JSON

OVERRIDES are those of train.py, such as data=squad model=bert data.max_train=1000. The cache is in
data.cache_dir, else in $ISOTRAIN_CACHE, else in ~/.cache/isotrain; all runs and all trials of a search on
this machine share it.
"""

import json
from collections.abc import Sequence

from config import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: those after `python -m datamodules`; None: sys.argv's.

    Returns:
        The exit code (docs/exit_codes.md).
    """
    parser = command.make_parser("datamodules", str(__doc__), verbatim=True)
    parser.add_argument("command", choices=("prepare", "fingerprint"))
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE")
    args = command.parse_arguments(parser, arguments)
    command.log_progress()
    print(json.dumps(_run(args.command, args.overrides), ensure_ascii=False))
    return 0


def _run(name: str, overrides: Sequence[str]) -> dict[str, object]:
    from datamodules import factory
    from datamodules.sources.hub_requirements import check_hub_requirements

    config = factory.compose_config(overrides)
    if name == "prepare":
        # Before the imports, which take seconds.
        check_hub_requirements(config.data, config.model)

    data = factory.build(config.data)
    if name == "prepare":
        data.prepare_data()
        data.setup("fit")
        return {"fingerprints": data.fingerprints, "cache": str(data.root), **data.describe()}
    return dict(data.fingerprints)


if __name__ == "__main__":
    command.run_main(main)
