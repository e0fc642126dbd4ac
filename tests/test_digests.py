"""Damaged files of a model are noticed: checkpoints, the best one and its validation, exported weights."""

import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import Run
from tests.test_resume import VARIED, Killed, same, train
from tests.test_weights import config, rewrite, save, save_timm
from transformers import BertForQuestionAnswering, BertForSequenceClassification

from config.errors import InputError
from runs import digests
from trainers import (
    best_checkpoint,
    checkpoint_files,
    checkpoints,
    encoders,
    initial_weights,
    predict,
    saved_model,
    weights,
)
from trainers.image_classification import build_network, network_arguments

BEST = {"metrics": {"val_f1": 50.0}, "epoch": 1, "step": 8, "details": {}}


def flip(path: Path, position: int, bit: int = 0) -> None:
    """Changes one bit of a file, which gets another inode: two changes within one tick of the clock have one time."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
        )
    return bool(one == other)


# -- checkpoints ------------------------------------------------------------------------------------------------------


def test_one_flipped_bit_of_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    """Wherever it is, the checkpoint is refused, or what is read is what was written."""
    content = {"state_dict": {"weight": torch.arange(64.0), "bias": torch.ones(3)}, "epoch": 1, "names": ["a", "b"]}
    path, damaged = tmp_path / "last.ckpt", tmp_path / "damaged.ckpt"
    assert checkpoints.write(content, path) == hashlib.sha256(path.read_bytes()).hexdigest()
    size, generator, refused = path.stat().st_size, random.Random(0), 0
    data = path.read_bytes().index(torch.arange(64.0).numpy().tobytes())
    for position in [data, data + 255, *range(size - 100, size), *(generator.randrange(size) for _ in range(150))]:
        shutil.copy(path, damaged)
        flip(damaged, position, generator.randrange(8))
        try:
            read = checkpoints.read(damaged)
        except InputError:
            refused += 1
        else:
            assert equal(read, content), position
            assert position not in (data, data + 255)
    assert refused > 50


def test_damaged_files_of_weights_are_named(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(100)}, tmp_path / "pytorch_model.bin")
    assert weights.read_file(tmp_path / "pytorch_model.bin", "x").keys() == {"weight"}
    position = (tmp_path / "pytorch_model.bin").read_bytes().index(bytes(400))
    flip(tmp_path / "pytorch_model.bin", position)
    with pytest.raises(InputError, match=r"pytorch_model\.bin is damaged \(the CRC-32 of .* differs\): copy it again"):
        weights.read_file(tmp_path / "pytorch_model.bin", "x")


# -- the best checkpoint ----------------------------------------------------------------------------------------------


def write_best(path: Path, value: float, **best: Any) -> dict[str, Any]:
    """A best checkpoint and its validation, as last.ckpt remembers it."""
    content = {**BEST, **best}
    digest = checkpoints.write({"state_dict": {"weight": torch.full((2,), value)}, **content}, path)
    return {**content, "digest": digest}


@pytest.mark.parametrize("recorded", [True, False], ids=["with a digest", "of an earlier version"])
@pytest.mark.parametrize("state", ["intact", "next written", "moved only", "torn", "gone", "of another validation"])
def test_the_best_checkpoint_is_that_of_the_remembered_validation(state: str, recorded: bool, tmp_path: Path) -> None:
    best, previous = tmp_path / "best.ckpt", tmp_path / "best-1.ckpt"
    remembered = write_best(best, 1.0)
    if not recorded:
        del remembered["digest"]
    if state in ("next written", "moved only"):  # a process that was killed before it wrote last.ckpt
        best.replace(previous)
    if state == "next written":
        write_best(best, 2.0, step=12)
    elif state == "torn":
        best.write_bytes(best.read_bytes()[:-200])
    elif state == "gone":
        best.unlink()
    elif state == "of another validation":
        write_best(best, 2.0, metrics={"val_f1": 51.0})
    latest = {"global_step": 10, "state_dict": {"weight": torch.full((2,), 3.0)}}
    restored = best_checkpoint.restore(tmp_path, latest, remembered)
    if state in ("intact", "next written", "moved only"):
        assert restored == remembered
        assert checkpoints.read(best)["state_dict"]["weight"].tolist() == [1.0, 1.0]
        return
    assert restored == {}  # the weights are lost
    # A latest checkpoint of the same step has the same weights.
    restored = best_checkpoint.restore(tmp_path, {**latest, "global_step": 8}, remembered)
    assert best_checkpoint.matches(best, restored)
    assert {key: restored[key] for key in BEST} == BEST
    assert checkpoints.read(best)["state_dict"]["weight"].tolist() == [3.0, 3.0]


def test_a_run_without_a_validation_remembers_none(tmp_path: Path) -> None:
    assert best_checkpoint.restore(tmp_path, {"global_step": 1, "state_dict": {}}, {}) == {}


OVERRIDES = [*VARIED["questions"], "trainer.val_check_interval=4", "trainer.checkpoint_steps=3", "optim.lr=1e-2"]


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An uninterrupted run, and its best validation, which is not the last one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOTRAIN_CACHE", str(cache))
        folder = tmp_path_factory.mktemp("whole")
        return folder, train(OVERRIDES, folder)


def test_a_torn_best_checkpoint_of_a_run_that_ended_is_replaced(
    whole: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As if the process had been killed while it exported: it validates the last weights again, and says what it lost."""
    monkeypatch.setenv("ISOTRAIN_CACHE", str(cache))
    folder, old = tmp_path / "run", whole[1]
    shutil.copytree(whole[0], folder)
    path = folder / "checkpoints" / "best.ckpt"
    path.write_bytes(path.read_bytes()[:-1000])
    last = checkpoints.read(folder / "checkpoints" / "last.ckpt")
    last["callbacks"]["Checkpoints"]["best"]["step"] = 4  # an earlier one, whose weights no other file has
    checkpoints.write(last, folder / "checkpoints" / "last.ckpt")
    (folder / "predictions.jsonl").unlink()
    best = train(OVERRIDES, folder)
    message = f"the best weights (val_f1={old['metrics']['val_f1']:.6g} at step 4) are lost"
    assert best["lost"] == message
    assert message in caplog.text
    assert best["step"] == last["global_step"]
    content = checkpoints.read(path)
    assert content["metrics"] == best["metrics"]
    assert all(torch.equal(content["state_dict"][name], last["state_dict"][name]) for name in last["state_dict"])
    assert len((folder / "predictions.jsonl").read_text().splitlines()) == 12
    assert train(OVERRIDES, folder)["metrics"] == best["metrics"]  # and so it stays


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before the file", "after the file", "after the first move"])
@pytest.mark.parametrize("count", [1, 2])
def test_killed_beside_the_best_checkpoint_it_ends_the_same(
    count: int,
    moment: str,
    whole: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ISOTRAIN_CACHE", str(cache))
    with monkeypatch.context() as patch:
        _kill_at_best(count, moment, patch)
        with pytest.raises(Killed):
            train(OVERRIDES, tmp_path)
    train(OVERRIDES, tmp_path)
    same(whole[0], tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last-1.ckpt",
        "last.ckpt",
    ]


def _kill_at_best(count: int, moment: str, patch: pytest.MonkeyPatch) -> None:
    """Ends the process at its best checkpoint number `count`."""
    write, replace, written = checkpoint_files.write, Path.replace, []

    def write_and_die(checkpoint: Any, path: Path, keep: Path | None = None) -> str:
        if path.name != "best.ckpt":
            return str(write(checkpoint, path, keep))
        written.append(path)
        if len(written) == count and moment == "before the file":
            raise Killed
        digest = str(write(checkpoint, path, keep))
        if len(written) == count and moment == "after the file":
            raise Killed
        return digest

    def replace_and_die(self: Path, target: Path) -> Path:
        result = replace(self, target)
        if len(written) == count and moment == "after the first move":
            raise Killed
        return result

    patch.setattr("trainers.checkpoint_files.write", write_and_die)
    patch.setattr(Path, "replace", replace_and_die)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["torn", "of another run"])
