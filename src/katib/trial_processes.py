"""A trial as processes of this machine: its folders, its environment, its wrapped command."""

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
from config.tasks import CONF, CONF_VARIABLE
from katib import shell_command
from katib.experiment import TEMPLATE, Experiment, condition, substitute, trial_of
from katib.rules_webhook import TRIAL

KINDS = ("Job", "PyTorchJob", "TrainJob")
_OWN = (CONF_VARIABLE, "PYTHONPATH")  # where a task of the caller's own is: a container's are paths in its image
_CONDITION = re.compile(r'status\.conditions\.#\(type=="(\w+)"\)#\|#\(status=="(\w+)"\)#')
# What each kind of workload says of itself when it has ended well, and badly.
_ENDINGS = {
    "Job": ({"SuccessCriteriaMet": "True", "Complete": "True"}, {"FailureTarget": "True", "Failed": "True"}),
    "PyTorchJob": ({"Succeeded": "True"}, {"Failed": "True"}),
    "TrainJob": ({"Complete": "True"}, {"Failed": "True"}),
}


@dataclass(frozen=True)
class Launch:
    """What to start for a trial.

    Attributes:
        commands: the primary container's wrapped command first, then those of other processes.
        environments: of each.
        metrics_file: that the collector reads.
        output: what the primary container prints beside it.
        deadline: seconds after which Kubernetes would end it; None if it would not.
        grace: seconds between SIGTERM and SIGKILL.
    """

    commands: list[list[str]]
    environments: list[dict[str, str]]
    metrics_file: Path
    output: Path
    deadline: float | None
    grace: float


def refuse_what_cannot_run(experiment: Experiment) -> None:
    """Names workloads, collectors and conditions that only a cluster has.

    Raises:
        InputError: with what to use instead.
    """
    if experiment.kind not in KINDS:
        raise InputError(f"a {experiment.kind} runs on a cluster only; here there are {', '.join(KINDS)}")
    if experiment.collector not in ("StdOut", "File"):
        raise InputError(f"the {experiment.collector} collector is on a cluster only; use StdOut or File")
    if not experiment.line:
        raise InputError("the command is the image's own, and there is no image here; write it in the template")
    for key, good in (("successCondition", True), ("failureCondition", False)):
        text = _told(experiment, key, good)
        if not _CONDITION.fullmatch(text):
            raise InputError(f"{key} {text!r} cannot be told here; leave it out, or use Katib's default form")


def _told(experiment: Experiment, key: str, good: bool) -> str:
    return str(experiment.get(*TRIAL, key) or condition(experiment.kind, good))


def meets(experiment: Experiment, good: bool, succeeded: bool) -> bool:
    """Whether the workload of a trial that ended well (or not) meets the success (or failure) condition."""
    found = _CONDITION.fullmatch(_told(experiment, "successCondition" if good else "failureCondition", good))
    conditions = _ENDINGS[experiment.kind][0 if succeeded else 1]
    return found is not None and conditions.get(found[1], "Unknown") == found[2]


def launch(
    experiment: Experiment,
    trial: str,
    assignments: Mapping[str, str],
    folder: Path,
    mounts: Mapping[str, Path],
    stops: bool,
    more: Sequence[str],
    slot: tuple[int, int],
) -> Launch:
    """Everything that a trial needs to start here.

    Args:
        experiment: checked.
        trial: its name.
        assignments: a value for each parameter.
        folder: for its logs.
        mounts: local folders of what containers mount, by their paths.
        stops: whether it has early-stopping rules.
        more: overrides to add to train.py's command line.
        slot: which of how many trials at a time it is.

    Raises:
        ValueError: its assignments break the template.
    """
    workload = substitute(experiment, trial, assignments, "local")
    view = trial_of(experiment, workload)
    folder.mkdir(parents=True, exist_ok=True)
    collected = folder / "katib"
    collected.mkdir(exist_ok=True)
    mapped = {**mounts, str(Path(experiment.metrics_path).parent): collected}
    primary = view.primary[1] if view.primary else {}
    base = _environment(primary, trial, mounts, slot)
    words = [_local(word, mapped) for word in view.line]
    if more:
        words = with_overrides(words, more)
    wrapped = shell_command.wrap(
        words, experiment.collector, str(collected / Path(experiment.metrics_path).name), stops
    )
    commands = [[*wrapped[:2], shell_command.expand(wrapped[2], base)]]
    environments = [base]
    processes = _processes(view)
    if view.kind == "PyTorchJob" and processes > 1:
        port = _free_port()
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
        environments = [{**base, **shared, "RANK": str(rank)} for rank in range(processes)]
        plain = words if shell_command.is_shell(words) else ["sh", "-c", shlex.join(words)]
        commands += [[*plain[:2], shell_command.expand(" ".join(plain[2:]), base)]] * (processes - 1)
    if view.kind == "TrainJob":
        environments = [
            {**base, "PET_NNODES": "1", "PET_NPROC_PER_NODE": str(processes), "PET_MASTER_PORT": str(_free_port())}
        ]
    places = (("activeDeadlineSeconds",), ("runPolicy", "activeDeadlineSeconds"))
    limits = [view.get(*TEMPLATE, "spec", *place) for place in places] + [view.pod.get("activeDeadlineSeconds")]
    seconds = min((each for each in limits if isinstance(each, int)), default=None)
    grace = view.pod.get("terminationGracePeriodSeconds", 30)
    return Launch(
        commands,
        environments,
        collected / Path(experiment.metrics_path).name,
        folder / "output.log",
        None if seconds is None else float(seconds),
        float(grace),
    )


