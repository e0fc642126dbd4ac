"""A trial outlives its pod: what the manifests ask of Kubernetes, retries in place, and an end to repeated kills."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ROOT

from config.errors import ResourceError
from katib import check, documents, manifest
from katib.__main__ import main
from katib.experiment import Experiment
from runs.record import MAX_KILLS, check_progress, start_record

SEARCH = ["model=resnet18", "data=shapes", "optim.lr=uniform(0.001,0.01,0.001)", "--name", "small"]


def experiment(*options: str, capsys: pytest.CaptureFixture[str]) -> Experiment:
    """What `katib new` prints."""
    assert main(["new", *SEARCH, *options]) == 0
    (document,) = documents.parse(capsys.readouterr().out, "small.yaml")
    return Experiment(document)


def variables(container: dict[str, object]) -> dict[str, str]:
    return {row["name"]: row.get("value", "") for row in container.get("env", [])}  # type: ignore[index,attr-defined]


def test_a_job_replaces_a_lost_pod_and_fails_for_real_failures(capsys: pytest.CaptureFixture[str]) -> None:
    found = experiment(capsys=capsys)
    job = found.get("spec", "trialTemplate", "trialSpec", "spec")
    assert job["backoffLimit"] == 0
    policy = job["podFailurePolicy"]["rules"]
    (container,) = job["template"]["spec"]["containers"]
    assert [rule["action"] for rule in policy] == ["Ignore", "Ignore", "FailJob"]  # the first that matches counts
    assert policy[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert [rule["onExitCodes"]["containerName"] for rule in policy[1:]] == [container["name"]] * 2
    assert [rule["onExitCodes"]["values"] for rule in policy[1:]] == [[138, 143], [2, 3, 4, 5]]
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # a podFailurePolicy excludes others
    assert "ISOTRAIN_RETRIES" not in variables(container)
    assert check.check_experiment(found) == []


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("kind", ["Job", "PyTorchJob", "TrainJob"])
def test_every_process_of_a_trial_has_the_same_retries(
    kind: str, retries: int, capsys: pytest.CaptureFixture[str]
) -> None:
    found = experiment("--kind", kind, "--retries", str(retries), capsys=capsys)
    texts = [variables(container).get("ISOTRAIN_RETRIES") for _, container in found.containers()]
    # The operator counts no restarts: a PyTorchJob's processes need the variable for `check_progress`.
    assert texts == [str(retries) if retries or kind == "PyTorchJob" else None] * len(texts)
    if kind == "PyTorchJob":
        replicas = found.get("spec", "trialTemplate", "trialSpec", "spec", "pytorchReplicaSpecs")
        assert [replica["restartPolicy"] for replica in replicas.values()] == ["ExitCode", "ExitCode"]
        assert all(code >= 128 for code in manifest.LOSSES)
        assert all(code < 128 for code in manifest.REAL_FAILURES)


def test_negative_retries_are_refused() -> None:
    done = _python("-m", "katib", "new", *SEARCH, "--retries", "-1")
    assert (done.returncode, "must be 0 or more" in done.stderr) == (2, True)


def test_a_population_needs_no_volume_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    found = experiment("--algorithm", "pbt", capsys=capsys)
    assert found.settings["suggestion_trial_dir"] == ""
    assert "'population_parent=/runs/${oc.env:POPULATION_PARENT,none}'" in " ".join(found.command)
    (container,) = [container for _, container in found.containers()]
    (variable,) = [row for row in container["env"] if row["name"] == "POPULATION_PARENT"]
    path = "metadata.labels['pbt.suggestion.katib.kubeflow.org/parent']"
    assert variable["valueFrom"] == {"fieldRef": {"fieldPath": path}}
    assert check.check_experiment(found) == []


# --- retries in place

PROGRAM = """
import os, pathlib, sys
sys.path.insert(0, {source!r})
from config.retries import repeat_failures
path = pathlib.Path({file!r})
with path.open("a") as file:
    print(os.getpid(), os.environ.get("TORCHELASTIC_RESTART_COUNT"), "ISOTRAIN_RESTARTED" in os.environ, file=file)
