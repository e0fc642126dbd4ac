"""Processes of a trial: its pods, the processes that each pod starts, and those on this machine."""

import contextlib
import posixpath
import re
from collections.abc import Sequence
from decimal import ROUND_CEILING
from typing import Any

import psutil

from katib import shell_command
from katib.experiment import TEMPLATE, Experiment
from katib.quantity import parse_quantity
from katib.shell_parser import ShellSyntaxError

TRAINER = (*TEMPLATE, "spec", "trainer")
REPLICAS = (*TEMPLATE, "spec", "pytorchReplicaSpecs")


def pod_count(experiment: Experiment) -> int:
    """Return the number of pods that train together: 1 for a Job."""
    if experiment.kind == "TrainJob":
        return max(1, _integer(experiment.get(*TRAINER, "numNodes", default=1)) or 1)
    if experiment.kind == "PyTorchJob":
        replicas = [row for row in experiment.mapping(*REPLICAS).values() if isinstance(row, dict)]
        numbers = [_integer(row.get("replicas", 1)) for row in replicas]
        return max(1, sum(1 if number is None else number for number in numbers))
    return 1


def processes_per_pod(experiment: Experiment) -> int | None:
    """Return the number of processes in each pod; None where only the machine of a pod decides it."""
    call = torchrun_call(experiment)
    option = next((match for word in call or [] if (match := re.match(r"--nproc[-_]per[-_]node(=(.*))?$", word))), None)
    if call and option:
        text = option[2] if option[1] else next(iter(call[call.index(option[0]) + 1 :]), "")
        return int(text) if text.isdigit() else None
    if experiment.kind == "TrainJob":
        value = experiment.get(*TRAINER, "numProcPerNode")
        return default_processes(experiment) if value is None else _integer(value)
    if experiment.kind == "PyTorchJob":
        value = experiment.get(*TEMPLATE, "spec", "nprocPerNode")
        return (None if call else 1) if value is None else _integer(value)
    return 1


def default_processes(experiment: Experiment) -> int | None:
    """Return the processes of a TrainJob's pod without numProcPerNode, as Trainer's torch plugin counts them.

    They are as many as CPUs are requested; with GPUs torchrun counts those that it sees.
    """
    resources = experiment.mapping(*TRAINER, "resourcesPerNode")
    rows = [row for group in ("requests", "limits") if isinstance(row := resources.get(group), dict)]
    if any("gpu" in name.lower() for row in rows for name in row):
        return None
    amounts = [amount for row in rows if (amount := parse_quantity(row.get("cpu", "0")))]
    return max(1, int(amounts[0].to_integral_value(ROUND_CEILING))) if amounts else 1


def torchrun_call(experiment: Experiment) -> list[str] | None:
    """Return the words of a trial's call of torchrun; None if its command does not call it."""
    return find_torchrun(experiment.command, experiment.collector in shell_command.WRAPPED)


def find_torchrun(words: Sequence[str], wrapped: bool = True) -> list[str] | None:
    """Return the words of the call of torchrun in a command; None if there is none.

    Args:
        words: command and arguments of the primary container.
        wrapped: whether Katib wraps the command.
    """
    try:
        for command in shell_command.iter_calls(shell_command.parse_words(words, wrapped) if words else []):
            call = [word.text for word in shell_command.call_words(command)]
            if any(posixpath.basename(word) in ("torchrun", "torch.distributed.run") for word in call):
                return call
    except ShellSyntaxError:
        pass  # K206 and K401 report it
    return None


def _integer(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\d+", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def kill_stray_processes(trial: str) -> None:
    """Kill processes of a trial that a killed search had started but not yet stored."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("KATIB_TRIAL_NAME") == trial:
                process.kill()
