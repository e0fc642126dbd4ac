"""Kubeflow pipelines: `python -m pipelines compile|check|run|submit|schedule|status|terminate|deploy`."""

import sys
from pathlib import Path

# Before files of the working directory, such as a config.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
from typing import Any

from config import command
from config.numbers import format_count


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
        "Compile, check, run and schedule the training pipeline, on this machine or on Kubeflow.",
        "python -m pipelines run model=bert_tiny data=squad_sample",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_compile(commands)
    _add_check(commands)
    _add_run(commands)
    _add_cluster_commands(commands)
    _add_deploy(commands)
    return parser


def _add_compile(commands: Any) -> None:
    parser = command.add_command(
        commands,
        "compile",
        "compile the pipeline to a file",
        "The same settings always give the same file.",
        "python -m pipelines compile large.gpus=1 -o my.yaml",
        "python -m pipelines compile [-o FILE] [SETTING=VALUE ...]\n       python -m pipelines compile --again FILE [FILE ...]",
    )
    parser.add_argument("overrides", nargs="*", metavar="SETTING=VALUE", help="overrides of conf/pipeline.yaml")
    parser.add_argument("-o", "--output", metavar="FILE", help="file to write (default: stdout)")
    parser.add_argument(
        "--again", dest="recompile", action="store_true", help="recompile files with the commands in their first lines"
    )
    parser.set_defaults(call=_compile)


def _compile(args: argparse.Namespace) -> int:
    from pathlib import Path

    from config import files
    from config.errors import InputError
    from pipelines import compilation

    if args.recompile:
        texts = {Path(name): compilation.recompile(Path(name)) for name in args.overrides}
    else:
        if args.output:
            files.check_replaceable(args.output, compilation.is_compiled, "a compiled pipeline")
        text = compilation.compile_text(args.overrides, args.output or "")
        if not args.output:
            print(text, end="")
            return 0
        texts = {Path(args.output): text}
    for path, text in texts.items():
        if not path.absolute().parent.is_dir():
            raise InputError(f"cannot write {path}: its folder does not exist")
        try:
            files.write_text(path, text)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from error
        print(f"isotrain: wrote {path}", file=sys.stderr)
    return 0


def _add_check(commands: Any) -> None:
    parser = command.add_command(
        commands,
        "check",
        "check compiled pipelines",
        "Find unresolved references, cycles, missing inputs, different images and wrong caching. Exit code 2 if there are "
        "findings.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="compiled pipeline")
    parser.add_argument("--pinned", action="store_true", help="also require an image named by digest")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="output format (default: text)")
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
    refused = len({item.file for item in findings})
    counts = [format_count(len(args.files), "pipeline") + " checked", *([f"{refused} refused"] if refused else [])]
    print(f"{' and '.join(counts)}: {format_count(len(findings), 'finding')}", file=sys.stderr)
    return 2 if findings else 0


def _add_run(commands: Any) -> None:
    parser = command.add_command(
        commands,
        "run",
        "run the pipeline on this machine, without a cluster",
        "Each step is a process. The same command resumes an interrupted run. Exit code 6 if a step fails.",
        "python -m pipelines run model=resnet18 data=shapes \\\n  -p tune=katib/images-tpe.yaml -p trials=4",
        "python -m pipelines run [OPTIONS] [OVERRIDE ...]",
    )
    _add_parameters(parser)
    parser.add_argument(
        "--root", metavar="DIR", default="outputs", help="folder of runs and records (default: outputs)"
    )
    parser.add_argument("--name", metavar="NAME", help="name of this run (default: its time)")
    parser.add_argument("--file", metavar="FILE", help="compiled pipeline (default: compile it now)")
    parser.set_defaults(call=_run)


def _run(args: argparse.Namespace) -> int:
    from pipelines import local

    local.run(args.overrides, args.parameters, args.root, args.name, args.file)
    return 0


def _add_parameters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="as for train.py: model=..., data=..., optim.lr=..."
    )
    parser.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE",
        help="parameter of the pipeline, such as quality=warn or tune=FILE, or a step's resource, such as train.cpu=4, "
        "train.memory=16Gi or train.gpus=1 (docs/pipelines.md; repeatable)",
    )  # fmt: skip


