"""What all methods of a workload share: data, tokenised for the Trainer, and random weights."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

from benchmarks.gpu.workloads import ENCODERS, Workload
from benchmarks.recipe import features

QUESTIONS, PARAGRAPHS = 6000, 12  # questions that are read; paragraphs that are joined for full windows
COPIES = 4  # of each small image, under another name, so that an epoch is not over in a moment
SEED = 0


def prepare(workload: Workload, folder: Path, data: Path | None, images: Path | None) -> None:
    """Write the data and the weights of a workload, unless an earlier workload has.

    Args:
        workload: what is trained.
        folder: of the benchmark's files.
        data: folder with squad/ and bert-base-uncased-vocab.txt; None: generated questions.
        images: an unpacked tiny-imagenet-200; None: generated images.
    """
    if workload.kind == "images":
        _prepare_images(workload, folder, images)
        return
    if not tokenizer_folder(folder).exists():
        _write_texts(folder, data)
    if not weights(workload, folder).exists():
        _write_encoder(workload, folder)
    _write_features(workload, folder)


def texts(workload: Workload, folder: Path) -> tuple[Path, Path]:
    """Files of the training and the validation split of a workload of questions or texts."""
    if workload.kind == "texts":
        return folder / "texts" / "train.jsonl", folder / "texts" / "val.jsonl"
    name = "full" if workload.full else "questions"
    return folder / name / "train.json", folder / name / "val.json"


def tokenizer_folder(folder: Path) -> Path:
    """Folder of the tokenizer."""
    return folder / "tokenizer"


def weights(workload: Workload, folder: Path) -> Path:
    """A transformers folder, or a state of a timm model."""
    if workload.kind == "images":
        return folder / f"{workload.network}-{workload.size}.pt"
    return folder / f"{workload.network}-{workload.kind}"


def image_folder(workload: Workload, folder: Path, images: Path | None) -> Path:
    """Folder with train/ and val/ of class folders."""
    if images is not None and workload.size <= 64:
        return folder / "images-copies"
    return images or folder / "images"


def classes(root: Path) -> int:
    """Number of classes of an image folder."""
    return sum(each.is_dir() for each in (root / "train").iterdir())


def load_features(workload: Workload, folder: Path, padded: bool) -> list[dict[str, Any]]:
    """Examples for the Trainer: lists by input name."""
    loaded: list[dict[str, Any]] = json.loads(_features_file(workload, folder, padded).read_text("utf-8"))
    return loaded


def _features_file(workload: Workload, folder: Path, padded: bool) -> Path:
    return folder / f"{workload.kind}-{workload.size}{'-full' * workload.full}{'-padded' * padded}.json"


def _write_texts(folder: Path, data: Path | None) -> None:
    """Questions, questions of joined paragraphs, and paragraphs to classify by article; and the tokenizer."""
    from config.compose import compose
    from datamodules.text import squad
    from trainers.build import build

    # Of the official files the larger one is for validation.
    given = [
        "data=squad",
        f"data.train_file={data / 'squad' / 'dev-v1.1.json'}",
        f"data.val_file={data / 'squad' / 'train-v1.1-subset.json'}",
        f"model.tokenizer={data / 'bert-base-uncased-vocab.txt'}",
    ] if data else ["data=squad_sample", "data.sample.train=400", "data.sample.val=20"]  # fmt: skip
    module = build(compose(["model=minilm", "model.pretrained=null", *given]), "data")
    questions = list(squad.read(module.files("train")))
    (folder / "questions").mkdir()
    (folder / "full").mkdir()
    (folder / "texts").mkdir()
    joined = _join(questions)
    for name, rows in (("questions", questions), ("full", joined)):
        rows = [_row(number, question) for number, question in enumerate(rows)]
        random.Random(SEED).shuffle(rows)
        for split, part in (("train", rows[20 : 20 + QUESTIONS]), ("val", rows[:20])):
            (folder / name / f"{split}.json").write_text(json.dumps({"data": part}), encoding="utf-8")
    paragraphs = sorted({(question.context, question.title or question.context.split()[0]) for question in questions})
    random.Random(SEED).shuffle(paragraphs)
    known = {title for _, title in paragraphs[20:]}
    for split, part in (("train", paragraphs[20:]), ("val", [each for each in paragraphs[:20] if each[1] in known])):
        lines = (json.dumps({"text": text, "label": label}) for text, label in part)
        (folder / "texts" / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    module.tokenizer().save_pretrained(tokenizer_folder(folder))


def _join(questions: list[Any]) -> list[dict[str, Any]]:
    """One question for each few paragraphs, over their joined text, whose windows are full but for the last."""
    contexts: dict[str, Any] = {}
    for question in questions:
        contexts.setdefault(question.context, question)
    rows = []
    distinct = list(contexts.values())
    for first in range(0, len(distinct), PARAGRAPHS):
        part = distinct[first : first + PARAGRAPHS]
        question, context = part[0], " ".join(each.context for each in part)
        rows.append(
            {"title": question.title, "context": context, "question": question.question, "answers": question.answers}
        )
    return rows


def _row(number: int, question: Any) -> dict[str, Any]:
    """A row of a flat JSON file in SQuAD's format."""
    values = question if isinstance(question, dict) else {
        name: getattr(question, name) for name in ("title", "context", "question", "answers")
    }  # fmt: skip
    answers = {
        "text": [text for text, _ in values["answers"]],
        "answer_start": [start for _, start in values["answers"]],
    }
    return {**values, "id": str(number), "answers": answers}


