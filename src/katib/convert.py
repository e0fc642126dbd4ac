"""`python -m katib convert`: an Experiment of Katib as an OptimizationJob of Kubeflow Trainer, and back."""

import argparse
import shlex
import sys
from typing import Any

from config import files
from config.errors import InputError
from config.numbers import format_count
from katib import findings
from katib.check import check_search
from katib.documents import format_path, parse
from katib.experiment import Experiment
from katib.experiment_from_job import build_experiment
from katib.job_from_experiment import build_job
from katib.optimization_check import NO_CONTROLLER
from katib.optimization_job import KIND, Difference, format_yaml
from katib.run import load_checked

KINDS = ("Experiment", KIND)
MARK = "# Converted by: python -m katib convert"  # in the first lines of the file


def convert(args: argparse.Namespace) -> int:
    """Write the search of a file as the other kind.

    Args:
        args: the command line.

    Returns:
        0.

    Raises:
        InputError: the other kind cannot express the search; what it lacks is on stderr.
    """
    if args.output:
        is_own = lambda path: files.has_line(path, MARK)  # noqa: E731
        files.check_replaceable(args.output, is_own, "a file of `python -m katib convert`")
    source = load_checked(args.file, no_check=False)
    if source.get("kind") == args.to:
        raise InputError(f"{args.file} is an {args.to} already")
    value, differences = build_job(source) if args.to == KIND else _build_experiment(source)
    for difference in sorted(differences, key=lambda row: source.document.line(row[1])):
        print(_format(source, difference), file=sys.stderr)
    if count := sum(level == "error" for level, *_ in differences):
        message = f"{args.file} cannot be an {args.to}: {format_count(count, 'setting')} above has no counterpart"
        raise InputError(message if count == 1 else message.replace("has no", "have no"))
    file = args.output or f"{value['metadata']['name']}.yaml"
    text = _format_manifest(value, args, file)
    _check_result(text, file)
    if args.output:
        files.write_text(args.output, text)
        print(f"isotrain: wrote {args.output}", file=sys.stderr)
    else:
        print(text, end="")
    return 0


def job_manifest(text: str, file: str) -> str:
    """Return the text of an Experiment of `new` as an OptimizationJob, with the same first lines.

    Args:
        text: the Experiment.
        file: its name in messages.

    Raises:
        InputError: an OptimizationJob cannot express the Experiment.
    """
    (document,) = parse(text, file)
    value, differences = build_job(Experiment(document))
    if errors := [f"{message}: {fix}" for level, _, message, fix in differences if level == "error"]:
        raise InputError("; ".join(errors))
    head = text[: text.index("apiVersion:")]
    return f"{head}# {NO_CONTROLLER[0].upper()}{NO_CONTROLLER[1:]}.\n{format_yaml(value)}"


def _build_experiment(job: Experiment) -> tuple[dict[str, Any], list[Difference]]:
    experiment, differences = build_experiment(job)
    return experiment.value, differences


def _format(source: Experiment, difference: Difference) -> str:
    """Format a difference as `check` formats its findings."""
    level, path, message, fix = difference
    line = f"{source.document.file}:{source.document.line(path)}: {level} {format_path(path)}: {message}"
    return f"{line}\n    fix: {fix}" if fix else line


def _format_manifest(value: dict[str, Any], args: argparse.Namespace, file: str) -> str:
    path = shlex.quote(file)
    lines = [
        f"{MARK} {shlex.quote(args.file)} --to {args.to}",
        f"#   python -m katib check {path}    find errors without a cluster",
        f"#   python -m katib run {path}      run it on this machine",
    ]
    if args.to == KIND:
        lines.append(f"# {NO_CONTROLLER[0].upper()}{NO_CONTROLLER[1:]}.")
    else:
        lines.append(f"#   python -m katib submit {path}   run it on the cluster of your kubectl context")
    return "\n".join([*lines, format_yaml(value)])


def _check_result(text: str, file: str) -> None:
    """Print what `check` finds in the result; what it notes about the source is known.

    Raises:
        InputError: the result has errors.
    """
    (document,) = parse(text, file)
    rows = [row for row in check_search(Experiment(document)) if row.level != "note"]
    if rows:
        print(findings.format_text(rows), file=sys.stderr)
    if any(row.level == "error" for row in rows):
        raise InputError(f"{file} was not written: the result has the errors above; change the search first")
