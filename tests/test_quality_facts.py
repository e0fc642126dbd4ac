"""What the tables of facts say of questions and of images, sound ones and others."""

import io
import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datamodules.image_classification import ImageClassificationData
from datamodules.images.near_duplicates import near_groups, near_hashes
from datamodules.question_answering import QuestionAnsweringData
from quality import facts, image_facts, image_statistics, tables, text_statistics
from quality.hashes import hash64
from quality.thumbnails import Thumbnails


def rows(data: Any, task: str, spill: Path) -> dict[str, dict[str, Any]]:
    connection = tables.connect(facts.load_facts(data, task).path, spill)
    found = tables.query_rows(connection, "select * from facts")
    connection.close()
    return {each["id"]: each for each in found}


def squad(folder: Path, qas: list[dict[str, Any]], context: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, prefix in (("train-v1.1.json", "t"), ("dev-v1.1.json", "v")):
        made = [{**qa, "id": f"{prefix}{qa['id']}"} for qa in qas]
        data = [{"title": "T", "paragraphs": [{"context": context, "qas": made}]}]
        (folder / name).write_text(json.dumps({"data": data}))
    return folder


def test_questions(tmp_path: Path) -> None:
    context = "The café of 1923 costs 12 francs; write to owner@example.org or +33 1 42 68 53 00.\ufffd"
    qas: list[dict[str, Any]] = [
        {"id": "1", "question": "What does it cost?", "answers": [{"text": "12 francs", "answer_start": 23}]},
        {"id": "2", "question": "what does THE it, cost", "answers": [{"text": "12 francs", "answer_start": 24}]},
        {"id": "3", "question": 'Which year ("roughly?")', "answers": [{"text": " 1923 ", "answer_start": 11}]},
        {"id": "4", "question": "Which part?", "answers": [{"text": "caf", "answer_start": 4}]},
        {"id": "5", "question": "Nothing?", "answers": [], "is_impossible": True},
        {"id": "6", "question": " \t ", "answers": [{"text": " ", "answer_start": 3}]},
    ]
    data = QuestionAnsweringData(path=str(squad(tmp_path / "d", qas, context)), cache_dir=str(tmp_path / "c"))
    found = rows(data, "question_answering", tmp_path)
    assert len(found) == 12
    one = found["t1"]
    assert (one["split"], one["number"], one["title"], one["answers"]) == ("train", 0, "T", 1)
    assert (one["misplaced_answers"], one["padded_answers"], one["cut_answers"]) == (0, 0, 0)
    assert one["answer_position"] == pytest.approx(23 / len(context))
    assert (one["emails"], one["phones"], one["cards"], one["broken_characters"]) == (1, 1, 0, 1)
    assert (one["context_length"], one["question_words"]) == (len(context), 4)
    assert found["t2"]["misplaced_answers"] == 1
    assert found["t2"]["question_hash"] == one["question_hash"]
    assert found["t2"]["example_hash"] == one["example_hash"] == found["v1"]["example_hash"]
    assert (found["t1"]["question_mark"], found["t2"]["question_mark"], found["t3"]["question_mark"]) == (
        True,
        False,
        True,
    )
    assert (found["t3"]["padded_answers"], found["t3"]["misplaced_answers"]) == (1, 0)
    assert found["t4"]["cut_answers"] == 1
    assert (found["t5"]["answers"], found["t5"]["answer"], found["t5"]["answer_length"]) == (0, None, None)
    assert (found["t6"]["question_length"], found["t6"]["answer_length"]) == (0, 0)  # blanks are nothing to read


def test_the_facts_are_of_the_rows_that_a_model_sees(tmp_path: Path) -> None:
    given_ = {"sample": {"seed": 0, "train": 40, "val": 12}, "cache_dir": str(tmp_path / "c")}
    assert len(rows(QuestionAnsweringData(**given_, max_train=7), "question_answering", tmp_path)) == 19
    pictures = {"sample": {"seed": 0, "train": 36, "val": 12, "classes": 12}, "cache_dir": str(tmp_path / "c")}
    found = rows(ImageClassificationData(**pictures, max_train=12), "image_classification", tmp_path)
    assert len({each["label"] for each in found.values() if each["split"] == "train"}) == 12
    assert len(found) == 24


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to a.b+c@example.co.uk now", (1, 0, 0)),
        ("@home is no address, nor is a@b", (0, 0, 0)),
        ("A" * 200_000 + " @ " + "B" * 200_000, (0, 0, 0)),
        ("call (555) 010-1234 or 555-010-1234 or +1 555 010 1234", (0, 3, 0)),
        ("call +44 20 7946 0958", (0, 1, 0)),
        ("from 1939-1945 and 2015-02-07, 9 + 555", (0, 0, 0)),
        ("pages 123-456-78901 and 1555-010-12345", (0, 0, 0)),
        ("card 4111 1111 1111 1111.", (0, 0, 1)),
        ("card 4111-1111-1111-1112", (0, 0, 0)),
        ("378282246310005 and 5500005555555559", (0, 0, 2)),
        ("pi is 3.14159265358979323846 of 4111111111111111.5", (0, 0, 0)),
        ("a population of 7,404,976,783 in 2016", (0, 0, 0)),
    ],
)
def test_what_looks_personal(text: str, expected: tuple[int, int, int]) -> None:
    assert text_statistics.count_personal_data(text) == expected


