"""`python -m runs compare`, through its command line."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import made_runs
from tests.conftest import Run

from config import files
from runs import folder as folders
from runs import predictions


def two(folder: Path, count: int = 400, **more: Any) -> tuple[Path, Path]:
    a = made_runs.write(folder / "a", made_runs.questions(count, 0.5, 1), **more)
    return a, made_runs.write(folder / "b", made_runs.questions(count, 0.62, 2), **more)


def compared(run: Run, *arguments: str | Path) -> Any:
    done = run("-m", "runs", "compare", *map(str, arguments), "--json")
    assert done.returncode == 0, done.stderr
    return made_runs.read(done.stdout)


def test_a_better_model_is_told_from_chance(run: Run, tmp_path: Path) -> None:
    a, b = two(tmp_path)
    found = compared(run, a, b)
    assert (found["examples"], found["clustered_by"], found["fingerprint"]) == (400, "document", made_runs.MARK)
    f1 = next(each for each in found["results"] if each["metric"] == "val_f1")
    records = [folders.read_record(each)["metrics"] for each in (a, b)]
    assert f1["difference"]["a"] == pytest.approx(records[0]["val_f1"])
    assert f1["difference"]["value"] == pytest.approx(records[1]["val_f1"] - records[0]["val_f1"])
    assert f1["verdict"] == "better"
    assert f1["difference"]["low"] > 0
    assert found == compared(run, a, b)  # seeded
    assert all(each["verdict"] == "worse" for each in compared(run, b, a)["results"])
    done = run("-m", "runs", "compare", str(a), str(b))
    assert "One run per side" in done.stdout
    assert f"{f1['difference']['value']:+.2f}" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80, done.stdout


def test_mcnemar_counts_are_those_of_the_predictions(run: Run, tmp_path: Path) -> None:
    a, b = two(tmp_path)
    rows = [{row["id"]: row["exact_match"] for row in predictions.read(each / "predictions.jsonl")} for each in (a, b)]
    found = next(each for each in compared(run, a, b)["results"] if each["metric"] == "val_exact_match")
    only = found["difference"]["mcnemar"]
    assert only["only_a"] == sum(rows[0][key] > rows[1][key] for key in rows[0])
    assert only["only_b"] == sum(rows[1][key] > rows[0][key] for key in rows[0])


def test_images_and_losses(run: Run, tmp_path: Path) -> None:
    a = made_runs.write(tmp_path / "a", made_runs.images(360, 0.5, 1))
    b = made_runs.write(tmp_path / "b", made_runs.images(360, 0.65, 2))
    found = {each["metric"]: each for each in compared(run, a, b)["results"]}
    assert set(found) == {"val_accuracy", "val_top5_accuracy", "val_loss"}
    assert found["val_loss"]["difference"]["value"] < 0
    assert found["val_loss"]["verdict"] == "better"  # lower is
    assert compared(run, a, b)["clustered_by"] == "class"
    few = [made_runs.write(tmp_path / n, made_runs.images(360, 0.5, s, classes=4)) for n, s in (("c", 1), ("d", 2))]
    assert compared(run, *few)["clustered_by"] == "example"


def test_other_data_is_refused(run: Run, tmp_path: Path) -> None:
    a, _ = two(tmp_path)
    other = made_runs.write(tmp_path / "c", made_runs.questions(400, 0.5, 3), mark="ef" * 32)
    done = run("-m", "runs", "compare", str(a), str(other))
    assert done.returncode == 2
    assert "different data" in done.stderr
    assert "python -m trainers evaluate run=RUN" in done.stderr


def test_missing_examples_are_said_and_left_out(run: Run, tmp_path: Path) -> None:
    a, _ = two(tmp_path)
    rows = made_runs.questions(400, 0.6, 2)
    part = made_runs.write(tmp_path / "c", rows[30:])
    found = compared(run, a, part)
    assert found["examples"] == 370
    assert "30 of 400" in found["notes"][0]
    assert "q0" in found["notes"][0]
    one = next(each for each in found["results"] if each["metric"] == "val_f1")
    assert one["difference"]["b"] == pytest.approx(100 * np.mean([row["f1"] for row in rows[30:]]))


def test_nothing_in_common_is_refused(run: Run, tmp_path: Path) -> None:
    a, _ = two(tmp_path)
    rows = [row | {"id": f"other {row['id']}"} for row in made_runs.questions(400, 0.6, 2)]
    done = run("-m", "runs", "compare", str(a), str(made_runs.write(tmp_path / "c", rows)))
    assert (done.returncode, "no example in common" in done.stderr) == (2, True)


@pytest.mark.parametrize("how", ["folder", "commas"])
def test_several_seeds_a_side(how: str, run: Run, tmp_path: Path) -> None:
    names = []
    for side, rate in (("a", 0.5), ("b", 0.52)):
        of = [
            made_runs.write(tmp_path / side / str(seed), made_runs.questions(300, rate + seed / 20, seed), seed=seed)
            for seed in range(3)
        ]
        names.append(str(tmp_path / side) if how == "folder" else ",".join(map(str, of)))
    found = compared(run, *names)
    one = found["results"][0]
    assert one["difference"]["runs"] == [3, 3]
    assert (one["difference"]["test"], one["difference"]["mcnemar"]) == ("seeds", None)
    # The seeds' spread is wider than the difference: single runs of them would be told apart.
    assert one["verdict"] == "no difference shown"
    assert found["notes"] == []
    assert not any("more than their seed" in note for note in found["notes"])


def test_runs_of_a_side_that_differ_otherwise_are_told(run: Run, tmp_path: Path) -> None:
    for seed in range(2):
        made_runs.write(
            tmp_path / "a" / str(seed), made_runs.questions(100, 0.5, seed), seed=seed, optim={"lr": 10.0**-seed}
        )
    made_runs.write(tmp_path / "b", made_runs.questions(100, 0.5, 7))
    assert "differ by more than their seed: optim.lr" in " ".join(
        compared(run, tmp_path / "a", tmp_path / "b")["notes"]
    )


def test_many_comparisons_are_corrected(run: Run, tmp_path: Path) -> None:
    a, b = two(tmp_path)
    alone = compared(run, a, b, "--metric", "val_f1")["results"]
    others = [made_runs.write(tmp_path / f"c{n}", made_runs.questions(400, 0.5, 10 + n)) for n in range(4)]
    together = compared(run, a, b, *others, "--metric", "val_f1")["results"]
    assert len(together) == 5
    assert together[0]["difference"] == alone[0]["difference"]
    assert together[0]["adjusted"] == pytest.approx(5 * alone[0]["adjusted"], rel=1e-9)


@pytest.mark.parametrize(("margin", "fine"), [("0.5", False), ("30", True)])
def test_non_inferiority(margin: str, fine: bool, run: Run, tmp_path: Path) -> None:
    a, b = two(tmp_path)
    found = compared(run, b, a, "--margin", margin, "--metric", "val_f1")["results"][0]
    assert found["non_inferior"] is fine
    assert (found["difference"]["low"] > -float(margin)) is fine
    said = run("-m", "runs", "compare", str(b), str(a), "--margin", margin).stdout
    assert ("non-inferiority not shown" in said) is not fine


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "predictions.jsonl").unlink(), "has no predictions.jsonl"),
        (lambda folder: (folder / "predictions.jsonl").write_text('{"id": 1}\n{'), "is not a prediction"),
        (lambda folder: (folder / "predictions.jsonl").write_text(""), "has no predictions"),
        (lambda folder: (folder / "predictions.jsonl").write_bytes(2 * (folder / "predictions.jsonl").read_bytes()), "an id twice"),
        (lambda folder: (folder / "run.json").write_text("{"), "run.json"),
        (lambda folder: (folder / "run.json").unlink(), "run.json"),
        (lambda folder: folder.rename(folder.with_name("gone")), "no folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_said(spoil: Any, said: str, run: Run, tmp_path: Path) -> None:
    a, b = two(tmp_path, 20)
    spoil(b)
    done = run("-m", "runs", "compare", str(a), str(b))
    assert done.returncode == 2
    assert said in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_arguments_that_make_no_sense(run: Run, tmp_path: Path) -> None:
    a, b = two(tmp_path, 20)
    for arguments, said in (
        ([a], "two runs or more"),
        ([a, b, "--metric", "val_f2"], "have the metric val_f2"),
        ([a, b, "--margin", "-1"], "0 or more"),
        ([a, b, "--resamples", "3"], "100 to"),
        ([a, b, "--seed", "-1"], "0 to"),
        ([f"{a},", b], "no folder"),
    ):
        done = run("-m", "runs", "compare", *map(str, arguments))
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_a_run_is_compared_once(run: Run, tmp_path: Path) -> None:
    a, b = two(tmp_path, 20)
    for sides in ([a, a], [f"{a},{a}", b], [a, b, b], [a, tmp_path]):
        done = run("-m", "runs", "compare", *map(str, sides))
        assert (done.returncode, "compared once" in done.stderr) == (2, True), done.stderr


def test_one_run_against_several_says_what_is_assumed(run: Run, tmp_path: Path) -> None:
    a, b = two(tmp_path, 60)
    c = made_runs.write(tmp_path / "c", made_runs.questions(60, 0.6, 5))
    assert "assumed to have the same variance" in " ".join(compared(run, a, f"{b},{c}")["notes"])


def test_a_margin_is_of_points_and_not_certain_of_few(run: Run, tmp_path: Path) -> None:
    rows = made_runs.images(60, 0.7, 1)
    a, b = (made_runs.write(tmp_path / name, rows) for name in "ab")
    found = {each["metric"]: each["non_inferior"] for each in compared(run, a, b, "--margin", "0.5")["results"]}
    # 60 alike examples do not rule out that one in twenty differs.
    assert found == {"val_accuracy": False, "val_top5_accuracy": False, "val_loss": None}
    found = {each["metric"]: each["non_inferior"] for each in compared(run, a, b, "--margin", "26")["results"]}
    assert found["val_accuracy"] is True  # three classes in twelve


def test_metrics_of_another_unit_and_direction(run: Run, tmp_path: Path) -> None:
    """A task of somebody else's: lower is better, in years; a metric without a declared direction has no better."""
    sides = [made_runs.write(tmp_path / name, made_runs.ages(300, spread, 1)) for name, spread in (("a", 4), ("b", 3))]
    own = made_runs.own_task()
    for (one, other), verdict in ((sides, "better"), (sides[::-1], "worse")):
        done = run("-m", "runs", "compare", str(one), str(other), "--margin", "0.5", "--json", **own)
        assert done.returncode == 0, done.stderr
        found = made_runs.read(done.stdout)
        assert (found["task"], found["clustered_by"]) == ("age", "example")
        by = {row["metric"]: row for row in found["results"]}
        error = by["val_mae"]
        records = [folders.read_record(side)["metrics"]["val_mae"] for side in (one, other)]
        assert error["difference"]["value"] == pytest.approx(records[1] - records[0])
        assert (error["higher_is_better"], error["verdict"]) == (False, verdict)
        # The worse end of an error is the upper one. The monitor is an error, so the margin is of years, not of points.
        assert error["worst"] == error["difference"]["high"]
        assert error["non_inferior"] is (error["difference"]["high"] < 0.5) is (verdict == "better")
        assert by["val_within_5"]["non_inferior"] is None
        assert (by["val_bias"]["higher_is_better"], by["val_bias"]["non_inferior"]) == (None, None)
        assert by["val_bias"]["verdict"] in ("different", "no difference shown")
    again = ["compare", *map(str, sides), "--margin", "5", "--json", "--metric"]
    named = made_runs.read(run("-m", "runs", *again, "val_within_5", **own).stdout)["results"][0]
    assert (named["higher_is_better"], named["non_inferior"], named["worst"]) == (
        True,
        True,
        named["difference"]["low"],
    )
    done = run("-m", "runs", *again, "val_bias", **own)
    assert (done.returncode, "whether higher values of val_bias are better" in done.stderr) == (2, True), done.stderr


