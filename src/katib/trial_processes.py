"""A trial as processes of this machine: folders, environment, wrapped command."""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from config.errors import InputError
from config.process import available_cores
from config.search_path import CONF_VARIABLE
from config.tasks import CONF
from katib import shell_command
from katib.experiment import (
    TEMPLATE,
    TRIAL,
    Experiment,
    container_words,
    default_condition,
    iter_lists,
    substitute,
    trial_view,
)
from katib.experiment_changes import add_overrides
from katib.processes import TRAINER, find_torchrun, pod_count, processes_per_pod
from katib.trials import Trial
from katib.warm_start import ForkedProcess, WarmStart

Slot = tuple[int, int]  # index of a trial among those that run, and their number
KINDS = ("Job", "PyTorchJob", "TrainJob")
OWN_VARIABLES = (CONF_VARIABLE, "PYTHONPATH")  # the caller's; a container's are paths in its image
_CONDITION = re.compile(r'status\.conditions\.#\(type=="(\w+)"\)#\|#\(status=="(\w+)"\)#')
# Conditions of each kind of workload that has succeeded, and of one that has failed.
_CONDITIONS = {
    "Job": ({"SuccessCriteriaMet": "True", "Complete": "True"}, {"FailureTarget": "True", "Failed": "True"}),
    "PyTorchJob": ({"Succeeded": "True"}, {"Failed": "True"}),
    "TrainJob": ({"Complete": "True"}, {"Failed": "True"}),
}


@dataclass(frozen=True)
class Launch:
    """The processes of a trial before they start.

    Attributes:
        commands: the primary container's wrapped command, then those of other processes.
        environments: environment of each command.
        metrics_file: file that the collector reads.
        output: file for the primary container's output.
        deadline: seconds after which Kubernetes would end the trial; None without a limit.
        grace: seconds between SIGTERM and SIGKILL.
    """

    commands: list[list[str]]
    environments: list[dict[str, str]]
    metrics_file: Path
    output: Path
    deadline: float | None
    grace: float


def check_local_support(experiment: Experiment) -> None:
    """Check that trials can run on this machine.

    Raises:
        InputError: a workload, a collector or a condition needs a cluster; the message says what to use instead.
    """
    if experiment.kind not in KINDS:
        raise InputError(f"a {experiment.kind} runs only on a cluster; use one of {', '.join(KINDS)}")
    if experiment.collector not in ("StdOut", "File"):
        raise InputError(f"the {experiment.collector} collector works only on a cluster; use StdOut or File")
    if not all(container_words(container) for _, container in experiment.replicas or [((), {})]):
        raise InputError("the command of the image cannot run without a cluster; write a command in the template")
    if experiment.kind == "PyTorchJob" and len(_worker_containers(experiment)) + 1 < pod_count(experiment):
        name = experiment.primary_name
        raise InputError(
            f"a replica of the PyTorchJob has no container {name}, as the training operator requires; add it"
        )
    for key in ("successCondition", "failureCondition"):
        condition = _condition(experiment, key)
        if not _CONDITION.fullmatch(condition):
            raise InputError(f"{key} {condition!r} cannot be evaluated here; remove it, or use the form of its default")


def _condition(experiment: Experiment, key: str) -> str:
    return experiment.text(*TRIAL, key) or default_condition(experiment.kind, key)


def meets_success_condition(experiment: Experiment, succeeded: bool) -> bool:
    """Return whether the workload of a trial that has ended meets the Experiment's successCondition.

    Args:
        experiment: an Experiment that `check_local_support` accepts.
        succeeded: whether the trial's command succeeded.
    """
    match = _CONDITION.fullmatch(_condition(experiment, "successCondition"))
    conditions = _CONDITIONS[experiment.kind][0 if succeeded else 1]
    return match is not None and conditions.get(match[1], "Unknown") == match[2]


