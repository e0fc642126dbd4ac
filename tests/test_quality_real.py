"""Contracts on real data: what the official files have wrong, and planted defects beside it."""

import io
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datamodules.image_classification import ImageClassificationData
from datamodules.question_answering import QuestionAnsweringData
from quality import gate, verdict
from quality.verification import verify_data

Broken = dict[str, set[str]]


def verified(data: Any, task: str, name: str, folder: Path) -> tuple[verdict.Verdict, Broken]:
    """The verdict, and the ids of all rows by check, from the report."""
    found, written = verify_data(data, task, name)
    gate.copy_report(written, folder)
    broken: Broken = defaultdict(set)
    for line in (folder / "rows.jsonl").read_text().splitlines():
        row = json.loads(line)
        broken[row["check"]].add(row["id"])
    return found, broken


def test_squad(shared_data: Path, tmp_path: Path) -> None:
    """Dev and the training subset pass; their defects are counted."""
    data = QuestionAnsweringData(path=str(shared_data / "squad"), version_2=False, cache_dir=str(tmp_path / "c"))
    found, broken = verified(data, "question_answering", "squad", tmp_path / "q")
    assert found.status == "warned"
    assert {each.name: (each.value, each.rows) for each in found.checks if each.outcome != "passed"} == {
        "no answer begins or ends inside a word": (112, 112),
        "questions end with a question mark": (pytest.approx(100 * 208 / 18358), 208),
        "no question is asked twice of a paragraph": (70, 137),
    }
    assert {name: len(ids) for name, ids in broken.items()} == {
        "no answer begins or ends inside a word": 112,
        "questions end with a question mark": 208,
        "no question is asked twice of a paragraph": 137,
    }


def jpeg(image: Image.Image, **more: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **more)
    return stream.getvalue()


