"""Trials of several pods: changes reach every replica, and a shell that is a pod's first process passes SIGTERM on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.errors import InputError
from katib import check, documents, shell_command, trial_processes
from katib.experiment import Experiment
from katib.experiment_changes import change_experiment
from katib.trials import Trial

ROOT = Path(__file__).resolve().parents[1]
PYTORCHJOB = ROOT / "katib" / "questions-pytorchjob.yaml"
CHILD = (
    "import signal, sys, time\n"
    "def end(*_):\n"
    "    time.sleep(0.3)\n"
    "    print('val_loss=0.25 checkpoint', flush=True)\n"
    "    sys.exit(143)\n"
    "signal.signal(signal.SIGTERM, end)\n"
    "print('val_loss=0.5', flush=True)\n"
    "time.sleep(float(sys.argv[1].partition('=')[2]))\n"
)


def load(path: Path) -> Experiment:
    (document,) = documents.read(str(path))
    return Experiment(document)


def container(experiment: Experiment, role: str) -> dict[str, Any]:
    replicas = experiment.value["spec"]["trialTemplate"]["trialSpec"]["spec"]["pytorchReplicaSpecs"]
    return replicas[role]["template"]["spec"]["containers"][0]


def test_overrides_and_image_reach_every_replica() -> None:
    changed = change_experiment(
        load(PYTORCHJOB), ["model=bert_tiny", "optim.lr=0.001", "data.path=/my data"], image="i:2"
    )
    master, worker = (container(changed, role) for role in ("Master", "Worker"))
    assert master["command"] == worker["command"]
    assert master["image"] == worker["image"] == "i:2"
    assert worker["command"][2].endswith("model=bert_tiny optim.lr=0.001 'data.path=/my data'")
    assert not [finding for finding in check.check_experiment(changed) if finding.code == "K227"]
    assert container(load(PYTORCHJOB), "Worker")["image"] != "i:2", "the file's Experiment is not changed"


def test_an_argv_of_a_worker_is_not_quoted() -> None:
    """Katib joins and wraps the primary container's words alone."""
    experiment = load(PYTORCHJOB)
    words = ["python", "train.py", "model=bert_tiny", "hydra.run.dir=/runs/a"]
    for role in ("Master", "Worker"):
        container(experiment, role).update(command=words[:1], args=words[1:])
    changed = change_experiment(experiment, ["data.path=/my data"])
    assert container(changed, "Master")["command"] == [*words, "'data.path=/my data'"]
    assert container(changed, "Worker")["command"] == [*words, "data.path=/my data"]
    assert "args" not in container(changed, "Worker")


def test_a_replica_that_cannot_take_overrides_is_refused() -> None:
    experiment = load(PYTORCHJOB)
    container(experiment, "Worker").update(command=["sh", "-c", "python serve.py"])
    with pytest.raises(InputError, match=r"Worker.*does not call train\.py"):
        change_experiment(experiment, ["model=bert_tiny"])


def test_a_name_renames_the_label() -> None:
    changed = change_experiment(load(PYTORCHJOB), name="other")
    assert changed.name == changed.value["metadata"]["labels"]["isotrain/experiment"] == "other"
    assert changed.value["metadata"]["labels"]["isotrain/trial"] == "PyTorchJob"


def test_a_search_on_this_machine_starts_each_replica_with_its_own_command(tmp_path: Path) -> None:
    experiment = load(PYTORCHJOB)
    line = container(experiment, "Worker")["command"][2]
    container(experiment, "Worker")["command"] = ["sh", "-c", f"cd . && {line}"]
    assignments = {parameter.name: parameter.low or parameter.choices[0] for parameter in experiment.parameters}
    trial = Trial("t-1", 1, "Running", assignments)
    launch = trial_processes.prepare_launch(
        experiment, trial, tmp_path, {"/runs": tmp_path / "runs"}, ["optim.warmup=3"], (0, 1)
    )
    master, worker = launch.commands
    assert worker[2].startswith("cd . && python train.py")
    assert "optim.warmup=3 1>" in master[2]
    assert worker[2].endswith("optim.warmup=3")
    assert str(tmp_path / "runs") in worker[2]
    assert [row["RANK"] for row in launch.environments] == ["0", "1"]


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("collector", ["StdOut", "Push"])
@pytest.mark.parametrize("stops", ["pod", "early", ""])
def test_the_documented_line_passes_sigterm_on(
    shell: str, is_first: bool, collector: str, stops: str, tmp_path: Path
) -> None:
    """For pods without a preStop hook: wrapped as Katib does it, in a shell that is PID 1 or not; and early stopping."""
    if is_first and subprocess.run(["unshare", "--pid", "--fork", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no right to make a process the first of its namespace")
    (tmp_path / "train.py").write_text(CHILD)
    page = (ROOT / "docs" / "distributed.md").read_text()
    (line,) = yaml.safe_load(page[page.index("args: [") :].partition("\n")[0])["args"]
    line = line.replace("torchrun train.py …", f"{sys.executable} train.py seconds={20 if stops else 1}")
    wrapped = shell_command.wrap([shell, "-c", line], collector, str(tmp_path / "metrics.log"), stops == "early")
    command = [*wrapped[:2], shell_command.expand(wrapped[2], {})]
    log = tmp_path / ("metrics.log" if collector == "StdOut" else "output")
    prefix = ["unshare", "--pid", "--fork", "--mount-proc"] if is_first else []
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen([*prefix, *command], cwd=tmp_path, stdout=output)
    finish = time.monotonic() + 30
    while not (log.exists() and "val_loss=0.5" in log.read_text()):
        assert time.monotonic() < finish
        time.sleep(0.02)
    shell_pid = int(children(process.pid)[0]) if is_first else process.pid
    (child,) = children(shell_pid)  # Katib's collector accepts one child only
    if stops == "pod":
        os.kill(shell_pid, signal.SIGTERM)
    elif stops == "early":
        number = "1" if is_first else str(shell_pid)
        (tmp_path / f"{number}.pid").write_text("early-stopped\n")
        os.kill(int(child), signal.SIGTERM)
    code = process.wait(timeout=15)
    assert ("checkpoint" in log.read_text()) == bool(stops)
    completed = [path.read_text().strip() for path in tmp_path.glob("*.pid")]
    if collector == "Push":
        assert code == (143 if stops else 0)
    elif stops == "pod":
        assert (code, completed) == (143, [])
    else:
        assert (code, completed) == (0, ["completed"])


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_every_shipped_pod_has_a_hook() -> None:
    """Of a TrainJob, in its runtime."""
    for path in sorted((ROOT / "katib").glob("*.yaml")):
        if path.stem != "kustomization":
            source = ROOT / "katib" / "cluster" / "trainer" / "runtime.yaml" if load(path).kind == "TrainJob" else path
            assert "exec: {command: [python, -m, katib, stop]}" in source.read_text(), path
