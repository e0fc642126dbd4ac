"""python -m katib run, with real processes and real signals."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from katib import asha
from katib.trials import Trial
from runs import metric_lines

ROOT = Path(__file__).resolve().parents[1]
# A trial that tells a ledger when it begins and ends, and prints what it is told to.
TRIAL = """
import math, os, sys, time
name, x, mode = sys.argv[1], float(sys.argv[2]), sys.argv[3]
ledger = open({ledger!r}, "a")
print("begin", name, file=ledger, flush=True)
for step in range(int(os.environ.get("STEPS", "2"))):
    time.sleep(float(os.environ.get("PAUSE", "0")))
    value = (x - 0.3) ** 2 + 1 / (step + 1)
    if mode == "ok":
        print(f"2026-01-01T00:00:{{step:02d}}.0Z step={{step}} loss={{value!r}}", flush=True)
    elif mode == "nan":
        print("loss=nan", flush=True)
    elif mode.startswith("text:"):
        print(f"loss={{mode[5:]}}", flush=True)
    elif mode == "crash":
        print("loss=0.1", flush=True)
        sys.exit(3)
    elif mode == "hang":
        time.sleep(600)
print("end", name, file=ledger, flush=True)
"""


def experiment(folder: Path, mode: str = "ok", **spec: Any) -> Path:
    """An Experiment over x whose trials run TRIAL."""
    script = folder / "trial.py"
    script.write_text(TRIAL.format(ledger=str(folder / "ledger")))
    env = [{"name": key, "value": str(spec.pop(key))} for key in ("STEPS", "PAUSE") if key in spec]
    job = spec.pop("job", {})
    parameters = spec.pop("parameters", [("x", "double", {"min": "0", "max": "1"})])
    modes = mode if isinstance(mode, str) else "${trialParameters.mode}"
    if not isinstance(mode, str):
        parameters = [*parameters, ("mode", "categorical", {"list": list(mode)})]
    line = f"python {script} ${{trialParameters.trialName}} ${{trialParameters.x}} {modes}"
    for name, _, _ in parameters:
        if name not in ("x", "mode"):
            line += f" ${{trialParameters.{name}}}"
    container = {"name": "main", "image": "none", "command": ["sh", "-c", line], **({"env": env} if env else {})}
    value = {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "toy"},
        "spec": {
            "objective": {
                "type": "minimize",
                "objectiveMetricName": "loss",
                "metricStrategies": [{"name": "loss", "value": "min"}],
            },
            "algorithm": {"algorithmName": "random", "algorithmSettings": [{"name": "random_state", "value": "0"}]},
            "parallelTrialCount": 2,
            "maxTrialCount": 6,
            "maxFailedTrialCount": spec.get("maxTrialCount", 6),
            "parameters": [{"name": n, "parameterType": t, "feasibleSpace": s} for n, t, s in parameters],
            "trialTemplate": {
                "primaryContainerName": "main",
                "trialParameters": [
                    {"name": "trialName", "reference": "${trialSpec.Name}"},
                    *({"name": n, "reference": n} for n, _, _ in parameters),
                ],
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {
                        "backoffLimit": 0,
                        **job,
                        "template": {
                            "metadata": {"labels": {"sidecar.istio.io/inject": "false"}},
                            "spec": {
                                "restartPolicy": "Never",
                                "terminationGracePeriodSeconds": 2,
                                "containers": [container],
                            },
                        },
                    },
                },
            },
            **spec,
        },
    }
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False, width=10_000))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "katib", "run", *map(str, arguments)]


def search(path: Path, *arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    folder = path.parent / "search"
    return subprocess.run(
        [*command(path, "--folder", folder), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=path.parent,
        check=False,
        timeout=timeout,
    )


def rows(path: Path) -> list[dict[str, Any]]:
    text = (path.parent / "search" / "trials.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def ledger(path: Path, word: str) -> list[str]:
    file = path.parent / "ledger"
    return [line.split()[1] for line in file.read_text().splitlines() if line.startswith(word)] if file.exists() else []


SPACE = [
    ("x", "double", {"min": "0.01", "max": "1"}),
    ("size", "int", {"min": "1", "max": "4"}),
    ("c", "categorical", {"list": ["a", "b"]}),
    ("d", "discrete", {"list": ["8", "16"]}),
]


@pytest.mark.parametrize(
    "name",
    [
        *("multivariate-tpe", "bayesianoptimization", "grid", "hyperband"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("random", "tpe", "cmaes", "sobol")),
    ],
)
def test_each_algorithm_searches(name: str, tmp_path: Path) -> None:
    settings = [{"name": "random_state", "value": "3"}] if name not in ("sobol", "hyperband") else []
    parameters, counts = SPACE, {"maxTrialCount": 6, "parallelTrialCount": 2}
    if name == "grid":
        parameters = [("x", "double", {"min": "0.1", "max": "0.3", "step": "0.1"}), SPACE[2]]
    if name == "hyperband":
        settings = [{"name": k, "value": v} for k, v in (("r_l", "4"), ("eta", "2"), ("resource_name", "size"))]
        counts = {"maxTrialCount": 30, "parallelTrialCount": 4}
    if name == "tpe":
        counts["parallelTrialCount"] = 1
    path = experiment(
        tmp_path, algorithm={"algorithmName": name, "algorithmSettings": settings}, parameters=parameters, **counts
    )
    done = search(path)
    assert done.returncode == 0, done.stderr
    found = rows(path)
    assert {each["status"] for each in found} == {"Succeeded"}
    names = [each["name"] for each in found]
    assert sorted(ledger(path, "begin")) == sorted(ledger(path, "end")) == sorted(names)
    for each in found:
        value = each["assignments"]
        assert set(value) == {parameter for parameter, _, _ in parameters}
        assert 0.01 <= float(value["x"]) <= 1
        assert value["c"] in ("a", "b")
        assert each["value"] == pytest.approx((float(value["x"]) - 0.3) ** 2 + 0.5)
    if name == "grid":
        assert sorted((each["assignments"]["x"], each["assignments"]["c"]) for each in found) == [
            (x, c) for x in ("0.1", "0.2", "0.30000000000000004") for c in ("a", "b")
        ]
    elif name == "hyperband":
        counted: dict[tuple[int, int], list[str]] = {}
        for each in found:
            counted.setdefault((each["place"]["bracket"], each["place"]["rung"]), []).append(
                each["assignments"]["size"]
            )
        assert counted == {
            (0, 0): ["1"] * 4,
            (0, 1): ["2"] * 2,
            (0, 2): ["4"],
            (1, 0): ["2"] * 3,
            (1, 1): ["4"] * 2,
            (2, 0): ["4"] * 3,
        }
        first = sorted(
            (each for each in found if each["place"]["rung"] == 0 and each["place"]["bracket"] == 0),
            key=lambda each: each["value"],
        )
        second = [each for each in found if (each["place"]["bracket"], each["place"]["rung"]) == (0, 1)]
        assert {each["place"]["parent"] for each in second} == {each["name"] for each in first[:2]}
        assert {each["assignments"]["x"] for each in second} == {each["assignments"]["x"] for each in first[:2]}
    else:
        assert len({json.dumps(each["assignments"]) for each in found}) == len(found) == 6
    assert "best: loss=" in done.stdout
    import optuna

    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path}/search/optuna.db")
    assert [each.value for each in study.trials] == [
        each["value"] for each in sorted(found, key=lambda each: each["number"])
    ]
    assert {each.user_attrs["name"] for each in study.trials} == set(names)


def test_every_way_to_end_is_what_katib_makes_of_it(tmp_path: Path) -> None:
    grid = {"algorithmName": "grid"}
    modes = ("ok", "nan", "crash", "nothing", "hang")
    path = experiment(
        tmp_path,
        mode=modes,  # type: ignore[arg-type]
        algorithm=grid,
        parameters=[("x", "discrete", {"list": ["0.3"]})],
        maxTrialCount=5,
        maxFailedTrialCount=5,
        job={"activeDeadlineSeconds": 5},
    )
    done = search(path)
    assert done.returncode == 0, done.stderr
    found = {each["assignments"]["mode"]: each for each in rows(path)}
    assert {mode: each["status"] for mode, each in found.items()} == {
        "ok": "Succeeded",
        "nan": "Succeeded",  # as Katib's trial controller has it; its algorithm's service then fails
        "crash": "Failed",
        "nothing": "MetricsUnavailable",
        "hang": "Failed",
    }
    assert found["ok"]["value"] == 0.5
    assert found["nan"]["value"] is None
    assert "2723" in found["nan"]["reason"]
    assert found["crash"]["reason"] == "exit status 3"
    assert found["crash"]["metrics"] == {}
    assert "DeadlineExceeded" in found["hang"]["reason"]
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path / "trial.py") in (p.info["cmdline"] or [])]


def test_failures_and_goals_end_a_search(tmp_path: Path) -> None:
    path = experiment(tmp_path, mode="crash", maxFailedTrialCount=2)
    done = search(path)
    assert done.returncode == 6
    assert "Failed (ExperimentFailed)" in done.stderr
    assert sum(each["status"] == "Failed" for each in rows(path)) >= 2
    assert len(rows(path)) <= 3
    other = tmp_path / "goal"
    other.mkdir()
    objective = {"type": "minimize", "goal": 5.0, "objectiveMetricName": "loss"}
    path = experiment(other, objective=objective, maxTrialCount=40)
    done = search(path)
    assert done.returncode == 0
    assert "ExperimentGoalReached" in done.stderr
    assert len(rows(path)) <= 4


def begun(path: Path, count: int, word: str = "end") -> None:
    end = time.monotonic() + 60
    while len(ledger(path, word)) < count:
        assert time.monotonic() < end, "the search does not go on"
        time.sleep(0.05)


def everything(path: Path) -> list[psutil.Process]:
    """The search and its trials."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(path.parent) in word for word in process.cmdline()) and process.pid != os.getpid():
                found.append(process)
    return found


