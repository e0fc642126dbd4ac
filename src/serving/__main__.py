"""Answers of saved models over HTTP: `python -m serving serve run=FOLDER`, `replay`, which checks them, and `export`."""

import sys
from pathlib import Path

# Before files of the working directory, such as a config.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import os
from collections.abc import Sequence

from config import command
from config.errors import InputError
from serving import bench_command, export_command, manifest_command, replay_command, serve_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: those after `python -m serving`; None for sys.argv's.

    Returns:
        The exit code (docs/exit_codes.md).
    """
    parser = command.make_parser("serving", "Serve a saved model over HTTP.", "python -m serving serve run=outputs/a")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve_command.add_parser(commands)
    replay_command.add_parser(commands)
    bench_command.add_parser(commands)
    manifest_command.add_parser(commands)
    export_command.add_parser(commands)
    args = command.parse_arguments(parser, arguments)
    args.words = list(sys.argv[1:] if arguments is None else arguments)
    command.log_progress()
    # Before torch is imported. A thread that spins while it waits takes the core that another one needs, such as that of the
    # requests: with two threads on two cores that others used, too, a small model answered 75 requests in the time of 585.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        code: int = args.run_command(args)
    except ModuleNotFoundError as error:
        raise InputError(f"serving needs {error.name}: pip install -e '.[serving]' in isotrain's checkout") from None
    return code


if __name__ == "__main__":
    command.run_main(main)
