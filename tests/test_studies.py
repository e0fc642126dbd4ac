"""The studies: what they plant, that they go on where they were stopped, and that their reports say what was measured."""

import json
import random
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml
from studies import common, defects, environment, explanations, pipelines, search
from studies.__main__ import STUDIES, _sizes
from tests.conftest import Run

ROOT = Path(__file__).resolve().parents[1]


def test_both_configurations_have_the_same_keys() -> None:
    small, cluster = (yaml.safe_load((ROOT / "studies" / f"{name}.yaml").read_text()) for name in ("small", "cluster"))

    def keys(value: Any) -> Any:
        return {name: keys(each) for name, each in value.items()} if isinstance(value, dict) else None

    assert keys(small) == keys(cluster)
    assert set(STUDIES) <= set(small)


def test_a_unit_is_measured_once(tmp_path: Path) -> None:
    asked: list[int] = []

    def compute() -> dict[str, Any]:
        asked.append(1)
        return {"seconds": 1.5}

    assert [common.unit(tmp_path, "a", compute) for _ in range(3)] == [{"seconds": 1.5}] * 3
    assert len(asked) == 1


def test_other_sizes_are_another_study() -> None:
    small: dict[str, Any] = yaml.safe_load((ROOT / "studies" / "small.yaml").read_text())
    larger = {**small, "search": {**small["search"], "trials": 7}, "seeds": [0, 1, 2]}
    assert _sizes("search", larger) != _sizes("search", small)
    assert _sizes("defects", larger) == _sizes("defects", small)