def test_trials_get_the_callers_configuration_and_packages(tmp_path: Path) -> None:
    """A task of one's own is found through ISOTRAIN_CONF and PYTHONPATH: a trial may run elsewhere, the names are relative."""
    path = experiment(tmp_path, maxTrialCount=1, parallelTrialCount=1)
    value = yaml.safe_load(path.read_text())
    container = value["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    # Of the image, where the caller's are on this machine.
    container["env"] = [
        {"name": "ISOTRAIN_CONF", "value": "/image/conf"},
        {"name": "PYTHONPATH", "value": "/image/own"},
    ]
    container["env"] += [{"name": "OTHER", "value": "1"}]
    path.write_text(yaml.safe_dump(value, width=10_000))
    with (tmp_path / "trial.py").open("a") as script:
        script.write(f"import json\njson.dump(dict(os.environ), open({str(tmp_path / 'environment')!r}, 'w'))\n")
    (tmp_path / "own" / "conf").mkdir(parents=True)
    done = subprocess.run(
        command(path, "--folder", tmp_path / "search"),
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:own", "ISOTRAIN_CONF": "own/conf"},
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "environment").read_text())
    assert found["ISOTRAIN_CONF"] == str(tmp_path / "own" / "conf")
    assert found["PYTHONPATH"].split(":") == [str(ROOT / "src"), str(tmp_path / "own")]
    assert found["OTHER"] == "1"


