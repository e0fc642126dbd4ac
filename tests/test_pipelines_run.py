"""`python -m pipelines run`: the compiled pipeline in real processes, and what survives when a step fails."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import psutil
import pytest
from tests.conftest import Run

from datamodules.samples import squad_sample

ROOT = Path(__file__).resolve().parents[1]
SIZE = ["data.sample.train=64", "data.sample.val=32", "trainer.threads=1", "trainer.deterministic=true"]
QUESTIONS = [
    "model=bert_tiny",
    "data=squad_sample",
    *SIZE,
    "trainer.max_steps=4",
    "explain.examples=8",
    "explain.min_correct=1",
]
IMAGES = ["model=resnet18", "model.name=test_resnet", "model.stem=standard", "data=shapes", "data.sample.train=64",
          "data.sample.val=32", "trainer.threads=1", "trainer.max_steps=4", "explain.examples=8", "explain.min_correct=1",
          "explain.image_classification.grid=3"]  # fmt: skip
QUICK = ["-p", "explain=off", "-p", "baseline="]


def steps(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of a run's steps."""
    return {each["step"]: each for path in (folder / "steps").glob("*.json") if (each := json.loads(path.read_text()))}


def artifact(folder: Path, step: str, name: str) -> Path:
    """What KFP would publish of a step."""
    found = list((folder / "artifacts").glob(f"*/{step}/{name}"))
    assert len(found) == 1, found
    return found[0]


class Place:
    """A folder that pipelines run in, one after another."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ, "PYTHONPATH": str(ROOT / "src"), "ISOTRAIN_CACHE": str(cache), "HF_HUB_OFFLINE": "1"
        }  # fmt: skip
        self.environment.pop("MLFLOW_TRACKING_URI", None)

    def __call__(self, name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(name, *arguments), cwd=self.folder, env={**self.environment, **environment},
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip

    def command(self, name: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "pipelines", "run", *arguments, "--name", name]

    def of(self, name: str) -> Path:
        return self.folder / "outputs" / "pipelines" / name


@pytest.fixture
def place(tmp_path: Path, cache: Path) -> Place:
    return Place(tmp_path, cache)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Place:
    """One run of everything: tuned, trained, explained, registered."""
    found = Place(tmp_path_factory.mktemp("whole"), cache)
    tune = ["-p", "tune=katib/questions-random.yaml", "-p", "trials=1"]
    done = found("one", *QUESTIONS, *tune, "-p", "explain=warn", "-p", "minimum=10")
    assert done.returncode == 0, done.stderr
    (found.folder / "said").write_text(done.stdout)
    # A model of four steps does not reach the floor; later pipelines need a champion.
    server = f"sqlite:///{found.folder}/outputs/mlflow/mlflow.db"
    promoted = subprocess.run(
        [sys.executable, "-m", "runs", "register", steps(found.of("one"))["train"]["run"], "--champion", "--despite-gates",
         "--justification", "a test", "--server", server],
        cwd=found.folder, env=found.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert promoted.stdout == "question_answering-squad_sample version 1, already registered: champion\n", (
        promoted.stderr
    )
    return found


def test_the_whole_pipeline_ends_with_a_registered_model(whole: Place, run: Run) -> None:
    found = steps(whole.of("one"))
    assert [each for each, one in found.items() if one["state"] != "done"] == []
    assert len(found) == 15
    judged = found["evaluate"]["verdict"]
    assert judged.startswith("failed: there is no champion yet; val_f1 ")
    assert "of model=majority" in judged
    registered = f"question_answering-squad_sample version 1 (candidate); it was not promoted: {judged}"
    assert found["register"]["verdict"] == registered
    assert found["tune"]["verdict"].startswith("val_f1 ")
    done = run(
        "-m", "runs", "champion", "question_answering-squad_sample", "--json",
        "--server", f"sqlite:///{whole.folder}/outputs/mlflow/mlflow.db",
    )  # fmt: skip
    assert json.loads(done.stdout)["run"] == found["train"]["run"]
    record = json.loads((Path(found["train"]["run"]) / "run.json").read_text())
    assert record["pipeline"]["run_id"] == "one"
    said = (whole.folder / "said").read_text()
    assert [line.split("  ")[0].strip() for line in said.splitlines()[1:]][:3] == ["data", "plan", "quality"]
    assert max(map(len, said.splitlines())) <= 80
    assert json.loads((whole.of("one") / "pipeline.json").read_text())["state"] == "SUCCEEDED"


def test_every_step_shows_what_it_did(whole: Place) -> None:
    """The first HTML and the first Markdown of a step are what KFP's pages show."""
    folder = whole.of("one")
    for step in ("quality", "tune", "train", "explain", "finish"):
        assert artifact(folder, step, "report").read_text().lstrip().lower().startswith("<!doctype html")
    for step in (
        "data",
        "plan",
        "quality",
        "drift",
        "tune",
        "train",
        "evaluate",
        "explain",
        "benchmark",
        "register",
        "finish",
    ):
        assert artifact(folder, step, "summary").read_text().strip()
    trained = artifact(folder, "train", "trained")
    run = Path(steps(folder)["train"]["run"])
    assert (trained / "model.safetensors").read_bytes() == (run / "model" / "model.safetensors").read_bytes()
    output = json.loads(artifact(folder, "train", "executor_output.json").read_text())
    metadata = output["artifacts"]["trained"]["artifacts"][0]["metadata"]
    assert metadata["framework"] == "transformers"
    assert "trainer.val_check_interval=0.25" in metadata["best"]  # what the Experiment fixes
    assert metadata["data"] == steps(folder)["data"]["fingerprint"]
    metrics = output["artifacts"]["metrics"]["artifacts"][0]["metadata"]
    assert metrics["val_f1"] == json.loads((run / "run.json").read_text())["metrics"]["val_f1"]


