"""Drift: distances against their definitions and scipy's, no alarm without a cause, and one with it."""

import itertools
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
from quality import distances, drift, drift_report, profile
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


def categories(seed: int, names: list[str], rows: int) -> dict[str, Any]:
    """Seventeen columns of noise and a balanced category."""
    random = np.random.default_rng(seed)
    noise: dict[str, Any] = {f"noise {number}": random.normal(size=rows) for number in range(17)}
    return noise | {"label": np.array([names[row % len(names)] for row in range(rows)])}


def test_unseen_and_vanished_categories_are_named_and_judged() -> None:
    """Twelve classes, of which two are gone and two others are new: 18 of 108 rows."""
    names = [f"class {number:02}" for number in range(14)]
    old, new = categories(0, names[:12], 108), categories(1, [*names[:10], *names[12:]], 108)
    rows = drift.compare_columns([(old, new)], 0.01)
    (label,) = [row for row in rows if row["name"] == "label"]
    assert label["drifted"]
    assert label["p"] > 0.01  # the other tests do not see it
    assert label["unseen"] == {"class 12": 9, "class 13": 9}
    assert label["vanished"] == {"class 10": 9, "class 11": 9}
    assert [row["name"] for row in rows if row["drifted"]] == ["label"]
    assert all(row["unseen"] == row["vanished"] == {} for row in rows if row["name"] != "label")
    text = "not in the reference: class 12 (9 rows), class 13 (9 rows); not in the new data: class 10 (9 rows), class 11 (9 rows)"
    assert drift_report.describe_categories(label) == text
    # One row proves nothing, and is named.
    new = categories(1, names[:12], 108)
    new["label"][0] = "class 99"
    (label,) = [row for row in drift.compare_columns([(old, new)], 0.01) if row["name"] == "label"]
    assert (label["drifted"], label["unseen"], label["vanished"]) == (False, {"class 99": 1}, {})


def test_categories_of_all_rows_are_named() -> None:
    """The compared rows are a sample: a category that only the sample lacks is not unseen."""
    old, new = categories(0, ["a", "b"], 100), categories(1, ["a", "b", "c"], 100)
    for counts, unseen in (
        (({"a": 50, "b": 50, "c": 1}, {"a": 40, "c": 60}), {}),
        (({"a": 100}, {"a": 1, "d": 2}), {"d": 2}),
    ):
        rows = drift.compare_columns([(old, new)], 0.01, {"label": counts})
        assert next(row["unseen"] for row in rows if row["name"] == "label") == unseen


def test_categories_that_a_profile_leaves_out_are_not_called_unseen() -> None:
    many = {f"class {number}": 1 for number in range(profile.MAX_CATEGORIES)} | {"other": 9}
    for counts, expected in (({"a": 1}, ({"a": 1}, {"b": 2})), (many, ({}, {}))):
        old = {"columns": {"label": {"counts": {"train": counts}}, "length": {"numbers": {}}}}
        new = {"columns": {"label": {"counts": {"val": {"b": 2}}}, "length": {"numbers": {}}}}
        assert drift._all_categories(old, new, "val") == {"label": expected}


def test_rare_categories_of_the_same_make_few_alarms(monkeypatch: pytest.MonkeyPatch) -> None:
    """At level 0.05; 40 comparisons have 2 alarms on average. Nearly all have unseen and vanished categories."""
    monkeypatch.setattr(drift, "DRAWS", 100)
    shares = 1 / np.arange(1, 61)

    def sample(seed: int, rows: int) -> dict[str, Any]:
        random = np.random.default_rng(seed)
        names = random.choice(60, p=shares / shares.sum(), size=rows)
        return {"label": names.astype(str), "rare": random.integers(0, 3000, rows).astype(str)}

    columns = [drift.compare_columns([(sample(2 * seed, 400), sample(2 * seed + 1, 150))], 0.05) for seed in range(40)]
    assert sum(any(row["drifted"] for row in rows) for rows in columns) <= 6
    assert sum(any(row["name"] == "label" and row["vanished"] for row in rows) for rows in columns) > 30


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=6))
def test_the_test_of_exclusive_rows_is_exact(table: list[tuple[int, int]]) -> None:
    """Against all divisions of the rows, for small samples."""
    old, new = (np.array(side, float) for side in zip(*table, strict=True))
    if not 0 < new.sum() <= 6 or not 0 < old.sum() <= 8:
        return
    rows = np.repeat(np.arange(len(table)), (old + new).astype(int))
    divisions = list(itertools.combinations(range(len(rows)), int(new.sum())))

    def exclusive(chosen: tuple[int, ...]) -> int:
        inside = np.bincount(rows[list(chosen)], minlength=len(table))
        total = (old + new).astype(int)
        return int(total[(inside == 0) | (inside == total)].sum())

    observed = int((old + new)[(old == 0) | (new == 0)].sum())
    exact = np.mean([exclusive(chosen) >= observed for chosen in divisions]) if observed else 1.0
    assert distances.exclusive_p_value(old, new, 4000) == pytest.approx(exact, abs=0.04)


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


def test_classes_of_texts_are_named(run: Any, tmp_path: Path) -> None:
    """Of all rows, not of the sample that is compared."""

    def write(folder: str, classes: list[int]) -> tuple[str, ...]:
        (tmp_path / folder).mkdir()
        for split, words in (("train", "a"), ("val", "b")):
            texts = [f"text {words} {number} of class {name},class {name}" for name in classes for number in range(9)]
            (tmp_path / folder / f"{split}.csv").write_text("text,label\n" + "\n".join(texts) + "\n")
        return ("data=text_folder", f"data.path={folder}", f"data.cache_dir={tmp_path / 'cache'}")

    verified = run("-m", "quality", *write("old", [*range(12)]), "--folder", "one", "quality=warn")
    assert verified.returncode == 0, verified.stderr
    fingerprint = json.loads((tmp_path / "one" / "verdict.json").read_text())["fingerprint"]
    done = run(
        "-m", "quality", "drift", f"reference={fingerprint}", *write("new", [*range(10), 12, 13]), "--folder", "two"
    )
    assert done.returncode == 4, done.stdout + done.stderr
    text = "label: not in the reference: class 12 (9 rows), class 13 (9 rows); not in the new data: class 10 (9 rows)"
    assert text in done.stdout
    assert "columns drifted: label" in done.stdout.splitlines()[-1]
    for name in ("report.md", "report.html"):
        assert text.removeprefix("label: ") in (tmp_path / "two" / name).read_text()
    # Its own report is replaced.
    again = run("-m", "quality", "drift", f"reference={fingerprint}", "data=text_folder", "data.path=old",
                f"data.cache_dir={tmp_path / 'cache'}", "--folder", "two")  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "not in the" not in again.stdout


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
