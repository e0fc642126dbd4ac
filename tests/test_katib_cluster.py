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


class Commands:
    """The same in this process, for what needs no process of its own."""

    def __init__(
        self, api: Api, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(folder / "config")))
        monkeypatch.setattr("cluster.api._FIRST_PAUSE", 0.001)
        self.capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        from config.error_handling import report_errors
        from katib.__main__ import main

        code = 0
        try:
            with report_errors():
                code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err


@pytest.fixture
def commands(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(api, tmp_path, monkeypatch, capsys)


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


def test_a_command_that_the_shell_would_refuse(api: Api, katib: Katib, tmp_path: Path) -> None:
    """`--no-check` creates it all the same; overrides have no place in it."""
    path = tmp_path / "a.yaml"
    path.write_text(FILE.read_text().replace("train.py ", "train.py hydra.sweep.dir=it's ", 1))
    assert katib("submit", path).returncode == 2
    done = katib("submit", path, "--no-check", "model=bert_tiny")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "cannot add overrides: the shell would refuse the trial's command: No closing quotation" in done.stderr
    done = katib("submit", path, "--no-check", "--name", NAME)
    assert done.returncode == 0, done.stderr
    assert "it's" in json.dumps(stored(api)["spec"])


def test_zero_values_that_the_cluster_drops_are_no_difference(api: Api, katib: Katib, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(FILE.read_text().replace("retain: true", "retain: false"))
    assert katib("submit", path).returncode == 0
    del stored(api)["spec"]["trialTemplate"]["retain"]
    assert "attached to it" in katib("submit", path).stderr


def test_a_trainjob_needs_its_runtime(api: Api, commands: Commands) -> None:
    file = ROOT / "katib" / "images-trainjob.yaml"
    code, _, err = commands("submit", file)
    assert (code, "team has no TrainingRuntime isotrain; kubectl apply -k katib/cluster/trainer -n team" in err) == (2, True), err  # fmt: skip
    assert not api.objects
    api.rules = REQUIRED  # it may not be looked at
    assert commands("submit", file, "--name", "a")[0] == 0
    api.rules = None
    api.put("trainingruntimes", "team", {"metadata": {"name": "isotrain", "namespace": "team"}, "spec": {}})
    assert commands("submit", file)[0] == 0


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


# --- the server's own words

WEBHOOK = (
    'Internal error occurred: failed calling webhook "validator.experiment.katib.kubeflow.org": failed to call webhook: '
    'Post "https://katib-controller.kubeflow.svc:443/validate-experiment?timeout=10s": context deadline exceeded'
)


def test_an_error_of_the_server_is_shown_in_its_own_words_after_all_attempts(api: Api, commands: Commands) -> None:
    api.faults = [("POST", (500, WEBHOOK))] * 6
    code, _, err = commands("submit", FILE)
    assert code == 7
    assert f"cannot create the Experiment {NAME}: the cluster answered 500: {WEBHOOK}; 6 attempts in " in err
    assert "the service of this webhook is down or overloaded" in err
    assert not api.faults
    api.faults = [("POST", (500, WEBHOOK))] * 5
    code, _, err = commands("submit", FILE)
    assert (code, "created the Experiment" in err) == (0, True)


@pytest.mark.parametrize(
    ("status", "message", "text"),
    [
        (
            403,
            'experiments is forbidden: User "me" cannot create resource "experiments"',
            "no permission (experiments is forbidden",
        ),
        (
            403,
            'experiments "a" is forbidden: exceeded quota: small',
            "the cluster refused to create the Experiment questions-json: exp",
        ),
        (
            403,
            'admission webhook "policy" denied the request: no',
            "the cluster refused to create the Experiment questions-json: adm",
        ),
        (
            400,
            'admission webhook "validator" denied the request: x',
            'admission webhook "validator" denied the request: x',
        ),
        (422, "Experiment is invalid: spec", "Experiment is invalid: spec"),
        (401, "Unauthorized", "not logged in to the cluster (Unauthorized)"),
    ],
)
def test_what_no_attempt_changes_is_refused_at_once(
    status: int, message: str, text: str, api: Api, commands: Commands
) -> None:
    api.faults = [("POST", (status, message))]
    code, _, err = commands("submit", FILE)
    assert (code, text in err) == (2, True), err
    assert sum(line.startswith("POST") for line in api.asked) == 1
    assert ("rbac.yaml" in err) == ("no permission" in err)


# --- rights

ROLE = yaml.safe_load((ROOT / "katib/cluster/rbac.yaml").read_text())["rules"]
REQUIRED = [rule for rule in ROLE if set(rule["resources"]) & {"experiments", "trials"}]


@pytest.mark.parametrize("rules", [ROLE, REQUIRED], ids=["all", "required"])
def test_the_shipped_role_is_enough_for_every_command(
    rules: list[dict[str, Any]], api: Api, commands: Commands, tmp_path: Path
) -> None:
    api.rules = rules
    assert commands("submit", FILE)[0] == 0
    api.trial(NAME, f"{NAME}-bbbb", "Failed", None, **dict.fromkeys(POINT, "1"))
    api.pod(NAME, f"{NAME}-bbbb-x", exit_status(3), f"{NAME}-bbbb")
    api.event("Suggestion", NAME, "ReconcileError", "no", count=9)
    missing = "why trials fail or do not run is not known: pods, events, suggestions could not be looked at (cannot list the pods: no permission"
    code, _, err = commands("trials", NAME, "--report", tmp_path / "report.html")
    assert code == 0
    assert (missing in err) == (rules is REQUIRED), err
    assert ("exit code 3: diverged" in err) == (rules is ROLE)
    code, _, err = commands("watch", NAME, "--timeout", "0.5")
    assert code == 7
    assert err.count("could not be looked at") == (1 if rules is REQUIRED else 0)
    code, _, err = commands("watch", NAME, "--wait-for-start", "5m", "--timeout", "0.5")
    assert (code, "--wait-for-start needs to list pods" in err) == ((2, True) if rules is REQUIRED else (7, False))
    assert commands("best", NAME)[0] == 2
    code, _, err = commands("delete", NAME)
    assert (code, "its pods could not be looked at" in err) == (0, rules is REQUIRED)


# --- reasons

POINT = ("optim.lr", "data.batch_size", "optim.weight_decay", "optim.warmup")


def exit_status(code: int, reason: str = "Error") -> dict[str, Any]:
    ended = {"exitCode": code, "reason": reason, "finishedAt": "2026-01-01T00:00:05Z"}
    collector = {"exitCode": 255, "reason": "Error", "finishedAt": "2026-01-01T00:00:06Z"}
    states = [("metrics-logger-and-collector", collector), ("training", ended)]
    return {
        "phase": "Failed",
        "containerStatuses": [{"name": name, "state": {"terminated": end}} for name, end in states],
    }


def waiting_status(reason: str, message: str) -> dict[str, Any]:
    states = [{"name": "training", "state": {"waiting": {"reason": reason, "message": message}}}]
    return {"phase": "Pending", "containerStatuses": states}


CLAIM = {
    "phase": "Pending",
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": 'persistentvolumeclaim "isotrain-runs" not found',
        }
    ],
}
NO_ROOM = {
    "phase": "Pending",
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient cpu.",
        }
    ],
}
EVICTED = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
KLOG = "I1127 05:00:00.123456      14 main.go:143] "


