"""Images: every layout, every kind of pixel, boxes through resizing, caches, batches, and what is refused."""

import io
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import hub_double
from config.errors import InputError
from datamodules.classes import select_balanced
from datamodules.image_classification import ImageClassificationData
from datamodules.images import decoder, image_splits
from datamodules.sources.locations import Names

SOURCE = Path(__file__).resolve().parents[1] / "src"
LABELLED = {"train": {"cat": 3, "dog": 2}, "val": {"cat": 1, "dog": 2}}


def image(seed: int = 0, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8)).convert(mode)


def encoded(picture: Image.Image, kind: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def folders(root: Path, splits: Mapping[str, Mapping[str, int]] = LABELLED, below: str = "") -> Path:
    """Class folders: so many images of each class of each split."""
    seed = 0
    for split, classes in splits.items():
        for identity, count in classes.items():
            folder = root / split / identity / below
            folder.mkdir(parents=True)
            for number in range(count):
                seed += 1
                (folder / f"{number}.jpg").write_bytes(encoded(image(seed)))
    return root


def table(file: Path, labels: list[Any], names: list[str] | None = None, column: str = "label") -> Path:
    """A Parquet file in the Hub's layout."""
    rows = [{"image": {"bytes": encoded(image(i)), "path": None}, column: v} for i, v in enumerate(labels)]
    made = pa.Table.from_pylist(rows)
    if names is not None:
        about = {"info": {"features": {column: {"names": names, "_type": "ClassLabel"}}}}
        made = made.replace_schema_metadata({"huggingface": json.dumps(about)})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, file, row_group_size=3)
    return file


def locate(names: Names) -> dict[str, list[str]]:
    return {split: image_splits.locate(names, split) for split in ("train", "val")}


def read(root: Path | str, **limits: int) -> tuple[list[dict[str, str]], dict[str, image_splits.Split]]:
    survey = image_splits.survey(locate(Names(str(root))), limits, str(root))
    return survey.classes, {split: survey.valid_split(split) for split in survey.splits}


def data(root: Path | str | None, cache: Path, **changed: Any) -> ImageClassificationData:
    made = ImageClassificationData(path=root and str(root), cache_dir=str(cache), **{"batch_size": 2, **changed})
    made.prepare_data()
    made.setup()
    return made


# -- the real images ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tiny_imagenet: Path, cache: Path) -> ImageClassificationData:
    return data(tiny_imagenet, cache, batch_size=64, eval_batch_size=256)


