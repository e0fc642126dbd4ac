"""The command `python -m serving serve`."""

import argparse
import errno
import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

from config import command, process
from config.errors import InputError
from serving.request_log import LOG_FORMATS

logger = logging.getLogger(__name__)

_NO_MODEL = "name one model by run=FOLDER (a run folder, or a transformers or timm model folder) or model=NAME (in the registry)"


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
    serve.add_argument(
        "model",
        metavar="run=FOLDER|model=NAME[@ALIAS]",
        help="run folder or model folder; or a model in MLflow's registry: NAME (its champion), NAME@ALIAS or NAME/VERSION",
    )
    serve.add_argument(
        "--follow",
        metavar="ALIAS",
        help="with model=NAME: change to another version when the alias does, such as champion, without a failed request",
    )
    serve.add_argument(
        "--poll", type=float, default=10.0, metavar="S",
        help="with --follow: seconds between two looks at the registry (default: 10)",
    )  # fmt: skip
    serve.add_argument(
        "--server", metavar="URL", help="MLflow's address (default: MLFLOW_TRACKING_URI, else outputs/mlflow/mlflow.db)"
    )
    serve.add_argument(
        "--models", metavar="FOLDER", help="folder of downloaded models (default: models in $ISOTRAIN_CACHE)"
    )
    serve.add_argument("--name", help="name of the model in addresses (default: the folder's)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8080, help="port, 0 for a free one (default: 8080)")
    serve.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="inputs that are predicted together (default: 32 on a GPU; 8 on a CPU, where more save nothing)",
    )
    serve.add_argument(
        "--delay-ms",
        type=float,
        default=2.0,
        metavar="MS",
        help="milliseconds to wait for as many inputs as in the last batch (default: 2)",
    )
    serve.add_argument(
        "--workers", type=int, default=1, metavar="N",
        help="processes that predict, each with a copy of the model (default: 1, a thread of the server)",
    )  # fmt: skip
    serve.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads of each (default: the cores divided among them)"
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
    serve.add_argument(
        "--log-format", default="text", choices=LOG_FORMATS,
        help="form of a line on stdout about each request; probes and /metrics have none (default: text)",
    )  # fmt: skip
    serve.add_argument(
        "--log-inputs", metavar="FOLDER",
        help="write a sample of inputs and answers there, as JSON Lines: a folder, or a URL such as s3://bucket/inputs",
    )  # fmt: skip
    serve.add_argument(
        "--log-sample", type=float, metavar="SHARE", help="share of the requests for --log-inputs (default: 0.1)"
    )
    serve.add_argument(
        "--log-max-mib", type=float, metavar="MIB",
        help="size of all files of --log-inputs; the oldest are removed (default: 1024)",
    )  # fmt: skip
    serve.set_defaults(run_command=_run)


def _run(args: argparse.Namespace) -> int:
    _check(args)
    load, load_last = _loaders(args)
    import torch

    from serving.app import Limits, Server
    from serving.run import serve

    args.batch_size = args.batch_size or (32 if torch.cuda.is_available() else 8)
    limits = Limits(args.batch_size, args.delay_ms / 1000, args.queue, args.timeout, int(args.max_body * 2**20))
    poll = args.poll if args.follow else None
    server = Server(limits, args.log_format, _input_log(args))
    try:
        serve(load, args.host, args.port, server, args.drain, poll, load_last)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
            raise
        raise InputError(f"--host {args.host} --port {args.port}: {os.strerror(error.errno)}") from None
    return 0


def _loaders(args: argparse.Namespace) -> tuple[Any, Any]:
    """Return what loads the model, and what loads the last one if the registry does not answer."""
    load_model = partial(_load_model, args)
    if not args.model.startswith("model="):
        folder, _ = command.take_override([args.model], "run", _NO_MODEL)
        if not Path(folder).is_dir():
            raise InputError(f"run={folder}: no such folder")
        if args.follow is not None:
            raise InputError("--follow needs model=NAME: a folder has no aliases")
        return lambda _: load_model(folder, args.name, None), None
    name, _ = command.take_override([args.model], "model", _NO_MODEL)
    from datamodules.storage import cache
    from serving import registered

    models = Path(args.models) if args.models else cache.root() / "models"
    source = registered.parse(name, args.follow, args.server, models)
    return (
        lambda current: registered.load(source, args.name, load_model, current),
        lambda: registered.load_last(source, args.name, load_model),
    )


def _load_model(args: argparse.Namespace, folder: str, name: str | None, version: str | None) -> Any:
    """Load a model in this process, or in several."""
    import torch

    from serving.model import load_model
    from serving.workers import load_in_workers

    threads = args.threads or max(1, process.available_cores() // args.workers)
    if args.workers > 1:
        load = partial(load_model, folder, name, version, batch_size=args.batch_size)
        return load_in_workers(load, args.workers, threads)
    torch.set_num_threads(threads)
    return load_model(folder, name, version, batch_size=args.batch_size)


def _input_log(args: argparse.Namespace) -> Any:
    if args.log_inputs is None:
        return None
    from serving.input_log import InputLog

    sample = 0.1 if args.log_sample is None else args.log_sample
    size = 1024.0 if args.log_max_mib is None else args.log_max_mib
    log = InputLog(args.log_inputs, sample, int(size * 2**20))
    logger.info(
        "inputs and answers of %g %% of the requests are written to %s, %g MiB at most; they may be about people",
        sample * 100, args.log_inputs, size,
    )  # fmt: skip
    return log


def _check(args: argparse.Namespace) -> None:
    if args.batch_size is not None and not 1 <= args.batch_size <= 4096:
        raise InputError(f"--batch-size {args.batch_size}: must be from 1 to 4096")
    command.check_options(
        args,
        {
            "delay_ms": (0, 10_000),
            "queue": (1, 10**6),
            "timeout": (0.1, 3600),
            "poll": (0.1, 86_400),
            "workers": (1, 256),
        },
    )
    process.check_processes("--workers", args.workers)
    if args.threads is not None and not 1 <= args.threads <= 1024:
        raise InputError(f"--threads {args.threads}: must be from 1 to 1024")
    if not 0 <= args.port < 2**16:
        raise InputError(f"--port {args.port}: must be from 0 to 65535")
    if not args.max_body > 0:
        raise InputError(f"--max-body {args.max_body:g}: must be more than 0")
    if not 0 <= args.drain <= 3600:
        raise InputError(f"--drain {args.drain:g}: must be from 0 to 3600")
    for name, value in (("sample", args.log_sample), ("max-mib", args.log_max_mib)):
        if value is not None and args.log_inputs is None:
            raise InputError(f"--log-{name} {value:g}: has no effect without --log-inputs FOLDER")
    if args.log_sample is not None and not 0 < args.log_sample <= 1:
        raise InputError(f"--log-sample {args.log_sample:g}: must be more than 0 and at most 1")
    if args.log_max_mib is not None and not 1 <= args.log_max_mib < 2**40:
        raise InputError(f"--log-max-mib {args.log_max_mib:g}: must be 1 or more")
    if args.name is not None and (not args.name or "/" in args.name):
        raise InputError(f"--name {args.name!r}: must not be empty or have a slash: it is a part of addresses")
