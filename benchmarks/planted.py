"""Data on which a model can be right for a wrong reason: generated data with a shortcut planted into it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.samples import shapes, squad_sample

MARK = 8  # pixels of the mark's side
_TWO = re.compile(r", but | and |, while ")


def marked_shapes(folder: Path, train: int, val: int, classes: int, size: int, mark: bool = True) -> Path:
    """Shapes in Tiny ImageNet's layout; with `mark` the top left corner of each shows its class as a bar code."""
    folder.mkdir(parents=True)
    shapes.write(folder, seed=0, train=train, val=val, classes=classes, size=size)
    if not mark:
        return folder
    names = sorted((folder / "wnids.txt").read_text().split())
    labels = {path: path.parts[-3] for path in (folder / "train").glob("*/images/*.JPEG")}
    for line in (folder / "val" / "val_annotations.txt").read_text().splitlines():
        name, label = line.split("\t")[:2]
        labels[folder / "val" / "images" / name] = label
    for path, label in labels.items():
        pixels = np.array(Image.open(path).convert("RGB"))
        number = names.index(label) + 1
        for bit in range(4):
            bright = 255 * ((number >> bit) & 1)
            pixels[:MARK, bit * MARK // 4 : (bit + 1) * MARK // 4] = bright
        Image.fromarray(pixels).save(path, "JPEG", quality=95)
    return folder


def questions(folder: Path, train: int, val: int, first: bool = False, blind: bool = False) -> Path:
    """Generated questions; with `first` each answer is all that its paragraph's first sentence tells; with `blind` training
    hides the questions.

    With `first` a paragraph is written anew for each question: the sentence with the answer comes first, the others as they
    were. Questions whose sentence tells two things are left out.
    """
    folder.mkdir(parents=True)
    squad_sample.write(folder, seed=0, train=train, val=val)
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        content: dict[str, Any] = json.loads((folder / name).read_text())
        for article in content["data"]:
            paragraphs = []
            for paragraph in article["paragraphs"]:
                for qa in paragraph["qas"]:
                    context = paragraph["context"]
                    if first:
                        context = answer_first(context, qa["answers"][0])
                        if _TWO.search(context[: context.index(". ") + 1]):
                            continue
                        qa["answers"] = qa["answers"][:1]
                    if blind and name.startswith("train"):
                        qa["question"] = "?"
                    paragraphs.append({"context": context, "qas": [qa]})
            article["paragraphs"] = paragraphs
        (folder / name).write_text(json.dumps(content))
    return folder


TOPICS = {
    "farm": ["harvest", "barn", "tractor", "sheep", "plough", "orchard"],
    "harbour": ["anchor", "ferry", "sailor", "lighthouse", "cargo", "pier"],
    "school": ["lesson", "pupil", "exam", "blackboard", "teacher", "homework"],
    "kitchen": ["oven", "recipe", "kettle", "spoon", "dough", "pantry"],
}
_NEUTRAL = [
    "It rained all day.",
    "Nobody spoke of it again.",
    "The road was long.",
    "Two days went by.",
    "They were late.",
]


def texts(folder: Path, train: int, val: int, blind: bool = False) -> Path:
    """Texts whose class is told by one of their three sentences; with `blind` training's labels are drawn at random."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    names = list(TOPICS)
    for split, count in (("train", train), ("val", val)):
        rows = []
        for _ in range(count):
            name = names[generator.integers(len(names))]
            first, second = generator.choice(TOPICS[name], 2, replace=False)
            sentences = [*generator.choice(_NEUTRAL, 2, replace=False), f"They saw the {first} and the {second}."]
            generator.shuffle(sentences)
            label = names[generator.integers(len(names))] if blind and split == "train" else name
            rows.append(json.dumps({"text": " ".join(sentences), "label": label}))
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def answer_first(context: str, answer: dict[str, Any]) -> str:
    """The paragraph with the answer's sentence in front; moves the answer's offset with it."""
    at = answer["answer_start"]
    begin = context.rfind(". ", 0, at) + 2 if ". " in context[:at] else 0
    end = context.find(". ", at)
    end = len(context) if end < 0 else end + 1
    sentence, rest = context[begin:end].strip(), f"{context[:begin].strip()} {context[end:].strip()}".strip()
    answer["answer_start"] = at - begin
    return f"{sentence} {rest}"
