"""Nothing of isotrain removes or replaces what it did not make: every path that a user names, with somebody's files at it."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests import made_runs
from tests.conftest import ROOT, Run
from tests.test_registry import made

from config import files
from config.compose import compose
from config.errors import InputError
from datamodules.storage import cache, fingerprint
from explain import calibrate
from katib.documents import parse
from katib.experiment import Experiment
from katib.trials import Store
from pipelines import compilation, local
from quality import gate
from reports import page
from runs import folder as folders
from runs import metric_lines, registry
from trainers import checkpoints, initial_weights, loggers
from trainers.run import check_places

TEXT = "somebody's text\n"
SMALL = (
    "data=squad_sample", "data.sample.train=32", "data.sample.val=8", "model=majority", "quality=off", "logger=none",
)  # fmt: skip
SPEC = {
    "apiVersion": "kubeflow.org/v1beta1",
    "kind": "Experiment",
    "metadata": {"name": "search"},
    "spec": {"objective": {"type": "maximize", "objectiveMetricName": "val_f1"}},
}


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Content of all files below a folder, and names of folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.is_file() or path.is_dir()
    }


# --- files


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("pipelines", "compile", "-o", "out"), "out"),
        (("katib", "new", "optim.lr=uniform(0.1,0.2)", "-o", "out"), "out"),
        (("katib", "trials", "search", "--report", "out"), "out"),
        (("quality", "init", "data=squad_sample", "-o", "out"), "out"),
        (("explain", "calibrate", "-o", "out", "a", "b", "c"), "out"),
        (("runs", "report", "runs", "-o", "out"), "out"),
        (("runs", "report", "runs"), "runs/report.html"),
    ],
)
def test_a_command_does_not_replace_a_file_of_another_program(
    command: tuple[str, ...], name: str, run: Run, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        made_runs.write(tmp_path / "runs" / folder, made_runs.questions(8, 0.5, 1))
    (tmp_path / name).write_text(TEXT)
    before = snapshot(tmp_path)
    done = run("-m", *command)
    assert (done.returncode, done.stdout) == (2, ""), done.stdout + done.stderr
    assert name in done.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("content", [TEXT.encode(), b"<!doctype html>\n<html lang=en>", b'{"a": 1}', b"\xff\0"])
def test_a_file_of_another_program_is_told_from_ours(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(content)
    checks: list[Callable[[Path], None]] = [
        page.check_page,
        metric_lines.check_file,
        lambda path: files.check_replaceable(path, compilation.is_compiled, "a compiled pipeline"),
        lambda path: files.check_replaceable(path, calibrate._is_bounds, "a file of bounds"),
    ]
    for check in checks:
        with pytest.raises(InputError, match="it was not replaced"):
            check(tmp_path / "out")
        with pytest.raises(InputError, match="is a folder"):
            check(tmp_path)
        check(tmp_path / "new")
    for path in sorted((ROOT / "pipelines").glob("*.yaml")):
        files.check_replaceable(path, compilation.is_compiled, "a compiled pipeline")


def test_a_command_replaces_its_own_file(run: Run, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        made_runs.write(tmp_path / "runs" / folder, made_runs.questions(8, 0.5, 1))
    for command in (
        ("katib", "new", "optim.lr=uniform(0.1,0.2)", "-o", "search.yaml"),
        ("runs", "report", "runs"),
        ("runs", "report", "runs", "-o", "link.html"),
    ):
        (tmp_path / "real.html").touch()
        if not (tmp_path / "link.html").is_symlink():
            (tmp_path / "link.html").symlink_to("real.html")
        for _ in range(2):
            done = run("-m", *command)
            assert done.returncode == 0, done.stderr
    assert (tmp_path / "link.html").is_symlink()  # its target was written
    assert "isotrain" in (tmp_path / "real.html").read_text()


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE)
    files.write_text(tmp_path / "pipe", TEXT)
    assert reader.communicate(timeout=10)[0] == TEXT.encode()
    assert (tmp_path / "pipe").is_fifo()
    metric_lines.check_file(tmp_path / "pipe")
    assert metric_lines.truncate_lines(tmp_path / "pipe", 0) == 0
    assert (tmp_path / "pipe").is_fifo()


def test_a_pipe_that_nobody_reads_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "READER_SECONDS", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"a pipe that nobody reads: .*pipe"):
        files.write_text(tmp_path / "pipe", TEXT)


# --- metrics_file


@pytest.mark.parametrize("content", [b'{"loss": 1}\n', b"\n", b'{"timestamp": "x"}\nand text\n'])
def test_metric_lines_are_told_from_others(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(content)
    with pytest.raises(InputError, match="is not a metrics file of isotrain"):
        metric_lines.check_file(tmp_path / "mine")
    assert (tmp_path / "mine").read_bytes() == content


def test_a_metrics_file_of_another_program_stays(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text(TEXT)
    done = run("train.py", *SMALL, "metrics_file=mine.txt", "hydra.run.dir=run")
    assert done.returncode == 2, done.stderr
    assert "mine.txt exists and is not a metrics file of isotrain" in done.stderr
    assert snapshot(tmp_path) == {"mine.txt": TEXT.encode()}


@pytest.mark.parametrize("by", ["name", "link"])
def test_the_metrics_of_another_run_stay(by: str, run: Run, tmp_path: Path) -> None:
    made_runs.write(tmp_path / "other", made_runs.questions(8, 0.5, 1))
    metric_lines.write({"val_f1": 1.0}, 0, 0, jsonl_path=tmp_path / "other" / "metrics.jsonl")
    (tmp_path / "link").symlink_to("other/metrics.jsonl")
    before = snapshot(tmp_path)
    name = "other/metrics.jsonl" if by == "name" else "link"
    done = run("train.py", *SMALL, f"metrics_file={name}", "hydra.run.dir=run")
    assert done.returncode == 2, done.stderr
    assert f"metrics_file={name} has the metrics of the run" in done.stderr
    assert snapshot(tmp_path) == before
    folders.check_metrics_file(tmp_path / "other", str(tmp_path / "link"))  # its own
    folders.check_metrics_file(tmp_path / "run", str(tmp_path / "metrics.jsonl"))
    folders.check_metrics_file(tmp_path / "run", None)


def test_metric_lines_go_to_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    """It cannot be synced either."""
    status = Path("/dev/null").stat()
    metric_lines.check_file("/dev/null")
    assert metric_lines.truncate_lines("/dev/null", 0) == 0
    line = metric_lines.write({"val_f1": 1.0}, 0, 0, jsonl_path="/dev/null")
    metric_lines.repeat([line], "/dev/null")
    assert Path("/dev/null").stat().st_rdev == status.st_rdev


@pytest.mark.parametrize("content", [b"", b'{"timestamp": "2026-01-01T00:00:00.0'])
def test_a_metrics_file_of_ours_is_written_again(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    metric_lines.write({"val_f1": 1.0}, 0, 0, jsonl_path=path)
    with path.open("ab") as file:
        file.write(content)  # a killed process left it
    metric_lines.check_file(path)
    assert metric_lines.truncate_lines(path, 0) == 0
    assert path.read_bytes() == b""


@pytest.mark.parametrize("content", [TEXT, ""])
def test_weights_of_a_population_replace_no_file_of_another_program(content: str, tmp_path: Path) -> None:
    initial_weights.check_population(str(tmp_path / "new"))
    (tmp_path / "weights.ckpt").write_text(content)
    if not content:
        initial_weights.check_population(str(tmp_path))
        checkpoints.write({"state_dict": {}}, tmp_path / "weights.ckpt")
        initial_weights.check_population(str(tmp_path))
        checkpoints.write({"other": {}}, tmp_path / "weights.ckpt")
    with pytest.raises(InputError):
        initial_weights.check_population(str(tmp_path))


# --- what cannot be written

PLACES: dict[str, Callable[[Path], object]] = {
    "a page": page.check_page,
    "a folder of reports": lambda path: files.check_output_folder(path, ["report.html"], bool, "a report"),
    "metrics_file": metric_lines.check_file,
    "population_dir": lambda path: initial_weights.check_population(str(path)),
    "any": lambda path: files.check_writable(path, "a file"),
}


@pytest.mark.parametrize("name", ["new", "new/deep", "empty"])
@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_be_written_is_refused_at_once(place: str, name: str, tmp_path: Path, user: None) -> None:
    """Its folder belongs to another user; a file that is continued may do so itself, one that is replaced may not."""
    folder = tmp_path / "folder"
    folder.mkdir()
    if name == "empty" and place == "population_dir":
        name = "."
    elif name == "empty" and place != "a folder of reports":
        (folder / name).write_bytes(b"")
        (folder / name).chmod(0o444)
    folder.chmod(0o555)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=r"cannot be written.*permission denied"):
        PLACES[place](folder / name)
    assert snapshot(tmp_path) == before
    folder.chmod(0o755)
    if place == "metrics_file" and name == "empty":
        with pytest.raises(InputError, match=r"cannot be written: permission denied"):
            PLACES[place](folder / name)
    else:
        PLACES[place](folder / name)


@pytest.mark.parametrize("place", PLACES)
def test_what_can_be_written_is_left_as_it_is(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "_O_TMPFILE_WORKS", False)  # as on storage without files that have no name
    (tmp_path / "folder").mkdir()
    os.utime(tmp_path / "folder", ns=(1, 1))
    PLACES[place](tmp_path / "folder" / "new" / "deep")
    assert list((tmp_path / "folder").iterdir()) == []
    assert (tmp_path / "folder").stat().st_mtime_ns == 1


@pytest.mark.parametrize(
    "override",
    [
        "metrics_file={}/m.jsonl",
        "population_dir={}",
        "quality.summary={}/s.md",
        "logger=mlflow logger.tracking_uri=sqlite:///{}/a.db",
    ],
)
def test_everything_that_a_run_writes_late_is_checked(override: str, tmp_path: Path) -> None:
    check_places(compose(override.format(tmp_path).split()))
    with pytest.raises(InputError, match=r"/proc/new.* cannot be written"):
        check_places(compose(override.format("/proc/new").split()))


def test_a_run_that_could_not_write_in_the_end_does_not_begin(run: Run, tmp_path: Path) -> None:
    done = run("train.py", *SMALL, "population_dir=/proc/new", "data.cache_dir=cache", "hydra.run.dir=run")
    assert done.returncode == 2, done.stderr
    assert "/proc/new/weights.ckpt cannot be written" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_pipeline_whose_registry_cannot_be_written_does_not_begin(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/proc/new/a\.db cannot be written"):
        local.run(["model=majority", "data=squad_sample"], ["server=sqlite:////proc/new/a.db"], str(tmp_path / "root"))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def user(tmp_path: Path) -> Iterator[None]:
    """A user without root's rights."""
    if os.geteuid():
        yield
        return
    for path in (tmp_path, *tmp_path.parents):
        if (
            path.stat().st_uid == 0
            and path.is_relative_to(tempfile.gettempdir())
            and path != Path(tempfile.gettempdir())
        ):
            path.chmod(path.stat().st_mode | 0o111)
    os.chown(tmp_path, 1000, 1000)
    os.seteuid(1000)
    try:
        yield
    finally:
        os.seteuid(0)


