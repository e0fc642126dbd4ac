"""`python -m trainers predict` of question answering: answers to questions about texts."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import numpy as np
import torch

from datamodules.storage import cache
from datamodules.text import squad, tokenizer
from datamodules.text.windows import Limits, PairEncoder, Windows
from trainers import answer_scores, encoders, predict
from trainers.inference import span_logits, top_candidates
from trainers.saved_model import SavedModel
from trainers.spans import Answers, merge_candidates

logger = logging.getLogger(__name__)

CHUNK = 32  # batches' worth of questions that are windowed and sorted by length together


class AnswerPredictor:
    """A saved model that answers questions, as its validation does."""

    def __init__(self, model: SavedModel, threshold: float | None = None) -> None:
        """Loads the model.

        Args:
            model: the saved one.
            threshold: "no answer" it is where the no-answer score is above this; None: as the model's run measured.
        """
        self.model = model
        self.device = predict.default_device()
        self.network = predict.prepare_network(encoders.load_encoder(encoders.SPAN_HEAD, model.folder), self.device)
        self.tokenizer = tokenizer.prepare(
            cache.root(), pretrained=None, revision=None, tokenizer=str(model.folder), vocab_size=None
        )
        self.encoder = PairEncoder(self.tokenizer.folder / "tokenizer.json")
        data, decoding = model.settings["data"], model.settings["model"]
        # Relative positions have no end, and no number in config.json.
        longest = int(model.config.get("max_position_embeddings") or data["max_length"])
        self.limits = Limits(min(longest, data["max_length"]), data["stride"], data["max_query_length"])
        self.n_best, self.max_answer_tokens = int(decoding["n_best"]), int(decoding["max_answer_tokens"])
        version_2 = data["version_2"]
        self.no_answer = bool(version_2) if version_2 is not None else not model.measured["answerable_only"]
        self.threshold = model.measured["no_answer_threshold"] if threshold is None else threshold

    def answer(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> Answers:
        """Answers (question, context) pairs.

        Args:
            pairs: N of them.
            batch_size: windows in a forward pass.
        """
        ours = self.tokenizer
        windows = Windows.of_records(self.encoder, pairs, self.limits, ours.pad_id, ours.uses_types)
        order = np.argsort(-np.asarray(windows.lengths, np.int64), kind="stable")
        parts = []
        with torch.inference_mode(), predict.autocast(self.model, self.device):
            for first in range(0, len(order), batch_size):
                chosen = order[first : first + batch_size]
                arrays = windows.batch(chosen.tolist())
                batch = {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}
                parts.append((chosen, top_candidates(*span_logits(self.network, batch), self.n_best)))
        _, best = merge_candidates(parts)
        return answer_scores.find_answers(
            windows, best, len(pairs), n_best=self.n_best, max_answer_tokens=self.max_answer_tokens,
            no_answer=self.no_answer, threshold=self.threshold,
        )  # fmt: skip


def predict_answers(
    model: SavedModel, files: Sequence[str], stdin: TextIO, batch_size: int, no_answer_threshold: float | None = None
) -> Iterator[dict[str, Any]]:
    """A row for each question: id, prediction, start, end, score, probability, no_answer_score.

    Args:
        model: the saved one.
        files: JSON lines {"id", "question", "context"}, or SQuAD files; none reads JSON lines from standard input.
        stdin: standard input.
        batch_size: windows in a forward pass.
        no_answer_threshold: see `Reader`.
    """
    reader = AnswerPredictor(model, no_answer_threshold)
    if reader.no_answer:
        source = "measured by the run" if no_answer_threshold is None else "given"
        logger.warning('"no answer" where its score is above %.4f (%s)', reader.threshold, source)
    for chunk in predict.chunks(questions(files, stdin), batch_size * CHUNK):
        found = reader.answer([(row["question"], row["context"]) for row in chunk], batch_size)
        for number, row in enumerate(chunk):
            span, fields = answer_scores.answer_fields(found, number, reader.no_answer)
            text = "" if span is None else row["context"][slice(*span)]
            yield {"id": row["id"], "prediction": text, **fields}


def questions(files: Sequence[str], stdin: TextIO) -> Iterator[dict[str, str]]:
    """The questions of some files, or of standard input: id, question, context.

    Raises:
        InputError: a file that cannot be read as questions; the message names the line.
    """
    keys = ("question", "context")
    if not files:
        yield from predict.read_json_lines(stdin, "standard input", keys)
    for name in files:
        path = predict.input_path(name)
        if path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as stream:
                yield from predict.read_json_lines(stream, name, keys)
            continue
        for question in squad.read([str(path)], True):
            yield {"id": question.id, "question": question.question, "context": question.context}
