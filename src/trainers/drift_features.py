"""What a saved model makes of examples, for drift: predictions, confidence, and the features that its last layer takes.

The models and their forward passes are those of `predict`; hooks read the features on the way.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from config.errors import InputError
from trainers import classification, saved_model
from trainers.saved_model import SavedModel

BATCH = 32


class Features(NamedTuple):
    """Of N examples.

    Attributes:
        prediction: [N] ids of classes; of answers float64 [N], where they begin, 0 to 1 of the text, NaN for no answer.
        confidence: float64 [N], 0 to 1.
        features: float64 [N, D]: what the last layer takes; of texts the mean over their tokens.
    """

    prediction: npt.NDArray[Any]
    confidence: npt.NDArray[np.float64]
    features: npt.NDArray[np.float64]


def answer_features(model: SavedModel, pairs: Sequence[tuple[str, str]]) -> Features:
    """Features of question answering.

    Args:
        model: the saved one.
        pairs: N of (question, context).
    """
    from trainers import answer_scores, predict_answers

    reader = predict_answers.AnswerPredictor(model)
    places, confidence, features = [], [], []
    with _token_means(reader.network) as means:
        for pair in pairs:  # one by one: windows of one question belong together
            found = reader.answer([pair], BATCH)
            span, fields = answer_scores.answer_fields(found, 0, reader.no_answer)
            places.append(np.nan if span is None else span[0] / max(1, len(pair[1])))
            confidence.append(fields["probability"])
            features.append(np.concatenate(means).mean(axis=0))
            means.clear()
    return Features(np.array(places), np.array(confidence), np.stack(features))


def text_features(model: SavedModel, pairs: Sequence[tuple[str, str]]) -> Features:
    """Features of text classification.

    Args:
        model: the saved one.
        pairs: N of (text, second text or "").
    """
    from trainers import predict_texts

    classifier = predict_texts.TextPredictor(model)
    parts = []
    with _token_means(classifier.network) as means:
        for pair in pairs:  # one by one: a batch is sorted by length
            parts.append(classifier.logits([pair], 1))
    return _classified(classifier.names, parts, means)


def image_features(model: SavedModel, images: Sequence[str | bytes]) -> Features:
    """Features of image classification.

    Args:
        model: the saved one.
        images: N of them, encoded or where they are.
    """
    from datamodules.sources.files import read_bytes
    from trainers import predict_images

    classifier = predict_images.ImagePredictor(model)
    parts = []
    with _head_inputs(classifier.network) as features:
        for first in range(0, len(images), BATCH):
            contents = [
                read_bytes(image) if isinstance(image, str) else image for image in images[first : first + BATCH]
            ]
            parts.append(classifier.logits([classifier.prepare(content) for content in contents]))
    return _classified(classifier.names, parts, features)


def open_task_model(name: str, task: str) -> SavedModel:
    """A saved model of a task.

    Raises:
        InputError: it cannot be opened, or is of another task.
    """
    model = saved_model.open_model(name)
    if model.task != task:
        raise InputError(f"--model {name} is made for {model.task}, the data is of {task}")
    return model


def _classified(names: Sequence[str], logits: Sequence[Tensor], features: Sequence[npt.NDArray[Any]]) -> Features:
    best = classification.top_classes(torch.cat(list(logits)))
    classes = np.array(names)[best.indices[:, 0].cpu().numpy()]
    return Features(classes, best.values[:, 0].double().cpu().numpy(), np.concatenate(list(features)))


@contextmanager
def _token_means(network: Any) -> Iterator[list[npt.NDArray[np.float64]]]:
    """Collects, of each forward pass of a transformers network, the mean of its encoder's last layer over tokens [B, D]."""
    means: list[npt.NDArray[np.float64]] = []
    masks: list[Tensor] = []

    def keep_mask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        masks.append(kwargs["attention_mask"])

    def keep_means(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        weights = masks.pop().unsqueeze(2).double()
        means.append(((output[0].double() * weights).sum(1) / weights.sum(1)).cpu().numpy())

    handles = (
        network.register_forward_pre_hook(keep_mask, with_kwargs=True),
        network.base_model.register_forward_hook(keep_means),
    )
    try:
        yield means
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _head_inputs(network: Any) -> Iterator[list[npt.NDArray[np.float64]]]:
    """Collects, of each forward pass of a timm network, what its classifier takes [B, D]."""
    inputs: list[npt.NDArray[np.float64]] = []
    classifier = network.get_classifier()
    head = classifier[0] if isinstance(classifier, tuple | nn.ModuleList) else classifier

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        inputs.append(args[0].flatten(1).double().cpu().numpy())

    handle = head.register_forward_pre_hook(keep)
    try:
        yield inputs
    finally:
        handle.remove()