def links(page: Path) -> list[Path]:
    """Files that a page links to."""
    return [page.parent / unquote(address) for address in re.findall(r'href="([^"]*)"', page.read_text())]


def test_a_pipeline_run_has_a_report(whole: Place) -> None:
    page = whole.of("one") / "report.html"
    text = page.read_text()
    assert "Registered as question_answering-squad_sample version 1 (candidate); it was not promoted: failed: " in text
    assert "The verdict is failed: there is no champion yet; val_f1 " in text
    assert len(re.findall('<g class="node (?:good|fair)">', text)) == 14
    found = steps(whole.of("one"))
    reports = {Path(step["report"]) for step in found.values() if "report" in step}
    assert {path.resolve() for path in links(page)} == {path.resolve() for path in reports}
    assert {found[name]["report"] for name in ("quality", "tune", "train", "explain")} <= set(map(str, reports))
    assert artifact(whole.of("one"), "finish", "report").read_text() == text


@pytest.mark.slow
def test_the_same_again_trains_nothing_and_compares_with_the_champion(whole: Place) -> None:
    """A folder is named by what determines its result: the run prints it again. The same model is no worse than itself."""
    tune = ["-p", "tune=katib/questions-random.yaml", "-p", "trials=1"]
    before = steps(whole.of("one"))["train"]
    done = whole("again", *QUESTIONS, *tune, "-p", "explain=off", "-p", "minimum=10")
    assert done.returncode == 0, done.stderr
    found = steps(whole.of("again"))
    assert found["train"]["run"] == before["run"]
    assert found["evaluate"]["verdict"] == "passed: it is the same model, file by file"
    assert found["drift"]["verdict"] == "passed"
    assert found["register"]["verdict"] == "question_answering-squad_sample version 1 (champion)"


@pytest.mark.slow
def test_too_few_examples_promote_nobody(whole: Place) -> None:
    done = whole("few", *QUESTIONS, "seed=7", "-p", "explain=off", "-p", "drift=off", "-p", "minimum=33")
    assert done.returncode == 0, done.stderr
    found = steps(whole.of("few"))
    assert found["evaluate"]["verdict"].startswith("inconclusive: ")
    assert "version 2 (candidate); it was not promoted: inconclusive" in found["register"]["verdict"]


@pytest.mark.slow
def test_a_schedule_trains_only_on_new_data(whole: Place) -> None:
    done = whole("same", *QUESTIONS, "-p", "when=changed", *QUICK)
    assert done.returncode == 0, done.stderr
    found = steps(whole.of("same"))
    assert set(found) == {"data", "plan", "finish"}
    assert found["plan"]["verdict"] == "no: version 1, the champion, was trained on this data"
    done = whole("new", *QUESTIONS, "data.sample.seed=5", "-p", "when=changed", "-p", "tune=katib/none.yaml")
    assert (done.returncode, "there is no such file" in done.stderr) == (2, True)
    done = whole("new", *QUESTIONS, "data.sample.seed=5", "-p", "when=changed", "-p", "drift=enforce", *QUICK)
    found = steps(whole.of("new"))
    assert found["plan"]["verdict"].startswith("yes: version 1, the champion, was trained on other data")
    assert (done.returncode, found["drift"]["verdict"]) == (0, "passed")