def planted(root: Path) -> Broken:
    """Twenty defects, one after another; what each check must find of them."""
    classes = sorted(each.name for each in (root / "train").iterdir())
    expected: Broken = defaultdict(set)
    turn = iter(classes)

    def one() -> tuple[str, Path, str]:
        """A class that nothing was done to yet, one of its images, and the image's id."""
        label = next(turn)
        path = sorted((root / "train" / label / "images").iterdir())[3]
        return label, path, f"train/{label}/images/{path.name}"

    def write(path: Path, content: bytes) -> None:
        path.unlink(missing_ok=True)  # the files are links into the untouched copy
        path.write_bytes(content)

    def boxes(label: str, change: Callable[[list[str]], list[str]]) -> None:
        path = root / "train" / label / f"{label}_boxes.txt"
        lines = change(path.read_text().splitlines())
        write(path, ("\n".join(lines) + "\n").encode())

    def changed(check: str | tuple[str, ...], content: Callable[[bytes], bytes]) -> None:
        _, path, name = one()
        write(path, content(path.read_bytes()))
        for each in (check,) if isinstance(check, str) else check:
            expected[each].add(name)

    def opened(content: bytes) -> Image.Image:
        return Image.open(io.BytesIO(content)).convert("RGB")

    def png(content: bytes) -> bytes:
        stream = io.BytesIO()
        opened(content).convert("P").save(stream, "PNG")
        return stream.getvalue()

    decodes = "every file that should be an image can be decoded"
    changed(decodes, lambda content: content[: len(content) // 2])  # 1: cut off
    changed(decodes, lambda content: b"no image at all")  # 2
    changed(decodes, lambda content: b"")  # 3
    changed("images are 64 pixels wide", lambda content: jpeg(opened(content).resize((80, 64))))  # 4
    changed("images are 64 pixels high", lambda content: jpeg(opened(content).resize((64, 80))))  # 5
    changed(("images are JPEG", "images are RGB or greyscale"), png)  # 6: a palette, and PNG
    changed("images are RGB or greyscale", lambda content: jpeg(opened(content).convert("CMYK")))  # 7
    flat = ("no image is flat", "no image is black or white")
    changed(flat, lambda content: jpeg(Image.new("RGB", (64, 64))))  # 8: black
    changed(flat[0], lambda content: jpeg(Image.new("RGB", (64, 64), (90, 120, 90))))  # 9: one colour
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"
    changed("no image tells where it was taken", lambda content: jpeg(opened(content), exif=exif, quality=95))  # 10
    turned = Image.Exif()
    turned[0x0112] = 6
    changed("images are stored upright", lambda content: jpeg(opened(content), exif=turned, quality=95))  # 11

    label, path, name = one()  # 12: a box beyond the edge
    boxes(
        label,
        lambda lines: [
            f"{line.split(chr(9))[0]}\t0\t0\t64\t63" if line.startswith(path.name) else line for line in lines
        ],
    )
    expected["every box lies inside its image"].add(name)
    label, path, name = one()  # 13: no box
    boxes(label, lambda lines: [line for line in lines if not line.startswith(path.name + "\t")])
    expected["images have a box"].add(name)
    label, path, _ = one()  # 14: in another class's folder
    other = next(turn)
    path.rename(root / "train" / other / "images" / path.name)
    boxes(other, lambda lines: [*lines, f"{path.name}\t0\t0\t9\t9"])
    expected["images lie in the folder of the class that they are named after"].add(f"train/{other}/images/{path.name}")
    for quality, suffix in ((None, "copy"), (70, "again")):  # 15, 16: the same image twice, and saved again
        label, path, name = one()
        twin = path.with_name(f"{label}_{suffix}.JPEG")
        write(twin, path.read_bytes() if quality is None else jpeg(opened(path.read_bytes()), quality=quality))
        boxes(label, lambda lines, twin=twin: [*lines, f"{twin.name}\t0\t0\t9\t9"])  # type: ignore[misc]
        expected["no image is there twice"] |= {name, f"train/{label}/images/{twin.name}"}
    label, path, _ = one()  # 17: a stray file
    (path.parent / "notes.txt").write_text("x")
    expected["no file among the images is something else"].add(f"train/{label}/images/notes.txt")

    annotations = root / "val" / "val_annotations.txt"
    lines = annotations.read_text().splitlines()
    by_class = defaultdict(list)
    for line in lines:
        by_class[line.split("\t")[1]].append(line.split("\t")[0])
    label, path, name = one()  # 18: an image of training in validation
    copy = by_class[label][0]
    write(root / "val" / "images" / copy, path.read_bytes())
    for check in ("no image is in both splits", "no image of validation looks like one of training"):
        expected[check] |= {f"val/images/{copy}", name}
    unnamed = by_class[next(turn)][0]  # 19: without a label, and one that is not there
    lines = [line for line in lines if not line.startswith(unnamed + "\t")]
    lines.append(f"val_none.JPEG\t{classes[0]}\t0\t0\t9\t9")
    write(annotations, ("\n".join(lines) + "\n").encode())
    expected["every image has one class, and every class that is named has its image"] |= {
        f"val/images/{unnamed}",
        "val/images/val_none.JPEG",
    }
    gone = next(turn)  # 20: a class without training images
    shutil.rmtree(root / "train" / gone / "images")
    (root / "train" / gone / "images").mkdir()
    expected["every class has training images"] |= {gone, *(f"val/images/{image}" for image in by_class[gone])}
    return expected


@pytest.mark.slow
def test_planted_defects_are_found_and_nothing_else(tiny_imagenet: Path, tmp_path: Path) -> None:
    untouched = ImageClassificationData(path=str(tiny_imagenet), cache_dir=str(tmp_path / "c"))
    found, before = verified(untouched, "image_classification", "tiny_imagenet", tmp_path / "one")
    assert found.status == "warned"
    assert {name: len(ids) for name, ids in before.items()} == {
        "no image is in both splits": 2,  # a fishing rod, and it has another class in each
        "no image of validation looks like one of training": 2,
        "no image has two classes": 4,
        "no image is there twice": 2,
    }
    root = tmp_path / "copy"
    shutil.copytree(tiny_imagenet, root, copy_function=os.link)
    expected = planted(root)
    damaged = ImageClassificationData(path=str(root), cache_dir=str(tmp_path / "c"))
    found, after = verified(damaged, "image_classification", "tiny_imagenet", tmp_path / "two")
    assert found.status == "failed"
    beyond = {name: ids - before.get(name, set()) for name, ids in after.items()}
    assert {name: ids for name, ids in beyond.items() if ids} == dict(expected)
    assert not before.keys() - after.keys()
    assert found.errors == ""
    page = (tmp_path / "two" / "report.html").read_text()
    assert page.count("<img") > 20
    assert "http" not in page.replace("http-equiv", "")
