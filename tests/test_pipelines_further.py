"""Further steps of the user's own in the pipeline: a command with inputs, outputs and an exit code."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.conftest import ROOT, Run
from tests.test_pipelines_run import QUESTIONS, QUICK, Place, artifact, place, steps

from config.errors import InputError
from pipelines import compilation, further_steps, report

__all__ = ["place"]  # a fixture
PUBLISH = "{command: [python, publish.py, '{train.run}', '{quality.verdict}', '{folder}'], after: [register]}"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "+steps.a={command: [x], after: [trian]}",
            "steps.a.after=['trian']: there is no step trian; steps are data, plan,",
        ),
        (
            "+steps.a={command: ['{a.folder}']}",
            "there is no input {a.folder}; inputs are {folder}, {root}, {data.fingerprint},",
        ),
        ("+steps.a={command: ['{train.model}']}", "there is no input {train.model}"),
        ("+steps.train={command: [x]}", "steps.train: the pipeline has a step train; choose another name"),
        ("+steps.quality-gate={command: [x]}", "the pipeline has a step quality gate"),
        ("+steps.A_b={command: [x]}", "must be a name of at most 40 lower-case letters"),
        (
            "+steps.a={command: python -m mine}",
            "must be a list of words, as [python, -m, mine.report, '{train.run}']; no shell",
        ),
        ("+steps.a={command: []}", "must be a list of words"),
        ("+steps.a={command: [[x]]}", "is neither text nor a number"),
        ("+steps.a={after: [train]}", "steps.a: no command"),
        ("+steps.a={command: [x], image: y}", "steps.a: unknown key image"),
        ("+steps.a={command: [python3, x.py]}", "write python in place of python3"),
        ("+steps.a={command: [x, '--token=abc']}", "a pipeline takes no secrets"),
        ("steps=a", "steps: must be a mapping of names"),
        ("+steps.a.command=[x]", None),
    ],
)
def test_each_mistake_is_one_message(setting: str, message: str | None) -> None:
    if message is None:
        assert list(compilation.load_settings([setting])["steps"]) == ["a"]
        return
    with pytest.raises(InputError) as refused:
        compilation.load_settings([setting])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_command_refuses_a_cycle(run: Run) -> None:
    settings = ["+steps.a={command: [x, '{b.folder}']}", "+steps.b={command: [x], after: [a]}"]
    done = run("-m", "pipelines", "compile", *settings)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "steps: these wait for one another: a, b" in done.stderr


def test_a_step_follows_those_that_it_waits_for(run: Run, tmp_path: Path) -> None:
    settings = ["+steps.a={command: [x, '{b.folder}', '{data.fingerprint}']}", f"+steps.b={PUBLISH}"]
    done = run("-m", "pipelines", "compile", *settings, "-o", "mine.yaml")
    assert done.returncode == 0, done.stderr
    assert run("-m", "pipelines", "check", "mine.yaml").returncode == 0
    spec, platform = compilation.read_documents(str(tmp_path / "mine.yaml"))
    tasks = {
        task["taskInfo"]["name"]: (key, task)
        for component in spec["components"].values()
        for key, task in component.get("dag", {}).get("tasks", {}).items()
    }
    keys = {name: key for name, (key, _) in tasks.items()}
    assert set(tasks["b"][1]["dependentTasks"]) == {keys[name] for name in ("train", "quality", "register")}
    assert set(tasks["a"][1]["dependentTasks"]) == {keys["b"]}
    assert "retryPolicy" in tasks["a"][1]
    assert not tasks["a"][1].get("cachingOptions", {}).get("enableCache")
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert [mount["mountPath"] for mount in executors["exec-command"]["pvcMount"]] == ["/runs", "/cache"]
    assert run("-m", "pipelines", "compile", "--again", "mine.yaml").returncode == 0
    assert compilation.read_documents(str(tmp_path / "mine.yaml"))[0] == spec


class Artifact(SimpleNamespace):
    """An output of a step, as KFP passes it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path=str(path), metadata={}, logged={})

    def log_metric(self, name: str, value: float) -> None:
        self.logged[name] = value


def call(root: Path, words: list[str]) -> dict[str, Artifact]:
    """Run a further step as KFP does."""
    outputs = {name: Artifact(root / "kfp" / name) for name in ("outputs", "report", "summary", "metrics")}
    further_steps.run_step("mine", words, ["train"], {"train.run": "/runs/a b"}, str(root), **outputs)
    return outputs


def record(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "pipelines" / "one" / "steps" / "mine.json").read_text())
    return found


@pytest.fixture(autouse=True)
def run_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "one")
    monkeypatch.setenv("ISOTRAIN_RETRY_SECONDS", "0.01")
    monkeypatch.setenv("ISOTRAIN_STEP_RETRIES", "2")
    for name in ("ISOTRAIN_CACHE", "ISOTRAIN_WAIT"):  # the step sets them
        monkeypatch.setenv(name, "")


