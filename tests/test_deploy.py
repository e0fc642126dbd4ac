"""What a namespace gets: rendered by the few rules of kustomize that are used, by kubectl where there is one, and held against
Kubernetes' own models, against katib/ and against the image."""

import copy
import json
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import ROOT
from tests.test_katib_manifests import render

from katib import schema

DEPLOY = ROOT / "deploy"
OVERLAYS = {"namespace": "isotrain", "standalone": "kubeflow", "example": "team"}
MODELS = {
    "Namespace": "V1Namespace",
    "ServiceAccount": "V1ServiceAccount",
    "Role": "V1Role",
    "RoleBinding": "V1RoleBinding",
    "ConfigMap": "V1ConfigMap",
    "PersistentVolumeClaim": "V1PersistentVolumeClaim",
    "Job": "V1Job",
}
# All that each account may do: (group, resource, the one name or all of them): verbs.
RIGHTS = {
    "isotrain-pipelines": {
        ("argoproj.io", "workflowtaskresults", "all"): {"create", "patch"},
        ("", "configmaps", "kfp-launcher"): {"get"},
        ("", "secrets", "mlpipeline-minio-artifact"): {"get"},
        ("kubeflow.org", "experiments", "all"): {"get", "create", "delete"},
        ("kubeflow.org", "trials", "all"): {"list", "watch"},
        ("kubeflow.org", "suggestions", "all"): {"get"},
        ("trainer.kubeflow.org", "trainingruntimes", "all"): {"get"},
        ("", "pods", "all"): {"list"},
        ("", "events", "all"): {"list"},
        ("", "pods/log", "all"): {"get"},
    },
    "isotrain-submit": {
        ("pipelines.kubeflow.org", "pipelines", "all"): {"get", "list", "create"},
        ("pipelines.kubeflow.org", "pipelines/versions", "all"): {"get", "list", "create"},
        ("pipelines.kubeflow.org", "experiments", "all"): {"get", "list", "create"},
        ("pipelines.kubeflow.org", "runs", "all"): {"get", "list", "create", "terminate"},
        ("pipelines.kubeflow.org", "jobs", "all"): {"get", "list", "create", "enable", "disable", "delete"},
        ("", "pods", "all"): {"get", "list"},
        ("", "events", "all"): {"get", "list"},
        ("", "pods/log", "all"): {"get"},
    },
}
Objects = list[dict[str, Any]]


def rendered(name: str) -> Objects:
    """An overlay as kustomize renders it. Two more of its rules than Experiments need: a namespace is named and in none, and
    the accounts of a binding are of the namespace."""
    found = render(DEPLOY / name)
    for each in found:
        namespace = each["metadata"].get("namespace")
        if each["kind"] == "Namespace":
            each["metadata"]["name"] = each["metadata"].pop("namespace")
        for subject in each.get("subjects", []):
            subject["namespace"] = namespace
    return found


def problems(objects: Objects) -> Iterator[str]:
    """What a cluster would refuse, or accept in vain."""
    known = {(each["kind"], each["metadata"]["name"]) for each in objects}
    if len(known) != len(objects):
        yield "two objects have one name"
    spaces = {each["metadata"].get("namespace") for each in objects if each["kind"] != "Namespace"}
    if len(spaces) != 1:
        yield f"several namespaces: {sorted(map(str, spaces))}"
    for each in objects:
        name = f"{each['kind']} {each['metadata']['name']}"
        model = MODELS.get(each["kind"])
        if model is None:
            yield f"{name} is of no kind that is deployed"
            continue
        yield from (f"{name}: {what}" for _, what, _ in schema.job_problems(each, (name,), model))
        yield from (f"{name}: {what}" for what in missing(each, model))
        if each["apiVersion"] not in ("v1", "batch/v1", "rbac.authorization.k8s.io/v1"):
            yield f"{name}: apiVersion {each['apiVersion']}"
        if each["kind"] == "RoleBinding":
            if (each["roleRef"]["kind"], each["roleRef"]["name"]) not in known:
                yield f"{name} binds a role that is not there"
            for subject in each["subjects"]:
                if ("ServiceAccount", subject["name"]) not in known or subject["namespace"] not in spaces:
                    yield f"{name} binds an account that is not there"
        if each["kind"] == "Role" and "*" in str(each["rules"]):
            yield f"{name} gives all rights"
        if each["kind"] == "Namespace":
            labels = each["metadata"].get("labels", {})
            if each["metadata"]["name"] not in spaces:
                yield f"{name} is not where the others are"
            if labels.get("katib.kubeflow.org/metrics-collector-injection") != "enabled":
                yield f"{name} lacks the label without which Katib refuses Experiments"
            if labels.get("pipelines.kubeflow.org/enabled") != "true":
                yield f"{name} lacks the label by which it gets the launcher's settings"
        if each["kind"] == "PersistentVolumeClaim" and each["spec"]["accessModes"] != ["ReadWriteMany"]:
            yield f"{name} can be mounted by one machine at a time"
        if each["kind"] == "Job":
            yield from job(each, known)
    if "Secret" in {kind for kind, _ in known} or re.search(r"hf_[A-Za-z]", json.dumps(objects)):
        yield "a secret in a file"


