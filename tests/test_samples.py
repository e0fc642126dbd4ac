"""The generated data sets: the same bytes from the same seed, true to their layouts, and not to be had for nothing."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules.samples import shapes, squad_sample, topics
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


# Each generator's FINGERPRINT, and the SHA-256 of the files that it writes with small settings.
PINNED: list[tuple[ModuleType, dict[str, Any], str, str]] = [
    (
        squad_sample,
        {"seed": 7, "train": 60, "val": 30},
        "cf6b312df49ffe2c3f10c37dc13787acbf706a12c6c81f27ce54e15f1ffbdc56",
        "5534cf80ef8ac780bc7ba66de6c68aa7a7b1075514855a16f2b1004b93ec1270",
    ),
    (
        squad_sample,
        {"seed": 7, "train": 60, "val": 30, "unanswerable": 0.3},
        "cf6b312df49ffe2c3f10c37dc13787acbf706a12c6c81f27ce54e15f1ffbdc56",
        "4bfd3b023fb09744bcba245e7a0b9571a2a4055055725ff654926c1430825e6d",
    ),
    (
        shapes,
        {"seed": 7, "train": 24, "val": 24, "classes": 12, "size": 32},
        "8bda4dcc5965d4dcdf4e972f6ea19c62270f77eddd4726a0bbb9a0099d9cd7d0",
        "c8b15e4efed5d5871576fdcacf19ceeffde9c866c0bbef87cda6f6f6a1488b4f",
    ),
    (
        topics,
        {"seed": 7, "train": 60, "val": 30, "classes": 12},
        "4e2c48676f2fce48157754cc93a079da2777d7de58e8738f4dbe3df34a6a1db8",
        "73f9826d61eb2a5fff57a9d027a5c57d9e913b433a29c656b26e212a10588312",
    ),
]


def digest(folder: Path) -> str:
    """SHA-256 of the names and contents of all files in a folder."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()


@pytest.mark.parametrize(("generator", "settings", "fingerprint", "output"), PINNED)
def test_a_generator_whose_output_changes_has_another_fingerprint(
    generator: ModuleType, settings: dict[str, Any], fingerprint: str, output: str, tmp_path: Path
) -> None:
    """The fingerprint stands for the output in cache keys and records: a new output needs a new fingerprint, too."""
    generator.write(tmp_path, **settings)
    assert (digest(tmp_path), generator.FINGERPRINT) == (output, fingerprint), (
        f"if {generator.__name__} is meant to write other data, give it a new FINGERPRINT and pin both values in PINNED"
    )


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