def test_inputs_are_words_and_outputs_are_published(tmp_path: Path) -> None:
    script = (
        "import json, pathlib, sys; folder = pathlib.Path(sys.argv[2]); (folder / 'run.txt').write_text(sys.argv[1]); "
        "(folder / 'metrics.json').write_text(json.dumps({'cost': 1.5})); (folder / 'report.html').write_text('<p>x')"
    )
    outputs = call(tmp_path, ["python", "-c", script, "{train.run}", "{folder}"])
    folder = tmp_path / "pipelines" / "one" / "outputs" / "mine"
    assert (folder / "run.txt").read_text() == "/runs/a b"
    assert (tmp_path / "kfp" / "outputs" / "run.txt").read_text() == "/runs/a b"
    assert outputs["outputs"].metadata["folder"] == str(folder)
    assert outputs["metrics"].logged == {"cost": 1.5}
    assert (tmp_path / "kfp" / "report").read_text() == "<p>x"
    assert "run.txt" in (tmp_path / "kfp" / "summary").read_text()
    assert (record(tmp_path)["state"], record(tmp_path)["verdict"]) == ("done", "3 files")


def test_its_exit_code_is_that_of_the_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call(tmp_path, ["python", "-c", "import sys; print('the cause', file=sys.stderr); sys.exit(5)"])
    assert ended.value.code == 5
    assert record(tmp_path)["state"] == "failed"
    assert "ended with exit code 5: the cause" in record(tmp_path)["message"]
    assert "isotrain: mine: " in capsys.readouterr().err


def test_a_failure_that_may_pass_is_repeated_in_the_same_folder(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys; path = pathlib.Path(sys.argv[1], 'tried'); done = path.exists(); path.touch(); "
        "sys.exit(0 if done else 7)"
    )
    call(tmp_path, ["python", "-c", script, "{folder}"])
    assert record(tmp_path)["state"] == "done"
    assert [attempt["code"] for attempt in record(tmp_path)["attempts"]] == [7]


def test_a_program_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        call(tmp_path, ["no-such-program"])
    assert (ended.value.code, record(tmp_path)["message"]) == (
        2, "no-such-program: there is no such program in this environment, or image",
    )  # fmt: skip


def test_the_page_has_the_step(tmp_path: Path) -> None:
    call(tmp_path, [sys.executable, "-c", ""])
    folder = tmp_path / "pipelines" / "one"
    shipped = {"began": 1.0, "seconds": 1.0, "commands": []}
    done = [{"step": name, "state": "done", **shipped} for name in ("data", "plan", "train")]
    done.append({"step": "register", "state": "done", "verdict": "m version 3 (champion)", **shipped})
    failed = {**record(tmp_path), "state": "failed", "code": 5, "message": "the cause"}
    for mine, text in (
        (record(tmp_path), "Registered as m version 3"),
        (failed, "the step mine failed with exit code 5"),
    ):
        state = "SUCCEEDED" if mine["state"] == "done" else "FAILED"
        page = report.write_report(folder, {"run": "one", "state": state, "steps": [*done, mine]}).read_text()
        assert ">mine<" in page.replace("\n", "").replace(" ", "")
        assert text in page
        assert "Registered as m version 3" in page


@pytest.mark.slow
def test_the_local_runner_runs_them(place: Place, run: Run) -> None:
    (place.folder / "publish.py").write_text(
        "import json, pathlib, sys\n"
        "run, verdict, folder = sys.argv[1:]\n"
        "assert json.loads(pathlib.Path(run, 'run.json').read_text())['status'] == 'finished'\n"
        "pathlib.Path(folder, 'status.txt').write_text(json.loads(verdict)['status'])\n"
    )
    settings = [f"+steps.publish={PUBLISH}", "+steps.last={command: [grep, passed, '{publish.folder}/status.txt']}"]
    done = run("-m", "pipelines", "compile", *settings, "-o", str(place.folder / "mine.yaml"))
    assert done.returncode == 0, done.stderr
    done = place("one", *QUESTIONS, *QUICK, "--file", "mine.yaml")
    assert done.returncode == 0, done.stderr
    found = steps(place.of("one"))
    assert (found["publish"]["verdict"], found["last"]["state"]) == ("1 file", "done")
    assert (artifact(place.of("one"), "command", "outputs") / "status.txt").read_text() == "passed"
    assert "publish" in done.stdout

    # A failure fails the pipeline after the model was registered.
    (place.folder / "publish.py").write_text("raise SystemExit('no disk')\n")
    done = place("two", *QUESTIONS, *QUICK, "--file", "mine.yaml")
    assert done.returncode == 6
    assert "the pipeline failed: publish: " in done.stderr
    assert "ended with exit code 1: no disk" in done.stderr
    found = steps(place.of("two"))
    assert (found["register"]["state"], found["publish"]["state"], "last" in found) == ("done", "failed", False)
    assert json.loads((place.of("two") / "pipeline.json").read_text())["state"] == "FAILED"
    page = (place.of("two") / "report.html").read_text()
    assert "the step publish failed with exit code 1" in page


def test_the_documentation_has_each_input() -> None:
    text = (ROOT / "docs" / "pipelines.md").read_text()
    assert [key for key in further_steps.INPUTS if f"`{{{key}}}`" not in text] == []