# --- run folders


@pytest.mark.parametrize(
    "name",
    ["run.json", "model/config.json", "checkpoints/last.ckpt", ".hydra/config.yaml"],
)
def test_a_training_does_not_start_among_files_of_another_program(name: str, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"status": "failed"}')
    before = snapshot(tmp_path)
    done = run("train.py", *SMALL, "hydra.run.dir=mine")
    assert done.returncode == 2, done.stderr
    assert "not a run folder" in done.stderr
    assert snapshot(tmp_path) == before


def test_a_run_keeps_files_that_are_not_its_own(run: Run, tmp_path: Path) -> None:
    """Neither the model folder nor the removal of what a killed process left takes anything else with it."""
    kept = [".mine.tmp", "mine.tmp", ".model.backup.tmp", "mine.log", "model/README.md", "checkpoints/mine.ckpt"]
    (tmp_path / "run").mkdir()
    for number in (1, 2):
        if number == 2:
            for name in kept:
                (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
                (tmp_path / "run" / name).write_text(TEXT)
            (tmp_path / "run" / ".run.json.12-0123abcd.tmp").write_text("half")
            record = json.loads((tmp_path / "run" / "run.json").read_text())
            (tmp_path / "run" / "run.json").write_text(json.dumps(record | {"status": "failed"}))
        done = run("train.py", *SMALL, "hydra.run.dir=run")
        assert done.returncode == 0, done.stderr
    assert [name for name in kept if (tmp_path / "run" / name).read_text() != TEXT] == []
    assert not (tmp_path / "run" / ".run.json.12-0123abcd.tmp").exists()


def test_a_refused_command_removes_the_folder_that_hydra_made_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    past = time.time() - 60
    os.utime(tmp_path / "mine", (past, past))
    for name in ("mine", "new"):
        done = subprocess.run(
            [sys.executable, ROOT / "train.py", "optim.lr=-1", f"hydra.run.dir={name}"], cwd=tmp_path, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
    assert snapshot(tmp_path) == {"mine": None}


def test_a_folder_is_replaced_with_what_only_it_had(tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    for name in ("old", "removable", "sub/mine", "both"):
        (tmp_path / "real" / name).write_text(TEXT)
    (tmp_path / "real" / "link").symlink_to("nowhere")
    (tmp_path / "name").symlink_to("real")
    with files.atomic_folder(tmp_path / "name", removable=["removable"]) as folder:
        (folder / "both").write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["name", "real"]
    assert snapshot(tmp_path / "real") == {"both": b"new", "old": TEXT.encode(), "sub": None, "sub/mine": TEXT.encode()}
    assert (tmp_path / "real" / "link").readlink() == Path("nowhere")
    with pytest.raises(ZeroDivisionError), files.atomic_folder(tmp_path / "name"):
        raise ZeroDivisionError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["name", "real"]


# --- the champion's folder


def test_a_champion_replaces_only_the_files_of_an_earlier_download(
    tmp_path: Path, mlflow_store: Callable[[Path], str]
) -> None:
    server = mlflow_store(tmp_path / "m" / "mlflow.db")
    registry.register_run(made(tmp_path / "1", quality="passed"), "ships", server, champion=True, floor=0.0)
    made(tmp_path / "mine", seed=3)
    for folder in ("mine", "m", "1"):
        before = snapshot(tmp_path / folder)
        with pytest.raises(InputError, match="nothing was replaced; name a new folder"):
            registry.find_champion("ships", server, tmp_path / folder)
        assert snapshot(tmp_path / folder) == before
    with pytest.raises(InputError, match="this is a file"):
        registry.find_champion("ships", server, tmp_path / "1" / "run.json")
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "new/deep"):
        registry.find_champion("ships", server, tmp_path / folder)
        assert (tmp_path / folder / "model" / "model.safetensors").read_bytes() == bytes([1]) * 1000
    (tmp_path / "empty" / "notes.txt").write_text(TEXT)
    registry.register_run(made(tmp_path / "2", seed=2), "ships", server, champion=True, floor=0.0)
    registry.find_champion("ships", server, tmp_path / "empty")
    assert (tmp_path / "empty" / "model" / "model.safetensors").read_bytes() == bytes([2]) * 1000
    assert (tmp_path / "empty" / "notes.txt").read_text() == TEXT
    assert not (tmp_path / "empty" / "quality" / "verdict.json").exists()  # the first champion's


# --- folders of reports


@pytest.mark.parametrize(
    "command",
    [
        ("quality", "data=squad_sample", "--folder", "out"),
        ("quality", "drift", "reference=run", "data=squad_sample", "--folder", "out"),
        ("trainers", "evaluate", "run=run", "--output", "out"),
    ],
)
@pytest.mark.parametrize("case", ["file", "verdict", "one file"])
def test_a_report_replaces_no_file_of_another_program(
    command: tuple[str, ...], case: str, run: Run, tmp_path: Path
) -> None:
    if case == "file":
        (tmp_path / "out").write_text(TEXT)
    else:
        (tmp_path / "out").mkdir()
        name = "metrics.jsonl" if "evaluate" in command else "report.md"
        names = ("report.html", "report.md", "predictions.jsonl", "run.json") if case == "verdict" else (name,)
        for name in names:
            (tmp_path / "out" / name).write_text(TEXT)
        if case == "verdict":
            for name in ("verdict.json", "drift.json"):
                (tmp_path / "out" / name).write_text('{"status": "passed"}')
    before = snapshot(tmp_path)
    done = run("-m", *command)
    assert done.returncode == 2, done.stderr
    assert "out" in done.stderr
    assert snapshot(tmp_path) == before


def test_an_explanation_replaces_no_file_of_another_program(tmp_path: Path) -> None:
    from explain import run as explain_run

    (tmp_path / "verdict.json").write_text('{"status": "passed"}')
    with pytest.raises(InputError, match=r"verdict\.json and is not an explanation report"):
        explain_run.explain_model(None, None, tmp_path)  # type: ignore[arg-type]
    (tmp_path / "verdict.json").write_text('{"task": "a", "measures": [], "about": {}}')
    with pytest.raises(AttributeError):  # it goes on
        explain_run.explain_model(None, None, tmp_path)  # type: ignore[arg-type]


def test_a_report_of_a_killed_explanation_is_replaced(tmp_path: Path) -> None:
    import numpy as np

    from explain import run as explain_run

    arrays = {name: np.zeros(1) for name in ("ids", "offsets", "values", "gradients")}
    np.savez(tmp_path / "values.npz", **arrays)
    assert explain_run._is_report(tmp_path)
    np.savez(tmp_path / "values.npz", measurements=np.zeros(1))  # of another program
    assert not explain_run._is_report(tmp_path)
    (tmp_path / "values.npz").write_bytes(b"no archive")
    assert not explain_run._is_report(tmp_path)


def test_a_report_of_a_run_replaces_no_page_of_another_program(run: Run, tmp_path: Path) -> None:
    folder = made_runs.write(tmp_path / "run", made_runs.questions(8, 0.5, 1))
    (folder / "report.html").write_text(TEXT)
    before = snapshot(tmp_path)
    done = run("-m", "runs", "report", "run")
    assert (done.returncode, "was not replaced" in done.stderr) == (2, True), done.stderr
    assert snapshot(tmp_path) == before


def test_a_report_of_a_contract_replaces_its_own(tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_text(json.dumps({"contract": "", "digest": "", "checks": []}))
    (tmp_path / "report.html").write_text(TEXT)
    gate.check_report_folder(tmp_path)


# --- searches, pipelines, loggers, caches


@pytest.mark.parametrize("name", ["notes.txt", "trials.jsonl", "experiment.json", "optuna.db", "report.html"])
def test_a_search_does_not_start_among_files_of_another_program(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("[]" if name.endswith("json") else TEXT)
    before = snapshot(tmp_path)
    (document,) = parse(json.dumps(SPEC), "search.yaml")
    with pytest.raises(InputError, match="another --folder"):
        Store(tmp_path, Experiment(document), [])
    assert snapshot(tmp_path) == before


def test_a_search_opens_its_own_folder_again(tmp_path: Path) -> None:
    (document,) = parse(json.dumps(SPEC), "search.yaml")
    for _ in range(2):
        Store(tmp_path, Experiment(document), []).close()
        (tmp_path / "report.html").write_text(TEXT)


@pytest.mark.parametrize("name", ["", " ", ".", "..", "../..", "a/b", "/tmp"])
def test_a_pipeline_run_has_a_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "mine.json").write_text('{"step": 1}')
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="--name="):
        local.run(["model=majority", "data=squad_sample"], [], str(tmp_path / "root"), name)
    assert snapshot(tmp_path) == before


def test_a_pipeline_run_does_not_start_among_files_of_another_program(tmp_path: Path) -> None:
    folder = tmp_path / "root" / "pipelines" / "mine"
    (folder / "steps").mkdir(parents=True)
    (folder / "steps" / "train.json").write_text(TEXT)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="is not the folder of a pipeline run"):
        local.run(["model=majority", "data=squad_sample"], [], str(tmp_path / "root"), "mine")
    assert snapshot(tmp_path) == before


def test_a_csv_log_of_another_program_stays(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    log = tmp_path / "csv" / "mine"
    log.mkdir(parents=True)
    (log / "metrics.csv").write_text("epoch,step\n")
    target = "lightning.pytorch.loggers.CSVLogger"
    config = OmegaConf.create(
        {"logger": {"_target_": target, "save_dir": str(tmp_path), "name": "csv", "version": "mine"}}
    )
    with pytest.raises(InputError, match=r"metrics\.csv and is not the log of a run"):
        loggers.open_logger(config, tmp_path, {"config": {}})
    assert (log / "metrics.csv").read_text() == "epoch,step\n"
    (log / "hparams.yaml").write_text("seed: 0\nmonitor: val_f1\n")
    assert loggers.open_logger(config, tmp_path, {"config": {}}) is not None


def test_a_cache_folder_may_hold_other_things(tmp_path: Path) -> None:
    (tmp_path / "windows" / "mine.tmp").mkdir(parents=True)
    (tmp_path / "windows" / "mine.tmp" / "notes").write_text(TEXT)
    (tmp_path / "windows" / ("0" * 24 + ".tmp")).mkdir()
    (tmp_path / "digests.sqlite").write_text(TEXT * 100)
    cache.entry(tmp_path, "windows", {"a": 1}, lambda folder: (folder / "x").touch())
    assert (tmp_path / "windows" / "mine.tmp" / "notes").read_text() == TEXT
    assert not (tmp_path / "windows" / ("0" * 24 + ".tmp")).exists()  # of a process that was killed
    (tmp_path / "data.txt").write_text("data")
    fingerprint.hash_files([str(tmp_path / "data.txt")], tmp_path)
    (kept,) = tmp_path.glob("digests.sqlite.*.damaged")
    assert kept.read_text() == TEXT * 100


def test_the_run_folder_of_another_program_is_foreign(tmp_path: Path) -> None:
    for content in ('{"status": "finished"}', '{"status": "running", "config": []}', "[]"):
        (tmp_path / "run.json").write_text(content)
        assert folders.folder_state(tmp_path) == "foreign"
        with pytest.raises(InputError):
            folders.check_folder(tmp_path)
