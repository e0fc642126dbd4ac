"""`python -m pipelines submit|schedule|status|terminate`: runs on Kubeflow Pipelines, through its SDK."""

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from config.errors import ExecutionError, InputError, UnreachableError
from config.files import PROJECT, read_json
from config.masking import mask
from config.numbers import format_count
from pipelines import artifacts, failures, nodes, outcome, record, schedules, termination
from pipelines.arguments import bind_parameters
from pipelines.check import check_pipeline
from pipelines.compilation import read_documents, spec_parameters
from pipelines.resources import changed_file
from pipelines.server import Server
from pipelines.start import StartWatch
from reports.markdown import escape

POLL = 5.0  # seconds
PATIENCE = 300.0  # seconds without an answer of the server while waiting for a run
MAX_BYTES = 10_000  # of a parameter, KFP's default
LATEST = 15  # runs in a list
RETRIES = 2  # of a run whose pods were deleted
LOOK = 60.0  # seconds between looks at the Workflow while waiting for a run, which is larger than KFP's tasks
COMPRESSED = (
    "Argo compressed the Workflow of this run, which has more than 1 MB: Kubeflow's page shows its steps as they were before; "
    "MAX_WORKFLOW_SIZE of the workflow-controller is the limit (docs/pipelines.md)"
)
SETTLE = 60.0  # seconds after the end of a run in which KFP stores the states of its tasks


def submit(args: argparse.Namespace) -> int:
    """Upload a version, run it, and wait for its end."""
    server, request = _prepare_request(args)
    _sweep(server)
    arguments = request["params"]
    name = f"{arguments.get('model', 'train')} {arguments.get('data', '')} {time.strftime('%Y-%m-%d %H:%M:%S')}"
    run = str(server.call("run_pipeline", server.experiment_id(args.experiment), name, **request).run_id)
    link = server.link(run)
    print(f"run={run}", flush=True)
    print(f"isotrain: {link or run}", file=sys.stderr)
    if args.no_wait:
        return 0
    names = nodes.step_names(read_documents(args.file)[0])
    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    retries = 0
    while True:
        start_watch = StartWatch(args.wait_for_start, lambda run: _start_reason(server, run, names))
        result = _wait_for_end(server, run, deadline, names, start_watch)
        state = nodes.run_state(result)
        workflow = server.workflow(run)
        steps, details, note = _explained_steps(server, result, names, workflow)
        _print_note(note)
        if state != "FAILED" or retries == RETRIES or not _retry_deleted(server, run, steps):
            break
        retries += 1
    print(record.format_steps(steps))
    registered = outcome.registration(server, run, steps, details, _namespace(server, workflow))
    _print_note(registered)
    if args.summary:
        with Path(args.summary).open("a", encoding="utf-8") as file:
            file.write(_format_summary(run, state, steps, link, registered))
    if state != "SUCCEEDED":
        raise ExecutionError(f"the run {run} is {state}{failures.failed_step(steps)}{f'; {link}' if link else ''}")
    return 0


def schedule(args: argparse.Namespace) -> int:
    """Create a recurring run, whose runs never overlap, in place of those of its name; or list or remove schedules."""
    if args.list or args.remove:
        return _manage_schedules(args)
    if not args.file or not args.cron:
        raise InputError("schedule: set FILE and --cron, or --list, or --remove")
    if len(args.cron.split()) != 6:
        raise InputError(f"--cron {args.cron!r}: must have six fields, seconds first, as '0 0 3 * * *'")

    def refuse_early(server: Server) -> None:
        if not args.wait:
            experiment_id = server.experiment_id(args.experiment)
            schedules.wait_for_runs(server, schedules.find_schedules(server, experiment_id, args.name), False, None)

    server, request = _prepare_request(args, refuse_early)
    _sweep(server)
    experiment_id = server.experiment_id(args.experiment)
    replaced = schedules.find_schedules(server, experiment_id, args.name)
    options = {"cron_expression": args.cron, "no_catchup": True, "max_concurrency": 1}
    with schedules.retire(server, replaced, args.wait, args.timeout):
        created = server.call("create_recurring_run", experiment_id, args.name, **options, **request)
    print(f"schedule={created.recurring_run_id}", flush=True)
    print(f"isotrain: {args.name} runs at {args.cron}; {len(replaced)} of that name replaced", file=sys.stderr)
    return 0


def _manage_schedules(args: argparse.Namespace) -> int:
    server = Server(args.host, args.namespace, args.ui)
    experiment_id = server.experiment_id(args.experiment)
    if args.list:
        if existing := schedules.find_schedules(server, experiment_id):
            print(schedules.format_schedules(server, existing))
        else:
            print(f"isotrain: the experiment {args.experiment} has no schedules", file=sys.stderr)
        return 0
    existing = schedules.find_schedules(server, experiment_id, args.name)
    if not existing:
        raise InputError(f"the experiment {args.experiment} has no schedule {args.name}; --list shows the schedules")
    with schedules.retire(server, existing, args.wait, args.timeout):
        pass
    print(f"isotrain: removed {format_count(len(existing), 'schedule')} {args.name}", file=sys.stderr)
    return 0


