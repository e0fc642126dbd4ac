"""Data contracts without training: `python -m quality [drift|init] OVERRIDE ...`."""

import sys
from pathlib import Path

# Before files of the working directory, such as a config.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
from collections.abc import Sequence

from config import command

COMMANDS = ("drift", "init")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command line after `python -m quality`; default: that of sys.argv.

    Returns:
        The exit code (docs/exit_codes.md).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words.pop(0) if words and words[0] in COMMANDS else "verify"
    args = command.parse_arguments(_make_parser(name), words)
    command.log_progress()
    if name == "drift":
        from quality import drift

        return drift.command(args)
    if name == "init":
        from quality import init

        return init.command(args)
    return _verify(args)


def _make_parser(name: str) -> argparse.ArgumentParser:
    if name == "verify":
        parser = command.make_parser(
            "quality",
            usage="python -m quality [-h] [--folder DIR] [OVERRIDE ...]\n       python -m quality init|drift --help",
            description="Verify the contract of a data set and write a report: report.html, report.md, verdict.json, "
            "and rows.jsonl with every row that violates a check. Exit code 4 if the contract is violated or could not "
            "be verified.",
            example="python -m quality data=squad data.path=my/questions",
            commands=(
                "init   write a first contract from existing data",
                "drift  compare data with the training data of a run",
            ),
        )
    elif name == "drift":
        parser = command.make_parser(
            "quality drift",
            usage="python -m quality drift [OPTIONS] reference=RUN [OVERRIDE ...]",
            description="Compare data with the training data of a run and write a report. Exit code 4 if the data has drifted.",
            example="python -m quality drift reference=outputs/a data=squad data.path=new/questions",
        )
        parser.add_argument(
            "--split",
            choices=("train", "val"),
            default="train",
            help="split of the new data, compared with the reference's train split (default: train)",
        )
        parser.add_argument(
            "--model", metavar="DIR", help="run or model folder: also compare its predictions and features"
        )
        parser.add_argument(
            "--action", choices=("enforce", "warn"), default="enforce", help="warn: only report (default: enforce)"
        )
        parser.add_argument(
            "--level",
            type=float,
            default=0.01,
            metavar="P",
            help="false positive rate of the comparison (default: 0.01)",
        )
    else:
        parser = command.make_parser(
            "quality init",
            usage="python -m quality init [-o FILE] [OVERRIDE ...]",
            description="Write a first contract from existing data: the checks of the shipped contract, and warnings for values "
            "outside the ranges of this data.",
            example="python -m quality init data=image_folder data.path=my/images -o my-images.yaml",
        )
        parser.add_argument("-o", "--output", metavar="FILE", help="file to write (default: stdout)")
    words = "as for train.py: data=..., data.path=..., quality.contract=FILE"
    if name == "drift":
        words = f"reference=RUN: a run folder, or the fingerprint in a report; others {words}"
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=words)
    if name != "init":
        default = f"outputs/<day>/<time>/{'drift' if name == 'drift' else 'quality'}"
        parser.add_argument("--folder", metavar="DIR", help=f"folder of the report (default: {default})")
    return parser


def _verify(args: argparse.Namespace) -> int:
    from datamodules import factory
    from quality import gate, notify
    from quality.verdict import summarise_verdict
    from quality.verification import verify_data

    if args.folder is not None:
        gate.check_report_folder(gate.report_folder(args.folder, "quality"))
    config = factory.compose_config(args.overrides, any_model=True)
    settings = config.quality
    verdict, report = verify_data(
        factory.build(config.data),
        str(config.task.name),
        str(settings.contract),
        str(settings.action),
        float(settings.time_limit),
    )
    folder = gate.report_folder(args.folder, "quality")
    gate.copy_report(report, folder)
    message = summarise_verdict(verdict)
    print(message)
    print(f"isotrain: {folder / 'report.html'}", file=sys.stderr)
    if verdict.accepted:
        return 0
    notify.send_notification(message, folder, settings.webhook, settings.summary)
    return 0 if settings.action == "warn" else 4


if __name__ == "__main__":
    command.run_main(main)
