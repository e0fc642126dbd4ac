"""The command `python -m serving export`."""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from config import command
from config.errors import InputError
from config.terminal import make_printable

_NO_MODEL = "name one model by run=FOLDER: a run folder, or a transformers or timm model folder"
_FORMATS = ("onnx", "onnx-int8", "bf16")


def add_parser(commands: Any) -> None:
    """Add the command to those of `python -m serving`."""
    parser = command.add_command(
        commands,
        "export",
        "write a smaller or faster copy of a model, if its answers and explanations stay the same",
        "The copy answers the validation split beside the original. It is kept if its metrics are non-inferior, its "
        "explanations agree, and the bounds of latency and size hold; else exit code 5. The report is in OUTPUT/export.",
        "python -m serving export run=outputs/a --to onnx-int8",
        "python -m serving export [OPTIONS] --to FORMAT run=FOLDER [OVERRIDE ...]",
    )
    parser.add_argument(
        "overrides",
        nargs="+",
        metavar="OVERRIDE",
        help="run=FOLDER: a run or model folder; others as for train.py: data=..., data.max_val=1000",
    )
    parser.add_argument(
        "--to", required=True, choices=_FORMATS, help="format: ONNX, ONNX with 8-bit integers, or bfloat16 weights"
    )
    parser.add_argument("--output", metavar="FOLDER", help="new folder of the export (default: RUN-FORMAT)")
    parser.add_argument(
        "--margin",
        type=float,
        default=1.0,
        metavar="M",
        help="by how much a metric may be worse, in its unit (default: 1)",
    )
    parser.add_argument(
        "--metric",
        action="append",
        metavar="NAME",
        help="metric that must be non-inferior; may be repeated (default: those with the direction of the task's monitor)",
    )
    parser.add_argument(
        "--min-agreement",
        type=float,
        default=0.9,
        metavar="R",
        help="smallest mean rank correlation of explanations (default: 0.9)",
    )
    parser.add_argument(
        "--explanations",
        type=int,
        default=32,
        metavar="N",
        help="examples whose explanations are compared; 0 for none (default: 32)",
    )
    parser.add_argument(
        "--latency-ms",
        type=float,
        metavar="B",
        help="largest 95th percentile of the latency of one example (default: any)",
    )
    parser.add_argument("--size-mib", type=float, metavar="B", help="largest size of the model (default: any)")
    parser.add_argument(
        "--requests",
        type=int,
        default=200,
        metavar="N",
        help="requests of which the latency is measured (default: 200)",
    )
    parser.set_defaults(run_command=_run)


def _run(args: argparse.Namespace) -> int:
    folder, overrides = command.take_override(args.overrides, "run", _NO_MODEL)
    _check(args)
    if not Path(folder).is_dir():
        raise InputError(f"run={folder}: no such folder")
    if args.to != "bf16":
        for name in ("onnx", "onnxruntime", "onnxscript"):
            if importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(name=name)
    from serving.export import FOLDER, Bounds, export
    from serving.export_report import FILE
    from trainers.saved_model import model_errors

    output = Path(args.output or f"{folder.rstrip('/')}-{args.to}")
    bounds = Bounds(args.margin, tuple(args.metric or ()), args.min_agreement, args.latency_ms, args.size_mib)
    with model_errors(folder):
        verdict = export(folder, args.to, output, overrides, bounds, args.requests, args.explanations)
    original, exported = verdict["speed"]["original"], verdict["speed"]["exported"]
    print(
        f"{make_printable(str(output))}: passed; {verdict['changed']} of {verdict['examples']} answers changed; median "
        f"{exported['median_ms']:.1f} ms (original {original['median_ms']:.1f}), {exported['size_mib']:.1f} MiB (original "
        f"{original['size_mib']:.1f}); see {make_printable(str(output / FOLDER / FILE))}"
    )
    return 0


def _check(args: argparse.Namespace) -> None:
    command.check_options(
        args,
        {
            "margin": (0, 1e9),
            "min_agreement": (-1, 1),
            "explanations": (0, 100_000),
            "latency_ms": (0, 1e9),
            "size_mib": (0, 1e9),
            "requests": (10, 10**6),
        },
    )
