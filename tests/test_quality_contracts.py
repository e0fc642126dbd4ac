"""Every check of every shipped contract: data that is sound passes it, and one corruption breaks it and nothing else."""

import dataclasses
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import ROOT

from datamodules.image_classification import ImageClassificationData
from datamodules.question_answering import QuestionAnsweringData
from datamodules.text_classification import TextClassificationData
from quality import contract, facts, soda, tables, verdict
from quality.facts import Facts
from quality.judgement import judge_contract

QUESTIONS = ("squad", "squad_v2", "squad_sample")
IMAGES = ("tiny_imagenet", "image_folder", "shapes")
TEXTS = ("topics_sample", "text_folder", "imdb", "ag_news")
OFFICIAL = {"imdb": ("neg", "pos"), "ag_news": ("World", "Sports", "Business", "Sci/Tech")}
ONE = "where split = 'train' and number = 0"

EXPECTED = "as many questions as the configuration says"
# Of a check: what is done to the table, and the other checks that cannot but break with it.
QUESTION_MUTATIONS: dict[str, tuple[str, set[str]]] = {
    "the facts have their columns and types": ("alter table facts add column extra integer", set()),
    "there are training questions": (
        "delete from facts where split = 'train'",
        {EXPECTED, "about as many questions as in the data before"},
    ),
    "there are validation questions": (
        "delete from facts where split = 'val'",
        {EXPECTED, "about as many questions as in the data before"},
    ),
    EXPECTED: (f"delete from facts {ONE}", set()),
    "about as many questions as in the data before": (
        "delete from facts where split = 'train' and number % 3 = 0",
        {EXPECTED},
    ),
    "ids are unique in their split": (
        f"update facts set id = (select id from facts where split = 'train' and number = 1) {ONE}",
        set(),
    ),
    "no paragraph is in both splits": (
        "update facts set context_hash = (select context_hash from facts where split = 'train' limit 1) "
        "where split = 'val' and number = 0",
        set(),
    ),
    "no article is in both splits": (
        "update facts set title = (select title from facts where split = 'train' limit 1) "
        "where split = 'val' and number = 0",
        set(),
    ),
    "no article has most of the questions": (
        "insert into facts select * exclude (i) replace (concat(id, '-', i) as id, 'one' as title, (hash(id, i) % 4611686018427387904)::bigint as example_hash) "
        "from (select * replace (0::bigint as example_hash) from facts where split = 'train'), range(1, 40) as copies(i)",
        {EXPECTED, "about as many questions as in the data before"},
    ),
    "every question has a split": (f"update facts set split = null {ONE}", {EXPECTED}),
    "splits are train and val": (f"update facts set split = 'test' {ONE}", {EXPECTED}),
    "every question has an id": (f"update facts set id = null {ONE}", set()),
    "no id is empty": (f"update facts set id = '' {ONE}", set()),
    "every question has an answer": (f"update facts set answers = 0 {ONE}", set()),
    "some questions have no answer and some do": ("update facts set answers = 0", set()),
    "most questions have an answer": ("update facts set answers = 0", set()),
    "every answer is where it says to be": (f"update facts set misplaced_answers = 1 {ONE}", set()),
    "no answer has white space around it": (f"update facts set padded_answers = 1 {ONE}", set()),
    "no answer begins or ends inside a word": (f"update facts set cut_answers = 1 {ONE}", set()),
    "no answer is empty": (f"update facts set answer_length = 0 {ONE}", set()),
    "answers are short": ("update facts set answer_length = 500", set()),
    "answers are anywhere in their paragraphs": ("update facts set answer_position = 0.01", set()),
    "no question is empty": (f"update facts set question_length = 0 {ONE}", set()),
    "questions are as long as questions are": ("update facts set question_length = 500", set()),
    "no paragraph is empty": (f"update facts set context_length = 0 {ONE}", set()),
    "paragraphs are as long as paragraphs are": ("update facts set context_length = 9999", set()),
    "questions have words": (f"update facts set question_words = 1 {ONE}", set()),
    "questions end with a question mark": (f"update facts set question_mark = false {ONE}", set()),
    "no text was decoded wrongly": (f"update facts set broken_characters = 1 {ONE}", set()),
    "no question is asked twice of a paragraph": (
        f"update facts set example_hash = (select example_hash from facts where split = 'train' and number = 1) {ONE}",
        set(),
    ),
    "no text looks like an e-mail address": (f"update facts set emails = 1 {ONE}", set()),
    "no text looks like a phone number": (f"update facts set phones = 1 {ONE}", set()),
    "no text looks like a card number": (f"update facts set cards = 1 {ONE}", set()),
}

