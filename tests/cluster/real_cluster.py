"""Tests on a cluster: what is installed there, the namespace of the tests, and the commands as a user types them.

    ISOTRAIN_CLUSTER=~/.kube/config pytest tests/cluster        docs/support.md has the other settings

They take the Katib, training operator, Trainer and Kubeflow Pipelines that the cluster has, and print their versions.
"""

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBECONFIG = os.environ.get("ISOTRAIN_CLUSTER", "")
IMAGE = os.environ.get("ISOTRAIN_CLUSTER_IMAGE", "isotrain:0.1.0")
NAMESPACE = os.environ.get("ISOTRAIN_CLUSTER_NAMESPACE", "isotrain-test")
STORAGE = os.environ.get("ISOTRAIN_CLUSTER_STORAGE", "")  # a storage class; "present": both claims exist
ACCESS = os.environ.get("ISOTRAIN_CLUSTER_ACCESS", "ReadWriteMany")
DEADLINE = float(os.environ.get("ISOTRAIN_CLUSTER_TIMEOUT", "900"))  # seconds, of each wait

# Label of a controller's Deployment, and what its image's tag is the version of.
CONTROLLERS = {
    "Katib": ("katib.kubeflow.org/component=controller", "experiments.kubeflow.org"),
    "training operator": ("control-plane=kubeflow-training-operator", "pytorchjobs.kubeflow.org"),
    "Trainer": ("app.kubernetes.io/name=trainer", "trainjobs.trainer.kubeflow.org"),
    "JobSet": ("app.kubernetes.io/name=jobset", "jobsets.jobset.x-k8s.io"),
    "Kubeflow Pipelines": ("app=ml-pipeline", "scheduledworkflows.kubeflow.org"),
}

VERSIONS: dict[str, str] = {}


