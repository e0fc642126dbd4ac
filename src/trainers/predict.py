"""Answers questions and labels images with a saved model, batch by batch, as JSON lines."""

import inspect
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from config.errors import Refused
from trainers import saved
from trainers.saved import SavedModel

_CHUNK = 32  # batches' worth of questions that are windowed and sorted by length together
_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def predict(name: str, files: list[str], batch_size: int, stdin: TextIO, stdout: TextIO) -> None:
    """Writes a JSON line for each question or image.

    Args:
        name: a run's folder or a model folder.
        files: questions (JSON lines or SQuAD files) or images (files or folders); none reads standard input.
        batch_size: windows or images in a forward pass.
        stdin: JSON lines, or an image path a line.
        stdout: where results go.

    Raises:
        Refused: the model or an input cannot be read; the message names the file and the line.
    """
    model = saved.find(name)
    make = _answers if model.task == "question_answering" else _labels
    with torch.inference_mode():
        for row in make(model, files, batch_size, stdin):
            print(json.dumps(row, ensure_ascii=False), file=stdout, flush=True)


# -- questions -------------------------------------------------------------------------------------------------------


def _answers(model: SavedModel, files: list[str], batch_size: int, stdin: TextIO) -> Iterator[dict[str, Any]]:
    from transformers import AutoModelForQuestionAnswering

    from datamodules.storage import cache
    from datamodules.text import tokenizer
    from datamodules.text.windows import Encoder, Limits, Windows
    from trainers import answers
    from trainers.spans import Candidates, collect

    device = _device()
    network = (
        AutoModelForQuestionAnswering.from_pretrained(str(model.folder), attn_implementation="sdpa").to(device).eval()
    )
    known = inspect.signature(network.forward).parameters
    taken = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in known]
    prepared = tokenizer.prepare(
        cache.root(), pretrained=None, revision=None, tokenizer=str(model.folder), vocab_size=None
    )
    encoder = Encoder(prepared.folder / "tokenizer.json")
    longest = int(model.config.get("max_position_embeddings", 512))
    recorded = (model.record.get("config") or {}).get("data") or {}
    limits = Limits(
        min(longest, recorded.get("max_length", 384)), recorded.get("stride", 128), recorded.get("max_query_length", 64)
    )
    no_answer = (model.record.get("data") or {}).get("answerable_only") is False
    for chunk in _chunks(_questions(files, stdin), batch_size * _CHUNK):
        pairs = [(each["question"], each["context"]) for each in chunk]
        windows = Windows.of_records(encoder, pairs, limits, prepared.pad_id, prepared.uses_types)
        parts = []
        for chosen in _by_length(windows.lengths, batch_size):
            arrays = windows.batch(chosen.tolist())
            inputs = {name: torch.from_numpy(arrays[name]).to(device) for name in taken if name in arrays}
            output = network(**inputs)
            padding = inputs["attention_mask"] == 0
            start = output.start_logits.float().masked_fill(padding, -torch.inf)
            end = output.end_logits.float().masked_fill(padding, -torch.inf)
            k = min(20, start.shape[1])
            best = (*start.topk(k), *end.topk(k), start[:, 0] + end[:, 0])
            parts.append((chosen, Candidates(*(tensor.cpu().numpy() for tensor in best))))
        _, candidates = collect(parts)
        found = answers.find(windows, candidates, len(chunk), no_answer=no_answer)
        for i, each in enumerate(chunk):
            listed = found.n_best(i, each["context"])
            first = listed[0] if listed else {"text": "", "start": None, "end": None, "score": 0.0, "probability": 0.0}
            row = {
                "id": each["id"],
                "prediction": first["text"],
                **{k: first[k] for k in ("start", "end", "score", "probability")},
            }
            yield row | ({"no_answer_score": float(found.no_answer_score[i])} if no_answer else {})


def _by_length(lengths: Any, batch_size: int) -> Iterator[np.ndarray]:
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    for first in range(0, len(order), batch_size):
        yield order[first : first + batch_size]


def _questions(files: list[str], stdin: TextIO) -> Iterator[dict[str, str]]:
    if not files:
        yield from _lines(stdin, "standard input")
    for name in files:
        path = Path(name)
        if not path.is_file():
            raise Refused(f"{name}: no such file")
        if path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as stream:
                yield from _lines(stream, name)
            continue
        from datamodules.text import squad

        for question in squad.read([str(path)], True):
            yield {"id": question.id, "question": question.question, "context": question.context}


def _lines(stream: Iterable[str], name: str) -> Iterator[dict[str, str]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise Refused(f"{name}, line {number}: not JSON ({error})") from None
        if not isinstance(fields, dict) or not all(isinstance(fields.get(key), str) for key in ("question", "context")):
            raise Refused(f'{name}, line {number}: must be an object with the texts "question" and "context"')
        yield {"id": str(fields.get("id", number)), "question": fields["question"], "context": fields["context"]}


# -- images ----------------------------------------------------------------------------------------------------------


def _labels(model: SavedModel, files: list[str], batch_size: int, stdin: TextIO) -> Iterator[dict[str, Any]]:
    import timm
    from PIL import Image
    from timm.data import create_transform, resolve_data_config

    device = _device()
    network = timm.create_model(f"local-dir:{model.folder}", pretrained=True).to(device).eval()
    transform = create_transform(**resolve_data_config({}, model=network), is_training=False)
    names = model.config.get("label_names") or [str(i) for i in range(network.num_classes)]
    for chunk in _chunks(_images(files, stdin), batch_size):
        images = []
        for path in chunk:
            try:
                with Image.open(path) as image:
                    images.append(transform(image.convert("RGB")))
            except FileNotFoundError:
                raise Refused(f"{path}: no such file") from None
            except OSError as error:
                raise Refused(f"{path} cannot be read as an image ({error})") from error
        best = network(torch.stack(images).to(device)).float().softmax(1).topk(min(5, len(names)))
        for path, probabilities, classes in zip(chunk, best.values.tolist(), best.indices.tolist(), strict=True):
            yield {
                "id": str(path),
                "prediction": names[classes[0]],
                "probability": probabilities[0],
                "top5": [names[k] for k in classes],
                "probabilities": probabilities,
            }


def _images(files: list[str], stdin: TextIO) -> Iterator[Path]:
    for name in files or (line.strip() for line in stdin if line.strip()):
        path = Path(name)
        if path.is_dir():
            inside = sorted(each for each in path.rglob("*") if each.suffix.lower() in _IMAGES)
            if not inside:
                raise Refused(f"{name}: there are no images in this folder")
            yield from inside
        else:
            yield path


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
