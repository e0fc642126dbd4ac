"""Commands on runs: `python -m runs show FOLDER`, `list`, `compare A B`, `report`, `register`, `floor` and `champion`."""

import sys
from pathlib import Path

# Before files of the working directory, such as a config.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import json
import os
import shlex
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from config import command
from config.errors import InputError


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands.

    Args:
        arguments: Arguments after `python -m runs`; sys.argv's by default.

    Returns:
        Exit code 0.

    Raises:
        InputError: The arguments, or what they name, are invalid.
        UnreachableError: A server does not answer.
    """
    args = _parser().parse_args(arguments)
    print(args.call(args), flush=True)
    return 0


def _show(args: argparse.Namespace) -> str:
    from config.terminal import terminal_width
    from runs.folder import read_record
    from runs.rerun import rerun_command
    from runs.show import format_run

    record = read_record(args.folder)
    if args.rerun:
        rerun = rerun_command(Path(args.folder), record)
        print(*(f"# {note}" for note in rerun.notes), sep="\n", file=sys.stderr)
        return shlex.join(rerun.command)
    return json.dumps(record, indent=2) if args.json else format_run(args.folder, record, terminal_width())


def _list(args: argparse.Namespace) -> str:
    from config.terminal import terminal_width
    from runs.listing import filter_runs, find_runs
    from runs.listing_table import format_csv, format_runs

    roots = args.folders or [name for name in ("outputs", "multirun") if Path(name).is_dir()]
    _check_folders(roots)
    rows = filter_runs(find_runs(roots), args.conditions, args.sort, args.limit)
    if args.json:
        return json.dumps(rows, indent=2)
    columns = [name for name in args.columns.split(",") if name]
    if args.csv:
        return format_csv(rows, columns)
    if not rows:
        location = " or ".join(roots) if roots else "outputs or multirun"
        return f"no such runs in {location}" if args.conditions else f"no runs in {location}; python train.py makes one"
    return format_runs(rows, terminal_width(), columns)


def _compare(args: argparse.Namespace) -> str:
    from config.terminal import terminal_width
    from runs.compare import compare_runs, comparison_to_json, format_comparison

    comparison = compare_runs(args.sides, args.metric, args.margin, args.seed, args.resamples)
    if args.json:
        return json.dumps(comparison_to_json(comparison), indent=2)
    return format_comparison(comparison, terminal_width())


def _report(args: argparse.Namespace) -> str:
    from reports.page import check_page
    from runs import report, report_index
    from runs.listing import find_runs

    against = Path(args.against) if args.against else None
    if len(args.folders) == 1 and (Path(args.folders[0]) / "run.json").exists() and args.output is None:
        return str(report.write(Path(args.folders[0]), against))
    _check_folders(args.folders)
    rows = find_runs(args.folders)
    if not rows:
        raise InputError(f"there are no runs in {', '.join(args.folders)}")
    common = Path(os.path.commonpath([Path(name).absolute() for name in args.folders]))
    target = Path(args.output or common / report.FILE)
    if (common / "run.json").exists() and args.output is None:
        raise InputError(f"{common} is a run folder, which has its own {target.name}: name the page with -o")
    check_page(target)
    for number, row in enumerate(rows, 1):
        _show_progress(number, len(rows))
        if row["status"] in ("damaged", "foreign", "incomplete"):
            continue
        try:
            report.write(Path(row["folder"]), against)
        except Exception as error:  # one broken run must not prevent the pages of the others
            row["problem"] = f"no report: {type(error).__name__}: {error}"
    try:
        report_index.write(target, rows)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}") from None
    return os.path.relpath(target)


def _register(args: argparse.Namespace) -> str:
    from runs import registry

    if args.rollback:
        if args.run or not args.name:
            raise InputError("--rollback needs the --name of the registered model, and no run")
        version = registry.rollback_champion(args.name, args.server)
    elif not args.run:
        raise InputError("name a run to register: python -m runs register outputs/…")
    else:
        names = ["name", "server", "champion", "use", "licence", "despite_gates", "kubeflow", "instead_of", "floor"]
        options = {name: getattr(args, name) for name in [*names, "justification"]}
        version = registry.register_run(Path(args.run), **options)
    if args.json:
        return json.dumps(asdict(version))
    note = "" if version.new or args.rollback else ", already registered"
    reason = f"\nnot promoted: {version.reason}" if version.reason else ""
    return f"{version.name} version {version.version}{note}: {', '.join(version.aliases)}{reason}"


def _floor(args: argparse.Namespace) -> str:
    from config.terminal import terminal_width
    from runs import floor
    from runs.folder import read_record

    verdict = floor.judge_floor(Path(args.run), args.floor)
    record = read_record(args.run)
    if args.json:
        return json.dumps(asdict(verdict) | {"obstacle": floor.promotion_obstacle(Path(args.run), record, verdict)})
    return floor.format_floor(Path(args.run), record, verdict, terminal_width())


def _champion(args: argparse.Namespace) -> str:
    from runs import registry

    champion = registry.find_champion(args.name, args.server, Path(args.folder) if args.folder else None)
    if args.json:
        return json.dumps(champion)
    if champion is None:
        return f"{args.name} has no champion"
    return f"{champion['name']} version {champion['version']}, from {champion['run']}"


def _check_folders(names: list[str]) -> None:
    if missing := [name for name in names if not Path(name).exists()]:
        raise InputError(f"there is no folder {missing[0]}")


def _show_progress(number: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{number} of {total} runs", end="\n" if number == total else "", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser("runs", "Show, compare and register runs.", "python -m runs list")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, call: Callable[[argparse.Namespace], str], summary: str, details: str = "") -> Any:
        subparser = command.add_command(commands, name, summary, details)
        subparser.set_defaults(call=call)
        return subparser

    _add_show(add("show", _show, "show one run"))
    _add_list(add("list", _list, "list runs, newest first"))
    text = "Each side is compared with the first one."
    _add_compare(add("compare", _compare, "compare runs on the same evaluation examples", text))
    text = "For several runs, also write a page about all of them."
    _add_report(add("report", _report, "write report.html into run folders", text))
    text = (
        "It becomes a candidate, or with --champion the champion, if it reaches its floor (`runs floor`) and no gate failed. "
        "Its card and lineage are registered with it."
    )
    _add_register(add("register", _register, "register the model of a run in MLflow", text))
    text = (
        "The floor is --floor, else the model's in conf/known_results.yaml, else the result of model=majority on the same "
        "validation examples, which is run, and which the run must exceed significantly."
    )
    _add_floor(add("floor", _floor, "show the floor of a run, which a first champion must reach", text))
    text = "Optionally download its run."
    _add_champion(add("champion", _champion, "print the champion of a registered model", text))
    return parser


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="run folder")
    parser.add_argument("--command", dest="rerun", action="store_true", help="print the command that repeats the run")
    parser.add_argument("--json", action="store_true", help="print run.json")


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders",
        nargs="*",
        metavar="RUN",
        help="run folders, or folders that contain some (default: outputs and multirun)",
    )
    parser.add_argument(
        "--where",
        dest="conditions",
        action="append",
        default=[],
        metavar="CONDITION",
        help="show matching runs only: model=bert, 'val_f1>80', 'optim.lr<1e-3' (repeatable)",
    )
    parser.add_argument(
        "--sort",
        metavar="NAME",
        help="sort by a metric, field or key of the configuration, descending; ascending: --sort=-NAME",
    )
    parser.add_argument(
        "--columns",
        default="",
        metavar="NAMES",
        help="show these metrics, fields or keys of the configuration: optim.lr,seed (default: those that differ)",
    )
    parser.add_argument("-n", dest="limit", type=int, metavar="N", help="maximum number of runs")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--csv", action="store_true", help="print CSV with all metrics and the keys that differ")
    output.add_argument(
        "--json", action="store_true", help="print a JSON list with all metrics and the configuration of each run"
    )


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sides",
        nargs="+",
        metavar="SIDE",
        help="run folder; or runs with several seeds: a folder that contains them, or RUN,RUN,...",
    )
    parser.add_argument(
        "--metric", action="append", default=[], metavar="NAME", help="compare this metric only (repeatable)"
    )
    parser.add_argument(
        "--margin",
        type=_margin,
        metavar="X",
        help="non-inferiority margin in the unit of the metric; applies to --metric, or to the metrics with the direction "
        "of the task's monitor",
    )
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="seed of the resampling (default: 0)")
    parser.add_argument(
        "--resamples", type=_resamples, default=10_000, metavar="N", help="number of resamples (default: 10000)"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="RUN", help="run folders, or folders that contain some")
    parser.add_argument("--against", metavar="RUN", help="show configuration differences from this run")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="page about several runs (default: report.html in their common folder)"
    )


def _add_register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="folder of a finished run")
    parser.add_argument("--name", help="name of the registered model (default: task and data)")
    parser.add_argument(
        "--server", metavar="URI", help="address of MLflow (default: $MLFLOW_TRACKING_URI, or outputs/mlflow/mlflow.db)"
    )
    parser.add_argument(
        "--champion", action="store_true", help="make it the champion; the current one becomes the previous champion"
    )
    parser.add_argument(
        "--instead-of",
        metavar="VERSION",
        help="with --champion: only if VERSION (none: no version) is still the champion, and the model was never rolled back",
    )
    parser.add_argument(
        "--floor",
        type=_number,
        metavar="VALUE",
        help="with --champion: value that the run's monitor must reach (default: that of `runs floor`)",
    )
    parser.add_argument(
        "--justification",
        type=_text,
        metavar="TEXT",
        help="with --champion: promote it whatever floor and gates say; card and tags state the reason",
    )
    parser.add_argument("--rollback", action="store_true", help="make the previous champion the champion again")
    parser.add_argument("--use", metavar="TEXT", help="intended use of the model, for its card")
    parser.add_argument("--licence", metavar="NAME", help="licence of the model, for its card")
    parser.add_argument(
        "--kubeflow", metavar="ADDRESS", help="also register it in the Kubeflow Model Registry at this address"
    )
    parser.add_argument("--despite-gates", action="store_true", help="also register a model that failed a gate")
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def _add_floor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    parser.add_argument(
        "--floor", type=_number, metavar="VALUE", help="set the floor of the run's monitor, in its unit"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def _add_champion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the registered model")
    parser.add_argument("--folder", metavar="DIR", help="download its run.json, model, predictions and reports to DIR")
    parser.add_argument("--server", metavar="URI", help="address of MLflow (default: as for register)")
    parser.add_argument("--json", action="store_true", help="print a JSON object; null if there is no champion")


def _number(text: str) -> float:
    value = float(text)
    if not abs(value) < float("inf"):
        raise argparse.ArgumentTypeError("must be a finite number")
    return value


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _margin(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("a margin must be 0 or more")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError("must be 0 to 4294967295")
    return value


def _resamples(text: str) -> int:
    value = int(text)
    if not 100 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError("must be 100 to 1,000,000")
    return value


if __name__ == "__main__":
    command.run_main(main)
