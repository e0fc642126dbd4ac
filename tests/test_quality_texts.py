"""Contracts of labelled texts, by real files and the real command line: what is broken, in which rows."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Rows = list[dict[str, Any]]
CLASSES = ("praise", "complaint", "question")
NEAR = "texts that are nearly the same have one label"
LEAKED = "no text is in both splits"


def rows(split: str, count: int) -> Rows:
    """Texts that are all different, also without case and punctuation."""
    return [
        {
            "id": f"{split}-{number}",
            "text": f"The {split} customer of order {number} has written about the delivery of {number + 3} parcels.",
            "label": CLASSES[number % 3],
        }
        for number in range(count)
    ]


def write(folder: Path, train: Rows, val: Rows, form: str = "csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (("train", train), ("val", val)):
        if form == "jsonl":
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
            continue
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]) if table else ["id", "text", "label"])
            writer.writeheader()
            writer.writerows(table)
    return folder


@pytest.fixture
def verify(run: Any, tmp_path: Path) -> Callable[..., tuple[int, str, dict[str, set[str]]]]:
    """Runs `python -m quality`: its exit code, what it says, and by check the ids of the rows that break it."""

    def call(*overrides: str) -> tuple[int, str, dict[str, set[str]]]:
        report = tmp_path / "report"
        done = run("-m", "quality", *overrides, "--folder", str(report))
        assert "Traceback" not in done.stderr
        broken: dict[str, set[str]] = {}
        if (report / "rows.jsonl").exists():
            for line in (report / "rows.jsonl").read_text().splitlines():
                row = json.loads(line)
                broken.setdefault(row["check"], set()).add(row["id"])
        return done.returncode, done.stdout + done.stderr, broken

    return call


def leaked(train: Rows, val: Rows) -> None:
    val[4]["text"], val[4]["label"] = train[7]["text"], train[7]["label"]


def unknown(train: Rows, val: Rows) -> None:
    val[2]["label"] = "Praise"


def empty(train: Rows, val: Rows) -> None:
    train[5]["text"] = "  \t "


def two_labels(train: Rows, val: Rows) -> None:
    train[9]["text"], train[9]["label"] = train[3]["text"].upper().replace("THE ", "") + "!!", "complaint"


def unlabelled(train: Rows, val: Rows) -> None:
    train[6]["label"] = ""


def same_ids(train: Rows, val: Rows) -> None:
    val[1]["id"] = val[0]["id"]


def one_class(train: Rows, val: Rows) -> None:
    for row in train + val:
        row["label"] = "praise"


def no_validation(train: Rows, val: Rows) -> None:
    val.clear()


# Of a rule: what is done to the rows, the check that fails, and the rows that it names.
RULES: dict[str, tuple[Callable[[Rows, Rows], None], str, set[str]]] = {
    "a text copied between splits": (leaked, LEAKED, {"train-7", "val-4"}),
    "a label unknown in training": (unknown, "labels of validation are known in training", {"val-2"}),
    "an empty text": (empty, "no text is empty", {"train-5"}),
    "nearly the same, labelled otherwise": (two_labels, NEAR, {"train-3", "train-9"}),
    "no label": (unlabelled, "every text has a label", {"train-6"}),
    "an id twice": (same_ids, "ids are unique in their split", {"val-0"}),
    "one class": (one_class, "there are two classes or more", set()),
    "no validation texts": (no_validation, "there are validation texts", set()),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_broken_rule_is_exit_code_4_and_names_the_rows(rule: str, verify: Any, tmp_path: Path) -> None:
    damage, check, expected = RULES[rule]
    train, val = rows("train", 30), rows("val", 12)
    damage(train, val)
    data = write(tmp_path / "data", train, val)
    code, message, broken = verify("data=text_folder", f"data.path={data}")
    assert code == 4, message
    failed = {
        check_["name"]
        for check_ in json.loads((tmp_path / "report" / "verdict.json").read_text())["checks"]
        if check_["outcome"] == "failed"
    }
    assert failed == {check}
    assert broken.get(check, set()) == expected
    assert check in message
    page = (tmp_path / "report" / "report.html").read_text()
    assert all(name in page for name in expected)


def test_rows_that_are_no_texts_are_named(verify: Any, tmp_path: Path) -> None:
    """Training would end at the first of them, with exit code 2: the contract names them all."""
    train, val = rows("train", 30), rows("val", 12)
    train[1]["text"] = ["a", "list"]
    train[2]["label"] = 1.5
    train[3]["id"] = {"no": "id"}
    data = write(tmp_path / "data", train, val, "jsonl")
    code, message, broken = verify("data=text_folder", f"data.path={data}", "data.columns.id=id")
    assert code == 4, message
    assert broken["no text is empty"] == {"train-1"}
    assert broken["every text has a label"] == {"train-2"}
    assert len(broken["ids and second texts can be read"]) == 1
    assert "must be text, not" in (tmp_path / "report" / "report.html").read_text()


def test_sound_texts_pass_and_what_only_looks_odd_warns(verify: Any, tmp_path: Path) -> None:
    train, val = rows("train", 30), rows("val", 12)
    data = write(tmp_path / "data", train, val)
    code, message, broken = verify("data=text_folder", f"data.path={data}")
    assert (code, "passed, " in message, broken) == (0, True, {})
    train[0]["text"] += " Write to owner@example.org, call +33 1 42 68 53 00, pay with 4111 1111 1111 1111."
    train[1]["text"] += " \ufffd"
    train[2]["text"] = "Good"
    train[3]["text"] = train[6]["text"].lower()
    val[3]["text"] = train[9]["text"].replace(".", "")
    write(data, train, val)
    code, message, broken = verify("data=text_folder", f"data.path={data}")
    assert (code, "warned" in message) == (0, True), message
    assert broken == {
        "no text looks like an e-mail address": {"train-0"},
        "no text looks like a phone number": {"train-0"},
        "no text looks like a card number": {"train-0"},
        "no text was decoded wrongly": {"train-1"},
        "texts have words": {"train-2"},
        "no text is there twice": {"train-3", "train-6"},
        "no text of validation is nearly one of training": {"train-9", "val-3"},
    }


def test_symbols_and_emoticons_tell_texts_apart() -> None:
    from quality.text_facts import _normalise

    assert _normalise("The  shop, it is GREAT!") == _normalise("shop it is great")
    assert _normalise("great :)") != _normalise("great :(")
    assert _normalise("great 😀") != _normalise("great 😡")
    assert _normalise("C++") != _normalise("C")
    assert _normalise("!!!") != _normalise("???")


def test_pairs_are_compared_as_pairs(verify: Any, tmp_path: Path) -> None:
    """One first text may have many second ones, with other labels."""
    train, val = rows("train", 30), rows("val", 12)
    for number, row in enumerate(train + val):
        row["answer"] = f"It was the answer with the number {number}, and no other."
    for row in train:
        row["text"] = "Where is my parcel, please?"
    columns = ("data=text_folder", "data.columns.text_pair=answer")
    data = write(tmp_path / "data", train, val)
    code, message, broken = verify(*columns, f"data.path={data}")
    assert (code, broken) == (0, {}), message
    train[4]["answer"] = "  "
    val[5] = {**val[5], "text": train[5]["text"], "answer": train[5]["answer"], "label": train[5]["label"]}
    write(data, train, val)
    code, message, broken = verify(*columns, f"data.path={data}")
    assert code == 4, message
    assert broken["no second text is empty"] == {"train-4"}
    assert broken[LEAKED] == {"train-5", "val-5"}


def test_a_class_that_is_gone_fails_until_it_is_accepted(verify: Any, run: Any, tmp_path: Path) -> None:
    overrides = ("data=text_folder", f"data.path={tmp_path / 'data'}", f"data.cache_dir={tmp_path / 'cache'}")
    write(tmp_path / "data", rows("train", 30), rows("val", 12))
    assert verify(*overrides)[0] == 0
    train, val = ([row for row in rows(split, 30) if row["label"] != "question"] for split in ("train", "val"))
    write(tmp_path / "data", train, val)
    for _ in range(2):
        code, message, _ = verify(*overrides)
        assert (code, "every class of the data before has training texts" in message) == (4, True), message
    assert verify(*overrides, "quality=warn")[0] == 0
    assert verify(*overrides)[0] == 0


def test_training_is_stopped_before_it_begins(run: Any, tmp_path: Path) -> None:
    train, val = rows("train", 30), rows("val", 12)
    leaked(train, val)
    data = write(tmp_path / "data", train, val)
    command = ("train.py", "model=bert_tiny_classifier", "data=text_folder", f"data.path={data}", "trainer.max_steps=1")
    done = run(*command, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 4, done.stderr
    assert f"{LEAKED} (2 rows, e.g. train-7)" in done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_first_contract_of_texts(verify: Any, run: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "data", rows("train", 30), rows("val", 12))
    made = run("-m", "quality", "init", "data=text_folder", f"data.path={data}", "-o", str(tmp_path / "mine.yaml"))
    assert made.returncode == 0, made.stderr
    overrides = ("data=text_folder", f"data.path={data}", f"quality.contract={tmp_path / 'mine.yaml'}")
    code, message, broken = verify(*overrides)
    assert (code, "passed" in message, broken) == (0, True, {}), message
    train = rows("train", 30)
    train[8]["text"] += " And so on, and so forth, without an end." * 3
    write(data, train, rows("val", 12))
    code, message, broken = verify(*overrides)
    assert (code, "warned" in message) == (0, True), message
    assert broken["words is as it was"] == broken["length is as it was"] == {"train-8"}


def test_generated_texts_pass(verify: Any) -> None:
    code, message, broken = verify("data=topics_sample", "data.sample.train=600", "data.sample.val=120")
    assert (code, "topics_sample: passed" in message, broken) == (0, True, {}), message


def test_drift_of_texts(run: Any, tmp_path: Path) -> None:
    data = ("data=topics_sample", "data.sample.train=160", "data.sample.val=60")
    trained = run(
        "train.py", "model=bert_tiny_classifier", *data, "trainer.max_steps=2", "trainer.threads=1",
        f"hydra.run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    command = ("-m", "quality", "drift", f"reference={tmp_path / 'run'}")
    same = run(*command, *data, "data.sample.seed=7", "--folder", str(tmp_path / "one"))
    assert same.returncode == 0, same.stdout + same.stderr
    done = run(
        *command, "--model", str(tmp_path / "run"), *data, "data.sample.classes=2", "--folder", str(tmp_path / "two")
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert "label" in done.stdout
    columns = {column["name"] for column in json.loads((tmp_path / "two" / "drift.json").read_text())["columns"]}
    assert {"label", "length", "words", "model: prediction", "model: feature 1"} <= columns