AS_MANY = "as many images as the configuration says"
BEFORE = "about as many images of each class as in the data before"
BALANCE = "classes have about as many training images as each other"
IN_LIST = "labels are in the list of classes"
FIRST = "(select label from facts where split = 'train' and number = 0)"
IMAGE_MUTATIONS: dict[str, tuple[str, set[str]]] = {
    "the facts have their columns and types": ("alter table facts alter column bytes type varchar", set()),
    "there are training images": ("delete from facts where split = 'train'", {AS_MANY, BEFORE, BALANCE}),
    "there are validation images": ("delete from facts where split = 'val'", {AS_MANY, BEFORE}),
    AS_MANY: ("delete from facts where split = 'val' and number = 0", set()),
    BEFORE: (
        f"delete from facts where split = 'val' and label = {FIRST}",
        {AS_MANY},
    ),
    "every file that should be an image can be decoded": (f"update facts set decodes = false {ONE}", set()),
    "every image has one class, and every class that is named has its image": (
        "insert into facts (split, id, problem) values ('train', 'new.jpg', 'no label')",
        set(),
    ),
    "every class has training images": (
        "insert into facts (split, id, label, problem) values ('train', 'new', 'new', 'no training images')",
        set(),
    ),
    "no file among the images is something else": (
        "insert into facts (split, id, problem) values ('train', 'new.txt', 'not an image')",
        set(),
    ),
    "no image is in both splits": (
        f"update facts set content_hash = (select content_hash from facts {ONE}) where split = 'val' and number = 0",
        set(),
    ),
    "no image of validation looks like one of training": (
        f"update facts set near_group = (select near_group from facts {ONE}) "
        f"where split = 'val' and number = (select min(number) from facts where split = 'val' and label = {FIRST})",
        set(),
    ),
    "no image has two classes": (
        f"update facts set near_group = (select near_group from facts {ONE}) "
        f"where split = 'train' and number = (select min(number) from facts where split = 'train' and label <> {FIRST})",
        {"no image is there twice"},
    ),
    "no image is there twice": (
        f"update facts set near_group = (select near_group from facts {ONE}) "
        f"where split = 'train' and number = (select max(number) from facts where split = 'train' and label = {FIRST})",
        set(),
    ),
    BALANCE: (
        f"delete from facts where split = 'train' and number > 0 and label = {FIRST}",
        {AS_MANY, BEFORE},
    ),
    "every image has a split": (f"update facts set split = null {ONE}", {AS_MANY}),
    "splits are train and val": (f"update facts set split = 'test' {ONE}", {AS_MANY}),
    "every image has a name": (f"update facts set id = null {ONE}", set()),
    "names are unique in their split": (
        f"update facts set id = (select id from facts where split = 'train' and number = 1) {ONE}",
        set(),
    ),
    IN_LIST: (f"update facts set label = 'new' {ONE}", {BALANCE}),
    "there are two classes or more": (f"update facts set label = {FIRST}", {BEFORE}),
    "images lie in the folder of the class that they are named after": (f"update facts set named = 'n0' {ONE}", set()),
    "images are JPEG": (f"update facts set format = 'PNG' {ONE}", set()),
    "images are RGB or greyscale": (f"update facts set mode = 'CMYK' {ONE}", set()),
    "images are RGB": (f"update facts set mode = 'L' {ONE}", set()),
    "images are 64 pixels wide": (f"update facts set width = 63 {ONE}", set()),
    "images are 64 pixels high": (f"update facts set height = 65 {ONE}", set()),
    "images are 32 pixels or more wide": (f"update facts set width = 31 {ONE}", set()),
    "images are 32 pixels or more high": (f"update facts set height = 31 {ONE}", set()),
    "no image is animated": (f"update facts set frames = 2 {ONE}", set()),
    "images are stored upright": (f"update facts set orientation = 6 {ONE}", set()),
    "no image tells where it was taken": (f"update facts set gps = true {ONE}", set()),
    "no image is black or white": (f"update facts set brightness = 0.999 {ONE}", set()),
    "images are neither dark nor bright on average": ("update facts set brightness = 0.9", set()),
    "no image is flat": (f"update facts set contrast = 0.001 {ONE}", set()),
    "images have a box": (f"update facts set box = false {ONE}", set()),
    "every box lies inside its image": (f"update facts set box_inside = false {ONE}", set()),
}


