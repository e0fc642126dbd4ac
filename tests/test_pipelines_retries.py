"""Retries of a step under both policies of Argo: what may pass is repeated, what is refused never."""

import functools
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.argo_double import LEVELS, POLICIES, Argo, Outcome, count_pods

from config.files import read_json
from pipelines import compilation, record, retries
from pipelines.definition import RETRIED
from runs import record as run_record

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "pipelines").glob("*.yaml"))
PERMANENT = (1, 2, 3, 4, 5, 6)
STEP = """
import sys
from pipelines import record, retries
from pipelines.commands import run_command

@retries.repeat
def step(root):
    with record.record_step(root, "train", run="r") as fields:
        run_command(fields, "-c", "import sys; exec(open(sys.argv[1]).read())", root + "/command.py", root)

step(sys.argv[1])
"""
# Ends with the next of the exit codes in a file; "hang" writes its process id and waits.
COMMAND = """
import os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[2])
code, _, rest = (folder / "codes").read_text().partition(" ")
(folder / "codes").write_text(rest)
print("command", code, flush=True)
if code == "hang":
    (folder / "pid").write_text(str(os.getpid()))
    (folder / "pid").rename(folder / "marker")
    for number in range(600):
        print("epoch", number, flush=True)
        time.sleep(0.1)
if code == "137":
    os.kill(os.getpid(), signal.SIGKILL)
print("isotrain: the reason", file=sys.stderr)
sys.exit(int(code))
"""


@functools.cache
def compiled_retry(file: Path) -> dict[str, Any]:
    """The retries of the train step in a compiled pipeline."""
    (retry,) = {
        tuple(sorted(task["retryPolicy"].items()))
        for component in compilation.read_documents(str(file))[0]["components"].values()
        for task in component.get("dag", {}).get("tasks", {}).values()
        if "retryPolicy" in task
    }
    return dict(retry)


class Step:
    """A step on a cluster.

    Attributes:
        argo: The cluster.
    """

    def __init__(self, folder: Path, policy: str) -> None:
        self.folder = folder
        self.argo = Argo(policy, compiled_retry(FILES[0]))
        (folder / "command.py").write_text(COMMAND)
        (folder / "step.py").write_text(STEP)

    def run(
        self,
        codes: str,
        deleted: tuple[int, ...] = (),
        variables: Mapping[str, str] | None = None,
        launcher_first: bool = False,
    ) -> Outcome:
        """Run the step; its command ends with `codes`, one after another."""
        (self.folder / "codes").write_text(codes)
        environment = {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
            "KFP_RUN_ID": "one",
            retries.RETRIES: str(self.argo.retry["maxRetryCount"]),
            retries.SECONDS: "0.01",
            **(variables or {}),
        }
        command = [sys.executable, str(self.folder / "step.py"), str(self.folder)]
        return self.argo.run(command, environment, deleted, self.folder / "marker", launcher_first)

    @property
    def record(self) -> dict[str, Any]:
        return read_json(self.folder / "pipelines" / "one" / "steps" / "train.json")


@pytest.fixture(params=POLICIES.values(), ids=POLICIES.keys())
def step(request: pytest.FixtureRequest, tmp_path: Path) -> Step:
    return Step(tmp_path, request.param)


@pytest.mark.parametrize(
    ("policy", "code"), [("OnError", 2), ("Always", 2), *(("OnFailure", code) for code in PERMANENT)]
)
def test_a_failure_that_would_be_repeated_is_not_retried(policy: str, code: int, tmp_path: Path) -> None:
    step = Step(tmp_path, policy)
    outcome = step.run(f"{code} 0 0 0 0")
    assert (outcome.phase, outcome.code) == ("Failed", code)
    assert outcome.log.count("command ") == 1
    assert (step.record["code"], step.record["message"]) == (code, "the reason")
    refusals = outcome.log.count("isotrain: train: not retried, because it")
    assert refusals == outcome.pods - 1 == (0 if policy == "OnError" else 2)


@pytest.mark.parametrize(
    ("policy", "code"), [("OnFailure", 8), ("Always", 8), *(("OnError", code) for code in retries.REPEATABLE)]
)
def test_a_failure_that_may_pass_is_repeated_by_the_step(policy: str, code: int, tmp_path: Path) -> None:
    step = Step(tmp_path, policy)
    outcome = step.run(f"{code} 0")
    assert (outcome.phase, outcome.pods, outcome.log.count("command ")) == ("Succeeded", 1, 2)
    assert f"isotrain: exit code {code}: repeated in 0.01 s" in outcome.log
    assert [attempt["code"] for attempt in step.record["attempts"]] == [code]
    assert f"attempt 1 ended with exit code {code}" in outcome.log


def test_attempts_of_the_step_and_of_argo_are_not_multiplied(step: Step) -> None:
    outcome = step.run("8 8 8 8 8 8 8 8 8 8")
    assert (outcome.phase, outcome.code, outcome.log.count("command ")) == ("Failed", 8, 3)
    assert ("3 attempts have failed, the last one with exit code 8" in outcome.log) == (outcome.pods > 1)


