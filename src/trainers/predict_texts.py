"""Prediction for text classification: labels of texts."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

import torch

from config.errors import InputError
from datamodules.text import columns as column_names
from datamodules.text import coverage, records
from datamodules.text.encoding import EncodedTexts, TextEncoder
from trainers import classification, encoders, positions, predict
from trainers.evaluate import load_network
from trainers.inference import check_token_types, text_logits
from trainers.saved_model import SavedModel

logger = logging.getLogger(__name__)


class TextPredictor:
    """A saved text classifier with its weights; it classifies as validation does.

    Attributes:
        network: of transformers, or one of the user's own.
        required: keys of the rows of `predict` besides id that may not be missing.
        columns: names of the columns of its inputs, by key of the rows of `predict`.
        names: [C] ids of the classes.
        special: number of special tokens of a text.
        tokens: number of tokens of all texts until now, without special ones.
        unknown_tokens: number of unknown ones.
    """

    required = ("text",)

    def __init__(self, model: SavedModel) -> None:
        """Load the model."""
        self.model = model
        self.device = predict.default_device()
        if model.is_network:
            network = load_network(model)
        else:
            network = encoders.load_encoder(encoders.CLASS_HEAD, model.folder, model.trust_remote_code)
        self.network = predict.prepare_network(network, self.device, model.precision)
        self.tokenizer = encoders.load_tokenizer(model.folder)
        check_token_types(self.network, self.tokenizer.type_count)
        self.tokens = self.unknown_tokens = 0
        max_length = int(model.settings["data"]["max_length"])
        self.max_length = min(max_length, positions.longest_input(self.network) or max_length)
        self.special = TextEncoder(self.tokenizer, self.max_length).special
        if self.max_length < max_length:
            logger.warning("texts are truncated to the positions of the model: %d tokens", self.max_length)
        self.names: list[str] = _class_names(model, self.network)
        columns = column_names.parse(records.Columns, model.settings["data"]["columns"])
        self.columns = {"text": columns.text} | ({"pair": columns.text_pair} if columns.text_pair else {})

    def logits(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> torch.Tensor:
        """Return logits, float32 [N, C], of texts and their second texts ("" for none)."""
        texts = EncodedTexts.of_records(self.tokenizer, pairs, self.max_length)
        special = sum(self.special.pair if pair else self.special.single for _, pair in pairs)
        self.tokens += len(texts.tokens) - special
        self.unknown_tokens += coverage.count_unknown(texts, self.tokenizer.unknown_id)
        logits = torch.empty(len(pairs), len(self.names))
        with torch.inference_mode(), predict.autocast(self.model, self.device):
            for indices, batch in predict.length_batches(texts, batch_size, self.device):
                logits[torch.from_numpy(indices)] = text_logits(self.network, batch).cpu()
        return logits

    def predict(self, rows: Sequence[Mapping[str, Any]], batch_size: int) -> list[dict[str, Any]]:
        """Return a row for each text, as `predict_texts`.

        Args:
            rows: id, text, and pair, the second text, "" or missing for none.
            batch_size: texts in a forward pass.
        """
        pairs = [(row["text"], row.get("pair") or "") for row in rows]
        top = classification.top_classes(self.logits(pairs, batch_size))
        return [
            {"id": row["id"], **classification.prediction_fields(probabilities, classes, self.names, "top")}
            for row, probabilities, classes in zip(rows, top.values.tolist(), top.indices.tolist(), strict=True)
        ]


def _class_names(model: SavedModel, network: Any) -> list[str]:
    if model.is_network:
        names: list[str] = model.module.labels(model.config)
        return names
    return [network.config.id2label[number] for number in range(network.config.num_labels)]


def predict_texts(
    model: SavedModel, files: Sequence[str], stdin: TextIO, batch_size: int, offset: int = 0
) -> Iterator[dict[str, Any]]:
    """Yield a row for each text: id, prediction, probability, top.

    Args:
        model: the saved model.
        files: JSON Lines, CSV or Parquet files with the columns of training; empty to read JSON lines from standard
            input.
        stdin: standard input.
        batch_size: texts in a forward pass.
        offset: number of the first inputs whose predictions are there: their rows may have nothing but the id.
    """
    predictor = TextPredictor(model)
    texts = read_texts(model, files, stdin)
    for chunk, is_new in predict.chunks_after(texts, batch_size * predict.CHUNK_BATCHES, offset):
        if not is_new:
            yield from ({"id": row["id"]} for row in chunk)
            continue
        yield from predictor.predict(chunk, batch_size)
    coverage.warn_unknown(predictor.unknown_tokens, predictor.tokens)


def read_texts(model: SavedModel, files: Sequence[str], stdin: TextIO) -> Iterator[dict[str, str]]:
    """Yield the texts of files, or of standard input: id, text, pair.

    Raises:
        InputError: a file cannot be read as texts, or a row has no text; the message names the row.
    """
    columns = column_names.parse(records.Columns, model.settings["data"]["columns"])
    if not files:
        for fields in predict.read_json_lines(stdin, "standard input", (columns.text,)):
            pair = fields.get(columns.text_pair) if columns.text_pair else None
            yield {"id": fields["id"], "text": fields[columns.text], "pair": str(pair or "")}
    for name in files:
        path = str(predict.input_path(name))
        for record in records.read([path], columns, labelled=False):
            if record.text is None:
                raise InputError(f"{record.location}: {record.problem}")
            yield {"id": record.id, "text": record.text, "pair": record.pair}
