"""Near-duplicates of texts and images are found, and are in one part of a file or folder that is split."""

import hashlib
import io
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
from datamodules.images import near_duplicates as near_images
from datamodules.question_answering import QuestionAnsweringData
from datamodules.sources.splitting import Key, Splitting, assign
from datamodules.text import near_duplicates as near_texts
from datamodules.text_classification import TextClassificationData


def words(generator: random.Random, count: int = 40) -> list[str]:
    return [f"w{generator.randrange(5_000)}" for _ in range(count)]


def similarity(one: list[str], other: list[str]) -> float:
    sequences = [{tuple(text[n : n + 3]) for n in range(len(text) - 2)} for text in (one, other)]
    return len(sequences[0] & sequences[1]) / len(sequences[0] | sequences[1])


# --- texts


def test_texts_that_share_most_sequences_of_words_are_pairs() -> None:
    generator = random.Random(0)
    texts: list[list[str]] = []
    for changes in [1, 2, 8, 12] * 100:
        text = words(generator)
        places = generator.sample(range(40), changes)
        changed = [f"x{n}" if n in places else word for n, word in enumerate(text)]
        texts += [text, changed]
    found = {tuple(pair) for pair in near_texts.near_pairs(map(" ".join, texts)).tolist()}
    assert all(right == left + 1 and left % 2 == 0 for left, right in found)
    similarities = {(n, n + 1): similarity(texts[n], texts[n + 1]) for n in range(0, len(texts), 2)}
    similar = {pair for pair, value in similarities.items() if value >= 0.82}
    different = {pair for pair, value in similarities.items() if value <= 0.55}
    assert len(similar) > 50
    assert len(different) > 50
    assert similar <= found
    assert not different & found


def test_short_texts_and_texts_without_spaces() -> None:
    def pairs(*texts: str) -> list[list[int]]:
        return near_texts.near_pairs(texts).tolist()

    assert pairs("", "", "red", "blue", "a red car", "a blue car", "red", "the old red car stops") == []
    chinese = "东京是日本的首都也是世界上人口最多的都市圈之一位于关东平原的南端"
    assert pairs(chinese, "北京是中国的首都", f"{chinese}啊") == [[0, 2]]
    assert pairs() == []


def test_pairs_do_not_depend_on_the_order_of_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_texts, "NEIGHBOURS", 1)  # so that not all texts of a band are compared
    generator = random.Random(0)
    base = words(generator, 60)
    texts = [" ".join([*base[:n], f"x{n}", *base[n + 1 :]]) for n in range(60)]

    def pairs(texts: list[str]) -> set[frozenset[str]]:
        return {frozenset(texts[position] for position in pair) for pair in near_texts.near_pairs(texts).tolist()}

    expected = pairs(texts)
    assert 60 < len(expected) < 60 * 59 / 2
    for _ in range(5):
        assert pairs(generator.sample(texts, len(texts))) == expected


@given(st.lists(st.tuples(st.integers(0, 8), st.sampled_from("ab")), min_size=6, max_size=30), st.data())
def test_pairs_are_in_one_part_in_any_order_of_the_examples(rows: list[tuple[int, str]], data: st.DataObject) -> None:
    keys = [Key((f"text {number}", f"row {index}"), label) for index, (number, label) in enumerate(rows)]
    position = st.integers(0, len(keys) - 1)
    pairs = np.array(data.draw(st.lists(st.tuples(position, position), max_size=8)), np.int64).reshape(-1, 2)
    try:
        parts = assign(keys, Splitting(0.3), pairs)
    except InputError as error:
        assert ("data.group_near_duplicates=false" in str(error)) == bool(len(pairs))  # noqa: PT017
        return
    assert (parts[pairs[:, 0]] == parts[pairs[:, 1]]).all()
    order = np.array(data.draw(st.permutations(range(len(keys)))))
    inverse = np.argsort(order)
    assert (assign([keys[index] for index in order], Splitting(0.3), inverse[pairs]) == parts[order]).all()