FOUND = {
    "none (questions)": 0, "answers shifted": 4, "questions empty": 4, "training copied into validation (questions)": 4,
    "answers of other questions": 0, "none (images)": 0, "images torn": 4, "training copied into validation (images)": 4,
    "training images dark": 0, "labels wrong": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    for kind in ("questions", "images"):
        defects._clean(folder, kind, 0, {"train": 240, "val": 120})
    return folder


@pytest.mark.parametrize("name", list(defects.DEFECTS))
def test_what_is_planted_is_found_or_not(name: str, clean: Path, run: Run, tmp_path: Path) -> None:
    """What the contract makes of each planted defect: wrong labels of the right form are found by nobody."""
    kind, plant = defects.DEFECTS[name]
    data = defects._planted(clean, name, kind, plant, 0, 0.1)
    before = {
        path.relative_to(clean / f"clean-{kind}-0"): path.read_bytes()
        for path in (clean / f"clean-{kind}-0").rglob("*")
        if path.is_file()
    }
    after = {path.relative_to(data): path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert (before == after) == (plant is None)
    done = run(
        "-m",
        "quality",
        "data=squad" if kind == "questions" else "data=tiny_imagenet",
        f"data.path={data}",
        "--folder",
        str(tmp_path / "q"),
    )
    assert done.returncode == FOUND[name], done.stderr


def test_planting_is_seeded(clean: Path, tmp_path: Path) -> None:
    made = []
    for place in ("a", "b"):
        defects._clean(tmp_path / place, "questions", 0, {"train": 80, "val": 40})
        data = tmp_path / place / "clean-questions-0"
        defects.wrong_answers(data, random.Random(3), 0.5)
        made.append((data / "train-v1.1.json").read_bytes())
    assert made[0] == made[1]


def test_reports_say_what_was_measured(tmp_path: Path) -> None:
    seeds = (0, 1)
    kinds = {
        "without shortcut": (97.0, "passed"),
        "a marker in the corner": (100.0, "failed"),
        "random weights": (25.0, "failed"),
    }
    rows = [
        {"task": "images", "model": model, "seed": seed, "metric": metric, "explanations": status, "contract": 0}
        for model, (metric, status) in kinds.items() for seed in seeds
    ]  # fmt: skip
    text = explanations.report(rows, tmp_path)
    assert "| images: a marker in the corner | 100.0 | 2 of 2 | 0 of 2 | 0 of 2 |" in text
    assert "| explanations | 2 of 2 (34% to 100%) | 0 of 2 (0% to 66%) |" in text
    rows = [
        {"defect": name, "arm": arm, "seed": seed, "found": arm == "before" and not name.startswith("none"), "code": 0, "seconds": 2.0}
        for name in defects.DEFECTS for arm in defects.ARMS for seed in seeds
    ]  # fmt: skip
    text = defects.report(rows, tmp_path)
    assert "| before | 16 of 16 (81% to 100%) | 0 of 4 (0% to 49%) |" in text
    assert "| images torn | 2 of 2, 2.0 s | 0 of 2, 2.0 s | 0 of 2, 2.0 s | 0 of 2, 2.0 s |" in text
    rows = [
        {"task": "images", "arm": "default", "seed": seed, "best": 80.0 + seed, "course": [80.0 + seed], "seconds": 9.0}
        for seed in seeds
    ]
    for arm in search.ARMS:
        rows += [
            {
                "task": "images",
                "arm": arm,
                "seed": seed,
                "best": 84.0 + 2 * seed,
                "course": [70.0, 84.0 + 2 * seed],
                "seconds": 60.0,
            }
            for seed in seeds
        ]
    text = search.report(rows, tmp_path)
    assert "| tpe | 85.00 | +4.50 (-1.85 to +10.85) | 2 (2 of 2) | 60 |" in text
    rows = [
        {"arm": arm, "state": state, "seed": seed, "commands": 5 if arm == "by hand" else 1, "seconds": 10.0 + seed}
        for arm in ("by hand", "train.py alone")
        for state in ("cold", "warm")
        for seed in seeds
    ]
    assert "| train.py alone, caches warm | 1 | 10.5 (10.0 to 11.0) |" in pipelines.report(rows, tmp_path)
    rows = [{"who": "isotrain", "repeat": 0, "seconds": 300.4, "steps": 2, "packages": 120, "pinned": True}]
    assert "| isotrain | 2 | 300 | a first trained model | 120 | yes |" in environment.report(rows, tmp_path)
    for figure in tmp_path.glob("*.svg"):
        assert ElementTree.parse(figure).getroot().tag.endswith("svg")
    assert len(list(tmp_path.glob("*.svg"))) == 4


def test_figures_are_the_same_every_time(tmp_path: Path) -> None:
    values = {"a": (1.0, 0.5, 1.5), "b": (2.0, 1.0, 3.0)}
    for name in ("x", "y"):
        common.bars(tmp_path / name / "figure.svg", "A figure", values, "points")
    assert (tmp_path / "x" / "figure.svg").read_bytes() == (tmp_path / "y" / "figure.svg").read_bytes()


def test_an_unknown_study_is_refused(run: Run) -> None:
    done = run("-m", "studies", "alchemy", PYTHONPATH=f"{ROOT / 'src'}:{ROOT}")
    assert (done.returncode, "no study alchemy" in done.stderr) == (2, True)


TINY = {
    "seeds": [0], "threads": 1, "environment": {"repeats": 1}, "explanations": {"tasks": ["images"], "examples": 24},
    "defects": {"train": 240, "val": 120, "steps": 2, "share": 0.1},
    "search": {"tasks": ["images"], "train": 96, "val": 60, "epochs": 1, "trials": 2, "stopped": 2}, "pipelines": {"steps": 2},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["search", "pipelines"])
def test_a_study_runs_and_goes_on(name: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    command = [
        "-m",
        "studies",
        name,
        "--config",
        str(tmp_path / "tiny.yaml"),
        "--keep",
        str(tmp_path / "kept"),
        "--report",
        str(tmp_path / "docs" / "s.md"),
    ]
    (tmp_path / "docs").mkdir()
    for _ in range(2):
        done = run(*command, timeout=1500, PYTHONPATH=f"{ROOT / 'src'}:{ROOT}")
        assert done.returncode == 0, done.stderr
    assert STUDIES[name].HYPOTHESIS in (tmp_path / "docs" / "s.md").read_text()
    units = [json.loads(path.read_text()) for path in (tmp_path / "kept" / name).glob("*/*.json")]
    assert len(units) == {"search": 5, "pipelines": 6}[name]
    assert "measured" not in done.stderr