@pytest.mark.slow
def test_killed_altogether_it_loses_and_repeats_no_finished_trial(tmp_path: Path) -> None:
    path = experiment(tmp_path, maxTrialCount=8, PAUSE=0.3)
    counted: dict[str, int] = {}
    for ended in (2, 5):
        running = subprocess.Popen(command(path, "--folder", tmp_path / "search"), cwd=tmp_path, stderr=subprocess.PIPE)
        begun(path, ended)
        for process in everything(path):
            with contextlib.suppress(psutil.Error):
                process.kill()
        running.wait()
        finished = [each["name"] for each in rows(path) if each["status"] == "Succeeded"]
        assert finished
        counted |= {name: ledger(path, "begin").count(name) for name in finished}
    done = search(path)
    assert done.returncode == 0, done.stderr
    found = rows(path)
    assert [each["status"] for each in found] == ["Succeeded"] * 8
    starts = ledger(path, "begin")
    # What had ended did not begin again; what was killed did, under the same name.
    assert {name: starts.count(name) for name in counted} == counted
    assert set(starts) == {each["name"] for each in found}
    assert len({each["number"] for each in found}) == 8


def test_trials_outlive_a_killed_search_and_are_taken_up(tmp_path: Path) -> None:
    path = experiment(tmp_path, maxTrialCount=2, PAUSE=2)
    running = subprocess.Popen(command(path, "--folder", tmp_path / "search"), cwd=tmp_path, stderr=subprocess.PIPE)
    begun(path, 2, "begin")
    running.kill()
    running.wait()
    done = search(path)
    assert done.returncode == 0, done.stderr
    assert [each["status"] for each in rows(path)] == ["Succeeded"] * 2
    assert len(ledger(path, "begin")) == 2  # nothing began again