def prepare_launch(
    experiment: Experiment,
    trial: Trial,
    folder: Path,
    mounts: Mapping[str, Path],
    overrides: Sequence[str],
    slot: Slot,
    variables: Mapping[str, str] | None = None,
) -> Launch:
    """Prepare all that a trial needs to start.

    Args:
        experiment: a checked Experiment.
        trial: the trial.
        folder: folder for its logs.
        mounts: local folder of each mount path.
        overrides: overrides to append to train.py's command line.
        slot: index of the trial among those that run, and their number.
        variables: environment of the search; None takes that of this process now.

    Raises:
        ValueError: the assignments break the template.
    """
    view = trial_view(experiment, substitute(experiment, trial.name, trial.assignments, "local"))
    collector_folder = folder / "katib"
    collector_folder.mkdir(parents=True, exist_ok=True)
    variables = os.environ if variables is None else variables
    metrics_path = Path(experiment.metrics_path)
    metrics_file = collector_folder / metrics_path.name
    _localize_commands(view, {**mounts, str(metrics_path.parent): collector_folder})
    if overrides:
        add_overrides(view, overrides)
    environment = _environment(view.primary[1] if view.primary else {}, trial.name, mounts, slot, variables)
    words = view.command
    wrapped = shell_command.wrap(words, experiment.collector, str(metrics_file), trial.rule is not None)
    commands = [[*wrapped[:2], shell_command.expand(wrapped[2], environment)]]
    environments = [environment]
    pods, per_pod = pod_count(view), processes_per_pod(view) or 1
    if view.kind == "TrainJob" and view.get(*TRAINER, "numProcPerNode") is None:
        per_pod = 1  # not as many as CPUs are requested, which this machine may not have
    if view.kind != "Job" and find_torchrun(words) is not None:  # one torchrun starts all processes of this machine
        torchrun = {"PET_NNODES": "1", "PET_NPROC_PER_NODE": str(pods * per_pod), "PET_MASTER_PORT": str(_free_port())}
        environments = [{**environment, **torchrun}]
    elif pods > 1:
        primary = view.primary[1] if view.primary else {}
        for container in _worker_containers(view) if view.kind == "PyTorchJob" else [primary] * (pods - 1):
            worker = _environment(container, trial.name, mounts, slot, variables)
            words = container_words(container)
            plain = words if shell_command.is_shell(words) else ["sh", "-c", shlex.join(words)]
            commands.append([*plain[:2], shell_command.expand(" ".join(plain[2:]), worker)])
            environments.append(worker)
        ranks = _rank_variables(view.kind, pods)
        environments = [{**row, **rank} for row, rank in zip(environments, ranks, strict=True)]
    specs = (view.mapping(*TEMPLATE, "spec"), view.mapping(*TEMPLATE, "spec", "runPolicy"), view.pod)
    deadlines = [float(row) for spec in specs if isinstance(row := spec.get("activeDeadlineSeconds"), int)]
    grace = float(view.pod.get("terminationGracePeriodSeconds", 30))
    return Launch(commands, environments, metrics_file, folder / "output.log", min(deadlines, default=None), grace)


def _localize_commands(view: Experiment, folders: Mapping[str, Path]) -> None:
    """Replace mount paths in the commands of all containers that train by local folders."""
    for path, container in view.replicas:
        changed = view.get(*path)
        changed["command"] = [_localize(word, folders) for word in container_words(container)]
        changed.pop("args", None)


def _worker_containers(view: Experiment) -> list[dict[str, Any]]:
    """Return the container of each process of a PyTorchJob, except that of the first one."""
    rows = [
        view.get(*path) for path, _ in view.replicas for _ in range(int(view.get(*path[:-4], "replicas", default=1)))
    ]
    return rows[1:]


def mount_paths(experiment: Experiment) -> list[str]:
    """Return the paths that the primary container mounts, and the parent of run folders if it is not below one."""
    mounts = (experiment.primary[1].get("volumeMounts") if experiment.primary else None) or []
    if experiment.kind == "TrainJob":  # in its podTemplateOverrides
        mounts = [row for _, rows in iter_lists(experiment.get(*TEMPLATE), TEMPLATE, "volumeMounts") for row in rows]
    paths = [str(mount.get("mountPath")) for mount in mounts if isinstance(mount, dict) and mount.get("mountPath")]
    for folder in re.findall(r"hydra\.run\.dir=(/[^\s$'\"]*)/", " ".join(experiment.command)):
        if not any(folder == path or folder.startswith(path + "/") for path in paths):
            paths.append(folder)
    return [path.rstrip("/") for path in paths]