@given(st.lists(st.integers(0, 9), min_size=12, max_size=18))
def test_every_number_has_one_check_digit(digits: list[int]) -> None:
    body = "".join(map(str, digits))
    assert sum(text_statistics.is_card_number(body + str(last)) for last in range(10)) == 1


@given(st.text())
@settings(max_examples=300)
def test_no_text_breaks_the_patterns(text: str) -> None:
    assert all(count >= 0 for count in text_statistics.count_personal_data(text))
    assert -(2**63) <= hash64(text) < 2**63


def encoded(image: Image.Image, form: str, **more: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **more)
    return stream.getvalue()


def drawn(seed: int, size: int = 64) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


def looked(contents: list[bytes]) -> list[dict[str, Any]]:
    columns = image_statistics.measure_images(contents)
    assert set(columns) == set(image_statistics.COLUMNS)
    return [{name: values[at] for name, values in columns.items()} for at in range(len(contents))]


def test_images(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[1] = "N"
    two = [drawn(1), drawn(2)]
    made = {
        "plain": encoded(drawn(0), "JPEG", quality=95),
        "copy": encoded(drawn(0), "PNG"),
        "larger": encoded(drawn(0, 96), "JPEG", quality=90),
        "other": encoded(drawn(3), "JPEG"),
        "grey": encoded(drawn(0).convert("L"), "JPEG"),
        "palette": encoded(drawn(4).convert("P"), "PNG"),
        "cmyk": encoded(drawn(5).convert("CMYK"), "JPEG"),
        "turned": encoded(drawn(6), "JPEG", exif=exif),
        "moving": encoded(two[0], "GIF", save_all=True, append_images=two[1:]),
        "flat": encoded(Image.new("RGB", (64, 64), (255, 0, 0)), "PNG"),
    }
    # One entry, the orientation, as a LONG of 2**32 - 1: no SHORT from 1 to 8.
    entry = struct.pack("<2sHIHHHIII", b"II", 42, 8, 1, 0x0112, 4, 1, 2**32 - 1, 0)
    made["odd"] = encoded(drawn(7), "JPEG", exif=b"Exif\0\0" + entry)
    made["cut"] = made["plain"][: len(made["plain"]) // 2]
    made["text"] = b"not an image"
    made["empty"] = b""
    found = dict(zip(made, looked(list(made.values())), strict=True))
    bad = {name for name, each in found.items() if not each["decodes"]}
    assert bad == {"cut", "text", "empty"}
    assert all(found[name]["problem"].startswith("cannot be decoded") for name in bad)
    assert (found["cut"]["width"], found["text"]["width"]) == (64, None)
    assert found["plain"]["near_hash"] == found["copy"]["near_hash"] != found["other"]["near_hash"]
    distance = (found["plain"]["near_hash"] ^ found["larger"]["near_hash"]) & (2**64 - 1)
    assert bin(distance).count("1") <= 4
    assert found["plain"]["content_hash"] != found["copy"]["content_hash"]
    assert [found[name]["mode"] for name in ("grey", "palette", "cmyk")] == ["L", "P", "CMYK"]
    assert (found["turned"]["gps"], found["turned"]["orientation"], found["plain"]["gps"]) == (True, 6, False)
    assert (found["odd"]["orientation"], found["odd"]["decodes"]) == (0, True)
    assert (found["moving"]["frames"], found["plain"]["frames"]) == (2, 1)
    assert (found["flat"]["near_hash"], found["flat"]["contrast"]) == (None, pytest.approx(0, abs=1e-6))
    assert found["flat"]["red"] == 1
    assert found["flat"]["brightness"] == pytest.approx(0.299)


def tiff_of(ifd: list[tuple[int, int, int, bytes]]) -> bytes:
    """A little-endian TIFF of 8 x 8 grey pixels with further fields: tag, type, count, value of at most 4 bytes."""
    fields = [
        (256, 3, 1, b"\x08"),
        (257, 3, 1, b"\x08"),
        (258, 3, 1, b"\x08"),
        (259, 3, 1, b"\x01"),
        (262, 3, 1, b"\x01"),
    ]
    fields += [(273, 4, 1, struct.pack("<I", 8)), (278, 3, 1, b"\x08"), (279, 4, 1, struct.pack("<I", 64)), *ifd]
    pixels = bytes(range(0, 128, 2))
    made = b"".join(struct.pack("<HHI", *field[:3]) + field[3].ljust(4, b"\0") for field in sorted(fields))
    return b"II*\0" + struct.pack("<I", 72) + pixels + struct.pack("<H", len(fields)) + made + bytes(4)


def test_a_tiff_tells_where_it_was_taken() -> None:
    """Its EXIF is its own fields, not a block of it; of those with GPS, most point to a table of their own."""
    position = struct.pack("<H", 1) + struct.pack("<HHI", 1, 2, 2) + b"N\0\0\0" + bytes(4)
    plain = tiff_of([(274, 3, 1, b"\x06")])
    at = len(tiff_of([(274, 3, 1, b"\x06"), (0x8825, 4, 1, bytes(4))]))
    placed = tiff_of([(274, 3, 1, b"\x06"), (0x8825, 4, 1, struct.pack("<I", at))]) + position
    seen = image_statistics.measure_images([plain, placed, placed[:-10]])
    assert seen["decodes"] == [True, True, True]
    assert seen["format"] == ["TIFF"] * 3
    assert seen["orientation"][:2] == [6, 6]
    assert seen["gps"][:2] == [False, True]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_near_hashes_bear_light_and_noise(seed: int) -> None:
    ramp = np.arange(16, dtype=np.float32)[::-1] / 16 * np.ones((1, 16, 1), np.float32)
    noise = np.random.default_rng(seed).uniform(-0.02, 0.02, (1, 16, 16)).astype(np.float32)
    darker = near_hashes(np.concatenate([ramp, ramp * 0.9 + 0.05, ramp + noise])).view(np.uint64)
    assert [hex(each) for each in darker.tolist()] == ["0xfefefefefefefefe"] * 3  # but for the last against the first
    assert [hex(each) for each in near_hashes(ramp[:, :, ::-1]).view(np.uint64).tolist()] == ["0x101010101010101"]
    assert near_hashes(noise / 20 + 0.5)[0] == 0  # a plain background


def test_threads_and_processes_see_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ImageClassificationData(
        sample={"seed": 0, "train": 300, "val": 12, "classes": 12}, cache_dir=str(tmp_path / "c")
    )
    threads = list(image_facts.tables(data, "train"))
    monkeypatch.setattr(image_facts, "MANY", 1)
    processes = list(image_facts.tables(data, "train"))
    assert [each.num_rows for each in threads] == [256, 44]
    assert all(one.equals(other) for one, other in zip(threads, processes, strict=True))


def test_near_groups(tmp_path: Path) -> None:
    """Copies saved again in other ways are one group; other images are not, however few their details."""
    random_ = np.random.default_rng(0)
    contents, expected = [], []
    for number in range(40):
        picture = (
            drawn(number) if number % 2 else Image.new("RGB", (64, 64), tuple(random_.integers(40, 200, 3).tolist()))
        )
        if number % 2 == 0:  # a plain background with a small thing in the same place
            picture.paste((255, 255, 255), (28, 20, 36, 50))
        copies = [picture, picture.resize((96, 96), Image.Resampling.BICUBIC), picture]
        contents += [encoded(copy, "JPEG", quality=quality) for copy, quality in zip(copies, (95, 90, 75), strict=True)]
        expected += [3 * number] * 3
    found = looked(contents)
    means = np.array([[each[name] for name in image_facts._MEANS] for each in found], np.float32)
    groups = near_groups(np.array([each["near_hash"] for each in found]), means)
    assert groups.tolist() == expected


def test_many_frames_of_one_scene_take_no_time(tmp_path: Path) -> None:
    """Quadratic work on these would be for ever."""
    random_ = np.random.default_rng(0)
    frames = 20_000
    means = np.float32(0.5) + random_.uniform(0, 0.002, (frames, 5)).astype(np.float32)
    flips = np.left_shift(np.uint64(1), random_.integers(0, 64, frames).astype(np.uint64))
    found = near_groups((np.full(frames, 0x0F0F0F0F0F0F0F0F, np.uint64) ^ flips).view(np.int64), means)
    assert set(found.tolist()) == {0}


@given(st.lists(st.tuples(st.integers(-8, 8), st.integers(0, 3)), min_size=1, max_size=40))
def test_near_groups_are_connected_components(rows: list[tuple[int, int]]) -> None:
    hashes = np.array([each for each, _ in rows], np.int64)
    means = np.array([[colour * 0.01] for _, colour in rows], np.float32)
    found = near_groups(hashes, means).tolist()
    groups = list(range(len(rows)))
    for _ in rows:
        for one in range(len(rows)):
            for other in range(len(rows)):
                bits = bin((int(hashes[one]) ^ int(hashes[other])) & (2**64 - 1)).count("1")
                if bits <= 4 and abs(float(means[one, 0]) - float(means[other, 0])) <= 0.012:
                    groups[one] = groups[other] = min(groups[one], groups[other])
    assert found == groups


def test_chunks_make_no_difference(tmp_path: Path) -> None:
    contents = [encoded(drawn(seed), "JPEG") for seed in range(5)]
    together = looked(contents)
    alone = [looked([each])[0] for each in contents]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other)


def test_files_with_problems_are_rows(tmp_path: Path) -> None:
    root = tmp_path / "d"
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for number in range(3):
                drawn(random.Random(f"{split}{label}{number}").randrange(10**6)).save(
                    root / split / label / f"{number}.png"
                )
    (root / "train" / "dog" / "notes.txt").write_text("x")
    (root / "val" / "bird").mkdir()
    drawn(77).save(root / "val" / "bird" / "0.png")
    data = ImageClassificationData(path=str(root), cache_dir=str(tmp_path / "c"))
    found = rows(data, "image_classification", tmp_path)
    assert found["train/dog/notes.txt"]["problem"] == "not an image"
    assert (found["train/dog/notes.txt"]["number"], found["train/dog/notes.txt"]["label"]) == (None, "dog")
    assert found["bird"]["problem"] == "no training images"
    assert found["val/bird/0.png"]["problem"] == "its class has no training images"
    assert len(found) == 15
    wanted = [found["val/bird/0.png"], found["train/dog/notes.txt"]]
    shown = [Thumbnails(data, wanted).thumbnail(each) for each in wanted]
    assert shown[0] is not None
    assert shown[1] is None
