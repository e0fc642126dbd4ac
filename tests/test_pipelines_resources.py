"""`-p train.cpu=4`: resources of single steps of a run."""

from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT

from config.errors import InputError
from pipelines.check import check_pipeline
from pipelines.compilation import read_documents
from pipelines.resources import changed_file, refuse_resources

FILE = str(ROOT / "pipelines" / "train.yaml")


def changed(*assignments: str) -> tuple[dict[str, Any], list[str]]:
    """Resources by executor that differ from the file's, and the other assignments."""
    with changed_file(FILE, assignments) as (file, rest):
        assert check_pipeline(file) == []
        before, after = (read_documents(name)[0]["deploymentSpec"]["executors"] for name in (FILE, file))
    rows = {name: row["container"].pop("resources") for name, row in after.items()}
    differences = {name: row for name, row in rows.items() if row != before[name]["container"].pop("resources")}
    assert after == before  # nothing else has changed
    return differences, rest


def test_a_steps_resources_are_requested_and_are_the_limit() -> None:
    rows, rest = changed("train.cpu=1500m", "margin=1", "train.memory=16Gi", "train.gpus=2")
    assert rest == ["margin=1"]
    gpu = {"count": "2", "resourceCount": "2", "type": "nvidia.com/gpu", "resourceType": "nvidia.com/gpu"}
    amounts = {f"resource{name}{group}": text for name, text in (("Cpu", "1500m"), ("Memory", "16Gi")) for group in ("Request", "Limit")}  # fmt: skip
    assert rows == {"exec-train": {**amounts, "accelerator": gpu}}


def test_every_gate_is_meant() -> None:
    assert set(changed("gate.memory=2Gi")[0]) == {"exec-gate", "exec-gate-2", "exec-gate-3", "exec-gate-4"}


def test_without_resources_the_file_is_used_as_it_is() -> None:
    with changed_file(FILE, ["margin=1"]) as (file, rest):
        assert (file, rest) == (FILE, ["margin=1"])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("trian.cpu=4", "the pipeline has no step trian; use one of benchmark, data"),
        ("train.cpu=", "must be an amount such as 4 or 500m"),
        ("train.cpu=0", "must be an amount"),
        ("train.cpu=0.0", "must be an amount"),
        ("train.memory=16", "must be an amount such as 16Gi"),
        ("train.gpus=1.5", "must be an amount such as 1"),
    ],
)
def test_what_the_cluster_would_refuse_is_refused(assignment: str, message: str) -> None:
    with pytest.raises(InputError, match=message), changed_file(FILE, [assignment]):
        pass


def test_on_this_machine_resources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"-p train\.cpu=4: resources are settings of a cluster"):
        refuse_resources(["margin=1", "train.cpu=4"])