TEXTS_EXPECTED = "as many texts as the configuration says"
TEXTS_BEFORE = "about as many texts of each class as in the data before"
TEXTS_BALANCE = "classes have about as many training texts as each other"
TEXTS_GONE = "every class of the data before has training texts"
TEXTS_CLASSES = "every class has training texts"
TEXTS_ONE_LABEL = "texts that are nearly the same have one label"
TEXTS_OFFICIAL = "labels are those of the official files"
LEAKED, NEARLY_LEAKED, COPIES = (
    "no text is in both splits", "no text of validation is nearly one of training", "no text is there twice",
)  # fmt: skip
SAME_LABEL = f"where split = 'val' and number = (select min(number) from facts where split = 'val' and label = {FIRST})"
TEXT_MUTATIONS: dict[str, tuple[str, set[str]]] = {
    "the facts have their columns and types": ("alter table facts add column extra integer", set()),
    "there are training texts": (
        "delete from facts where split = 'train'",
        {TEXTS_EXPECTED, TEXTS_BEFORE, TEXTS_GONE, TEXTS_CLASSES},
    ),
    "there are validation texts": ("delete from facts where split = 'val'", {TEXTS_EXPECTED, TEXTS_BEFORE}),
    TEXTS_EXPECTED: ("delete from facts where split = 'val' and number = 0", set()),
    TEXTS_BEFORE: (f"delete from facts where split = 'val' and label = {FIRST}", {TEXTS_EXPECTED}),
    TEXTS_GONE: (
        "insert into previous values ('train', 'another', 1)",
        {TEXTS_BEFORE},
    ),
    TEXTS_CLASSES: ("insert into classes values ('another')", set()),
    "ids are unique in their split": (
        f"update facts set id = (select id from facts where split = 'train' and number = 1) {ONE}",
        set(),
    ),
    LEAKED: (f"update facts set example_hash = (select example_hash from facts {ONE}) {SAME_LABEL}", set()),
    NEARLY_LEAKED: (f"update facts set text_hash = (select text_hash from facts {ONE}) {SAME_LABEL}", set()),
    TEXTS_ONE_LABEL: (
        f"update facts set text_hash = (select text_hash from facts {ONE}) "
        f"where split = 'train' and number = (select min(number) from facts where split = 'train' and label <> {FIRST})",
        {COPIES},
    ),
    COPIES: (
        f"update facts set text_hash = (select text_hash from facts {ONE}) "
        f"where split = 'train' and number = (select max(number) from facts where split = 'train' and label = {FIRST})",
        set(),
    ),
    TEXTS_BALANCE: (
        f"delete from facts where split = 'train' and number > 0 and label = {FIRST}",
        {TEXTS_EXPECTED, TEXTS_BEFORE},
    ),
    "every text has a second one, or none has": (f"update facts set text_pair = 'more' {ONE}", set()),
    "no text has a second one": (f"update facts set text_pair = 'more' {ONE}", set()),
    "every text has a split": (f"update facts set split = null {ONE}", {TEXTS_EXPECTED}),
    "splits are train and val": (f"update facts set split = 'test' {ONE}", {TEXTS_EXPECTED}),
    "every text has an id": (f"update facts set id = null {ONE}", set()),
    "no id is empty": (f"update facts set id = '' {ONE}", set()),
    "every text has a label": (f"update facts set label = null {ONE}", set()),
    TEXTS_OFFICIAL: (f"update facts set label = 'positive' {ONE}", {TEXTS_BALANCE}),
    "there are two classes or more": (
        f"update facts set label = {FIRST}",
        {TEXTS_BEFORE, TEXTS_GONE, TEXTS_CLASSES},
    ),
    "ids and second texts can be read": (f"update facts set problem = 'the id must be text' {ONE}", set()),
    "no text is empty": (f"update facts set length = 0 {ONE}", set()),
    "texts are as long as texts are": ("update facts set length = 20000", set()),
    "no second text is empty": (f"update facts set pair_length = 0 {ONE}", set()),
    "texts have words": (f"update facts set words = 1 {ONE}", set()),
    "no text was decoded wrongly": (f"update facts set broken_characters = 1 {ONE}", set()),
    "labels of validation are known in training": (
        "update facts set known = false where split = 'val' and number = 0",
        set(),
    ),
    "no text looks like an e-mail address": (f"update facts set emails = 1 {ONE}", set()),
    "no text looks like a phone number": (f"update facts set phones = 1 {ONE}", set()),
    "no text looks like a card number": (f"update facts set cards = 1 {ONE}", set()),
}
MUTATIONS = {
    **dict.fromkeys(QUESTIONS, QUESTION_MUTATIONS),
    **dict.fromkeys(IMAGES, IMAGE_MUTATIONS),
    **dict.fromkeys(TEXTS, TEXT_MUTATIONS),
}


