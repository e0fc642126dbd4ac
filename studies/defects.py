"""How are data checks best included? Planted defects, and where each is found: before, as a step, inside the trainer, by drift."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.samples import shapes, squad_sample
from studies import common
from studies.common import Row, Settings

TITLE = "How are data checks best included?"
HYPOTHESIS = (
    "A contract finds malformed data and copies between splits, whether it is verified before the pipeline, as a step, or inside the "
    "trainer; inside the trainer it cannot be forgotten and costs little more. Drift alone finds changed distributions and nothing else. "
    "Training without checks succeeds on nearly all defective data. Wrong labels in the correct format are found by no check."
)
ARMS = ("before", "inside the trainer", "drift alone", "training alone")
Defect = Callable[[Path, random.Random, float], None]


def _questions(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    content: dict[str, Any] = json.loads((folder / "train-v1.1.json").read_text())
    return content, [
        qa for article in content["data"] for paragraph in article["paragraphs"] for qa in paragraph["qas"]
    ]


def _some(items: list[Any], rng: random.Random, share: float) -> list[Any]:
    return rng.sample(items, max(2, round(share * len(items))))


def shifted_answers(folder: Path, rng: random.Random, share: float) -> None:
    """Answers that are not where they say to be."""
    content, every = _questions(folder)
    for qa in _some(every, rng, share):
        for answer in qa["answers"]:
            answer["answer_start"] += 3
    (folder / "train-v1.1.json").write_text(json.dumps(content))


def empty_questions(folder: Path, rng: random.Random, share: float) -> None:
    """Questions without text."""
    content, every = _questions(folder)
    for qa in _some(every, rng, share):
        qa["question"] = " "
    (folder / "train-v1.1.json").write_text(json.dumps(content))


def copied_questions(folder: Path, rng: random.Random, share: float) -> None:
    """Validation paragraphs that are training's too."""
    content, _ = _questions(folder)
    val = json.loads((folder / "dev-v1.1.json").read_text())
    paragraphs = [paragraph for article in content["data"] for paragraph in article["paragraphs"]]
    val["data"][0]["paragraphs"] += [
        {**each, "qas": [{**qa, "id": f"copy-{qa['id']}"} for qa in each["qas"]]}
        for each in _some(paragraphs, rng, share)
    ]
    (folder / "dev-v1.1.json").write_text(json.dumps(val))


def wrong_answers(folder: Path, rng: random.Random, share: float) -> None:
    """Answers of the right form that are not the question's."""
    content = json.loads((folder / "train-v1.1.json").read_text())
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            if rng.random() < share and len(paragraph["qas"]) > 1:
                answers = [qa["answers"] for qa in paragraph["qas"]]
                for qa, other in zip(paragraph["qas"], answers[1:] + answers[:1], strict=True):
                    qa["answers"] = other
    (folder / "train-v1.1.json").write_text(json.dumps(content))


def _images(folder: Path, split: str = "train") -> list[Path]:
    return sorted((folder / split).rglob("*.JPEG"))


def torn_images(folder: Path, rng: random.Random, share: float) -> None:
    """Files that end in the middle."""
    for path in _some(_images(folder), rng, share):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 3])


def copied_images(folder: Path, rng: random.Random, share: float) -> None:
    """Validation images that are training's too, with their right labels."""
    notes = folder / "val" / "val_annotations.txt"
    lines = [line.split("\t") for line in notes.read_text().splitlines()]
    by_class: dict[str, list[Path]] = {}
    for path in _images(folder):
        by_class.setdefault(path.parts[-3], []).append(path)
    for line in _some(lines, rng, share):
        shutil.copyfile(rng.choice(by_class[line[1]]), folder / "val" / "images" / line[0])


def dark_images(folder: Path, rng: random.Random, share: float) -> None:
    """Training images that are all darker than validation's: a camera that was changed."""
    for path in _images(folder):
        pixels = np.asarray(Image.open(path).convert("RGB"), np.float32) * 0.45
        Image.fromarray(pixels.astype(np.uint8)).save(path, "JPEG", quality=95)


def wrong_labels(folder: Path, rng: random.Random, share: float) -> None:
    """Images that are in another class's folder, with their boxes: nothing but the label is wrong."""
    every = _some(_images(folder), rng, share)
    classes = sorted(each.name for each in (folder / "train").iterdir())
    for number, path in enumerate(every):
        own = path.parts[-3]
        other = rng.choice([each for each in classes if each != own])
        name = f"{other}_moved{number}.JPEG"
        path.rename(folder / "train" / other / "images" / name)
        boxes = {each: folder / "train" / each / f"{each}_boxes.txt" for each in (own, other)}
        lines = boxes[own].read_text().splitlines()
        moved = next(line for line in lines if line.split("\t")[0] == path.name)
        boxes[own].write_text("".join(f"{line}\n" for line in lines if line != moved))
        with boxes[other].open("a") as file:
            file.write("\t".join([name, *moved.split("\t")[1:]]) + "\n")


DEFECTS: dict[str, tuple[str, Defect | None]] = {
    "none (questions)": ("questions", None),
    "answers shifted": ("questions", shifted_answers),
    "questions empty": ("questions", empty_questions),
    "training copied into validation (questions)": ("questions", copied_questions),
    "answers of other questions": ("questions", wrong_answers),
    "none (images)": ("images", None),
    "images torn": ("images", torn_images),
    "training copied into validation (images)": ("images", copied_images),
    "training images dark": ("images", dark_images),
    "labels wrong": ("images", wrong_labels),
}