def status(args: argparse.Namespace) -> int:
    """Print the steps of a run, on this machine or on a cluster, or the latest runs."""
    candidates = [Path(args.run), Path("outputs") / "pipelines" / args.run] if args.run else []
    folder = next((path for path in candidates if (path / "steps").is_dir()), None)
    if folder is not None:
        if args.terminate:
            raise InputError(f"{folder} is a run on this machine: end it with Ctrl-C; the same command resumes it")
        print(record.format_steps(record.read_steps(folder)))
        print(f"isotrain: {folder}: {_local_state(folder)}", file=sys.stderr)
        return 0
    if not args.run and not args.host and not os.environ.get("KFP_HOST"):
        for path in sorted(Path("outputs/pipelines").glob("*/steps"), reverse=True)[:LATEST]:
            print(f"{_local_state(path.parent):<12}{path.parent}")
        return 0
    if args.terminate:
        return terminate(args)
    server = Server(args.host, args.namespace, args.ui)
    if not args.run:
        options = {"page_size": LATEST, "sort_by": "created_at desc", "namespace": server.namespace}
        for run in server.call("list_runs", **options).runs or []:
            print(f"{nodes.run_state(run):<12}{run.run_id}  {run.display_name}")
    else:
        run = server.call("get_run", args.run)
        workflow = server.workflow(args.run)
        steps, details, note = _explained_steps(server, run, nodes.step_names(server.spec(run)), workflow)
        for line in (COMPRESSED if nodes.is_compressed(workflow) else "", note):
            _print_note(line)
        print(record.format_steps(steps))
        _print_note(outcome.registration(server, args.run, steps, details, _namespace(server, workflow)))
        text = f"{nodes.run_state(run)}{failures.failed_step(steps)}"
        print(f"isotrain: {text}: {server.link(args.run) or args.run}", file=sys.stderr)
    return 0


def terminate(args: argparse.Namespace) -> int:
    """Terminate a run, wait for its end, and do what its exit handler cannot do any more."""
    if not args.run:
        raise InputError("set RUN, the id of a run; python -m pipelines status lists the latest ones")
    server = Server(args.host, args.namespace, args.ui)
    print(f"isotrain: {termination.terminate(server, args.run, args.timeout)}", file=sys.stderr)
    return 0


def _explained_steps(
    server: Server, run: Any, names: Mapping[str, str], workflow: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[nodes.Node], str]:
    """The steps of a run, with the reasons of those that failed or do not start; its nodes; what concerns no step."""
    details = nodes.workflow_nodes(workflow) or nodes.task_nodes(run)
    steps = nodes.fold_steps(run, details, names)
    return steps, details, failures.explain_steps(server, run, steps, details, _namespace(server, workflow))


def _namespace(server: Server, workflow: Mapping[str, Any]) -> str | None:
    """The namespace of a run's pods, if it is known."""
    return (workflow.get("metadata") or {}).get("namespace") or server.namespace


def _retry_deleted(server: Server, run: str, steps: Sequence[Mapping[str, Any]]) -> bool:
    """Retry a run that failed because the pod of a step was deleted; returns whether it continues."""
    deleted = [str(step["step"]) for step in steps if failures.is_deleted(step)]
    if not deleted:
        return False
    text = f"the pod of the step {' and of '.join(deleted)} was deleted, and no other one started in its place"
    try:
        server.retry(run)
    except (InputError, UnreachableError) as error:
        _print_note(f"{text}; the run could not be retried: {error}")
        return False
    _print_note(f"{text}: the run is retried")
    return True


def _start_reason(server: Server, run: Any, names: Mapping[str, str]) -> str:
    """Why no pod of a run starts; "" if that is not known."""
    steps, _, note = _explained_steps(server, run, names, server.workflow(run.run_id))
    return "; ".join([note] if note else [f"{row['step']}: {row['message']}" for row in steps if row["message"]][:1])


def _sweep(server: Server) -> None:
    for line in termination.sweep(server):
        _print_note(line)


def _print_note(note: str) -> None:
    if note:
        print(f"isotrain: {note}", file=sys.stderr)


def _local_state(folder: Path) -> str:
    return str(read_json(folder / "pipeline.json").get("state", "not ended"))


def _prepare_request(
    args: argparse.Namespace, check: Callable[[Server], None] = lambda server: None
) -> tuple[Server, dict[str, Any]]:
    """The server, and what both kinds of runs take: arguments, the uploaded version, and the service account.

    Args:
        args: Arguments of the command.
        check: Called before anything is uploaded.
    """
    with changed_file(args.file, args.parameters) as (file, parameters):
        return _build_request(argparse.Namespace(**{**vars(args), "file": file, "parameters": parameters}), check)


