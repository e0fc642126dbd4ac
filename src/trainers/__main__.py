"""Saved models on other data: `python -m trainers evaluate|predict run=FOLDER ...`."""

import sys
from pathlib import Path

# Before files of the working directory, such as a config.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
from collections.abc import Sequence
from pathlib import Path

from config import command, search_path
from config.errors import InputError

_NO_MODEL = "name one model by run=FOLDER: a run folder, or a transformers or timm model folder"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: those after `python -m trainers`; None for sys.argv's.

    Returns:
        The exit code (docs/exit_codes.md).
    """
    args = command.parse_arguments(_make_parser(), arguments)
    command.log_progress()
    if args.command == "evaluate":
        folder, overrides = command.take_override(args.overrides, "run", _NO_MODEL)
        from trainers.evaluate import evaluate
        from trainers.saved_model import model_errors

        with model_errors(folder):
            evaluate(folder, overrides, args.output, args.split)
        return 0
    folder, _ = command.take_override([args.run], "run", _NO_MODEL)
    if args.command == "baseline":
        from trainers.evaluate import evaluate_baseline

        evaluate_baseline(folder, args.output)
        return 0
    if args.batch_size < 1:
        raise InputError("--batch-size must be at least 1")
    args.files = [name for name in args.files if not search_path.is_override(name)]  # read at the start of the command
    if missing := [name for name in args.files if not Path(name).exists()]:
        raise InputError(f"{missing[0]}: no such file")  # before the model is loaded, which takes seconds
    output = None if args.output is None else Path(args.output)
    if output is not None:
        from trainers.prediction_formats import check_output

        check_output(output, args.files)
    from trainers.predict import predict
    from trainers.saved_model import model_errors

    options = {"no_answer_threshold": args.no_answer_threshold}
    with model_errors(folder):
        predict(folder, args.files, args.batch_size, sys.stdin, sys.stdout, options, args.trust_remote_code, output)
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = command.make_parser(
        "trainers",
        "Evaluate a saved model on other data, or predict with it.",
        "python -m trainers predict run=outputs/a questions.jsonl",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    evaluate = command.add_command(
        commands,
        "evaluate",
        "evaluate a model on a validation split or the test part, and print a metric line",
        "The model is the best of a run, or a transformers or timm model folder. Overrides such as data=squad select the "
        "data; the default is the data of the run.",
        "python -m trainers evaluate run=outputs/a --split test",
        "python -m trainers evaluate [OPTIONS] run=FOLDER [OVERRIDE ...]",
    )
    evaluate.add_argument(
        "overrides", nargs="+", metavar="OVERRIDE", help="run=FOLDER: a run or model folder; others as for train.py"
    )
    evaluate.add_argument(
        "--split",
        choices=("val", "test"),
        default="val",
        help="test: score the test part (data.test_file, data.test_split, or a file or folder test) once, at the end; its "
        "result is in RUN/test (default: val)",
    )
    evaluate.add_argument("--output", metavar="FOLDER", help="folder for predictions.jsonl and metrics.jsonl")
    baseline = command.add_command(
        commands,
        "baseline",
        "evaluate model=majority on the data of a run and print a metric line",
        "It learns from the run's training data and predicts its validation split.",
        "python -m trainers baseline run=outputs/a --output outputs/a-baseline",
    )
    baseline.add_argument("run", metavar="run=FOLDER", help="run folder")
    baseline.add_argument("--output", metavar="FOLDER", help="folder for predictions.jsonl and metrics.jsonl")
    predict = command.add_command(
        commands,
        "predict",
        "print or write the prediction for each input",
        "Inputs are, by the task of the model: questions and contexts, or texts, as JSON Lines, CSV, TSV or Parquet with the "
        "columns of training (answers and labels are not needed); SQuAD files; images as files or folders. A prediction is a "
        "JSON line on stdout, or a row of --output; a command with --output that was stopped goes on when it is repeated.",
        "python -m trainers predict run=outputs/a questions.jsonl --output answers.csv",
    )
    predict.add_argument("run", metavar="run=FOLDER", help="run folder or model folder")
    predict.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="input files (default: stdin, with JSON Lines, or one image path per line), and hydra.searchpath=[FOLDER] for "
        "a model of your own",
    )
    predict.add_argument(
        "--output",
        metavar="FILE",
        help="file for the predictions; the suffix chooses the format: .jsonl, .csv or .parquet (default: JSON Lines on stdout)",
    )
    predict.add_argument("--batch-size", type=int, default=32, metavar="N", help="examples per batch (default: 32)")
    predict.add_argument(
        "--no-answer-threshold",
        type=float,
        metavar="SCORE",
        help="SQuAD 2.0: score above which a question has no answer (default: the run's best threshold)",
    )
    predict.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run the code that the model folder contains or names (default: refuse such models)",
    )
    return parser


if __name__ == "__main__":
    command.run_main(main)
