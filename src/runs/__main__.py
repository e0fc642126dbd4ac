"""What runs left behind: `python -m runs show <folder>` and `python -m runs list [folder ...]`."""

import argparse
import json
import os
import sys
from pathlib import Path

from runs.errors import Refused


def main(arguments: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: those after `python -m runs`; sys.argv's if not given.

    Returns:
        Exit code: 0 done, 2 refused.
    """
    asked = _parser().parse_args(arguments)
    # A folder's name may hold bytes that are not UTF-8, and a terminal may know less than that.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        print(_show(asked) if asked.command == "show" else _list(asked), flush=True)
    except Refused as error:
        print(f"isotrain: {str(error).encode('ascii', 'backslashreplace').decode()}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `| head` has seen enough; Python would complain again while it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _show(asked: argparse.Namespace) -> str:
    from runs.folder import read_record
    from runs.show import as_text
    from runs.terminal import columns

    record = read_record(asked.folder)
    return json.dumps(record, indent=2) if asked.json else as_text(asked.folder, record, columns())


def _list(asked: argparse.Namespace) -> str:
    from runs.listing import as_table, find
    from runs.terminal import columns

    roots = asked.folders or [name for name in ("outputs", "multirun") if Path(name).is_dir()]
    missing = [name for name in roots if not Path(name).exists()]
    if missing:
        raise Refused(f"there is no folder {missing[0]}")
    rows = find(roots)
    if asked.json:
        return json.dumps(rows, indent=2)
    if not rows:
        where = " or ".join(roots) if roots else "outputs or multirun here"
        return f"no runs in {where}; python train.py makes one"
    return as_table(rows, columns())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runs", description="What runs left behind.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    show = commands.add_parser("show", help="one run, readably", description="Prints one run readably.")
    show.add_argument("folder", help="a run's folder (its hydra.run.dir)")
    show.add_argument("--json", action="store_true", help="print its run.json")
    several = commands.add_parser("list", help="a table of runs", description="Tabulates runs, newest first.")
    several.add_argument("folders", nargs="*", help="runs, or folders above them (default: outputs and multirun)")
    several.add_argument("--json", action="store_true", help="print a JSON list, with all metrics of each run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
