"""The command `python -m serving serve`."""

import argparse
import errno
import os
from functools import partial
from pathlib import Path
from typing import Any

from config import command
from config.errors import InputError

_NO_MODEL = "name one model by run=FOLDER: a run folder, or a transformers or timm model folder"


def add_parser(commands: Any) -> None:
    """Add the command to those of `python -m serving`."""
    serve = command.add_command(
        commands,
        "serve",
        "answer requests of the Open Inference Protocol with a saved model",
        "Addresses are those of the Open Inference Protocol V2 (/v2/models/NAME/infer), /predict for JSON as of `trainers "
        "predict`, /metrics for Prometheus, and /docs, which describes them. Requests that come together are predicted "
        "together. SIGTERM ends the server after the requests that are under way.",
        "python -m serving serve run=outputs/a --port 8080",
    )
    serve.add_argument("model", metavar="run=FOLDER", help="run folder or model folder")
    serve.add_argument("--name", help="name of the model in addresses (default: the folder's)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8080, help="port, 0 for a free one (default: 8080)")
    serve.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="inputs that are predicted together (default: 32)"
    )
    serve.add_argument(
        "--delay-ms", type=float, default=2.0, metavar="MS", help="milliseconds to wait for a full batch (default: 2)"
    )
    serve.add_argument(
        "--queue",
        type=int,
        default=1024,
        metavar="N",
        help="inputs that may wait; more are answered 503 (default: 1024)",
    )
    serve.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds for a request, then it is answered 504 (default: 30)",
    )
    serve.add_argument(
        "--max-body",
        type=float,
        default=16.0,
        metavar="MIB",
        help="size of a body; larger ones are answered 413 (default: 16)",
    )
    serve.add_argument(
        "--drain", type=float, default=0.0, metavar="S",
        help="seconds after SIGTERM in which requests are still accepted, until load balancers have noticed (default: 0)",
    )  # fmt: skip
    serve.set_defaults(run_command=_run)


def _run(args: argparse.Namespace) -> int:
    folder, _ = command.take_override([args.model], "run", _NO_MODEL)
    _check(args)
    if not Path(folder).is_dir():
        raise InputError(f"run={folder}: no such folder")
    from serving.app import Limits
    from serving.model import load_model
    from serving.run import serve

    limits = Limits(args.batch_size, args.delay_ms / 1000, args.queue, args.timeout, int(args.max_body * 2**20))
    try:
        serve(partial(load_model, folder, args.name, args.batch_size), args.host, args.port, limits, args.drain)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
            raise
        raise InputError(f"--host {args.host} --port {args.port}: {os.strerror(error.errno)}") from None
    return 0


def _check(args: argparse.Namespace) -> None:
    for name, low, high in (
        ("batch_size", 1, 4096),
        ("delay_ms", 0, 10_000),
        ("queue", 1, 10**6),
        ("timeout", 0.1, 3600),
    ):
        if not low <= getattr(args, name) <= high:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)}: must be from {low:g} to {high:g}")
    if not 0 <= args.port < 2**16:
        raise InputError(f"--port {args.port}: must be from 0 to 65535")
    if not args.max_body > 0:
        raise InputError(f"--max-body {args.max_body:g}: must be more than 0")
    if not 0 <= args.drain <= 3600:
        raise InputError(f"--drain {args.drain:g}: must be from 0 to 3600")
    if args.name is not None and (not args.name or "/" in args.name):
        raise InputError(f"--name {args.name!r}: must not be empty or have a slash: it is a part of addresses")