def _build_request(args: argparse.Namespace, check: Callable[[Server], None]) -> tuple[Server, dict[str, Any]]:
    if findings := check_pipeline(args.file):
        first = findings[0]
        raise InputError(
            f"{args.file}: {first.location}: {first.message}; python -m pipelines check lists all findings"
        )
    spec = read_documents(args.file)[0]
    arguments = bind_parameters(spec, args.overrides, args.parameters)
    if args.image:
        arguments["image"] = args.image
    image = str(arguments.get("image", spec_parameters(spec).get("image", {}).get("defaultValue", "")))
    if "@sha256:" not in image:
        print(
            f"isotrain: warning: {image} is not named by its digest: cached results may be of another image",
            file=sys.stderr,
        )
    for name, value in arguments.items():
        if len(str(value).encode()) > MAX_BYTES:
            raise InputError(f"{name} has more than {MAX_BYTES:,} bytes, the limit of Kubeflow Pipelines")
    server = Server(args.host, args.namespace, args.ui)
    check(server)
    ids = server.upload(args.file, str(spec["pipelineInfo"]["name"]), args.version or _default_version(args.file))
    return server, {"params": arguments, "service_account": args.service_account, **ids}


def _default_version(file: str) -> str:
    """A version name from the commit and the content of the file, which settings and uncommitted changes affect, too."""
    command = ["git", "-C", str(PROJECT), "rev-parse", "--short=12", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    revision = os.environ.get("ISOTRAIN_REVISION") or commit or time.strftime("%Y-%m-%d")
    return f"{revision[:12]}-{hashlib.sha256(Path(file).read_bytes()).hexdigest()[:8]}"


def _format_summary(run: str, state: str, steps: Sequence[Mapping[str, Any]], link: str, registered: str) -> str:
    """A run in Markdown."""
    rows = [(step["step"], step["state"], f"{step['seconds']:.0f}", step["message"]) for step in steps]
    table = artifacts.table(["step", "state", "seconds", "message"], rows)
    result = f"{escape(registered)}\n\n" if registered else ""
    return mask(f"## Pipeline run {f'[{run}]({link})' if link else run}: {state}\n\n{result}{table}\n")


def _wait_for_end(
    server: Server, run: str, deadline: float | None, names: Mapping[str, str], start_watch: StartWatch
) -> Any:
    """Wait for the end of a run, and return it. A server may be unreachable for PATIENCE seconds.

    Args:
        server: The server.
        run: Id of the run.
        deadline: Latest moment, of time.monotonic(); None: without limit.
        names: Names of the steps (`nodes.step_names`), whose changes are printed.
        start_watch: Says when no pod of the run starts.

    Raises:
        UnreachableError: The run has not ended or started in time; it continues on the cluster.
    """
    unreachable_since, ended_since = None, None
    look = time.monotonic() + LOOK
    compressed: list[nodes.Node] = []  # nodes of a Workflow that KFP cannot read
    states = dict.fromkeys(names.values(), "WAITING")
    while True:
        try:
            result, unreachable_since = server.call("get_run", run), None
        except UnreachableError:
            unreachable_since = unreachable_since or time.monotonic()
            if time.monotonic() - unreachable_since > PATIENCE:
                raise
            result = None
        if result is not None:
            tasks = nodes.task_nodes(result)
            ended = nodes.run_state(result) in (*nodes.TERMINAL_STATES, "TERMINATED")
            if compressed or ended or time.monotonic() >= look:
                workflow, look = server.workflow(run), time.monotonic() + LOOK
                if nodes.is_compressed(workflow):
                    _print_note("" if compressed else COMPRESSED)
                    compressed = nodes.workflow_nodes(workflow)
                tasks = compressed or tasks
            ended_since = (ended_since or time.monotonic()) if ended else None
            # The tasks are stored after the state of the run.
            settled = not any(node.state in nodes.ACTIVE_STATES for node in tasks)
            if not ended or settled:
                _print_changes(nodes.fold_steps(result, tasks, names), states)
            if ended_since and (settled or time.monotonic() - ended_since > SETTLE):
                return result
            start_watch.update(result, tasks)
        if deadline is not None and time.monotonic() > deadline:
            raise UnreachableError(f"the run {run} has not ended in time; it continues: {server.link(run) or run}")
        time.sleep(POLL if deadline is None else max(0.0, min(POLL, deadline - time.monotonic())))


def _print_changes(steps: Sequence[Mapping[str, Any]], states: dict[str, str]) -> None:
    """Print one line for each step with another state than before; those that are never reached are in the table only."""
    for step in steps:
        if states[step["step"]] != step["state"] and step["state"] not in ("WAITING", "SKIPPED"):
            print(f"{step['step']}: {step['state']}", file=sys.stderr, flush=True)
        states[step["step"]] = step["state"]