def test_all_real_images_have_their_official_labels_and_boxes(
    real: ImageClassificationData, tiny_imagenet: Path
) -> None:
    identities = sorted((tiny_imagenet / "wnids.txt").read_text().split())
    assert [entry["id"] for entry in real.classes] == identities
    assert real.classes[0] == {"id": "n01443537", "name": "goldfish, Carassius auratus"}
    boxes = {}
    for file in tiny_imagenet.glob("train/*/*_boxes.txt"):
        for line in file.read_text().splitlines():
            name, *box = line.split("\t")
            boxes[f"train/{file.parent.name}/images/{name}"] = box
    labels = {name: name.split("/")[1] for name in boxes}
    for line in (tiny_imagenet / "val" / "val_annotations.txt").read_text().splitlines():
        name, identity, *box = line.split("\t")
        boxes[f"val/images/{name}"], labels[f"val/images/{name}"] = box, identity
    assert (len(real.train), len(real.val)) == (20_000, 2_000)
    for images in (real.train, real.val):
        assert len(set(images.names)) == len(images)
        assert Counter(images.labels.tolist()) == dict.fromkeys(range(200), len(images) // 200)
        for index, name in enumerate(images.names):
            assert identities[images.labels[index]] == labels[name]
        expected = np.array([boxes[name] for name in images.names], np.float32)
        assert np.array_equal(images.boxes, expected)


def test_all_real_images_are_rgb_greyscale_ones_too(real: ImageClassificationData, tiny_imagenet: Path) -> None:
    assert real.train.counts["greyscale"] + real.val.counts["greyscale"] == 407
    grey = 0
    for images in (real.train, real.val):
        assert images.pixels.shape == (len(images), 64, 64, 3)
        for start in range(0, len(images), 1000):
            some = images.pixels[start : start + 1000]
            assert (some.std(axis=(1, 2, 3)) > 0).all()  # nothing was left empty
            grey += int((some == some[..., :1]).all(axis=(1, 2, 3)).sum())
        for index in range(0, len(images), 97):
            with Image.open(tiny_imagenet / images.names[index]) as original:
                assert np.array_equal(images.pixels[index], np.asarray(original.convert("RGB")))
    assert grey >= 407


def test_a_second_start_on_real_images_decodes_nothing(
    real: ImageClassificationData, tiny_imagenet: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "write", lambda *_: pytest.fail("decoded again"))
    again = data(tiny_imagenet, cache)
    assert again.fingerprints == real.fingerprints
    assert again.describe()["train"]["images"] == 20_000


def test_a_limit_on_real_images_takes_classes_evenly(tiny_imagenet: Path) -> None:
    classes, splits = read(tiny_imagenet, train=450, val=64)
    assert len(classes) == 200
    assert set(Counter(splits["train"].labels.tolist()).values()) == {2, 3}
    assert len(set(splits["val"].labels.tolist())) == 64
    assert set(splits["val"].labels.tolist()) <= set(splits["train"].labels.tolist())


# -- layouts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev"])
@pytest.mark.parametrize("below", ["", "images", "deep/er"])
def test_class_folders_in_any_usual_layout(tmp_path: Path, name: str, below: str) -> None:
    folders(tmp_path, {"train": LABELLED["train"], name: LABELLED["val"]}, below)
    classes, splits = read(tmp_path)
    assert classes == [{"id": "cat", "name": "cat"}, {"id": "dog", "name": "dog"}]
    assert splits["train"].labels.tolist() == [0, 0, 0, 1, 1]
    assert splits["val"].labels.tolist() == [0, 1, 1]
    assert splits["val"].names[0] == "/".join(part for part in (name, "cat", below, "0.jpg") if part)
    assert np.isnan(splits["train"].boxes).all()


def test_folders_named_outright(tmp_path: Path) -> None:
    folders(tmp_path, {"one": LABELLED["train"], "two": LABELLED["val"]})
    for path, prefix in ((str(tmp_path), ""), (None, f"{tmp_path}/")):
        splits = image_splits.survey(locate(Names(path, f"{prefix}one", f"{prefix}two"))).splits
        assert [len(splits["train"]), len(splits["val"])] == [5, 3]


def official(root: Path) -> Path:
    """Tiny ImageNet's own layout, small."""
    folders(root, {"train": {"n01": 2, "n02": 2}}, "images")
    for identity in ("n01", "n02"):
        lines = [f"{number}.jpg\t{number}\t1\t20\t30" for number in range(2)]
        (root / "train" / identity / f"{identity}_boxes.txt").write_text("\n".join(lines) + "\n")
    (root / "val" / "images").mkdir(parents=True)
    for number in range(3):
        (root / "val" / "images" / f"val_{number}.JPEG").write_bytes(encoded(image(number)))
    lines = [f"val_{number}.JPEG\tn0{1 + number % 2}\t5\t6\t{50 + number}\t60" for number in (2, 0, 1)]
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (root / "words.txt").write_text("n01\tcat, puss\nn02\tdog\nn03\tcow\n")
    (root / "wnids.txt").write_text("n02\nn01\n")
    return root


def test_the_official_layout(tmp_path: Path) -> None:
    classes, splits = read(official(tmp_path))
    assert classes == [{"id": "n01", "name": "cat, puss"}, {"id": "n02", "name": "dog"}]
    assert splits["train"].boxes.tolist() == [[0, 1, 20, 30], [1, 1, 20, 30]] * 2
    assert splits["val"].names == [f"val/images/val_{number}.JPEG" for number in (2, 0, 1)]
    assert splits["val"].labels.tolist() == [0, 0, 1]
    assert splits["val"].boxes[0].tolist() == [5, 6, 52, 60]


@pytest.mark.parametrize("layout", ["class folders", "images inside", "empty images/ left", "inside images/"])
def test_tiny_imagenet_whose_validation_images_were_moved_into_class_folders(
    tmp_path: Path, layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    val = official(tmp_path) / "val"
    flat = (val / "images").rename(val / "flat")
    for number, identity in ((0, "n01"), (1, "n02"), (2, "n01")):
        below = {"images inside": f"{identity}/images", "inside images/": f"images/{identity}"}.get(layout, identity)
        (val / below).mkdir(parents=True, exist_ok=True)
        (flat / f"val_{number}.JPEG").rename(val / below / f"val_{number}.JPEG")
    flat.rename(val / "images") if layout == "empty images/ left" else flat.rmdir()
    with caplog.at_level(logging.INFO):
        classes, splits = read(tmp_path)
    assert [entry["id"] for entry in classes] == ["n01", "n02"]
    assert [Path(name).name for name in splits["val"].names] == ["val_0.JPEG", "val_2.JPEG", "val_1.JPEG"]
    assert all(name.startswith("val/") and (tmp_path / name).is_file() for name in splits["val"].names)
    assert splits["val"].labels.tolist() == [0, 0, 1]
    assert splits["val"].boxes[1].tolist() == [5, 6, 52, 60]  # of the annotations
    assert "the images are in class folders, which decide; val_annotations.txt only has boxes" in caplog.text
    assert "skipped" not in caplog.text


def test_tiny_imagenet_whose_validation_images_were_copied_keeps_its_annotations(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(official(tmp_path) / "val" / "images", tmp_path / "val" / "n01")
    assert read(tmp_path)[1]["val"].names == [f"val/images/val_{number}.JPEG" for number in (2, 0, 1)]
    assert "only images/ is read" in caplog.text
    assert "not n01" in caplog.text


@pytest.mark.parametrize("inside", ["", "data/"])
def test_parquet_files_of_the_hub(tmp_path: Path, cache: Path, inside: str) -> None:
    table(tmp_path / f"{inside}train-00000-of-00002-ab.parquet", [2, 0, 1, 1, 0], ["b", "c", "a"])
    table(tmp_path / f"{inside}train-00001-of-00002-cd.parquet", [2, 2], ["b", "c", "a"])
    table(tmp_path / f"{inside}valid-00000-of-00001.parquet", [0, 1, 2], ["b", "c", "a"])
    made = data(tmp_path, cache)
    assert [entry["id"] for entry in made.classes] == ["a", "b", "c"]
    assert made.train.labels.tolist() == [0, 1, 2, 2, 1, 0, 0]
    assert made.train.names[5] == "train-00001/0"
    for index, seed in enumerate([0, 1, 2, 3, 4, 0, 1]):
        with Image.open(io.BytesIO(encoded(image(seed)))) as original:
            assert np.array_equal(made.train.pixels[index], np.asarray(original))


def test_parquet_labels_without_names_keep_their_numbers(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", [*range(12), 11])
    table(tmp_path / "val.parquet", [11, 2])
    classes, splits = read(tmp_path, train=12)
    assert [entry["id"] for entry in classes] == [str(number) for number in range(12)]
    assert splits["train"].labels.tolist() == list(range(12))
    assert len(list(splits["train"].images())) == 12
    assert splits["val"].labels.tolist() == [11, 2]


def test_the_hubs_tiny_imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_double.write_tiny_imagenet(tmp_path)
    served = {f"data/{file.name}": str(file) for file in (tmp_path / "data").iterdir()}
    monkeypatch.setattr("datamodules.sources.hub.download", lambda _, __, name: [served[name]])
    from config.compose import compose

    hub = dict(compose(["model=resnet18", "data=tiny_imagenet"]).data.hub)
    made = data(None, tmp_path / "cache", hub=hub, max_train=6)
    assert len(made.train) == 6
    assert made.num_classes == 4
    assert made.fingerprints["val"] == f"zh-plus/tiny-imagenet@{hub_double.TINY_IMAGENET_REVISION}:{hub['val']}"
    assert made.val.counts["greyscale"] == 4


def test_generated_images_are_made_once_and_read_as_official(cache: Path) -> None:
    from datamodules.samples import shapes

    made = data(None, cache, sample={"seed": 5, "train": 24, "val": 13, "classes": 12})
    assert (len(made.train), len(made.val), made.num_classes) == (24, 13, 12)
    assert sorted(shapes.SHAPES) == [entry["id"] for entry in made.classes]
    assert np.isfinite(made.boxes).all()
    again = data(None, cache, sample={"seed": 5, "train": 24, "val": 13, "classes": 12})
    assert again.fingerprints == made.fingerprints
    other = data(None, cache, sample={"seed": 6, "train": 24, "val": 13, "classes": 12})
    assert other.fingerprints["train"] != made.fingerprints["train"]


def test_a_folder_on_a_remote_file_system(tmp_path: Path, cache: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").put(str(official(tmp_path / "here")), "/images-there", recursive=True)
    there = data("memory://images-there", cache)
    here = data(tmp_path / "here", cache)
    for remote, local in ((there.train, here.train), (there.val, here.val)):
        assert np.array_equal(remote.pixels, local.pixels)
        assert list(remote.names) == list(local.names)
        assert np.array_equal(remote.boxes, local.boxes)
    assert there.classes == here.classes


def test_files_that_are_no_images_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folders(tmp_path)
    for name in ("cat/notes.txt", "cat/Thumbs.db", "stray.jpg", "dog/.hidden", ".DS_Store"):
        (tmp_path / "train" / name).write_text("x")
    with caplog.at_level(logging.WARNING):
        _, splits = read(tmp_path)
    assert len(splits["train"]) == 5
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/train: 3 file(s) that are not images in class folders are skipped, such as train/stray.jpg"
    ]


def test_a_class_without_validation_images_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folders(tmp_path, {"train": LABELLED["train"], "val": {"dog": 1, "cat": 0}})
    with caplog.at_level(logging.WARNING):
        _, splits = read(tmp_path)
    assert splits["val"].labels.tolist() == [1]
    assert "no validation images of cat" in caplog.text


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 70))
def test_a_limit_takes_the_first_of_each_class_in_turn(labels: list[int], limit: int) -> None:
    array = np.array(labels)
    chosen = select_balanced(array, limit).tolist()
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(limit, len(labels))
    assert set(select_balanced(array, limit - 1).tolist()) <= set(chosen) if limit > 1 else True
    counts, whole = Counter(array[chosen].tolist()), Counter(labels)
    most = max(counts.values())
    assert all(counts[label] >= min(most - 1, whole[label]) for label in whole)
    for label in whole:  # the first of each class
        mine = [index for index in chosen if labels[index] == label]
        assert mine == [index for index, other in enumerate(labels) if other == label][: len(mine)]


# -- pixels ------------------------------------------------------------------------------------------------


def colours() -> dict[str, tuple[bytes, tuple[int, int, int], bool]]:
    """By kind: an encoded flat image, the colour it must have, and whether it counts as greyscale."""
    red = Image.new("RGB", (20, 20), (200, 30, 40))
    seen = red.copy().convert("P")
    seen.info["transparency"] = 0
    deep = Image.fromarray(np.full((20, 20), 200 << 8 | 99, np.uint16))
    grey = Image.new("L", (20, 20), 77)
    return {
        "RGB": (encoded(red, "PNG"), (200, 30, 40), False),
        "RGBA": (encoded(red.convert("RGBA"), "PNG"), (200, 30, 40), False),
        "P": (encoded(red.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), (200, 30, 40), False),
        "GIF": (encoded(red.convert("P", palette=Image.Palette.ADAPTIVE), "GIF"), (200, 30, 40), False),
        "CMYK": (encoded(Image.new("CMYK", (20, 20), (55, 225, 215, 0)), "JPEG"), (200, 30, 40), False),
        "L": (encoded(grey, "PNG"), (77, 77, 77), True),
        "L jpeg": (encoded(grey, "JPEG"), (77, 77, 77), True),
        "LA": (encoded(grey.convert("LA"), "PNG"), (77, 77, 77), True),
        "1": (encoded(Image.new("1", (20, 20), 1), "PNG"), (255, 255, 255), True),
        "I;16": (encoded(deep, "PNG"), (200, 200, 200), True),
        "I;16 TIFF": (encoded(deep, "TIFF"), (200, 200, 200), True),
        "I;16 PGM": (encoded(deep, "PPM"), (200, 200, 200), True),
    }


@pytest.mark.parametrize("kind", colours())
@pytest.mark.parametrize("size", [20, 8])
def test_every_kind_of_pixel_becomes_rgb(kind: str, size: int) -> None:
    content, colour, greyscale = colours()[kind]
    decoded, original, grey = decoder.decode(content, size)
    assert decoded.shape == (size, size, 3)
    assert original == (20, 20)
    assert grey == greyscale
    assert np.abs(decoded.astype(int) - colour).max() <= 2


@pytest.mark.parametrize("kind", colours())
def test_every_reader_of_images_sees_the_same_colours(kind: str) -> None:
    """Facts, thumbnails of reports, and predictions (of which drift takes the features) open images as training does."""
    from quality.image_statistics import measure_images
    from quality.thumbnails import Thumbnails
    from trainers.predict_images import _make_prepare

    content, colour, _ = colours()[kind]
    columns = measure_images([content])
    assert [255 * columns[name][0] for name in ("red", "green", "blue")] == pytest.approx(colour, abs=2)
    row = {"split": "val", "number": 0, "id": "x"}
    survey = SimpleNamespace(splits={"val": SimpleNamespace(images=lambda: iter([content]))})
    thumbnail = Thumbnails(SimpleNamespace(problems=[], survey=survey), [row]).thumbnail(row)
    assert thumbnail is not None
    assert np.asarray(Image.open(io.BytesIO(thumbnail))).mean(axis=(0, 1)) == pytest.approx(colour, abs=4)
    preprocessing = {
        "image_size": 8,
        "crop_pct": 0.9,
        "crop_mode": "center",
        "interpolation": "bilinear",
        "mean": [0] * 3,
    }
    assert _make_prepare(preprocessing)(content).numpy().mean(axis=(0, 1)) == pytest.approx(colour, abs=2)


def test_images_are_opened_in_one_place() -> None:
    openers = [path.name for path in SOURCE.rglob("*.py") if "Image.open(" in path.read_text(encoding="utf-8")]
    assert openers == ["decoder.py"]


def test_a_palette_with_transparency_becomes_rgb(recwarn: pytest.WarningsRecorder) -> None:
    palette = image().quantize(16)
    stream = io.BytesIO()
    palette.save(stream, "PNG", transparency=bytes(range(16)))
    decoded, _, _ = decoder.decode(stream.getvalue(), 64)
    assert np.array_equal(decoded, np.asarray(palette.convert("RGBA").convert("RGB")))
    assert not recwarn.list


@pytest.mark.parametrize(("width", "height"), [(200, 100), (100, 200), (40, 30), (2000, 1000)])
def test_other_sizes_are_resized_by_the_shorter_side_and_cropped_at_the_centre(width: int, height: int) -> None:
    across = np.linspace(0, 255, width)[None, :, None] * [1, 0, 0]
    down = np.linspace(0, 255, height)[:, None, None] * [0, 1, 0]
    ramp = Image.fromarray((across + down).astype(np.uint8))
    decoded, original, _ = decoder.decode(encoded(ramp, "JPEG"), 50)
    assert original == (width, height)
    side = min(width, height)
    shown = [(width - side) / 2 / width * 255, (width + side) / 2 / width * 255]
    assert np.allclose(decoded[:, [0, -1], 0].mean(0), shown, atol=8)
    assert np.allclose(
        decoded[[0, -1], :, 1].mean(1),
        [(height - side) / 2 / height * 255, (height + side) / 2 / height * 255],
        atol=8,
    )


@settings(deadline=None)
@given(
    sides=st.tuples(st.integers(9, 150), st.integers(9, 150)),
    size=st.sampled_from([8, 31, 32, 64]),
    crop_pct=st.sampled_from([1.0, 0.95, 0.875, 0.5, 1.15]),
    crop_mode=st.sampled_from(["center", "squash", "border"]),
    interpolation=st.sampled_from(["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]),
    kind=st.sampled_from(["PNG", "JPEG"]),
)
@example((9, 10), 8, 1.0, "border", "nearest", "PNG")  # a border of one pixel, on one side only
def test_pixels_are_those_of_timms_transforms(
    sides: tuple[int, int], size: int, crop_pct: float, crop_mode: str, interpolation: str, kind: str
) -> None:
    _assert_pixels_of_timm(encoded(image(1, sides), kind), size, crop_pct, crop_mode, interpolation)


@pytest.mark.parametrize("sides", [(900, 700), (400, 1300), (257, 256)])
def test_large_jpegs_are_those_of_timms_transforms_too(sides: tuple[int, int]) -> None:
    _assert_pixels_of_timm(encoded(image(1, sides)), 64, 1.0, "center", "bicubic")


def _assert_pixels_of_timm(content: bytes, size: int, crop_pct: float, crop_mode: str, interpolation: str) -> None:
    from timm.data import create_transform

    mean = (0.2, 0.4, 0.6)
    resizing = {"crop_pct": crop_pct, "crop_mode": crop_mode, "interpolation": interpolation, "mean": mean}
    transform = create_transform(input_size=(3, size, size), use_prefetcher=True, **resizing)
    with Image.open(io.BytesIO(content)) as opened:
        expected = transform(opened.convert("RGB")).permute(1, 2, 0).numpy()
    decoded, original, _ = decoder.decode(content, size, decoder.make_resizing(**resizing))
    assert np.array_equal(decoded, expected)
    # A box around the image is the image's box in the result: borders lie outside.
    boxes = decoder.fit_boxes(
        np.array([[0, 0, original[0] - 1, original[1] - 1]], np.float32),
        np.array([original]), size, decoder.make_resizing(**resizing),
    )  # fmt: skip
    if crop_mode == "border" and crop_pct == 1.0:
        outside = np.ones((size, size), bool)
        x0, y0, x1, y1 = boxes[0].round().astype(int)
        outside[y0 : y1 + 1, x0 : x1 + 1] = False
        assert (decoded[outside] == [51, 102, 153]).all()
        assert max(x1 - x0, y1 - y0) + 1 == size


def test_an_image_of_the_right_size_is_not_touched() -> None:
    assert np.array_equal(decoder.decode(encoded(image(), "PNG"), 64)[0], np.asarray(image()))


@given(
    width=st.integers(40, 160),
    height=st.integers(40, 160),
    size=st.sampled_from([32, 64, 96]),
    corners=st.tuples(*[st.floats(0, 0.999)] * 4),
)
def test_boxes_go_with_their_objects(width: int, height: int, size: int, corners: tuple[float, ...]) -> None:
    xs, ys = sorted(int(x * width) for x in corners[:2]), sorted(int(y * height) for y in corners[2:])
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[ys[0] : ys[1] + 1, xs[0] : xs[1] + 1] = 255
    decoded, original, _ = decoder.decode(encoded(Image.fromarray(canvas), "PNG"), size)
    box = decoder.fit_boxes(np.array([[xs[0], ys[0], xs[1], ys[1]]], np.float32), np.array([original]), size)[0]
    bright = np.argwhere(decoded[..., 0] > 127)[:, ::-1]
    if np.isnan(box).any():
        assert not len(bright)
        return
    assert 0 <= box[0] <= box[2] <= size - 1
    assert 0 <= box[1] <= box[3] <= size - 1
    assert ((bright >= box[:2] - 1) & (bright <= box[2:] + 1)).all()
    if (box[2:] - box[:2] >= 2).all():  # not too thin to be seen
        assert np.abs(box - [*bright.min(0), *bright.max(0)]).max() <= 1.0


def test_boxes_stay_as_they_are_where_nothing_is_resized() -> None:
    boxes = np.array([[0, 0, 63, 63], [3, 4, 3, 9], [np.nan] * 4], np.float32)
    fitted = decoder.fit_boxes(boxes, np.full((3, 2), 64), 64)
    assert np.array_equal(fitted, boxes, equal_nan=True)


def test_a_box_in_the_cropped_part_is_none() -> None:
    fitted = decoder.fit_boxes(np.array([[0, 0, 20, 90]], np.float32), np.array([[200, 100]]), 64)
    assert np.isnan(fitted).all()


MEMORY = """
import io, sys
import numpy as np
from pathlib import Path
from PIL import Image
from datamodules.images import decoder
from datamodules.images.image_splits import Split

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024

stream = io.BytesIO()
Image.new("RGB", (64, 64)).save(stream, "JPEG")
content = stream.getvalue()

def use(folder, count):
    labels, boxes = np.zeros(count, np.int64), np.full((count, 4), np.nan, np.float32)
    names = [str(i) for i in range(count)]
    split = Split("", [], names, labels, boxes, lambda: iter([content] * count))
    folder.mkdir()
    decoder.write(split, [{"name": "a"}], 64, folder)
    images = decoder.Images(folder)
    for batch in np.random.default_rng(0).permutation(count).reshape(-1, 100):
        images.gather(batch)
    return peak()

root = Path(sys.argv[1])
print(use(root / "small", 1000), use(root / "large", 8000))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    small, large = map(int, done.stdout.split())
    assert large - small < 15, "MiB more for 8,000 images of 12 KiB than for 1,000"


# -- caches and batches ------------------------------------------------------------------------------------


def test_the_cache_goes_by_content(tmp_path: Path) -> None:
    folders(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    one, two = (data(tmp_path / name, tmp_path / "cache") for name in "ab")
    assert one.fingerprints == two.fingerprints
    assert one.train.folder == two.train.folder
    (tmp_path / "b" / "train" / "cat" / "0.jpg").write_bytes(encoded(image(99)))
    three = data(tmp_path / "b", tmp_path / "cache")
    assert three.train.folder != two.train.folder
    assert three.val.folder == two.val.folder
    assert data(tmp_path / "b", tmp_path / "cache", image_size=32).val.folder != two.val.folder


def test_a_renamed_class_is_other_data(tmp_path: Path) -> None:
    folders(tmp_path)
    before = data(tmp_path, tmp_path / "cache")
    for split in ("train", "val"):
        (tmp_path / split / "dog").rename(tmp_path / split / "ant")
    after = data(tmp_path, tmp_path / "cache")
    assert after.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert after.fingerprints["train"] != before.fingerprints["train"]


def test_labels_follow_the_classes_where_the_images_stay_the_same(tmp_path: Path) -> None:
    folders(tmp_path, {"train": {"cat": 2, "dog": 2}, "val": {"dog": 2}})
    assert data(tmp_path, tmp_path / "cache").val.labels.tolist() == [1, 1]
    (tmp_path / "train" / "cat").rename(tmp_path / "train" / "eel")
    assert data(tmp_path, tmp_path / "cache").val.labels.tolist() == [0, 0]


def test_limits_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    folders(tmp_path)
    made = data(tmp_path, tmp_path / "cache", max_train=4)
    assert made.fingerprints["train"].endswith(":balanced-4")
    assert made.train.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_the_right_images_in_an_order_of_the_seed(tmp_path: Path, cache: Path, workers: int) -> None:
    folders(tmp_path, {"train": {"cat": 6, "dog": 7}, "val": {"cat": 2, "dog": 3}})
    made = data(tmp_path, cache, batch_size=4, eval_batch_size=3, workers=workers, seed=3)
    epochs = []
    for epoch in (0, 1, 0):
        made.train_batches.set_epoch(epoch)
        order = []
        for batch in made.train_dataloader():
            index = batch["index"].numpy()
            assert batch["pixels"].shape == (4, 64, 64, 3)
            assert np.array_equal(batch["pixels"].numpy(), made.train.pixels[index])
            assert np.array_equal(batch["labels"].numpy(), made.train.labels[index])
            order.extend(index.tolist())
        epochs.append(order)
    assert epochs[0] == epochs[2] != epochs[1]
    assert len(set(epochs[0])) == 12
    evaluated = [batch["index"].tolist() for batch in made.val_dataloader()]
    assert evaluated == [[0, 1, 2], [3, 4]]


def test_two_processes_share_every_batch_and_the_evaluation(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders(tmp_path, {"train": {"cat": 6, "dog": 7}, "val": {"cat": 2, "dog": 3}})
    whole = data(tmp_path, cache, batch_size=4, eval_batch_size=2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    parts = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        part = data(tmp_path, cache, batch_size=4, eval_batch_size=2)
        parts.append(
            (
                [batch["index"].tolist() for batch in part.train_dataloader()],
                [batch["index"].tolist() for batch in part.val_dataloader()],
            )
        )
    monkeypatch.delenv("WORLD_SIZE")
    for step, batch in enumerate(whole.train_dataloader()):
        assert sorted(parts[0][0][step] + parts[1][0][step]) == sorted(batch["index"].tolist())
    assert sorted(parts[0][1] + parts[1][1]) == [batch["index"].tolist() for batch in whole.val_dataloader()]


def test_validation_alone_does_not_decode_the_training_split(tmp_path: Path) -> None:
    folders(tmp_path)
    made = ImageClassificationData(path=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    made.prepare_data(("val",))
    made.setup("validate")
    assert made.num_classes == 2
    assert len(made.names) == 3
    assert made.boxes.shape == (3, 4)
    assert not hasattr(made, "train")
    assert len(list((tmp_path / "cache" / "images").glob("*/key.json"))) == 1


def test_damaged_pixels_are_not_read(tmp_path: Path) -> None:
    folders(tmp_path)
    made = data(tmp_path, tmp_path / "cache")
    with (made.train.folder / "pixels.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(InputError, match="damaged"):
        made.train.gather(np.array([4]))


# -- what is refused ---------------------------------------------------------------------------------------

Change = Callable[[Path], object]


def broken(content: bytes) -> Change:
    return lambda root: (root / "train" / "cat" / "1.jpg").write_bytes(content)


@pytest.mark.parametrize(
    "content",
    [encoded(image())[:700], b"", b"not an image", encoded(image(), "PNG")[:300], encoded(image())[:20]],
    ids=["truncated jpeg", "empty", "text", "truncated png", "header only"],
)
def test_a_broken_image_is_named_and_nothing_stays_in_the_cache(tmp_path: Path, content: bytes) -> None:
    broken(content)(folders(tmp_path / "images"))
    with pytest.raises(InputError, match=r"cannot decode the image .*/train/cat/1\.jpg: .*; replace or remove it"):
        data(tmp_path / "images", tmp_path / "cache")
    left = [file.name for file in (tmp_path / "cache" / "images").iterdir() if file.suffix != ".lock"]
    assert left == []


def test_a_broken_image_in_parquet_is_named_by_its_row(tmp_path: Path) -> None:
    table(tmp_path / "val.parquet", [0, 1])
    rows = [{"image": {"bytes": encoded(image(i)) if i != 2 else b"x"}, "label": i % 2} for i in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    with pytest.raises(InputError, match="cannot decode the image train/2: "):
        data(tmp_path, tmp_path / "cache")


def rewrite(name: str, line: str) -> Change:
    return lambda root: (root / name).write_text(line)


OFFICIAL_PROBLEMS: dict[str, tuple[Change, str]] = {
    "no such image": (
        rewrite("val/val_annotations.txt", "val_9.JPEG\tn01\t0\t0\t5\t5\n"),
        r"val_annotations\.txt, line 1: there is no .*val_9\.JPEG",
    ),
    "named twice": (rewrite("val/val_annotations.txt", "val_0.JPEG\tn01\n" * 2), "line 2: .*named twice"),
    "no class": (
        rewrite("val/val_annotations.txt", "val_0.JPEG\tn01\nval_1.JPEG\tn02\n"),
        r"no class for 1 image\(s\), such as val_2\.JPEG",
    ),
    "wrong columns": (
        rewrite("val/val_annotations.txt", "val_0.JPEG n01 0 0 5 5\n"),
        "line 1: expected image, class",
    ),
    "box of words": (
        rewrite("train/n01/n01_boxes.txt", "0.jpg\t1\t2\tx\t4\n"),
        r"n01_boxes\.txt, line 1: 1 2 x 4 is",
    ),
    "box reversed": (
        rewrite("train/n01/n01_boxes.txt", "0.jpg\t9\t2\t3\t4\n"),
        "line 1: 9 2 3 4 is not a box",
    ),
    "no text": (
        lambda root: (root / "val" / "val_annotations.txt").write_bytes(b"\xff\xfe\x00"),
        "not text in UTF-8",
    ),
    "unknown class": (
        rewrite("val/val_annotations.txt", "".join(f"val_{i}.JPEG\tn0{i}\n" for i in range(3))),
        "images of n00, of which .*train has none",
    ),
    "class that is no text": (
        lambda root: (root / "train" / "n01").rename(Path(os.fsdecode(os.fsencode(root / "train") + b"/caf\xe9"))),
        r"class 'caf\\udce9' is not UTF-8; rename its folder",
    ),
    "empty annotations": (rewrite("val/val_annotations.txt", ""), "no class for 3"),
}


@pytest.mark.parametrize("problem", OFFICIAL_PROBLEMS)
def test_problems_of_the_official_layout_are_told(tmp_path: Path, problem: str) -> None:
    change, message = OFFICIAL_PROBLEMS[problem]
    change(official(tmp_path))
    with pytest.raises(InputError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": {"cat": 2, "dog": 2}}, "no file for the val split; expected a folder val or valid or"),
        ({"val": {"cat": 2, "dog": 2}}, "no file for the train split"),
        ({"train": {"cat": 2}, "val": {"cat": 2}}, "only one class"),
        (
            {"train": {"cat": 2, "dog": 2}, "val": {"cat": 1, "cow": 1}},
            "images of cow, of which .*train has none",
        ),
        ({"train": {"cat": 2, "dog": 0}, "val": {"cat": 1}}, r"no images in the class folder\(s\) dog"),
        ({"train": {"cat": 0, "dog": 0}, "val": {"cat": 1}}, "train holds no images"),
        ({"train": {"cat": 1, "dog": 1}, "val": {"cat": 0}}, "val holds no images"),
        ({"train": {"cat": 1, "dog": 1}, "val": {}}, "val holds no class folders"),
    ],
)
def test_splits_that_cannot_be_trained_on_are_refused(
    tmp_path: Path, splits: Mapping[str, Mapping[str, int]], message: str
) -> None:
    folders(tmp_path, splits)
    for split in splits:
        (tmp_path / split).mkdir(exist_ok=True)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("labels", "names", "column", "message"),
    [
        ([0, 1, 2], ["a", "b"], "label", r"row 2: the label 2 is out of range \(0 to 1\)"),
        ([0, -1], None, "label", "row 1: the label -1 is out of range"),
        ([0, None], ["a", "b"], "label", "row 1: the label None is out of range"),
        ([0, 1], None, "target", "expected the columns image and label, found image, target"),
        ([1, 1], None, "label", "only one class"),
    ],
)
def test_parquet_files_that_cannot_be_used_are_refused(
    tmp_path: Path, labels: list[Any], names: list[str] | None, column: str, message: str
) -> None:
    table(tmp_path / "train.parquet", labels, names, column)
    table(tmp_path / "val.parquet", [0, 1], names)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_a_parquet_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_text("no")
    table(tmp_path / "val.parquet", [0, 1])
    with pytest.raises(InputError, match=r"train\.parquet: not a readable Parquet file"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "no data: give data.path"),
        ({"path": "nowhere"}, "no folder data.path=nowhere"),
        ({"sample": {"train": 4, "pictures": 4}}, "data.sample has no key pictures"),
        ({"path": ".", "image_size": 8, "augment": {"crop_padding": 8}}, "crop_padding=8 must be less than"),
        ({"path": ".", "augment": {"crop": 8}}, "data.augment has no key crop"),
    ],
)
def test_configuration_that_cannot_be_is_refused(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageClassificationData(cache_dir=str(tmp_path), **wrong).prepare_data()


def test_an_image_that_vanishes_is_refused(tmp_path: Path) -> None:
    _, splits = read(folders(tmp_path / "images"))
    (tmp_path / "images" / "train" / "dog" / "0.jpg").unlink()
    with pytest.raises(InputError, match=r"cannot read .*dog/0\.jpg: No such file"):
        decoder.write(splits["train"], [], 64, tmp_path)


def test_files_that_have_just_changed_are_looked_at_again(tmp_path: Path) -> None:
    folders(tmp_path / "images")
    first = data(tmp_path / "images", tmp_path / "cache").fingerprints["train"]
    file = tmp_path / "images" / "train" / "cat" / "0.jpg"
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    assert file.stat().st_size == before.st_size
    assert time.time() - file.stat().st_mtime < 60
    assert data(tmp_path / "images", tmp_path / "cache").fingerprints["train"] != first