def _write_encoder(workload: Workload, folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForQuestionAnswering, BertForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(folder))
    config = BertConfig(vocab_size=max(len(tokenizer), 1000), **ENCODERS[workload.network])
    if workload.kind == "texts":
        lines = texts(workload, folder)[0].read_text("utf-8").splitlines()
        names = sorted({json.loads(line)["label"] for line in lines})
        config.id2label, config.label2id = dict(enumerate(names)), {name: k for k, name in enumerate(names)}
    torch.manual_seed(SEED)
    network = (BertForSequenceClassification if workload.kind == "texts" else BertForQuestionAnswering)(config)
    network.save_pretrained(weights(workload, folder))
    tokenizer.save_pretrained(weights(workload, folder))


def _write_features(workload: Workload, folder: Path) -> None:
    """Tokenise for the Trainer, as its recipes do before training."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(folder))
    content = texts(workload, folder)[0].read_text("utf-8")
    for padded in (False, True):
        if _features_file(workload, folder, padded).exists():
            continue
        if workload.kind == "texts":
            rows = [json.loads(line) for line in content.splitlines()]
            names = sorted({row["label"] for row in rows})
            padding = {"padding": "max_length" if padded else False}
            limits = {"truncation": True, "max_length": workload.size, **padding}
            columns = dict(tokenizer([row["text"] for row in rows], **limits))
            columns["labels"] = [names.index(row["label"]) for row in rows]
        else:
            rows = json.loads(content)["data"]
            by_name = {name: [row[name] for row in rows] for name in ("question", "context", "answers")}
            columns = features(by_name, tokenizer, padded, workload.size, workload.size // 3)
        made = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        _features_file(workload, folder, padded).write_text(json.dumps(made), encoding="utf-8")


def _prepare_images(workload: Workload, folder: Path, images: Path | None) -> None:
    import torch
    from timm import create_model

    from datamodules.samples import shapes

    root = image_folder(workload, folder, images)
    if not root.exists() and images is None:
        root.mkdir()
        shapes.write(root, seed=SEED, train=200, val=20, classes=4)
    elif not root.exists():
        _link_copies(images, root)  # type: ignore[arg-type]
    if not weights(workload, folder).exists():
        torch.manual_seed(SEED)
        network = create_model(workload.network, num_classes=classes(root), **network_arguments(workload))
        torch.save(network.state_dict(), weights(workload, folder))


def network_arguments(workload: Workload) -> dict[str, Any]:
    """Arguments of timm.create_model besides the number of classes."""
    return {"img_size": workload.size} if workload.network.startswith("vit") else {}


def _link_copies(images: Path, root: Path) -> None:
    """The images of a Tiny ImageNet, its training images several times."""
    for file in sorted(images.rglob("*")):
        target = root / file.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".JPEG" and "train" in target.parts:
            for copy in range(COPIES):
                os.link(file, target.with_name(f"{file.stem}{copy}{file.suffix}"))
        elif file.is_file():
            os.link(file, target)