@pytest.mark.slow
def test_an_explanation_gate_that_fails_keeps_its_evidence(whole: Place) -> None:
    tune = ["-p", "tune=katib/questions-random.yaml", "-p", "trials=1"]
    done = whole("judged", *QUESTIONS, *tune, "-p", "baseline=", "-p", "drift=off")
    assert done.returncode == 6
    assert "the explanation gate stops the pipeline" in done.stderr
    found = steps(whole.of("judged"))
    assert (found["explain"]["state"], found["explanation gate"]["code"]) == ("done", 5)
    assert "register" not in found
    for page in (
        Path(found["explain"]["report"]),
        artifact(whole.of("judged"), "explain", "report"),
        artifact(whole.of("judged"), "finish", "report"),
    ):
        assert "<h1>Explanations" in page.read_text()
    assert json.loads((whole.of("judged") / "pipeline.json").read_text())["state"] == "FAILED"


@pytest.mark.slow
def test_the_champion_is_judged_by_its_own_decoding(place: Place) -> None:
    """Another run's `max_answer_tokens` would change what the champion answers."""
    quick = ["-p", "explain=off", "-p", "drift=off", "-p", "minimum=10"]
    done = place("one", *QUESTIONS, "model.max_answer_tokens=1", "model.n_best=3", *quick, "-p", "floor=0")
    assert done.returncode == 0, done.stderr
    champion = Path(steps(place.of("one"))["train"]["run"])
    done = place("two", *QUESTIONS, "seed=7", *quick)
    assert done.returncode == 0, done.stderr
    assert steps(place.of("two"))["evaluate"]["verdict"].startswith(("passed: val_f1", "failed: val_f1"))
    got = place.of("two") / "champion"  # from the registry, with all that says how it answers
    files = {path.name for path in (champion / "model").iterdir()}
    assert files <= {path.name for path in (got / "model").iterdir()}
    assert (got / "run.json").read_bytes() == (champion / "run.json").read_bytes()
    scored = place.of("two") / "baseline"
    found = json.loads((scored / "run.json").read_text())
    decoding = {"max_answer_tokens": 1, "n_best": 3}
    assert {name: found["config"]["model"][name] for name in decoding} == decoding
    said = json.loads((champion / "run.json").read_text())["metrics"]
    assert {name: value for name, value in said.items() if name in found["metrics"]} == found["metrics"]
    answers = [
        {
            row["id"]: row["prediction"]
            for row in map(json.loads, (folder / "predictions.jsonl").read_text().splitlines())
        }
        for folder in (champion, scored)
    ]
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_images_too(place: Place) -> None:
    done = place("one", *IMAGES, "-p", "explain=warn", "-p", "floor=0")
    assert done.returncode == 0, done.stderr
    found = steps(place.of("one"))
    assert found["evaluate"]["verdict"].startswith("passed: there is no champion yet; val_accuracy ")
    judged = found["explain"]["verdict"]
    alias = "champion" if judged == "passed" else "candidate"
    assert found["register"]["verdict"].startswith(f"image_classification-shapes version 1 ({alias})"), judged
    output = json.loads(artifact(place.of("one"), "train", "executor_output.json").read_text())
    matrix = output["artifacts"]["confusion"]["artifacts"][0]["metadata"]["confusionMatrix"]
    assert sum(sum(row["row"]) for row in matrix["rows"]) == 32
    assert len(matrix["annotationSpecs"]) == len(matrix["rows"]) > 2


