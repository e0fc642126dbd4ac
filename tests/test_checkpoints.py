"""Checkpoint files: what is in them, and that a crash at any moment leaves one that can be read."""

import io
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.test_resume import VARIED, train

from config.errors import InputError, ResourceError
from runs import metric_lines
from trainers import checkpoints, finished_run
from trainers.checkpoints import CheckpointFiles, Checkpoints

# Old checkpoints are resumed, so that nothing of this may be renamed.
CONTENT = {
    "averaging_state", "callbacks", "current_model_state", "epoch", "global_step", "loops", "lr_schedulers",
    "optimizer_states", "position", "pytorch-lightning_version", "should_stop", "state_dict",
}  # fmt: skip
CALLBACKS = {
    "Checkpoints": {"best", "lines", "validated_step"},
    "EMAWeightAveraging": {"latest_update_step"},
    "Reporting": {"batches", "examples", "loss", "seconds"},
}


def test_what_checkpoints_hold(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOTRAIN_CACHE", str(cache))
    overrides = [*VARIED["images"], "trainer.ema_decay=0.9", "trainer.max_epochs=-1", "trainer.max_steps=5"]
    train([*overrides, "trainer.checkpoint_steps=2"], tmp_path)
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last-1.ckpt", "last.ckpt"]
    last, before = checkpoints.read(folder / "last.ckpt"), checkpoints.read(folder / "last-1.ckpt")
    assert set(last) == CONTENT
    assert {name: set(state) for name, state in last["callbacks"].items()} == CALLBACKS
    assert (last["position"], before["position"]) == ({"epoch": 0, "batch": 5}, {"epoch": 0, "batch": 4})
    best = checkpoints.read(folder / "best.ckpt")
    assert set(best) == {"state_dict", "metrics", "epoch", "step", "details"}
    # The averaged weights, which are those that were validated.
    weights = best["state_dict"]
    assert all(torch.equal(weights[name], last["state_dict"][name]) for name in weights)
    assert not all(torch.equal(weights[name], last["current_model_state"][name]) for name in weights)


def test_a_file_and_its_folder_are_synced_before_the_old_one_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, before = tmp_path / "last.ckpt", tmp_path / "last-1.ckpt"
    plugin = CheckpointFiles()
    plugin.save_checkpoint({"n": 1}, last)
    synced = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append(("folder" if path == tmp_path else path.suffix, last.exists(), before.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    plugin.save_checkpoint({"n": 2}, last, storage_options={"keep": before})
    assert synced[0] == (".tmp", True, False)
    assert synced[-1] == ("folder", True, True)
    assert (plugin.load_checkpoint(last), plugin.load_checkpoint(before)) == ({"n": 2}, {"n": 1})
    plugin.remove_checkpoint(last)
    assert [path.name for path in tmp_path.iterdir()] == ["last-1.ckpt"]


@pytest.mark.parametrize(
    ("damage", "lines"), [("missing", 0), ("torn", 2), ("zeros", 2), ("damaged", 1), ("whole", 3), ("longer", 3)]
)
def test_metric_lines_that_are_lost_are_reported(
    damage: str, lines: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The lines that are left are not repeated later, although fewer than the checkpoint counts."""
    content: Any = {
        **{"state_dict": {}, "optimizer_states": [], "lr_schedulers": [], "loops": {}, "position": {}},
        "epoch": 0,
    }
    content |= {"global_step": 0, "should_stop": False, "callbacks": {"Checkpoints": {"lines": 3, "best": {}}}}
    checkpoints.write(content, tmp_path / "checkpoints" / "last.ckpt")
    history = tmp_path / "metrics.jsonl"
    for step in range(5 if damage == "longer" else 3):
        metric_lines.write({"val_f1": 1.0}, 1, step, io.StringIO(), history)
    content = history.read_bytes()
    start, end = content.index(b"\n") + 1, content.rindex(b"{")
    if damage == "missing":
        history.unlink()
    elif damage == "torn":
        history.write_bytes(content[:-5])
    elif damage == "zeros":
        history.write_bytes(content[:end] + bytes(len(content) - end))
    elif damage == "damaged":
        history.write_bytes(content[: start + 9] + b"\xff\0" + content[start + 11 :])
    assert checkpoints.prepare_resume(tmp_path)[0] == tmp_path / "checkpoints" / "last.ckpt"
    left = metric_lines.read(history) if history.exists() else []
    assert [line.step for line in left] == list(range(lines))
    messages = [record.getMessage() for record in caplog.records if "metrics.jsonl" in record.getMessage()]
    if lines == 3:
        assert messages == []
    else:
        verb = "is missing" if damage == "missing" else "is damaged"
        assert f"{history} {verb}: the checkpoint counts 3 metric lines, and {lines} of them can be read" in messages[0]
    writer = Checkpoints(tmp_path / "checkpoints", "val_f1", "max", None, None, None)  # type: ignore[arg-type]
    writer.load_state_dict({"best": {}, "lines": 3})
    writer.on_train_start(SimpleNamespace(global_step=0, is_global_zero=True), None)  # type: ignore[arg-type]
    assert writer.state_dict()["lines"] == lines


def test_damaged_metric_lines_of_a_finished_trial_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(finished_run.TRIAL_VARIABLE, "trial")
    (tmp_path / "metrics.jsonl").write_text('{"timestamp": \n')
    run = SimpleNamespace(folder=tmp_path, config=SimpleNamespace(push_metrics=None, metrics_file=None))
    assert not finished_run._repeat_history(run)  # type: ignore[arg-type]
    assert "metrics.jsonl, line 1" in caplog.text


@pytest.mark.parametrize("moment", ["while it is written", "before the old one is kept", "before it is in place"])
def test_a_crash_leaves_a_checkpoint(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Crash(BaseException):
        """Stands for signal 9."""

    last, before = tmp_path / "last.ckpt", tmp_path / "last-1.ckpt"
    for number in (1, 2):
        checkpoints.write({"n": number}, last, keep=before)
    replace, count = Path.replace, []

    def crash_at(at: int) -> Any:
        def replaced(self: Path, target: Path) -> Path:
            count.append(1)
            if len(count) == at:
                raise Crash
            return replace(self, target)

        return replaced

    def torn(checkpoint: Any, stream: Any) -> None:
        stream.write(b"PK half")
        raise Crash

    if moment == "while it is written":
        monkeypatch.setattr(torch, "save", torn)
    else:
        monkeypatch.setattr(Path, "replace", crash_at(1 if moment == "before the old one is kept" else 2))
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # what is dead clears nothing up
    with pytest.raises(Crash):
        checkpoints.write({"n": 3}, last, keep=before)
    found = checkpoints.read_latest(tmp_path)
    assert found is not None
    assert found[1] == {"n": 2}


def test_a_full_disk_is_said_and_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    checkpoints.write({"n": 1}, path)

    def full(checkpoint: Any, stream: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ResourceError, match=r"first\.ckpt: no space left on the disk$"):
        checkpoints.write({"n": 1}, tmp_path / "first.ckpt")
    with pytest.raises(ResourceError, match="the previous checkpoint is unchanged"):
        checkpoints.write({"n": 2}, path, keep=tmp_path / "last-1.ckpt")
    assert checkpoints.read(path) == {"n": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no checkpoint"):
        checkpoints.read(tmp_path / "last.ckpt")
    (tmp_path / "last.ckpt").write_bytes(b"text")
    with pytest.raises(InputError, match="is not a complete checkpoint: start in another folder"):
        checkpoints.read_latest(tmp_path)
