"""Parts of one file or folder: equal examples and groups stay together, each class gets its share, a seed decides."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.conftest import Run

from config.errors import InputError
from datamodules.image_classification import ImageClassificationData
from datamodules.images import image_splits
from datamodules.question_answering import QuestionAnsweringData
from datamodules.sources.locations import Names
from datamodules.sources.splitting import Key, Splitting, assign, normalise
from datamodules.text_classification import TextClassificationData

# --- the choice


def keys(count: int, classes: int = 1, size: int = 1) -> list[Key]:
    return [Key((f"group {n // size}",), f"class {n // size % classes}") for n in range(count)]


def test_each_class_gets_its_share_and_another_seed_gives_other_parts() -> None:
    rows = keys(300, classes=3)
    parts = assign(rows, Splitting(0.2, 0.1))
    assert [int((parts == part).sum()) for part in range(3)] == [210, 60, 30]
    for label in range(3):
        assert [int((parts[label::3] == part).sum()) for part in range(3)] == [70, 20, 10]
    assert (assign(rows, Splitting(0.2, 0.1)) == parts).all()
    assert (assign(rows, Splitting(0.2, 0.1, seed=1)) != parts).any()


def test_the_choice_does_not_depend_on_the_order_of_the_rows() -> None:
    rows = keys(100, classes=2)
    parts = assign(rows, Splitting(0.3))
    order = random.Random(0).sample(range(100), 100)
    assert assign([rows[index] for index in order], Splitting(0.3)).tolist() == parts[order].tolist()


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(0, 2)), min_size=2, max_size=40))
def test_examples_that_share_a_group_are_in_one_part(rows: list[tuple[int, int, int]]) -> None:
    made = [Key((f"text {text}", f"group {group}"), str(label)) for text, group, label in rows]
    try:
        parts = assign(made, Splitting(0.3, 0.2))
    except InputError:  # too few groups
        return
    for position in range(2):
        by_group: dict[str, set[int]] = {}
        for key, part in zip(made, parts, strict=True):
            by_group.setdefault(key.groups[position], set()).add(int(part))
        assert all(len(found) == 1 for found in by_group.values())
    assert set(parts.tolist()) == {0, 1, 2}


def test_a_rare_class_is_kept_for_training_first() -> None:
    rows = [*keys(20), Key(("rare",), "rare"), Key(("two 1",), "two"), Key(("two 2",), "two")]
    parts = assign(rows, Splitting(0.1, 0.1))
    assert parts[20] == 0
    assert sorted(parts[21:].tolist()) == [0, 1]


def test_texts_that_differ_in_case_punctuation_and_spaces_are_equal() -> None:
    assert normalise(" Hello,  World!") == normalise("hello world") != normalise("hello worlds")
    assert normalise("?!") != normalise("!!")


def test_shares_that_leave_nothing_and_groups_without_a_share_are_refused() -> None:
    with pytest.raises(InputError, match=r"data\.split=0\.6 and data\.test_split=0\.4 leave nothing to train on"):
        Splitting(0.6, 0.4)
    with pytest.raises(InputError, match=r"data\.group=author has an effect only with data\.split or data\.test_split"):
        Splitting(group="author")
    with pytest.raises(InputError, match="4 examples in 1 groups cannot be split"):
        assign(keys(4, size=4), Splitting(0.5))


# --- questions


def write_questions(path: Path, count: int = 40) -> Path:
    rows = [
        {
            "question": f"Where is {n}?",
            "context": f"It is in town {n // 4}.",
            "answer": f"town {n // 4}",
            "author": n % 8 // 4,
        }
        for n in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def questions(cache: Path, **settings: Any) -> dict[str, list[str]]:
    data = QuestionAnsweringData(cache_dir=str(cache), vocab_size=200, **settings)
    return {split: [each.question for each in data.questions(split, None)] for split in ("train", "val")}


def test_one_file_is_split_by_context(tmp_path: Path) -> None:
    path = str(write_questions(tmp_path / "all.jsonl"))
    for settings in ({"path": path}, {"path": str(tmp_path)}, {"train_file": path}):
        found = questions(tmp_path / "cache", split=0.2, **settings)
        assert (len(found["train"]), len(found["val"])) == (32, 8)
        assert sorted(found["train"] + found["val"]) == sorted(f"Where is {n}?" for n in range(40))
        towns = {split: {int(text[9:-1]) // 4 for text in texts} for split, texts in found.items()}
        assert not towns["train"] & towns["val"]
    grouped = questions(tmp_path / "cache", path=path, split=0.5, group="author")
    # Every context has one author, and all contexts of an author are in one part.
    assert {int(text[9:-1]) % 8 // 4 for text in grouped["val"]} in ({0}, {1})


def test_the_test_part_is_never_in_the_others(tmp_path: Path) -> None:
    path = str(write_questions(tmp_path / "all.jsonl"))
    settings: dict[str, Any] = {"path": path, "split": 0.2, "test_split": 0.3, "cache_dir": str(tmp_path / "cache")}
    data = QuestionAnsweringData(**settings)
    found = [each.question for split in ("train", "val") for each in data.questions(split, None)]
    fingerprints = data.fingerprints
    data.evaluate_test()
    test = [each.question for each in data.questions("val", None)]
    assert sorted(found + test) == sorted(f"Where is {n}?" for n in range(40))
    assert len(test) == 12
    assert data.fingerprint("val") not in fingerprints.values()
    other = QuestionAnsweringData(**{**settings, "split_seed": 1}).fingerprints
    assert other["train"] != fingerprints["train"]
    # The training seed decides about the order only.
    assert QuestionAnsweringData(**settings, seed=5).fingerprints == fingerprints


def write_articles(path: Path) -> Path:
    """Write five articles of four paragraphs with one question each, in SQuAD's layout; two articles are of one author."""
    articles = []
    for number in range(5):
        contexts = [f"The house {number}{n} is not far." for n in range(4)]
        paragraphs = [
            {"context": text, "qas": [{"id": f"{number}{n}", "question": f"{number}.{n}?", "answers": [ANSWER]}]}
            for n, text in enumerate(contexts)
        ]
        articles.append({"title": f"Street {number}", "author": number // 2, "paragraphs": paragraphs})
    path.write_text(json.dumps({"data": articles}))
    return path


ANSWER = {"text": "house", "answer_start": 4}


def test_articles_are_split_by_title_by_another_key_or_by_paragraph(tmp_path: Path) -> None:
    path = str(write_articles(tmp_path / "all.json"))

    def values(group: str | None) -> dict[str, set[tuple[int, int]]]:
        found = questions(tmp_path / "cache", path=path, split=0.4, group=group)
        return {split: {(int(text[0]), int(text[2])) for text in texts} for split, texts in found.items()}

    for group in (None, "title"):
        parts = values(group)
        assert not {article for article, _ in parts["train"]} & {article for article, _ in parts["val"]}
        assert len(parts["val"]) == 8
    authors = {split: {article // 2 for article, _ in found} for split, found in values("author").items()}
    assert not authors["train"] & authors["val"]
    paragraphs = values("context")
    assert len(paragraphs["val"]) == 8
    assert len({article for article, _ in paragraphs["val"]}) > 2
    with pytest.raises(
        InputError,
        match=r"article 1 \(Street 0\): the article has no key 'topic' \(data\.group\) with a text or a number; possible are "
        r"'title', 'author', 'context'",
    ):
        values("topic")


def test_a_validation_file_needs_no_column_of_the_group(tmp_path: Path) -> None:
    path = write_questions(tmp_path / "all.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        del row["author"]
    (tmp_path / "other.jsonl").write_text("\n".join(map(json.dumps, rows)))
    names = {"train_file": str(path), "val_file": str(tmp_path / "other.jsonl")}
    found = questions(tmp_path / "cache", **names, test_split=0.5, group="author")
    assert (len(found["train"]), len(found["val"])) == (20, 40)


# --- texts


def test_texts_are_split_with_their_classes_and_equal_texts_stay_together(tmp_path: Path) -> None:
    rows = [(f"Text no. {n % 30}", "ab"[n % 30 % 2]) for n in range(60)]
    (tmp_path / "all.tsv").write_text("text\tlabel\n" + "\n".join("\t".join(row) for row in rows))
    data = TextClassificationData(path=str(tmp_path), split=0.2, cache_dir=str(tmp_path / "cache"), vocab_size=100)
    data.prepare_data()
    data.setup()
    texts = {split: [data.texts(split).text(n) for n in range(len(data.texts(split)))] for split in ("train", "val")}
    assert (len(texts["train"]), len(texts["val"])) == (48, 12)
    assert not set(texts["train"]) & set(texts["val"])
    assert np.bincount(data.texts("val").labels).tolist() == [6, 6]
    assert data.describe()["split"] == {"val": 0.2, "seed": 0, "near_duplicates": True}
    few = TextClassificationData(
        path=str(tmp_path), split=0.2, max_train=4, cache_dir=str(tmp_path / "cache"), vocab_size=100
    )
    assert [record.label for record in few.records("train")].count("a") == 2
    assert {record.text for record in few.records("train")} <= set(texts["train"])


# --- images


def write_images(folder: Path, count: int = 10) -> Path:
    for red, name in enumerate(("cat", "dog", "fox")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            colour = (60 * red, 20 * (number // 2), 0)  # two equal ones each
            Image.new("RGB", (16, 16), colour).save(folder / name / f"{number}.png")
    return folder


def images(path: Path, cache: Path, **settings: Any) -> ImageClassificationData:
    data = ImageClassificationData(path=str(path), image_size=16, cache_dir=str(cache), **settings)
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize("inner", ["", "Train", "images"])
def test_a_folder_of_class_folders_is_split(tmp_path: Path, inner: str) -> None:
    write_images(tmp_path / "my" / inner)
    data = images(tmp_path / "my", tmp_path / "cache", split=0.2, test_split=0.2)
    names = {split: [str(data.survey.splits[split].names[n]) for n in range(6)] for split in ("train", "val")}
    assert (len(data.train), len(data.val), data.num_classes) == (18, 6, 3)
    numbers = {split: {(name.split("/")[-2], int(Path(name).stem) // 2) for name in names[split]} for split in names}
    assert not numbers["train"] & numbers["val"]
    assert len(numbers["val"]) == 3  # of each class two equal ones


def write_patients(folder: Path) -> Path:
    """Write images of twelve patients, half of whom have images in both classes."""
    for name in ("sick", "well"):
        (folder / name).mkdir(parents=True)
    for patient in range(12):
        for scan in range(4):
            name = ("sick", "well")[patient % 2 if patient < 6 else scan % 2]
            colour = (patient * 20, scan * 60, 0)
            Image.new("RGB", (16, 16), colour).save(folder / name / f"patient{patient}_{scan}.png")
    return folder


def test_images_are_grouped_by_a_part_of_their_path(run: Run, tmp_path: Path) -> None:
    folder = write_patients(tmp_path / "scans")
    data = images(folder, tmp_path / "cache", split=0.35, group=r"^(patient\d+)_")
    parts = {
        split: {name.rpartition("/")[2].split("_")[0] for name in data.survey.splits[split].names}
        for split in ("train", "val")
    }
    assert not parts["train"] & parts["val"]
    assert (len(parts["train"]), len(parts["val"])) == (8, 4)
    ungrouped = images(folder, tmp_path / "cache", split=0.35)
    assert ungrouped.fingerprint("train") != data.fingerprint("train")
    small = ("-m", "datamodules", "prepare", "data=image_folder", "model=majority", "data.path=scans",
             "data.split=0.35")  # fmt: skip
    made = run(*small, r"data.group='^(patient\d+)_'", "data.image_size=16")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["train"]["fingerprint"] == data.fingerprint("train")
    for group, message in (
        ("'^([^/]+)/'", "scans, such as patient0_0.png; every image needs one"),
        ("'^patient'", r"with one group in parentheses, such as ^(patient\d+)_, and not with 0"),
        ("'^(patient'", "is not a regular expression: missing ), unterminated subpattern at position 1"),
    ):
        told = run(*small, f"data.group={group}")
        assert told.returncode == 2
        assert message in told.stderr, told.stderr


def test_images_are_grouped_by_the_folder_below_their_class(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for film in range(4):
            (tmp_path / "my" / name / f"film{film}").mkdir(parents=True)
            for frame in range(3):
                colour = (film * 60, frame * 60, 90 * len(name))
                Image.new("RGB", (16, 16), colour).save(tmp_path / "my" / name / f"film{film}" / f"{frame}.png")
    data = images(tmp_path / "my", tmp_path / "cache", split=0.25, group="^([^/]+)/")
    films = {split: {name.split("/")[2] for name in data.survey.splits[split].names} for split in ("train", "val")}
    assert not films["train"] & films["val"]
    assert len(films["val"]) == 1


def test_images_in_tables_are_split(tmp_path: Path) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for number in range(20):
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16), (number * 10, 0, 0)).save(buffer, "PNG")
        image = {"bytes": buffer.getvalue(), "path": None}
        rows.append({"image": image, "label": number % 2, "author": number // 4})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "all.parquet")
    data = images(tmp_path / "all.parquet", tmp_path / "cache", split=0.2)
    assert (len(data.train), len(data.val)) == (16, 4)
    for split in (data.train, data.val):
        for index, name in enumerate(split.names):
            number = int(name.split("/")[-1])
            assert split.batch([index])["pixels"][0, 0, 0].tolist() == [number * 10, 0, 0]
            assert split.batch([index])["labels"].tolist() == [number % 2]
    grouped = images(tmp_path / "all.parquet", tmp_path / "cache", split=0.2, group="author")
    authors = [{int(name.split("/")[-1]) // 4 for name in split.names} for split in (grouped.train, grouped.val)]
    assert not authors[0] & authors[1]
    with pytest.raises(InputError, match=r"the column data\.group=sex is missing; found image, label, author"):
        images(tmp_path / "all.parquet", tmp_path / "cache", split=0.2, group="sex")


# --- where the parts are


@pytest.mark.parametrize(
    "names", [("Train", "Validation", "TEST"), ("training", "valid", "test"), ("train", "dev", "Test")]
)
def test_folders_have_the_usual_names_in_any_case(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for name in names:
        write_images(tmp_path / name, 2)
    found = [image_splits.locate(Names(str(tmp_path)), split) for split in ("train", "val", "test")]
    assert [[Path(file).name for file in files] for files in found] == [[name] for name in names]


def test_two_candidates_are_refused_with_both_names(tmp_path: Path) -> None:
    for name in ("train", "val", "Valid"):
        write_images(tmp_path / name, 2)
    with pytest.raises(
        InputError, match=r"more than one folder could be the val split \(Valid, val\); .*data\.val_file"
    ):
        image_splits.locate(Names(str(tmp_path)), "val")


def test_files_have_the_usual_names_in_any_case(tmp_path: Path) -> None:
    write_questions(tmp_path / "Train.jsonl")
    write_questions(tmp_path / "Dev.jsonl", 8)
    assert len(questions(tmp_path / "cache", path=str(tmp_path))["val"]) == 8
    with pytest.raises(InputError, match=r"Dev\.jsonl could be the val part, and data\.split=0\.1 takes one from the"):
        questions(tmp_path / "cache", path=str(tmp_path), split=0.1)
    with pytest.raises(InputError, match=r"data\.val_file=Dev\.jsonl and data\.split=0\.1 both name the val part"):
        questions(tmp_path / "cache", path=str(tmp_path), val_file="Dev.jsonl", split=0.1)


def test_one_file_alone_is_refused_with_the_share_to_set(run: Run, tmp_path: Path) -> None:
    write_questions(tmp_path / "my.jsonl")
    small = ("-m", "datamodules", "prepare", "data=squad", "model=majority")
    for settings in (["data.path=my.jsonl"], ["data.train_file=my.jsonl"], ["data.path=."]):
        told = run(*small, *settings)
        assert told.returncode == 2
        assert "data.split=0.1" in told.stderr, told.stderr
    made = run(*small, "data.path=my.jsonl", "data.split=0.2")
    assert made.returncode == 0, made.stderr
    described = json.loads(made.stdout)
    assert (described["train"]["questions"], described["val"]["questions"]) == (32, 8)
    for wrong in ("data.split=1", "data.split=0", "data.split_seed=-1"):
        assert run(*small, "data.path=my.jsonl", wrong).returncode == 2


# --- the test part


def test_the_test_part_is_scored_once_and_said_apart(run: Run, tmp_path: Path) -> None:
    rows = [f"a {colour} thing number {n};{colour}" for n in range(30) for colour in ("red", "blue")]
    (tmp_path / "my.csv").write_text("text;label\n" + "\n".join(rows))
    small = ["model=bert_tiny_classifier", "data=text_folder", "data.path=my.csv", "data.split=0.2", "quality=off",
             "trainer.max_steps=1", "trainer.threads=1", "data.max_length=16", "hydra.run.dir=run"]  # fmt: skip
    made = run("train.py", *small, "data.test_split=0.1")
    assert made.returncode == 0, made.stderr
    record = (tmp_path / "run" / "run.json").read_text()
    assert json.loads(record)["data"]["split"] == {"val": 0.2, "test": 0.1, "seed": 0, "near_duplicates": True}
    validation = (tmp_path / "run" / "predictions.jsonl").read_text()
    assert "test_" not in run("-m", "runs", "show", "run").stdout

    scored = run("-m", "trainers", "evaluate", "run=run", "--split", "test")
    assert scored.returncode == 0, scored.stderr
    assert "test_accuracy=" in scored.stdout
    assert "val_" not in scored.stdout
    assert (
        "scored on the test part, which neither trained nor chose the model; the result is in run/test" in scored.stderr
    )
    test = (tmp_path / "run" / "test" / "predictions.jsonl").read_text()
    ids = {
        split: {json.loads(line)["id"] for line in text.splitlines()}
        for split, text in (("v", validation), ("t", test))
    }
    assert (len(ids["v"]), len(ids["t"]), len(ids["v"] & ids["t"])) == (12, 6, 0)
    # The run itself is as before.
    assert (tmp_path / "run" / "run.json").read_text() == record
    assert (tmp_path / "run" / "predictions.jsonl").read_text() == validation

    again = run("-m", "trainers", "evaluate", "run=run", "--split", "test")
    assert again.stdout.split(" ")[1:] == scored.stdout.split(" ")[1:]
    assert "the test part was scored at 2" in again.stderr
    shown = run("-m", "runs", "show", "run").stdout
    assert "test_accuracy" in shown.partition("test      ")[2].partition("\n")[0]
    other = run("-m", "trainers", "evaluate", "run=run", "--split", "test", "data.split_seed=1")
    assert other.returncode == 2
    assert "run/test has the result of another evaluation: of other examples, or of other weights" in other.stderr


def test_a_model_without_a_test_part_is_told_how_to_name_one(run: Run, tmp_path: Path) -> None:
    for name in ("train", "val"):
        (tmp_path / f"{name}.csv").write_text("text,label\na red thing,red\na blue thing,blue\n")
    small = ["model=bert_tiny_classifier", "data=text_folder", "data.path=.", "quality=off", "trainer.max_steps=1",
             "trainer.threads=1", "data.max_length=16", "hydra.run.dir=run"]  # fmt: skip
    assert run("train.py", *small).returncode == 0
    told = run("-m", "trainers", "evaluate", "run=run", "--split", "test")
    assert told.returncode == 2
    assert "no file for the test split" in told.stderr
    assert "data.test_split=0.1" in told.stderr
    (tmp_path / "Test.csv").write_text("text,label\na red house,red\na blue house,blue\n")
    scored = run("-m", "trainers", "evaluate", "run=run", "--split", "test")
    assert scored.returncode == 0, scored.stderr
    assert len((tmp_path / "run" / "test" / "predictions.jsonl").read_text().splitlines()) == 2
