"""Explanations through their command lines: what they leave, what they refuse, and that they are the same every time."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.conftest import Run, forked

ROOT = Path(__file__).resolve().parents[1]
IMAGES = [
    *("model=resnet18", "model.name=test_resnet", "model.stem=standard", "data=shapes", "data.sample.train=96"),
    *(
        "data.sample.val=60",
        "data.batch_size=16",
        "trainer.threads=1",
        "trainer.max_steps=3",
        "quality=off",
        "trainer.precision=32-true",
    ),
]
QUESTIONS = [
    *("model=bert_tiny", "data=squad_sample", "data.sample.train=64", "data.sample.val=60", "trainer.threads=1"),
    *("trainer.max_steps=2", "quality=off", "trainer.precision=32-true", "model.architecture.num_hidden_layers=2"),
    "model.architecture.layer_types=[full_attention,full_attention]",
]
TEXTS = [
    *("model=bert_tiny_classifier", "data=topics_sample", "data.sample.train=64", "data.sample.val=60"),
    *("trainer.threads=1", "trainer.max_steps=2", "quality=off", "trainer.precision=32-true"),
    *("model.architecture.num_hidden_layers=2", "model.architecture.layer_types=[full_attention,full_attention]"),
]
FEW = [
    "trainer.threads=1",
    "explain.examples=20",
    "explain.min_correct=1",
    "explain.precision=32",
    "explain.min_agreement=-1",
    "explain.seed=3",
]
SMALL = [*FEW, "explain.image_classification.grid=4", "explain.image_classification.pictures=0"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cache: Path, warm: Path) -> dict[str, Path]:
    """A run of each task, barely trained."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    for name, overrides in (("images", IMAGES), ("questions", QUESTIONS), ("texts", TEXTS)):
        found[name] = folder / name
        command = [str(ROOT / "train.py"), *overrides, f"hydra.run.dir={found[name]}"]
        done = forked(warm, command, folder, environment, 300)
        assert done.returncode == 0, done.stderr
    return found


def verdict(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "verdict.json").read_text())