def write_texts(path: Path, copies: int = 6) -> dict[str, int]:
    """Write texts, of some of which there are copies with another word; return the number of each text's original."""
    generator = random.Random(1)
    originals: dict[str, int] = {}
    for number in range(20):
        text = words(generator)
        for copy in range(copies if number < 5 else 1):
            changed = [*text[:7], *([f"x{copy}"] if copy else []), *text[7:]]
            originals[" ".join(changed)] = number
    rows = [json.dumps({"text": text, "label": "ab"[number % 2]}) for text, number in originals.items()]
    path.write_text("\n".join(generator.sample(rows, len(rows))))
    return originals


def text_parts(path: Path, cache: Path, **settings: Any) -> dict[str, set[str]]:
    data = TextClassificationData(path=str(path), cache_dir=str(cache), vocab_size=100, **settings)
    return {split: {str(record.text) for record in data.records(split)} for split in ("train", "val")}


def test_texts_with_another_word_are_in_one_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    originals = write_texts(tmp_path / "all.jsonl")
    caplog.set_level("INFO")
    for seed in range(3):
        found = text_parts(tmp_path / "all.jsonl", tmp_path / "cache", split=0.4, split_seed=seed)
        assert not {originals[text] for text in found["train"]} & {originals[text] for text in found["val"]}
        assert text_parts(tmp_path / "all.jsonl", tmp_path / "other", split=0.4, split_seed=seed) == found
    assert (
        "30 of 45 examples are near-duplicates of others: 5 groups, the largest of 6, each of them in one part"
        in caplog.messages[0]
    )
    equal_only = text_parts(tmp_path / "all.jsonl", tmp_path / "cache", split=0.4, group_near_duplicates=False)
    assert {originals[text] for text in equal_only["train"]} & {originals[text] for text in equal_only["val"]}


def test_data_without_near_duplicates_is_split_as_without_the_search(tmp_path: Path) -> None:
    write_texts(tmp_path / "all.jsonl", copies=1)
    found = [
        text_parts(tmp_path / "all.jsonl", tmp_path / "cache", split=0.4, group_near_duplicates=grouped)
        for grouped in (True, False)
    ]
    assert found[0] == found[1]


def test_fingerprints_tell_splits_with_and_without_near_duplicates_apart(tmp_path: Path) -> None:
    write_texts(tmp_path / "all.jsonl")
    made = [
        TextClassificationData(
            path=str(tmp_path / "all.jsonl"), split=0.4, cache_dir=str(tmp_path), group_near_duplicates=grouped
        )
        for grouped in (True, False)
    ]
    assert made[0].fingerprint("train") != made[1].fingerprint("train")
    assert made[0].fingerprint("val") != made[1].fingerprint("val")


def test_a_file_of_one_template_is_refused_with_the_setting_that_splits_it(run: Run, tmp_path: Path) -> None:
    template = " ".join(words(random.Random(0)))
    rows = [f"{template} {n},{'ab'[n % 2]}" for n in range(20)]
    (tmp_path / "my.csv").write_text("\n".join(["text,label", *rows]))
    small = ["-m", "datamodules", "prepare", "model=bert_tiny_classifier", "data=text_folder", "data.path=my.csv",
             "data.split=0.2"]  # fmt: skip
    told = run(*small)
    assert told.returncode == 2
    assert "20 of 20 examples are near-duplicates of others: 1 group, the largest of 20" in told.stderr
    assert "data.group_near_duplicates=false keeps only equal examples together" in told.stderr
    made = run(*small, "data.group_near_duplicates=false")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["split"] == {"val": 0.2, "seed": 0, "near_duplicates": False}


