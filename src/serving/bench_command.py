"""The command `python -m serving bench`."""

import argparse
import json
from typing import Any

from config import command, terminal

_NO_RUN = "name one run by run=FOLDER, whose validation examples are sent"


def add_parser(commands: Any) -> None:
    """Add the command to those of `python -m serving`."""
    parser = command.add_command(
        commands,
        "bench",
        "measure answers per second and latencies of a server",
        "Sends validation examples of a run to a server, by several numbers of clients, each of which waits for its answer "
        "(closed loop), and at the rates of --rates, whether earlier requests were answered or not (open loop). The data of "
        "the run must be available on this machine.",
        "python -m serving bench http://localhost:8080 run=outputs/a",
    )
    parser.add_argument("url", metavar="URL", help="address of the server, such as http://localhost:8080")
    parser.add_argument("model", metavar="run=FOLDER", help="run folder")
    parser.add_argument(
        "--clients", type=int, nargs="+", default=[1, 8, 64], metavar="N", help="numbers of clients (default: 1 8 64)"
    )
    parser.add_argument(
        "--rates",
        type=float,
        nargs="+",
        default=[],
        metavar="R",
        help="requests per second, at random moments (default: none)",
    )
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="seconds of each load (default: 10)")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="inputs of a request (default: 1)")
    parser.add_argument(
        "--limit", type=int, default=200, metavar="N", help="number of different examples that are sent (default: 200)"
    )
    parser.add_argument(
        "--wait", type=float, default=60.0, metavar="S", help="seconds until the server must be ready (default: 60)"
    )
    parser.add_argument("--json", action="store_true", help="print the measurements as JSON")
    parser.set_defaults(run_command=_run)


def _run(args: argparse.Namespace) -> int:
    folder, _ = command.take_override([args.model], "run", _NO_RUN)
    command.check_options(
        args,
        {
            "clients": (1, 1024),
            "rates": (0.01, 1e6),
            "seconds": (0.1, 86_400),
            "batch_size": (1, 1024),
            "limit": (1, 10**6),
            "wait": (0, 86_400),
        },
    )
    from serving import bench

    rows = bench.run(
        args.url, folder, clients=args.clients, rates=args.rates, seconds=args.seconds,
        batch_size=args.batch_size, limit=args.limit, wait=args.wait,
    )  # fmt: skip
    if args.json:
        print(json.dumps(rows, indent=2), flush=True)
    else:
        print(bench.format_rows(rows, args.batch_size, terminal.terminal_width()), flush=True)
    return 0