def test_small_numbers_are_shown(run: Run, tmp_path: Path) -> None:
    for name, spread in (("a", 0.004), ("b", 0.003)):
        made_runs.write(tmp_path / name, made_runs.ages(300, spread, 1))
    done = run(
        "-m", "runs", "compare", str(tmp_path / "a"), str(tmp_path / "b"), "--metric", "val_mae", **made_runs.own_task()
    )
    error = folders.read_record(tmp_path / "a")["metrics"]["val_mae"]
    assert f" {error:.6f} " in done.stdout, done.stdout


def test_runs_of_two_tasks_are_refused(run: Run, tmp_path: Path) -> None:
    a = made_runs.write(tmp_path / "a", made_runs.questions(30, 0.5, 1))
    b = made_runs.write(tmp_path / "b", made_runs.images(30, 0.5, 1))
    done = run("-m", "runs", "compare", str(a), str(b))
    assert (done.returncode, "compare runs of one task" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("right", "wrong", "margin", "shown"),
    [(60, 0, "6", True), (60, 0, "4", False), (0, 60, "90", False), (30, 30, "6", True), (30, 30, "4", False)],
)
def test_alike_examples_rule_out_no_more_than_so_many_do(
    right: int, wrong: int, margin: str, shown: bool, run: Run, tmp_path: Path
) -> None:
    """Three in 60 might differ by what two values can differ by; where all are the worst there is, by nobody knows what."""
    rows = [
        {**row, "exact_match": int(number < right), "f1": float(number < right)}
        for number, row in enumerate(made_runs.questions(right + wrong, 0.5, 1, documents=60))
    ]
    a, b = (made_runs.write(tmp_path / name, rows) for name in "ab")
    found = compared(run, a, b, "--margin", margin, "--metric", "val_exact_match")["results"][0]
    assert found["non_inferior"] is shown
    assert (found["worst"] is None) is (right == 0)  # minus infinity


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder, rows: files.write_json(
            folder / "run.json", folders.read_record(folder) | {"data": [1], "config": []}
        ),
        lambda folder, rows: predictions.write(
            folder / "predictions.jsonl", [{**rows[0], "probability": "x"}, *rows[1:]]
        ),
        lambda folder, rows: predictions.write(folder / "predictions.jsonl", [*rows, *made_runs.images(3, 0.5, 1)]),
    ],
)
def test_strange_files_are_refused(spoil: Any, run: Run, tmp_path: Path) -> None:
    a, b = two(tmp_path, 20)
    spoil(b, made_runs.questions(20, 0.6, 2))
    for sides in ([a, b], [a, "x" * 300 + "," + "y" * 300]):
        done = run("-m", "runs", "compare", *map(str, sides))
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_rows_of_older_runs_have_no_documents(run: Run, tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "document"} for row in made_runs.questions(90, 0.5, 1)]
    a, b = (made_runs.write(tmp_path / name, rows) for name in "ab")
    found = compared(run, a, b)
    assert found["clustered_by"] == "example"
    assert all(
        each["difference"]["value"] == 0 and each["verdict"] == "no difference shown" for each in found["results"]
    )


