"""`python -m pipelines submit|schedule|status`, over HTTP against a small Kubeflow Pipelines."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import forked
from tests.kfp_api_double import Api

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "pipelines" / "train.yaml"
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
        # Polling every five seconds is for clusters.
        code = f"import sys; from pipelines import remote, __main__ as m; remote.POLL = 0.05; remote.PATIENCE = 2; sys.exit(m.main({[str(each) for each in arguments]!r}))"
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
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "run=runs-1"
    assert f"{api.host}/#/runs/details/runs-1" in done.stderr
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
    assert rows == [["data", "SUCCEEDED", "1.0"], ["train", "SUCCEEDED", "7.0"]]
    assert "| train | SUCCEEDED | 7 |" in (tmp_path / "summary.md").read_text()
    again = pipelines("submit", FILE, "--version", "abc-1", "--no-wait")
    assert (again.returncode, "is there already" in again.stderr) == (0, True)
    assert (len(api.versions), len(api.pipelines), len(api.experiments)) == (1, 1, 1)
    assert "is not named by its digest" in again.stderr


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
    assert "CANCELED" in pipelines("status", "runs-1").stderr
    missing = pipelines("status", "runs-9")
    assert (missing.returncode, "404 runs runs-9 not found" in missing.stderr) == (2, True), missing.stderr
