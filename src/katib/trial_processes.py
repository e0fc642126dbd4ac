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
from config.tasks import CONF, CONF_VARIABLE
from katib import shell_command
from katib.experiment import TEMPLATE, TRIAL, Experiment, default_condition, iter_lists, substitute, trial_view

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
    if not experiment.command:
        raise InputError("the command of the image cannot run without a cluster; write a command in the template")
    for key, succeeded in (("successCondition", True), ("failureCondition", False)):
        condition = _condition(experiment, succeeded)
        if not _CONDITION.fullmatch(condition):
            raise InputError(f"{key} {condition!r} cannot be evaluated here; remove it, or use the form of its default")


def _condition(experiment: Experiment, succeeded: bool) -> str:
    key = "successCondition" if succeeded else "failureCondition"
    return experiment.text(*TRIAL, key) or default_condition(experiment.kind, succeeded)


def meets_success_condition(experiment: Experiment, succeeded: bool) -> bool:
    """Return whether the workload of a trial that has ended meets the Experiment's successCondition.

    Args:
        experiment: an Experiment that `check_local_support` accepts.
        succeeded: whether the trial's command succeeded.
    """
    match = _CONDITION.fullmatch(_condition(experiment, True))
    conditions = _CONDITIONS[experiment.kind][0 if succeeded else 1]
    return match is not None and conditions.get(match[1], "Unknown") == match[2]


def prepare_launch(
    experiment: Experiment,
    trial: str,
    assignments: Mapping[str, str],
    folder: Path,
    mounts: Mapping[str, Path],
    stops_early: bool,
    overrides: Sequence[str],
    slot: tuple[int, int],
) -> Launch:
    """Prepare all that a trial needs to start.

    Args:
        experiment: a checked Experiment.
        trial: name of the trial.
        assignments: value of each parameter.
        folder: folder for its logs.
        mounts: local folder of each mount path.
        stops_early: whether it has early-stopping rules.
        overrides: overrides to append to train.py's command line.
        slot: index of the trial among those that run, and their number.

    Raises:
        ValueError: the assignments break the template.
    """
    view = trial_view(experiment, substitute(experiment, trial, assignments, "local"))
    collector_folder = folder / "katib"
    collector_folder.mkdir(parents=True, exist_ok=True)
    metrics_path = Path(experiment.metrics_path)
    metrics_file = collector_folder / metrics_path.name
    environment = _environment(view.primary[1] if view.primary else {}, trial, mounts, slot)
    words = [_localize(word, {**mounts, str(metrics_path.parent): collector_folder}) for word in view.command]
    if overrides:
        words = shell_command.append_overrides(words, overrides)
    wrapped = shell_command.wrap(words, experiment.collector, str(metrics_file), stops_early)
    commands = [[*wrapped[:2], shell_command.expand(wrapped[2], environment)]]
    environments = [environment]
    processes = _process_count(view)
    if view.kind == "PyTorchJob" and processes > 1:
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(processes)}
        environments = [{**environment, **shared, "RANK": str(rank)} for rank in range(processes)]
        plain = words if shell_command.is_shell(words) else ["sh", "-c", shlex.join(words)]
        commands += [[*plain[:2], shell_command.expand(" ".join(plain[2:]), environment)]] * (processes - 1)
    if view.kind == "TrainJob":
        torchrun = {"PET_NNODES": "1", "PET_NPROC_PER_NODE": str(processes), "PET_MASTER_PORT": str(_free_port())}
        environments = [{**environment, **torchrun}]
    deadlines = (
        view.get(*TEMPLATE, "spec", "activeDeadlineSeconds"),
        view.get(*TEMPLATE, "spec", "runPolicy", "activeDeadlineSeconds"),
        view.pod.get("activeDeadlineSeconds"),
    )
    return Launch(
        commands,
        environments,
        metrics_file,
        folder / "output.log",
        min((float(seconds) for seconds in deadlines if isinstance(seconds, int)), default=None),
        float(view.pod.get("terminationGracePeriodSeconds", 30)),
    )


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
    container: Mapping[str, Any], trial: str, mounts: Mapping[str, Path], slot: tuple[int, int]
) -> dict[str, str]:
    """Return this process's environment with the container's variables that are valid here, and the trial's name."""
    environment = dict(os.environ)
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


def _working_folder() -> Path:
    """Return the folder in which trials run: the current one if it has train.py, else that of the repository."""
    return Path.cwd() if (Path.cwd() / "train.py").exists() else CONF.parent


def _localize(text: str, folders: Mapping[str, Path]) -> str:
    """Replace mount paths at the start of words by local folders."""
    for path in sorted(folders, key=len, reverse=True):
        local_path = str(folders[path]).replace("\\", "\\\\")
        text = re.sub(rf"(?<![\w./-]){re.escape(path)}(?=/|$|[\s'\"\]}},:;)])", local_path, text)
    return text


def _process_count(experiment: Experiment) -> int:
    if experiment.kind == "TrainJob":
        nodes = experiment.get(*TEMPLATE, "spec", "trainer", "numNodes", default=1)
        per_node = experiment.get(*TEMPLATE, "spec", "trainer", "numProcPerNode", default=1)
        return int(nodes) * (per_node if isinstance(per_node, int) else 1)
    replicas = experiment.mapping(*TEMPLATE, "spec", "pytorchReplicaSpecs").values()
    return max(1, sum(int(replica.get("replicas", 1)) for replica in replicas if isinstance(replica, dict)))


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
    def start(cls, launch: Launch, slot: tuple[int, int]) -> "TrialProcesses":
        """Start a trial's processes, each in its own session, on their share of the cores.

        Args:
            launch: what to start.
            slot: index of the trial among those that run, and their number.
        """
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if cores:
            index, slots = slot
            os.sched_setaffinity(0, cores[index::slots] if slots <= len(cores) else cores)
        try:
            processes: list[Any] = []
            for command, environment in zip(launch.commands, launch.environments, strict=True):
                path = launch.output if not processes else launch.output.with_suffix(f".{len(processes)}.log")
                with path.open("ab") as output:
                    processes.append(
                        psutil.Popen(
                            command,
                            env=environment,
                            cwd=_working_folder(),
                            stdin=subprocess.DEVNULL,
                            stdout=output,
                            stderr=subprocess.STDOUT,
                            start_new_session=True,
                        )
                    )
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
        if isinstance(self.main, psutil.Popen):
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
        for process in () if isinstance(self.main, _EndedProcess) else (self.main, *self.workers):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, 0)
                if _has_living_member(process.pid):
                    return True
        return False


def _has_living_member(group: int) -> bool:
    """Return whether a process group has a member that is not a zombie (those stay where nothing reaps orphans)."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def kill_stray_processes(trial: str) -> None:
    """Kill processes of a trial that a killed search had started but not yet stored."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("KATIB_TRIAL_NAME") == trial:
                process.kill()
