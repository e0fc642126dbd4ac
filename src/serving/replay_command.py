"""The command `python -m serving replay`."""

import argparse
import json
from typing import Any

from config import command
from config.errors import EquivalenceError

_NO_RUN = "name one run by run=FOLDER, whose validation examples are sent"


def add_parser(commands: Any) -> None:
    """Add the command to those of `python -m serving`."""
    parser = command.add_command(
        commands,
        "replay",
        "check that a server answers as the run was validated",
        "Sends the validation examples of a run to a server, and compares the answers with predictions.jsonl of the run: "
        "text, positions and classes must be equal, numbers within --tolerance. Ends with 0 if all are equal, and with 5 "
        "and a list if not. The data of the run must be available on this machine.",
        "python -m serving replay http://localhost:8080 run=outputs/a",
    )
    parser.add_argument("url", metavar="URL", help="address of the server, such as http://localhost:8080")
    parser.add_argument("model", metavar="run=FOLDER", help="run folder")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="inputs of a request (default: 8)")
    parser.add_argument("--clients", type=int, default=4, metavar="N", help="requests at a time (default: 4)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-3,
        metavar="T",
        help="largest difference of a number, relative where it is above 1 (default: 0.001)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="send the first N examples only (default: all)")
    parser.add_argument(
        "--wait", type=float, default=60.0, metavar="S", help="seconds until the server must be ready (default: 60)"
    )
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    parser.set_defaults(run_command=_run)


def _run(args: argparse.Namespace) -> int:
    folder, _ = command.take_override([args.model], "run", _NO_RUN)
    command.check_options(
        args,
        {
            "batch_size": (1, 1024),
            "clients": (1, 256),
            "tolerance": (0, 1),
            "limit": (1, 10**9),
            "wait": (0, 86_400),
        },
    )
    from serving import replay

    outcome = replay.replay(
        args.url,
        folder,
        batch_size=args.batch_size,
        clients=args.clients,
        tolerance=args.tolerance,
        limit=args.limit,
        wait=args.wait,
    )
    if args.json:
        print(json.dumps(replay.to_mapping(outcome), ensure_ascii=False, indent=2), flush=True)
    if outcome.differences:
        raise EquivalenceError(replay.describe_differences(outcome, args.url, folder))
    if not args.json:
        print(replay.format_replay(outcome, args.url, folder), flush=True)
    return 0
