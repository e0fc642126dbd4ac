"""Outputs of a saved model for drift: predictions, confidence, and the features that its last layer takes.

The models and their forward passes are those of `predict`; hooks read the features.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from config.errors import InputError
from trainers import classification, onnx_network, saved_model
from trainers.saved_model import SavedModel

_BATCH_SIZE = 32


class Features(NamedTuple):
    """Outputs for N examples.

    Attributes:
        prediction: [N] ids of classes; of answers float64 [N], the position of their beginning, 0 to 1 of the text, NaN
            for no answer.
        confidence: float64 [N], 0 to 1.
        features: float64 [N, D], inputs of the last layer; of texts their mean over tokens.
    """

    prediction: npt.NDArray[Any]
    confidence: npt.NDArray[np.float64]
    features: npt.NDArray[np.float64]


def open_task_model(name: str, task: str) -> SavedModel:
    """Open a saved model of a task.

    Raises:
        InputError: it cannot be opened, or is of another task.
    """
    model = saved_model.open_model(name)
    if model.task != task:
        raise InputError(f"--model {name} is a model of {model.task}, the data is of {task}")
    if onnx_network.is_onnx(model.folder):
        raise InputError(
            f"--model {name} is a model in ONNX, whose last layer cannot be read: give the model that it was exported from"
        )
    if model.is_network:
        raise InputError(
            f"--model {name} is a network of the user's own, whose last layer is unknown: features of transformers and timm "
            "models only can be compared; leave out --model to compare the data"
        )
    return model


def answer_features(model: SavedModel, pairs: Sequence[tuple[str, str]]) -> Features:
    """Compute features of question answering.

    Args:
        model: the saved model.
        pairs: (question, context), N of them.
    """
    from trainers import answer_scores, predict_answers

    predictor = predict_answers.AnswerPredictor(model)
    means = collect_token_means(predictor.network)
    positions, confidence, features = [], [], []
    for pair in pairs:  # one question at a time: its windows belong together
        answers = predictor.answer([pair], _BATCH_SIZE)
        fields = answer_scores.answer_fields(answers, 0, predictor.no_answer)
        positions.append(np.nan if fields["start"] is None else fields["start"] / max(1, len(pair[1])))
        confidence.append(fields["probability"])
        features.append(np.concatenate(means).mean(axis=0))
        means.clear()
    return Features(np.array(positions), np.array(confidence), np.stack(features))


def text_features(model: SavedModel, pairs: Sequence[tuple[str, str]]) -> Features:
    """Compute features of text classification.

    Args:
        model: the saved model.
        pairs: (text, second text or ""), N of them.
    """
    from trainers import predict_texts

    predictor = predict_texts.TextPredictor(model)
    means = collect_token_means(predictor.network)
    logits = [predictor.logits([pair], 1) for pair in pairs]  # one text at a time: batches are sorted by length
    return _class_features(predictor.names, logits, means)


def image_features(model: SavedModel, images: Sequence[str | bytes]) -> Features:
    """Compute features of image classification.

    Args:
        model: the saved model.
        images: encoded images or their paths, N of them.
    """
    from datamodules.sources.files import read_bytes
    from trainers import predict, predict_images

    predictor = predict_images.ImagePredictor(model)
    inputs = _collect_head_inputs(predictor.network)
    logits = []
    for chunk in predict.chunks(images, _BATCH_SIZE):
        contents = (read_bytes(image) if isinstance(image, str) else image for image in chunk)
        logits.append(predictor.logits([predictor.prepare(content) for content in contents]))
    return _class_features(predictor.names, logits, inputs)


def _class_features(names: Sequence[str], logits: list[Tensor], features: list[npt.NDArray[Any]]) -> Features:
    top = classification.top_classes(torch.cat(logits))
    classes = np.array(names)[top.indices[:, 0].cpu().numpy()]
    return Features(classes, top.values[:, 0].double().cpu().numpy(), np.concatenate(features))


def collect_token_means(network: Any) -> list[npt.NDArray[np.float64]]:
    """Return a list to which each forward pass of a transformers model appends [B, D], its last layer's token means."""
    means: list[npt.NDArray[np.float64]] = []
    masks: list[Tensor] = []

    def store_means(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        weights = masks.pop().unsqueeze(2).double()
        means.append(((output[0].double() * weights).sum(1) / weights.sum(1)).cpu().numpy())

    def store_mask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mask = kwargs.get("attention_mask")
        masks.append(kwargs["input_ids"].ne(network.config.pad_token_id) if mask is None else mask)  # FNet has no mask

    network.register_forward_pre_hook(store_mask, with_kwargs=True)
    body = network.base_model
    if body is network:  # T5's question answering holds an encoder and a decoder, without a model around them
        body = network.get_decoder()
    body.register_forward_hook(store_means)
    return means


def _collect_head_inputs(network: Any) -> list[npt.NDArray[np.float64]]:
    """Return a list to which each forward pass of a timm model appends [B, D], the inputs of its classifier."""
    inputs: list[npt.NDArray[np.float64]] = []
    classifier = network.get_classifier()
    head = classifier[0] if isinstance(classifier, tuple | nn.ModuleList) else classifier
    head.register_forward_pre_hook(lambda _, args: inputs.append(args[0].flatten(1).double().cpu().numpy()))
    return inputs