def mounted(experiment: Experiment) -> list[str]:
    """Paths that the primary container mounts, and the one that holds the trials' runs if it is none of them."""
    if experiment.kind == "TrainJob":
        found = _overridden_mounts(experiment)
    else:
        found = (experiment.primary[1].get("volumeMounts") if experiment.primary else None) or []
    paths = [str(each.get("mountPath")) for each in found if isinstance(each, dict) and each.get("mountPath")]
    for folder in re.findall(r"hydra\.run\.dir=(/[^\s$'\"]*)/", " ".join(experiment.line)):
        if not any(folder == path or folder.startswith(path + "/") for path in paths):
            paths.append(folder)
    return [path.rstrip("/") for path in paths]


def keys(experiment: Experiment) -> dict[str, str]:
    """The parameter that each Hydra key of the command takes its whole value from."""
    references = {name: reference for name, reference, _ in experiment.trial_parameters}
    found = {}
    for word in shell_command.overrides(shell_command.script(experiment.line)) or []:
        match = re.fullmatch(r"([^=]+)=\$\{trialParameters\.([^}]+)\}", word)
        if match and match[2] in references:
            found[match[1].lstrip("+")] = references[match[2]]
    return found


def _overridden_mounts(experiment: Experiment) -> list[Any]:
    """Mounts in a TrainJob's overrides of its pods."""
    found: list[Any] = []
    for index, override in enumerate(experiment.items(*TEMPLATE, "spec", "podTemplateOverrides")):
        place = (*TEMPLATE, "spec", "podTemplateOverrides", index, "spec", "containers")
        if isinstance(override, dict):
            for number, _ in enumerate(experiment.items(*place)):
                found += experiment.items(*place, number, "volumeMounts")
    return found