@pytest.mark.parametrize(
    ("state", "status", "log", "text"),
    [
        (
            "Running",
            waiting_status("ImagePullBackOff", "Back-off"),
            "",
            "does not run: the image isotrain:0.1.0 cannot be pulled",
        ),
        ("Running", CLAIM, "", "does not run: the volume claim isotrain-runs does not exist"),
        ("Running", NO_ROOM, "", "does not run: no node has room for memory 400Mi, cpu 2"),
        (
            "Failed",
            exit_status(137, "OOMKilled"),
            "",
            "failed: container training ran out of memory (OOMKilled at its limit of 400Mi)\n",
        ),
        ("Failed", EVICTED, "", "failed: evicted: The node was low on resource: memory."),
        (
            "Failed",
            exit_status(3),
            f"{KLOG}isotrain: the loss is nan at step 3\nF1127 main.go:9] Failed to wait\n",
            "failed: container training: exit code 3: diverged; the loss is nan at step 3\n",
        ),
        (
            "Running",
            exit_status(2),
            f"{KLOG}isotrain: no such data\n",
            "does not run: container training: exit code 2: configuration or input refused; no such data\n",
        ),
    ],
)
def test_why_a_trial_does_not_run_or_failed(
    state: str, status: dict[str, Any], log: str, text: str, api: Api, commands: Commands
) -> None:
    filled(api)
    name = f"{NAME}-dddd"
    api.trial(NAME, name, state, None, **dict.fromkeys(POINT, "1"))
    api.pod(NAME, f"{name}-x", status, name)
    api.logs[f"{name}-x", "metrics-logger-and-collector"] = log
    code, _, err = commands("trials", NAME)
    assert code == 0
    assert f"isotrain: {name} {text}" in err
    rows = [json.loads(line) for line in commands("trials", NAME, "--json")[1].splitlines()]
    assert text.strip().partition(": ")[2] in {row["name"]: row["reason"] for row in rows}[name]
    code, _, err = commands("watch", NAME, "--timeout", "0.5")
    assert code == 7
    assert text.strip().partition(": ")[2] in err


