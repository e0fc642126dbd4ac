"""Explanations without training: `python -m explain [calibrate] run=FOLDER [OVERRIDE ...]`."""

import sys
from pathlib import Path

# Before files of the working directory, such as a config.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import logging
from collections.abc import Sequence

from config import command

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command line after `python -m explain`; default: that of sys.argv.

    Returns:
        The exit code (docs/exit_codes.md).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["calibrate"]:
        from explain import calibrate

        args = _calibrate_parser().parse_args(words[1:])
        return calibrate.command(args.runs, args.output)
    return _explain(command.parse_arguments(_explain_parser(), words))


def _explain_parser() -> argparse.ArgumentParser:
    parser = command.make_parser(
        "explain",
        usage="python -m explain [-h] [--folder DIR] run=FOLDER [OVERRIDE ...]\n"
        "       python -m explain calibrate --help",
        description="Explain the predictions of a trained model, compare the explanations with chance, and write a report: "
        "report.html, report.md, verdict.json, explanations.jsonl, values.npz. Exit code 5 if the verdict is failed or "
        "inconclusive.",
        example="python -m explain run=outputs/a explain.examples=64",
        commands=("calibrate  compute the bounds of the gate from accepted runs",),
    )
    parser.add_argument(
        "overrides",
        nargs="+",
        metavar="OVERRIDE",
        help="run=FOLDER: a run or model folder; others as for train.py: data=... (default: the run's), explain=warn, "
        "explain.examples=64",
    )
    parser.add_argument(
        "--folder", metavar="DIR", help="folder of the report (default: explain/ in the run or model folder)"
    )
    return parser


def _calibrate_parser() -> argparse.ArgumentParser:
    parser = command.make_parser(
        "explain calibrate",
        usage="python -m explain calibrate [-h] -o FILE RUN RUN RUN ...",
        description="Compute the bounds of the gate from accepted runs with explanations: the mean of each measure over the "
        "runs minus two standard deviations. Use the file with explain.thresholds=FILE.",
        example="python -m explain calibrate -o bounds.json runs/seed0 runs/seed1 runs/seed2",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folders: one configuration with at least three seeds"
    )
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="file to write")
    return parser


def _explain(args: argparse.Namespace) -> int:
    command.log_progress()
    message = "name the model once: run=<run folder or model folder>"
    name, overrides = command.take_override(args.overrides, "run", message)
    if not any(override.startswith("explain=") for override in overrides):
        overrides.append("explain=enforce")
    from explain import model, run
    from trainers.saved_model import model_errors

    folder = Path(args.folder) if args.folder else Path(name) / "explain"
    with model_errors(name):
        subject, options = model.load(name, overrides)
        verdict = run.explain_model(subject, options, folder)
    _update_page(Path(name), folder)
    print(run.summarise_verdict(verdict))
    print(f"isotrain: {folder / 'report.html'}", file=sys.stderr)
    return 0 if verdict.accepted or options.action == "warn" else 5


def _update_page(run_folder: Path, folder: Path) -> None:
    """Write the page of the explained run again, which then has the verdict. A failure is a warning."""
    from runs import folder as folders
    from runs import report

    if folder.resolve() != (run_folder / "explain").resolve() or not (run_folder / folders.RECORD).exists():
        return  # the report is elsewhere, or the model is not of a run
    try:
        report.write(run_folder)
    except Exception as error:  # of a task's functions, perhaps: the explanation is complete
        logger.warning("%s was not updated with the verdict: %s", run_folder / report.FILE, error)


if __name__ == "__main__":
    command.run_main(main)
