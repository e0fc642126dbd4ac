"""Pipelines on a real Kubeflow Pipelines: complete runs, further steps, the first champion, the cache, lost pods, schedules."""

import concurrent.futures
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from real_cluster import DEADLINE, IMAGE, ROOT, STORAGE, install, kubectl, run, wait

from katib.cluster import COLLECTOR_LABEL
from pipelines import nodes

SPACE = os.environ.get(
    "ISOTRAIN_CLUSTER_PIPELINES", "kubeflow"
)  # where runs are: a KFP without users has one namespace
LIMIT = 3 * DEADLINE
IMAGES = [
    *("model=resnet18", "model.name=resnet10t", "model.stem=standard", "data=shapes", "data.image_size=32"),
    *("data.batch_size=32", "data.sample.train=800", "data.sample.val=200", "trainer.max_epochs=6"),
]
QUESTIONS = [
    "model=bert_tiny",
    "data=squad_sample",
    "data.sample.train=400",
    "data.sample.val=100",
    "trainer.max_epochs=1",
]
STEPS = [
    *("data", "plan", "quality", "quality gate", "drift", "drift gate", "tune", "train", "evaluate", "explain"),
    *("explanation gate", "benchmark", "benchmark gate", "register", "finish"),
]

Submit = Callable[..., Any]


