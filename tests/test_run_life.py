"""A run's life through its command line: all ranks end alike, finished runs are judged, nothing half-written stays."""

import json
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT, Run, forked
from tests.test_distributed import COMMON, QUESTIONS, environment, launch
from tests.test_quality_gate import misplaced, questions

Ranks = Callable[..., list[subprocess.CompletedProcess[str]]]
TINY = [
    "~model.architecture",
    "+model.architecture={model_type:bert,hidden_size:16,num_hidden_layers:1,num_attention_heads:2,intermediate_size:32}",
    "model.vocab_size=300",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "logger=none",
]
DIVERGES = [
    *QUESTIONS,
    *COMMON,
    "quality=off",
    "optim.lr=100",
    "optim.weight_decay=1",  # weights grow a hundredfold with each step
    "optim.schedule=constant",
    "optim.warmup=0",
    "trainer.gradient_clip_val=null",
    "trainer.max_epochs=60",
]


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


@pytest.fixture
def ranks(warm: Path, cache: Path, tmp_path: Path) -> Ranks:
    """Runs two processes without torchrun, whose exit codes can be seen; `script` is what rank zero runs."""

    def call(command: list[str], script: Path = ROOT / "train.py") -> list[subprocess.CompletedProcess[str]]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        variables = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}

        def rank(number: int) -> subprocess.CompletedProcess[str]:
            path = str(script if number == 0 else ROOT / "train.py")
            own = {**environment(cache), **variables, "RANK": str(number)}
            return forked(warm, [path, *command], tmp_path, own, 300)

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(rank, (0, 1)))

    return call


@pytest.mark.parametrize(("action", "code", "status"), [("report_worst", 0, "finished"), ("fail", 3, "diverged")])
def test_all_ranks_of_a_diverged_run_end_alike(
    action: str, code: int, status: str, ranks: Ranks, cache: Path, tmp_path: Path
) -> None:
    command = [*DIVERGES, f"trainer.on_divergence={action}", f"hydra.run.dir={tmp_path / 'run'}"]
    done = ranks(command)
    errors = "\n".join(rank.stderr for rank in done)
    assert [rank.returncode for rank in done] == [code, code], errors
    assert "Traceback" not in errors
    found = record(tmp_path / "run")
    assert (found["status"], found["exit_code"]) == (status, code)
    assert "diverged" in found["reason"] or "not numbers" in found["reason"]
    assert ("diverged" in found) == (action == "report_worst")
    if action == "report_worst":
        assert done[0].stdout.splitlines()[-1].endswith("val_loss=1000.0 val_exact_match=0.0 val_f1=0.0")
        assert done[1].stdout == ""
        torchrun = launch(2, cache, tmp_path, str(ROOT / "train.py"), *command[:-1], "hydra.run.dir=other")
        assert torchrun.returncode == 0, torchrun.stderr
    else:
        assert errors.count("isotrain: ") == 1, errors


