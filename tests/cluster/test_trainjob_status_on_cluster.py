"""Progress and metrics in the status of a TrainJob, on a Kubeflow Trainer whose feature gate TrainJobStatus is on."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from real_cluster import IMAGE, NAMESPACE, kubectl, read, wait

DATA = ["model=bert_tiny", "data=squad_sample", "data.sample.val=16", "data.batch_size=8", "trainer.threads=1"]


def job(name: str, nodes: int, overrides: list[str]) -> dict[str, Any]:
    """A TrainJob of the namespace's runtime."""
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name},
        "spec": {
            "runtimeRef": {"name": "isotrain", "kind": "TrainingRuntime", "apiGroup": "trainer.kubeflow.org"},
            "trainer": {
                "numNodes": nodes,
                "numProcPerNode": 1,
                "image": IMAGE,
                "command": ["python", "train.py", *DATA, *overrides, f"hydra.run.dir=/runs/{name}"],
                "resourcesPerNode": {"requests": {"cpu": "100m", "memory": "256Mi"}},
            },
        },
    }


def pods(name: str) -> list[dict[str, Any]]:
    """Pods of a TrainJob, that of rank zero first."""
    rows = read("pods", "-l", f"jobset.sigs.k8s.io/jobset-name={name}")["items"]
    return sorted(rows, key=lambda row: str(row["metadata"]["name"]))


@pytest.mark.parametrize("nodes", [1, 2])
def test_progress_and_the_best_value_are_in_the_status(
    nodes: int, namespace: str, require: Callable[[str], None]
) -> None:
    require("Trainer")
    name = f"t{int(time.time()) % 1_000_000}-status"
    overrides = ["data.sample.train=160", "trainer.max_epochs=50", "logger=none", "quality=off"]  # for several posts
    kubectl("-n", namespace, "create", "--validate=strict", "-f", "-", text=json.dumps(job(name, nodes, overrides)))
    try:
        first = wait(lambda: pods(name), "a pod")[0]
        if "KUBEFLOW_TRAINER_SERVER_URL" not in json.dumps(first):
            pytest.skip("the feature gate TrainJobStatus of the cluster's Trainer is off")
        posts: list[dict[str, Any]] = []

        def have_ended() -> bool:
            status = read("trainjob", name).get("status", {})
            if status.get("trainerStatus") not in (None, *posts[-1:]):
                posts.append(status["trainerStatus"])
            ended = {row["type"] for row in status.get("conditions", []) if row["status"] == "True"}
            assert "Failed" not in ended, status
            return "Complete" in ended

        wait(have_ended, f"the end of {name}")
        log = kubectl("-n", NAMESPACE, "logs", first["metadata"]["name"], "-c", "node", "--tail=-1")
    finally:
        kubectl("-n", namespace, "delete", "trainjob", name)
    steps = [post["progressPercentage"] for post in posts]
    assert steps == sorted(steps)
    assert len(posts) > 1
    last = posts[-1]
    assert (last["progressPercentage"], last["estimatedRemainingSeconds"]) == (100, 0)
    metrics = {row["name"]: row["value"] for row in last["metrics"]}
    best = max(float(value) for value in re.findall(r" val_f1=(\S+)", log))
    assert float(metrics["val_f1"]) == pytest.approx(best, rel=1e-5)  # the log has six digits
    assert {"train_loss", "val_loss"} <= metrics.keys()
    assert "is not updated" not in log
