"""Drift: distances against their definitions and scipy's, no alarm without a cause, and one with it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from scipy.spatial.distance import jensenshannon

from config.errors import InputError
from quality import distances, drift
from runs.statistics import holm_correction

floats = st.floats(-1e6, 1e6, width=32)
samples = arrays.arrays(np.float64, st.integers(1, 60), elements=floats)
counts = arrays.arrays(np.float64, 6, elements=st.integers(0, 500).map(float)).filter(lambda each: each.sum() > 0)


@given(samples, samples)
def test_ks_is_scipys(one: Any, other: Any) -> None:
    expected = stats.ks_2samp(one, other, method="asymp")
    assert distances.ks_statistic(one, other) == pytest.approx(expected.statistic, abs=1e-12)
    if min(len(one), len(other)) > 1:
        assert distances.ks_p_value(one, other) == pytest.approx(expected.pvalue, abs=1e-12)
    assert distances.ks_statistic(one, one) == 0


@given(counts, counts)
def test_distances_of_counts(one: Any, other: Any) -> None:
    assert distances.jensen_shannon(one, other) == pytest.approx(jensenshannon(one, other, base=2), abs=1e-7)
    assert distances.jensen_shannon(one, other) == pytest.approx(distances.jensen_shannon(other, one))
    assert 0 <= distances.jensen_shannon(one, other) <= 1 + 1e-12
    assert distances.psi(one, other) >= 0
    assert distances.psi(one, other) == pytest.approx(distances.psi(other, one))
    assert distances.psi(one, one) == pytest.approx(0)
    kept = (one + other) > 0
    if kept.sum() > 1:
        table = np.stack([one, other])[:, kept]
        expected = stats.chi2_contingency(table, correction=False)
        assert distances.chi_square_test(one, other)[0] == pytest.approx(expected.pvalue, abs=1e-9)
        assert distances.chi_square_test(one, other)[1] == pytest.approx(
            stats.contingency.association(table.astype(int)), abs=1e-9
        )


def test_psi_by_hand() -> None:
    one, other = np.array([99.5, 299.5]), np.array([199.5, 199.5])
    assert distances.psi(one, other) == pytest.approx((0.25 - 0.5) * np.log(0.5) + (0.75 - 0.5) * np.log(1.5))


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=8))
def test_holm(values: dict[str, float]) -> None:
    found = holm_correction(values)
    order = sorted(values, key=lambda each: values[each])
    assert all(values[name] <= found[name] <= 1 for name in values)
    assert [found[name] for name in order] == sorted(found.values())
    assert found[order[0]] == pytest.approx(min(1, len(values) * values[order[0]]))


def test_bins_share_the_reference() -> None:
    reference = np.random.default_rng(0).normal(size=1000)
    one, other = distances.bin_counts(reference, reference + 5)
    assert one.tolist() == [100] * 10
    assert other[-1] > 990


def columns(seed: int, rows: int, shift: float = 0.0, share: float = 0.3) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    base = random.normal(size=rows)
    found = {f"number {at}": base + random.normal(size=rows) for at in range(6)}
    found["moved"] = random.gamma(2, size=rows) + shift
    found["flag"] = np.where(random.random(rows) < share, "true", "false")
    found["constant"] = np.zeros(rows)
    found["gaps"] = np.where(random.random(rows) < 0.1, np.nan, base)
    return found


def drifted(old: dict[str, Any], new: dict[str, Any], level: float = 0.05) -> set[str]:
    return {row["name"] for row in drift.compare_columns([(old, new)], level) if row["drifted"]}


def test_samples_of_the_same_make_few_alarms(monkeypatch: pytest.MonkeyPatch) -> None:
    """At level 0.05, over eleven columns together; 40 comparisons have 2 alarms on average, 7 once in 500 times."""
    monkeypatch.setattr(drift, "DRAWS", 100)
    alarms = sum(bool(drifted(columns(2 * seed, 400), columns(2 * seed + 1, 300))) for seed in range(40))
    assert alarms <= 6


def test_what_changed_is_named() -> None:
    assert drifted(columns(0, 1500), columns(1, 1000, shift=0.4)) == {"moved"}
    assert drifted(columns(0, 1500), columns(1, 1000, share=0.45)) == {"flag"}
    gone = columns(1, 1000)
    gone["gaps"][:400] = np.nan
    assert "gaps is missing" in drifted(columns(0, 1500), gone)
    new = columns(1, 1000)
    new["constant"][:300] = 1
    assert drifted(columns(0, 1500), new) == {"constant"}
    new["constant"][30:300] = 0  # three rows of a hundred, where there were none
    assert drifted(columns(0, 1500), new) == {"constant"}
    new["constant"][1:300] = 0  # one row of a thousand
    assert not drifted(columns(0, 1500), new)


def test_other_columns_are_refused() -> None:
    with pytest.raises(InputError, match="flag"):
        drift.compare_columns(
            [(columns(0, 50), {name: value for name, value in columns(1, 50).items() if name != "flag"})], 0.05
        )


@given(arrays.arrays(np.float64, (12, 5), elements=st.floats(-5, 5)))
@settings(deadline=None)
def test_principal_components_keep_distances(matrix: Any) -> None:
    from quality.features import principal_components

    one, other = principal_components(matrix, matrix[::-1], 5)
    assert np.allclose(one, other[::-1])
    assert np.allclose((one**2).sum(), ((matrix - matrix.mean(axis=0)) ** 2).sum(), atol=1e-6)


def test_questions_against_the_run_that_was_trained_on_them(run: Any, tmp_path: Path) -> None:
    trained = run(
        "train.py", "data.sample.train=200", "data.sample.val=60", "trainer.max_steps=1", "trainer.threads=1",
        f"hydra.run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    command = ("-m", "quality", "drift", f"reference={tmp_path / 'run'}")
    same = run(
        *command,
        "data.sample.train=200",
        "data.sample.val=60",
        "data.sample.seed=5",
        "--folder",
        str(tmp_path / "one"),
    )
    assert same.returncode == 0, same.stdout + same.stderr
    assert "0 of " in same.stdout
    other = ("data.sample.train=200", "data.sample.val=60", "data.sample.unanswerable=0.5")
    done = run(*command, *other, "--folder", str(tmp_path / "two"), "--model", str(tmp_path / "run"))
    assert done.returncode == 4, done.stdout + done.stderr
    found = json.loads((tmp_path / "two" / "drift.json").read_text())
    assert {each["name"] for each in found["columns"] if each["drifted"]} >= {"answers", "answer_length is missing"}
    assert {"model: prediction", "model: confidence", "model: feature 1"} <= {each["name"] for each in found["columns"]}
    assert "answers" in (tmp_path / "two" / "report.md").read_text()
    assert "<svg" in (tmp_path / "two" / "report.html").read_text()
    warned = run(*command, *other, "--folder", str(tmp_path / "three"), "--action", "warn")
    assert warned.returncode == 0
    # The profile has numbers and kinds alone.
    import pyarrow.parquet as pq

    names = set(pq.read_schema(tmp_path / "run" / "quality" / "sample.parquet").names)
    assert not names & {"id", "title", "question", "context", "answer"}
    assert (tmp_path / "run" / "quality" / "sample.parquet").stat().st_size < 256 * 1024
    by_fingerprint = run(
        "-m", "quality", "drift", f"reference={json.loads((tmp_path / 'run/quality/verdict.json').read_text())['fingerprint'][:16]}",
        *other, "--folder", str(tmp_path / "four"),
    )  # fmt: skip
    assert by_fingerprint.returncode == 4


@pytest.mark.slow
def test_images_with_a_model(run: Any, tmp_path: Path) -> None:
    data = ("data=shapes", "data.sample.train=240", "data.sample.val=48")
    trained = run("train.py", "model=resnet18", *data, "trainer.max_steps=1", f"hydra.run.dir={tmp_path / 'run'}")
    assert trained.returncode == 0, trained.stderr
    command = ("-m", "quality", "drift", f"reference={tmp_path / 'run'}", "--model", str(tmp_path / "run" / "model"))
    same = run(*command, *data, "data.sample.seed=3", "--folder", str(tmp_path / "one"))
    assert same.returncode == 0, same.stdout + same.stderr
    done = run(*command, *data, "data.sample.classes=10", "--folder", str(tmp_path / "two"))
    assert done.returncode == 4
    assert "label" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("data.sample.train=40", "data.sample.val=20"), "name the reference once"),
        (("reference=nowhere",), "neither a run folder nor the fingerprint"),
        (("reference=.",), "has no quality/sample.parquet"),
        (("reference=nowhere", "--level", "2"), "--level 2.0"),
        (("reference=nowhere", "data=nothing"), "data=nothing: no such choice"),
    ],
)
def test_what_cannot_be_compared(run: Any, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run("-m", "quality", "drift", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
