"""`python -m pipelines deploy`: an InferenceService is applied, waited for, asked, and put back, on doubles of the API and KServe."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tests.test_serving as servers
import yaml
from tests.conftest import ROOT, Run
from tests.katib_api_double import Api
from tests.kserve_double import CRASH, KIND, UNAVAILABLE, KServe
from tests.test_serving import Serve

from config.errors import InputError
from pipelines import compilation
from pipelines import deploy as deployment

pytest.importorskip("prometheus_client")
folders, trained, serve = servers.folders, servers.trained, servers.serve
IMAGE, OTHER_IMAGE = (f"registry/isotrain@sha256:{digit * 64}" for digit in "01")
Deploy = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def api() -> Iterator[Api]:
    double = Api()
    yield double
    double.close()


@pytest.fixture
def kserve(api: Api) -> KServe:
    return KServe(api, "http://127.0.0.1:9")


@pytest.fixture
def deploy(api: Api, kserve: KServe, run: Run, tmp_path: Path) -> Deploy:
    kubeconfig = api.kubeconfig(tmp_path / "kubeconfig")

    def call(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
        words = ("--name", "questions", "--image", IMAGE, "--setting", "source=s3://bucket/a", "--timeout", "90s")
        return run("-m", "pipelines", "deploy", f"run={folder}", *words, *options, KUBECONFIG=str(kubeconfig))

    return call


def other_version(folder: Path, target: Path, change: str = "") -> Path:
    """A copy of a run whose model has another digest, and perhaps another first prediction."""
    shutil.copytree(folder, target)
    (target / "model" / "note.txt").write_text(target.name)
    if change:
        rows = [json.loads(line) for line in (target / "predictions.jsonl").read_text().splitlines()]
        rows[0]["prediction"] = change
        (target / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return target


def test_a_run_is_deployed_checked_and_taken_back(
    trained: Callable[[str], Path], serve: Serve, deploy: Deploy, kserve: KServe, api: Api, tmp_path: Path
) -> None:
    first = trained("questions")
    kserve.url = serve(first).url
    api.rules = yaml.safe_load((ROOT / "deploy/kserve/access/access.yaml").read_text().split("\n---")[0])["rules"]
    done = deploy(first)
    assert done.returncode == 0, done.stderr + done.stdout
    version = kserve.version("questions")
    assert f"PredictorReady: MinimumReplicasUnavailable: {UNAVAILABLE}" in done.stdout
    assert f"version {version} is deployed, and answers as the run was validated" in done.stdout
    stored = api.objects[KIND, "team", "questions"]
    assert stored["spec"]["predictor"]["containers"][0]["image"] == IMAGE

    # Ready is true all the time; the replay begins when no server of the version before is left.
    second = other_version(first, tmp_path / "second")
    done = deploy(second)
    assert done.returncode == 0, done.stderr + done.stdout
    newer = kserve.version("questions")
    assert newer != version
    assert kserve.pods("questions") == [newer]
    assert "1 of 2 servers are those of before" in done.stdout

    # The same version in another image: the servers of before have it, too.
    kserve.stuck.add(OTHER_IMAGE)
    done = deploy(second, "--image", OTHER_IMAGE, "--timeout", "15s")
    assert done.returncode == 5, done.stderr + done.stdout
    assert "1 of 1 new servers are not ready" in done.stderr
    assert f"version {newer} is put back, and ready" in done.stderr
    stored = api.objects[KIND, "team", "questions"]
    assert stored["spec"]["predictor"]["containers"][0]["image"] == IMAGE

    # A canary beside it is put back, too, and its servers are no servers of before.
    canary = {"name": "canary", "annotations": {"isotrain/model-version": "0"}, "containers": [{"image": IMAGE}]}
    stored["spec"]["canary"] = [{"trafficPercent": 5, "predictor": canary}]
    third = other_version(first, tmp_path / "third", "another answer")
    done = deploy(third)
    assert done.returncode == 5, done.stderr + done.stdout
    assert "1 of 8 answers differ" in done.stderr
    assert "was not deployed: " in done.stderr
    assert ":; " not in done.stderr
    assert f"version {newer} is put back, and ready" in done.stderr
    assert kserve.version("questions") == newer
    assert sorted(kserve.pods("questions")) == ["0", newer]
    assert "canary" in api.objects[KIND, "team", "questions"]["spec"]

    kserve.broken.add(version_of(deploy, kserve, first, tmp_path / "fourth"))
    done = deploy(tmp_path / "fourth", "--folder", str(tmp_path / "state"))
    assert done.returncode == 5, done.stderr + done.stdout
    assert "its server ends again and again: " in done.stderr
    assert f"configuration or input refused: {CRASH.removeprefix('isotrain: ')}" in done.stderr
    assert "Started server" not in done.stderr
    assert f"version {newer} is put back, and ready" in done.stderr
    assert (tmp_path / "state" / "inferenceservice.yaml").exists()

    # A second attempt after a process that was killed puts back what was there before the first one.
    api.objects[KIND, "team", "questions"]["spec"]["predictor"]["annotations"]["isotrain/model-version"] = next(
        iter(kserve.broken)
    )
    done = deploy(tmp_path / "fourth", "--folder", str(tmp_path / "state"))
    assert (done.returncode, kserve.version("questions")) == (5, newer), done.stderr


def version_of(deploy: Deploy, kserve: KServe, folder: Path, target: Path) -> str:
    from runs.lineage import folder_digest

    return folder_digest(other_version(folder, target) / "model")[:12]


def test_a_first_one_that_fails_is_deleted(deploy: Deploy, kserve: KServe, api: Api, folder: Path) -> None:
    from runs.lineage import folder_digest

    kserve.stuck.add(folder_digest(folder / "model")[:12])
    done = deploy(folder, "--timeout", "7s")
    assert done.returncode == 5, done.stderr
    assert "it did not get ready within 7 s: PredictorReady: MinimumReplicasUnavailable" in done.stderr
    assert "there was none before: the InferenceService questions is deleted" in done.stderr
    assert kserve.version("questions") is None


def test_a_server_that_cannot_be_asked_is_not_deployed(deploy: Deploy, kserve: KServe, api: Api, folder: Path) -> None:
    done = deploy(folder, "--url", "ftp://host")
    assert done.returncode == 2, done.stderr
    assert "the InferenceService questions is deleted" in done.stderr
    assert kserve.version("questions") is None


@pytest.mark.parametrize(
    ("prepare", "options", "code", "message"),
    [
        ("api.forbidden = 'POST'", (), 2, "no permission"),
        (
            "api.faults = [('POST', (400, 'admission webhook denied the request: canary'))]",
            (),
            2,
            "denied the request: canary",
        ),
        ("api.faults = [('GET', 503)] * 6", (), 7, "the cluster answered 503"),
        ("", ("--setting", "cpu"), 2, "--setting cpu: write NAME=VALUE"),
        ("", ("--setting", "canary=5"), 2, "--setting canary=5: write NAME=VALUE"),
        ("", ("--setting", "cpu=x"), 2, "--cpu x: must be CPUs"),
    ],
)
def test_what_is_refused_changes_nothing(
    prepare: str, options: tuple[str, ...], code: int, message: str, deploy: Deploy, api: Api, folder: Path
) -> None:
    exec(prepare, {"api": api})
    done = deploy(folder, *options)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert not [asked for asked in api.asked if asked.startswith(("PUT", "DELETE"))]
    assert "Traceback" not in done.stderr


def test_only_the_champion_is_deployed(deploy: Deploy, api: Api, folder: Path, tmp_path: Path) -> None:
    record = {"config": {"task": {"name": "question_answering"}}, "choices": {"data": "squad_sample"}}
    (folder / "run.json").write_text(json.dumps(record))
    done = deploy(folder, "--if-champion", "--root", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "not deployed: question_answering-squad_sample has no champion" in done.stdout
    assert not api.asked


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run, as far as a manifest looks at it."""
    model = tmp_path / "a" / "model"
    model.mkdir(parents=True)
    (tmp_path / "a" / "run.json").write_text("{}")
    (model / "config.json").write_text('{"model_type": "bert"}')
    return tmp_path / "a"


