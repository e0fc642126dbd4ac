"""Explanations without training: `python -m explain [calibrate] run=FOLDER [OVERRIDE ...]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from config import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: those after `python -m explain`; sys.argv's if not given.

    Returns:
        The exit code (docs/exit_codes.md).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["calibrate"]:
        from explain import calibrate

        args = _calibrate().parse_args(given[1:])
        return calibrate.command(args.runs, args.output)
    return _explain(command.parse_arguments(_parser(), given))


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser(
        "explain",
        usage="python -m explain [-h] [--folder DIR] run=FOLDER [OVERRIDE ...]\n"
        "       python -m explain calibrate --help",
        description="Explains what a trained model looks at, judges it against chance, and writes a report: verdict.json, "
        "values.npz, explanations.jsonl, report.md, report.html. Exit code 5 if it fails, or could not be judged.",
        example="python -m explain run=outputs/2026-11-20/23-28-01 explain.examples=64",
    )
    parser.add_argument(
        "overrides",
        nargs="+",
        metavar="OVERRIDE",
        help="run=FOLDER: of a run, or with a model; others are train.py's: data=... for another data set than the run's, "
        "explain=warn, explain.examples=64",
    )
    parser.add_argument(
        "--folder", metavar="DIR", help="of the report; default: explain/ in the folder that is explained"
    )
    return parser


def _calibrate() -> argparse.ArgumentParser:
    parser = command.make_parser(
        "explain calibrate",
        usage="python -m explain calibrate [-h] -o FILE RUN RUN RUN ...",
        description="Sets the gate's bounds from accepted runs that were explained: each measure's mean over them, less two of "
        "their standard deviations. explain.thresholds=FILE uses them.",
        example="python -m explain calibrate -o bounds.json runs/seed0 runs/seed1 runs/seed2",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs: the same training with several seeds")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the file")
    return parser


def _explain(args: argparse.Namespace) -> int:
    command.log_progress()
    refusal = "say once what to explain: run=<folder of a run, or with a model>"
    name, overrides = command.take_override(args.overrides, "run", refusal)
    if not any(each.startswith("explain=") for each in overrides):
        overrides.append("explain=enforce")
    from explain import model, run

    subject, options = model.load(name, overrides)
    folder = Path(args.folder) if args.folder else Path(name) / "explain"
    verdict = run.explain_model(subject, options, folder)
    print(run.summarise_verdict(verdict))
    print(f"isotrain: {folder / 'report.html'}", file=sys.stderr)
    return 0 if verdict.good or options.action == "warn" else 5


if __name__ == "__main__":
    command.run_main(main)