def kubectl(*arguments: str, text: str | None = None, timeout: float = 120, check: bool = True) -> str:
    """Runs kubectl on the cluster of the tests and returns its output."""
    command = ["kubectl", "--kubeconfig", KUBECONFIG, *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def read(*arguments: str) -> Any:
    """Returns what `kubectl get` prints as JSON, for the namespace of the tests."""
    return json.loads(kubectl("-n", NAMESPACE, "get", *arguments, "-o", "json"))


def run(*arguments: str, timeout: float = DEADLINE + 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of ours from the root of the repository: run("katib", "watch", name)."""
    env = {**os.environ, "KUBECONFIG": KUBECONFIG, "PYTHONPATH": str(ROOT / "src"), **environment}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout, check=False)


def wait(condition: Callable[[], Any], subject: str, timeout: float = DEADLINE) -> Any:
    """Returns the first true value of a condition, and fails at the time limit."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, f"{subject}: not within {timeout:g} s"
        time.sleep(2)
    return value


@pytest.fixture(scope="session")
def versions() -> dict[str, str]:
    """Versions of what is installed, by name."""
    server = json.loads(kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
    VERSIONS["Kubernetes"] = server
    definitions = kubectl("get", "crd", "-o", "name")
    for name, (label, definition) in CONTROLLERS.items():
        if f"/{definition}\n" not in definitions:
            continue
        rows = json.loads(kubectl("get", "deployments", "-A", "-l", label, "-o", "json"))["items"]
        images = [c["image"] for row in rows for c in row["spec"]["template"]["spec"]["containers"]]
        VERSIONS[name] = ", ".join(image.rpartition(":")[2] for image in images) or "unknown version"
    return VERSIONS


@pytest.fixture(scope="session")
def require(versions: dict[str, str]) -> Callable[[str], None]:
    """Skips a test whose part of Kubeflow the cluster does not have: require("Trainer")."""

    def check(name: str) -> None:
        if name not in versions:
            pytest.skip(f"the cluster has no {name}")

    return check


def install(folder: Path, target: Path, namespace: str) -> None:
    """Applies one of our kustomizations to a namespace, with the storage and the image of the tests."""
    claims: list[dict[str, Any]] = [
        {"op": "replace", "path": "/spec/accessModes", "value": [ACCESS]},
        *([{"op": "add", "path": "/spec/storageClassName", "value": STORAGE}] if STORAGE else []),
    ]
    patch = yaml.safe_dump(claims)
    if STORAGE == "present":
        kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
        patch = yaml.safe_dump({"$patch": "delete", **kind, "metadata": {"name": "any"}})
    name, _, tag = IMAGE.rpartition(":")
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": [os.path.relpath(folder, target)],
        "patches": [{"target": {"kind": "PersistentVolumeClaim"}, "patch": patch}],
        "images": [{"name": "isotrain", "newName": name, "newTag": tag}],
    }
    target.mkdir(parents=True, exist_ok=True)
    (target / "kustomization.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    kubectl("apply", "-k", str(target))


@pytest.fixture(scope="session")
def namespace(versions: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The namespace of the tests, with volumes, permissions and the runtime of TrainJobs; deleted if it was not there."""
    exists = bool(kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name"))
    if not exists:
        kubectl("create", "namespace", NAMESPACE)
    kubectl("label", "namespace", NAMESPACE, "--overwrite", "katib.kubeflow.org/metrics-collector-injection=enabled")
    folder = tmp_path_factory.mktemp("overlay")
    install(ROOT / "katib" / "cluster", folder / "cluster", NAMESPACE)
    if "Trainer" in versions:
        install(ROOT / "katib" / "cluster" / "trainer", folder / "trainer", NAMESPACE)
    yield NAMESPACE
    if not exists:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@dataclass(frozen=True)
class Search:
    """An Experiment on the cluster."""

    name: str

    def trials(self) -> list[dict[str, Any]]:
        """Rows of `python -m katib trials --json`."""
        done = run("katib", "trials", self.name, "-n", NAMESPACE, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def pods(self) -> list[dict[str, Any]]:
        """Pods of its trials, the oldest first."""
        names = {
            row["metadata"]["name"]
            for row in read("trials", "-l", f"katib.kubeflow.org/experiment={self.name}")["items"]
        }
        rows = [pod for pod in read("pods")["items"] if any(pod["metadata"]["name"].startswith(name) for name in names)]
        return sorted(rows, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def log(self, pod: str) -> str:
        """What the containers of a pod have printed; Katib's collector prints the output of the training that it reads."""
        return kubectl("-n", NAMESPACE, "logs", pod, "--all-containers", "--tail=-1", check=False)

    def wait_for_epoch(self, epoch: int = 1, count: int = 1) -> list[str]:
        """Waits until a pod has printed this epoch and returns the names of the pods, of which there are `count`."""

        def trained() -> list[str]:
            names = [pod["metadata"]["name"] for pod in self.pods()]
            started = any(re.search(rf"\bepoch={epoch} ", self.log(name)) for name in names)
            return names if started and len(names) >= count else []

        return list(wait(trained, f"epoch {epoch} of {self.name}"))

    def watch(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Watches it until it ends."""
        return run("katib", "watch", self.name, "-n", NAMESPACE, "--timeout", f"{DEADLINE:g}", *options)


Submit = Callable[..., Search]


def shrink(experiment: dict[str, Any], parallel: int) -> None:
    """Lowers requests to what a small node has beside Katib's own pods, and the number of trials at a time."""
    experiment["spec"]["parallelTrialCount"] = min(experiment["spec"].get("parallelTrialCount", 3), parallel)

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if key in ("resources", "resourcesPerNode") and isinstance(item, dict):
                    value[key] = {
                        "requests": {"cpu": "100m", "memory": "256Mi"},
                        "limits": {"cpu": "2", "memory": "4Gi"},
                    }
                else:
                    walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(experiment["spec"]["trialTemplate"])


@pytest.fixture
def submit(namespace: str, tmp_path: Path) -> Iterator[Submit]:
    """Submits an Experiment, and deletes it after the test: submit("katib/images-tpe.yaml", "data=shapes", trials=2)."""
    searches: list[Search] = []
    numbers = itertools.count()  # several may be submitted at a time

    def call(
        file: str | Path,
        *overrides: str,
        trials: int = 1,
        parallel: int = 2,
        image: str = IMAGE,
        options: Sequence[str] = (),
        edit: Callable[[dict[str, Any]], None] | None = None,
    ) -> Search:
        path, number = ROOT / file, next(numbers)
        experiment = yaml.safe_load(path.read_text(encoding="utf-8"))
        shrink(experiment, parallel)
        if edit is not None:
            edit(experiment)
        small = tmp_path / f"{number}-{path.name}"
        small.write_text(json.dumps(experiment, indent=1), encoding="utf-8")  # texts such as 3e-4 stay texts
        search = Search(f"t{int(time.time()) % 1_000_000}-{number}-{path.stem}"[:40])
        arguments = ["--name", search.name, "-n", NAMESPACE, "--image", image, "--max-trials", str(trials), *options]
        done = run("katib", "submit", str(small), *overrides, *arguments)
        searches.append(search)
        assert done.returncode == 0, done.stderr
        return search

    yield call
    for search in searches:
        run("katib", "delete", search.name, "-n", NAMESPACE)
