"""OptimizationJobs on an API server with their CRD: the objects of tests/optimization_job_cases.py, without creating anything."""

import json
import subprocess

import pytest
from real_cluster import KUBECONFIG, NAMESPACE, kubectl
from tests.optimization_job_cases import Case, base, cases

CRD = "optimizationjobs.trainer.kubeflow.org"
CASES = list(cases())


@pytest.fixture(scope="module")
def crd(namespace: str) -> None:
    """The CRD, which Trainer 2.3 does not have: kubectl apply it from manifests/base/crds of Trainer's master."""
    if not kubectl("get", "crd", CRD, "--ignore-not-found", "-o", "name"):
        pytest.skip(f"the cluster has no {CRD}")


def create(value: object) -> subprocess.CompletedProcess[str]:
    """Sends a request as a dry run; unknown fields are refused, as kubectl does by default."""
    command = ["kubectl", "--kubeconfig", KUBECONFIG, "-n", NAMESPACE, "create", "--dry-run=server", "-f", "-"]
    return subprocess.run(
        [*command, "-o", "json"], input=json.dumps(value), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_requests(case: Case, crd: None) -> None:
    answer = create(case.value)
    if case.refusal is None:
        assert answer.returncode == 0, answer.stderr
    else:
        assert answer.returncode == 1
        assert case.refusal in answer.stderr


def test_defaults(crd: None) -> None:
    value = base()
    for key in ("searchAlgorithm", "numTrials", "parallelTrials"):
        del value["spec"][key]
    value["spec"]["objectives"] = [{"metric": "val_loss"}]
    value["spec"]["parameters"][0]["searchSpace"] = {"uniform": {"min": "0", "max": "1"}}
    spec = json.loads(create(value).stdout)["spec"]
    assert (spec["searchAlgorithm"], spec["numTrials"], spec["parallelTrials"]) == ({"random": {}}, 1, 1)
    assert spec["objectives"][0]["direction"] == "Minimize"
    assert spec["parameters"][0]["searchSpace"]["uniform"]["type"] == "Float"
