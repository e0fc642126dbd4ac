"""`python -m serving export`: a copy in another format answers as the original, and is refused if it does not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import ROOT, Run
from tests.test_pyfunc import TRAININGS

from config.errors import EquivalenceError, InputError
from config.files import read_json
from runs import lineage
from trainers import onnx_network

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
# Wide: models of two steps, and 32 examples.
OPTIONS = {"questions": ("--metric", "val_f1"), "texts": (), "images": ("--explanations", "0")}
BOUNDS = ("--margin", "101", "--min-agreement", "0.5", "--explanations", "4", "--requests", "10")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"folder": tmp_path_factory.mktemp("export")}


@pytest.fixture
def trained(run: Run, folders: dict[str, Path]) -> Callable[[str], Path]:
    """Trains for a task, once, and returns the run folder."""

    def train(task: str) -> Path:
        if task not in folders:
            folder = folders["folder"] / task
            settings = (
                "data.sample.train=40",
                "data.sample.val=32",
                "trainer.max_steps=2",
                "trainer.precision=32-true",
            )
            done = run("train.py", *TRAININGS[task], *settings, f"hydra.run.dir={folder}")
            assert done.returncode == 0, done.stderr
            folders[task] = folder
        return folders[task]

    return train


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("task", "target"), [("questions", "onnx"), ("texts", "onnx-int8"), ("images", "onnx-int8"), ("texts", "bf16")]
)
def test_an_export_is_a_model_like_any_other(
    task: str, target: str, trained: Callable[[str], Path], run: Run, tmp_path: Path
) -> None:
    folder, output = trained(task), tmp_path / "small"
    done = run(
        "-m", "serving", "export", f"run={folder}", "--to", target, "--output", str(output), *BOUNDS, *OPTIONS[task]
    )
    assert done.returncode == 0, done.stderr
    verdict, record = read_json(output / "export" / "verdict.json"), read_json(output / "run.json")
    assert verdict["status"] == "passed"
    assert verdict["reasons"] == []
    assert record["parent"] == {
        "init_from": str(folder),
        "config_hash": read_json(folder / "run.json")["config_hash"],
        "model": lineage.folder_digest(folder / "model"),
    }
    assert ("parent", str(folder), lineage.folder_digest(folder / "model")) in lineage.collect_lineage(output, record)
    if task != "images":  # 8-bit explanations of an image model that has learned nothing are noise
        assert len(verdict["explanations"]["lines"]) + verdict["explanations"]["different"] == 4
    assert "non-inferior" in (output / "export" / "report.html").read_text()
    if target != "onnx":
        assert verdict["speed"]["exported"]["size_mib"] < 0.7 * verdict["speed"]["original"]["size_mib"]
    assert (output / "model" / "model.onnx").exists() == (target != "bf16")
    # `evaluate` answers with the export as the gate did.
    done = run("-m", "trainers", "evaluate", f"run={output}", "--output", str(tmp_path / "again"))
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "again") == rows(output)
    if target == "onnx":
        for old, new in zip(rows(folder), rows(output), strict=True):
            assert old["prediction"] == new["prediction"]
            assert new["score"] == pytest.approx(old["score"], abs=1e-3)
    done = run("-m", "explain", f"run={output}", "explain=warn", "explain.examples=4")
    assert done.returncode == 0, done.stderr
    # What cannot be trained is refused before anything is prepared.
    if target == "onnx-int8":
        name = "model.pretrained=" + str(output / "model")
        done = run("train.py", *TRAININGS[task], name, f"hydra.run.dir={tmp_path / 'more'}")
        assert done.returncode == 2
        assert "cannot be trained" in done.stderr


def exported(folder: Path, output: Path, **bounds: Any) -> dict[str, Any]:
    from serving.export import Bounds, export

    return export(str(folder), "onnx", output, [], Bounds(**{"margin": 101, **bounds}), requests=10, examples=4)


def damaging(write: Callable[..., None], scale: float, position: int) -> Callable[..., None]:
    """Returns what writes a graph in ONNX, and scales the weights of one of its layers."""

    def damage(network: Any, inputs: Any, target: Path) -> None:
        write(network, inputs, target)
        model = onnx.load(str(target / onnx_network.FILE))
        weights = {tensor.name: tensor for tensor in model.graph.initializer}
        layers = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm", "Conv")]
        names = [node.input[1] for node in layers if node.input[1] in weights]
        tensor = weights[names[position]]
        values = scale * onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values, np.float32), tensor.name))
        onnx.save_model(model, str(target / onnx_network.FILE), save_as_external_data=True, location=onnx_network.DATA)

    return damage


def test_a_damaged_layer_is_refused(
    trained: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving import export_formats

    folder, write = trained("texts"), export_formats.write_onnx
    assert exported(folder, tmp_path / "honest", agreement=0.99)["status"] == "passed"
    monkeypatch.setattr(export_formats, "write_onnx", damaging(write, -30, -1))
    output = tmp_path / "damaged"
    with pytest.raises(EquivalenceError, match=r"was refused: .*explanation"):
        exported(folder, output, agreement=0.99)
    assert EquivalenceError.exit_code == 5
    assert sorted(path.name for path in output.rglob("*")) == ["changed.jsonl", "export", "report.html", "verdict.json"]
    assert read_json(output / "export" / "verdict.json")["status"] == "failed"
    # The next attempt replaces the report; an accepted export is not replaced.
    monkeypatch.setattr(export_formats, "write_onnx", write)
    assert exported(folder, output, agreement=0.99)["status"] == "passed"
    with pytest.raises(InputError, match="exists: name a new folder"):
        exported(folder, output)


@pytest.mark.slow
def test_8_bits_of_a_trained_network_pass_and_a_damaged_layer_does_not(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving import export_formats
    from serving.export import Bounds, export

    folder = tmp_path / "trained"
    settings = ("data.sample.train=1600", "data.sample.val=1200", "trainer.max_epochs=6", "trainer.precision=32-true")
    network = ("model=resnet18", "model.name=resnet10t", "model.stem=standard", "model.pretrained=false")
    data = ("data=shapes", "data.image_size=32", "data.batch_size=32")
    done = run("train.py", *network, *data, *settings, "optim.lr=2e-3", f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr
    bounds = Bounds(margin=3, agreement=0.8, metrics=("val_accuracy",))
    verdict = export(str(folder), "onnx-int8", tmp_path / "honest", [], bounds, requests=10, examples=8)
    assert verdict["status"] == "passed"
    monkeypatch.setattr(export_formats, "write_onnx", damaging(export_formats.write_onnx, 2.5, 4))
    with pytest.raises(EquivalenceError, match=r"was refused: val_accuracy is not shown to be non-inferior"):
        export(str(folder), "onnx-int8", tmp_path / "damaged", [], bounds, requests=10, examples=8)


def test_what_misses_a_bound_is_refused(trained: Callable[[str], Path], run: Run, tmp_path: Path) -> None:
    command = ("-m", "serving", "export", f"run={trained('texts')}", "--to", "bf16", "--output", str(tmp_path / "x"))
    options = (
        "--latency-ms",
        "0.001",
        "--size-mib",
        "0.01",
        "--margin",
        "1",
        "--explanations",
        "0",
        "--requests",
        "10",
    )
    done = run(*command, *options)
    assert done.returncode == 5
    for words in ("95th percentile", "MiB, more than 0.01", "not shown to be non-inferior", "32 examples are too few"):
        assert words in done.stderr
    assert not (tmp_path / "x" / "run.json").exists()
    assert not (tmp_path / "x" / "model").exists()


def test_a_killed_export_leaves_no_model(trained: Callable[[str], Path], tmp_path: Path, cache: Path) -> None:
    output = tmp_path / "killed"
    command = [sys.executable, "-m", "serving", "export", f"run={trained('texts')}", "--to", "bf16", *BOUNDS]
    command += ["--requests", "1000000", "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "ISOTRAIN_CACHE": str(cache)}
    log = tmp_path / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
    try:
        while "measuring" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not output.exists()
    assert not list(tmp_path.glob("*/run.json"))


def graph(path: Path, **changes: Any) -> Path:
    """A network for images: a product, with an operator's domain or the file of its weights changed."""
    helper = onnx.helper
    weight = onnx.numpy_helper.from_array(np.ones((3, 2), np.float32), "weight")
    if location := changes.get("location"):
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
    node = helper.make_node("MatMul", ["images", "weight"], ["logits"], domain=changes.get("domain", ""))
    tensors = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", size])
        for name, size in ((changes.get("input", "images"), 3), ("logits", 2))
    ]
    if "input" in changes:
        node.input[0] = changes["input"]
    model = helper.make_model(
        helper.make_graph([node], "network", [tensors[0]], [tensors[1]], [weight]),
        opset_imports=[helper.make_opsetid("", 20), *([helper.make_opsetid("mine", 1)] if "domain" in changes else [])],
    )
    path.mkdir()
    (path / onnx_network.FILE).write_bytes(model.SerializeToString())
    return path


