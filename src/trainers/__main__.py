"""python -m trainers evaluate|predict: what a trained model makes of other data.

evaluate run=FOLDER [OVERRIDES] [--output FOLDER]
    scores a run's best weights, or a plain transformers or timm model folder, on the validation split of any data
    set: data=squad data.path=... ; without data=, the run's own. Prints a metric line.
predict run=FOLDER [FILE ...] [--batch-size N]
    questions: JSON lines {"id", "question", "context"}, or SQuAD files; texts: JSON Lines, CSV or Parquet; images: files
    or folders. Without files, from standard input: JSON lines, or one image path a line. Prints a JSON line for each.
"""

import sys
from collections.abc import Sequence

from config import command
from config.errors import InputError

NO_MODEL = "name one model by run=FOLDER: a run's folder, or a transformers or timm model folder"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: those after `python -m trainers`; sys.argv's if not given.

    Returns:
        The exit code (docs/exit_codes.md).
    """
    parser = command.make_parser("trainers", str(__doc__), verbatim=True)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("evaluate", help="score a model on a data set")
    one.add_argument("overrides", nargs="+", metavar="run=FOLDER | OVERRIDE")
    one.add_argument("--output", metavar="FOLDER", help="where predictions.jsonl and metrics.jsonl go")
    two = commands.add_parser("predict", help="answer questions, or label texts or images")
    two.add_argument("run", metavar="run=FOLDER")
    two.add_argument("files", nargs="*", metavar="FILE")
    two.add_argument("--batch-size", type=int, default=32)
    two.add_argument(
        "--no-answer-threshold",
        type=float,
        metavar="SCORE",
        help='SQuAD 2.0: "no answer" where its score is above this; default: the threshold that the run measured',
    )
    args = command.parse_arguments(parser, arguments)
    command.log_progress()
    if args.command == "evaluate":
        folder, overrides = command.take_override(args.overrides, "run", NO_MODEL)
        from trainers.evaluate import evaluate

        evaluate(folder, overrides, args.output)
        return 0
    folder, _ = command.take_override([args.run], "run", NO_MODEL)
    if args.batch_size < 1:
        raise InputError("--batch-size must be at least 1")
    from trainers.predict import predict

    options = {"no_answer_threshold": args.no_answer_threshold}
    predict(folder, args.files, args.batch_size, sys.stdin, sys.stdout, options)
    return 0


if __name__ == "__main__":
    command.run_main(main)
