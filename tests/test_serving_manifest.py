"""`python -m serving manifest`: InferenceServices as KServe takes them, and what it would not take."""

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import ROOT, Run
from tests.test_deploy import missing

from katib import schema
from serving import manifest

EXAMPLE = ROOT / "deploy/kserve/questions.yaml"
IMAGE = "registry/isotrain@sha256:" + "0" * 64
# Fields of KServe's own (v1beta1); all others of a predictor are those of a pod.
KSERVE_FIELDS = {"minReplicas", "maxReplicas", "timeout", "annotations", "canaryTrafficPercent", "name"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder, as far as a manifest looks at it."""
    model = tmp_path / "a" / "model"
    model.mkdir(parents=True)
    (tmp_path / "a" / "run.json").write_text("{}")
    (model / "config.json").write_text('{"model_type": "bert"}')
    return tmp_path / "a"


def problems(value: dict[str, Any]) -> Iterator[str]:
    """What Kubernetes and KServe would refuse of what is written."""
    assert (value["apiVersion"], value["kind"]) == (manifest.API_VERSION, manifest.KIND)
    spec = value["spec"]
    mode = value["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
    predictors = [spec["predictor"], *(entry["predictor"] for entry in spec.get("canary", []))]
    if set(spec) - {"predictor", "canary"} or (mode == "Knative" and "canary" in spec):
        yield "a field of another mode"
    for predictor in predictors:
        pod = {key: part for key, part in predictor.items() if key not in KSERVE_FIELDS}
        own = {key: predictor[key] for key in KSERVE_FIELDS & set(predictor)}
        if not all(isinstance(own[key], int) for key in own if key not in ("annotations", "name")):
            yield "no number"
        if not all(isinstance(text, str) for text in own["annotations"].values()):
            yield "an annotation is no text"
        deployment = {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}},
        }  # fmt: skip
        yield from (what for _, what, _ in schema.job_problems(deployment, ("a",), "V1Deployment"))
        yield from missing(deployment, "V1Deployment")
        (container,) = pod["containers"]
        if container["name"] != "kserve-container":
            yield "KServe does not know the server"
        if mode == "Knative" and set(pod) - {"containers", "volumes", "serviceAccountName"}:
            yield "a field that Knative refuses"


def read(text: str) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load(text)
    assert not list(problems(value))
    return value


def test_the_example_is_what_its_command_writes(run: Run, tmp_path: Path) -> None:
    text = EXAMPLE.read_text()
    words = shlex.split(text.splitlines()[0].removeprefix("# python -m "))
    assert words[-2:] == ["-o", str(EXAMPLE.relative_to(ROOT))]
    (tmp_path / "deploy/kserve").mkdir(parents=True)
    done = run("-m", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / words[-1]).read_text() == text
    value = read(text)
    (container,) = value["spec"]["predictor"]["containers"]
    assert container["args"][:3] == ["model=question_answering-squad", "--follow", "champion"]
    assert run("-m", *words).returncode == 0  # replaces its own
    (tmp_path / words[-1]).write_text("mine\n")
    assert run("-m", *words).returncode == 2


def test_the_server_of_a_manifest_starts_with_its_arguments(folder: Path, run: Run) -> None:
    """The arguments are those of the present `serve`, and the probes its addresses."""
    done = run("-m", "serving", "manifest", f"run={folder}", "--name", "a", "--image", IMAGE, "--source", "s3://b/a")
    (container,) = read(done.stdout)["spec"]["predictor"]["containers"]
    words = [word.replace("/mnt/models", str(folder)) for word in container["args"]]
    done = run(*container["command"][1:], *words)
    assert (done.returncode, "folder" in done.stderr or "model" in done.stderr) == (2, True), done.stderr
    assert "unrecognized" not in done.stderr
    assert "usage:" not in done.stderr
    source = (ROOT / "src/serving/app.py").read_text()
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        assert f'"{container[probe]["httpGet"]["path"]}"' in source


def test_sources_modes_and_canaries(folder: Path, run: Run, tmp_path: Path) -> None:
    command = ("-m", "serving", "manifest", f"run={folder}", "--name", "a", "--image", IMAGE)
    done = run(*command, "--source", "pvc://isotrain-runs/a/model", "-n", "team", "-o", "a.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    stable = read((tmp_path / "a.yaml").read_text())
    predictor = stable["spec"]["predictor"]
    assert {"name": "STORAGE_URI", "value": "pvc://isotrain-runs/a/model"} in predictor["containers"][0]["env"]
    assert re.fullmatch("[0-9a-f]{12}", predictor["annotations"][manifest.VERSION_ANNOTATION])
    drain = int(predictor["containers"][0]["args"][-1])
    assert predictor["terminationGracePeriodSeconds"] >= drain + manifest.TIMEOUT
    done = run(*command, "--source", "s3://b/a", "--mode", "Knative", "--min-replicas", "0", "--canary", "10")
    value = read(done.stdout)
    assert (value["spec"]["predictor"]["canaryTrafficPercent"], value["spec"]["predictor"]["minReplicas"]) == (10, 0)
    (folder / "model" / "config.json").write_text('{"model_type": "roberta"}')
    done = run(*command, "--source", "s3://b/b", "--canary", "0", "--stable", "a.yaml", "--gpus", "1")
    assert done.returncode == 0, done.stderr
    value = read(done.stdout)
    assert value["spec"]["predictor"] == predictor
    (canary,) = value["spec"]["canary"]
    assert (canary["trafficPercent"], "maxReplicas" in canary["predictor"]) == (0, False)
    version = canary["predictor"]["annotations"][manifest.VERSION_ANNOTATION]
    assert canary["predictor"]["name"] == f"canary-{version[:6]}"
    assert version != predictor["annotations"][manifest.VERSION_ANNOTATION]
    assert canary["predictor"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    done = run(
        "-m",
        "serving",
        "manifest",
        "model=a@b",
        "--name",
        "a",
        "--image",
        "isotrain:0.1.0",
        "--server",
        "http://m:5000",
    )
    assert "the image 'isotrain:0.1.0' is not named by its digest" in done.stderr
    (container,) = read(done.stdout)["spec"]["predictor"]["containers"]
    assert {"name": "MLFLOW_TRACKING_URI", "value": "http://m:5000"} in container["env"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("run=none --name a --source s3://b", "run=none: no such folder"),
        ("run=. --name a --source s3://b", "run=.: neither a run nor a model folder"),
        ("run=a --name a", "the cluster cannot know this folder"),
        ("run=a --name a --source /runs/a", "--source /runs/a: must be an address that KServe reads"),
        ("run=a --name A --source s3://b", "--name A: must be a letter"),
        ("run=a --name a --source s3://b --memory 2Gib", "--memory 2Gib: must be an amount, such as 2Gi"),
        ("run=a --name a --source s3://b --min-replicas 0", "only Knative scales to zero"),
        ("run=a --name a --source s3://b --min-replicas 3 --max-replicas 2", "the first not above the second"),
        ("run=a --name a --source s3://b --follow champion", "--follow champion: needs model=NAME"),
        ("run=a --name a --source s3://b --canary 10", "answers the other requests by --stable FILE"),
        ("run=a --name a --source s3://b --stable a.yaml", "has no effect without --canary in Standard mode"),
        ("run=a --name a --source s3://b --canary 10 --stable a/run.json", "is not one InferenceService"),
        ("run=a --name a --source s3://b --canary 101 --mode Knative", "--canary 101: must be from 0 to 100"),
        (
            f"run=a --name {'a' * 40} --source s3://b --canary 5 --stable a.yaml",
            "in Standard mode, at most 39 characters",
        ),
        ("model=a --name a --canary 5 --stable a.yaml", "takes canaries with --source only"),
        ("model=a --name a --source s3://b", "has no effect with model=a"),
        ("model=a@b --name a --follow c", "model=a@b and --follow c name two versions"),
        ("model=a --name a --server https://me:s3cretpw@host", "has a secret"),
        ("model=a --name a -n Team", "-n Team: must be the name of an object"),
    ],
)
def test_what_kserve_would_not_take(options: str, message: str, folder: Path, run: Run) -> None:
    done = run("-m", "serving", "manifest", *options.split(), "--image", IMAGE)
    assert (done.returncode, message in done.stderr, done.stdout) == (2, True, ""), done.stderr
    assert "s3cretpw" not in done.stderr


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda predictor: predictor.update(minReplica=1), "has no field minReplica"),
        (lambda predictor: predictor.update(timeout="35s"), "no number"),
        (lambda predictor: predictor["annotations"].update(a=1), "an annotation is no text"),
        (lambda predictor: predictor["containers"][0].update(name="server"), "KServe does not know the server"),
        (lambda predictor: predictor["containers"][0].pop("name"), "must not be `None`"),
    ],
)
def test_a_broken_manifest_is_noticed(change: Any, found: str) -> None:
    value = yaml.safe_load(EXAMPLE.read_text())
    change(value["spec"]["predictor"])
    try:
        texts = list(problems(value))
    except KeyError:
        texts = ["must not be `None`"]
    assert any(found in text for text in texts), texts


def prune(value: Any, rule: dict[str, Any], where: str = "") -> Iterator[str]:
    """Fields that the API server would drop, and values of other types, by the schema of a CRD."""
    kind = rule.get("type")
    types = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    if rule.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str) or (
            isinstance(value, str) and not re.search(rule.get("pattern", ""), value)
        ):
            yield f"{where}: {value!r}"
        return
    if kind in types and not isinstance(value, types[kind]):
        yield f"{where}: {value!r} is no {kind}"
        return
    if "maximum" in rule and value > rule["maximum"]:
        yield f"{where}: {value} is above {rule['maximum']}"
    for key in rule.get("required", []):
        if key not in value:
            yield f"{where}.{key} is missing"
    if isinstance(value, dict) and not rule.get("x-kubernetes-preserve-unknown-fields"):
        for key, part in value.items():
            inner = rule.get("properties", {}).get(key, rule.get("additionalProperties"))
            if inner is None and rule.get("properties"):
                yield f"{where}.{key} is unknown"
            elif inner is not None:
                yield from prune(part, inner, f"{where}.{key}")
    if isinstance(value, list):
        for part in value:
            yield from prune(part, rule["items"], f"{where}[]")


@pytest.mark.skipif(
    not os.environ.get("ISOTRAIN_KSERVE_CRD"), reason="ISOTRAIN_KSERVE_CRD names KServe's CRD of InferenceServices"
)
def test_against_kserves_own_schema(folder: Path, run: Run, tmp_path: Path) -> None:
    crd = yaml.load(Path(os.environ["ISOTRAIN_KSERVE_CRD"]).read_text(), yaml.CSafeLoader)
    rule = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    command = ("-m", "serving", "manifest", f"run={folder}", "--name", "a", "--image", IMAGE, "--source", "s3://b/a")
    (tmp_path / "a.yaml").write_text(run(*command).stdout)
    texts = [EXAMPLE.read_text(), (tmp_path / "a.yaml").read_text()]
    texts.append(run(*command, "--mode", "Knative", "--min-replicas", "0", "--canary", "5", "--gpus", "1").stdout)
    texts.append(run(*command, "--canary", "5", "--stable", "a.yaml", "--service-account", "b").stdout)
    specs = [yaml.safe_load(text)["spec"] for text in texts]
    for spec in specs:
        assert not list(prune(spec, rule))
    for old, new in (
        ("minReplicas", "minReplica"),
        ("httpGet", "httpget"),
        ('"timeout": 35', '"timeout": "35s"'),
        ("2Gi", "2Gib"),
        ('"trafficPercent": 5', '"trafficPercent": 105'),
    ):
        text = json.dumps(specs[-1])
        assert old in text
        assert list(prune(json.loads(text.replace(old, new)), rule)), old
