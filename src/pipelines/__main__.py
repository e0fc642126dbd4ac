"""Kubeflow pipelines: `python -m pipelines compile|check|run|submit|schedule|status`."""

import argparse
import sys
from typing import Any

from config import command


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands.

    Args:
        arguments: Arguments after `python -m pipelines`; sys.argv's by default.

    Returns:
        The exit code (docs/exit_codes.md).
    """
    args = command.parse_arguments(_parser(), arguments)
    return int(args.call(args))


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser(
        "pipelines",
        "The pipeline data, quality, tune, train, evaluate, explain, gates, register: on this machine and on Kubeflow.",
        "python -m pipelines run model=bert_tiny data=squad_sample",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_compile(commands)
    _add_check(commands)
    _add_run(commands)
    _add_cluster_commands(commands)
    return parser


def _add_compile(commands: Any) -> None:
    parser = commands.add_parser(
        "compile",
        help="compile the pipeline to a file",
        usage="python -m pipelines compile [-o FILE] [SETTING=VALUE ...]\n"
        "       python -m pipelines compile --again FILE ...",
        description="Compile the pipeline. The same settings (conf/pipeline.yaml) always give the same file.",
        epilog="e.g. python -m pipelines compile large.gpus=1 -o my.yaml",
    )
    parser.add_argument("overrides", nargs="*", metavar="SETTING=VALUE", help="overrides of conf/pipeline.yaml")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: stdout")
    parser.add_argument(
        "--again", dest="recompile", action="store_true", help="recompile files with the command in their first line"
    )
    parser.set_defaults(call=_compile)


def _compile(args: argparse.Namespace) -> int:
    from pathlib import Path

    from config.errors import InputError
    from pipelines import compilation

    if args.recompile:
        texts = {Path(name): compilation.recompile(Path(name)) for name in args.overrides}
    else:
        text = compilation.compile_text(args.overrides, args.output or "")
        if not args.output:
            print(text, end="")
            return 0
        texts = {Path(args.output): text}
    for path, text in texts.items():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from error
        print(f"isotrain: wrote {path}", file=sys.stderr)
    return 0


def _add_check(commands: Any) -> None:
    parser = commands.add_parser(
        "check",
        help="check compiled pipelines",
        description="Check compiled pipelines: unresolved references, cycles, missing inputs, several images, wrong caching. "
        "Exit code 2 with any finding.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a compiled pipeline")
    parser.add_argument("--pinned", action="store_true", help="also require that the image is named by its digest")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    parser.set_defaults(call=_check)


def _check(args: argparse.Namespace) -> int:
    import json

    from pipelines.check import check_pipeline

    findings = [finding for file in args.files for finding in check_pipeline(file, args.pinned)]
    if args.format == "json":
        rows = [{"file": item.file, "place": item.location, "message": item.message} for item in findings]
        print(json.dumps(rows, indent=2))
    else:
        for item in findings:
            print(f"{item.file}: {item.location}: {item.message}")
    count = f"{len(args.files)} pipeline{'s' * (len(args.files) != 1)}"
    print(f"{count} checked: {len(findings)} finding{'s' * (len(findings) != 1)}", file=sys.stderr)
    return 2 if findings else 0


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="run the pipeline on this machine, without a cluster",
        usage="python -m pipelines run [OPTIONS] [OVERRIDE ...]",
        description="Run the compiled pipeline, each step in a process. The same command resumes an interrupted run. Exit code 6 "
        "if a step fails.",
        epilog="e.g. python -m pipelines run model=resnet18 data=shapes -p tune=katib/images-tpe.yaml -p trials=4",
    )
    _add_parameters(parser)
    parser.add_argument("--root", metavar="DIR", default="outputs", help="folder of runs and records; default: outputs")
    parser.add_argument("--name", help="name of this run; default: its time")
    parser.add_argument("--file", metavar="FILE", help="a compiled pipeline; default: compile it now")
    parser.set_defaults(call=_run)


def _run(args: argparse.Namespace) -> int:
    from pipelines import local

    local.run(args.overrides, args.parameters, args.root, args.name, args.file)
    return 0


def _add_parameters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="of train.py: model=... data=... optim.lr=...")
    parser.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE",
        help="a parameter of the pipeline: quality, drift, explain, benchmark, tune, trials, baseline, margin, when, ...",
    )  # fmt: skip


def _add_cluster_commands(commands: Any) -> None:
    def add(name: str, text: str, details: str = "") -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}. {details}".strip()
        )
        parser.add_argument("--host", metavar="URL", help="address of Kubeflow Pipelines' API; default: $KFP_HOST")
        parser.add_argument("-n", "--namespace", help="for a multi-user Kubeflow; default: $KFP_NAMESPACE, or none")
        parser.set_defaults(call=lambda args: _call_remote(name, args))
        return parser

    submit = add("submit", "upload a version, run it, and wait", "Exit code 6 if the run fails or is cancelled.")
    schedule = add("schedule", "create a recurring run", "A schedule of the same name is replaced.")
    for parser in (submit, schedule):
        parser.add_argument("file", metavar="FILE", help="a compiled pipeline")
        _add_parameters(parser)
        parser.add_argument("--image", help="image of every step, by digest: name@sha256:…")
        parser.add_argument("--version", help="name of the uploaded version; default: the commit")
        parser.add_argument("--experiment", default="isotrain", help="default: isotrain")
        parser.add_argument(
            "--service-account", metavar="NAME", help="for the pods of the steps; default: Kubeflow's own"
        )
    submit.add_argument("--timeout", type=float, metavar="SECONDS", help="then exit with code 7; default: none")
    submit.add_argument("--no-wait", action="store_true", help="do not wait for the end of the run")
    submit.add_argument("--summary", metavar="FILE", help="append a summary in Markdown to this file")
    schedule.add_argument("--cron", required=True, help="six fields, seconds first: '0 0 3 * * *' is 3 o'clock")
    schedule.add_argument("--name", default="isotrain", help="name of the schedule; default: isotrain")
    status = add("status", "show the steps of a run", "Of a run on a cluster, or of a folder that `run` made.")
    status.add_argument("run", metavar="RUN", nargs="?", help="id, or folder; default: list the latest runs")
    status.add_argument("--terminate", action="store_true", help="terminate the run")


def _call_remote(name: str, args: argparse.Namespace) -> int:
    from pipelines import remote

    return int(getattr(remote, name)(args))


if __name__ == "__main__":
    command.run_main(main)