def _environment(
    container: Mapping[str, Any], trial: str, mounts: Mapping[str, Path], slot: Slot, variables: Mapping[str, str]
) -> dict[str, str]:
    """Return the search's environment with the container's variables that are valid here, and the trial's name."""
    environment = dict(variables)
    environment |= {name: _absolute_paths(value) for name in OWN_VARIABLES if (value := environment.get(name))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    for variable in container.get("env") or []:
        value = variable.get("value") if isinstance(variable, dict) else None
        if not isinstance(value, str) or variable.get("name") in OWN_VARIABLES:
            continue
        # Paths on a volume, such as caches, do not exist here.
        if not any(value == path or value.startswith(path + "/") for path in mounts):
            environment[str(variable.get("name"))] = shell_command.expand(value, environment)
    environment["KATIB_TRIAL_NAME"] = trial
    index, slots = slot
    environment.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // slots)))
    gpus = sorted(path.name[6:] for path in Path("/dev").glob("nvidia[0-9]*"))
    if len(gpus) > 1 and "CUDA_VISIBLE_DEVICES" not in environment:
        environment["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    return environment


def _absolute_paths(paths: str) -> str:
    """Return a list of folders, separated as in PATH, as absolute paths, because trials may run in another folder."""
    if "://" in paths:  # file:// and pkg://, which Hydra resolves
        return paths
    return os.pathsep.join(str(Path(path).absolute()) for path in paths.split(os.pathsep))


def _localize(text: str, folders: Mapping[str, Path]) -> str:
    """Replace mount paths at the start of words by local folders."""
    for path in sorted(folders, key=len, reverse=True):
        local_path = str(folders[path]).replace("\\", "\\\\")
        text = re.sub(rf"(?<![\w./-]){re.escape(path)}(?=/|$|[\s'\"\]}},:;)])", local_path, text)
    return text


def _rank_variables(kind: str, pods: int) -> list[dict[str, str]]:
    """Return the variables by which the pods of a trial find each other: the training operator's, or Trainer's."""
    address, port = "127.0.0.1", str(_free_port())
    if kind == "TrainJob":
        shared = {
            "PET_NNODES": str(pods),
            "PET_NPROC_PER_NODE": "1",
            "PET_MASTER_ADDR": address,
            "PET_MASTER_PORT": port,
        }
        return [{**shared, "PET_NODE_RANK": str(rank)} for rank in range(pods)]
    shared = {"MASTER_ADDR": address, "MASTER_PORT": port, "WORLD_SIZE": str(pods)}
    return [{**shared, "RANK": str(rank)} for rank in range(pods)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class _EndedProcess:
    """A process that ended while no search was running."""

    pid: int


class TrialProcesses:
    """The running processes of a trial: the primary container's, and the other containers'."""

    def __init__(self, main: Any, workers: Sequence[Any], launch: Launch) -> None:
        self.main, self.workers, self.launch = main, list(workers), launch

    @classmethod
    def start(cls, launch: Launch, slot: Slot, warm_start: WarmStart | None = None) -> "TrialProcesses":
        """Start a trial's processes, each in its own session, on their share of the cores.

        Args:
            launch: what to start.
            slot: index of the trial among those that run, and their number.
            warm_start: starts the trial if it can (`--warm`).
        """
        folder = Path.cwd() if Path("train.py").exists() else CONF.parent
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        index, slots = slot
        if warm_start is not None:
            share = cores[index::slots] if slots <= len(cores) else []
            if process := warm_start.start(launch.commands, launch.environments, launch.output, folder, share):
                return cls(process, [], launch)
        if slots <= len(cores):
            os.sched_setaffinity(0, cores[index::slots])
        try:
            processes: list[Any] = []
            options: dict[str, Any] = {"cwd": folder}
            options |= {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "start_new_session": True}
            for command, environment in zip(launch.commands, launch.environments, strict=True):
                path = launch.output if not processes else launch.output.with_suffix(f".{len(processes)}.log")
                with path.open("ab") as output:
                    processes.append(psutil.Popen(command, env=environment, stdout=output, **options))
        finally:
            if cores:
                os.sched_setaffinity(0, cores)
        return cls(processes[0], processes[1:], launch)

    @classmethod
    def adopt(cls, ids: Sequence[tuple[int, float]], launch: Launch) -> "TrialProcesses | None":
        """Take over the processes of a search that was killed.

        Args:
            ids: process ids and creation times.
            launch: what they were started from.

        Returns:
            None if they do not run any more, and did not complete.
        """
        processes = []
        for pid, created in ids:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                    processes.append(process)
        if processes and processes[0].pid == ids[0][0]:
            return cls(processes[0], processes[1:], launch)
        ended = cls(_EndedProcess(ids[0][0]), [], launch) if ids else None
        return ended if ended is not None and ended._read_mark() == "completed" else None

    def ids(self) -> list[tuple[int, float]]:
        """Return process ids and creation times, for `adopt`."""
        ids = []
        for process in (self.main, *self.workers):
            try:
                ids.append((int(process.pid), float(process.create_time())))
            except (psutil.Error, AttributeError):
                ids.append((int(process.pid), 0.0))
        return ids

    def poll(self) -> int | None:
        """Return the exit code, and end the workers; None while it runs.

        The exit code of an adopted process follows from the file that the wrapper leaves.
        """
        if isinstance(self.main, psutil.Popen | ForkedProcess):
            code: int | None = self.main.poll()
        else:
            with contextlib.suppress(psutil.Error):
                running = isinstance(self.main, psutil.Process) and self.main.is_running()
                if running and self.main.status() != psutil.STATUS_ZOMBIE:
                    return None
            code = 0 if self._read_mark() in ("completed", "early-stopped") else 1
        if code is not None:
            self._signal(signal.SIGTERM, self.workers)
        return code

    @property
    def _mark_file(self) -> Path:
        """The file beside the metrics in which the wrapper reports the end: `completed` or `early-stopped`."""
        return self.launch.metrics_file.parent / f"{self.main.pid}.pid"

    def _read_mark(self) -> str:
        with contextlib.suppress(OSError):
            return self._mark_file.read_text().strip()
        return ""

    def stop_early(self) -> None:
        """Stop the trial as Katib's collector does: write the file, and end the shell's child."""
        self._mark_file.write_text("early-stopped")
        with contextlib.suppress(psutil.Error):
            for child in self.main.children():
                child.terminate()

    def terminate(self) -> None:
        """Send SIGTERM to all processes of the trial."""
        self._signal(signal.SIGTERM, [self.main, *self.workers])

    def kill(self) -> None:
        """Send SIGKILL to all processes of the trial and their descendants."""
        if isinstance(self.main, _EndedProcess):
            return
        for process in (self.main, *self.workers):
            with contextlib.suppress(psutil.Error):
                for child in process.children(recursive=True):
                    child.kill()
        self._signal(signal.SIGKILL, [self.main, *self.workers])

    def reap(self) -> None:
        """Wait until killed processes have ended whose parent this process has become (`--warm`)."""
        if isinstance(self.main, _EndedProcess):
            return
        end = time.monotonic() + 1
        with contextlib.suppress(ChildProcessError):  # there are no more
            while time.monotonic() < end:
                if os.waitpid(-self.main.pid, os.WNOHANG)[0] == 0:
                    time.sleep(0.01)

    @staticmethod
    def _signal(number: int, processes: Sequence[Any]) -> None:
        """Send a signal to whole sessions, because a shell does not forward it."""
        for process in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)

    def wait(self, seconds: float) -> bool:
        """Wait for all processes, and return whether they have ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.poll() is not None and not self.is_alive():
                return True
            time.sleep(0.05)
        return not self.is_alive()

    def is_alive(self) -> bool:
        """Return whether any process of the trial's sessions runs."""
        groups = [] if isinstance(self.main, _EndedProcess) else [process.pid for process in (self.main, *self.workers)]
        for process in psutil.process_iter() if groups else ():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                # A zombie stays where nothing reaps orphans.
                if os.getpgid(process.pid) in groups and process.status() != psutil.STATUS_ZOMBIE:
                    return True
        return False