def test_bad_data_stops_before_training(place: Place, tmp_path: Path) -> None:
    squad_sample.write(tmp_path / "bad", seed=0, train=64, val=32)
    path = tmp_path / "bad" / "train-v1.1.json"
    content = json.loads(path.read_text())
    for paragraph in content["data"][0]["paragraphs"]:
        for qa in paragraph["qas"]:
            qa["answers"][0]["answer_start"] += 1
    path.write_text(json.dumps(content))
    asked = ["model=bert_tiny", "data=squad", "data.path=bad", "data.vocab_size=500", "trainer.max_steps=2", *SIZE[2:]]
    done = place("bad", *asked, *QUICK)
    assert done.returncode == 6
    assert "the quality gate stops the pipeline: failed: 1 of" in done.stderr
    found = steps(place.of("bad"))
    assert (found["quality"]["state"], found["quality gate"]["code"]) == ("done", 4)
    assert not {"train", "register"} & set(found)
    for page in (Path(found["quality"]["report"]), artifact(place.of("bad"), "quality", "report")):
        assert "Data contract squad" in page.read_text()
    assert "quality gate" in artifact(place.of("bad"), "finish", "summary").read_text()
    page = place.of("bad") / "report.html"
    assert f"report: {page}" in done.stderr
    assert "Not registered: the quality gate stops the pipeline: failed: 1 of" in page.read_text()
    assert [page.read_text().count(f'<g class="node {tone}">') for tone in ("good", "fair", "bad", "plain")] == [
        2,
        1,
        1,
        10,
    ]
    assert {path.resolve() for path in links(page)} == {Path(found["quality"]["report"]).resolve()}
    assert done.stdout.count("failed") == 3, done.stdout  # the verdict, the state of its gate, and the gate's message


@pytest.mark.slow
def test_a_diverged_training_is_not_tried_again(place: Place) -> None:
    asked = ["optim=sgd", "optim.lr=100", "trainer.gradient_clip_val=null", "optim.schedule=constant", "optim.warmup=0"]
    done = place(
        "nan", *[each for each in QUESTIONS if "max_steps" not in each], *asked, "trainer.max_epochs=60", *QUICK
    )
    assert done.returncode == 6
    found = steps(place.of("nan"))
    assert (found["train"]["state"], found["train"]["code"]) == ("failed", 3)
    assert len(found["train"]["commands"]) == 1
    log = (place.of("nan") / "log.txt").read_text()
    assert log.count("not retried, because it diverged") == 2
    assert log.count("$ python train.py") == 1
    record = json.loads((Path(found["train"]["run"]) / "run.json").read_text())
    assert record["exit_code"] == 3
    assert found["train"]["message"] in artifact(place.of("nan"), "finish", "summary").read_text()


