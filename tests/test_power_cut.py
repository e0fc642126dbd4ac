"""What a command has reported as written is there after a power cut; nothing that is half written is read."""

import dataclasses
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.disk_double import Disk, recording

from config import files
from config.temporary_files import remove_temporary_files
from katib import trials
from katib.documents import parse
from katib.experiment import Experiment
from katib.trials import Store, Trial, read_trials
from pipelines.record import record_step
from runs import folder as folders
from runs import metric_lines

SPEC = {
    "apiVersion": "kubeflow.org/v1beta1",
    "kind": "Experiment",
    "metadata": {"name": "search"},
    "spec": {"objective": {"type": "maximize", "objectiveMetricName": "val_f1"}},
}


@contextmanager
def disk_below(tmp_path: Path) -> Iterator[Disk]:
    (tmp_path / "disk").mkdir()
    with recording(tmp_path / "disk") as disk:
        yield disk


def write_line(path: Path, step: int) -> None:
    metric_lines.write({"val_f1": step / 3}, 1, step, io.StringIO(), path)


def test_metric_lines(tmp_path: Path) -> None:
    with disk_below(tmp_path) as disk:
        for step in range(3):
            write_line(disk.root / "run" / "metrics.jsonl", step)
            disk.mark(str(step))
    for folder, marks in disk.power_cuts(tmp_path):
        path = folder / "run" / "metrics.jsonl"
        lines = metric_lines.truncate_lines(path, 3)
        assert lines >= len(marks)
        write_line(path, 9)
        assert [line.step for line in metric_lines.read(path)] == [*range(lines), 9]


def test_metric_lines_that_are_repeated(tmp_path: Path) -> None:
    """Of the lines of a run that was killed, those after its checkpoint never come back between those of the new process."""
    with disk_below(tmp_path) as disk:
        path = disk.root / "metrics.jsonl"
        for step in range(4):
            write_line(path, step)
        disk.mark("killed")
        assert metric_lines.truncate_lines(path, 2) == 2
        for step in (102, 103, 104):
            write_line(path, step)
            disk.mark(str(step))
    for folder, marks in disk.power_cuts(tmp_path):
        if "killed" in marks:
            count = metric_lines.truncate_lines(folder / "metrics.jsonl", 1 + len(marks))
            steps = [line.step for line in metric_lines.read(folder / "metrics.jsonl")]
            assert count == 1 + len(marks)
            assert steps == [0, 1, 102, 103, 104][:count]


def test_trials_of_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_tell", lambda study, trial: None)
    (document,) = parse(json.dumps(SPEC), "search.yaml")
    with disk_below(tmp_path) as disk:
        store = Store(disk.root / "search", Experiment(document), [])
        for number, name in enumerate("ab"):
            trial = Trial(name, number, "Running", {"optim.lr": "0.1"})
            store.add(trial)
            disk.mark(f"{name} Running")
            store.set_processes(trial, [(7, 1.0)])
            store.end(dataclasses.replace(trial, status="Succeeded", value=1.0), None)
            disk.mark(f"{name} Succeeded")
        store.close()
    monkeypatch.setattr("os.fsync", lambda file: None)
    for folder, marks in disk.power_cuts(tmp_path):
        rows = {trial.name: trial.status for trial in read_trials(folder / "search")}
        for name in "ab":
            assert f"{name} Succeeded" not in marks or rows[name] == "Succeeded"
            assert f"{name} Running" not in marks or name in rows
        if marks:
            store = Store(folder / "search", Experiment(document), [])
            store.add(Trial("c", 2, "Running", {}))
            store.close()
            written = [
                json.loads(line)["name"] for line in (folder / "search" / "trials.jsonl").read_text().splitlines()
            ]
            assert written == [*rows, "c"]


def test_the_record_of_a_step_of_a_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "one")
    with disk_below(tmp_path) as disk:
        for name in ("quality", "train"):
            with record_step(str(disk.root), name):
                disk.mark(f"{name} running")
            disk.mark(f"{name} done")
    for folder, marks in disk.power_cuts(tmp_path):
        for name in ("quality", "train"):
            path = folder / "pipelines" / "one" / "steps" / f"{name}.json"
            state = json.loads(path.read_bytes())["state"] if path.exists() else ""
            states = [mark.split()[1] for mark in marks if mark.startswith(name)]
            assert state in {0: ("", "running"), 1: ("running", "done"), 2: ("done",)}[len(states)]


def test_a_record_in_a_folder_that_hydra_made(tmp_path: Path) -> None:
    with disk_below(tmp_path) as disk:
        run = disk.root / "outputs" / "run"
        run.mkdir(parents=True)
        with folders.lock_folder(run):
            files.write_json(run / folders.RECORD, {"status": "running"})
            disk.mark("running")
    for folder, marks in disk.power_cuts(tmp_path):
        record = files.read_json(folder / "outputs" / "run" / folders.RECORD)
        assert record == {"status": "running"} or not marks


def test_checkpoints(tmp_path: Path) -> None:
    from trainers import checkpoints

    with disk_below(tmp_path) as disk:
        folder = disk.root / "checkpoints"
        for number in range(2):
            checkpoints.write({"n": number}, folder / folders.LAST_CHECKPOINT, folder / folders.PREVIOUS_CHECKPOINT)
            disk.mark(str(number))
    for folder, marks in disk.power_cuts(tmp_path):
        latest = checkpoints.read_latest(folder / "checkpoints")
        assert (-1 if latest is None else latest[1]["n"]) >= len(marks) - 1


def test_a_folder_that_is_replaced(tmp_path: Path) -> None:
    with disk_below(tmp_path) as disk:
        for number in range(3):
            with files.atomic_folder(disk.root / "model") as model:
                for name in ("config.json", "model.safetensors"):
                    (model / name).write_text(str(number) * 9)
            disk.mark(str(number))
    for folder, marks in disk.power_cuts(tmp_path):
        remove_temporary_files(folder)  # as the next writer does
        content = {path.name: path.read_text() for path in folder.glob("model/*")}
        assert content or not marks
        assert len(set(content.values())) <= 1
        assert not content or (len(content) == 2 and int(content["config.json"][0]) >= len(marks) - 1)


@pytest.mark.parametrize("lines", [b"", b"a\n", b"a\nb\n", b"x" * 70_000 + b"\n"])
@pytest.mark.parametrize("torn", [b"", b"{", b"\0" * 9, b"y" * 140_000])
def test_an_incomplete_line_is_removed_before_others_are_appended(lines: bytes, torn: bytes, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(lines + torn)
    files.append_lines(tmp_path / "rows", ["é", ""])
    assert (tmp_path / "rows").read_bytes() == lines + "é\n\n".encode()
    files.append_lines(tmp_path / "rows", [])
    assert (tmp_path / "rows").read_bytes() == lines + "é\n\n".encode()
