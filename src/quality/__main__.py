"""Data contracts without training: `python -m quality [drift|init] OVERRIDE ...`."""

import argparse
import sys
from collections.abc import Sequence

from config import command

COMMANDS = ("drift", "init")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: those after `python -m quality`; sys.argv's if not given.

    Returns:
        The exit code (docs/exit_codes.md).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words.pop(0) if words and words[0] in COMMANDS else "verify"
    args = command.parse_arguments(_parser(name), words)
    command.log_progress()
    if name == "drift":
        from quality import drift

        return drift.command(args)
    if name == "init":
        from quality import init

        return init.command(args)
    return _verify(args)


def _parser(name: str) -> argparse.ArgumentParser:
    if name == "verify":
        parser = command.make_parser(
            "quality",
            usage="python -m quality [-h] [--folder DIR] [OVERRIDE ...]\n       python -m quality drift|init --help",
            description="Verifies a data set's contract, and writes a report: verdict.json, rows.jsonl (every row that "
            "breaks a check), report.md, report.html. Exit code 4 if it is broken, or could not be verified.",
            example="python -m quality data=squad data.path=my/questions",
        )
    elif name == "drift":
        parser = command.make_parser(
            "quality drift",
            usage="python -m quality drift [OPTIONS] reference=RUN [OVERRIDE ...]",
            description="Compares data with what a model was trained on. The reference is a run's folder, or the "
            "fingerprint that a report shows. Exit code 4 if it has drifted.",
            example="python -m quality drift reference=outputs/2026-11-20/23-28-01 data=squad data.path=new/questions",
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
        parser = command.make_parser(
            "quality init",
            usage="python -m quality init [-o FILE] [OVERRIDE ...]",
            description="Writes a first contract from data as it is: what must not be fails, today's ranges warn.",
            example="python -m quality init data=image_folder data.path=my/images -o my-images.yaml",
        )
        parser.add_argument("-o", "--output", metavar="FILE", help="default: stdout")
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="train.py's: data=..., data.path=..., quality.contract=FILE"
    )
    if name != "init":
        default = f"outputs/<day>/<time>/{'drift' if name == 'drift' else 'quality'}"
        parser.add_argument("--folder", metavar="DIR", help=f"of the report; default: {default}")
    return parser


def _verify(args: argparse.Namespace) -> int:
    from datamodules import factory
    from quality import gate, notify, verdict
    from quality.output import report_folder
    from quality.settings import read_settings
    from quality.verification import verify_data

    config = factory.compose_config(args.overrides, any_model=True)
    settings = read_settings(config)
    result, report = verify_data(factory.build(config.data), settings)
    folder = report_folder(args.folder, "quality")
    gate.copy_report(report, folder)
    message = verdict.summarise_verdict(result)
    print(message)
    print(f"isotrain: {folder / 'report.html'}", file=sys.stderr)
    if result.good:
        return 0
    notify.send_notification(message, folder, settings.webhook, settings.summary)
    return 0 if settings.action == "warn" else 4


if __name__ == "__main__":
    command.run_main(main)
