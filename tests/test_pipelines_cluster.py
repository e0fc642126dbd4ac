"""`python -m pipelines submit|schedule|status`, over HTTP against a small Kubeflow Pipelines."""

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import katib_api_double
from tests.conftest import forked
from tests.kfp_api_double import Api
from tests.kfp_nodes_double import WORKFLOW

from pipelines import interruption

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "pipelines" / "train.yaml"
STEPS = [
    "data", "plan", "quality", "quality gate", "drift", "drift gate", "tune", "train", "evaluate", "explain",
    "explanation gate", "benchmark", "benchmark gate", "register", "finish",
]  # fmt: skip
DIGEST = f"me/isotrain@sha256:{'0' * 64}"


@pytest.fixture
def api() -> Iterator[Api]:
    found = Api()
    yield found
    found.close()


class Pipelines:
    """`python -m pipelines` with an environment of its own."""

    def __init__(self, api: Api, folder: Path, warm: Path) -> None:
        self.folder, self.warm = folder, warm
        self.environment = {**os.environ, "KFP_HOST": api.host, "HOME": str(folder)}

    def __call__(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        # Polling every five seconds is for clusters; the variable KUBECONFIG is read by the import, before the fork.
        code = f"import sys, os; from kubernetes.config import kube_config; kube_config.KUBE_CONFIG_DEFAULT_LOCATION = os.environ.get('KUBECONFIG', '/nowhere'); from pipelines import remote, __main__ as m; remote.POLL = 0.05; remote.PATIENCE = 2; remote.termination.POLL = 0.05; remote.schedules.POLL = 0.05; remote.schedules.SETTLE = 0; sys.exit(m.main({[str(each) for each in arguments]!r}))"
        code = f"from config.error_handling import report_errors\nwith report_errors():\n    {code.replace('; ', chr(10) + '    ')}"
        (self.folder / "command.py").write_text(code)
        return forked(
            self.warm, [str(self.folder / "command.py")], self.folder, {**self.environment, **environment}, 120
        )


@pytest.fixture
def pipelines(api: Api, tmp_path: Path, warm_kfp: Path) -> Pipelines:
    return Pipelines(api, tmp_path, warm_kfp)


def test_submit_uploads_runs_and_waits(api: Api, pipelines: Pipelines, tmp_path: Path) -> None:
    done = pipelines(
        "submit", FILE, "model=bert", "data=squad", "optim.lr=3e-5", "-p", "margin=1", "-p", "when=changed",
        "--image", DIGEST, "--version", "abc-1", "--summary", tmp_path / "summary.md", "--service-account", "isotrain-pipelines",
        "--ui", "https://kubeflow.example/pipeline/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "run=runs-1"
    assert "https://kubeflow.example/pipeline/#/runs/details/runs-1" in done.stderr
    assert api.host not in done.stderr  # the API has no pages
    assert "warning" not in done.stderr
    assert [each["display_name"] for each in api.versions.values()] == ["abc-1"]
    assert api.versions["version-1"]["text"] == FILE.read_text()
    run = api.runs["runs-1"]
    assert run["pipeline_version_reference"] == {"pipeline_id": "pipelines-1", "pipeline_version_id": "version-1"}
    assert run["service_account"] == "isotrain-pipelines"
    given = run["runtime_config"]["parameters"]
    wanted = {"model": "bert", "data": "squad", "overrides": ["optim.lr=3e-5"], "margin": 1.0, "when": "changed"}
    assert given == {**wanted, "image": DIGEST}
    assert api.experiments[run["experiment_id"]]["display_name"] == "isotrain"
    rows = [line.split() for line in done.stdout.splitlines()[2:]]
    assert [" ".join(row[:-2]) for row in rows] == STEPS
    assert [rows[0], rows[7]] == [["data", "SUCCEEDED", "1.0"], ["train", "SUCCEEDED", "7.0"]]
    assert {row[-2] for row in rows} == {"SUCCEEDED"}
    assert "| train | SUCCEEDED | 7 |" in (tmp_path / "summary.md").read_text()
    again = pipelines("submit", FILE, "--version", "abc-1", "--no-wait")
    assert (again.returncode, "is there already" in again.stderr) == (0, True)
    assert (len(api.versions), len(api.pipelines), len(api.experiments)) == (1, 1, 1)
    assert "is not named by its digest" in again.stderr


def test_resources_of_a_step_make_a_version_of_their_own(api: Api, pipelines: Pipelines) -> None:
    words = ("submit", FILE, "model=bert_tiny", "data=squad_sample", "--no-wait", "-p")
    assert [pipelines(*words, row).returncode for row in ("train.cpu=4", "train.cpu=8", "train.cpu=4")] == [0, 0, 0]
    texts = [version["text"] for version in api.versions.values()]
    assert len(texts) == 2
    assert ["resourceCpuLimit: '4'" in text and "resourceCpuRequest: '8'" in text for text in texts] == [False, True]


def test_another_file_is_another_version(api: Api, pipelines: Pipelines, tmp_path: Path) -> None:
    """Of one commit, too: settings change a file."""
    gpu = ROOT / "pipelines" / "train-gpu.yaml"
    for file in (FILE, gpu, FILE):
        assert pipelines("submit", file, "--no-wait").returncode == 0
    names = [each["display_name"] for each in api.versions.values()]
    assert len(set(names)) == len(names) == 2
    assert [each["pipeline_version_reference"]["pipeline_version_id"][-1] for each in api.runs.values()] == [
        "1",
        "2",
        "1",
    ]
    pipelines("submit", FILE, "--no-wait", "--version", "mine")
    done = pipelines("submit", gpu, "--no-wait", "--version", "mine")
    assert (done.returncode, "is another pipeline than" in done.stderr) == (2, True)


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_every_end_that_is_no_success_is_6(state: str, api: Api, pipelines: Pipelines, tmp_path: Path) -> None:
    """KFP's own wait returns normally on FAILED, and never on CANCELED."""
    api.course = ["RUNNING", state]
    api.logs = {
        "train": "isotrain: train …\nisotrain: train: exit code 3 | training diverged\nF1127 main.go:57] exit status 3\n"
    }
    done = pipelines("submit", FILE, "--image", DIGEST, "--summary", tmp_path / "s.md")
    assert (done.returncode, done.stderr.count("Traceback")) == (6, 0), done.stderr
    assert f"the run runs-1 is {state}" in done.stderr
    if state == "FAILED":
        assert "exit code 3 | training diverged" in done.stdout
        assert "exit code 3 \\| training diverged |" in (tmp_path / "s.md").read_text()


def test_a_server_that_is_away_for_a_while_is_waited_for(api: Api, pipelines: Pipelines) -> None:
    api.faults = [("GET .*/runs/", 503), ("GET .*/runs/", "drop"), ("GET .*/runs/", 500)]
    done = pipelines("submit", FILE, "--image", DIGEST)
    assert done.returncode == 0, done.stderr
    assert api.faults == []


def test_one_that_stays_away_is_7(api: Api, pipelines: Pipelines) -> None:
    api.faults = [("GET .*/runs/", 503)] * 1000
    done = pipelines("submit", FILE, "--image", DIGEST)
    assert (done.returncode, "fails: 503" in done.stderr) == (7, True), done.stderr
    api.close()
    done = pipelines("submit", FILE, "--image", DIGEST)
    assert (done.returncode, done.stderr.count("Traceback")) == (7, 0), done.stderr
    assert "does not answer" in done.stderr


def test_a_run_that_takes_too_long_goes_on(api: Api, pipelines: Pipelines) -> None:
    api.course = ["RUNNING"]
    done = pipelines("submit", FILE, "--image", DIGEST, "--timeout", 1)
    assert (done.returncode, "it continues" in done.stderr) == (7, True), done.stderr
    assert api.runs["runs-1"]["course"] == ["RUNNING"]


def test_a_token_is_sent(api: Api, pipelines: Pipelines) -> None:
    api.token = "secret"
    refused = pipelines("submit", FILE, "--image", DIGEST)
    assert (refused.returncode, "set KFP_TOKEN" in refused.stderr) == (2, True), refused.stderr
    assert pipelines("submit", FILE, "--image", DIGEST, KFP_TOKEN="secret").returncode == 0


def test_what_check_or_the_trainer_refuses_is_not_sent(api: Api, pipelines: Pipelines, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(FILE.read_text().replace("producerTask: tune", "producerTask: tuen"))
    for arguments, said in (
        ((broken,), "there is no task tuen"),
        ((FILE, "model=bret"), "did you mean bert"),
        ((FILE, "-p", "explain=maybe"), "enforce, warn, off"),
        ((FILE, f"data.path={'x' * 10_001}"), "10,000 bytes"),
        (("none.yaml",), "cannot read none.yaml"),
    ):
        done = pipelines("submit", *arguments)
        assert (done.returncode, done.stderr.count("Traceback")) == (2, 0), done.stderr
        assert said in done.stderr
    assert api.asked == []
    done = pipelines("submit", FILE, KFP_HOST="")
    assert (done.returncode, "port-forward" in done.stderr) == (2, True)


def test_a_schedule_is_replaced(api: Api, pipelines: Pipelines) -> None:
    for number in (1, 2):
        done = pipelines(
            "schedule", FILE, "model=bert", "data=squad", "--cron", "0 0 3 * * *", "-p", "when=changed",
            "--image", DIGEST, "--version", f"v{number}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        time.sleep(0.01)
    (found,) = api.schedules.values()
    assert found["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert (found["no_catchup"], str(found["max_concurrency"])) == (True, "1")
    assert found["pipeline_version_reference"]["pipeline_version_id"] == "version-2"
    assert found["runtime_config"]["parameters"]["when"] == "changed"
    assert "1 of that name replaced" in done.stderr
    refused = pipelines("schedule", FILE, "--cron", "0 3 * * *")
    assert (refused.returncode, "six fields" in refused.stderr) == (2, True)


def test_status_and_the_end_of_a_run(api: Api, pipelines: Pipelines) -> None:
    api.course = ["RUNNING"]
    pipelines("submit", FILE, "--image", DIGEST, "--no-wait")
    done = pipelines("status", "runs-1")
    assert (done.returncode, "RUNNING: " in done.stderr) == (0, True)
    assert done.stdout.splitlines()[1].split() == ["data", "SUCCEEDED", "1.0"]
    assert pipelines("status").stdout.split()[:2] == ["RUNNING", "runs-1"]
    assert pipelines("status", "runs-1", "--terminate").returncode == 0
    assert "TERMINATED" in pipelines("status", "runs-1").stderr
    missing = pipelines("status", "runs-9")
    assert (missing.returncode, "404 runs runs-9 not found" in missing.stderr) == (2, True), missing.stderr


def test_a_namespace_of_a_kubeflow_without_users_is_refused(api: Api, pipelines: Pipelines) -> None:
    """It would be ignored, and the run be in another one."""
    done = pipelines("submit", FILE, "--image", DIGEST, "-n", "team", "--no-wait")
    assert (done.returncode, "-n team would be ignored" in done.stderr, api.runs) == (2, True, {}), done.stderr


def test_each_change_of_a_step_is_one_line(api: Api, pipelines: Pipelines) -> None:
    api.course = ["", "PENDING", *["RUNNING"] * 4, "SUCCEEDED"]
    done = pipelines("submit", FILE, "--image", DIGEST)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("isotrain: ")]
    assert len(lines) == len(set(lines))
    assert {line.partition(": ")[0] for line in lines} == set(STEPS)
    assert lines[:2] == ["data: SUCCEEDED", "plan: SUCCEEDED"]
    assert "train: RUNNING" in lines
    assert "train: SUCCEEDED" in lines


@pytest.mark.parametrize("default_retries", [False, True], ids=["", "retries"])
@pytest.mark.parametrize("v1", [True, False], ids=["v1beta1", "v2beta1"])
def test_a_run_that_failed_says_where_and_why(v1: bool, default_retries: bool, api: Api, pipelines: Pipelines) -> None:
    """Its tasks come after its end, name no error, and are Argo's nodes; those never reached have no state."""
    api.default_retries = default_retries
    api.v1, api.course, api.late = v1, ["RUNNING", "FAILED"], 2
    api.logs = {
        "train": "isotrain: train …\nepoch=1 val_f1=3.0\nisotrain: train: the training diverged at step 7: lower optim.lr\n"
        "I1127 launcher_v2.go:190] ended\nF1127 main.go:57] failed to execute component: exit status 3\n"
    }
    done = pipelines("submit", FILE, "--image", DIGEST)
    assert done.returncode == 6
    reason = "the training diverged at step 7: lower optim.lr (exit code 3: diverged)"
    assert f"the run runs-1 is FAILED in the step train: {reason}" in done.stderr
    assert "http" not in done.stderr.splitlines()[-1]
    later = pipelines("status", "runs-1")
    for text in (done.stdout, later.stdout):
        rows = {step: line for step in STEPS for line in text.splitlines() if line.startswith(f"{step}  ")}
        assert list(rows) == STEPS
        assert "FAILED" in rows["train"]
        assert "the training diverged at step 7" in rows["train"]
        assert all("SKIPPED" in rows[step] for step in STEPS[8:-1])
        assert all("SUCCEEDED" in rows[step] for step in [*STEPS[:7], "finish"])
    assert f"FAILED in the step train: {reason}: runs-1" in later.stderr


def test_a_step_that_ends_before_isotrain_begins_has_its_exception(
    api: Api, pipelines: Pipelines, tmp_path: Path
) -> None:
    """As with an image whose PYTHONPATH lost isotrain: neither Argo's message nor the pod tells more than exit code 1."""
    cluster = katib_api_double.Api()
    api.course, api.message = ["RUNNING", "FAILED"], "main: Error (exit code 1)"
    api.logs = {
        "train": "Traceback (most recent call last):\nModuleNotFoundError: No module named 'pipelines'\n"
        "F1128 04:15:11.947362 16 main.go:130] failed to execute component: exit status 1\nError: exit status 1\n"
    }
    pod = {
        "metadata": {
            "name": "a",
            "namespace": "kubeflow",
            "labels": {"pipeline/runid": "runs-1"},
            "annotations": {"workflows.argoproj.io/node-name": "train-x(0).root(0).train(0).executor(0)"},
        },
        "status": {
            "phase": "Failed",
            "containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}],
        },
    }
    cluster.put("pods", "kubeflow", pod)
    done = pipelines("submit", FILE, "--image", DIGEST, KUBECONFIG=str(cluster.kubeconfig(tmp_path / "config")))
    cluster.close()
    assert done.returncode == 6
    assert "FAILED in the step train: ModuleNotFoundError: No module named 'pipelines'" in done.stderr


@pytest.mark.parametrize("message", ["pod deleted", "main: Error (exit code 143)"])
def test_a_run_whose_pod_was_deleted_is_retried(message: str, api: Api, pipelines: Pipelines) -> None:
    """Argo 3.5's default (KFP 2.16) starts no pod in place of a deleted one; 2.17's sometimes does not."""
    api.course, api.message, api.retried = ["RUNNING", "FAILED"], message, [["FAILED"], ["RUNNING", "SUCCEEDED"]]
    done = pipelines("submit", FILE, "--image", DIGEST, KUBECONFIG="/nowhere")
    assert done.returncode == 0, done.stderr
    said = "the pod of the step train was deleted, and no other one started in its place: the run is retried"
    assert done.stderr.count(said) == 2
    assert [line for line in api.asked if line.endswith(":retry")] == ["POST /apis/v2beta1/runs/runs-1:retry"] * 2
    api.retried = [["FAILED"]] * 3
    done = pipelines("submit", FILE, "--image", DIGEST, KUBECONFIG="/nowhere")
    assert (done.returncode, done.stderr.count(said)) == (6, 2), done.stderr
    assert len(api.retried) == 1


@pytest.mark.parametrize(("message", "terminated"), [("Error (exit code 137)", False), ("pod deleted", True)])
def test_no_other_end_is_retried(message: str, terminated: bool, api: Api, pipelines: Pipelines) -> None:
    api.course, api.message = ["RUNNING", "CANCELING", "FAILED"] if terminated else ["RUNNING", "FAILED"], message
    done = pipelines("submit", FILE, "--image", DIGEST, KUBECONFIG="/nowhere")
    assert (done.returncode, "is TERMINATED" in done.stderr) == (6, terminated), done.stderr
    assert "is retried" not in done.stderr
    assert not [line for line in api.asked if line.endswith(":retry")]


def test_a_retry_that_is_refused_is_said(api: Api, pipelines: Pipelines) -> None:
    api.course, api.message = ["RUNNING", "FAILED"], "pod deleted"
    api.faults = [(":retry", 500)]
    done = pipelines("submit", FILE, "--image", DIGEST, KUBECONFIG="/nowhere")
    assert done.returncode == 6
    assert re.search(r"the step train was deleted.*the run could not be retried: .*500 a fault", done.stderr)
    assert "the run runs-1 is FAILED in the step train: pod deleted" in done.stderr


@pytest.mark.parametrize(
    ("course", "message", "reason"),
    [
        (["RUNNING", "FAILED"], "OOMKilled (exit code 137)", "OOMKilled (exit code 137"),
        (["RUNNING", "FAILED"], "Error (exit code 1)", "train"),
        (["RUNNING"], "", ""),
    ],
)
def test_what_no_log_tells_the_workflow_or_the_pods_tell(
    course: list[str], message: str, reason: str, api: Api, pipelines: Pipelines
) -> None:
    api.course, api.message = course, message
    pipelines("submit", FILE, "--image", DIGEST, "--no-wait")
    for _ in course:
        done = pipelines("status", "runs-1", KUBECONFIG="/nowhere")
    assert done.returncode == 0, done.stderr
    assert reason in done.stderr
    assert ("could not be looked at" in done.stderr) == (message == "Error (exit code 1)")


def test_a_run_whose_workflow_is_compressed_has_its_true_states(api: Api, pipelines: Pipelines) -> None:
    """Argo compresses the nodes above 1 MB, as with three further steps on KFP 2.17; KFP's tasks stay as they were."""
    api.course, api.compressed = ["RUNNING", "SUCCEEDED"], "register"
    done = pipelines("submit", FILE, "--image", DIGEST)
    assert done.returncode == 0, done.stderr
    assert "finish: SUCCEEDED" in done.stderr.splitlines()
    assert done.stderr.count("isotrain: Argo compressed the Workflow of this run") == 1
    later = pipelines("status", "runs-1")
    for text in (done.stdout, later.stdout):
        rows = [line.split() for line in text.splitlines() if line.endswith(".0")]
        assert ([" ".join(row[:-2]) for row in rows], {row[-2] for row in rows}) == (STEPS, {"SUCCEEDED"})
    assert "Kubeflow's page shows its steps as they were before" in later.stderr


def test_the_pods_have_the_logs_that_kubeflow_does_not_find(api: Api, pipelines: Pipelines, tmp_path: Path) -> None:
    """Of a Workflow that Argo compressed."""
    api.course, api.compressed = ["SUCCEEDED"], "register"
    api.logs = {"register": "isotrain: register: done in 8.5 s: dots version 1 (champion)\n"}
    pipelines("submit", FILE, "--image", DIGEST, "--no-wait")
    assert "registered" not in pipelines("status", "runs-1", KUBECONFIG="/nowhere").stderr
    cluster = katib_api_double.Api()
    nodes = api._nodes(api.runs["runs-1"], "SUCCEEDED")
    node = next(node for node in nodes if node["name"].endswith(".register.executor(0)"))
    name = f"{WORKFLOW}-{node['templateName']}-{node['id'].rpartition('-')[2]}"
    cluster.put("pods", "kubeflow", {"metadata": {"name": name, "namespace": "kubeflow"}, "status": {}})
    cluster.logs[(name, "main")] = api.logs["register"]
    done = pipelines("status", "runs-1", KUBECONFIG=str(cluster.kubeconfig(tmp_path / "config")))
    cluster.close()
    assert "isotrain: registered dots version 1 (champion)" in done.stderr


def test_what_was_registered_is_said(api: Api, pipelines: Pipelines, tmp_path: Path) -> None:
    """A model that did not reach its floor is a candidate, and the run succeeds nevertheless."""
    text = "dots version 1 (candidate); it was not promoted: failed: there is no champion yet; val_f1 9.1, at least 80"
    api.course = ["RUNNING", "SUCCEEDED"]
    api.logs = {
        "register": f"isotrain: register …\nisotrain: register: done in 8.5 s: {text}\nI1128 launcher.go] ended\n"
    }
    done = pipelines("submit", FILE, "--image", DIGEST, "--summary", tmp_path / "s.md")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == f"isotrain: registered {text}"
    assert "registered dots version 1 (candidate)" in (tmp_path / "s.md").read_text()
    assert f"isotrain: registered {text}" in pipelines("status", "runs-1").stderr


@pytest.mark.parametrize("default_retries", [False, True])
def test_what_is_taken_from_the_cache_is_said(default_retries: bool, api: Api, pipelines: Pipelines) -> None:
    api.default_retries = default_retries
    for v1 in (True, False):
        api.v1, api.cached = v1, ("quality", "train")
        done = pipelines("submit", FILE, "--image", DIGEST)
        states = {" ".join(words[:-2]): words[-2] for line in done.stdout.splitlines()[2:] if (words := line.split())}
        assert [step for step, state in states.items() if state == "CACHED"] == ["quality", "train"]
        assert set(states.values()) == {"SUCCEEDED", "CACHED"}


def test_a_run_has_a_state_from_its_first_moment(api: Api, pipelines: Pipelines) -> None:
    api.course = [""]
    pipelines("submit", FILE, "--image", DIGEST, "--no-wait")
    assert pipelines("status").stdout.split()[:2] == ["PENDING", "runs-1"]
    done = pipelines("status", "runs-1")
    assert "isotrain: PENDING: runs-1" in done.stderr
    assert {line.split()[-2] for line in done.stdout.splitlines()[1:]} == {"WAITING"}


def test_a_run_can_be_terminated_twice(api: Api, pipelines: Pipelines) -> None:
    api.course = ["RUNNING"]
    pipelines("submit", FILE, "--image", DIGEST, "--no-wait")
    api.runs["runs-1"]["course"] = ["RUNNING", "RUNNING"]
    first = pipelines("terminate", "runs-1")
    assert (first.returncode, "the run runs-1 is TERMINATED" in first.stderr) == (0, True), first.stderr
    again = pipelines("terminate", "runs-1")
    assert (again.returncode, "had ended before: TERMINATED" in again.stderr) == (0, True), again.stderr
    done = pipelines("status", "runs-1")
    assert "isotrain: TERMINATED: runs-1" in done.stderr
    states = {line[:18].strip(): line.split()[-2] for line in done.stdout.splitlines()[1:]}
    assert (states["data"], states["train"], states["register"]) == ("SUCCEEDED", "TERMINATED", "SKIPPED")
    assert pipelines("terminate", "runs-9").returncode == 2


@pytest.mark.parametrize("state", ["CANCELING", "SUCCEEDED", "gone"])
def test_a_termination_meets_one_under_way_the_end_or_nothing(state: str, api: Api, pipelines: Pipelines) -> None:
    """ "Row not found" with the status 400, and 500 where the Workflow is gone: then it is CANCELING for ever."""
    api.course = ["RUNNING"]
    pipelines("submit", FILE, "--image", DIGEST, "--no-wait")
    run = api.runs["runs-1"]
    run |= (
        {"gone": True}
        if state == "gone"
        else {"course": ["RUNNING", state, "FAILED"] if state == "CANCELING" else ["RUNNING", state]}
    )
    done = pipelines("terminate", "runs-1")
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    words = {
        "CANCELING": "is being terminated already",
        "SUCCEEDED": "had ended before: SUCCEEDED",
        "gone": "no Workflow any more",
    }
    assert words[state] in done.stderr


@pytest.mark.parametrize("command", ["terminate", "submit", "schedule"])
def test_the_next_command_ends_the_searches_of_ended_runs(
    command: str, api: Api, pipelines: Pipelines, tmp_path: Path
) -> None:
    """The exit handler of a terminated run is killed: its Experiment would go on."""
    cluster = katib_api_double.Api()
    config = str(cluster.kubeconfig(tmp_path / "config"))
    options = ("--image", DIGEST, "--no-wait", "-p", "tune=katib/questions-tpe.yaml")
    api.course = ["RUNNING"]
    for _ in range(2):
        pipelines("submit", FILE, *options, KUBECONFIG=config)
    ended, running = api.runs
    for number, (run, state) in enumerate([(ended, ""), (running, ""), (ended, "Succeeded")]):
        name = f"{interruption.experiment_prefix(run)}{number}"
        value: dict[str, Any] = {"metadata": {"name": name, "namespace": "team"}, "spec": {}, "status": {}}
        if state:
            value["status"] = {"conditions": [{"type": state, "status": "True"}]}
        cluster.objects["experiments", "team", name] = value
    api.v1 = False  # the namespace is the kubeconfig's then
    api.runs[ended] |= {"course": ["RUNNING", "FAILED"] if command == "terminate" else ["FAILED"]}
    arguments = {
        "terminate": ("terminate", ended),
        "submit": ("submit", FILE, *options),
        "schedule": ("schedule", FILE, "--cron", "0 0 3 * * *", *options[:2], *options[3:]),
    }[command]
    unreachable = pipelines(*arguments, KUBECONFIG="/nowhere")
    assert unreachable.returncode == 0
    assert "could not look for unfinished Experiments" in unreachable.stderr
    done = pipelines(*arguments, KUBECONFIG=config)
    cluster.close()
    assert done.returncode == 0, done.stderr
    assert [key[2][-1] for key in cluster.objects] == ["1", "2"], done.stderr
    assert (
        f"deleted the Experiment {interruption.experiment_prefix(ended)}0 of the ended run {ended} from team"
        in done.stderr
    )


def make_schedule(pipelines: Pipelines, *options: str) -> subprocess.CompletedProcess[str]:
    return pipelines("schedule", FILE, "--cron", "0 0 3 * * *", "--image", DIGEST, *options)


def end_once_seen(api: Api, run: str, start: int) -> None:
    """Ends a run when a schedule was disabled, and the run was seen under way after that."""
    for expression in (":disable", "GET .*/runs$"):
        while not (seen := [n for n, line in enumerate(api.asked) if n >= start and re.search(expression, line)]):
            time.sleep(0.01)
        start = seen[0] + 1
    api.runs[run]["course"] = ["SUCCEEDED"]


def test_no_run_is_lost_with_its_schedule(api: Api, pipelines: Pipelines) -> None:
    """A schedule owns the Workflows of its runs."""
    api.course = ["RUNNING"]
    assert make_schedule(pipelines).returncode == 0
    run = api.fire("recurringruns-1")
    for refused in (make_schedule(pipelines), pipelines("schedule", "--remove")):
        assert refused.returncode == 2
        assert f"the run {run} (RUNNING) of the schedule isotrain is under way" in refused.stderr
        assert [item["status"] for item in api.schedules.values()] == ["ENABLED"]
    slow = make_schedule(pipelines, "--wait", "--timeout", "0.2")
    assert (slow.returncode, "has not ended after 0.2 s" in slow.stderr) == (7, True), slow.stderr
    assert [item["status"] for item in api.schedules.values()] == ["ENABLED"]
    listed = pipelines("schedule", "--list")
    row, *ids = listed.stdout.splitlines()[1:]
    assert row.split() == ["isotrain", "enabled", "0", "0", "3", "*", "*", "*", "RUNNING"]
    assert ids == ["  id recurringruns-1", f"  latest run {run}"]
    threading.Thread(target=end_once_seen, args=(api, run, len(api.asked)), daemon=True).start()
    done = make_schedule(pipelines, "--wait")
    assert (done.returncode, "waiting for the end of the run" in done.stderr) == (0, True), done.stderr
    assert "recurringruns-1" not in api.schedules
    assert len(api.schedules) == 1
    assert "gone" in api.runs[run]
    assert api.runs[run]["course"] == ["SUCCEEDED"]


def test_schedules_are_listed_and_removed(api: Api, pipelines: Pipelines) -> None:
    assert "has no schedules" in pipelines("schedule", "--list").stderr
    missing = pipelines("schedule", "--remove", "--name", "nightly")
    assert (missing.returncode, "has no schedule nightly" in missing.stderr) == (2, True)
    make_schedule(pipelines, "--name", "nightly")
    assert "nightly   enabled" in pipelines("schedule", "--list").stdout
    done = pipelines("schedule", "--remove", "--name", "nightly")
    assert (done.returncode, api.schedules) == (0, {}), done.stderr
    unusable = pipelines("schedule", FILE)
    assert (unusable.returncode, "--cron" in unusable.stderr) == (2, True)


def test_a_schedule_that_cannot_be_replaced_stays(api: Api, pipelines: Pipelines) -> None:
    make_schedule(pipelines)
    api.faults = [("POST .*/recurringruns$", 400)]
    assert make_schedule(pipelines).returncode == 2
    assert [item["status"] for item in api.schedules.values()] == ["ENABLED"]


def test_a_refused_schedule_uploads_nothing(api: Api, pipelines: Pipelines) -> None:
    api.course = ["RUNNING"]
    make_schedule(pipelines)
    api.fire("recurringruns-1")
    assert make_schedule(pipelines, "-p", "train.cpu=3").returncode == 2
    assert len(api.versions) == 1


def test_an_upload_that_is_refused_says_why(api: Api, pipelines: Pipelines) -> None:
    api.faults = [("upload_version", 409)]
    done = pipelines("submit", FILE, "--image", DIGEST, "--no-wait")
    assert (done.returncode, "409 a fault that was asked for" in done.stderr) == (2, True), done.stderr


def test_a_run_whose_workflow_is_gone_stays_as_it_is(api: Api, pipelines: Pipelines, tmp_path: Path) -> None:
    cluster = katib_api_double.Api()
    config = str(cluster.kubeconfig(tmp_path / "config"))
    api.course = ["RUNNING"]
    pipelines("submit", FILE, "--image", DIGEST, "--no-wait")
    api.runs["runs-1"]["gone"] = True
    for state in ("RUNNING", "CANCELING"):
        done = pipelines("status", "runs-1", KUBECONFIG=config)
        assert (f"isotrain: {state}: runs-1" in done.stderr, "its Workflow is gone" in done.stderr) == (True, True)
        if state == "RUNNING":
            pipelines("terminate", "runs-1")
    pod = {"metadata": {"name": "a", "namespace": "kubeflow", "labels": {"pipeline/runid": "runs-1"}}, "status": {}}
    cluster.put("pods", "kubeflow", pod)
    assert "is gone" not in pipelines("status", "runs-1", KUBECONFIG=config).stderr
    cluster.close()


def test_a_run_whose_first_pod_does_not_start_says_why(api: Api, pipelines: Pipelines) -> None:
    """Before any step there is the driver of the pipeline."""
    api.course, api.step = ["RUNNING"], "root"
    api.message = "Back-off pulling image me/driver: ErrImagePull"
    pipelines("submit", FILE, "--image", DIGEST, "--no-wait")
    done = pipelines("status", "runs-1")
    assert "isotrain: root-driver: Back-off pulling image me/driver: ErrImagePull" in done.stderr
    assert {line.split()[-2] for line in done.stdout.splitlines()[1:]} == {"WAITING"}
    late = pipelines("submit", FILE, "--image", DIGEST, "--wait-for-start", "0.5s")
    assert late.returncode == 7
    assert "no pod of the run has started for" in late.stderr
    assert "; root-driver: Back-off pulling image me/driver: ErrImagePull; the run continues" in late.stderr
    ended = pipelines("terminate", "runs-1")
    assert (ended.returncode, "is TERMINATED; no step of it had begun" in ended.stderr) == (0, True), ended.stderr