def test_the_step_is_added_to_the_pipeline() -> None:
    assert not compilation.load_settings()["steps"]
    steps = compilation.load_settings(["deploy=questions", "+deploy_settings.cpu=2", f"image={IMAGE}"])["steps"]
    assert list(steps) == ["deploy"]
    assert steps["deploy"].after == ("train", "register")
    words = steps["deploy"].command
    assert words[:7] == ("python", "-m", "pipelines", "deploy", "run={train.run}", "--name", "questions")
    assert words[-2:] == ("--setting", "cpu=2")
    from pipelines.__main__ import _parser

    args = _parser().parse_args(list(words[3:]))
    assert (args.image, args.if_champion, args.setting) == (IMAGE, True, ["cpu=2"])
    assert "name: deploy" in compilation.compile_text(["deploy=questions"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["deploy=A"], "deploy=A: must be the name of an InferenceService"),
        (["+deploy_settings.cpu=2"], "has no effect without deploy=NAME"),
        (["deploy=a", "deploy_settings=cpu"], "must be a mapping of names to values"),
        (["deploy=a", "+steps.deploy={command: [x]}"], "deploy=NAME adds a step of this name"),
    ],
)
def test_settings_that_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(InputError) as refused:
        compilation.load_settings(settings)
    assert message in str(refused.value)


def test_the_failure_of_a_version_before_is_not_that_of_the_present_one() -> None:
    """KServe keeps lastFailureInfo when another version is loaded."""
    model = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": {"message": CRASH}}
    status = {"conditions": [{"type": "Ready", "status": "False", "reason": "A"}], "modelStatus": model}
    assert deployment._unready({"status": status}, [], {}) == f"Ready: A: {CRASH}"
    model["transitionStatus"] = "InProgress"
    assert deployment._unready({"status": status}, [], {}) == "Ready: A"
