"""The generated data sets: the same bytes from the same seed, true to their layouts, and not to be had for nothing."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.samples import shapes, squad_sample
from trainers.squad_metrics import score


def questions(file: Path) -> Iterator[tuple[str, dict[str, object]]]:
    for article in json.loads(file.read_text())["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                yield paragraph["context"], qa


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    squad_sample.write(folder, seed=0, train=4000, val=1000)
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    shapes.write(folder, seed=0, train=480, val=240)
    return folder


def test_the_same_seed_gives_the_same_bytes(asked: Path, drawn: Path, tmp_path: Path) -> None:
    squad_sample.write(tmp_path / "q", seed=0, train=4000, val=1000)
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        assert (tmp_path / "q" / name).read_bytes() == (asked / name).read_bytes()
    (tmp_path / "s").mkdir()
    shapes.write(tmp_path / "s", seed=0, train=480, val=240)
    for path in sorted(drawn.rglob("*.*")):
        assert (tmp_path / "s" / path.relative_to(drawn)).read_bytes() == path.read_bytes()


def test_answers_stand_where_they_are_said_to_and_questions_are_questions(asked: Path) -> None:
    for name, count in (("train-v1.1.json", 4000), ("dev-v1.1.json", 1000)):
        rows = list(questions(asked / name))
        assert len(rows) == len({qa["id"] for _, qa in rows}) == count
        for context, qa in rows:
            for answer in qa["answers"]:  # type: ignore[attr-defined]
                assert context[answer["answer_start"] :].startswith(answer["text"])
            assert len(str(qa["question"]).split()) >= 3


def test_a_share_of_questions_has_no_answer_on_request(tmp_path: Path) -> None:
    squad_sample.write(tmp_path, seed=0, train=1000, val=100, unanswerable=0.3)
    rows = [qa for _, qa in questions(tmp_path / "train-v2.0.json")]
    impossible = [qa for qa in rows if qa["is_impossible"]]
    assert 250 < len(impossible) < 350
    assert all(not qa["answers"] for qa in impossible)
    assert all(qa["answers"] for qa in rows if not qa["is_impossible"])


def test_validation_asks_about_names_and_in_wordings_that_training_lacks(asked: Path) -> None:
    def names(file: str) -> set[str]:
        return {word for context, _ in questions(asked / file) for word in re.findall(r"\b[A-Z][a-z]{5,}\b", context)}

    capitals = names("train-v1.1.json") & names("dev-v1.1.json")
    assert len(capitals) < 60, "common words and families only"
    assert len(names("dev-v1.1.json")) > 200


def test_the_first_sentence_and_a_blind_guess_do_not_answer(asked: Path) -> None:
    """The best span of the first sentence, even if somebody told which it is, and any one fixed word by position."""
    first, fixed = [], []
    for context, qa in questions(asked / "dev-v1.1.json"):
        golds = [answer["text"] for answer in qa["answers"]]  # type: ignore[attr-defined]
        sentence = context.split(". ")[0]
        first.append(score(golds[0] if golds[0] in sentence else "", golds).f1)
        words = context.rstrip(".").split()
        fixed.append([score(words[k % len(words)].strip(",."), golds).f1 for k in range(0, 40)])
    assert 100 * np.mean(first) < 25
    assert 100 * np.max(np.mean(fixed, axis=0)) < 25


def test_boxes_are_tight_and_images_are_what_they_are_said_to_be(drawn: Path) -> None:
    names = (drawn / "wnids.txt").read_text().split()
    assert len(names) == 12
    for name in names:
        boxes = (drawn / "train" / name / f"{name}_boxes.txt").read_text().splitlines()
        assert len(boxes) == 40
        for line in boxes:
            file, *corners = line.split("\t")
            x0, y0, x1, y1 = map(int, corners)
            assert 0 <= x0 < x1 < 64
            assert 0 <= y0 < y1 < 64
            assert 8 <= max(x1 - x0, y1 - y0) <= 60
            with Image.open(drawn / "train" / name / "images" / file) as image:
                assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))


def test_colours_do_not_tell_shapes_apart(drawn: Path) -> None:
    """The nearest mean colour, and the nearest mean image, stay under twice chance."""
    names = (drawn / "wnids.txt").read_text().split()

    def pixels(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            return np.asarray(image, np.float32)

    means = np.stack([np.mean([pixels(p) for p in (drawn / "train" / n / "images").iterdir()], axis=0) for n in names])
    rows = [line.split("\t")[:2] for line in (drawn / "val" / "val_annotations.txt").read_text().splitlines()]
    images = np.stack([pixels(drawn / "val" / "images" / file) for file, _ in rows])
    labels = np.array([names.index(name) for _, name in rows])
    chance = 1 / len(names)
    colour = np.linalg.norm(images.mean((1, 2))[:, None] - means.mean((1, 2))[None], axis=2).argmin(1)
    whole = ((images[:, None] - means[None]) ** 2).sum((2, 3, 4)).argmin(1)
    assert np.mean(colour == labels) < 2 * chance
    assert np.mean(whole == labels) < 2 * chance
