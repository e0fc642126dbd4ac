"""Data without training: `python -m datamodules prepare|fingerprint [OVERRIDE ...]`."""

import sys
from pathlib import Path

# Before files of the working directory, such as a config.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

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
    parser = command.make_parser(
        "datamodules",
        "Prepare or identify the data of a configuration, without training.",
        "python -m datamodules prepare model=bert data=squad",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    cache = "The cache is data.cache_dir, else $ISOTRAIN_CACHE, else ~/.cache/isotrain."
    for name, summary, details in (
        ("prepare", "build the cache that train.py would build", f"Print counts and fingerprints as JSON. {cache}"),
        ("fingerprint", "print the fingerprint of the data's content as JSON", ""),
    ):
        subparser = command.add_command(commands, name, summary, details)
        subparser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for train.py, e.g. data=squad")
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