def values(folder: Path) -> dict[str, Any]:
    with np.load(folder / "values.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize("task", [pytest.param("images", marks=pytest.mark.slow), "questions", "texts"])
def test_a_run_is_explained_and_the_same_every_time(task: str, runs: dict[str, Path], run: Run, tmp_path: Path) -> None:
    pictures = ["explain.image_classification.pictures=2"]
    command = ("-m", "explain", f"run={runs[task]}", *([*SMALL, *pictures] if task == "images" else FEW))
    done = run(*command, "--folder", str(tmp_path / "one"))
    assert done.returncode in (0, 5), done.stderr
    found = verdict(tmp_path / "one")
    assert (found["status"] in ("passed", "warned")) == (done.returncode == 0)
    assert found["status"] in done.stdout
    assert found["examples"] == 20
    assert found["invariants"]["additivity"] < 1e-4
    assert {each.name for each in (tmp_path / "one").iterdir()} == {
        "verdict.json", "values.npz", "explanations.jsonl", "report.md", "report.html"
    }  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "one" / "explanations.jsonl").read_text().splitlines()]
    # The predictions are those of the run.
    known = {row["id"]: row for row in map(json.loads, (runs[task] / "predictions.jsonl").read_text().splitlines())}
    assert all(known[line["id"]]["prediction"] == line["prediction"] for line in lines)
    kept = values(tmp_path / "one")
    assert [line["id"] for line in lines] == kept["ids"].tolist()
    assert kept["offsets"][-1] == len(kept["values"])
    page = (tmp_path / "one" / "report.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    # From nothing, on another cache: bit for bit the same. With another batch size: nearly.
    again = run(*command, "--folder", str(tmp_path / "two"), f"data.cache_dir={tmp_path / 'cache'}")
    assert again.stdout == done.stdout
    assert (values(tmp_path / "two")["values"] == kept["values"]).all()
    assert (tmp_path / "one" / "explanations.jsonl").read_text() == (
        tmp_path / "two" / "explanations.jsonl"
    ).read_text()
    run(*command, "--folder", str(tmp_path / "three"), "explain.batch_size=7")
    assert np.abs(values(tmp_path / "three")["values"] - kept["values"]).max() <= 1e-4


def test_the_runs_page_knows_a_later_explanation(runs: dict[str, Path], run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs["questions"], folder, symlinks=True)
    shutil.rmtree(folder / "explain", ignore_errors=True)
    before = (folder / "report.html").read_text()
    assert "explained after training" not in before
    done = run("-m", "explain", f"run={folder}", *FEW, "--folder", str(tmp_path / "elsewhere"))
    assert done.returncode in (0, 5), done.stderr
    assert (folder / "report.html").read_text() == before
    (folder / "report.html").write_text("my thesis")
    done = run("-m", "explain", f"run={folder}", *FEW)
    assert done.returncode in (0, 5), done.stderr
    assert "report.html was not updated with the verdict" in done.stderr
    assert (folder / "report.html").read_text() == "my thesis"
    (folder / "report.html").unlink()
    done = run("-m", "explain", f"run={folder}", *FEW)
    page = (folder / "report.html").read_text()
    (row,) = re.findall(r"<tr>\s*<td[^>]*>explanations</td>.*?</tr>", page, re.DOTALL)
    assert verdict(folder / "explain")["status"] in row
    assert "explained after training, 20" in row
    assert 'href="explain/report.html"' in row
    found = verdict(folder / "explain")
    found["about"]["data"] = "0" * 64
    (folder / "explain" / "verdict.json").write_text(json.dumps(found))
    assert run("-m", "runs", "report", str(folder)).returncode == 0
    assert "on other data than the run&#39;s" in (folder / "report.html").read_text()


def test_answers_are_the_runs_own_whatever_it_decodes_with(run: Run, tmp_path: Path) -> None:
    """`max_answer_tokens` and `n_best` are the run's, not the defaults: what is explained is what it predicted."""
    folder, decoding = tmp_path / "run", {"max_answer_tokens": 2, "n_best": 1}
    overrides = [f"model.{name}={value}" for name, value in decoding.items()]
    done = run("train.py", *QUESTIONS, *overrides, f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr
    done = run("-m", "explain", f"run={folder}", *FEW, "explain.examples=60", "explain.question_answering.words=0")
    assert done.returncode in (0, 5), done.stderr
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    lines = [json.loads(line) for line in (folder / "explain" / "explanations.jsonl").read_text().splitlines()]
    predicted = {row["id"]: (row["prediction"], pytest.approx(row["probability"], abs=1e-5)) for row in rows}
    assert {line["id"]: (line["prediction"], line["confidence"]) for line in lines} == predicted
    settings = verdict(folder / "explain")["about"]["settings"]
    assert {name: settings[name] for name in decoding} == decoding


def test_pairs_of_texts(run: Run, tmp_path: Path) -> None:
    """The second text is a part of its own, and both are cut where the model's input ends."""
    words = ["river", "stone", "lamp", "cloud", "apple", "engine", "garden", "winter", "paper", "bridge"]
    generator = np.random.default_rng(0)
    for split, count in (("train", 64), ("val", 40)):
        rows = []
        for number in range(count):
            first, second = (" ".join(generator.choice(words, size)) for size in (12, 40))
            rows.append({"text": f"{first.capitalize()}.", "text_pair": second, "label": ("no", "yes")[number % 2]})
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = [each for each in TEXTS if not each.startswith(("data=", "data.sample"))]
    data = ["data=text_folder", f"data.path={tmp_path}", "data.columns.text_pair=text_pair", "data.max_length=32"]
    done = run("train.py", *overrides, *data, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    done = run("-m", "explain", f"run={tmp_path / 'run'}", *FEW)
    assert done.returncode in (0, 5), done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run/explain/explanations.jsonl").read_text().splitlines()]
    for line in lines:
        assert [part["of"] for part in line["parts"]] == ["text"] * 4 + ["pair"]  # one sentence: four runs of words
        assert len(line["parts"][-1]["text"].split()) < 40
    assert verdict(tmp_path / "run" / "explain")["invariants"]["additivity"] < 1e-4
    assert "second text" in (tmp_path / "run" / "explain" / "report.html").read_text()


def test_a_rerun_is_free(runs: dict[str, Path], run: Run, tmp_path: Path, cache: Path) -> None:
    command = ("-m", "explain", f"run={runs['questions']}", *FEW, "--folder", str(tmp_path / "q"))
    run(*command)
    before = {each: each.stat().st_mtime_ns for each in (cache / "explanations").rglob("values.npz")}
    run(*command)
    assert before == {each: each.stat().st_mtime_ns for each in (cache / "explanations").rglob("values.npz")}


def test_explanations_stop_where_a_model_surely_passes(runs: dict[str, Path], run: Run, tmp_path: Path) -> None:
    """A model above bounds that are far away needs the first look alone; the rest is explained when it is asked for."""
    kept = tmp_path / "cache"
    bounds = [
        f"explain.text_classification.measures.{name}.bound=-9"
        for name in ("text_permutation", "comprehensiveness", "learned")
    ]
    command = ("-m", "explain", f"run={runs['texts']}", *FEW, *bounds, "explain.examples=60", f"data.cache_dir={kept}")
    done = run(*command, "explain.looks=2", "--folder", str(tmp_path / "part"))
    assert done.returncode == 0, done.stderr
    assert "the explanations of 32 of 60 examples: " in done.stdout
    part = verdict(tmp_path / "part")
    stop = {"examples": 32, "sample": 60, "look": 1, "looks": 2, "alpha": 0.001}
    assert part["stop"] == {**stop, "reason": "every blocking measure is significant"}
    assert part["examples"] == 32
    assert "32 of 60 texts" in (tmp_path / "part" / "report.md").read_text()
    page = (tmp_path / "part" / "report.html").read_text()
    assert "1 of 2, at the significance level 0.001: every blocking measure is significant" in page
    assert "explain.looks=1 explains the whole sample" in page
    before = {each: each.stat().st_mtime_ns for each in _whole(kept)}
    assert len(before) == 2
    done = run(*command, "explain.looks=1", "--folder", str(tmp_path / "all"))
    assert (done.returncode, "the explanations of 60 examples: " in done.stdout) == (0, True), done.stderr
    assert verdict(tmp_path / "all")["stop"]["reason"] == "the whole sample is explained"
    assert len(_whole(kept)) == 4
    assert all(each.stat().st_mtime_ns == when for each, when in before.items())
    lines = [set((tmp_path / name / "explanations.jsonl").read_text().splitlines()) for name in ("part", "all")]
    assert lines[0] < lines[1]
    # Bounds are of whole samples.
    done = run("-m", "explain", "calibrate", "-o", str(tmp_path / "bounds.json"), *[str(tmp_path / "part")] * 3)
    assert done.returncode == 2
    assert "only 32 of 60 examples were explained" in done.stderr
    assert "explain.looks=1" in done.stderr


@pytest.mark.slow
def test_damaged_values_are_computed_again(runs: dict[str, Path], run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "cache"
    command = ("-m", "explain", f"run={runs['questions']}", *FEW, f"data.cache_dir={kept}")
    run(*command, "--folder", str(tmp_path / "one"))
    path = _whole(kept)[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = run(*command, "--folder", str(tmp_path / "two"))
    assert done.returncode in (0, 5), done.stderr
    assert f"{path.parent} is damaged (values.npz: its content has changed since it was written)" in done.stderr
    lines = [(tmp_path / name / "explanations.jsonl").read_text() for name in ("one", "two")]
    assert lines[0] == lines[1]


def _whole(kept: Path) -> list[Path]:
    return [each for each in kept.glob("explanations/*/values.npz") if each.parent.suffix != ".tmp"]


@pytest.mark.slow
def test_another_sample_never_finds_this_ones_values(runs: dict[str, Path], run: Run, tmp_path: Path) -> None:
    """What is asked in a question's place, and of which questions words are told, is of the sample: so is the cache's key."""
    command = ("-m", "explain", f"run={runs['questions']}", *FEW, f"data.cache_dir={tmp_path / 'cache'}")
    run(*command, "explain.examples=9", "--folder", str(tmp_path / "few"))
    run(*command, "explain.examples=17", "--folder", str(tmp_path / "after"))
    fresh = (*command[:-1], f"data.cache_dir={tmp_path / 'fresh'}")
    run(*fresh, "explain.examples=17", "--folder", str(tmp_path / "alone"))
    after, alone = (verdict(tmp_path / name) for name in ("after", "alone"))
    assert after["measures"] == alone["measures"]
    lines_ = [(tmp_path / name / "explanations.jsonl").read_text() for name in ("after", "alone")]
    assert lines_[0] == lines_[1]


def test_words_and_random_weights_are_asked_of_a_part(runs: dict[str, Path], run: Run, tmp_path: Path) -> None:
    command = ("-m", "explain", f"run={runs['questions']}", *FEW, "--folder", str(tmp_path))
    assert run(*command, "explain.question_answering.words=5").returncode in (0, 5)
    lines_ = [json.loads(line) for line in (tmp_path / "explanations.jsonl").read_text().splitlines()]
    assert len(lines_) == 20
    assert sum(bool(line["words"]) for line in lines_) == 5
    assert "<h2>Answers</h2>" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_killed_by_signal_9_it_goes_on(runs: dict[str, Path], run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "cache"
    command = ["-m", "explain", f"run={runs['images']}", *SMALL, "explain.examples=48", f"data.cache_dir={kept}"]
    running = subprocess.Popen(
        [sys.executable, *command, "--folder", str(tmp_path / "x")],
        cwd=ROOT / "src",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (done := _whole(kept)) and running.poll() is None:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not psutil.pid_exists(running.pid)
    assert not (tmp_path / "x" / "verdict.json").exists()
    before = {each: each.stat().st_mtime_ns for each in done}
    finished = run(*command, "--folder", str(tmp_path / "x"))
    assert finished.returncode in (0, 5), finished.stderr
    assert all(each.stat().st_mtime_ns == when for each, when in before.items())
    whole = run(*command[:-1], "--folder", str(tmp_path / "y"))
    assert whole.stdout == finished.stdout
    assert (values(tmp_path / "x")["values"] == values(tmp_path / "y")["values"]).all()


def test_a_gate_that_fails_stops_training_and_leaves_its_evidence(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = ("train.py", *IMAGES, *SMALL, "explain.min_correct=1000", f"hydra.run.dir={folder}")
    done = run(*command, "explain=enforce")
    assert done.returncode == 5, done.stderr
    assert "inconclusive" in done.stderr
    assert "too few to judge" in done.stderr
    assert "Traceback" not in done.stderr
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["exit_code"]) == ("failed", 5)
    assert record["explain"]["status"] == "inconclusive"
    assert record["explain"]["stop"] == {
        "examples": 20, "sample": 20, "look": 1, "looks": 1, "alpha": 0.05, "reason": "the whole sample is explained"
    }  # fmt: skip
    assert record["metrics"]["val_accuracy"] >= 0
    assert (folder / "explain" / "report.html").exists()
    assert (folder / "model" / "config.json").exists()
    # The same command again says the same, and with a warning alone the run is finished.
    assert run(*command, "explain=enforce").returncode == 5
    done = run(*command, "explain=warn")
    assert done.returncode == 0, done.stderr
    assert "too few to judge" in done.stderr
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    # A finished run that is given again is judged by the verdict that it has.
    done = run(*command, "explain=enforce")
    assert (done.returncode, "too few to judge" in done.stderr) == (5, True)
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"


@pytest.mark.slow
def test_a_trial_is_stopped_too(run: Run, tmp_path: Path) -> None:
    made = run(
        "-m", "katib", "new", *IMAGES, *SMALL, "explain=enforce", "explain.min_correct=1000", "optim.lr=loguniform(1e-4,1e-3)",
        "--max-trials", "1", "--max-failed", "1", "-o", str(tmp_path / "search.yaml"),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    done = run("-m", "katib", "run", str(tmp_path / "search.yaml"), "--folder", str(tmp_path / "search"))
    assert done.returncode == 6, done.stderr
    trial = json.loads((tmp_path / "search" / "trials.jsonl").read_text().splitlines()[0])
    assert (trial["status"], trial["exit_code"]) == ("Failed", 5)
    assert list((tmp_path / "search").glob("runs/*/explain/report.html"))


def test_a_model_folder_of_timms_own(runs: dict[str, Path], run: Run, tmp_path: Path) -> None:
    command = ("-m", "explain", *SMALL, "--folder", str(tmp_path / "x"))
    data = ["data=shapes", "data.sample.train=96", "data.sample.val=60"]
    done = run(*command, f"run={runs['images'] / 'model'}", *data)
    assert done.returncode in (0, 5), done.stderr
    done = run(*command, f"run={runs['images'] / 'model'}")
    assert (done.returncode, "name a data set" in done.stderr) == (2, True)
    done = run(*command, f"run={runs['images'] / 'model'}", "data=squad_sample")
    assert done.returncode == 2


def test_a_model_folder_of_transformers_own(run: Run, tmp_path: Path) -> None:
    """A DistilBERT and its tokenizer as transformers saves them: nothing in it is ours."""
    from tokenizers import BertWordPieceTokenizer
    from tokenizers.processors import BertProcessing
    from transformers import DistilBertConfig, DistilBertForQuestionAnswering, PreTrainedTokenizerFast

    words = BertWordPieceTokenizer()
    words.train_from_iterator(
        ["What colour is the house of Anna Smith? It is green, and 42 years old."] * 4, vocab_size=200, min_frequency=1
    )
    ends = [(name, words.token_to_id(name)) for name in ("[SEP]", "[CLS]")]
    words._tokenizer.post_processor = BertProcessing(*ends)
    special = {
        name: f"[{name.split('_')[0].upper()}]"
        for name in ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
    }
    PreTrainedTokenizerFast(tokenizer_object=words._tokenizer, **special).save_pretrained(tmp_path / "model")
    config = DistilBertConfig(vocab_size=words.get_vocab_size(), dim=32, hidden_dim=64, n_layers=2, n_heads=2)
    DistilBertForQuestionAnswering(config).save_pretrained(tmp_path / "model")
    command = (
        "-m",
        "explain",
        f"run={tmp_path / 'model'}",
        "data=squad_sample",
        "data.sample.train=64",
        "data.sample.val=60",
    )
    done = run(*command, *FEW, "--folder", str(tmp_path / "out"))
    assert done.returncode in (0, 5), done.stderr
    found = verdict(tmp_path / "out")
    assert found["examples"] == 20
    assert found["invariants"]["additivity"] < 1e-4
    assert (tmp_path / "out" / "report.html").exists()


def test_gradients_are_the_fast_option_and_do_not_add_up(runs: dict[str, Path], run: Run, tmp_path: Path) -> None:
    gradient = "explain.image_classification.explainer=gradient"
    done = run("-m", "explain", f"run={runs['images']}", *SMALL, gradient, "--folder", str(tmp_path / "x"))
    assert done.returncode in (0, 5), done.stderr
    assert verdict(tmp_path / "x")["invariants"]["additivity"] == 0  # not asked of it


def test_without_boxes_pointing_is_unmeasured_and_said(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    for split, count in (("train", 12), ("val", 10)):
        for name, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(count):
                noise = np.random.default_rng([number, count]).integers(0, 40, (64, 64, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{number}.png")
    overrides = [each for each in IMAGES if not each.startswith(("data=", "data.sample"))]
    data = ["data=image_folder", f"data.path={tmp_path / 'data'}", "data.image_size=64",
            "data.suitable.pretrained=false", "data.suitable.stem=small"]  # fmt: skip
    assert run("train.py", *overrides, *data, f"hydra.run.dir={tmp_path / 'run'}").returncode == 0
    done = run("-m", "explain", f"run={tmp_path / 'run'}", *SMALL)
    assert done.returncode in (0, 5), done.stderr
    found = {each["name"]: each["outcome"] for each in verdict(tmp_path / "run" / "explain")["measures"]}
    assert (found["pointing"], found["mass"]) == ("unmeasured", "unmeasured")
    assert "| unmeasured | pointing |" in (tmp_path / "run" / "explain" / "report.md").read_text()


WRONG = {
    "no run": ((), "name the model once"),
    "two runs": (("run=a", "run=b"), "name the model once"),
    "no such folder": (("run=nowhere",), "neither a run nor a model folder"),
    "unknown key": (("run=RUN", "explain.sampels=3"), "sampels"),
    "not a number": (("run=RUN", "explain.examples=many"), "explain.examples=many"),
    "no thresholds": (("run=RUN", "explain.thresholds=none.json"), "not a file of python -m explain calibrate"),
    "a task without a section": (
        ("run=RUN", "~explain.image_classification"),
        "explain.image_classification is not configured",
    ),
    "another task's data": (("run=RUN", "data=squad_sample"), "choose a model and a data set of one task"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_explained(wrong: str, runs: dict[str, Path], run: Run, tmp_path: Path) -> None:
    arguments, message = WRONG[wrong]
    given = [each.replace("RUN", str(runs["images"])) for each in arguments]
    done = run("-m", "explain", *SMALL, *given, "--folder", str(tmp_path / "x"))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_bounds_from_accepted_runs(runs: dict[str, Path], run: Run, tmp_path: Path) -> None:
    folders = []
    for seed in range(3):
        folders.append(str(tmp_path / f"seed{seed}"))
        assert run("train.py", *IMAGES, f"seed={seed}", f"hydra.run.dir={folders[-1]}").returncode == 0
        assert run("-m", "explain", f"run={folders[-1]}", *SMALL).returncode in (0, 5)
    calibrate = ("-m", "explain", "calibrate", "-o", str(tmp_path / "bounds.json"))
    done = run(*calibrate, *folders)
    assert done.returncode == 0, done.stderr
    means = [verdict(Path(each) / "explain") for each in folders]
    pointing = [
        measure["mean"]["value"] for each in means for measure in each["measures"] if measure["name"] == "pointing"
    ]
    bounds = json.loads((tmp_path / "bounds.json").read_text())["bounds"]
    assert bounds["pointing"] == pytest.approx(np.mean(pointing) - 2 * np.std(pointing, ddof=1))
    assert "pointing" in done.stdout
    thresholds = f"explain.thresholds={tmp_path / 'bounds.json'}"
    done = run("-m", "explain", f"run={folders[0]}", *SMALL, thresholds, "--folder", str(tmp_path / "x"))
    used = {each["name"]: each["bound"] for each in verdict(tmp_path / "x")["measures"]}
    assert used == pytest.approx(bounds)
    for given, message in (
        (folders[:2], "3 accepted runs or more"),
        ([*folders[:2], folders[0]], "the same model"),
        ([*folders[:2], str(runs["questions"])], "there is no explain/verdict.json"),
    ):
        done = run(*calibrate, *given)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