def run(settings: Settings, folder: Path) -> list[Row]:
    """One row for each defect, seed and arm: whether it was found, and seconds until then, or until all was over."""
    own, rows = settings["defects"], []
    for seed in settings["seeds"]:
        for kind in ("questions", "images"):
            _clean(folder, kind, seed, own)
            _reference(folder, kind, seed, settings)
        for name, (kind, plant) in DEFECTS.items():
            data = _planted(folder, name, kind, plant, seed, own["share"])
            for arm in ARMS:

                def compute(arm: str = arm, data: Path = data, kind: str = kind, seed: int = seed) -> Row:
                    return _found(arm, kind, data, folder / f"reference-{kind}-{seed}", folder / "out", settings)

                found = common.unit(folder, f"{_plain(name)}-{_plain(arm)}-{seed}", compute)
                rows.append({"defect": name, "arm": arm, "seed": seed, **found})
    return rows


def _plain(name: str) -> str:
    return "".join(each if each.isalnum() else "-" for each in name).strip("-")


def _clean(folder: Path, kind: str, seed: int, own: dict[str, Any]) -> None:
    target = folder / f"clean-{kind}-{seed}"
    if target.exists():
        return
    temporary = folder / f"making-{kind}-{seed}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    if kind == "questions":
        squad_sample.write(temporary, seed=seed, train=own["train"], val=own["val"])
    else:
        shapes.write(temporary, seed=seed, train=own["train"], val=own["val"], classes=6, size=64)
    temporary.replace(target)


def _reference(folder: Path, kind: str, seed: int, settings: Settings) -> None:
    """A run on the clean data, which drift is measured against."""
    target = folder / f"reference-{kind}-{seed}"
    if not (target / "model").exists():
        choice = _choice(kind, folder / f"clean-{kind}-{seed}", settings)
        done = common.run("train.py", *choice, f"hydra.run.dir={target}")
        if done.code:
            raise common.failed(done)


def _choice(kind: str, data: Path, settings: Settings) -> list[str]:
    """Overrides of a small model on a folder of data."""
    common_ = [
        f"data.path={data}",
        f"trainer.max_steps={settings['defects']['steps']}",
        f"trainer.threads={settings['threads']}",
    ]
    if kind == "questions":
        return ["model=bert_tiny", "data=squad", "data.vocab_size=1000", *common_]
    model = ["model=resnet18", "model.name=test_resnet", "model.stem=standard"]
    return [*model, "data=tiny_imagenet", *common_]


def _planted(folder: Path, name: str, kind: str, plant: Defect | None, seed: int, share: float) -> Path:
    target = folder / f"{_plain(name)}-{seed}"
    if not target.exists():
        temporary = folder / f"making-{_plain(name)}-{seed}"
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(folder / f"clean-{kind}-{seed}", temporary)
        if plant is not None:
            plant(temporary, random.Random(seed), share)
        temporary.replace(target)
    return target


def _found(arm: str, kind: str, data: Path, reference: Path, out: Path, settings: Settings) -> Row:
    """Runs one arm over one folder of data; whatever ends with an error has found something."""
    train = _choice(kind, data, settings)
    # Each arm finds nothing in a cache: what it costs is what it costs at first.
    shutil.rmtree(out, ignore_errors=True)
    cache = f"data.cache_dir={out / 'cache'}"
    asked = [each for each in train if each.startswith("data")]
    if arm == "before":
        done = common.run("-m", "quality", *asked, cache, "--folder", out / "quality")
    elif arm == "inside the trainer":
        done = common.run("train.py", *train, cache, f"hydra.run.dir={out / 'run'}")
    elif arm == "drift alone":
        done = common.run("-m", "quality", "drift", f"reference={reference}", *asked, cache, "--folder", out / "drift")
    else:
        done = common.run("train.py", *train, cache, "quality=off", f"hydra.run.dir={out / 'run'}")
    if done.code not in (0, 2, 4):
        raise common.failed(done)
    return {"found": done.code != 0, "code": done.code, "seconds": done.seconds, "said": done.err.strip()[-300:]}


def report(rows: list[Row], figures: Path) -> str:
    """The section."""
    cells = []
    for name in DEFECTS:
        line: list[object] = [name]
        for arm in ARMS:
            of = [row for row in rows if (row["defect"], row["arm"]) == (name, arm)]
            line.append(
                f"{sum(row['found'] for row in of)} of {len(of)}, {sorted(row['seconds'] for row in of)[len(of) // 2]:.1f} s"
            )
        cells.append(line)
    rates, values = [], {}
    for arm in ARMS:
        planted = [row for row in rows if row["arm"] == arm and not row["defect"].startswith("none")]
        clean = [row for row in rows if row["arm"] == arm and row["defect"].startswith("none")]
        caught, alarms = sum(row["found"] for row in planted), sum(row["found"] for row in clean)
        rates.append([arm, common.share(caught, len(planted)), common.share(alarms, len(clean))])
        values[arm] = (100 * caught / len(planted), *(100 * each for each in common.wilson(caught, len(planted))))
    return "\n\n".join([
        common.table(["defect", *ARMS], cells),
        common.table(["arm", "defects found", "false alarms"], rates),
        common.bars(figures / "defects.svg", "Planted defects found", values, "percent, with 95 % intervals"),
        "Detected defects, and median seconds until the command ended, with start-up and an empty cache. \"Before\" and a pipeline step run the same "
        "command. Training alone detects a defect if it ends with an error.",
    ])  # fmt: skip
