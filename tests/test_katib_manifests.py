"""The kustomize base and overlays, rendered by the few rules of kustomize that they use, and by kubectl where there is one."""

import copy
import re
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from katib import check, documents
from katib.experiment import Experiment

ROOT = Path(__file__).resolve().parents[1]
KATIB = ROOT / "katib"
KNOWN = {"apiVersion", "kind", "resources", "patches", "images", "namespace", "labels"}


def render(folder: Path) -> list[dict[str, Any]]:
    """All objects of a kustomization; anything that it does not know is an error."""
    given = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(given) <= KNOWN
    found: list[dict[str, Any]] = []
    for resource in given["resources"]:
        path = (folder / resource).resolve()
        if path.is_dir():
            assert not folder.resolve().is_relative_to(path)  # an overlay inside its base is a cycle to kustomize
            found += render(path)
        else:
            assert path.is_relative_to(folder.resolve())  # kustomize reads no file outside its folder
            found += [copy.deepcopy(each) for each in yaml.safe_load_all(path.read_text()) if each]
    for group in given.get("labels", []):
        for each in found:
            each["metadata"].setdefault("labels", {}).update(group["pairs"])
    for patch in given.get("patches", []):
        targets = [each for each in found if selected(each, patch["target"])]
        assert targets, patch["target"]
        for each in targets:
            for operation in yaml.safe_load(patch["patch"]):
                apply(each, operation)
    for image in given.get("images", []):
        for each in found:
            rename(each, image)
    if "namespace" in given:
        for each in found:
            each["metadata"]["namespace"] = given["namespace"]
    return found


def selected(value: dict[str, Any], target: dict[str, str]) -> bool:
    label, _, wanted = target.get("labelSelector", "").partition("=")
    return value["kind"] == target["kind"] and (not label or value["metadata"].get("labels", {}).get(label) == wanted)


def apply(value: Any, operation: dict[str, Any]) -> None:
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
    for part in parents:
        value = value[int(part)] if isinstance(value, list) else value[part]
    assert operation["op"] == "add" or last in value
    value[last] = operation["value"]


def rename(value: Any, image: dict[str, str]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("containers", "initContainers") and isinstance(inner, list):
                for container in inner:
                    if container.get("image", "").partition(":")[0] == image["name"]:
                        container["image"] = f"{image['newName']}@{image['digest']}"
            rename(inner, image)
    elif isinstance(value, list):
        for inner in value:
            rename(inner, image)


def folder_of(name: str) -> Path:
    return KATIB if name == "base" else ROOT / "overlays" / name


def experiments(name: str) -> list[Experiment]:
    found = [each for each in render(folder_of(name)) if each["kind"] == "Experiment"]
    return [Experiment(documents.Document(each["metadata"]["name"], each, {})) for each in found]


def test_the_base_has_every_experiment() -> None:
    assert sorted(each.name for each in experiments("base")) == sorted(
        path.stem for path in KATIB.glob("*.yaml") if path.stem != "kustomization"
    )


@pytest.mark.parametrize("name", ["base", "gpu", "cpu", "example"])
def test_overlays_change_what_they_say_and_break_nothing(name: str) -> None:
    found = experiments(name)
    assert len(found) == 18
    for each in found:
        assert [f"{finding.code} {finding.message}" for finding in check.check_experiment(each)] == []
        for _, container in each.containers():
            resources = container.get("resources") or container["resourcesPerNode"]
            gpus = [resources[group].get("nvidia.com/gpu") for group in ("requests", "limits")]
            assert gpus == (["1", "1"] if name in ("gpu", "example") else [None, None])
            assert container["image"].startswith("registry.example.com/" if name == "example" else "isotrain:")
            if each.kind == "Job":
                assert resources["limits"]["cpu"] == ("8" if name == "cpu" else "4")
        assert each.get("metadata", "namespace") == ("team" if name == "example" else None)


@pytest.mark.parametrize("name", ["base", "gpu", "cpu", "example"])
def test_kubectl_renders_the_same(name: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        warnings.warn("kubectl is not there: overlays are rendered by the tests' own rules alone", stacklevel=1)
        pytest.skip("no kubectl")
    made = subprocess.run([kubectl, "kustomize", str(folder_of(name))], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr

    def key(each: dict[str, Any]) -> tuple[str, str]:
        return each["kind"], each["metadata"]["name"]

    assert sorted(yaml.safe_load_all(made.stdout), key=key) == sorted(render(folder_of(name)), key=key)


def test_the_namespace_gets_volumes_and_rights() -> None:
    found = {each["kind"]: each for each in render(KATIB) if each["metadata"].get("labels", {}).get("isotrain/part")}
    assert set(found) == {"PersistentVolumeClaim", "Role"}
    claims = {each["metadata"]["name"] for each in render(KATIB) if each["kind"] == "PersistentVolumeClaim"}
    runtime = render(KATIB / "cluster" / "trainer")
    for each in experiments("base"):
        text = yaml.safe_dump(runtime if each.kind == "TrainJob" else each.value)
        assert all(f"claimName: {claim}" in text for claim in claims)
    storage = [each for each in render(folder_of("example")) if each["kind"] == "PersistentVolumeClaim"]
    assert all(each["spec"]["storageClassName"] == "nfs-client" for each in storage)


def test_clusters_without_trainer_take_everything_but_the_runtime() -> None:
    for folder in (KATIB / "cluster", *(ROOT / "deploy" / name for name in ("namespace", "standalone", "example"))):
        assert not [each for each in render(folder) if each["apiVersion"].startswith("trainer.kubeflow.org")]
    (runtime,) = render(KATIB / "cluster" / "trainer")
    assert runtime["metadata"]["labels"]["isotrain/part"] == "namespace"  # -l isotrain/part=namespace
    for example in (ROOT / "overlays" / "example", ROOT / "deploy" / "example"):
        (line,) = re.findall(r"^  # - (\S+/trainer) ", (example / "kustomization.yaml").read_text(), re.MULTILINE)
        assert (example / line).resolve() == KATIB / "cluster" / "trainer"
