"""Kubeflow pipelines: `python -m pipelines compile|check|run|submit|schedule|status`."""

import argparse
import sys
from typing import Any

from config import command

FILE = "pipelines/train.yaml"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: those after `python -m pipelines`; sys.argv's if not given.

    Returns:
        The exit code (docs/exit_codes.md).
    """
    args = command.parse_arguments(_parser(), arguments)
    return int(args.call(args))


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser(
        "pipelines",
        "The pipeline data, quality, tune, train, evaluate, explain, gates, register: here and on Kubeflow.",
        "python -m pipelines run model=bert_tiny data=squad_sample",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _compile(commands)
    _check(commands)
    _run(commands)
    _cluster(commands)
    return parser


def _compile(commands: Any) -> None:
    parser = commands.add_parser(
        "compile",
        help="the pipeline as a file for a cluster",
        usage="python -m pipelines compile [-o FILE] [SETTING=VALUE ...]\n"
        "       python -m pipelines compile --again FILE ...",
        description="Writes the compiled pipeline, always the same for the same settings (conf/pipeline.yaml).",
        epilog="e.g. python -m pipelines compile large.gpus=1 -o my.yaml",
    )
    parser.add_argument("overrides", nargs="*", metavar="SETTING=VALUE", help="of conf/pipeline.yaml")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: stdout")
    parser.add_argument("--again", action="store_true", help="the arguments are files: write them again as they say")
    parser.set_defaults(call=_run_compile)


def _run_compile(asked: argparse.Namespace) -> int:
    from pathlib import Path

    from config.errors import InputError
    from pipelines import compilation

    written = {Path(each): compilation.recompile(Path(each)) for each in asked.overrides} if asked.again else {}
    if not asked.again:
        text = compilation.compile_text(asked.overrides, asked.output or "")
        if not asked.output:
            print(text, end="")
            return 0
        written = {Path(asked.output): text}
    for path, text in written.items():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from error
        print(f"isotrain: wrote {path}", file=sys.stderr)
    return 0


def _check(commands: Any) -> None:
    parser = commands.add_parser(
        "check",
        help="what a cluster would refuse, or accept in vain",
        description="Parses compiled pipelines and looks for what could not work: names that nothing has, cycles, "
        "missing inputs, several images, wrong caching. Exit code 2 if anything is found.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a compiled pipeline")
    parser.add_argument("--pinned", action="store_true", help="the image must be named by its digest, too")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    parser.set_defaults(call=_run_check)


def _run_check(asked: argparse.Namespace) -> int:
    import json

    from pipelines import check

    findings = [each for file in asked.files for each in check.check_pipeline(file, asked.pinned)]
    if asked.format == "json":
        print(json.dumps([vars(each) for each in findings], indent=2))
    else:
        for each in findings:
            print(f"{each.file}: {each.place}: {each.message}")
    count = f"{len(asked.files)} pipeline{'s' * (len(asked.files) != 1)}"
    print(f"{count} checked: {len(findings)} finding{'s' * (len(findings) != 1)}", file=sys.stderr)
    return 2 if findings else 0


def _run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="the pipeline on this machine, without a cluster",
        usage="python -m pipelines run [OPTIONS] [OVERRIDE ...]",
        description="Runs the compiled pipeline here, each step in a process of its own. What was begun and killed goes "
        "on when the same command is given again. Exit code 6 if a step fails.",
        epilog="e.g. python -m pipelines run model=resnet18 data=shapes -p tune=katib/images-tpe.yaml -p trials=4",
    )
    _parameters(parser)
    parser.add_argument("--root", metavar="DIR", default="outputs", help="of runs and records; default: outputs")
    parser.add_argument("--name", help="of this run; default: its time")
    parser.add_argument("--file", metavar="FILE", help="a compiled pipeline; default: it is compiled now")
    parser.set_defaults(call=_run_run)


def _run_run(asked: argparse.Namespace) -> int:
    from pipelines import local

    local.run(asked.overrides, asked.parameters, asked.root, asked.name, asked.file)
    return 0


def _parameters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="train.py's: model=... data=... optim.lr=...")
    parser.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE",
        help="of the pipeline: quality, drift, explain, benchmark, tune, trials, baseline, margin, when, ...",
    )  # fmt: skip


def _cluster(commands: Any) -> None:
    def add(name: str, text: str, more: str = "") -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text}. {more}".strip())
        parser.add_argument("--host", metavar="URL", help="of Kubeflow Pipelines' API; default: $KFP_HOST")
        parser.add_argument("-n", "--namespace", help="of a multi-user Kubeflow; default: $KFP_NAMESPACE, or none")
        parser.set_defaults(call=lambda asked: _remote(name, asked))
        return parser

    submit = add("submit", "upload a version, run it, and wait", "Exit code 6 if the run fails or is cancelled.")
    schedule = add("schedule", "a run that comes again", "A schedule of the same name is replaced.")
    for parser in (submit, schedule):
        parser.add_argument("file", metavar="FILE", help="a compiled pipeline")
        _parameters(parser)
        parser.add_argument("--image", help="of every step, by digest: name@sha256:…")
        parser.add_argument("--version", help="name of the uploaded version; default: the commit")
        parser.add_argument("--experiment", default="isotrain", help="default: isotrain")
        parser.add_argument("--service-account", metavar="NAME", help="of the steps' pods; default: Kubeflow's own")
    submit.add_argument("--timeout", type=float, metavar="SECONDS", help="exit code 7 after that; default: none")
    submit.add_argument("--no-wait", action="store_true", help="do not wait for its end")
    submit.add_argument("--summary", metavar="FILE", help="a summary in Markdown is added to this file")
    schedule.add_argument("--cron", required=True, help="six fields, seconds first: '0 0 3 * * *' is 3 o'clock")
    schedule.add_argument("--name", default="isotrain", help="of the schedule; default: isotrain")
    status = add("status", "a run's steps", "Of a cluster's run, or of a folder that `run` left.")
    status.add_argument("run", metavar="RUN", nargs="?", help="id, or folder; default: the latest runs")
    status.add_argument("--terminate", action="store_true", help="end the run")


def _remote(name: str, asked: argparse.Namespace) -> int:
    from pipelines import remote

    return int(getattr(remote, name)(asked))


if __name__ == "__main__":
    command.run_main(main)