def test_ten_thousand_questions_take_seconds(run: Run, tmp_path: Path) -> None:
    """No time is asserted, for machines differ; that it ends well within the suite's limit is."""
    a, b = (
        made_runs.write(tmp_path / n, made_runs.questions(10_570, 0.6, s, documents=48))
        for n, s in (("a", 1), ("b", 2))
    )
    began = time.monotonic()
    found = compared(run, a, b)
    print(f"{time.monotonic() - began:.1f} s")
    assert found["examples"] == 10_570


@pytest.mark.slow
def test_what_trainings_leave_can_be_compared(run: Run, tmp_path: Path) -> None:
    """Real runs of both tasks: their rows' means are their metrics."""
    for name, arguments in (
        ("questions", ["data.sample.train=200", "data.sample.val=120"]),
        (
            "images",
            ["model=resnet18", "model.stem=small", "data=shapes", "data.sample.train=100", "data.sample.val=120"],
        ),
    ):
        folder = [tmp_path / name / str(seed) for seed in (0, 1)]
        for seed, each in enumerate(folder):
            done = run(
                "train.py", *arguments, "quality=off", "trainer.max_steps=3", f"seed={seed}", f"hydra.run.dir={each}"
            )
            assert done.returncode == 0, done.stderr
        found = compared(run, *folder)
        metrics = [json.loads((each / "run.json").read_text())["metrics"] for each in folder]
        assert found["clustered_by"] == (
            "example" if name == "questions" else "class"
        )  # of so few questions, few articles
        for each in found["results"]:
            assert each["difference"]["a"] == pytest.approx(metrics[0][each["metric"]], rel=1e-4), each["metric"]
            assert each["difference"]["b"] == pytest.approx(metrics[1][each["metric"]], rel=1e-4), each["metric"]
