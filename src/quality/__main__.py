"""Data contracts without training: `python -m quality [drift|init] OVERRIDE ...`."""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from config.errors import for_people

COMMANDS = ("drift", "init")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: those after `python -m quality`; sys.argv's if not given.

    Returns:
        The exit code (docs/exit_codes.md).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = given.pop(0) if given and given[0] in COMMANDS else "verify"
    asked = _parser(command).parse_intermixed_args(given)
    import logging

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    if command == "drift":
        from quality import drift

        return drift.command(asked)
    if command == "init":
        from quality import init

        return init.command(asked)
    return _verify(asked)


def _parser(command: str) -> argparse.ArgumentParser:
    if command == "verify":
        parser = argparse.ArgumentParser(
            prog="python -m quality",
            usage="python -m quality [-h] [--folder DIR] [OVERRIDE ...]\n       python -m quality drift|init --help",
            description="Verifies a data set's contract, and writes a report: verdict.json, rows.jsonl (every row that "
            "breaks a check), report.md, report.html. Exit code 4 if it is broken, or could not be verified.",
            epilog="e.g. python -m quality data=squad data.path=my/questions",
        )
    elif command == "drift":
        parser = argparse.ArgumentParser(
            prog="python -m quality drift",
            usage="python -m quality drift [OPTIONS] reference=RUN [OVERRIDE ...]",
            description="Compares data with what a model was trained on. The reference is a run's folder, or the "
            "fingerprint that a report shows. Exit code 4 if it has drifted.",
            epilog="e.g. python -m quality drift reference=outputs/2026-11-20/23-28-01 data=squad data.path=new/questions",
        )
        parser.add_argument(
            "--split",
            choices=("train", "val"),
            default="train",
            help="of the new data; the reference's is train; default: train",
        )
        parser.add_argument(
            "--model", metavar="DIR", help="a run or model folder: compare its predictions and features, too"
        )
        parser.add_argument("--action", choices=("enforce", "warn"), default="enforce", help="default: enforce")
        parser.add_argument("--level", type=float, default=0.01, help="false alarms of one comparison; default: 0.01")
    else:
        parser = argparse.ArgumentParser(
            prog="python -m quality init",
            usage="python -m quality init [-o FILE] [OVERRIDE ...]",
            description="Writes a first contract from data as it is: what must not be fails, today's ranges warn.",
            epilog="e.g. python -m quality init data=image_folder data.path=my/images -o my-images.yaml",
        )
        parser.add_argument("-o", "--output", metavar="FILE", help="default: stdout")
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="train.py's: data=..., data.path=..., quality.contract=FILE"
    )
    if command != "init":
        default = f"outputs/<day>/<time>/{'drift' if command == 'drift' else 'quality'}"
        parser.add_argument("--folder", metavar="DIR", help=f"of the report; default: {default}")
    return parser


def folder_of(asked: Any, name: str) -> Path:
    """Where a report goes."""
    if asked.folder:
        return Path(asked.folder)
    while True:
        folder = Path(f"outputs/{datetime.now():%Y-%m-%d/%H-%M-%S}/{name}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # another one began in this second
            time.sleep(0.1)
        else:
            return folder


def _verify(asked: Any) -> int:
    from datamodules import configured
    from quality import contract, gate, notify, verdict

    config = configured.composed(asked.overrides, any_model=True)
    data = configured.build(config.data)
    found, written = verdict.of(data, str(config.task.name), contract.read(str(config.quality.contract), data.root))
    target = folder_of(asked, "quality")
    gate.publish(written, target)
    said = verdict.text(found)
    print(said)
    print(f"isotrain: {target / 'report.html'}", file=sys.stderr)
    if found.good:
        return 0
    notify.tell(said, target, config.quality.webhook, config.quality.summary)
    return 0 if config.quality.action == "warn" else 4


if __name__ == "__main__":
    with for_people():
        sys.exit(main())
