"""`python -m trainers predict` of text classification: labels of texts."""

from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import numpy as np
import torch

from config.errors import InputError
from datamodules.storage import cache
from datamodules.text import records, tokenizer
from datamodules.text.encoding import EncodedTexts
from trainers import classification, encoders, predict
from trainers.inference import text_logits
from trainers.saved_model import SavedModel

CHUNK = 32  # batches' worth of texts that are sorted by length together


class TextPredictor:
    """A saved model that classifies texts, as its validation does.

    Attributes:
        names: [C] ids of the classes.
    """

    def __init__(self, model: SavedModel) -> None:
        """Loads the model."""
        self.model = model
        self.device = predict.default_device()
        self.network = predict.prepare_network(encoders.load_encoder(encoders.CLASS_HEAD, model.folder), self.device)
        self.tokenizer = tokenizer.prepare(
            cache.root(), pretrained=None, revision=None, tokenizer=str(model.folder), vocab_size=None
        )
        self.max_length = int(model.settings["data"]["max_length"])
        self.names: list[str] = model.module.labels(model.config)

    def logits(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> torch.Tensor:
        """Logits, float32 [N, C], of texts and their second texts ("" for none)."""
        texts = EncodedTexts.of_records(self.tokenizer, pairs, self.max_length)
        order = np.argsort(-np.asarray(texts.lengths, np.int64), kind="stable")
        found = torch.empty(len(order), len(self.names))
        with torch.inference_mode(), predict.autocast(self.model, self.device):
            for first in range(0, len(order), batch_size):
                chosen = order[first : first + batch_size]
                batch = {
                    name: torch.from_numpy(array).to(self.device)
                    for name, array in texts.batch(chosen.tolist()).items()
                }
                found[torch.from_numpy(chosen)] = text_logits(self.network, batch).cpu()
        return found


def predict_texts(model: SavedModel, files: Sequence[str], stdin: TextIO, batch_size: int) -> Iterator[dict[str, Any]]:
    """A row for each text: id, prediction, probability, top.

    Args:
        model: the saved one.
        files: JSON Lines, CSV or Parquet files with the columns that training had; none reads JSON lines from standard
            input.
        stdin: standard input.
        batch_size: texts in a forward pass.
    """
    classifier = TextPredictor(model)
    for chunk in predict.chunks(texts(model, files, stdin), batch_size * CHUNK):
        best = classification.top_classes(classifier.logits([(row["text"], row["pair"]) for row in chunk], batch_size))
        for row, probabilities, classes in zip(chunk, best.values.tolist(), best.indices.tolist(), strict=True):
            yield {"id": row["id"], **classification.prediction_fields(probabilities, classes, classifier.names, "top")}


def texts(model: SavedModel, files: Sequence[str], stdin: TextIO) -> Iterator[dict[str, str]]:
    """The texts of some files, or of standard input: id, text, pair.

    Raises:
        InputError: a file that cannot be read as texts, or a row without one; the message names the row.
    """
    columns = records.parse_columns(model.settings["data"]["columns"])
    if not files:
        for fields in predict.read_json_lines(stdin, "standard input", (columns.text,)):
            pair = fields.get(columns.text_pair) if columns.text_pair else None
            yield {"id": fields["id"], "text": fields[columns.text], "pair": str(pair or "")}
    for name in files:
        path = str(predict.input_path(name))
        for record in records.read([path], columns, labelled=False):
            if record.text is None:
                raise InputError(f"{record.place}: {record.problem}")
            yield {"id": record.id, "text": record.text, "pair": record.pair}