def _environment(
    container: Mapping[str, Any], trial: str, mounts: Mapping[str, Path], slot: tuple[int, int]
) -> dict[str, str]:
    """This process's environment, the container's variables that make sense here, and the trial's name."""
    found = dict(os.environ)
    found |= {name: _absolute(value) for name in _OWN if (value := found.get(name))}
    found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{found.get('PATH', os.defpath)}"
    for each in container.get("env") or []:
        value = each.get("value") if isinstance(each, dict) else None
        if not isinstance(value, str) or each.get("name") in _OWN:
            continue
        # A path on a volume means nothing here: this machine has caches of its own.
        if not any(value == path or value.startswith(path + "/") for path in mounts):
            found[str(each.get("name"))] = shell_command.expand(value, found)
    found["KATIB_TRIAL_NAME"] = trial
    index, slots = slot
    threads = max(1, (cores() or 1) // slots)
    found.setdefault("OMP_NUM_THREADS", str(threads))
    gpus = sorted(path.name[6:] for path in Path("/dev").glob("nvidia[0-9]*"))
    if len(gpus) > 1 and "CUDA_VISIBLE_DEVICES" not in found:
        found["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    return found


def _absolute(paths: str) -> str:
    """Folders, separated as in PATH, that may be relative to this process's: a trial may run elsewhere."""
    if "://" in paths:  # file:// and pkg://, which Hydra knows
        return paths
    return os.pathsep.join(str(Path(path).absolute()) for path in paths.split(os.pathsep))


def directory() -> Path:
    """Where trials run: here, or beside train.py where there is none here."""
    return Path.cwd() if (Path.cwd() / "train.py").exists() else CONF.parent


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _local(text: str, places: Mapping[str, Path]) -> str:
    """Paths on volumes as local ones, wherever a word begins with one."""
    for path in sorted(places, key=len, reverse=True):
        local_ = str(places[path]).replace("\\", "\\\\")
        text = re.sub(rf"(?<![\w./-]){re.escape(path)}(?=/|$|[\s'\"\]}},:;)])", local_, text)
    return text


def with_overrides(words: list[str], more: Sequence[str]) -> list[str]:
    """The words with overrides added to the call of train.py.

    Raises:
        InputError: it is not called.
    """
    added = " ".join(shlex.quote(each) for each in more)
    if not shell_command.is_shell(words):
        if shell_command.overrides(shlex.join(words)) is None:
            raise InputError("the command does not call train.py, so there is nothing to add overrides to")
        return [*words, *(shlex.quote(each) for each in more)]
    script = " ".join(words[2:])
    call = shell_command.training(script)
    if call is None:
        raise InputError("the command does not call train.py, so there is nothing to add overrides to")
    return [*words[:2], f"{script[: call.end]} {added}{script[call.end :]}"]


def _processes(experiment: Experiment) -> int:
    if experiment.kind == "TrainJob":
        nodes = experiment.get(*TEMPLATE, "spec", "trainer", "numNodes", default=1)
        each = experiment.get(*TEMPLATE, "spec", "trainer", "numProcPerNode", default=1)
        return int(nodes) * (each if isinstance(each, int) else 1)
    replicas = experiment.mapping(*TEMPLATE, "spec", "pytorchReplicaSpecs")
    return max(1, sum(int(each.get("replicas", 1)) for each in replicas.values() if isinstance(each, dict)))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass(frozen=True)
class _Gone:
    """A process that has ended while nobody watched."""

    pid: int


class Processes:
    """The running processes of a trial."""

    def __init__(self, main: Any, others: Sequence[Any], launch: Launch) -> None:
        self.main, self.others, self.launch = main, list(others), launch

    @classmethod
    def start(cls, launch: Launch, slot: tuple[int, int]) -> "Processes":
        """Starts them, each in a session of its own, on its share of the processors."""
        before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
        if before:
            index, slots = slot
            share = sorted(before)[index :: min(slots, len(before))] if slots <= len(before) else sorted(before)
            os.sched_setaffinity(0, share)
        try:
            started: list[Any] = []
            for command_, environment in zip(launch.commands, launch.environments, strict=True):
                name = launch.output if not started else launch.output.with_suffix(f".{len(started)}.log")
                with name.open("ab") as output:
                    started.append(
                        psutil.Popen(
                            command_,
                            env=environment,
                            cwd=directory(),
                            stdin=subprocess.DEVNULL,
                            stdout=output,
                            stderr=subprocess.STDOUT,
                            start_new_session=True,
                        )
                    )
        finally:
            if before:
                os.sched_setaffinity(0, before)
        return cls(started[0], started[1:], launch)

    @classmethod
    def adopt(cls, pids: Sequence[tuple[int, float]], launch: Launch) -> "Processes | None":
        """Those of a search that was killed, if they are still there.

        Args:
            pids: process ids and when they were created.
            launch: what they were started from.

        Returns:
            None if they are gone, and had not ended well by themselves.
        """
        found = []
        for pid, created in pids:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        if found and found[0].pid == pids[0][0]:
            return cls(found[0], found[1:], launch)
        gone = cls(_Gone(pids[0][0]), [], launch) if pids else None
        return gone if gone is not None and gone.mark() == "completed" else None

    def ids(self) -> list[tuple[int, float]]:
        """What `adopt` takes."""
        found = []
        for process in (self.main, *self.others):
            try:
                found.append((int(process.pid), float(process.create_time())))
            except (psutil.Error, AttributeError):
                found.append((int(process.pid), 0.0))
        return found

    def ended(self) -> int | None:
        """The exit status; None while it runs. An adopted process's is told by the mark that the wrapper leaves."""
        if isinstance(self.main, psutil.Popen):
            code: int | None = self.main.poll()
        else:
            with contextlib.suppress(psutil.Error):
                if (
                    isinstance(self.main, psutil.Process)
                    and self.main.is_running()
                    and self.main.status() != psutil.STATUS_ZOMBIE
                ):
                    return None
            code = 0 if self.mark() in ("completed", "early-stopped") else 1
        if code is not None:
            self.signal(signal.SIGTERM, self.others)
        return code

    def mark(self) -> str:
        """What the file <pid>.pid beside the metrics says: completed, early-stopped or nothing."""
        with contextlib.suppress(OSError):
            return (self.launch.metrics_file.parent / f"{self.main.pid}.pid").read_text().strip()
        return ""

    def stop_early(self) -> None:
        """What the collector does: leaves a mark, and ends the shell's child."""
        (self.launch.metrics_file.parent / f"{self.main.pid}.pid").write_text("early-stopped")
        with contextlib.suppress(psutil.Error):
            for child in self.main.children():
                child.terminate()

    def terminate(self) -> None:
        """SIGTERM to all processes of the trial."""
        self.signal(signal.SIGTERM, [self.main, *self.others])

    def kill(self) -> None:
        """SIGKILL to all processes of the trial, and whatever they have started."""
        if isinstance(self.main, _Gone):
            return
        for process in (self.main, *self.others):
            with contextlib.suppress(psutil.Error):
                for child in process.children(recursive=True):
                    child.kill()
        self.signal(signal.SIGKILL, [self.main, *self.others])

    @staticmethod
    def signal(number: int, processes: Sequence[Any]) -> None:
        """To whole sessions: the shell alone would not pass it on."""
        for process in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)

    def wait(self, seconds: float) -> bool:
        """Whether all have ended within so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.ended() is not None and not self.alive():
                return True
            time.sleep(0.05)
        return not self.alive()

    def alive(self) -> bool:
        """Whether any process of its sessions is still there."""
        for process in () if isinstance(self.main, _Gone) else (self.main, *self.others):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, 0)
                if _lives(process.pid):
                    return True
        return False


def _lives(group: int) -> bool:
    """Whether a process group has a member that is no zombie: where nobody reaps orphans, those stay."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def kill_strays(trial: str) -> None:
    """Ends what a search that was killed had started for a trial and not yet noted."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("KATIB_TRIAL_NAME") == trial:
                process.kill()