with repeat_failures():
    sys.exit({codes}[len(path.read_text().splitlines()) - 1])
"""


@pytest.mark.parametrize(
    ("codes", "retries", "starts", "code"),
    [
        ([8, 1, 0], "2", 3, 0),
        ([7, 7, 7, 0], "2", 3, 7),
        ([1, 0], "0", 1, 1),
        ([1, 0], None, 1, 1),
        *(([code, 0], "2", 1, code) for code in (0, 2, 3, 4, 5, 6, 130, 138, 143)),
    ],
)
def test_plain_failures_are_repeated_in_place(
    codes: list[int], retries: str | None, starts: int, code: int, tmp_path: Path
) -> None:
    script, file = tmp_path / "program.py", tmp_path / "starts"
    script.write_text(PROGRAM.format(source=str(ROOT / "src"), file=str(file), codes=codes))
    environment = {"ISOTRAIN_RETRIES": retries} if retries is not None else {}
    done = _python(str(script), TORCHELASTIC_RESTART_COUNT="4", **environment)
    rows = [line.split() for line in file.read_text().splitlines()]
    assert (done.returncode, len(rows)) == (code, starts), done.stderr
    assert len({pid for pid, _, _ in rows}) == 1
    # torchrun's store keeps the keys of each attempt apart.
    assert [(count, again) for _, count, again in rows] == [(str(4 + i), str(i > 0)) for i in range(starts)]


@pytest.mark.slow
def test_all_ranks_start_again_together(tmp_path: Path, cache: Path) -> None:
    """The disk is full for rank zero's first checkpoint alone; without a checkpoint the second attempt begins anew."""
    script = tmp_path / "once.py"
    script.write_text(
        "import errno, os, runpy, sys, torch\n"
        "def save(*_, **__):\n"
        "    raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "if 'ISOTRAIN_RESTARTED' not in os.environ:\n"
        "    torch.save = save\n"
        f"sys.argv[0] = {str(ROOT / 'train.py')!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    words = ["model=resnet18", "model.name=test_resnet", "model.stem=standard", "data=shapes", "data.sample.train=64"]
    words += [
        "data.sample.val=16",
        "data.batch_size=16",
        "trainer.max_epochs=2",
        "trainer.accelerator=cpu",
        "quality=off",
    ]
    command = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(script), *words]
    done = _python(*command, f"hydra.run.dir={tmp_path}/run", ISOTRAIN_RETRIES="1", ISOTRAIN_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("starting again after exit code 8; retries left: 0") == 2
    validations = [line for line in done.stdout.splitlines() if "val_accuracy" in line]
    # The first attempt's, those of the second, and the best one again at the end.
    assert [line.split()[1] for line in validations] == ["epoch=1", "epoch=1", "epoch=2", "epoch=2"]
    assert len({line.partition(" val_loss")[2] for line in validations}) == 2
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["restarts"]) == ("finished", 1)


# --- kills without progress


def test_a_run_that_is_killed_again_and_again_ends(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    last = tmp_path / "checkpoints" / "last.ckpt"
    check_progress(tmp_path)
    for step in range(2):
        last.write_bytes(b"")
        os.utime(last, ns=(step, step))  # the session before made progress
        for _ in range(MAX_KILLS):
            check_progress(tmp_path)
            start_record(tmp_path, config={}, seeds={})._utilisation.stop()
        with pytest.raises(ResourceError, match=rf"the last {MAX_KILLS} starts of this run were killed"):
            check_progress(tmp_path)
    record = start_record(tmp_path, config={}, seeds={})
    record.end("interrupted", exit_code=143)
    check_progress(tmp_path)  # told to end, not killed
    fields = json.loads((tmp_path / "run.json").read_text())
    for session in fields["sessions"]:  # as earlier versions wrote them
        session |= {"exit_code": None}
        session.pop("checkpoint_mtime_ns")
    (tmp_path / "run.json").write_text(json.dumps(fields))
    check_progress(tmp_path)


def _python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=300,
    )