@lru_cache
def shipped_contract(name: str) -> contract.Contract:
    return contract.parse((ROOT / "contracts" / f"{name}.yaml").read_text(), name, name)


def distinct_checks() -> list[Any]:
    """The checks of all contracts; one that several contracts of a task have, word for word, comes once."""
    params = []
    for names in (QUESTIONS, IMAGES, TEXTS):
        definitions: list[Any] = []
        for name in names:
            document = yaml.safe_load(shipped_contract(name).text)
            listed = [("", document), *((column["name"], column) for column in document["columns"])]
            by_name = {
                body["name"]: (place, kind, body)
                for place, holder in listed
                for check in holder.get("checks") or []
                for kind, body in check.items()
            }
            for check in shipped_contract(name).checks:
                if by_name[check.name] not in definitions:
                    definitions.append(by_name[check.name])
                    params.append(pytest.param(name, check, id=f"{name}: {check.name}"))
    return params


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Facts]:
    """Facts of generated data, which every contract finds sound."""
    root = str(tmp_path_factory.mktemp("cache"))
    questions = QuestionAnsweringData(sample={"seed": 1, "train": 60, "val": 36, "unanswerable": 0.2}, cache_dir=root)
    answerable = QuestionAnsweringData(sample={"seed": 1, "train": 60, "val": 36}, cache_dir=root)
    images = ImageClassificationData(sample={"seed": 1, "train": 180, "val": 48, "classes": 12}, cache_dir=root)
    texts = TextClassificationData(sample={"seed": 1, "train": 60, "val": 24, "classes": 4}, cache_dir=root)
    of_texts = facts.load_facts(texts, "text_classification")
    of_images = facts.load_facts(images, "image_classification")
    return {
        "squad": facts.load_facts(answerable, "question_answering"),
        "squad_v2": facts.load_facts(questions, "question_answering"),
        "squad_sample": facts.load_facts(questions, "question_answering"),
        **dict.fromkeys(IMAGES, of_images),
        **dict.fromkeys(TEXTS, of_texts),
    }


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Any]:
    import duckdb

    opened = duckdb.connect(":memory:")
    yield opened
    opened.close()


def copied(connection: Any, found: Facts, name: str) -> None:
    """The facts as a table that can be changed, and what is beside it."""
    connection.execute(f"create table facts as select * from read_parquet('{found.path}')")
    if found.task == "question_answering":
        # Generated articles are in both splits, and their questions alike: real ones are not.
        connection.execute(
            "update facts set title = concat(split, '-', number % 7), example_hash = (hash(id) % 4611686018427387904)::bigint"
        )
    if name in OFFICIAL:
        labels = OFFICIAL[name]
        connection.execute(
            f"update facts set label = list_value{labels}[number % {len(labels)} + 1]"
            + (", length = 1300" if name == "imdb" else "")
        )
        classes = [{"id": label, "name": label} for label in labels]
        found = dataclasses.replace(found, classes=classes, counts=tables.class_counts(connection))
    rows = tables.query_rows(connection, "select split, count(*) as n from facts group by split")
    tables.add_tables(connection, found, {each["split"]: each["n"] for each in rows}, [])


