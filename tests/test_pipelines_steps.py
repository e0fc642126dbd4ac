"""Steps on a cluster: what they do with Katib, with what is known of models, and with KFP's artifacts."""

import contextlib
import errno
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from kfp import dsl
from tests.katib_api_double import Api

from config import source_code
from config.errors import ExecutionError, InputError
from config.files import read_json, write_json
from config.known_results import KNOWN_RESULTS
from pipelines import artifacts, compilation, graph, interruption, known_results, record, report, steps, unfinished
from pipelines.verdict import Verdict

ROOT = Path(__file__).resolve().parents[1]
FILE = str(ROOT / "katib" / "questions-json.yaml")
GIVEN = ["model=bert", "data=squad", "trainer.max_steps=2"]
MARK = "train:0 val:1"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    found = Api()
    monkeypatch.setenv("KUBECONFIG", str(found.kubeconfig(tmp_path / "config")))
    monkeypatch.setenv("KFP_RUN_ID", "one")
    yield found
    found.close()


def made(kind: type, path: Path) -> Any:
    return kind(name=path.name, uri=str(path))


def ends(api: Api, state: str = "Succeeded") -> threading.Thread:
    """Lets the first Experiment that is created come to an end."""

    def work() -> None:
        while not (names := [key[2] for key in api.objects if key[0] == "experiments"]):
            time.sleep(0.05)
        name = names[0]
        point = {"optim.lr": "3e-05", "data.batch_size": "16", "optim.weight_decay": "0.01", "optim.warmup": "0.1"}
        api.trial(name, f"{name}-aaaa", "Succeeded", "81.5", **point)
        api.trial(name, f"{name}-bbbb", "Succeeded", "84.25", **{**point, "optim.lr": "5e-05"})
        if state:
            api.end(name, state, "it has ended", f"{name}-bbbb")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def tuned(folder: Path, trials: int = 2) -> list[str]:
    report, summary = made(dsl.HTML, folder / "report"), made(dsl.Markdown, folder / "summary")
    return steps.tune(FILE, "katib", trials, GIVEN, MARK, "me/i@sha256:0", str(folder), report, summary)


def test_tune_asks_katib_and_a_retry_attaches(api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ends(api)
    best = tuned(tmp_path)
    assert "optim.lr=5e-05" in best
    assert not [each for each in best if each.startswith(("model=", "data=", "hydra", "trainer.max_steps"))]
    assert "attached to it" not in capsys.readouterr().out
    ((kind, namespace, name),) = [key for key in api.objects if key[0] == "experiments"]
    spec = api.objects[kind, namespace, name]["spec"]
    assert name.startswith("tune-one-")
    assert spec["maxTrialCount"] == 2
    container = spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "me/i@sha256:0"
    assert "model=bert data=squad trainer.max_steps=2" in container["command"][2]
    assert tuned(tmp_path) == best
    assert "attached to it" in capsys.readouterr().out
    assert len([key for key in api.objects if key[0] == "experiments"]) == 1
    found = read_json(tmp_path / "pipelines" / "one" / "steps" / "tune.json")
    assert found["verdict"].startswith("val_f1 84.25: ")
    assert "optim.lr" in Path(tmp_path / "summary").read_text()
    assert "<html" in Path(tmp_path / "report").read_text()
    steps.finish(
        "SUCCEEDED", "", "katib", str(tmp_path), made(dsl.HTML, tmp_path / "h"), made(dsl.Markdown, tmp_path / "m")
    )
    assert (kind, namespace, name) in api.objects


def test_what_a_cancelled_pipeline_leaves_is_exported_and_removed(api: Api, tmp_path: Path) -> None:
    """A run that is cancelled ends the step and not the Experiment."""
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path; from tests import test_pipelines_steps as t; "
        "t.tuned(Path(sys.argv[1]))"
    )
    ends(api, "")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(ROOT / "src"), str(ROOT)], cwd=ROOT)
    path = tmp_path / "pipelines" / "one" / "steps" / "tune.json"
    while len([key for key in api.objects if key[0] == "trials"]) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    for each in [*psutil.Process(process.pid).children(recursive=True), process]:
        each.kill()
    process.wait()
    name = read_json(path)["experiment"]
    assert ("experiments", "team", name) in api.objects
    steps.finish(
        "FAILED",
        "cancelled",
        "katib",
        str(tmp_path),
        made(dsl.HTML, tmp_path / "h"),
        made(dsl.Markdown, tmp_path / "m"),
    )
    assert ("experiments", "team", name) not in api.objects
    rows = [json.loads(line) for line in (tmp_path / "pipelines" / "one" / "trials.jsonl").read_text().splitlines()]
    assert [each["value"] for each in rows] == [81.5, 84.25]
    assert json.loads((tmp_path / "pipelines" / "one" / "pipeline.json").read_text())["state"] == "FAILED"
    assert "| tune | interrupted |" in (tmp_path / "m").read_text()
    assert read_json(path)["state"] == "interrupted"