def test_a_rank_that_fails_alone_ends_the_others_with_its_code(ranks: Ranks, tmp_path: Path) -> None:
    """The disk is full when rank zero, which alone writes, saves a checkpoint."""
    full = (
        "import errno, runpy, sys, torch\n"
        "def save(checkpoint, stream):\n"
        "    raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "torch.save = save\n"
        f"sys.argv[0] = {str(ROOT / 'train.py')!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    (tmp_path / "full.py").write_text(full)
    command = [*QUESTIONS, *COMMON, "quality=off", f"hydra.run.dir={tmp_path / 'run'}"]
    done = ranks(command, tmp_path / "full.py")
    assert [rank.returncode for rank in done] == [8, 8], [rank.stderr for rank in done]
    assert "no space left" in done[0].stderr
    assert "Traceback" not in done[0].stderr + done[1].stderr
    assert record(tmp_path / "run")["exit_code"] == 8


def test_a_folder_is_refused_on_all_ranks(ranks: Ranks, tmp_path: Path) -> None:
    """Also where another rank does not see it, because rank zero decides."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    done = ranks([*QUESTIONS, *COMMON, f"hydra.run.dir={tmp_path / 'run'}"])
    assert [rank.returncode for rank in done] == [2, 2]
    assert all("not a run folder" in rank.stderr for rank in done)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("begun", [True, False])
def test_a_diverged_run_given_again_goes_on_where_it_can(begun: bool, run: Run, tmp_path: Path) -> None:
    """As a failed one does: from its last checkpoint, or from the start where it has none."""
    folder = tmp_path / "runs" / "a"
    saved = ["trainer.checkpoint_steps=1"] if begun else []
    command = ("train.py", *DIVERGES, *saved, f"hydra.run.dir={folder}")
    first = run(*command)
    assert (first.returncode, record(folder)["status"]) == (3, "diverged"), first.stderr
    again = run(*command)
    assert (again.returncode, record(folder)["status"]) == (3, "diverged"), again.stderr
    assert (folder / "checkpoints" / "last.ckpt").exists() == begun
    assert ("resuming from" in again.stderr) == begun
    assert record(folder)["restarts"] == 1
    changed = run(*command, "optim.lr=99")
    assert changed.returncode == (2 if begun else 3), changed.stderr
    listed = run("-m", "runs", "list", str(tmp_path / "runs"), "--where", "status=diverged")
    assert "diverged" in listed.stdout, listed.stderr
    shown = run("-m", "runs", "show", str(folder))
    assert "diverged" in shown.stdout.splitlines()[1]
    assert "exit code 3" in shown.stdout
    report = run("-m", "runs", "report", str(folder))
    assert report.returncode == 0, report.stderr
    assert "diverged" in (folder / "report.html").read_text()


def test_a_finished_run_is_judged_by_a_contract_that_was_off(run: Run, tmp_path: Path) -> None:
    data = questions(tmp_path / "data", train=misplaced)
    folder = tmp_path / "run"
    command = ("train.py", "data=squad", f"data.path={data}", *TINY, "trainer.max_steps=1", f"hydra.run.dir={folder}")
    first = run(*command, "quality=off")
    assert first.returncode == 0, first.stderr
    assert not (folder / "quality").exists()
    for _ in range(2):  # the second time by the verdict in run.json
        judged = run(*command, "quality=enforce")
        assert judged.returncode == 4, judged.stderr
        assert judged.stdout == ""
        assert "Traceback" not in judged.stderr
        assert (folder / "quality" / "report.html").exists()
        assert record(folder)["quality"] == {"action": "enforce", "status": "failed"}
        assert record(folder)["status"] == "finished"
    assert "verifying" not in judged.stderr
    printed = run(*command, "quality=warn")
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.split(" ", 1)[1] == first.stdout.splitlines()[-1].split(" ", 1)[1] + "\n"


def test_a_finished_run_is_judged_by_explanations_that_were_off(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = (
        "train.py", "model=resnet18", "model.name=test_resnet", "model.stem=standard", "data=shapes",
        "data.sample.train=96", "data.sample.val=60", "data.batch_size=16", "trainer.threads=1", "trainer.max_steps=3",
        "quality=off", "trainer.precision=32-true", "explain.examples=20", "explain.precision=32", "explain.min_agreement=-1",
        "explain.image_classification.grid=4", "explain.image_classification.pictures=0", f"hydra.run.dir={folder}",
    )  # fmt: skip
    first = run(*command)
    assert first.returncode == 0, first.stderr
    model = {path: path.read_bytes() for path in (folder / "model").iterdir()}
    judged = run(*command, "explain=enforce", "explain.min_correct=1000")
    assert judged.returncode == 5, judged.stderr
    assert "too few to judge" in judged.stderr
    assert judged.stdout.split(" ", 1)[1] == first.stdout.splitlines()[-1].split(" ", 1)[1] + "\n"
    assert record(folder)["explain"]["status"] == "inconclusive"
    assert "inconclusive" in (folder / "report.html").read_text()
    when = (folder / "explain" / "verdict.json").stat().st_mtime_ns
    assert run(*command, "explain=enforce", "explain.min_correct=1000").returncode == 5
    assert run(*command, "explain=warn").returncode == 0
    assert (folder / "explain" / "verdict.json").stat().st_mtime_ns == when, "judged by the verdict that is there"
    fields = record(folder)  # as in records before the options were renamed
    for old, new in (("level", "alpha"), ("stable", "min_agreement"), ("minimum", "min_correct")):
        fields["config"]["explain"][old] = fields["config"]["explain"].pop(new)
    (folder / "run.json").write_text(json.dumps(fields))
    assert run(*command, "explain=enforce", "explain.min_correct=1000").returncode == 5
    assert (folder / "explain" / "verdict.json").stat().st_mtime_ns == when, "old names have their old meaning"
    other = run(*command, "explain=enforce", "explain.min_correct=1")
    assert "too few to judge" not in other.stderr, other.stderr
    assert (folder / "explain" / "verdict.json").stat().st_mtime_ns > when, "other settings, another verdict"
    assert other.returncode == (0 if record(folder)["explain"]["status"] in ("passed", "warned") else 5)
    assert {path: path.read_bytes() for path in (folder / "model").iterdir()} == model


def test_the_model_says_its_task_and_settings(run: Run, tmp_path: Path) -> None:
    command = ("data=squad_sample", "data.sample.train=32", "data.sample.val=8", *TINY, "trainer.max_steps=1")
    done = run("train.py", *command, "model.n_best=7", "quality=off", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "run" / "model" / "isotrain.json").read_text())
    assert (saved["task"], saved["model"]["n_best"]) == ("question_answering", 7)


def test_what_a_killed_process_left_half_written_is_removed(run: Run, tmp_path: Path) -> None:
    command = ("data=squad_sample", "data.sample.train=32", "data.sample.val=8", *TINY, "trainer.max_steps=1")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / ".last.ckpt.1-0123abcd.tmp").write_bytes(b"half")
    (tmp_path / "run" / ".model.1-0123abcd.tmp").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"status": "running", "config": {}}))
    done = run("train.py", *command, "quality=off", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run").rglob("*.tmp")) == []