def test_graphs_of_others_run_nothing(tmp_path: Path) -> None:
    assert onnx_network.load(graph(tmp_path / "plain")).num_classes == 2
    (tmp_path / "secret").write_bytes(np.ones(6, np.float32).tobytes())
    for name, changes, message in (
        ("operator", {"domain": "mine"}, "code of others"),
        ("outside", {"location": "../secret"}, "only model.onnx.data beside it is read"),
        ("absolute", {"location": str(tmp_path / "secret")}, "only model.onnx.data beside it is read"),
        ("inputs", {"input": "sound"}, "no network of a task"),
    ):
        with pytest.raises(InputError, match=message):
            onnx_network.load(graph(tmp_path / name, **changes))
    folder = graph(tmp_path / "link", location=onnx_network.DATA)
    (folder / onnx_network.DATA).symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="link to another folder"):
        onnx_network.load(folder)
    (folder / onnx_network.FILE).write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="cannot be read as an ONNX graph"):
        onnx_network.load(folder)


def test_answers_that_changed_are_listed(tmp_path: Path) -> None:
    from serving import export

    for number, name in enumerate(("original", "exported")):
        (tmp_path / name).mkdir()
        rows = [
            {"id": str(row), "prediction": "ab"[number and row % 2], "exact_match": int(row % 2 == 0), "f1": 0.5}
            for row in range(4)
        ]
        (tmp_path / name / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changed = export._changed_answers("question_answering", tmp_path / "original", tmp_path / "exported")
    assert [(row["id"], row["original"], row["exported"]) for row in changed] == [("1", "a", "b"), ("3", "a", "b")]