@pytest.mark.parametrize(
    ("message", "retain", "text"),
    [
        (
            "Trial has failed. Job message: Job has reached the specified backoff limit",
            False,
            "backoff limit; Katib deleted its pods",
        ),
        ("Trial has failed. Job message: Job has reached the specified backoff limit", True, "backoff limit\n"),
        (
            "Trial has failed. Job message: Container training for pod team/a-x failed with exit code 3 matching FailJob rule at index 1",
            False,
            "failed with exit code 3 (diverged) matching",
        ),
    ],
)
def test_a_trial_whose_pods_are_gone(message: str, retain: bool, text: str, api: Api, commands: Commands) -> None:
    filled(api)
    stored(api)["spec"]["trialTemplate"]["retain"] = retain
    api.objects["trials", "team", f"{NAME}-cccc"]["status"]["conditions"][1]["message"] = message
    assert text in commands("trials", NAME)[2]


def test_a_reason_is_kept_when_katib_deletes_the_pods(
    api: Api, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    from katib import cluster_commands
    from katib.trial_reasons import Reasons

    filled(api)
    name = f"{NAME}-cccc"
    api.trial(NAME, name, "Running", None, **dict.fromkeys(POINT, "1"))
    api.pod(NAME, f"{name}-x", exit_status(137, "OOMKilled"), name)
    cluster = cluster_commands.Cluster()

    def explain() -> str:
        value, experiment = cluster_commands._load_experiment(cluster, NAME)
        rows = [cluster_commands.parse_trial(item, experiment) for item in cluster.list_trials(NAME)[0]]
        return {row.name: row.reason for row in reasons.explain(value, rows)[0]}[name]

    reasons = Reasons(cluster, stored(api))
    assert "OOMKilled" in explain()
    del api.objects["pods", "team", f"{name}-x"]
    api.trial(NAME, name, "Failed", None, **dict.fromkeys(POINT, "1"))
    assert "OOMKilled" in explain()


def test_a_pod_after_an_eviction_is_told_from_the_evicted_one(api: Api, commands: Commands) -> None:
    filled(api)
    name = f"{NAME}-dddd"
    api.trial(NAME, name, "Running", None, **dict.fromkeys(POINT, "1"))
    api.pod(NAME, f"{name}-x", EVICTED, name)
    assert "does not run: evicted" in commands("trials", NAME)[2]
    api.pod(
        NAME,
        f"{name}-y",
        {"phase": "Running", "containerStatuses": [{"name": "training", "state": {"running": {}}}]},
        name,
    )
    assert "does not run" not in commands("trials", NAME)[2]


def test_the_rank_that_failed_first_is_told(api: Api, commands: Commands) -> None:
    filled(api)
    name = f"{NAME}-dddd"
    api.trial(NAME, name, "Failed", None, **dict.fromkeys(POINT, "1"))
    api.pod(NAME, f"{name}-master-0", exit_status(138), name)
    api.pod(NAME, f"{name}-worker-0", exit_status(137, "OOMKilled"), name)
    assert f"{name} failed: {name}-worker-0: container training ran out of memory" in commands("trials", NAME)[2]


def test_a_trial_without_pods_and_a_suggestion_service_that_fails(api: Api, commands: Commands) -> None:
    filled(api)
    name = f"{NAME}-dddd"
    api.trial(NAME, name, "Running", None, **dict.fromkeys(POINT, "1"))
    api.event("Job", name, "FailedCreate", "exceeded quota: small")
    assert f"{name} does not run: its pods cannot be created: exceeded quota: small" in commands("trials", NAME)[2]
    del api.objects["trials", "team", name]
    nan = "rpc error: code = Unknown desc = Exception calling application: could not convert string to float: ''"
    api.event("Suggestion", NAME, "ReconcileError", nan, count=2)
    assert "no trial runs" not in commands("trials", NAME)[2]  # it is so while the service starts
    api.event("Suggestion", NAME, "ReconcileError", nan, count=12)
    expected = f"the suggestion service fails: {nan} (kubeflow/katib#2723: an objective that is not a number)"
    assert f"isotrain: no trial runs: {expected}" in commands("trials", NAME)[2]
    assert expected in commands("best", NAME)[2]
    pod = api.pod(NAME, f"{NAME}-tpe-1", {"phase": "Running"})
    last = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    pod["status"]["containerStatuses"] = [
        {
            "name": "suggestion",
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "restartCount": 3,
            "lastState": last,
        }
    ]
    assert (
        "the suggestion service does not run: restarted 3 times; last: container suggestion ran out of"
        in commands("trials", NAME)[2]
    )
    condition = {"type": "Failed", "status": "True", "message": "Validation failed: gamma"}
    api.put("suggestions", "team", {"metadata": {"name": NAME}, "status": {"conditions": [condition]}})
    api.end(NAME, "Failed", "Suggestion has failed", None)
    code, _, err = commands("watch", NAME)
    assert (code, "the suggestion service refuses the search: Validation failed: gamma" in err) == (6, True)


def test_a_search_whose_suggestion_service_is_not_ready_says_so(api: Api, commands: Commands) -> None:
    assert commands("submit", FILE)[0] == 0
    start = "has run for 0.5 s: "
    for status, reason in (
        (None, "Katib has not started its suggestion service; is Katib's controller running?"),
        ("False", f"its suggestion service is not ready (pod {NAME}-tpe-1)"),
        ("True", "its suggestion service is ready, but has suggested nothing"),
    ):
        if status:
            api.pod(NAME, f"{NAME}-tpe-1", {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]})
        code, _, err = commands("watch", NAME, "--wait-for-start", "0.5s")
        assert (code, start + reason in err) == (7, True), err