@pytest.fixture(scope="session")
def pipeline(versions: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A compiled pipeline with small requests, and what it needs in the namespace of the runs.

    The label is removed again: with it, Katib's controller could not start in its own namespace after a restart of the node.
    """
    if "Kubeflow Pipelines" not in versions:
        pytest.skip("the cluster has no Kubeflow Pipelines")
    if "KFP_HOST" not in os.environ:
        pytest.skip("KFP_HOST, the address of the Kubeflow Pipelines API, is not set")
    folder = tmp_path_factory.mktemp("pipeline")
    labels = json.loads(kubectl("get", "namespace", SPACE, "-o", "json"))["metadata"].get("labels", {})
    kubectl("label", "namespace", SPACE, "--overwrite", f"{COLLECTOR_LABEL}=enabled")
    kubectl("-n", SPACE, "delete", "job", "isotrain-volumes", "--ignore-not-found")
    install(ROOT / "deploy" / "base", folder / "base", SPACE)
    if STORAGE == "present":
        names = kubectl("-n", SPACE, "get", "pvc", "-o", "name")
        assert "isotrain-runs" in names, f"the claims isotrain-runs and isotrain-cache are not in {SPACE}"
    yield compile_small(folder / "small.yaml")
    if COLLECTOR_LABEL not in labels:
        kubectl("label", "namespace", SPACE, f"{COLLECTOR_LABEL}-")


def compile_small(path: Path, *settings: str) -> Path:
    """Compiles the pipeline with small requests."""
    sizes = ["small.cpu=50m", "small.memory=256Mi", "large.cpu=100m", "large.memory=512Mi", f"image={IMAGE}"]
    done = run("pipelines", "compile", *sizes, *settings, "-o", str(path))
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def submit(pipeline: Path) -> Iterator[Submit]:
    """Submits the pipeline: submit("model=bert_tiny", explain="warn", wait=False); what still runs is terminated after."""
    runs: list[str] = []

    def call(*overrides: str, waits: bool = True, file: Path = pipeline, **parameters: str) -> Any:
        options = [
            word for name, value in {"explain": "warn", **parameters}.items() for word in ("-p", f"{name}={value}")
        ]
        options += ["--timeout", f"{LIMIT:g}"] if waits else ["--no-wait"]
        done = run(
            "pipelines",
            "submit",
            str(file),
            *overrides,
            *options,
            "--version",
            f"t{time.time_ns()}",
            timeout=LIMIT + 60,
        )
        runs.extend(re.findall(r"^run=(\S+)", done.stdout, re.MULTILINE))
        return done

    yield call
    for name in runs:
        run("pipelines", "terminate", name)


def table(run_id: str) -> dict[str, str]:
    """States of the steps that `status` prints, by step and in its order."""
    done = run("pipelines", "status", run_id)
    assert done.returncode == 0, done.stderr
    rows = (re.match(r"(?P<step>\S+(?: \S+)*?)\s+(?P<state>[A-Z]{6,})\b", line) for line in done.stdout.splitlines())
    return {row["step"]: row["state"] for row in rows if row}


def run_of(done: Any) -> str:
    """The id of a submitted run."""
    match = re.search(r"^run=(\S+)", done.stdout, re.MULTILINE)
    assert match, done.stdout + done.stderr
    return match[1]


def step_pod(run_id: str, step: str) -> str:
    """The pod in which the command of a step runs, or nothing; the pod's containers do not name the step."""
    rows = json.loads(kubectl("-n", SPACE, "get", "pods", "-l", f"pipeline/runid={run_id}", "-o", "json"))["items"]
    for row in rows:
        node = row["metadata"].get("annotations", {}).get("workflows.argoproj.io/node-name", "")
        if row["status"].get("phase") == "Running" and re.search(nodes.step_pattern(step), node):
            return str(row["metadata"]["name"])
    return ""


@pytest.mark.parametrize("overrides", [IMAGES, QUESTIONS], ids=["images", "questions"])
def test_a_pipeline_succeeds_step_by_step(submit: Submit, overrides: list[str]) -> None:
    done = submit(*overrides)
    assert done.returncode == 0, done.stdout + done.stderr
    states = table(run_of(done))
    assert list(states) == STEPS
    assert set(states.values()) <= {"SUCCEEDED", "CACHED", "SKIPPED"}, states
    assert len([line for line in done.stderr.splitlines() if "executor" in line]) == 0
    assert len(done.stderr.splitlines()) < 80  # a line for each change


COPY = '+steps.copy={command: [cp, "{train.run}/run.json", "{folder}/run.json"]}'


def test_a_first_champion_and_further_steps(submit: Submit, tmp_path: Path) -> None:
    """`check` finds the output of `copy` where the documentation says."""
    check = '+steps.check={command: [cmp, "{copy.folder}/run.json", "{train.run}/run.json"], after: [register]}'
    file, name = compile_small(tmp_path / "works.yaml", COPY, check), f"t{int(time.time())}"
    done = submit(*IMAGES, file=file, floor="5", registered=name, explain="off")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"isotrain: registered {name} version 1 (champion)" in done.stderr.splitlines()
    assert list(states := table(run_of(done))) == [*STEPS, "copy", "check"]
    assert set(states.values()) <= {"SUCCEEDED", "CACHED"}, states


def test_a_model_below_its_floor_and_a_further_step_that_fails(submit: Submit, tmp_path: Path) -> None:
    """All other steps run nevertheless."""
    broken = '+steps.broken={command: [cat, "{folder}/absent"]}'
    file, name = compile_small(tmp_path / "fails.yaml", COPY, broken), f"t{int(time.time())}"
    done = submit(*IMAGES, file=file, floor="99.9", registered=name, explain="off")
    assert done.returncode == 6, done.stdout + done.stderr
    assert re.search(rf"registered {name} version 1 \(candidate\); it was not promoted: .*at least 99.9", done.stderr)
    assert re.search(r"FAILED in the step broken: .* ended with exit code 1: .*absent", done.stderr)
    states = table(run_of(done))
    assert (states["broken"], states["copy"], states["register"]) == ("FAILED", "SUCCEEDED", "SUCCEEDED")


def test_a_second_submission_takes_results_from_the_cache(submit: Submit) -> None:
    refresh = f"r{int(time.time())}"
    states = [table(run_of(submit(*QUESTIONS, refresh=refresh))) for _ in range(2)]
    for step in ("quality", "train", "explain"):
        assert (states[0][step], states[1][step]) == ("SUCCEEDED", "CACHED"), states


def test_a_search_runs_from_inside(submit: Submit) -> None:
    done = submit(*IMAGES, tune="katib/images-random.yaml", trials="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert table(run_of(done))["tune"] == "SUCCEEDED"


def test_a_refused_input_is_not_retried_and_is_named(submit: Submit) -> None:
    done = submit("model=resnet18", "data=image_folder", "data.path=/runs/absent")
    assert done.returncode == 6, done.stdout + done.stderr
    assert "/runs/absent" in done.stdout + done.stderr
    assert table(run_of(done))["data"] == "FAILED"


def test_a_deleted_pod_is_retried(submit: Submit) -> None:
    """By Kubeflow or, where its policy does not retry such a step, by the command that waits for the run."""
    runs = run("pipelines", "status").stdout
    with concurrent.futures.ThreadPoolExecutor() as pool:
        off = dict.fromkeys(("quality", "drift", "explain", "benchmark"), "off")
        waiting = pool.submit(submit, *IMAGES, "trainer.max_epochs=20", refresh=f"d{int(time.time())}", **off)
        latest = wait(lambda: rows[0] if (rows := new_runs(runs)) else None, "the run", LIMIT)
        pod = wait(lambda: step_pod(latest, "train"), "the train step", LIMIT)
        wait(lambda: "epoch=" in kubectl("-n", SPACE, "logs", pod, "-c", "main"), "its first validation", LIMIT)
        kubectl("-n", SPACE, "delete", "pod", pod, "--wait=false")
        done = waiting.result()
    assert done.returncode == 0, done.stdout + done.stderr
    assert table(run_of(done))["train"] == "SUCCEEDED"


def new_runs(before: str) -> list[str]:
    """Ids of the latest runs that a list of `status` does not have, the newest first."""
    lines = run("pipelines", "status").stdout.splitlines()
    return [words[1] for words in map(str.split, lines) if len(words) > 1 and words[1] not in before]


def test_terminate_ends_everything(submit: Submit) -> None:
    def searches() -> str:
        return kubectl("-n", SPACE, "get", "experiments.kubeflow.org", "-o", "name")

    before = searches()  # those that ended stay
    name = run_of(submit(*IMAGES, waits=False, tune="katib/images-random.yaml", trials="4"))
    wait(lambda: table(name).get("tune") == "RUNNING", "the search", LIMIT)
    for _ in range(2):  # twice is no error
        done = run("pipelines", "terminate", name)
        assert done.returncode == 0, done.stdout + done.stderr
    assert searches() == before
    assert "RUNNING" not in table(name).values()


def test_schedules_are_listed_replaced_and_removed(pipeline: Path) -> None:
    options = ["--name", "isotrain-cluster-test"]
    for _ in range(2):
        done = run("pipelines", "schedule", str(pipeline), *QUESTIONS, "--cron", "0 0 3 1 1 *", *options)
        assert done.returncode == 0, done.stderr
    assert run("pipelines", "schedule", "--list").stdout.count("isotrain-cluster-test") == 1
    assert run("pipelines", "schedule", "--remove", *options).returncode == 0
    assert "isotrain-cluster-test" not in run("pipelines", "schedule", "--list").stdout