def test_contexts_that_are_near_duplicates_are_in_one_part(tmp_path: Path) -> None:
    generator = random.Random(0)
    rows = []
    for number in range(20):
        context = " ".join(words(generator))
        rows += [{"question": f"{number}?", "context": f"{context}{end}", "answer": "w"} for end in ("", " Indeed.")]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = QuestionAnsweringData(path=str(tmp_path / "all.jsonl"), split=0.5, cache_dir=str(tmp_path / "cache"))
    found = {split: {each.question for each in data.questions(split, None)} for split in ("train", "val")}
    assert len(found["val"]) == len(found["train"]) == 10
    assert not found["train"] & found["val"]


# --- images


def picture(seed: int, side: int = 96) -> Image.Image:
    """A picture of large coloured cells."""
    cells = np.random.RandomState(seed).randint(0, 256, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC)


def encode(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def test_a_picture_that_is_saved_again_is_a_pair_and_another_is_not() -> None:
    contents = []
    for seed in range(30):
        image = picture(seed)
        contents += [encode(image, format="PNG"), encode(image, format="JPEG", quality=70)]
        contents += [
            encode(image.resize((64, 64)), format="WEBP", quality=80),
            encode(picture(seed + 100), format="PNG"),
        ]
    contents += [encode(Image.new("RGB", (32, 32), (n, n, n)), format="PNG") for n in range(9)]  # of one colour
    contents.append(b"not an image")
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    pairs = near_images.near_pairs(contents, digests, "here")
    assert all(left // 4 == right // 4 and right % 4 < 3 for left, right in pairs.tolist())
    assert len(np.unique(pairs)) == 90
    order = np.random.RandomState(0).permutation(len(contents))
    shuffled = near_images.near_pairs([contents[n] for n in order], [digests[n] for n in order], "here")
    assert sorted(map(sorted, order[shuffled].tolist())) == sorted(pairs.tolist())


def test_pictures_that_are_equal_from_afar_only_are_no_pairs() -> None:
    means = np.random.RandomState(0).randint(60, 190, (8, 8, 1, 1))
    pattern = np.array([[40, -40], [-40, 40]])
    contents = [
        encode(Image.fromarray((means + signed).transpose(0, 2, 1, 3).reshape(16, 16).astype(np.uint8)), format="PNG")
        for signed in (pattern, -pattern)
    ]
    luma = np.stack([np.asarray(Image.open(io.BytesIO(content)), np.float32) / 255 for content in contents])
    assert len(set(near_images.near_hashes(luma).tolist())) == 1
    assert near_images.near_pairs(contents, ["a", "b"], "here").tolist() == []


def write_pictures(folder: Path) -> Path:
    """Write ten pictures per class, each with a copy of half the size in JPEG."""
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            image = picture(100 * label + number)
            image.save(folder / name / f"{number}-a.png")
            image.resize((48, 48)).save(folder / name / f"{number}-b.jpg")
    return folder


def image_parts(path: Path, cache: Path, **settings: Any) -> dict[str, list[str]]:
    data = ImageClassificationData(path=str(path), image_size=16, cache_dir=str(cache), **settings)
    return {
        split: [str(name).rpartition("-")[0] for name in data.survey.splits[split].names] for split in ("train", "val")
    }


def test_copies_of_images_are_in_one_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_pictures(tmp_path / "photos")
    caplog.set_level("INFO")
    found = image_parts(folder, tmp_path / "cache", split=0.4)
    assert (len(found["train"]), len(found["val"])) == (24, 16)
    assert not set(found["train"]) & set(found["val"])
    assert "40 of 40 examples are near-duplicates of others: 20 groups, the largest of 2" in caplog.text
    equal_only = image_parts(folder, tmp_path / "cache", split=0.4, group_near_duplicates=False)
    assert set(equal_only["train"]) & set(equal_only["val"])


def test_images_are_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_pictures(tmp_path / "photos")
    found = image_parts(folder, tmp_path / "cache", split=0.4)
    monkeypatch.setattr(near_images, "near_pairs", None)
    assert image_parts(folder, tmp_path / "cache", split=0.4) == found
    with pytest.raises(TypeError):
        image_parts(folder, tmp_path / "cache", split=0.4, split_seed=1)