def test_a_pipe_has_whole_names(api: Api, commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(api)
    name = f"{NAME}-{'d' * 60}"
    api.trial(NAME, name, "Running", None, **dict.fromkeys(POINT, "1"))
    monkeypatch.delenv("COLUMNS", raising=False)
    assert name in commands("trials", NAME)[1]
    monkeypatch.setenv("COLUMNS", "80")
    assert name not in (table := commands("trials", NAME)[1])
    assert max(map(len, table.splitlines())) <= 80


def test_wait_for_start_ends_with_the_reason(api: Api, commands: Commands) -> None:
    filled(api)
    name = f"{NAME}-dddd"
    api.trial(NAME, name, "Running", None, **dict.fromkeys(POINT, "1"))
    api.pod(NAME, f"{name}-x", CLAIM, name)
    code, _, err = commands("watch", NAME, "--wait-for-start", "0.5s")
    assert code == 7
    assert f"no trial of {NAME} has run for 0.5 s: {name}: the volume claim isotrain-runs does not exist" in err
    assert f"python -m katib delete {NAME} -n team" in err
    api.pod(
        NAME,
        f"{name}-x",
        {"phase": "Running", "containerStatuses": [{"name": "training", "state": {"running": {}}}]},
        name,
    )
    code, _, err = commands("watch", NAME, "--wait-for-start", "1s", "--timeout", "3")
    assert (code, "is not completed after 3 s" in err) == (7, True)  # a trial runs
    assert commands("watch", NAME, "--wait-for-start", "soon")[0] == 2
    assert commands("submit", FILE, "--wait-for-start", "1m")[0] == 2


# --- deleting


def test_delete_waits_for_trials_and_pods_and_uses_the_background(api: Api, commands: Commands) -> None:
    """In the foreground the double keeps the Experiment and its pods, as Katib's controllers do."""
    filled(api)
    api.pod(NAME, f"{NAME}-aaaa-x", {"phase": "Running"}, f"{NAME}-aaaa")
    api.lingers = 10**6
    code, _, err = commands("delete", NAME, "--timeout", "0.1")
    assert code == 7
    assert f"there still are: 3 trials, 1 pod ({NAME}-aaaa-x)" in err
    api.lingers = 4
    assert commands("delete", NAME)[0] == 0  # repeated, it waits for what is left
    assert not [key for key in api.objects if key[0] != "events"]
    assert commands("delete", NAME)[0] == 2