def test_trials_that_end_while_nobody_watches_are_not_repeated(tmp_path: Path) -> None:
    path = experiment(tmp_path, maxTrialCount=2, PAUSE=1)
    running = subprocess.Popen(command(path, "--folder", tmp_path / "search"), cwd=tmp_path, stderr=subprocess.PIPE)
    begun(path, 2, "begin")
    running.kill()
    running.wait()
    begun(path, 2)
    time.sleep(0.5)
    done = search(path)
    assert done.returncode == 0, done.stderr
    assert [(each["status"], each["value"] is None) for each in rows(path)] == [("Succeeded", False)] * 2
    assert len(ledger(path, "begin")) == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_ends_its_trials_and_goes_on_later(number: signal.Signals, code: int, tmp_path: Path) -> None:
    path = experiment(tmp_path, maxTrialCount=3, PAUSE=1)
    running = subprocess.Popen(
        command(path, "--folder", tmp_path / "search"), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    begun(path, 2, "begin")
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == code
    assert "the same command resumes 2 trial(s)" in said
    assert "Traceback" not in said
    assert not everything(path)
    assert (tmp_path / "search" / "report.html").exists()
    assert search(path).returncode == 0
    assert [each["status"] for each in rows(path)] == ["Succeeded"] * 3


def test_medianstop_stops_what_is_worse_than_the_others(tmp_path: Path) -> None:
    stopping = {
        "algorithmName": "medianstop",
        "algorithmSettings": [{"name": "min_trials_required", "value": "2"}, {"name": "start_step", "value": "2"}],
    }
    xs = ["0.3", "0.31", "3", "0.3001"]
    path = experiment(
        tmp_path,
        algorithm={"algorithmName": "grid"},
        parameters=[("x", "discrete", {"list": xs})],
        earlyStopping=stopping,
        maxTrialCount=4,
        parallelTrialCount=1,
        STEPS=6,
        PAUSE=0.3,
    )
    path.write_text(path.read_text().replace("python /", "python -u /"))
    done = search(path)
    assert done.returncode == 0, done.stderr
    found = {each["assignments"]["x"]: each for each in rows(path)}
    assert {x: each["status"] for x, each in found.items()} == {
        "0.3": "Succeeded",
        "0.31": "Succeeded",
        "3": "EarlyStopped",
        "0.3001": "Succeeded",
    }
    assert found["0.3"]["rule"] is None
    means = [sum(found[x]["history"][:2]) / 2 for x in ("0.3", "0.31")]
    assert found["3"]["rule"] == {"metric": "loss", "value": sum(means) / 2, "comparison": "greater", "start_step": 2}
    assert found["3"]["exit_code"] == 0  # the wrapper makes it so
    assert 2 <= len(found["3"]["history"]) < 6
    assert found["3"]["value"] is not None


def test_values_that_are_text_end_their_trials(tmp_path: Path) -> None:
    texts = ("--inf", "+-nan", "1e400", "abc", "inf", "0.5", "5e-1")
    path = experiment(
        tmp_path,
        mode=tuple(f"text:{text}" for text in texts),  # type: ignore[arg-type]
        algorithm={"algorithmName": "grid"},
        parameters=[("x", "discrete", {"list": ["0.3"]})],
        metricsCollectorSpec={
            "collector": {"kind": "StdOut"},
            "source": {"filter": {"metricsFormat": [r"(?P<name>[[:alpha:]]+)=(?P<value>\S+)"]}},
        },
        maxTrialCount=len(texts),
        parallelTrialCount=4,
        STEPS=1,
    )
    done = search(path)
    assert done.returncode == 0, done.stderr
    trials = rows(path)
    assert {trial["status"] for trial in trials} == {"Succeeded"}
    values = {trial["assignments"]["mode"].removeprefix("text:"): trial["value"] for trial in trials}
    assert values == {text: 0.5 if text in ("0.5", "5e-1") else None for text in texts}
    assert all(trial["value"] is not None or "not a finite number" in trial["reason"] for trial in trials)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"algorithm": {"algorithmName": "pbt"}}, "pbt runs only on a cluster"),
        ({"algorithm": {"algorithmName": "darts"}}, "darts runs only on a cluster"),
        (
            {"algorithm": {"algorithmName": "tpe", "algorithmSettings": [{"name": "n_EI_candidates", "value": "0"}]}},
            "n_EI_candidates must be 1 or more",
        ),
        ({"metricsCollectorSpec": {"collector": {"kind": "Push"}}}, "the Push collector works only on a cluster"),
        (
            {"parameters": [("x", "double", {"min": "0", "max": "1", "distribution": "normal"})]},
            "normal runs only on a cluster",
        ),
    ],
)
def test_what_cannot_run_here_is_refused_by_name(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    done = search(experiment(tmp_path, **change), "--no-check")
    assert done.returncode == 2
    assert said in done.stderr
    assert not ledger(tmp_path / "toy.yaml", "begin")


def test_what_check_refuses_is_not_run(tmp_path: Path) -> None:
    path = experiment(tmp_path, maxTrialCount=1)
    done = search(path)
    assert done.returncode == 2
    assert "K102" in done.stderr
    assert not (tmp_path / "search").exists()


def test_a_folder_belongs_to_one_search_and_one_process(tmp_path: Path) -> None:
    path = experiment(tmp_path, maxTrialCount=2, PAUSE=1)
    running = subprocess.Popen(command(path, "--folder", tmp_path / "search"), cwd=tmp_path, stderr=subprocess.PIPE)
    begun(path, 1, "begin")
    done = search(path)
    assert (done.returncode, f"is in use by process {running.pid}" in done.stderr) == (2, True)
    running.communicate(timeout=60)
    before = (tmp_path / "search" / "trials.jsonl").read_bytes()
    path.write_text(path.read_text().replace("max: '1'", "max: '2'"))
    done = search(path)
    assert done.returncode == 2
    assert "belongs to another search: spec.parameters differ" in done.stderr
    assert (tmp_path / "search" / "trials.jsonl").read_bytes() == before
    path.write_text(path.read_text().replace("max: '2'", "max: '1'").replace("maxTrialCount: 2", "maxTrialCount: 4"))
    assert search(path).returncode == 0  # more trials: the same search goes on
    assert len(rows(path)) == 4


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_wait_waits_until_the_search_folder_is_free(is_interrupted: bool, tmp_path: Path) -> None:
    from filelock import FileLock

    path = experiment(tmp_path, maxTrialCount=1, parallelTrialCount=1)
    folder = tmp_path / "search"
    folder.mkdir()
    (folder / ".lock.json").write_text('{"pid": 123, "host": "elsewhere"}')
    with FileLock(folder / ".lock"):
        waiting = subprocess.Popen(
            command(path, "--folder", folder, "--wait"), cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        assert waiting.stderr is not None
        line = waiting.stderr.readline()
        assert line == f"isotrain: waiting for process 123 on elsewhere, which uses {folder}\n"
        assert not ledger(path, "begin")
        if is_interrupted:
            waiting.send_signal(signal.SIGINT)
            _, message = waiting.communicate(timeout=60)
            assert (waiting.returncode, "interrupted" in message, "Traceback" in message) == (130, True, False)
            return
    _, message = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, message
    assert [row["status"] for row in rows(path)] == ["Succeeded"]
    assert not (folder / ".lock.json").exists()


def test_a_folder_that_the_shell_would_take_apart_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "my searches"
    folder.mkdir()
    done = search(experiment(folder))
    assert (done.returncode, "has blanks or symbols in its path" in done.stderr) == (2, True)


def test_an_override_of_what_a_parameter_sets_fixes_it(tmp_path: Path) -> None:
    from katib.documents import read
    from katib.experiment import Experiment
    from katib.experiment_changes import fixed_parameters

    path = tmp_path / "a.yaml"
    path.write_text(
        (ROOT / "katib" / "questions-tpe.yaml")
        .read_text()
        .replace("name: optim.lr", "name: lr")
        .replace("reference: optim.lr", "reference: lr")
    )
    assert fixed_parameters(Experiment(read(str(path))[0]), ["optim.lr=1e-3", "seed=1"]) == {"lr": "1e-3"}


def test_lines_that_are_drawn_again_are_one_line(tmp_path: Path) -> None:
    path = experiment(tmp_path, maxTrialCount=1, parallelTrialCount=1)
    path.write_text(path.read_text().replace("loss={value!r}", ""))
    script = tmp_path / "trial.py"
    script.write_text('print("2026-01-01T00:00:01Z loss=0.9\\n2026-01-01T00:00:06Z loss=0.5\\rloss=0.4")')
    done = search(path)
    assert done.returncode == 0, done.stderr
    (each,) = rows(path)
    assert each["metrics"]["loss"] == {"min": "0.4", "max": "0.9", "latest": "0.4"}


def test_a_finished_search_says_its_result_again(tmp_path: Path) -> None:
    path = experiment(tmp_path, maxTrialCount=2)
    first = search(path)
    again = search(path)
    assert (first.returncode, again.returncode) == (0, 0)
    assert first.stdout == again.stdout
    assert len(ledger(path, "begin")) == 2


def test_the_report_has_pictures_and_needs_nothing_else(tmp_path: Path) -> None:
    path = experiment(tmp_path, parameters=SPACE, maxTrialCount=8)
    assert search(path).returncode == 0
    page = (tmp_path / "search" / "report.html").read_text()
    assert page.count('role="img"') == 3 + len(SPACE)  # history, curves, coordinates; a scatter of each parameter
    for each in rows(path):
        assert each["name"] in page
    assert not re.search(r"<script|<link|src=|@import|https?:", page)


def test_on_a_terminal_the_table_is_drawn_again(tmp_path: Path) -> None:
    import pty

    path = experiment(tmp_path, maxTrialCount=3, PAUSE=0.2)
    main, follower = pty.openpty()
    running = subprocess.Popen(
        command(path, "--folder", tmp_path / "search"),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=follower,
        env={**os.environ, "COLUMNS": "80", "LINES": "24"},
    )
    os.close(follower)
    text = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(main, 65536):
            text += chunk
    assert running.wait(60) == 0
    shown = text.decode()
    assert "\x1b[" in shown
    assert "3 of 3 trials: 3 Succeeded" in shown
    assert all(
        len(line) <= 80
        for line in re.sub(r"\x1b\[\d*[A-Z]", "", shown).replace("\r", "").split("\n")
        if "/" not in line
    )


# --- with train.py

OVERRIDES = [
    *("data.sample.train=64", "data.sample.val=16", "trainer.max_epochs=2", "trainer.threads=1", "data.batch_size=16"),
]


def training(path: Path, tmp_path: Path, *arguments: object) -> list[dict[str, Any]]:
    done = subprocess.run(
        command(path, "--folder", tmp_path / "search", *arguments),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=850,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (tmp_path / "search" / "trials.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "choice"),
    [
        ("questions-json", ["model=bert_tiny", "data=squad_sample", "model.architecture.num_hidden_layers=2"]),
        ("images-random", ["data=shapes", "model.name=test_resnet", "data.sample.classes=10"]),
    ],
)
def test_trainings_are_read_exactly(file: str, choice: list[str], tmp_path: Path) -> None:
    if file == "questions-json":
        overrides = [*choice, *OVERRIDES, "model.architecture.layer_types=[full_attention,full_attention]"]
    else:
        overrides = [*choice, "model=resnet18", "model.stem=standard", *OVERRIDES]
    found = training(ROOT / "katib" / f"{file}.yaml", tmp_path, "--max-trials", 2, "--parallel", 2, *overrides)
    assert [each["status"] for each in found] == ["Succeeded", "Succeeded"]
    for each in found:
        folder = tmp_path / "search" / "runs" / each["name"]
        record = json.loads((folder / "run.json").read_text())
        assert record["trial"] == each["name"]
        assert record["config"]["optim"]["lr"] == float(each["assignments"]["optim.lr"])
        kept = tmp_path / "search" / "trials" / each["name"] / "katib" / "metrics.jsonl"
        lines = [
            json.loads(line) for line in (kept if kept.exists() else folder / "metrics.jsonl").read_text().splitlines()
        ]
        objective = "val_f1" if file == "questions-json" else "val_accuracy"
        # The lines on stdout, which images-random reads, are rounded to six digits; the file has all.
        relative = 0 if file == "questions-json" else 5 * 10.0**-metric_lines.LINE_DIGITS
        written = [float(line[objective]) for line in lines if objective in line]
        assert [float(value) for _, value in each["curve"]] == pytest.approx(written, rel=relative, abs=0)
        assert each["value"] == max(each["history"]) == pytest.approx(record["metrics"][objective], rel=relative, abs=0)
        losses = [float(line["val_loss"]) for line in lines if "val_loss" in line]
        assert float(each["metrics"]["val_loss"]["min"]) == pytest.approx(min(losses), rel=relative, abs=0)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["questions-pytorchjob", "images-trainjob"])
def test_trials_of_several_processes_run_here_too(file: str, tmp_path: Path) -> None:
    questions = ["model=bert_tiny", "data=squad_sample"]
    images = ["model.name=test_resnet", "model.stem=standard", "data=shapes"]
    overrides = [*(questions if file.startswith("questions") else images), *OVERRIDES, "trainer.accelerator=cpu"]
    (each,) = training(ROOT / "katib" / f"{file}.yaml", tmp_path, "--max-trials", 1, "--parallel", 1, *overrides)
    assert each["status"] == "Succeeded"
    record = json.loads((tmp_path / "search" / "runs" / each["name"] / "run.json").read_text())
    assert record["world_size"] == 2
    assert len(each["history"]) == 3  # two epochs and the best, each once


def test_asha_goes_on_with_the_best_of_those_that_ended(tmp_path: Path) -> None:
    settings = [{"name": k, "value": v} for k, v in (("r_l", "4"), ("eta", "2"), ("resource_name", "size"))]
    path = experiment(
        tmp_path,
        algorithm={"algorithmName": "hyperband", "algorithmSettings": settings},
        parameters=[("x", "double", {"min": "0.01", "max": "1", "distribution": "logUniform"}), *SPACE[1:]],
        maxTrialCount=4,
        parallelTrialCount=4,
    )
    done = search(path, "--algorithm", "asha", "--max-trials", "14", "--parallel", "2")
    assert done.returncode == 0, done.stderr
    found = rows(path)
    assert len(found) == 14
    assert {each["status"] for each in found} == {"Succeeded"}
    by_name = {each["name"]: each for each in found}
    rungs = [[each for each in found if each["place"]["rung"] == rung] for rung in range(3)]
    assert [{each["assignments"]["size"] for each in rung} for rung in rungs] == [{"1"}, {"2"}, {"4"}]
    assert len({each["assignments"]["x"] for each in rungs[0]}) == len(rungs[0])  # new points
    for rung in (1, 2):
        assert rungs[rung]  # a later and better trial goes on, too: there may be more than half
        parents = [each["place"]["parent"] for each in rungs[rung]]
        assert len(set(parents)) == len(parents)
        for each, name in zip(rungs[rung], parents, strict=True):
            parent = by_name[name]
            assert {**parent["assignments"], "size": each["assignments"]["size"]} == each["assignments"]
            assert found.index(parent) < found.index(each)
    # The best of the first rung goes on, at the latest after all others have ended.
    assert min(rungs[0][:-2], key=lambda each: each["value"])["name"] in {row["place"]["parent"] for row in rungs[1]}
    again = search(path, "--max-trials", "14", "--parallel", "2")  # hyperband in the same folder
    assert again.returncode == 2
    assert "belongs to another search: spec.algorithm differ" in again.stderr


def test_asha_needs_hyperband_s_settings_and_a_number_of_trials(tmp_path: Path) -> None:
    path = experiment(tmp_path)
    done = search(path, "--algorithm", "asha")
    assert (done.returncode, "settings of hyperband (r_l, eta, resource_name)" in done.stderr) == (2, True), done.stderr
    settings = [{"name": k, "value": v} for k, v in (("r_l", "4"), ("eta", "2"), ("resource_name", "size"))]
    algorithm = {"algorithmName": "hyperband", "algorithmSettings": settings}
    path = experiment(tmp_path, algorithm=algorithm, parameters=SPACE, maxTrialCount=None, parallelTrialCount=4)
    done = search(path, "--algorithm", "asha")
    assert (done.returncode, "add --max-trials N" in done.stderr) == (2, True), done.stderr


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, None]) | st.floats(-9, 9), min_size=1, max_size=60),
    st.integers(1, 5),
    st.sampled_from([2, 3, 4]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_asha_s_rungs(values: list[float | None], parallel: int, eta: int, maximize: bool, random: Any) -> None:
    """Any values, in any order of ending: each trial that goes on is among the best 1/eta of those that have ended."""
    text = {"r_l": str(eta**2), "eta": str(eta), "resource_name": "r"}
    scheduler = asha.Scheduler(SimpleNamespace(settings=text, maximize=maximize))  # type: ignore[arg-type]
    trials: list[Trial] = []
    for number in range(len(values)):
        running = [index for index, trial in enumerate(trials) if trial.status == "Running"]
        if len(running) == parallel:
            index = random.choice(running)
            status = "Failed" if values[index] is None else "Succeeded"
            trials[index] = dataclasses.replace(trials[index], status=status, value=values[index])
        position = scheduler.next_position(trials)
        fixed, rung = position["fixed"], position["rung"]
        assert fixed["r"] == str(eta**rung)
        if rung:
            ended = [trial for trial in trials if trial.position["rung"] == rung - 1 and trial.status != "Running"]
            parent = next(trial for trial in ended if trial.name == position["parent"])
            assert fixed["x"] == parent.assignments["x"]
            assert parent.value is not None
            better = [row for row in ended if row.value is not None and row.value != parent.value]
            better = [row for row in better if (row.value > parent.value) == maximize]  # type: ignore[operator]
            assert len(better) < len(ended) / eta
            assert parent.name not in {trial.position["parent"] for trial in trials if trial.position["rung"] == rung}
        trials.append(Trial(str(number), number, "Running", {"x": str(number), **fixed}, position=position))


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--max-trials", 10], ["--max-trials", 7, "--algorithm", "asha"]], ids=str)
def test_hyperband_goes_on_from_the_rung_before(options: list[Any], tmp_path: Path) -> None:
    overrides = [
        "model=resnet18",
        "model.name=test_resnet",
        "model.stem=standard",
        "data=shapes",
        "data.sample.train=64",
    ]
    overrides += ["data.sample.val=16", "trainer.threads=1", "data.batch_size=16", "optim.warmup=1"]
    found = training(ROOT / "katib" / "images-hyperband.yaml", tmp_path, *options, "--parallel", 3, *overrides)
    later = next(each for each in found if each["place"]["rung"] == 1)
    parent = next(each for each in found if each["name"] == later["place"]["parent"])
    if "asha" not in options:
        assert parent["value"] == max(each["value"] for each in found if each["place"]["rung"] == 0)
    assert (parent["assignments"]["trainer.max_epochs"], later["assignments"]["trainer.max_epochs"]) == ("1", "3")
    lines = [
        json.loads(line)
        for line in (tmp_path / "search" / "runs" / later["name"] / "metrics.jsonl").read_text().splitlines()
    ]
    # The first epoch is the parent's own, to the last digit: it was not trained again.
    mine = json.loads((tmp_path / "search" / "runs" / parent["name"] / "metrics.jsonl").read_text().splitlines()[0])
    assert lines[0] == mine
    assert len({line["epoch"] for line in lines}) == 3


@pytest.mark.slow
def test_trainings_are_stopped_early_with_a_checkpoint(tmp_path: Path) -> None:
    line = "python train.py model=resnet18 model.name=test_resnet model.stem=standard data=shapes data.sample.train=96 "
    line += "data.sample.val=16 data.batch_size=8 trainer.max_epochs=5 trainer.accelerator=cpu optim.schedule=constant "
    line += "optim.lr=${trialParameters.lr} hydra.run.dir=/runs/${trialParameters.trialName}"
    stopping = {
        "algorithmName": "medianstop",
        "algorithmSettings": [{"name": "min_trials_required", "value": "2"}, {"name": "start_step", "value": "2"}],
    }
    path = experiment(
        tmp_path,
        algorithm={"algorithmName": "grid"},
        parameters=[("x", "discrete", {"list": ["0.003", "0.002", "0.000000000001"]})],
        objective={"type": "minimize", "objectiveMetricName": "train_loss"},
        earlyStopping=stopping,
        maxTrialCount=3,
        parallelTrialCount=1,
    )
    value = yaml.safe_load(path.read_text())
    template = value["spec"]["trialTemplate"]
    template["trialParameters"][1] = {"name": "lr", "reference": "x"}
    template["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["command"][2] = line
    path.write_text(yaml.safe_dump(value, width=10_000))
    found = {each["assignments"]["x"]: each for each in training(path, tmp_path)}
    assert {x: each["status"] for x, each in found.items()} == {
        "0.003": "Succeeded",
        "0.002": "Succeeded",
        "0.000000000001": "EarlyStopped",
    }
    folder = tmp_path / "search" / "runs" / found["0.000000000001"]["name"]
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["exit_code"]) == ("interrupted", 143)
    assert (folder / "checkpoints" / "last.ckpt").exists()
    assert len(found["0.000000000001"]["history"]) < 5


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not say which processors are whose")
def test_parallel_trials_divide_the_processors(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one processor cannot be divided")
    path = experiment(tmp_path, maxTrialCount=2)
    line = 'python -c \'import os, time; print("cores", *sorted(os.sched_getaffinity(0))); time.sleep(1); print("loss=1")\''
    value = yaml.safe_load(path.read_text())
    value["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["command"][2] = line
    value["spec"]["trialTemplate"]["trialParameters"] = [{"name": "x", "reference": "x"}]
    path.write_text(yaml.safe_dump(value, width=10_000))
    done = search(path, "--no-check")
    assert done.returncode == 0, done.stderr
    logs = [log.read_text().split() for log in (tmp_path / "search" / "trials").glob("*/katib/metrics.log")]
    shares = [set(map(int, words[1 : words.index("loss=1")])) for words in logs]
    assert shares[0] | shares[1] == set(cores)
    assert not shares[0] & shares[1]
