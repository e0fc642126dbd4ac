"""`python -m katib check|run|new|convert|submit|watch|best|trials|delete|stop`."""

import sys
from pathlib import Path

# Before files of the working directory, such as a config.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
from typing import Any

from config import command


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: arguments after `python -m katib`; None takes sys.argv's.

    Returns:
        The exit code (docs/exit_codes.md).
    """
    args = command.parse_arguments(_parser(), arguments)
    return int(args.function(args))


def _parser() -> argparse.ArgumentParser:
    description = "Write, check and run Katib Experiments, on this machine or on a cluster."
    parser = command.make_parser("katib", description, "python -m katib check katib/*.yaml")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_check(commands)
    _add_run(commands)
    _add_new(commands)
    _add_convert(commands)
    _add_cluster_commands(commands)
    _add_stop(commands)
    return parser


def _add_check(commands: Any) -> None:
    parser = command.add_command(
        commands,
        "check",
        "find errors in Experiments and OptimizationJobs, without a cluster",
        "Report what Katib or Trainer would refuse, what it would accept but cannot work, and what works badly. Compose the trials' "
        "train.py command line over the search space. Exit code 2 if there are errors.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="YAML with one or more searches; - reads stdin")
    parser.add_argument(
        "--format", choices=("text", "json", "sarif"), default="text", help="output format (default: text)"
    )
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")
    parser.set_defaults(function=_check)


def _check(args: argparse.Namespace) -> int:
    from config.numbers import format_count
    from katib import findings
    from katib.check import TITLES, check
    from katib.optimization_check import CONTROLLER_RULE
    from katib.optimization_job import KIND

    checked, rows = check(args.files)
    if args.format == "json":
        print(findings.format_json(rows, args.files))
    elif args.format == "sarif":
        print(findings.format_sarif(rows, TITLES))
    elif rows:
        print(findings.format_text(rows))
    counts = {level: sum(finding.level == level for finding in rows) for level in ("error", "warning")}
    levels = ("error", "warning") if args.strict else ("error",)
    refused = sum(any(row.level in levels for row in search_rows) for search_rows in checked)
    jobs = sum(any(row.code == CONTROLLER_RULE.code for row in search_rows) for search_rows in checked)
    names = [format_count(len(checked) - jobs, "Experiment")] * (len(checked) > jobs or not jobs)
    names += [format_count(jobs, KIND)] * (jobs > 0)
    summary = " and ".join(names) + " checked" + (f" and {refused} refused" if refused else "")
    print(", ".join([summary, *(format_count(number, level) for level, number in counts.items())]), file=sys.stderr)
    return 2 if any(counts[level] for level in levels) or not checked else 0


def _add_run(commands: Any) -> None:
    parser = command.add_command(
        commands,
        "run",
        "run an Experiment or OptimizationJob on this machine, without a cluster",
        "Optuna suggests the parameters; substitution, command wrapper, metrics collector, early stopping and statuses are "
        "Katib's. The same command resumes an interrupted search without repeating finished trials.",
        "python -m katib run katib/questions-tpe.yaml model=bert_tiny data=squad_sample",
        "python -m katib run [OPTIONS] FILE [OVERRIDE ...]",
    )
    parser.add_argument("file", metavar="FILE", help="YAML with one search; - reads stdin")
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="added to the train.py command line of all trials"
    )
    parser.add_argument(
        "--algorithm",
        choices=("asha",),
        help="search with asynchronous successive halving, which Katib does not have, in place of the file's hyperband",
    )
    parser.add_argument("--folder", metavar="DIR", help="search folder (default: searches/<name of the Experiment>)")
    parser.add_argument("--max-trials", type=int, metavar="N", help="replaces maxTrialCount")
    parser.add_argument("--parallel", type=int, metavar="N", help="replaces parallelTrialCount")
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="time limit of a trial (default: the Job's)")
    parser.add_argument(
        "--mount",
        action="append",
        default=[],
        metavar="PATH=DIR",
        help="local folder for a volume's mount path (default: in the search folder; repeatable)",
    )
    parser.add_argument("--no-check", action="store_true", help="run even if `check` finds errors")
    parser.add_argument("--wait", action="store_true", help="wait while another process uses the search folder")
    parser.add_argument(
        "--warm",
        action="store_true",
        help="fork trials from a process that has imported the libraries, so that each starts at once (Linux)",
    )
    parser.set_defaults(function=_run)


def _run(args: argparse.Namespace) -> int:
    from katib.run import run

    return run(args)


def _add_new(commands: Any) -> None:
    parser = command.add_command(
        commands,
        "new",
        "write an Experiment from overrides and a search space",
        "Overrides are those of train.py. To search a key, give it a distribution instead of a value: uniform(low,high), "
        "uniform(low,high,step), loguniform(low,high), normal(low,high), lognormal(low,high), int(low,high), "
        "logint(low,high) or choice(a,b,...). The Experiment is checked before it is written.",
        "python -m katib new model=bert data=squad 'optim.lr=loguniform(1e-5,1e-4)' \\\n"
        "  'data.batch_size=choice(8,16,32)' --algorithm tpe -o search.yaml",
        "python -m katib new [OPTIONS] OVERRIDE [OVERRIDE ...]\n       python -m katib new --again FILE [FILE ...]",
    )
    parser.add_argument("overrides", nargs="+", metavar="OVERRIDE", help="key=value or key=distribution")
    parser.add_argument(
        "--to",
        choices=("Experiment", "OptimizationJob"),
        default="Experiment",
        help="kind of search: Katib's, or Kubeflow Trainer's, which no release runs yet (default: Experiment)",
    )
    parser.add_argument("--name", metavar="NAME", help="name of the search (default: task and algorithm)")
    parser.add_argument(
        "--algorithm", default="random", metavar="NAME", help="algorithm, as Katib names it (default: random)"
    )
    parser.add_argument(
        "--setting", action="append", default=[], metavar="NAME=VALUE", help="algorithm setting (repeatable)"
    )
    parser.add_argument("--objective", metavar="METRIC", help="metric to optimise (default: the task's monitor)")
    parser.add_argument("--goal", type=float, metavar="X", help="value of the objective at which the search ends")
    parser.add_argument("--max-trials", type=int, default=12, metavar="N", help="number of trials (default: 12)")
    parser.add_argument("--parallel", type=int, default=3, metavar="N", help="trials at a time (default: 3)")
    parser.add_argument(
        "--max-failed", type=int, default=3, metavar="N", help="failed trials that end the search (default: 3)"
    )
    parser.add_argument("--stop-early", action="store_true", help="use medianstop: stop trials worse than the average")
    parser.add_argument(
        "--collector", choices=("StdOut", "File", "Push"), default="StdOut", help="metrics collector (default: StdOut)"
    )
    parser.add_argument(
        "--kind", choices=("Job", "PyTorchJob", "TrainJob"), default="Job", help="kind of trial (default: Job)"
    )
    parser.add_argument(
        "--processes", type=int, metavar="N", help="processes of a PyTorchJob or TrainJob, one in each pod (default: 2)"
    )
    _add_resources(parser, "250m to 4", "2Gi to 8Gi", "0")
    _add_scheduling(parser, "none")
    parser.add_argument(
        "--retries",
        type=int,
        default=0,
        metavar="N",
        help="plain failures to forgive in each pod of a trial: exit codes 1, 7 and 8 (default: 0)",
    )
    parser.add_argument("--image", help="image of the trials (default: isotrain's)")
    parser.add_argument("--title", default="", metavar="TEXT", help="comment in the first line of the file")
    parser.add_argument("-o", "--output", metavar="FILE", help="file to write (default: stdout)")
    parser.add_argument(
        "--again",
        action="store_true",
        help="regenerate files with the commands in their first lines",
    )
    parser.set_defaults(function=_new)


def _add_resources(parser: argparse.ArgumentParser, cpu: str, memory: str, gpus: str) -> None:
    """Add --cpu, --memory and --gpus; the other arguments are the defaults to print."""
    parser.add_argument("--cpu", metavar="N", help=f"CPUs of each process, e.g. 2 or 500m (default: {cpu})")
    parser.add_argument("--memory", metavar="N", help=f"memory of each process, e.g. 4Gi (default: {memory})")
    parser.add_argument("--gpus", type=int, metavar="N", help=f"GPUs of each process (default: {gpus})")


def _add_scheduling(parser: argparse.ArgumentParser, default: str) -> None:
    """Add --queue and --priority-class; the second argument is the default to print."""
    parser.add_argument("--queue", metavar="NAME", help=f"queue of Kueue that admits the trials (default: {default})")
    parser.add_argument(
        "--priority-class", metavar="NAME", help=f"priority class of the trials' pods (default: {default})"
    )


def _new(args: argparse.Namespace) -> int:
    from katib import new

    if not args.again:
        return new.write(args, sys.argv[2:])
    for file in args.overrides:
        arguments = new.recorded_arguments(file)
        new.write(_parser().parse_args(["new", *arguments, "-o", file]), arguments)
    return 0


def _add_convert(commands: Any) -> None:
    parser = command.add_command(
        commands,
        "convert",
        "write an Experiment as an OptimizationJob of Kubeflow Trainer, or back",
        "What the other kind cannot express is refused with exit code 2 (error), what is lost or different is said (warning, "
        "note). The file is checked before and after it is converted.",
        "python -m katib convert search.yaml --to OptimizationJob -o job.yaml",
    )
    parser.add_argument("file", metavar="FILE", help="YAML with one Experiment or OptimizationJob; - reads stdin")
    parser.add_argument("--to", required=True, choices=("Experiment", "OptimizationJob"), help="kind to write")
    parser.add_argument("-o", "--output", metavar="FILE", help="file to write (default: stdout)")
    parser.set_defaults(function=_convert)


def _convert(args: argparse.Namespace) -> int:
    from katib.convert import convert

    return convert(args)


def _add_cluster_commands(commands: Any) -> None:
    def add(name: str, summary: str, details: str = "") -> argparse.ArgumentParser:
        parser = command.add_command(commands, name, summary, details)
        parser.add_argument("-n", "--namespace", metavar="NAME", help="namespace (default: the context's)")
        parser.add_argument("--context", metavar="NAME", help="context of the kubeconfig (default: the current one)")
        parser.set_defaults(function=lambda args: _call_cluster_command(name, args))
        return parser

    submit = add("submit", "check a search and create it on a cluster", "If the same one exists, attach to it.")
    submit.add_argument("file", metavar="FILE", help="YAML with one Experiment or OptimizationJob; - reads stdin")
    submit.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="added to the train.py command line of all trials"
    )
    submit.add_argument("--name", metavar="NAME", help="name of the search (default: the file's)")
    submit.add_argument("--max-trials", type=int, metavar="N", help="replaces maxTrialCount")
    submit.add_argument("--image", help="image of the trials (default: the file's)")
    _add_resources(submit, *["the file's"] * 3)
    _add_scheduling(submit, "the file's")
    submit.add_argument("--dry-run", action="store_true", help="let the cluster check it, but do not create it")
    submit.add_argument("--watch", action="store_true", help="watch it until it ends")
    submit.add_argument("--timeout", type=float, metavar="SECONDS", help="time limit of --watch (default: none)")
    wait_for_start: dict[str, Any] = {
        "type": command.duration,
        "metavar": "DURATION",
        "help": "end with exit code 7 and the reason if no trial runs for so long, such as 10m (default: wait)",
    }
    submit.add_argument("--wait-for-start", **wait_for_start)
    submit.add_argument("--no-check", action="store_true", help="create it even if `check` finds errors")
    watch = add("watch", "show a live table of a search's trials", "Exit code 6 if the search fails.")
    watch.add_argument("name", metavar="NAME", help="name of the Experiment or OptimizationJob")
    watch.add_argument("--timeout", type=float, metavar="SECONDS", help="time limit; exit code 7 (default: none)")
    watch.add_argument("--wait-for-start", **wait_for_start)
    best = add("best", "print a search's best assignments as Hydra overrides")
    best.add_argument(
        "name", metavar="NAME", help="name of the Experiment or OptimizationJob, or a search folder of `run`"
    )
    best.add_argument("--json", action="store_true", help="print value, overrides and the train.py command as JSON")
    trials = add("trials", "list the trials of a search on a cluster")
    trials.add_argument("name", metavar="NAME", help="name of the Experiment or OptimizationJob")
    trials.add_argument("--json", action="store_true", help="print one JSON object per line")
    trials.add_argument("--report", metavar="FILE", help="also write the HTML report that `run` writes")
    delete = add("delete", "delete a search with its trials, and wait until their pods are gone")
    delete.add_argument("name", metavar="NAME", help="name of the Experiment or OptimizationJob")
    delete.add_argument("--unfinished", action="store_true", help="only if it has not ended")
    delete.add_argument(
        "--timeout", type=float, default=180, metavar="SECONDS", help="maximum time to wait (default: 180)"
    )


def _call_cluster_command(name: str, args: argparse.Namespace) -> int:
    from katib import cluster_commands

    return int(getattr(cluster_commands, name)(args))


def _add_stop(commands: Any) -> None:
    parser = command.add_command(
        commands,
        "stop",
        "stop the training in this pod with a checkpoint (for preStop hooks)",
        "Send SIGTERM to the trainings of this installation in this container, or to the one in a run folder, and wait until "
        "they have ended. The pod's own SIGTERM reaches only the shell that Katib wraps around the command.",
    )
    parser.add_argument(
        "folder", nargs="?", metavar="RUN", help="run folder (default: all trainings of this container)"
    )
    parser.add_argument(
        "--wait", type=float, default=110, metavar="SECONDS", help="maximum time to wait (default: 110)"
    )
    parser.set_defaults(function=_stop)


def _stop(args: argparse.Namespace) -> int:
    from katib.stop import stop_trainings

    return 0 if stop_trainings(args.wait, Path(args.folder) if args.folder else None) else 7


if __name__ == "__main__":
    command.run_main(main)