def test_a_terminated_search_ends_with_its_step(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """KFP kills the exit handler of a terminated run: the step itself deletes the Experiment and publishes the pages."""
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path; from tests import test_pipelines_steps as t; "
        "t.tuned(Path(sys.argv[1]))"
    )
    ends(api, "")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")  # as in a pod; the requests go to the kubeconfig's server
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(ROOT / "src"), str(ROOT)], cwd=ROOT)
    while len([key for key in api.objects if key[0] == "trials"]) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    name = read_json(tmp_path / "pipelines" / "one" / "steps" / "tune.json")["experiment"]
    process.terminate()
    assert process.wait(60) == 143
    assert ("experiments", "team", name) not in api.objects
    folder = tmp_path / "pipelines" / "one"
    found = read_json(folder / "steps" / "tune.json")
    assert (found["state"], found["code"], found["search_end"]) == (
        "interrupted",
        143,
        f"the Experiment {name} was deleted",
    )
    assert read_json(folder / "pipeline.json")["state"] == "CANCELED"
    assert "Interrupted in the step tune" in (folder / "report.html").read_text()
    assert f"isotrain: tune: the Experiment {name} was deleted" in capfd.readouterr().err


@pytest.mark.parametrize("place", ["python", "command"])
def test_a_terminated_step_is_recorded_at_once(place: str, tmp_path: Path) -> None:
    """Before its command has ended: the pod may be killed first."""
    body = (
        "time.sleep(60)"
        if place == "python"
        else "run_command(step, '-c', 'import signal, time; signal.signal(15, 1); time.sleep(60)')"
    )
    code = (
        f"import sys, time; sys.path[:0] = sys.argv[2:]\nfrom pipelines.record import record_step\n"
        f"from pipelines.commands import run_command\nwith record_step(sys.argv[1], 'train') as step:\n"
        f"    print('begun', flush=True)\n    {body}\n"
    )
    environment = {**os.environ, "KFP_RUN_ID": "one"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(ROOT / "src")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout or ():
        if line == "begun\n":
            break
    time.sleep(1)
    process.terminate()
    folder = tmp_path / "pipelines" / "one"
    end = time.monotonic() + 20
    while not (folder / "report.html").exists() and time.monotonic() < end:
        time.sleep(0.05)
    found = read_json(folder / "steps" / "train.json")
    assert (found["state"], found["code"]) == ("interrupted", 143)
    assert "Interrupted in the step train" in (folder / "report.html").read_text()
    for each in [*psutil.Process(process.pid).children(recursive=True), process] if process.poll() is None else []:
        each.kill()
    process.wait()
    assert read_json(folder / "steps" / "train.json")["state"] == "interrupted"


@pytest.mark.parametrize(
    ("states", "age", "is_locked", "state"),
    [
        (["done", "running"], 0, False, "CANCELED"),
        (["done", "running"], 0, True, None),
        (["done", "interrupted"], 0, False, "CANCELED"),
        (["done", "done"], 0, False, None),  # between two steps
        (["done", "done"], 7200, False, "CANCELED"),
        (["done", "failed"], 7200, False, "FAILED"),
    ],
)
def test_the_next_run_completes_records_of_terminated_ones(
    states: list[str], age: int, is_locked: bool, state: str | None, tmp_path: Path
) -> None:
    paths = [tmp_path / "pipelines" / "old" / "steps" / f"{name}.json" for name in ("data", "train")]
    for path, each in zip(paths, states, strict=True):
        write_json(path, {"step": path.stem, "state": each, "began": 0.0})
        os.utime(path, (time.time() - age,) * 2)
    (tmp_path / "pipelines" / "runs" / "bert-1").mkdir(parents=True)
    lock = interruption.hold_lock(paths[1]) if is_locked else contextlib.nullcontext()
    with lock:
        ended = unfinished.publish_unfinished(str(tmp_path), tmp_path / "pipelines" / "new")
    assert ended == (["old"] if state else [])
    found = read_json(tmp_path / "pipelines" / "old" / "pipeline.json")
    assert found.get("state") == state
    wanted = [{"running": "interrupted"}.get(each, each) if state else each for each in states]
    assert [read_json(path)["state"] for path in paths] == wanted
    if state or is_locked:  # once only; and as soon as the process is gone
        again = unfinished.publish_unfinished(str(tmp_path), tmp_path / "pipelines" / "new")
        assert again == (["old"] if is_locked else [])


@pytest.mark.parametrize(
    ("told", "states", "state"),
    [("COMPLETE", ["done"], "SUCCEEDED"), ("RUNNING", ["done", "running"], "FAILED"), ("RUNNING", ["done"], "SUCCEEDED"),
     ("FAILED", ["done"], "FAILED"), ("CANCELED", ["running"], "CANCELED")],
)  # fmt: skip
def test_the_record_says_how_it_ended_whatever_kfp_calls_it(
    told: str, states: list[str], state: str, tmp_path: Path
) -> None:
    (tmp_path / "steps").mkdir()
    for name, each in zip(("data", "train"), states, strict=False):
        write_json(tmp_path / "steps" / f"{name}.json", {"step": name, "state": each})
    assert record.publish_run(tmp_path, told, "")["state"] == state


def test_a_run_that_kfp_retries_is_published_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KFP keeps the exit handler, which succeeded, so that nothing would correct its record (seen on 2.17)."""
    monkeypatch.setenv("KFP_RUN_ID", "mine")
    monkeypatch.setenv("ARGO_NODE_ID", "w-1")
    folder = tmp_path / "pipelines" / "mine"

    def state() -> tuple[str, str]:
        value = read_json(folder / "pipeline.json")
        return value["state"], value["error"]

    def attempt(name: str, code: int = 0) -> None:
        with record.record_step(str(tmp_path), name):
            if code:
                raise SystemExit(code)

    attempt("data")
    with pytest.raises(SystemExit):
        attempt("train", 137)
    assert not (folder / "pipeline.json").exists()
    attempt("finish")
    record.publish_run(folder, "RUNNING", "")
    assert state() == ("FAILED", "")
    monkeypatch.setenv("ARGO_NODE_ID", "w-2")
    attempt("train")
    assert state() == ("FAILED", "retried; ended last: train")
    with pytest.raises(SystemExit):
        attempt("evaluate", 137)
    assert state() == ("FAILED", "retried; ended last: evaluate")
    assert "the step evaluate failed with exit code 137" in (folder / "report.html").read_text()
    attempt("evaluate")
    attempt("register")
    assert state() == ("SUCCEEDED", "")
    assert "failed with" not in (folder / "report.html").read_text()


class Stub:
    """`pipelines.steps.run_command` that answers from a table and keeps what it was asked."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[list[str]] = []

    def __call__(self, step: dict[str, Any], *command: str | Path, valid_codes: Any = (0,)) -> str:
        words = [str(each) for each in command]
        self.asked.append(words)
        found = self.answers[words[2]]
        step["exit"], step["said"] = (found, "refused it") if isinstance(found, int) else (0, "")
        return json.dumps(found)


def compared(value: float, low: float, worse: bool) -> dict[str, Any]:
    one = {"a": 80.0, "b": 80.0 + value, "value": value, "low": low, "high": value + 1}
    return {"examples": 500, "notes": [], "results": [{"difference": one, "non_inferior": not worse}]}


@pytest.mark.parametrize(
    ("answer", "baseline", "promotes", "verdict"),
    [
        (compared(0.2, -0.3, False), "champion", True, "passed: val_f1 80.20 against 80.00: +0.20"),
        (compared(-2.0, -3.0, True), "champion", False, "failed: val_f1 78.00 against 80.00: -2.00"),
        (compared(9.0, 8.0, False), "other", False, "passed: "),
        (2, "champion", False, "inconclusive: the baseline cannot be evaluated on these examples: refused it"),
    ],
)
def test_only_what_is_no_worse_than_the_champion_is_promoted(
    answer: Any, baseline: str, promotes: bool, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that the model beats is another matter; so is a champion that cannot answer."""
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "run.json", {"config": {"monitor": "val_f1", "task": {"name": "question_answering"}}})
    aliases = ["champion"] if promotes else ["candidate"]
    stub = Stub({
        "champion": {"version": "7", "data": {}}, "evaluate": answer if answer == 2 else {}, "compare": answer,
        "register": {"name": "m", "version": "8", "aliases": aliases},
    })  # fmt: skip
    monkeypatch.setattr(steps, "run_command", stub)
    summary, metrics = made(dsl.Markdown, tmp_path / "s"), made(dsl.Metrics, tmp_path / "m")
    given = ["model=bert", "data=squad", "data.max_length=96", "data.max_val=50", "data.version_2=true", "optim.lr=1",
             "model.n_best=1", "+data.hub.revision=abc", "data.sample=null"]  # fmt: skip
    said = steps.evaluate(str(tmp_path / "run"), baseline, 0.5, 100, "m", "", given, str(tmp_path), metrics, summary)
    assert str(Verdict.from_json(said)).startswith(verdict)
    (asked,) = (each for each in stub.asked if "evaluate" in each)
    chosen = ["data=squad", "data.max_val=50", "data.version_2=true", "+data.hub.revision=abc", "data.sample=null"]
    assert asked[asked.index("evaluate") + 2 : asked.index("--output")] == chosen
    steps.register(str(tmp_path / "run"), said, True, "enforce enforce", "m", "", str(tmp_path), summary)
    assert ("--champion --instead-of 7" in " ".join(stub.asked[-1])) == promotes
    told = read_json(record.run_folder(str(tmp_path)) / "steps" / "register.json")["verdict"]
    assert ("it was not promoted" in told) != promotes


@pytest.mark.parametrize(("status", "promotes"), [("passed", True), ("failed", False), ("unevaluated", False)])
def test_without_a_champion_the_floor_decides(
    status: str, promotes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = Stub({
        "champion": None, "floor": {"status": status, "reason": "val_f1 7, at least 5"},
        "register": {"name": "m", "version": "1", "aliases": ["candidate"], "reason": "Explanations: failed" * promotes},
    })  # fmt: skip
    monkeypatch.setattr(steps, "run_command", stub)
    summary, metrics = made(dsl.Markdown, tmp_path / "s"), made(dsl.Metrics, tmp_path / "m")
    given = ["champion", 0.5, 100, "m", "", ["data=squad"], str(tmp_path), metrics, summary, "5"]
    said = steps.evaluate("run", *given)
    assert "-m runs floor run --floor=5 --json" in map(" ".join, stub.asked)
    assert str(Verdict.from_json(said)) == f"{status}: there is no champion yet; val_f1 7, at least 5"
    steps.register("run", said, True, "enforce warn", "m", "", str(tmp_path), summary)
    assert ("--champion --instead-of none" in " ".join(stub.asked[-1])) == promotes
    told = read_json(record.run_folder(str(tmp_path)) / "steps" / "register.json")["verdict"]
    assert told.endswith("not promoted: Explanations: failed" if promotes else "val_f1 7, at least 5")


def test_a_folder_that_is_gone_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cached step returns a folder that somebody may have removed: its gate must not pass."""
    with pytest.raises(SystemExit):
        steps.benchmark("enforce", str(tmp_path / "gone"), str(tmp_path), made(dsl.Markdown, tmp_path / "s"))
    assert "was removed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("no such thing"), 2, "isotrain: data: no such thing"),
        (ExecutionError("train.py ended badly", 3), 3, "isotrain: data: train.py ended badly"),
        (ExecutionError("the search failed"), 6, "isotrain: data: the search failed"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 8, "isotrain: no space left on the disk"),
        (MemoryError("16 GiB"), 8, "isotrain: out of memory"),
        (KeyError("x"), 1, "isotrain: a bug in isotrain: KeyError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_step_ends_as_a_command_does(
    error: Exception, code: int, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The exit code of the process is the record's; the message comes last."""

    def step() -> None:
        with record.record_step(str(tmp_path), "data"):
            raise error

    with pytest.raises(SystemExit) as ended:
        step()
    assert ended.value.code == code
    found = read_json(record.run_folder(str(tmp_path)) / "steps" / "data.json")
    assert (found["state"], found["code"], found["message"]) == ("failed", code, str(error) or type(error).__name__)
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1].startswith(said) if said else not lines
    assert ("Traceback (most recent call last):" in lines) == said.startswith("isotrain: a bug")


def test_what_hydra_refuses_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        steps.drift("warn", "", "", ["model=bert", "data=sqad"], str(tmp_path), *map(made, [dsl.HTML, dsl.Markdown], [tmp_path / "h", tmp_path / "s"]))  # fmt: skip
    err = capsys.readouterr().err
    assert (ended.value.code, err.count("Traceback")) == (2, 0)
    assert "data=sqad: no such choice" in err


def test_results_are_named_by_the_callers_code_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one version of a task of the caller's own made is not taken for what another would."""
    before = source_code.code_digest()
    assert source_code.code_digest() == before
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "angles_").mkdir()
    (tmp_path / "conf" / "task" / "angles.yaml").write_text("name: angles\nmodule: angles_.task\n")
    (tmp_path / "angles_" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ISOTRAIN_CONF", str(tmp_path / "conf"))
    marks = [before]
    for path in (
        "conf/task/angles.yaml",
        "conf/model.yaml",
        "angles_/task.py",
        "angles_/network.py",
        "angles_/task.py",
    ):
        with (tmp_path / path).open("a") as file:
            file.write("# more\n")
        marks.append(source_code.code_digest())
    assert len(set(marks)) == len(marks)
    (tmp_path / "else.py").write_text("")  # beside the package
    assert source_code.code_digest() == marks[-1]


def test_files_that_overrides_name_count_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "contract.yaml"
    marks = []
    for text in ("a", "b", "a"):
        path.write_text(text)
        marks.append(steps._file_digests([f"quality.contract={path}", "optim.lr=1", "x"]))
    assert marks[0] == marks[2] != marks[1]
    assert len(marks[0]) == 1


def test_credentials_are_not_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.commands import run_command

    mine: dict[str, Any] = {"commands": []}
    run_command(mine, "-c", "pass", "--server", "https://me:secret@mlflow/x")
    assert "secret" not in capsys.readouterr().out + json.dumps(mine)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow")
    assert steps._server_options("", "/runs") == []


def test_a_search_that_fails_fails_the_step(api: Api, tmp_path: Path) -> None:
    ends(api, "Failed")
    with pytest.raises(SystemExit) as ended:
        tuned(tmp_path)
    assert ended.value.code == 6


@pytest.mark.parametrize(
    ("model", "data", "value", "verdict"),
    [
        ("bert", "squad", 88.1, "passed: val_f1 88.1, floor 87.5, published 88.5"),
        ("bert", "squad", 80.0, "failed: val_f1 80.0, floor 87.5, published 88.5"),
        ("bert_tiny", "squad_sample", 1.0, "none: known_results.yaml has no result of bert_tiny on squad_sample"),
    ],
)
def test_the_benchmark_gate(model: str, data: str, value: float, verdict: str) -> None:
    found: dict[str, Any] = {"choices": {"model": model, "data": data}, "metrics": {"val_f1": value}}
    found["config"] = {"data": {"path": None}}
    assert str(known_results.check_benchmark(found)[0]) == verdict
    found["config"]["data"]["path"] = "s3://bucket/mine"
    assert known_results.check_benchmark(found)[0].status == "none"


def test_known_results_are_of_configurations_that_exist() -> None:
    for each in yaml.safe_load(KNOWN_RESULTS.read_text()):
        assert (ROOT / "conf" / "model" / f"{each['model']}.yaml").exists()
        assert (ROOT / "conf" / "data" / f"{each['data']}.yaml").exists()
        assert each["floor"] <= each["published"] <= 100
        assert each["source"]
    assert not any(
        "sample" in each["data"] or each["data"] == "shapes" for each in yaml.safe_load(KNOWN_RESULTS.read_text())
    )


def test_what_is_no_number_is_not_logged(tmp_path: Path) -> None:
    """KFP's metadata takes none, and the step would fail of it (kubeflow/pipelines#12227)."""
    found = made(dsl.Metrics, tmp_path / "metrics")
    artifacts.metrics(found, {"a": 1, "b": float("nan"), "c": float("inf"), "d": None, "e": "x", "f": True, "g": 2.5})
    assert found.metadata == {"a": 1.0, "g": 2.5}


def test_a_confusion_matrix_of_many_classes_is_of_the_worst(tmp_path: Path) -> None:
    matrix = {f"c{k:03}": {f"c{k:03}": 10, f"c{(k + 1) % 60:03}": k} for k in range(60)}
    found = made(dsl.ClassificationMetrics, tmp_path / "c")
    artifacts.confusion(found, matrix)
    shown = found.metadata["confusionMatrix"]
    names = [each["displayName"] for each in shown["annotationSpecs"]]
    assert names == [f"c{k:03}" for k in range(40, 60)]
    assert shown["rows"][0]["row"][:2] == [10.0, 40.0]


def test_the_docs_show_the_graph_that_is_compiled() -> None:
    text = (ROOT / "docs" / "pipelines.md").read_text()
    block = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)[0]
    drawn = set(
        re.findall(r"^  ([\w-]+) --> (?:\|\w+\| )?([\w-]+)$|^  ([\w-]+) -->\|\w+\| ([\w-]+)$", block, re.MULTILINE)
    )
    edges = {tuple(filter(None, each)) for each in drawn}
    spec = compilation.read_documents(str(ROOT / "pipelines" / "train.yaml"))[0]
    wanted = set()
    for component in spec["components"].values():
        tasks = component.get("dag", {}).get("tasks", {})
        names = {key: each["taskInfo"]["name"].replace(" ", "-") for key, each in tasks.items()}
        for key, each in tasks.items():
            for before in each.get("dependentTasks", []):
                wanted.add((names[before], names[key]))
    # The condition stands around all that follows it; that a step reads from an earlier one, too, is not drawn.
    wanted = {(a, "quality" if b == "worth-training" else b) for a, b in wanted}
    assert edges <= wanted
    assert {b for _, b in edges} == {b for _, b in wanted}


def test_the_report_draws_the_graph_that_is_compiled() -> None:
    spec = compilation.read_documents(str(ROOT / "pipelines" / "train.yaml"))[0]
    parents: dict[str, set[str]] = {}

    def collect(dag: dict[str, Any], outer: set[str]) -> None:
        names = {key: task["taskInfo"]["name"] for key, task in dag["tasks"].items()}
        for key, task in dag["tasks"].items():
            own = {names[parent] for parent in task.get("dependentTasks", [])} or outer
            component = spec["components"][task["componentRef"]["name"]]
            if "dag" in component:
                collect(component["dag"], own)
            else:
                parents[names[key]] = own

    def ancestors(name: str) -> set[str]:
        return parents[name].union(*(ancestors(parent) for parent in parents[name]))

    collect(spec["root"]["dag"], set())
    parents["finish"] = set()  # it waits for all
    # An edge that a longer path replaces is not drawn.
    direct = {name: own - {far for parent in own for far in ancestors(parent)} for name, own in parents.items()}
    assert {name: set(own) for name, own in graph.DEPENDENCIES.items()} == direct


@pytest.mark.parametrize(
    ("state", "step", "decision"),
    [
        ("SUCCEEDED", {"step": "register", "state": "done", "verdict": "m version 3 (champion)"}, "Registered as m version 3 (champion)."),
        ("SUCCEEDED", {"step": "plan", "state": "done", "verdict": "no: <b>"}, "Not trained: &lt;b&gt;."),
        ("FAILED", {"step": "train", "state": "failed", "code": 3, "message": "<b>"},
         "Not registered: the step train failed with exit code 3: &lt;b&gt;."),
        ("FAILED", {"step": "drift gate", "state": "failed", "message": "the drift gate stops the pipeline: failed"},
         "Not registered: the drift gate stops the pipeline: failed."),
        ("FAILED", {"step": "train", "state": "running"}, "Not registered: the step train was interrupted."),
        ("CANCELED", {"step": "train", "state": "running"}, "Interrupted in the step train; the same command resumes the run."),
    ],
)  # fmt: skip
def test_the_report_of_a_run_begins_with_the_decision(
    state: str, step: dict[str, Any], decision: str, tmp_path: Path
) -> None:
    write_json(tmp_path / "parameters.json", {"model": "<b>", "overrides": ["a=1", "b='<b>'"]})
    content = {"run": "<b>", "state": state, "kfp": state, "error": "", "steps": [{"began": 0.0, **step}]}
    text = report.write_report(tmp_path, content).read_text()
    assert decision in text
    assert "a=1 b=&#39;&lt;b&gt;&#39;" in text
    assert "<b>" not in text


def test_every_parameter_is_documented() -> None:
    text = (ROOT / "docs" / "pipelines.md").read_text()
    table = text[text.index("## Parameters") : text.index("## Failures")]
    spec = compilation.read_documents(str(ROOT / "pipelines" / "train.yaml"))[0]
    missing = [name for name in compilation.spec_parameters(spec) if f"`{name}`" not in table]
    assert missing == ["data", "model", "overrides"]


def test_the_runtime_needs_none_of_kfps_dependencies(tmp_path: Path) -> None:
    """A step inside the image: kfp alone, its client's dependencies out of reach."""
    body = "from kfp import dsl\nfrom kfp.dsl import *\n\ndef step(root: str, summary: Output[Markdown]) -> str:\n    open(summary.path, 'w').write(root)\n    return root\n"
    (tmp_path / "component.py").write_text(body)
    blocked = [
        "google.protobuf",
        "kfp_server_api",
        "kubernetes",
        "requests_toolbelt",
        "click",
        "urllib3",
        "google.cloud",
    ]
    asked = {
        "inputs": {"parameterValues": {"root": "here"}, "parameters": {"root": {"stringValue": "here"}}},
        "outputs": {
            "parameters": {"Output": {"outputFile": str(tmp_path / "out")}},
            "artifacts": {"summary": {"artifacts": [{"name": "s", "type": {"schemaTitle": "system.Markdown"}, "uri": str(tmp_path / "s"), "metadata": {}}]}},
            "outputFile": str(tmp_path / "executor_output.json"),
        },
    }  # fmt: skip
    code = (
        f"import sys, runpy\nsys.modules.update(dict.fromkeys({blocked!r}))\n"
        f"sys.argv = ['x', '--component_module_path', {str(tmp_path / 'component.py')!r}, '--executor_input', {json.dumps(asked)!r}, '--function_to_execute', 'step']\n"
        "runpy.run_module('kfp.dsl.executor_main', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "_KFP_RUNTIME": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "executor_output.json").read_text())["parameterValues"] == {"Output": "here"}
    assert (tmp_path / "s").read_text() == "here"