@pytest.mark.parametrize("extra", [[], ["trainer.ema_decay=0.9"]], ids=["", "averaged"])
def test_a_best_checkpoint_damaged_during_training(
    extra: list[str], damage: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends with weights, metrics and predictions of one validation."""
    monkeypatch.setenv("ISOTRAIN_CACHE", str(cache))
    save, saved = checkpoints.Checkpoints.save, []

    def save_and_die(self: Any, trainer: Any) -> None:
        save(self, trainer)
        saved.append(1)
        if len(saved) == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "save", save_and_die)
        with pytest.raises(Killed):
            train([*OVERRIDES, *extra], tmp_path)
    path = tmp_path / "checkpoints" / "best.ckpt"
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:-1000])
    else:
        content = checkpoints.read(path)
        checkpoints.write({**content, "metrics": {**content["metrics"], "val_f1": 99.0}}, path)
    best = train([*OVERRIDES, *extra], tmp_path)
    assert checkpoints.read(path)["metrics"] == best["metrics"]
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    mean = sum(row["f1"] for row in rows) / len(rows)
    assert 100 * mean == pytest.approx(best["metrics"]["val_f1"])


# -- model folders ----------------------------------------------------------------------------------------------------


def exported(folder: Path) -> Path:
    """A model folder of a run, with digests."""
    save(BertForQuestionAnswering(config()), folder)
    (folder / "isotrain.json").write_text(
        json.dumps({"task": "question_answering", "digests": digests.folder_digests(folder)})
    )
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_file_of_an_exported_model_is_named(name: str, tmp_path: Path) -> None:
    folder = exported(tmp_path / "model")
    saved_model.open_model(str(folder))
    flip(folder / name, (folder / name).stat().st_size // 2)
    problem = (
        rf"{name} is damaged, or of another model: its SHA-256 is not the one in isotrain\.json\. Copy the folder again"
    )
    attempts: list[Any] = [lambda: saved_model.open_model(str(folder))]
    attempts.append(lambda: encoders._read_config(encoders.SPAN_HEAD, str(folder), None, False))
    module: Any = BertForQuestionAnswering(config())
    attempts.append(lambda: initial_weights._read_state(folder, module, str(folder)))
    for attempt in attempts:
        with pytest.raises(InputError, match=problem):
            attempt()
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing, which the run wrote"):
        saved_model.open_model(str(folder))


def test_files_beside_an_exported_model_do_not_matter(tmp_path: Path) -> None:
    folder = exported(tmp_path / "model")
    (folder / "README.md").write_text("of a person")
    content = json.loads((folder / "isotrain.json").read_text())
    saved_model.open_model(str(folder))
    del content["digests"]  # a folder of an earlier version
    (folder / "isotrain.json").write_text(json.dumps(content))
    flip(folder / "tokenizer.json", 10)
    saved_model.open_model(str(folder))
    for name in ("../outside", "/etc/hostname"):
        (folder / "isotrain.json").write_text(json.dumps({**content, "digests": {name: "0"}}))
        with pytest.raises(InputError, match="which is not in its folder"):
            saved_model.open_model(str(folder))


def test_a_damaged_timm_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_timm(folder)
    (folder / "isotrain.json").write_text(json.dumps({"digests": digests.folder_digests(folder)}))
    flip(folder / "model.safetensors", 5000)
    with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
        network_arguments("resnet18", str(folder), {}, 32)


def test_the_best_checkpoint_of_a_finished_run_is_checked_by_another_run(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "best.ckpt"
    path.parent.mkdir()
    best = write_best(path, 1.0)
    record = {"status": "finished", "digests": {"checkpoints/best.ckpt": best["digest"]}}
    digests.check_run(tmp_path, record, "checkpoints/best.ckpt")
    write_best(path, 2.0)
    digests.check_run(tmp_path, {**record, "status": "running"}, "checkpoints/best.ckpt")
    with pytest.raises(InputError, match=r"best\.ckpt is damaged, or of another model.*in run\.json"):
        digests.check_run(tmp_path, record, "checkpoints/best.ckpt")


@pytest.mark.parametrize("task", ["questions", "texts", "images"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(task: str, value: float, tmp_path: Path) -> None:
    if task == "images":
        state = save_timm(tmp_path / "model")
        state["fc.weight"].view(-1)[0] = value
        save_file(state, tmp_path / "model" / "model.safetensors")
        with pytest.raises(InputError, match=r"fc\.weight is not finite"):
            build_network("test_resnet", str(tmp_path / "model"), {}, 3)
        return
    network = BertForQuestionAnswering if task == "questions" else BertForSequenceClassification
    folder = save(network(config()), tmp_path / "model")

    def damage(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {
            name: tensor.clone().fill_(value) if "layer.1.output.dense.weight" in name else tensor
            for name, tensor in state.items()
        }

    rewrite(folder, damage)
    head = encoders.SPAN_HEAD if task == "questions" else encoders.CLASS_HEAD
    with pytest.raises(
        InputError, match=r"weights are damaged, or of a training that diverged: .*output\.dense\.weight"
    ):
        encoders.load_encoder(head, folder)


def test_large_finite_weights_pass() -> None:
    layer = torch.nn.Linear(4, 4)
    layer.weight.data.fill_(3e38)  # their sum is infinite
    weights.check_finite("x", layer)


def test_predictions_are_json() -> None:
    assert predict._json_line("m", {"id": "é", "score": 1.5}) == '{"id": "é", "score": 1.5}'
    for value in (float("nan"), float("-inf")):
        with pytest.raises(InputError, match="run=m: the output for 7 is not finite"):
            predict._json_line("m", {"id": 7, "scores": [1.0, value]})


@pytest.mark.slow
def test_a_run_records_the_digests_of_its_files(run: Run, tmp_path: Path) -> None:
    overrides = [*VARIED["questions"], "quality=off", "trainer.max_epochs=1"]
    done = run("train.py", *overrides, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["digests"] == {
        name: hashlib.sha256((tmp_path / "run" / name).read_bytes()).hexdigest()
        for name in ("checkpoints/best.ckpt", "model/isotrain.json")
    }
    settings = json.loads((tmp_path / "run" / "model" / "isotrain.json").read_text())
    assert settings["digests"].keys() == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert run("-m", "trainers", "evaluate", "run=run").returncode == 0
    flip(tmp_path / "run" / "model" / "model.safetensors", 5000)
    (tmp_path / "q.jsonl").write_text('{"question": "who?", "context": "ada"}\n')
    for words in (
        ("trainers", "evaluate", "run=run"),
        ("trainers", "predict", "run=run", "q.jsonl"),
        ("explain", "run=run"),
    ):
        done = run("-m", *words)
        assert (done.returncode, "model.safetensors is damaged" in done.stderr) == (2, True), done.stderr
        assert "Traceback" not in done.stderr
    flip(tmp_path / "run" / "checkpoints" / "best.ckpt", 5000)
    done = run("train.py", *overrides, "quality=off", "init_from=run", "hydra.run.dir=next")
    assert (done.returncode, "best.ckpt is damaged" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("task", ["questions", "texts", "images"])
def test_a_saved_model_that_lacks_any_of_its_tensors_is_refused(task: str, tmp_path: Path) -> None:
    """Whichever it is: without it, that part of the network would be random."""
    folder = tmp_path / "model"
    if task == "images":
        save_timm(folder)
    else:
        save((BertForQuestionAnswering if task == "questions" else BertForSequenceClassification)(config()), folder)
    file = folder / "model.safetensors"
    state = load_file(file)
    names = [name for name in state if not name.endswith("num_batches_tracked")]  # of which predictions do not depend
    head = encoders.SPAN_HEAD if task == "questions" else encoders.CLASS_HEAD

    def load() -> Any:
        return (
            build_network("test_resnet", str(folder), {}, 3)
            if task == "images"
            else encoders.load_encoder(head, folder)
        )

    load()
    for name in names:
        save_file({key: tensor for key, tensor in state.items() if key != name}, file, metadata={"format": "pt"})
        with pytest.raises(InputError):
            load()
    assert len(names) > 25