def test_a_missing_input_is_told_before_anything_else(place: Place) -> None:
    done = place("none", "model=bert_tiny", "data=squad", "data.path=nowhere", *QUICK)
    assert done.returncode == 6
    found = steps(place.of("none"))
    assert set(found) == {"data", "finish"}
    assert found["data"]["code"] == 2
    assert "nowhere" in done.stderr


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["model=bret"], "did you mean bert"),
        (["optim.lrr=1"], "unknown key optim.lrr"),
        (["model=resnet18"], "one task"),
        (["quality=off"], "use the parameter -p quality=off"),
        (["hydra.run.dir=x"], "the train step sets its own folder"),
        (["-p", "qualty=off"], "-p qualty=off: must be NAME=VALUE"),
        (["-p", "trials=many"], "a whole number"),
        (["-p", "margin=true"], "a number"),
        (["-p", "explain=maybe"], "enforce, warn, off"),
        (["-p", "tune=katib/none.yaml"], "there is no such file"),
        (["data.path=/opt/python3/x", "data=squad"], "changes python3"),
        (["data.path='{{$.x}}'", "data=squad"], "which KFP would try to replace"),
        (["--file", "none.yaml"], "cannot read none.yaml"),
        (["--file", str(ROOT / "docker-compose.yml")], "not the pipeline of isotrain"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_at_once(asked: list[str], said: str, place: Place) -> None:
    done = place("x", *asked)
    assert (done.returncode, done.stderr.count("Traceback")) == (2, 0), done.stderr
    assert said in done.stderr
    assert not place.of("x").exists()


def test_a_task_that_the_pipeline_cannot_use_is_refused_at_once(place: Place) -> None:
    """Before the training, not after it."""
    own = place.folder / "own"
    (own / "conf" / "task").mkdir(parents=True)
    (own / "bare.py").write_text("")
    text = (ROOT / "conf" / "task" / "question_answering.yaml").read_text()
    text = text.replace("tasks.question_answering", "bare").replace("name: question_answering", "name: bare")
    (own / "conf" / "task" / "bare.yaml").write_text(text)
    for group, choice in (("data", "squad_sample"), ("model", "bert_tiny")):
        (own / "conf" / group).mkdir()
        text = (ROOT / "conf" / group / f"{choice}.yaml").read_text()
        text = text.replace("task: question_answering", "task: bare")
        (own / "conf" / group / f"own_{choice}.yaml").write_text(text)
    environment = {"ISOTRAIN_CONF": str(own / "conf"), "PYTHONPATH": f"{ROOT / 'src'}:{own}"}
    done = place("x", "model=own_bert_tiny", "data=own_squad_sample", **environment)
    assert (done.returncode, done.stderr.count("Traceback")) == (2, 0), done.stderr
    assert "the pipeline needs LIBRARY of the task bare" in done.stderr
    assert not place.of("x").exists()


@pytest.mark.slow
def test_a_full_disk_keeps_what_was_written(place: Place, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "sitecustomize.py").write_text(
        "import errno, io, sys\n"
        "if any(word.endswith('train.py') for word in sys.orig_argv):\n"
        "    real = io.open\n"
        "    def full(file, mode='r', *more, **names):\n"
        "        if set(mode) & set('wx') and 'last' in str(file):\n"
        "            raise OSError(errno.ENOSPC, 'No space left on device', str(file))\n"
        "        return real(file, mode, *more, **names)\n"
        "    io.open = full\n"
    )
    done = place("full", *QUESTIONS, *QUICK, PYTHONPATH=f"{tmp_path / 'full'}:{ROOT / 'src'}")
    assert done.returncode == 6
    found = steps(place.of("full"))
    assert (found["train"]["state"], found["train"]["code"]) == ("failed", 8)
    assert "no space left" in found["train"]["message"]
    assert Path(found["quality"]["report"]).exists()
    done = place("room", *QUESTIONS, *QUICK)
    assert done.returncode == 0, done.stderr
    assert steps(place.of("room"))["train"]["run"] == found["train"]["run"]


@contextlib.contextmanager
def begun(place: Place, name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        place.command(name, *arguments), cwd=place.folder, env=place.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.Error):
            for each in psutil.Process(process.pid).children(recursive=True):
                each.kill()
        process.kill()
        process.wait()


def until(what: Any, seconds: float = 240) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def descendants(process: subprocess.Popen[str], *words: str) -> list[psutil.Process]:
    found = []
    for each in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            line = each.cmdline()
            if all(word in line for word in words) and "executor_main" not in " ".join(line):
                found.append(each)
    return found


@pytest.mark.slow
def test_a_tune_step_that_is_killed_goes_on(place: Place) -> None:
    """The second attempt takes the search up: no trial that had ended runs again.

    One trial at a time: the rows of trials.jsonl stand in the order in which trials began, so that of two at once either may
    end first, and the search may end before it is killed.
    """
    experiment = (ROOT / "katib" / "questions-random.yaml").read_text()
    assert experiment.count("parallelTrialCount: 3") == 1
    (place.folder / "search.yaml").write_text(experiment.replace("parallelTrialCount: 3", "parallelTrialCount: 1"))
    tune = ["-p", "tune=search.yaml", "-p", "trials=2"]
    with begun(place, "one", *QUESTIONS, *tune, *QUICK) as process:
        searches = place.folder / "outputs" / "pipelines" / "searches"

        def succeeded() -> list[dict[str, Any]]:
            rows = [
                json.loads(line) for path in searches.glob("*/trials.jsonl") for line in path.read_text().splitlines()
            ]
            return [row for row in rows if row["status"] == "Succeeded"]

        (ended,) = until(succeeded)
        for search in descendants(process, "katib", "run"):
            # The search before its trials: it would take a trial that is killed for one that failed.
            for victim in [search, *search.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    victim.kill()
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    log = (place.of("one") / "log.txt").read_text()
    assert log.count("$ python -m katib run") == 2
    rows = [json.loads(line) for line in next(searches.glob("*/trials.jsonl")).read_text().splitlines()]
    assert [row["ended"] for row in rows if row["name"] == ended["name"]] == [ended["ended"]]
    assert sum(each["status"] == "Succeeded" for each in rows) == 2
    assert out.count("done") == 15


@pytest.mark.slow
def test_a_cancelled_pipeline_leaves_a_checkpoint_and_goes_on(place: Place) -> None:
    long = [
        *[each for each in QUESTIONS if "max_steps" not in each],
        "trainer.max_steps=4000",
        "trainer.max_epochs=500",
    ]
    with begun(place, "one", *long, *QUICK) as process:
        runs = place.folder / "outputs" / "pipelines" / "runs"
        until(lambda: list(runs.glob("*/checkpoints/last.ckpt")))
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 143, err
    assert "the same command resumes" in err
    assert json.loads((place.of("one") / "pipeline.json").read_text())["state"] == "CANCELED"
    run = next(runs.iterdir())
    record = json.loads((run / "run.json").read_text())
    assert record["exit_code"] == 143
    with begun(place, "two", *long, *QUICK) as process:
        log = place.of("two") / "log.txt"
        until(lambda: log.exists() and "resuming from" in log.read_text())


def test_three_places_give_the_same_results(whole: Place, run: Run, tmp_path: Path) -> None:
    """The same configuration as a command, as a trial of a search, and as the step of a pipeline: bit for bit."""
    found = steps(whole.of("one"))
    words = found["train"]["commands"][0]["command"].split()
    best = [
        each for each in words[2:] if not each.startswith(("hydra", "explain=", "quality=")) and each not in QUESTIONS
    ]
    alone = run("train.py", *QUESTIONS, *best, "explain=off", "hydra.run.dir=alone")
    assert alone.returncode == 0, alone.stderr
    search = json.loads(
        subprocess.run(
            [sys.executable, "-m", "katib", "best", found["tune"]["search"], "--json"],
            env=whole.environment, capture_output=True, text=True, check=True,
        ).stdout
    )  # fmt: skip
    trial = Path(found["tune"]["search"]) / "runs" / search["trial"]
    step = Path(found["train"]["run"])
    records = [json.loads((each / "run.json").read_text()) for each in (tmp_path / "alone", trial, step)]
    assert records[0]["metrics"].keys() == records[1]["metrics"].keys()
    told = [{k: v for k, v in each["metrics"].items() if k.startswith("val_")} for each in records]
    assert told[0] == told[1] == told[2]
    assert len(told[0]) >= 3
    for name in ("predictions.jsonl", "model/model.safetensors"):
        contents = {(each / name).read_bytes() for each in (tmp_path / "alone", trial, step)}
        assert len(contents) == 1, name


def test_status_shows_a_run_that_is_here(whole: Place, run: Run, tmp_path: Path) -> None:
    shutil.copytree(whole.of("one"), tmp_path / "outputs" / "pipelines" / "one")
    for name in ("one", "outputs/pipelines/one"):
        done = run("-m", "pipelines", "status", name)
        assert (done.returncode, done.stdout) == (0, (whole.folder / "said").read_text())
    done = run("-m", "pipelines", "status", "one", "--terminate")
    assert (done.returncode, "end it with Ctrl-C" in done.stderr) == (2, True)
    done = run("-m", "pipelines", "status")
    assert done.stdout.split() == ["SUCCEEDED", "outputs/pipelines/one"]


@pytest.mark.slow
def test_real_questions(place: Place, shared_data: Path) -> None:
    asked = [f"data.path={shared_data / 'squad'}", "data.max_train=300", "data.max_val=100", "trainer.max_steps=10"]
    done = place("real", "model=bert_tiny", "data=squad", *asked, "trainer.threads=2", *QUICK)
    assert done.returncode == 0, done.stderr
    found = steps(place.of("real"))
    assert found["register"]["verdict"].startswith("question_answering-squad version 1")
    assert found["benchmark"]["verdict"].startswith("none: results are known of squad, but not with data.path")


@pytest.mark.slow
def test_real_images(place: Place, tiny_imagenet: Path) -> None:
    asked = [
        f"data.path={tiny_imagenet}",
        "data.max_train=400",
        "data.max_val=200",
        "trainer.max_steps=10",
        "model.pretrained=null",
    ]
    done = place("real", "model=resnet18", "data=tiny_imagenet", *asked, "trainer.threads=2", *QUICK)
    assert done.returncode == 0, done.stderr
    found = steps(place.of("real"))
    assert found["register"]["verdict"].startswith("image_classification-tiny_imagenet version 1")
    assert found["benchmark"]["verdict"].startswith("none: ")