def outcomes(name: str, found: Facts, connection: Any, folder: Path) -> verdict.Verdict:
    return judge_contract(shipped_contract(name), found, connection, soda.versions(), folder / "rows.jsonl")


@pytest.mark.parametrize("name", MUTATIONS)
def test_sound_data_passes(name: str, sound: dict[str, Facts], connection: Any, tmp_path: Path) -> None:
    copied(connection, sound[name], name)
    found = outcomes(name, sound[name], connection, tmp_path)
    assert (found.status, found.errors) == ("passed", "")
    assert len(found.checks) == len(shipped_contract(name).checks)


@pytest.mark.parametrize(("name", "check"), distinct_checks())
def test_a_corruption_breaks_its_check_and_no_other(
    name: str, check: contract.Check, sound: dict[str, Facts], connection: Any, tmp_path: Path
) -> None:
    mutation, consequences = MUTATIONS[name][check.name]
    copied(connection, sound[name], name)
    connection.execute(mutation)
    found = outcomes(name, sound[name], connection, tmp_path)
    broken = {each.name: each for each in found.checks if each.outcome != "passed"}
    assert check.name in broken
    assert broken[check.name].outcome in ("failed", "warned"), broken[check.name]
    assert set(broken) <= {check.name, *consequences}
    assert found.status in ("failed", "warned")
    if check.rows and "delete" not in mutation:
        assert broken[check.name].rows, "its rows are not told"


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_missing_column_fails_loudly(name: str, sound: dict[str, Facts], connection: Any, tmp_path: Path) -> None:
    """It voids every check that Soda computes in one query with it."""
    copied(connection, sound[name], name)
    column = "answers" if name in QUESTIONS else "width" if name in IMAGES else "length"
    connection.execute(f"alter table facts drop column {column}")
    found = outcomes(name, sound[name], connection, tmp_path)
    assert not found.accepted
    unevaluated = [each for each in found.checks if each.outcome == "unevaluated"]
    assert len(unevaluated) > 5
    assert "could not be evaluated" in verdict.summarise_verdict(found)
    assert found.errors


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_kind_is_there(name: str) -> None:
    kinds = {each.kind for each in shipped_contract(name).checks}
    assert kinds == set(contract.KINDS)


def test_no_mutation_is_left_over() -> None:
    for names, mutations in ((QUESTIONS, QUESTION_MUTATIONS), (IMAGES, IMAGE_MUTATIONS), (TEXTS, TEXT_MUTATIONS)):
        assert {check.name for name in names for check in shipped_contract(name).checks} == set(mutations)


def test_a_copy_in_one_of_a_hundred_validation_images_fails(
    sound: dict[str, Facts], connection: Any, tmp_path: Path
) -> None:
    """The check has two levels: one copy warns, more than one in a hundred fail."""
    connection.execute(f"create table facts as select * from read_parquet('{sound['shapes'].path}')")
    connection.execute("insert into facts select * exclude (i) replace (number + 48 * i as number, content_hash + i as content_hash) from facts, range(1, 20) as copies(i) where split = 'val'")  # fmt: skip
    tables.add_tables(connection, sound["shapes"], {}, [])
    one = "update facts set content_hash = (select content_hash from facts where split = 'train' and number = 0) where split = 'val' and number "
    for rows, outcome in (("= 0", "warned"), ("< 20", "failed")):
        connection.execute(one + rows)
        found = outcomes("shapes", sound["shapes"], connection, tmp_path)
        assert {each.name: each.outcome for each in found.checks}["no image is in both splits"] == outcome


def test_shipped_contracts_are_those_of_the_data_sets() -> None:
    from config.compose import compose, group_choices

    assert group_choices("quality/contracts") == []  # no configuration
    assert {compose([f"data={name}", "model=majority"]).data.contract for name in group_choices("data")} == {
        each.stem for each in (ROOT / "contracts").glob("*.yaml")
    }
