"""What runs left behind: `python -m runs show <folder>`, `list`, `compare A B`, `report`, `register` and `champion`."""

import argparse
import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from config import command
from config.errors import InputError


def main(arguments: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: those after `python -m runs`; sys.argv's if not given.

    Returns:
        Exit code 0.

    Raises:
        InputError: the arguments, or what they name, cannot be used.
        UnreachableError: a server does not answer.
    """
    args = _parser().parse_args(arguments)
    print(args.run_command(args), flush=True)
    return 0


def _show(args: argparse.Namespace) -> str:
    from config.terminal import terminal_width
    from runs.folder import read_record
    from runs.show import format_run

    record = read_record(args.folder)
    if args.again:
        from runs.rerun import rerun_command

        found = rerun_command(Path(args.folder), record)
        print(*(f"# {note}" for note in found.notes), sep="\n", file=sys.stderr)
        return shlex.join(found.command)
    return json.dumps(record, indent=2) if args.json else format_run(args.folder, record, terminal_width())


def _list(args: argparse.Namespace) -> str:
    from config.terminal import terminal_width
    from runs.listing import filter_runs, find_runs, format_runs

    roots = args.folders or [name for name in ("outputs", "multirun") if Path(name).is_dir()]
    missing = [name for name in roots if not Path(name).exists()]
    if missing:
        raise InputError(f"there is no folder {missing[0]}")
    rows = filter_runs(find_runs(roots), args.where, args.sort, args.most)
    if args.json:
        return json.dumps(rows, indent=2)
    if not rows:
        where = " or ".join(roots) if roots else "outputs or multirun here"
        return f"no such runs in {where}" if args.where else f"no runs in {where}; python train.py makes one"
    return format_runs(rows, terminal_width())


def _compare(args: argparse.Namespace) -> str:
    from config.terminal import terminal_width
    from runs.compare import compare_runs, comparison_to_json, format_comparison

    found = compare_runs(args.sides, args.metric, args.margin, args.seed, args.resamples)
    return json.dumps(comparison_to_json(found), indent=2) if args.json else format_comparison(found, terminal_width())


def _report(args: argparse.Namespace) -> str:
    from runs import report, report_index
    from runs.listing import find_runs

    if len(args.folders) == 1 and (Path(args.folders[0]) / "run.json").exists() and args.output is None:
        return str(report.write(Path(args.folders[0]), Path(args.against) if args.against else None))
    if missing := [name for name in args.folders if not Path(name).exists()]:
        raise InputError(f"there is no folder {missing[0]}")
    summaries = find_runs(args.folders)
    if not summaries:
        raise InputError(f"there are no runs in {', '.join(args.folders)}")
    for number, each in enumerate(summaries, 1):
        _progress(number, len(summaries))
        if each["status"] in ("damaged", "foreign", "incomplete"):
            continue
        try:
            report.write(Path(each["folder"]), Path(args.against) if args.against else None)
        except Exception as error:  # one run's trouble is told in its row and takes no other's page
            each["problem"] = f"no report: {type(error).__name__}: {error}"
    target = Path(
        args.output or Path(os.path.commonpath([Path(name).absolute() for name in args.folders])) / report.FILE
    )
    try:
        report_index.write(target, summaries)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}") from None
    return os.path.relpath(target)


def _register(args: argparse.Namespace) -> str:
    from runs import registry

    if args.rollback:
        if args.run or not args.name:
            raise InputError("--rollback takes no run, and the --name of the registered model")
        found = registry.rollback_champion(args.name, args.server)
    elif not args.run:
        raise InputError("name a run to register: python -m runs register outputs/…")
    else:
        found = registry.register_run(
            Path(args.run),
            args.name,
            args.server,
            args.champion,
            args.use,
            args.licence,
            args.despite_gates,
            args.kubeflow,
            args.instead_of,
        )
    if args.json:
        return json.dumps(asdict(found))
    was = "" if found.new or args.rollback else ", which was there already"
    return f"{found.name} version {found.version}{was}: {', '.join(found.aliases)}"


def _champion(args: argparse.Namespace) -> str:
    from runs import registry

    found = registry.find_champion(args.name, args.server, Path(args.folder) if args.folder else None)
    if args.json:
        return json.dumps(found)
    if found is None:
        return f"{args.name} has no champion"
    return f"{found['name']} version {found['version']}, from {found['run']}"


def _progress(number: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{number} of {of} runs", end="\n" if number == of else "", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser("runs", "What runs left behind.", "python -m runs list")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for add in (_add_show, _add_list, _add_compare, _add_report, _add_register, _add_champion):
        add(commands)
    return parser


def _add_show(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("show", help="one run, readably", description="Prints one run readably.")
    parser.set_defaults(run_command=_show)
    parser.add_argument("folder", help="a run's folder (its hydra.run.dir)")
    parser.add_argument("--command", dest="again", action="store_true", help="print the command that does it again")
    parser.add_argument("--json", action="store_true", help="print its run.json")


def _add_list(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("list", help="a table of runs", description="Tabulates runs, newest first.")
    parser.set_defaults(run_command=_list)
    parser.add_argument("folders", nargs="*", help="runs, or folders above them (default: outputs and multirun)")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="only those: model=bert, status=finished, 'val_f1>80'",
    )
    parser.add_argument(
        "--sort", metavar="NAME", help="by a metric or value, largest first; --sort=-NAME turns it round"
    )
    parser.add_argument("-n", dest="most", type=int, metavar="N", help="at most so many")
    parser.add_argument("--json", action="store_true", help="print a JSON list, with all metrics of each run")


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "compare",
        help="models on the same examples, pair by pair",
        description="Compares models on the same evaluation examples, pair by pair, with the first.",
    )
    parser.set_defaults(run_command=_compare)
    parser.add_argument(
        "sides",
        nargs="+",
        metavar="SIDE",
        help="a run's folder; or runs of several seeds: a folder above them (--multirun makes one), or a,b,c",
    )
    parser.add_argument("--metric", action="append", default=[], help="only this one (again for others)")
    parser.add_argument(
        "--margin",
        type=_positive,
        help="how much worse may count as no worse, in the unit of the metric; without --metric, of the metrics that are "
        "better in the same direction as the one that the task is judged by",
    )
    parser.add_argument("--seed", type=_seed, default=0, help="of what is drawn again (default: 0)")
    parser.add_argument("--resamples", type=_many, default=10_000, help="how often (default: 10000)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "report",
        help="a page for a run, or for many",
        description="Writes report.html into each run's folder and, of several, a page above them.",
    )
    parser.set_defaults(run_command=_report)
    parser.add_argument("folders", nargs="+", metavar="RUN", help="runs, or folders above them")
    parser.add_argument("--against", metavar="RUN", help="say what the configuration differs from this one's by")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the page of several runs (default: report.html above them)"
    )


def _add_register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "register",
        help="a run's model into MLflow's registry",
        description="Registers a run's model, with its card and lineage, as a candidate or as the champion.",
    )
    parser.set_defaults(run_command=_register)
    parser.add_argument("run", nargs="?", help="a finished run's folder")
    parser.add_argument("--name", help="of the registered model (default: task and data)")
    parser.add_argument(
        "--server", metavar="URI", help="MLflow (default: MLFLOW_TRACKING_URI, or outputs/mlflow/mlflow.db)"
    )
    parser.add_argument(
        "--champion", action="store_true", help="take the champion's place, which becomes the previous one"
    )
    parser.add_argument(
        "--instead-of",
        metavar="VERSION",
        help="with --champion: only if that version (or none) is champion still, and this one was never rolled back",
    )
    parser.add_argument("--rollback", action="store_true", help="put the previous champion back")
    parser.add_argument("--use", help="what the model is meant for, for its card")
    parser.add_argument("--licence", help="of the model, for its card")
    parser.add_argument("--kubeflow", metavar="ADDRESS", help="tell a Kubeflow Model Registry of it, too")
    parser.add_argument("--despite-gates", action="store_true", help="also a model that a gate failed")
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def _add_champion(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "champion",
        help="which version of a registered model is champion",
        description="Says which version is champion, and fetches what its run left.",
    )
    parser.set_defaults(run_command=_champion)
    parser.add_argument("name", help="of the registered model")
    parser.add_argument("--folder", metavar="DIR", help="put its run.json, model, predictions and reports there")
    parser.add_argument("--server", metavar="URI", help="MLflow, as for register")
    parser.add_argument("--json", action="store_true", help="print a JSON object; null if there is no champion")


def _positive(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("a margin is 0 or more")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError("0 to 4294967295")
    return value


def _many(text: str) -> int:
    value = int(text)
    if not 100 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError("100 to 1,000,000")
    return value


if __name__ == "__main__":
    command.run_main(main)