def job(each: dict[str, Any], known: set[tuple[str, str]]) -> Iterator[str]:
    pod = each["spec"]["template"]["spec"]
    claims = {one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"]}
    if any(("PersistentVolumeClaim", claim) not in known for claim in claims):
        yield "the Job mounts a volume that nobody claims"
    user = {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "fsGroup": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if pod["securityContext"] != user:
        yield "the Job does not run as the image's user"
    if pod.get("automountServiceAccountToken") is not False:
        yield "the Job has an account's token"
    if not each["spec"].get("ttlSecondsAfterFinished") or not each["spec"].get("activeDeadlineSeconds"):
        yield "the Job stays for ever"


def missing(value: dict[str, Any], model: str) -> list[str]:
    """What Kubernetes' client says of fields that must be there."""
    from kubernetes import client

    class Answer:
        data = json.dumps(value)

    try:
        client.ApiClient().deserialize(Answer(), model)
    except ValueError as error:
        return [str(error)]
    return []


def image_of(objects: Objects) -> tuple[str, str]:
    """The image of the Job, and the one that pipelines are told."""
    (settings,) = (each["data"] for each in objects if each["kind"] == "ConfigMap")
    (one,) = (each for each in objects if each["kind"] == "Job")
    return one["spec"]["template"]["spec"]["containers"][0]["image"], settings["ISOTRAIN_IMAGE"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_overlay_is_whole(name: str) -> None:
    found = rendered(name)
    assert list(problems(found)) == []
    assert {each["metadata"].get("namespace") for each in found} - {None} == {OVERLAYS[name]}
    assert [each["metadata"]["name"] for each in found if each["kind"] == "Namespace"] == (
        [] if name == "standalone" else [OVERLAYS[name]]
    )
    assert all(each["metadata"]["labels"]["app.kubernetes.io/part-of"] == "isotrain" for each in found)


@pytest.mark.parametrize("name", OVERLAYS)
def test_kubectl_renders_the_same(name: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        warnings.warn("kubectl is not there: deploy/ is rendered by the tests' own rules alone", stacklevel=1)
        pytest.skip("no kubectl")
    made = subprocess.run([kubectl, "kustomize", str(DEPLOY / name)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr

    def key(each: dict[str, Any]) -> tuple[str, str]:
        return each["kind"], each["metadata"]["name"]

    objects = list(yaml.safe_load_all(made.stdout))
    assert sorted(objects, key=key) == sorted(rendered(name), key=key)
    assert list(problems(objects)) == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_accounts_may_do_what_they_must_and_nothing_else(name: str) -> None:
    found = rendered(name)
    roles = {each["metadata"]["name"]: each["rules"] for each in found if each["kind"] == "Role"}
    rights: dict[str, dict[tuple[str, str, str], set[str]]] = {}
    for each in found:
        if each["kind"] == "RoleBinding":
            for subject in each["subjects"]:
                own = rights.setdefault(subject["name"], {})
                for rule in roles[each["roleRef"]["name"]]:
                    for group in rule["apiGroups"]:
                        for resource in rule["resources"]:
                            for one in rule.get("resourceNames", ["all"]):
                                own.setdefault((group, resource, one), set()).update(rule["verbs"])
    assert rights == RIGHTS
    assert not any(each["kind"].startswith("Cluster") for each in found)


def test_the_search_has_its_role_and_no_copy_of_it() -> None:
    """tests/test_katib_cluster.py does every call of the search with that role."""
    assert not any("isotrain-katib\nrules" in path.read_text() for path in DEPLOY.rglob("*.yaml"))


def test_volumes_are_those_of_the_experiments_and_of_the_image() -> None:
    found = rendered("namespace")
    (made,) = (each for each in found if each["kind"] == "Job")
    pod = made["spec"]["template"]["spec"]
    experiment = yaml.safe_load((ROOT / "katib/questions-tpe.yaml").read_text())
    trial = experiment["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    assert pod["volumes"] == trial["volumes"]
    assert pod["securityContext"] == trial["securityContext"]
    container, training = pod["containers"][0], trial["containers"][0]
    assert container["volumeMounts"] == training["volumeMounts"]
    assert container["securityContext"] == training["securityContext"]
    for mount in container["volumeMounts"]:
        assert re.search(rf"install -d -m 1777 .*{mount['mountPath']}\b", (ROOT / "Dockerfile").read_text())
        assert mount["mountPath"] in container["command"][2]


def test_the_volumes_job_says_which_folder_it_cannot_write(tmp_path: Path) -> None:
    (made,) = (each for each in rendered("namespace") if each["kind"] == "Job")
    script = made["spec"]["template"]["spec"]["containers"][0]["command"][2]
    for name in ("runs", "cache"):
        script = script.replace(f"/{name}", str(tmp_path / name))
    (tmp_path / "runs").mkdir()
    (tmp_path / "cache").mkdir()
    assert subprocess.run(["sh", "-c", script], capture_output=True, check=False).returncode == 0
    assert (tmp_path / "cache" / ".isotrain").exists()
    shutil.rmtree(tmp_path / "cache")
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{tmp_path / 'cache'} must be writable for user or group 1000" in done.stdout


def test_the_image_is_one_everywhere() -> None:
    names = {name: image_of(rendered(name)) for name in OVERLAYS}
    assert all(one == other for one, other in names.values()), names
    trial = re.search(r"image: (isotrain:\S+)", (ROOT / "katib/questions-tpe.yaml").read_text())
    assert trial is not None
    assert names["namespace"][0] == names["standalone"][0] == trial[1]
    assert re.fullmatch(r"registry\.example\.com/\S+@sha256:0{64}", names["example"][0])


def test_the_example_changes_what_it_says() -> None:
    plain, example = (
        {(e["kind"], e["metadata"]["name"]): e for e in rendered(name)} for name in ("namespace", "example")
    )
    kinds = {kind for kind, _ in plain}
    assert kinds == {kind for kind, _ in example} == set(MODELS)
    for key, each in example.items():
        if key[0] == "PersistentVolumeClaim":
            assert each["spec"].pop("storageClassName") == "nfs-client"
        if key[0] in ("PersistentVolumeClaim", "Role", "ServiceAccount"):
            each["metadata"]["namespace"] = "isotrain"
            assert each == plain[key]


def test_settings_are_addresses_under_names_that_programs_read() -> None:
    (settings,) = (each["data"] for each in rendered("namespace") if each["kind"] == "ConfigMap")
    container = re.findall(
        r"name: (ISOTRAIN_CACHE|HF_HOME), value: ([\w/]+)", (ROOT / "katib/questions-tpe.yaml").read_text()
    )
    assert {key: settings.pop(key) for key in ("ISOTRAIN_CACHE", "HF_HOME")} == dict(container)
    assert all(f"{key}={value}" in (ROOT / "Dockerfile").read_text() for key, value in container)
    assert settings.pop("ISOTRAIN_IMAGE").startswith("isotrain:")
    assert set(settings) == {"KF_PIPELINES_ENDPOINT"}
    (example,) = (each["data"] for each in rendered("example") if each["kind"] == "ConfigMap")
    assert set(example) - set(settings) == {"ISOTRAIN_CACHE", "HF_HOME", "ISOTRAIN_IMAGE", "MLFLOW_TRACKING_URI"}
    assert "MLFLOW_TRACKING_URI" in (ROOT / "conf/logger/mlflow.yaml").read_text()
    from kfp.client import client

    assert client.KF_PIPELINES_ENDPOINT_ENV == "KF_PIPELINES_ENDPOINT"
    # Only what Kubeflow itself deploys has an address by default: every run would fail at another one.
    assert all(re.fullmatch(r"http://[a-z-]+\.kubeflow\.svc\.cluster\.local:\d+", each) for each in settings.values())


def test_pipelines_name_what_is_deployed() -> None:
    names = {(each["kind"], each["metadata"]["name"]) for each in rendered("namespace")}
    asked = yaml.safe_load((ROOT / "conf/pipeline.yaml").read_text())
    assert ("ConfigMap", asked["config_map"]) in names
    for claim, folder in (("volume", "root"), ("cache_volume", "cache")):
        assert ("PersistentVolumeClaim", asked[claim]) in names
        (made,) = (each for each in rendered("namespace") if each["kind"] == "Job")
        mounts = {each["mountPath"] for each in made["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
        assert asked[folder] in mounts
    assert all(name in (DEPLOY / "base/kustomization.yaml").read_text() for name in asked["secrets"].values())
    assert asked["image"] == image_of(rendered("namespace"))[0]


def one(kind: str, name: str = "") -> Callable[[Objects], dict[str, Any]]:
    return lambda found: next(each for each in found if each["kind"] == kind and name in each["metadata"]["name"])


@pytest.mark.parametrize(
    ("which", "change", "found"),
    [
        (one("Namespace"), lambda v: v["metadata"]["labels"].pop("katib.kubeflow.org/metrics-collector-injection"), "Katib refuses Experiments"),
        (one("Namespace"), lambda v: v["metadata"]["labels"].pop("pipelines.kubeflow.org/enabled"), "the launcher's settings"),
        (one("Namespace"), lambda v: v["metadata"].update(name="other"), "is not where the others are"),
        (one("RoleBinding", "katib"), lambda v: v["roleRef"].update(name="isotrain-tune"), "binds a role that is not there"),
        (one("RoleBinding", "katib"), lambda v: v["subjects"][0].update(name="default"), "binds an account that is not there"),
        (one("RoleBinding", "katib"), lambda v: v["roleRef"].pop("apiGroup"), "must not be `None`"),
        (one("Role", "submit"), lambda v: v["rules"][0].update(verbs=["*"]), "gives all rights"),
        (one("Role", "submit"), lambda v: v["rules"][0].pop("verbs"), "must not be `None`"),
        (one("Role", "submit"), lambda v: v["rules"][0].update(verb=["get"]), "has no field verb"),
        (one("Role", "submit"), lambda v: v.update(kind="ClusterRole"), "is of no kind that is deployed"),
        (one("PersistentVolumeClaim"), lambda v: v["spec"].update(accessModes=["ReadWriteOnce"]), "by one machine at a time"),
        (one("PersistentVolumeClaim"), lambda v: v["spec"].update(accessModes="ReadWriteMany"), "must be a list"),
        (one("PersistentVolumeClaim"), lambda v: v["metadata"].update(name="runs"), "that nobody claims"),
        (one("ConfigMap"), lambda v: v["data"].update(PORT=5000), "must be"),
        (one("ConfigMap"), lambda v: v["data"].update(HF_TOKEN="hf_abc"), "a secret in a file"),
        (one("ConfigMap"), lambda v: v.update(apiVersion="v2"), "apiVersion v2"),
        (one("ConfigMap"), lambda v: v["metadata"].update(namespace="other"), "several namespaces"),
        (one("Job"), lambda v: v["spec"]["template"]["spec"]["securityContext"].update(runAsUser=0), "the image's user"),
        (one("Job"), lambda v: v["spec"]["template"]["spec"].pop("automountServiceAccountToken"), "an account's token"),
        (one("Job"), lambda v: v["spec"].pop("ttlSecondsAfterFinished"), "stays for ever"),
        (one("Job"), lambda v: v["spec"]["template"]["spec"]["containers"][0].pop("name"), "must not be `None`"),
        (one("Job"), lambda v: v["spec"].update(backoffLimits=1), "has no field backoffLimits"),
        (one("ServiceAccount", "submit"), lambda v: v["metadata"].update(name="isotrain-pipelines"), "two objects have one name"),
    ],
)  # fmt: skip
def test_a_broken_object_is_found(
    which: Callable[[Objects], dict[str, Any]], change: Callable[[dict[str, Any]], Any], found: str
) -> None:
    objects = copy.deepcopy(rendered("namespace"))
    change(which(objects))
    assert any(found in each for each in problems(objects)), list(problems(objects))


def test_files_are_used_and_hold_nothing_of_this_machine() -> None:
    named: set[Path] = set()
    for path in DEPLOY.rglob("kustomization.yaml"):
        named.add(path)
        given = yaml.safe_load(path.read_text())
        named |= {(path.parent / resource).resolve() for resource in given["resources"]}
    assert set(DEPLOY.rglob("*.yaml")) == {path for path in named if path.is_relative_to(DEPLOY) and path.is_file()}
    assert not any(str(ROOT) in path.read_text() for path in DEPLOY.rglob("*.yaml"))
