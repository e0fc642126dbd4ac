"""The cache of Kubeflow Pipelines: what a second submission takes from it, and what makes a step run again."""

import copy
import functools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.kfp_cache_double import Cache

from pipelines import compilation, steps
from pipelines.definition import CACHED

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "pipelines").glob("*.yaml"))
IMAGE = f"me/isotrain@sha256:{'0' * 64}"


@functools.cache
def read(file: Path) -> list[dict[str, Any]]:
    return compilation.read_documents(str(file))


class Cluster:
    """Runs compiled pipelines with a cache.

    Attributes:
        fingerprint: of the data.
        best: overrides that the tune step returns.
    """

    def __init__(self) -> None:
        self.cache = Cache()
        self.fingerprint = "train:a val:b"
        self.best: list[str] = []

    def execute(self, step: str, values: dict[str, Any]) -> dict[str, Any]:
        outputs: dict[str, Any] = {"data": self.fingerprint, "plan": "yes", "tune": self.best}
        if step == "train":
            outputs[step] = f"/runs/pipelines/runs/{steps._digest(*map(str, values.values()))}"
        return {"Output": outputs.get(step, '{"status": "passed", "reason": "", "report": ""}')}

    def run(self, documents: list[dict[str, Any]], **parameters: Any) -> set[str]:
        """The steps that come from the cache."""
        arguments = {"model": "bert", "data": "squad", "image": IMAGE, **parameters}
        states = self.cache.run(documents, arguments, self.execute)
        assert set(states.values()) <= {"CACHED", "SUCCEEDED"}
        assert len(states) == 15
        return {step for step, state in states.items() if state == "CACHED"}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_a_second_submission_takes_quality_train_and_explain_from_the_cache(file: Path, cluster: Cluster) -> None:
    documents = read(file)
    assert cluster.run(documents) == set()
    assert cluster.run(documents) == set(CACHED) == {"quality", "train", "explain"}
    assert cluster.run(documents) == set(CACHED)


@pytest.mark.parametrize(
    ("parameters", "cached"),
    [
        ({"overrides": ["optim.lr=1e-5"]}, set()),
        ({"model": "distilbert"}, set()),
        ({"image": IMAGE.replace("0", "1")}, set()),
        ({"refresh": "1"}, set()),
        ({"root": "/other"}, set()),
        ({"explain": "warn"}, {"quality", "train"}),
        ({"quality": "warn"}, set()),  # train writes the policy into its record
        ({"margin": 2.0, "when": "changed", "drift": "off", "registered": "m"}, set(CACHED)),
    ],
    ids=lambda value: "-".join(sorted(value)) or "none",
)
def test_another_parameter_repeats_the_steps_that_depend_on_it(
    parameters: dict[str, Any], cached: set[str], cluster: Cluster
) -> None:
    documents = read(FILES[0])
    cluster.run(documents)
    assert cluster.run(documents, **parameters) == cached


def test_other_data_code_or_volumes_repeat_every_step(cluster: Cluster) -> None:
    documents = read(FILES[0])
    cluster.run(documents)
    cluster.fingerprint = "train:c val:b"
    assert cluster.run(documents) == set()
    cluster.fingerprint = "train:a val:b"
    assert cluster.run(documents) == set(CACHED)
    other = copy.deepcopy(documents)
    for executor in other[0]["deploymentSpec"]["executors"].values():
        executor["container"]["command"][-1] += "# changed\n"
    assert cluster.run(other) == set()
    assert cluster.run(list(yaml.safe_load_all(compilation.compile_text(["volume=other"])))) == set()
    cluster.best = ["optim.lr=2e-5"]
    assert cluster.run(documents) == {"quality"}


def test_a_cached_step_takes_parameters_only() -> None:
    """An artifact's name is another one in each run, unless the step before it comes from the cache, too."""
    for file in FILES:
        components = read(file)[0]["components"]
        for step in CACHED:
            assert "artifacts" not in components[f"comp-{step}"]["inputDefinitions"]


def test_the_documentation_names_the_cached_steps() -> None:
    text = (ROOT / "docs" / "pipelines.md").read_text()
    rows = [line.split("|") for line in re.findall(r"^\| .*$", text[text.index("## Steps") :], re.MULTILINE)]
    documented = {row[1].strip() for row in rows if row[3].strip() == "yes"}
    assert documented == set(CACHED)