def _add_cluster_commands(commands: Any) -> None:
    def add(name: str, text: str, details: str = "") -> argparse.ArgumentParser:
        parser = command.add_command(commands, name, text, details)
        parser.add_argument("--host", metavar="URL", help="address of the Kubeflow Pipelines API (default: $KFP_HOST)")
        parser.add_argument(
            "-n", "--namespace", metavar="NAME", help="namespace, if multi-user (default: $KFP_NAMESPACE)"
        )
        parser.add_argument(
            "--ui", metavar="URL", help="address of Kubeflow's web pages, for links (default: $KFP_UI, or no links)"
        )
        parser.set_defaults(call=lambda args: _call_remote(name, args))
        return parser

    submit = add(
        "submit", "upload a version of the pipeline, run it, and wait", "Exit code 6 if the run fails or is cancelled."
    )
    schedule = add(
        "schedule",
        "create, list or remove recurring runs",
        "Replace a schedule of the same name, unless one of its runs is under way. Exit code 2 if it is.",
    )
    for parser in (submit, schedule):
        optional = "?" if parser is schedule else None  # --list and --remove take none
        parser.add_argument("file", metavar="FILE", nargs=optional, help="compiled pipeline")
        _add_parameters(parser)
        parser.add_argument("--image", help="image of every step, by digest: name@sha256:…")
        parser.add_argument("--version", metavar="NAME", help="name of the uploaded version (default: the commit)")
        parser.add_argument(
            "--experiment", default="isotrain", metavar="NAME", help="KFP experiment (default: isotrain)"
        )
        parser.add_argument(
            "--service-account", metavar="NAME", help="service account of the step pods (default: Kubeflow's)"
        )
    submit.add_argument("--timeout", type=float, metavar="SECONDS", help="time limit; exit code 7 (default: none)")
    submit.add_argument(
        "--wait-for-start", type=command.duration, metavar="DURATION",
        help="time limit without a running pod, such as 10m; exit code 7 (default: none, with a message after two minutes)",
    )  # fmt: skip
    submit.add_argument("--no-wait", action="store_true", help="do not wait for the run to end")
    submit.add_argument("--summary", metavar="FILE", help="append a Markdown summary to this file")
    schedule.add_argument("--cron", metavar="CRON", help="six fields, seconds first: '0 0 3 * * *' is daily at 3:00")
    schedule.add_argument("--name", default="isotrain", metavar="NAME", help="name of the schedule (default: isotrain)")
    schedule.add_argument(
        "--list", action="store_true", help="list the schedules of the experiment with their latest runs"
    )
    schedule.add_argument("--remove", action="store_true", help="remove the schedule")
    schedule.add_argument(
        "--wait",
        action="store_true",
        help="wait for the end of a run under way before its schedule is replaced or removed",
    )
    schedule.add_argument("--timeout", type=float, metavar="SECONDS", help="time limit of --wait (default: none)")
    status = add("status", "show the steps of a run", "Without RUN, list the latest runs.")
    status.add_argument("run", metavar="RUN", nargs="?", help="id of a run on a cluster, or folder of a local run")
    status.add_argument("--terminate", action="store_true", help="terminate the run, as python -m pipelines terminate")
    end = add(
        "terminate",
        "terminate a run",
        "Wait for its end, and delete the unfinished Experiment of its search. A run that has ended is not an error.",
    )
    end.add_argument("run", metavar="RUN", help="id of the run")
    for parser in (status, end):
        parser.add_argument(
            "--timeout", type=float, default=180.0, metavar="SECONDS",
            help="time limit for the end of a terminated run; exit code 7 (default: 180)",
        )  # fmt: skip


def _add_deploy(commands: Any) -> None:
    parser = command.add_command(
        commands,
        "deploy",
        "serve a run by an InferenceService of KServe",
        "Applies what `python -m serving manifest` writes, waits until all servers have the model and are ready, and sends "
        "them the validation examples (`serving replay`). If they do not get ready, or an answer differs, the previous "
        "InferenceService is put back, and the exit code is 5.",
        "python -m pipelines deploy run=/runs/a --name questions --image registry/isotrain@sha256:…",
    )
    parser.add_argument("run", metavar="run=FOLDER", help="run folder, on a volume that the cluster mounts")
    parser.add_argument("--name", required=True, help="name of the InferenceService")
    parser.add_argument("--image", required=True, help="image of the server, by its digest")
    parser.add_argument(
        "--setting", action="append", default=[], metavar="NAME=VALUE",
        help="option of `serving manifest`, such as cpu=2 or source=s3://bucket/a (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--if-champion",
        action="store_true",
        help="do nothing, and say so, unless the run is the champion in the registry",
    )
    parser.add_argument("--registered", metavar="NAME", help="name of the registered model (default: task and data)")
    parser.add_argument(
        "--server", metavar="URI", help="address of MLflow (default: MLFLOW_TRACKING_URI, else below --root)"
    )
    parser.add_argument("--root", metavar="DIR", help="folder of runs and records, with mlflow/mlflow.db")
    parser.add_argument(
        "--url", metavar="URL", help="address for the replay (default: the InferenceService's in the cluster)"
    )
    parser.add_argument(
        "--context", metavar="NAME", help="context of the kubeconfig (default: the current one, or the pod's account)"
    )
    parser.add_argument("-n", "--namespace", metavar="NAME", help="namespace (default: the context's, or the pod's)")
    parser.add_argument(
        "--timeout",
        type=command.duration,
        default=600.0,
        metavar="DURATION",
        help="time limit until it is ready (default: 10m)",
    )
    parser.add_argument(
        "--folder",
        metavar="DIR",
        help="keep the InferenceService and the previous one there: a repetition then puts that back",
    )
    parser.set_defaults(call=_deploy)


def _deploy(args: argparse.Namespace) -> int:
    from pipelines.deploy import deploy

    return deploy(args)


def _call_remote(name: str, args: argparse.Namespace) -> int:
    from pipelines import remote

    return int(getattr(remote, name)(args))


if __name__ == "__main__":
    command.run_main(main)