def test_attempts_of_the_step_and_of_train_py_are_not_multiplied(tmp_path: Path) -> None:
    """A trial's train.py starts itself again (config.retries); a step's must not."""
    step = Step(tmp_path, "OnError")
    lines = "\n".join(f"    {line}" for line in COMMAND.splitlines())
    (tmp_path / "command.py").write_text(
        f"from config.retries import repeat_failures\nwith repeat_failures():\n{lines}\n"
    )
    outcome = step.run("8 8 8 8 8 8 8 8 8 8")
    assert (outcome.code, outcome.log.count("command ")) == (8, 3)


@pytest.mark.parametrize("launcher_first", [False, True], ids=["at once", "launcher first"])
def test_a_deleted_pod_is_retried_where_argo_does(launcher_first: bool, step: Step) -> None:
    """With OnFailure it is the run that is retried, by hand."""
    outcome = step.run("hang 0", deleted=(0,), launcher_first=launcher_first)
    if step.argo.policy == "OnFailure":
        state = "interrupted" if launcher_first else "running"
        assert (outcome.phase, outcome.pods, step.record["state"]) == ("Error", 1, state)
        outcome = step.run("0")
    else:
        assert [attempt["state"] for attempt in step.record["attempts"]] == [
            "interrupted" if launcher_first else "lost"
        ]
        said = "was interrupted" if launcher_first else "was lost with its pod or process"
        assert f"isotrain: train … attempt 1 {said}" in outcome.log
    assert outcome.phase == "Succeeded"


def test_a_deleted_pod_says_so_in_its_record(tmp_path: Path) -> None:
    step = Step(tmp_path, "OnFailure")
    step.run("hang", deleted=(0,), launcher_first=True)
    assert (step.record["code"], step.record["message"]) == (143, record.CLOSED)


@pytest.mark.parametrize("launcher_first", [False, True], ids=["at once", "launcher first"])
def test_after_a_lost_pod_a_refused_input_is_not_retried(launcher_first: bool, tmp_path: Path) -> None:
    step = Step(tmp_path, "Always")
    outcome = step.run("hang 2 0", deleted=(0,), launcher_first=launcher_first)
    assert (outcome.phase, outcome.code, outcome.log.count("command ")) == ("Failed", 2, 2)
    assert [attempt["state"] for attempt in step.record["attempts"]] == ["interrupted" if launcher_first else "lost"]


def test_the_documented_defaults_of_workflows_retry_lost_pods_only() -> None:
    """As seen on KFP 2.17: `Always` alone repeats a refused input on each level of the pipeline."""
    assert count_pods({"limit": "2", "retryPolicy": "Always"}, "Failed", "1") == 3**LEVELS
    text = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"kubectl -n kubeflow patch configmap workflow-controller-configmap .*", text)
    defaults = json.loads(shlex.split(command)[-1])["data"]["workflowDefaults"]
    strategy = yaml.safe_load(defaults)["spec"]["templateDefaults"]["retryStrategy"]
    assert count_pods(strategy, "Failed", "1") == 1
    assert count_pods(strategy, "Failed", "143") == 3
    assert count_pods(strategy, "Error", "") > 1


@pytest.mark.parametrize("codes", ["2", "8 8 8"])
def test_a_run_that_is_retried_by_hand_runs_the_step_again(codes: str, step: Step) -> None:
    """After its cause is removed. The ids of Argo's nodes are those of the first attempts."""
    assert step.run(codes).phase == "Failed"
    outcome = step.run("0")
    assert (outcome.phase, outcome.pods, step.record["attempts"]) == ("Succeeded", 1, [])


def test_a_pipeline_of_an_earlier_version_is_retried_by_argo_alone(tmp_path: Path) -> None:
    outcome = Step(tmp_path, "OnFailure").run("8 8 0", variables={retries.RETRIES: ""})
    assert (outcome.phase, outcome.pods, outcome.log.count("command ")) == ("Succeeded", 3, 3)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_a_long_training_is_retried_too(file: Path, tmp_path: Path) -> None:
    """Argo's maximum is not one of the pause but of all attempts together, and ends the second one, too."""
    step = Step(tmp_path, "OnError")
    step.argo = Argo("OnError", compiled_retry(file), elapsed=7 * 86400)
    assert step.run("hang hang 0", deleted=(0, 1)).phase == "Succeeded"


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_retried_steps_know_the_number_of_retries(file: Path) -> None:
    executors = compilation.read_documents(str(file))[0]["deploymentSpec"]["executors"]
    values = {
        label.removeprefix("exec-"): variable["value"]
        for label, executor in executors.items()
        for variable in executor["container"].get("env", [])
        if variable["name"] == retries.RETRIES
    }
    assert values == dict.fromkeys(RETRIED, str(compiled_retry(file)["maxRetryCount"]))


def test_the_record_of_a_training_says_what_a_killed_process_lost(tmp_path: Path) -> None:
    for number in range(2):
        run_record.start_record(tmp_path, config={}, seeds={})
        if not number:
            (tmp_path / "checkpoints").mkdir()
            (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"")
            os.utime(tmp_path / "checkpoints" / "last.ckpt", (86400, 86400))
    lost, present = read_json(tmp_path / "run.json")["sessions"]
    assert (lost["lost"], lost["ended"], lost["checkpoint"][:16]) == (True, None, "1970-01-02T00:00")
    assert "lost" not in present
