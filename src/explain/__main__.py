"""Explanations without training: `python -m explain [calibrate] run=FOLDER [OVERRIDE ...]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config.errors import Refused, for_people


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

        asked = _calibrate().parse_args(given[1:])
        return calibrate.command(asked.runs, asked.output)
    return _explain(_parser().parse_intermixed_args(given))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m explain",
        usage="python -m explain [-h] [--folder DIR] run=FOLDER [OVERRIDE ...]\n"
        "       python -m explain calibrate --help",
        description="Explains what a trained model looks at, judges it against chance, and writes a report: verdict.json, "
        "values.npz, explanations.jsonl, report.md, report.html. Exit code 5 if it fails, or could not be judged.",
        epilog="e.g. python -m explain run=outputs/2026-11-20/23-28-01 explain.examples=64",
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
    parser = argparse.ArgumentParser(
        prog="python -m explain calibrate",
        usage="python -m explain calibrate [-h] -o FILE RUN RUN RUN ...",
        description="Sets the gate's bounds from accepted runs that were explained: each measure's mean over them, less two of "
        "their standard deviations. explain.thresholds=FILE uses them.",
        epilog="e.g. python -m explain calibrate -o bounds.json runs/seed0 runs/seed1 runs/seed2",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs: the same training with several seeds")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the file")
    return parser


def _explain(asked: Any) -> int:
    import logging

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    names = [each.removeprefix("run=") for each in asked.overrides if each.startswith("run=")]
    overrides = [each for each in asked.overrides if not each.startswith("run=")]
    if len(names) != 1:
        raise Refused("say once what to explain: run=<folder of a run, or with a model>")
    if not any(each.startswith("explain=") for each in overrides):
        overrides.append("explain=enforce")
    from explain import model, run

    subject, options = model.load(names[0], overrides)
    folder = Path(asked.folder) if asked.folder else Path(names[0]) / "explain"
    verdict = run.run(subject, options, folder)
    print(run.text(verdict))
    print(f"isotrain: {folder / 'report.html'}", file=sys.stderr)
    return 0 if verdict.good or options.action == "warn" else 5


if __name__ == "__main__":
    with for_people():
        sys.exit(main())
