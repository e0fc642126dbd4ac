"""python -m trainers evaluate|predict: what a trained model makes of other data.

evaluate run=FOLDER [OVERRIDES] [--output FOLDER]
    scores a run's best weights, or a plain transformers or timm model folder, on the validation split of any data
    set: data=squad data.path=... ; without data=, the run's own. Prints a metric line.
predict run=FOLDER [FILE ...] [--batch-size N]
    questions: JSON lines {"id", "question", "context"}, or SQuAD files; texts: JSON Lines, CSV or Parquet; images: files
    or folders. Without files, from standard input: JSON lines, or one image path a line. Prints a JSON line for each.
"""

import argparse
import sys
from collections.abc import Sequence

from config.errors import Refused, for_people


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trainers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    chosen = parser.parse_args(arguments)
    with for_people():
        if chosen.command == "evaluate":
            given = [each for each in chosen.overrides if each.startswith("run=")]
            rest = [each for each in chosen.overrides if not each.startswith("run=")]
            from trainers.evaluate import evaluate

            evaluate(_folder(given), rest, chosen.output)
        else:
            from trainers.predict import predict

            if chosen.batch_size < 1:
                raise Refused("--batch-size must be at least 1")
            options = {"no_answer_threshold": chosen.no_answer_threshold}
            predict(_folder([chosen.run]), chosen.files, chosen.batch_size, sys.stdin, sys.stdout, options)


def _folder(given: list[str]) -> str:
    if len(given) != 1 or not given[0].startswith("run=") or given[0] == "run=":
        raise Refused("name one model by run=FOLDER: a run's folder, or a transformers or timm model folder")
    return given[0].removeprefix("run=")


if __name__ == "__main__":
    main()
