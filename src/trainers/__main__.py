"""python -m trainers evaluate|predict: a saved model on other data.

evaluate run=FOLDER [OVERRIDES] [--output FOLDER]
    evaluates a run's best weights, or a transformers or timm model folder, on the validation split of any data set
    (data=squad data.path=...); the default is the run's own. Prints a metric line.
predict run=FOLDER [FILE ...] [--batch-size N]
    questions: JSON lines {"id", "question", "context"}, or SQuAD files; texts: JSON Lines, CSV or Parquet; images: files
    or folders. Without files it reads standard input: JSON lines, or one image path a line. Prints a JSON line for each.
"""

import sys
from collections.abc import Sequence

from config import command
from config.errors import InputError

_NO_MODEL = "name one model by run=FOLDER: a run folder, or a transformers or timm model folder"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: those after `python -m trainers`; None for sys.argv's.

    Returns:
        The exit code (docs/exit_codes.md).
    """
    parser = command.make_parser("trainers", str(__doc__), verbatim=True)
    commands = parser.add_subparsers(dest="command", required=True)
    evaluate_parser = commands.add_parser("evaluate", help="evaluate a model on a data set")
    evaluate_parser.add_argument("overrides", nargs="+", metavar="run=FOLDER | OVERRIDE")
    evaluate_parser.add_argument("--output", metavar="FOLDER", help="folder for predictions.jsonl and metrics.jsonl")
    predict_parser = commands.add_parser("predict", help="answer questions, or label texts or images")
    predict_parser.add_argument("run", metavar="run=FOLDER")
    predict_parser.add_argument("files", nargs="*", metavar="FILE")
    predict_parser.add_argument("--batch-size", type=int, default=32)
    predict_parser.add_argument(
        "--no-answer-threshold",
        type=float,
        metavar="SCORE",
        help="SQuAD 2.0: no-answer score above which a question has no answer; default: the run's best threshold",
    )
    args = command.parse_arguments(parser, arguments)
    command.log_progress()
    if args.command == "evaluate":
        folder, overrides = command.take_override(args.overrides, "run", _NO_MODEL)
        from trainers.evaluate import evaluate

        evaluate(folder, overrides, args.output)
        return 0
    folder, _ = command.take_override([args.run], "run", _NO_MODEL)
    if args.batch_size < 1:
        raise InputError("--batch-size must be at least 1")
    from trainers.predict import predict

    options = {"no_answer_threshold": args.no_answer_threshold}
    predict(folder, args.files, args.batch_size, sys.stdin, sys.stdout, options)
    return 0


if __name__ == "__main__":
    command.run_main(main)
