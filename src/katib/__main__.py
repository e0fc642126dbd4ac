"""Katib without and with a cluster: `python -m katib check|run|new|submit|watch|best|trials|delete`."""

import argparse
import sys
from typing import Any

from config import command


def main(arguments: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: those after `python -m katib`; sys.argv's if not given.

    Returns:
        The exit code (docs/exit_codes.md).
    """
    asked = command.parse_arguments(_parser(), arguments)
    return int(asked.call(asked))


def _parser() -> argparse.ArgumentParser:
    description = "Check Experiments, run them on this machine, and send them to a cluster."
    parser = command.make_parser("katib", description, "python -m katib check katib/*.yaml")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _check(commands)
    _run(commands)
    _new(commands)
    _cluster(commands)
    _stop(commands)
    return parser


def _check(commands: Any) -> None:
    parser = commands.add_parser(
        "check",
        help="what a cluster would refuse, or accept in vain",
        description="Finds what Katib would refuse, what it would accept and could never work, and what works badly; "
        "composes the trial's Hydra command line over the search space. Exit code 2 if anything is refused.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="YAML with one or more Experiments; - reads stdin")
    parser.add_argument("--format", choices=("text", "json", "sarif"), default="text", help="default: text")
    parser.add_argument("--strict", action="store_true", help="refuse what works badly, too")
    parser.set_defaults(call=_run_check)


def _run_check(asked: argparse.Namespace) -> int:
    from katib import findings as said
    from katib.check import TITLES, check

    experiments, findings = check(asked.files)
    if asked.format == "json":
        print(said.as_json(findings, asked.files))
    elif asked.format == "sarif":
        print(said.sarif(findings, TITLES))
    elif findings:
        print(said.text(findings))
    errors = sum(each.level == "error" for each in findings)
    warnings = sum(each.level == "warning" for each in findings)
    counts = f"{len(experiments)} Experiment{'s' * (len(experiments) != 1)}"
    print(f"{counts} checked: {errors} refused, {warnings} warned of", file=sys.stderr)
    return 2 if errors or (asked.strict and warnings) or not experiments else 0


def _run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="the search on this machine, without a cluster",
        usage="python -m katib run [OPTIONS] FILE [OVERRIDE ...]",
        description="Runs an Experiment on this machine: the same substitution, the same wrapped command, the same "
        "reading of metrics, strategies, early stopping and statuses as Katib's; points from Optuna. Killed and "
        "started again, it goes on: no finished trial is lost or repeated.",
        epilog="e.g. python -m katib run katib/questions-tpe.yaml model=bert_tiny data=squad_sample",
    )
    parser.add_argument("file", metavar="FILE", help="YAML with one Experiment; - reads stdin")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="added to the trials' train.py command line")
    parser.add_argument("--folder", metavar="DIR", help="of the search; default: searches/<name of the Experiment>")
    parser.add_argument("--max-trials", type=int, metavar="N", help="instead of maxTrialCount")
    parser.add_argument("--parallel", type=int, metavar="N", help="instead of parallelTrialCount")
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="ends a trial as Failed; default: the Job's")
    parser.add_argument(
        "--mount",
        action="append",
        default=[],
        metavar="PATH=DIR",
        help="a volume's path; default: a folder of the search",
    )
    parser.add_argument("--no-check", action="store_true", help="run it even if `check` refuses it")
    parser.set_defaults(call=_run_run)


def _run_run(asked: argparse.Namespace) -> int:
    from katib.run import run

    return run(asked)


def _new(commands: Any) -> None:
    parser = commands.add_parser(
        "new",
        help="write an Experiment from overrides and a search space",
        usage="python -m katib new [OPTIONS] OVERRIDE [OVERRIDE ...]",
        description="Writes a checked Experiment. Overrides are train.py's; those to search have a distribution for a "
        "value: uniform(low,high), uniform(low,high,step), loguniform(low,high), normal(low,high), lognormal(low,high), "
        "int(low,high), logint(low,high) or choice(a,b,...).",
        epilog="e.g. python -m katib new model=bert data=squad 'optim.lr=loguniform(1e-5,1e-4)' "
        "'data.batch_size=choice(8,16,32)' --algorithm multivariate-tpe --max-trials 20 -o search.yaml",
    )
    parser.add_argument("overrides", nargs="+", metavar="OVERRIDE", help="key=value or key=distribution")
    parser.add_argument("--name", help="of the Experiment; default: its task and algorithm")
    parser.add_argument("--algorithm", default="random", help="Katib's name of it; default: random")
    parser.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE", help="of the algorithm")
    parser.add_argument("--objective", metavar="METRIC", help="default: the one that chooses checkpoints")
    parser.add_argument("--goal", type=float, help="value of the objective at which the search ends")
    parser.add_argument("--max-trials", type=int, default=12, metavar="N", help="default: 12")
    parser.add_argument("--parallel", type=int, default=3, metavar="N", help="trials at a time; default: 3")
    parser.add_argument("--max-failed", type=int, default=3, metavar="N", help="ends the search; default: 3")
    parser.add_argument("--stop-early", action="store_true", help="medianstop: stop trials worse than the average")
    parser.add_argument("--collector", choices=("StdOut", "File", "Push"), default="StdOut", help="default: StdOut")
    parser.add_argument("--kind", choices=("Job", "PyTorchJob", "TrainJob"), default="Job", help="default: Job")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="of a PyTorchJob or TrainJob; default: 2")
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="of each process; default: 0")
    parser.add_argument("--image", default=None, help="with train.py in it")
    parser.add_argument("--title", default="", help="the file's first line")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: stdout")
    parser.add_argument("--again", action="store_true", help="the OVERRIDEs are files: write them again as they say")
    parser.set_defaults(call=_run_new)


def _run_new(asked: argparse.Namespace) -> int:
    from pathlib import Path

    from config.errors import InputError
    from katib import manifest

    if not asked.again:
        return _write_new(asked, sys.argv[2:])
    for file in asked.overrides:
        arguments = manifest.made_by(Path(file).read_text(encoding="utf-8"))
        if not arguments:
            raise InputError(f"{file} does not say which command made it")
        _write_new(_parser().parse_args(["new", *arguments, "-o", file]), arguments)
    return 0


def _write_new(asked: argparse.Namespace, typed: list[str]) -> int:
    import shlex
    from pathlib import Path

    from config.errors import InputError
    from katib import findings as said
    from katib import manifest
    from katib.check import check_experiment
    from katib.documents import parse
    from katib.experiment import Experiment

    settings = {}
    for setting in asked.setting:
        name, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--setting {setting}: write NAME=VALUE")
        settings[name] = value
    words = [word for word in typed if word not in ("-o", "--output", asked.output)]
    request = manifest.request(
        asked.overrides,
        asked.name,
        asked.objective,
        algorithm=asked.algorithm,
        settings=settings,
        goal=asked.goal,
        max_trials=asked.max_trials,
        parallel=min(asked.parallel, asked.max_trials),
        max_failed=min(asked.max_failed, asked.max_trials),
        stop_early=asked.stop_early,
        collector=asked.collector,
        kind=asked.kind,
        processes=asked.processes,
        gpus=asked.gpus,
        image=asked.image or manifest.IMAGE,
        command=shlex.join(["python", "-m", "katib", "new", *words]),
        title=asked.title,
    )
    file = asked.output or f"{request.name}.yaml"
    text = manifest.text(request, file)
    findings = [finding for document in parse(text, file) for finding in check_experiment(Experiment(document))]
    if findings:
        print(said.text(findings), file=sys.stderr)
    if any(each.level == "error" for each in findings):
        raise InputError("nothing was written: a cluster would not take this, or not finish it")
    if asked.output:
        Path(asked.output).write_text(text, encoding="utf-8")
        print(f"isotrain: wrote {asked.output}", file=sys.stderr)
    else:
        print(text, end="")
    return 0


def _cluster(commands: Any) -> None:
    def add(name: str, text: str, more: str = "") -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=(text + ". " + more).strip())
        parser.add_argument("-n", "--namespace", help="default: the context's")
        parser.add_argument("--context", help="of the kubeconfig; default: the current one")
        parser.set_defaults(call=lambda asked: _remote(name, asked))
        return parser

    submit = add("submit", "check an Experiment and create it on a cluster", "The same one again attaches to it.")
    submit.add_argument("file", metavar="FILE", help="YAML with one Experiment; - reads stdin")
    submit.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="added to the trials' train.py command line")
    submit.add_argument("--name", help="instead of the file's")
    submit.add_argument("--max-trials", type=int, metavar="N", help="instead of maxTrialCount")
    submit.add_argument("--image", help="instead of the file's")
    submit.add_argument("--watch", action="store_true", help="then watch it")
    submit.add_argument("--timeout", type=float, metavar="SECONDS", help="of watching; default: none")
    submit.add_argument("--no-check", action="store_true", help="create it even if `check` refuses it")
    watch = add("watch", "a live table of an Experiment's trials", "Exit code 6 if the Experiment fails.")
    watch.add_argument("name", metavar="NAME", help="of the Experiment")
    watch.add_argument("--timeout", type=float, metavar="SECONDS", help="exit code 7 after that; default: none")
    best = add("best", "an Experiment's best assignment, as Hydra overrides")
    best.add_argument("name", metavar="NAME", help="of the Experiment; or a folder that `run` left")
    best.add_argument("--json", action="store_true", help="with value, overrides and the whole command")
    trials = add("trials", "an Experiment's trials")
    trials.add_argument("name", metavar="NAME", help="of the Experiment")
    trials.add_argument("--json", action="store_true", help="one JSON object a line")
    trials.add_argument("--report", metavar="FILE", help="the page that `run` writes, too")
    delete = add("delete", "delete an Experiment with its trials, and wait until it is gone")
    delete.add_argument("name", metavar="NAME", help="of the Experiment")
    delete.add_argument("--unfinished", action="store_true", help="only if it is not completed")
    delete.add_argument("--timeout", type=float, default=120, metavar="SECONDS", help="default: 120")


def _remote(name: str, asked: argparse.Namespace) -> int:
    from katib import cluster_commands

    return int(getattr(cluster_commands, name)(asked))


def _stop(commands: Any) -> None:
    parser = commands.add_parser(
        "stop",
        help="end the training in this pod with a checkpoint (for preStop hooks)",
        description="Sends SIGTERM to every train.py that this process can see, and waits until they have ended. A "
        "pod's own SIGTERM reaches only the shell that Katib wraps around the command.",
    )
    parser.add_argument("--wait", type=float, default=110, metavar="SECONDS", help="default: 110")
    parser.set_defaults(call=_run_stop)


def _run_stop(asked: argparse.Namespace) -> int:
    from katib.stop import stop

    return 0 if stop(asked.wait) else 7


if __name__ == "__main__":
    command.run_main(main)
