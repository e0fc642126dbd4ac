"""`python -m katib new`: an Experiment, or an OptimizationJob, from overrides and a search space."""

import argparse
import shlex
import sys
from collections.abc import Sequence

from config import files, parsing
from config.errors import InputError
from config.masking import mask_override
from katib import findings, manifest
from katib.check import check_search
from katib.convert import job_manifest
from katib.documents import parse
from katib.experiment import Experiment
from katib.optimization_job import KIND
from katib.resources import Resources
from katib.scheduling import Scheduling


def recorded_arguments(file: str) -> list[str]:
    """Return the arguments of `new` in the first lines of a file.

    Raises:
        InputError: the file cannot be read, or `new` did not write it.
    """
    try:
        arguments = manifest.recorded_arguments(parsing.read_text(file))
    except ValueError as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    if not arguments:
        raise InputError(f"{file} does not contain the command that generated it (`# Made by:`)")
    return arguments


def write(args: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Write a search to the file of --output, or to stdout.

    Args:
        args: the parsed command line.
        arguments: the arguments after `new`, to record in the file.
    """
    if args.output:
        is_own = lambda path: bool(manifest.recorded_arguments(path.read_text(encoding="utf-8")))  # noqa: E731
        files.check_replaceable(args.output, is_own, "an Experiment of `python -m katib new`")
    text, _ = make(args, [word for word in arguments if word not in ("-o", "--output", args.output)])
    if args.output:
        files.write_text(args.output, text)
        print(f"isotrain: wrote {args.output}", file=sys.stderr)
    else:
        print(text, end="")
    return 0


def make(args: argparse.Namespace, arguments: Sequence[str]) -> tuple[str, Experiment]:
    """Make an Experiment or an OptimizationJob, check it, and print the findings.

    Args:
        args: the parsed command line; `output` is the path of the file, or None.
        arguments: the arguments after `new`, to record in the file.

    Returns:
        The text of the file, and the search in it.

    Raises:
        InputError: an argument is invalid, or the search has errors.
    """
    if secrets := [word.partition("=")[0] for word in args.overrides if mask_override(word) != word]:
        raise InputError(
            f"{', '.join(secrets)}: a secret, which an Experiment would show to all who may read it: keep it in a "
            "Kubernetes secret, give the trials a variable from it, and write '${oc.env:NAME}' as the value"
        )
    if args.retries < 0:
        raise InputError(f"--retries {args.retries}: must be 0 or more")
    settings = {}
    for setting in args.setting:
        name, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--setting {setting}: write NAME=VALUE")
        settings[name] = value
    if args.to == KIND:
        if args.kind == "PyTorchJob":
            raise InputError("--kind PyTorchJob: the trials of an OptimizationJob are TrainJobs; leave --kind out")
        args.kind, args.processes = "TrainJob", args.processes or 1
    scheduling = Scheduling(args.queue, args.priority_class)
    scheduling.check_kind(args.kind)
    counts = {name: min(getattr(args, name), args.max_trials) for name in ("max_trials", "parallel", "max_failed")}
    options = ("goal", "stop_early", "collector", "kind", "retries", "title")
    request = manifest.build_request(
        args.overrides,
        args.name,
        args.objective,
        args.algorithm,
        settings=settings,
        image=args.image or manifest.IMAGE,
        processes=manifest.check_processes(args.kind, args.processes),
        resources=Resources(args.cpu, args.memory, args.gpus),
        scheduling=scheduling,
        command=shlex.join(["python", "-m", "katib", "new", *arguments]),
        **counts,
        **{name: getattr(args, name) for name in options},
    )
    file = args.output or f"{request.name}.yaml"
    text = manifest.format_manifest(request, file)
    if args.to == KIND:
        text = job_manifest(text, file)
    (search,) = [Experiment(document) for document in parse(text, file)]
    rows = check_search(search)
    if rows:
        print(findings.format_text(rows), file=sys.stderr)
    if any(finding.level == "error" for finding in rows):
        raise InputError(f"{file} was not written: the {args.to} has errors; change the overrides or options")
    return text, search
