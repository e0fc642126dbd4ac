"""The admission policies on a real API server: the requests of tests/admission_cases.py, without creating anything."""

import json
import subprocess
from collections.abc import Iterator

import pytest
from real_cluster import KUBECONFIG, NAMESPACE, kubectl, wait
from tests.admission_cases import ADMISSION, LIMITS, Case, cases, owned

CASES = [case for case in cases() if case.real]
PARTS = {"Experiment": "Katib", "PyTorchJob": "training operator", "TrainJob": "Trainer"}
LABEL = "isotrain/admission"


def create(case: Case) -> subprocess.CompletedProcess[str]:
    """Sends a request as a dry run."""
    command = ["kubectl", "--kubeconfig", KUBECONFIG, "-n", NAMESPACE, "create", "--dry-run=server", "-f", "-"]
    text = json.dumps(case.value)
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)


def limit(limits: dict[str, str]) -> None:
    """Annotates the namespace."""
    kubectl("annotate", "namespace", NAMESPACE, "--overwrite", *[f"{key}={value}" for key, value in limits.items()])


@pytest.fixture(scope="module")
def limited(namespace: str) -> Iterator[None]:
    """The namespace with the policies; what was not there is deleted afterwards."""
    before = kubectl("get", "validatingadmissionpolicies", "-o", "name")
    kubectl("apply", "-k", str(ADMISSION))
    limit(LIMITS)
    kubectl("label", "namespace", namespace, "--overwrite", f"{LABEL}=enforce")
    probe = Case("probe", owned("ServiceAccount"), "")
    wait(lambda: create(probe).returncode, "the policies are in force", 60)
    yield
    kubectl("label", "namespace", namespace, f"{LABEL}-")
    kubectl("annotate", "namespace", namespace, *[f"{key}-" for key in LIMITS])
    if "isotrain-workloads" not in before:
        kubectl("delete", "-f", str(ADMISSION / "policy.yaml"))


def test_policies_have_no_type_errors(limited: None) -> None:
    for name in ("isotrain-workloads", "isotrain-trials"):
        text = kubectl("get", "validatingadmissionpolicy", name, "-o", "json")
        assert json.loads(text).get("status", {}).get("typeChecking", {}) == {}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_requests(case: Case, limited: None, versions: dict[str, str]) -> None:
    if (part := PARTS.get(case.value["kind"])) and part not in versions:
        pytest.skip(f"the cluster has no {part}")
    answer = create(case)
    if case.message is None:
        assert answer.returncode == 0, answer.stderr
    else:
        assert answer.returncode == 1
        assert case.message in answer.stderr


def test_limits_change_at_once(limited: None) -> None:
    case = next(case for case in CASES if case.name == "job-Job-unchanged")
    for image, code in (("other", 1), ("isotrain:*", 0), ("", 1), (LIMITS["isotrain/images"], 0)):
        limit({"isotrain/images": image})
        wait(lambda code=code: create(case).returncode == code, f"the limit is {image!r}", 30)  # type: ignore[misc]
