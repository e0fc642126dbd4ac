"""submit, watch, best, trials and delete, over HTTP against a small API server."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.katib_api_double import Api

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "katib" / "questions-json.yaml"
NAME = "questions-json"


@pytest.fixture
def api() -> Iterator[Api]:
    found = Api()
    yield found
    found.close()


class Katib:
    """`python -m katib` with a kubeconfig of its own."""

    def __init__(self, api: Api, folder: Path) -> None:
        self.environment = {**os.environ, "KUBECONFIG": str(api.kubeconfig(folder / "config")), "HOME": str(folder)}
        self.folder = folder

    def __call__(self, *arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "katib", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, env=self.environment, check=False, timeout=timeout
        )


@pytest.fixture
def katib(api: Api, tmp_path: Path) -> Katib:
    return Katib(api, tmp_path)


def stored(api: Api, name: str = NAME, namespace: str = "team") -> dict[str, Any]:
    return api.objects["experiments", namespace, name]


def filled(api: Api) -> None:
    """An Experiment with three trials."""
    api.put("experiments", "team", yaml.safe_load(FILE.read_text()))
    point = {"optim.lr": "3e-05", "data.batch_size": "16", "optim.weight_decay": "0.01", "optim.warmup": "0.1"}
    api.trial(NAME, f"{NAME}-aaaa", "Succeeded", "81.5", **point)
    api.trial(NAME, f"{NAME}-bbbb", "Succeeded", "84.25", **{**point, "optim.lr": "5e-05"})
    api.trial(NAME, f"{NAME}-cccc", "Failed", None, **point)


def test_submit_creates_what_is_in_the_file(api: Api, katib: Katib) -> None:
    done = katib("submit", FILE)
    assert done.returncode == 0, done.stderr
    assert f"created the Experiment {NAME} in team" in done.stderr
    assert stored(api)["spec"]["trialTemplate"] == yaml.safe_load(FILE.read_text())["spec"]["trialTemplate"]
    again = katib("submit", FILE)
    assert again.returncode == 0, again.stderr
    assert "the same Experiment questions-json exists already; attached to it" in again.stderr
    assert sum(each.startswith("POST") for each in api.asked) == 1


def test_zero_values_that_the_cluster_drops_are_no_difference(api: Api, katib: Katib, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(FILE.read_text().replace("  trialTemplate:", "  trialTemplate:\n    retain: false"))
    assert katib("submit", path).returncode == 0
    del stored(api)["spec"]["trialTemplate"]["retain"]
    assert "attached to it" in katib("submit", path).stderr


def test_a_taken_name_is_refused_with_what_differs(api: Api, katib: Katib, tmp_path: Path) -> None:
    katib("submit", FILE)
    other = tmp_path / "other.yaml"
    other.write_text(FILE.read_text().replace("maxTrialCount: 12", "maxTrialCount: 13"))
    done = katib("submit", other)
    assert done.returncode == 2
    assert "which differs in spec.maxTrialCount" in done.stderr
    assert stored(api)["spec"]["maxTrialCount"] == 12


def test_what_check_refuses_is_not_submitted(api: Api, katib: Katib, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(FILE.read_text().replace("optim.lr=", "optim.rl="))
    done = katib("submit", path)
    assert done.returncode == 2
    assert "K401" in done.stderr
    assert not api.objects


@pytest.mark.parametrize(
    ("change", "arguments", "code", "said"),
    [
        (
            "",
            ["--context", "bare"],
            2,
            "kubectl label namespace bare katib.kubeflow.org/metrics-collector-injection=enabled",
        ),
        ("", ["-n", "none"], 2, "the namespace none does not exist"),
        ("", ["--context", "nowhere"], 2, "cannot connect to a cluster"),
        ("api.has_katib = False", [], 2, "Katib is not installed on this cluster"),
        ("api.forbidden = 'POST'", [], 2, "no permission"),
        ("katib.environment['KUBECONFIG'] = '/none'", [], 2, "set KUBECONFIG"),
        ("api.close()", [], 7, "the cluster does not respond"),
    ],
)
def test_what_is_wrong_with_the_cluster_is_said(
    change: str, arguments: list[str], code: int, said: str, api: Api, katib: Katib
) -> None:
    exec(change, {"api": api, "katib": katib})
    done = katib("submit", FILE, *arguments)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not api.objects


def test_a_namespace_that_may_not_be_read_is_no_obstacle(api: Api, katib: Katib) -> None:
    api.forbidden = "GET /api/v1/namespaces"
    assert katib("submit", FILE).returncode == 0


@pytest.mark.parametrize("fault", [429, 500, 503, "drop", "lost"])
def test_what_passes_is_tried_again(fault: Any, api: Api, katib: Katib) -> None:
    api.faults = [("GET .*/experiments/", fault), ("POST", fault)]
    done = katib("submit", FILE)
    assert done.returncode == 0, done.stderr
    assert not api.faults
    assert stored(api)


def test_watch_follows_to_the_end_whatever_happens_on_the_way(api: Api, katib: Katib) -> None:
    filled(api)
    api.faults = [(" watch", "drop"), (" watch", 410), (" watch", 500), ("GET .*/trials$", 429)]

    def go_on() -> None:
        time.sleep(6)
        api.trial(
            NAME,
            f"{NAME}-dddd",
            "Succeeded",
            "90.5",
            **{"optim.lr": "6e-05"} | dict.fromkeys(("data.batch_size", "optim.weight_decay", "optim.warmup"), "1"),
        )
        time.sleep(1)
        api.end(NAME, "Succeeded", "Experiment has succeeded because max trial count has reached", f"{NAME}-dddd")
        api.trial(
            NAME,
            f"{NAME}-cccc",
            "Failed",
            None,
            **dict.fromkeys(("optim.lr", "data.batch_size", "optim.weight_decay", "optim.warmup"), "1"),
        )

    threading.Thread(target=go_on, daemon=True).start()
    done = katib("watch", NAME)
    assert done.returncode == 0, done.stderr
    assert not api.faults
    assert "max trial count has reached" in done.stderr
    assert f"{NAME}-aaaa Succeeded val_f1=81.5" in done.stderr
    assert "*90.5" in done.stdout


def test_a_failed_experiment_and_an_endless_one(api: Api, katib: Katib) -> None:
    filled(api)
    done = katib("watch", NAME, "--timeout", 2)
    assert done.returncode == 7
    assert "is not completed after 2 s" in done.stderr
    api.end(NAME, "Failed", "Experiment has failed because max failed count has reached", None)
    done = katib("watch", NAME)
    assert done.returncode == 6
    assert "max failed count has reached" in done.stderr


def test_best_agrees_with_the_sdk(api: Api, katib: Katib, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(api)
    done = katib("best", NAME)
    assert (done.returncode, "no best trial yet" in done.stderr) == (2, True)
    api.end(NAME, "Succeeded", "done", f"{NAME}-bbbb")
    done = katib("best", NAME)
    assert done.stdout == "optim.lr=5e-05 data.batch_size=16 optim.weight_decay=0.01 optim.warmup=0.1\n"
    assert f"{NAME}-bbbb: val_f1 84.25" in done.stderr
    told = json.loads(katib("best", NAME, "--json").stdout)
    assert told["command"].startswith("python train.py model=minilm data=squad optim.lr=5e-05")
    assert "hydra.run.dir" not in told["command"]
    monkeypatch.setenv("KUBECONFIG", katib.environment["KUBECONFIG"])
    from kubeflow.katib import KatibClient

    optimal = KatibClient(config_file=katib.environment["KUBECONFIG"], namespace="team").get_optimal_hyperparameters(
        NAME
    )
    assert optimal.best_trial_name == told["trial"]
    assert {each.name: each.value for each in optimal.parameter_assignments} == told["assignments"]
    assert float(optimal.observation.metrics[0].max) == told["value"]


def test_trials_are_listed_and_reported(api: Api, katib: Katib, tmp_path: Path) -> None:
    filled(api)
    done = katib("trials", NAME, "--report", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    assert "*84.25" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    rows = [json.loads(line) for line in katib("trials", NAME, "--json").stdout.splitlines()]
    assert [(each["status"], each["value"]) for each in rows] == [
        ("Succeeded", 81.5),
        ("Succeeded", 84.25),
        ("Failed", None),
    ]
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") >= 2
    assert f"{NAME}-bbbb" in page


def test_delete_waits_until_it_is_gone(api: Api, katib: Katib) -> None:
    filled(api)
    api.lingers = 3
    done = katib("delete", NAME)
    assert done.returncode == 0, done.stderr
    assert ("experiments", "team", NAME) not in api.objects
    done = katib("delete", NAME)
    assert (done.returncode, f"has no Experiment {NAME}" in done.stderr) == (2, True)


@pytest.mark.slow
def test_a_server_that_hangs_is_given_up(api: Api, katib: Katib) -> None:
    filled(api)
    api.faults = [("GET .*/experiments/", "hang")] * 1
    begun = time.monotonic()
    done = katib("best", NAME, timeout=110)
    assert done.returncode == 2  # the second time it answers: no best trial yet
    assert "no best trial yet" in done.stderr
    assert time.monotonic() - begun < 100


def test_submit_changes_what_it_is_told(api: Api, katib: Katib) -> None:
    """As the tune step of a pipeline does: its own name, trials and image, and more overrides; twice attaches."""
    changes = [
        "model=distilbert",
        "data.path=/runs/my data",
        "--name",
        "tune-1",
        "--max-trials",
        "2",
        "--image",
        "i@sha256:0",
    ]
    for said in ("created", "attached to it"):
        done = katib("submit", FILE, *changes)
        assert done.returncode == 0, done.stderr
        assert said in done.stderr
    spec = stored(api, "tune-1")["spec"]
    assert (spec["maxTrialCount"], spec["parallelTrialCount"]) == (2, 2)
    container = spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "i@sha256:0"
    line = container["command"][2]
    assert "model=distilbert 'data.path=/runs/my data'" in line
    assert "optim.lr=${trialParameters.optimLr}" in line
    assert katib("submit", FILE, "optim.lr=1e-3", "--name", "fixed").returncode == 0
    spec = stored(api, "fixed")["spec"]
    assert "optim.lr" not in [each["name"] for each in spec["parameters"]]
    assert "optim.lr" not in [each["reference"] for each in spec["trialTemplate"]["trialParameters"]]
    assert (
        "optim.lr=1e-3 "
        in spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["command"][2]
    )
    every = [f"{each['name']}=1" for each in yaml.safe_load(FILE.read_text())["spec"]["parameters"]]
    nothing = katib("submit", FILE, *every, "--name", "none")
    assert (nothing.returncode, "fix all" in nothing.stderr) == (2, True)
    assert katib("submit", FILE, "--max-trials", "0").returncode == 2
    assert katib("submit", FILE, "optim.lrr=1").returncode == 2  # what the trainer does not have is found by check


def test_only_an_unfinished_experiment_is_deleted(api: Api, katib: Katib) -> None:
    filled(api)
    stored(api)["status"] = {"conditions": [{"type": "Succeeded", "status": "True", "message": "done"}]}
    done = katib("delete", NAME, "--unfinished")
    assert (done.returncode, "nothing to delete" in done.stderr) == (0, True)
    assert stored(api)
    stored(api)["status"] = {"conditions": [{"type": "Running", "status": "True", "message": ""}]}
    assert katib("delete", NAME, "--unfinished").returncode == 0
    assert ("experiments", "team", NAME) not in api.objects
    assert katib("delete", NAME, "--unfinished").returncode == 0
