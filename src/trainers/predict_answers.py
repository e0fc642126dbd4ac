"""Prediction for question answering: answers to questions about texts."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

import torch

from datamodules.text import columns as column_names
from datamodules.text import coverage, squad
from datamodules.text.question_rows import Columns
from datamodules.text.windows import Limits, PairEncoder, Windows
from trainers import answer_scores, encoders, positions, predict
from trainers.evaluate import load_network
from trainers.inference import check_token_types, span_logits, top_candidates
from trainers.saved_model import SavedModel
from trainers.spans import Answers, best_spans, merge_candidates

logger = logging.getLogger(__name__)


class AnswerPredictor:
    """A saved question-answering model with its weights; it answers as validation does.

    Attributes:
        network: of transformers, or one of the user's own.
        required: keys of the rows of `predict` besides id that may not be missing.
        columns: names of the columns of its inputs, by key of the rows of `predict`.
        no_answer: whether questions may have no answer.
        threshold: no-answer score above which a question has no answer.
        tokens: number of tokens of all questions and contexts until now.
        unknown_tokens: number of unknown ones.
    """

    required = ("question", "context")

    def __init__(self, model: SavedModel, threshold: float | None = None) -> None:
        """Load the model.

        Args:
            model: the saved model.
            threshold: no-answer score above which a question has no answer; None for the one measured by the run.
        """
        self.model = model
        self.device = predict.default_device()
        if model.is_network:
            network = load_network(model)
        else:
            network = encoders.load_encoder(encoders.SPAN_HEAD, model.folder, model.trust_remote_code)
        self.network = predict.prepare_network(network, self.device, model.precision)
        self.tokenizer = encoders.load_tokenizer(model.folder)
        check_token_types(self.network, self.tokenizer.type_count)
        self.tokens = self.unknown_tokens = 0
        self.encoder = PairEncoder(self.tokenizer.folder / "tokenizer.json")
        data, decoding = model.settings["data"], model.settings["model"]
        names = column_names.parse(Columns, data["columns"])
        self.columns = {"question": names.question, "context": names.context}
        limits = Limits(data["max_length"], data["stride"], data["max_query_length"])
        self.limits = positions.fit_limits(limits, positions.longest_input(self.network), self.encoder.special)
        if self.limits != limits:
            logger.warning("windows are reduced to the positions of the model: %s", self.limits)
        self.n_best, self.max_answer_tokens = int(decoding["n_best"]), int(decoding["max_answer_tokens"])
        version_2 = data["version_2"]
        self.no_answer = bool(version_2) if version_2 is not None else not model.measurements["answerable_only"]
        self.threshold = model.measurements["no_answer_threshold"] if threshold is None else threshold

    def answer(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> Answers:
        """Answer questions.

        Args:
            pairs: (question, context), N of them.
            batch_size: windows in a forward pass.
        """
        tokenizer = self.tokenizer
        windows = Windows.of_records(self.encoder, pairs, self.limits, tokenizer.pad_id, tokenizer.uses_types)
        self.tokens += len(windows.tokens) - self.encoder.special * len(windows)
        self.unknown_tokens += coverage.count_unknown(windows, tokenizer.unknown_id)
        with torch.inference_mode(), predict.autocast(self.model, self.device):
            parts = [
                (indices, top_candidates(*span_logits(self.network, batch), self.n_best))
                for indices, batch in predict.length_batches(windows, batch_size, self.device)
            ]
        _, candidates = merge_candidates(parts)
        return best_spans(
            windows,
            candidates,
            len(pairs),
            n_best=self.n_best,
            max_answer_tokens=self.max_answer_tokens,
            no_answer=self.no_answer,
            threshold=self.threshold,
        )

    def predict(self, rows: Sequence[Mapping[str, Any]], batch_size: int) -> list[dict[str, Any]]:
        """Return a row for each question, as `predict_answers`.

        Args:
            rows: id, question, context.
            batch_size: windows in a forward pass.
        """
        answers = self.answer([(row["question"], row["context"]) for row in rows], batch_size)
        predictions = []
        for index, row in enumerate(rows):
            fields = answer_scores.answer_fields(answers, index, self.no_answer)
            text = answer_scores.answer_text(row["context"], fields)
            predictions.append({"id": row["id"], "prediction": text, **fields})
        return predictions


def predict_answers(
    model: SavedModel,
    files: Sequence[str],
    stdin: TextIO,
    batch_size: int,
    no_answer_threshold: float | None = None,
    offset: int = 0,
) -> Iterator[dict[str, Any]]:
    """Yield a row for each question: id, prediction, start, end, score, probability, no_answer_score.

    Args:
        model: the saved model.
        files: JSON lines {"id", "question", "context"}, tables with the columns of training, or SQuAD files; answers are
            not read. Empty to read JSON lines from standard input.
        stdin: standard input.
        batch_size: windows in a forward pass.
        no_answer_threshold: see `AnswerPredictor`.
        offset: number of the first inputs whose predictions are there: their rows may have nothing but the id.
    """
    predictor = AnswerPredictor(model, no_answer_threshold)
    if predictor.no_answer:
        source = "measured by the run" if no_answer_threshold is None else "set by --no-answer-threshold"
        logger.warning("questions have no answer above a no-answer score of %.4f (%s)", predictor.threshold, source)
    questions = read_questions(model, files, stdin)
    for chunk, is_new in predict.chunks_after(questions, batch_size * predict.CHUNK_BATCHES, offset):
        if not is_new:
            yield from ({"id": row["id"]} for row in chunk)
            continue
        yield from predictor.predict(chunk, batch_size)
    coverage.warn_unknown(predictor.unknown_tokens, predictor.tokens)


def read_questions(model: SavedModel, files: Sequence[str], stdin: TextIO) -> Iterator[dict[str, str]]:
    """Yield the questions of files, or of standard input: id, question, context.

    Raises:
        InputError: a file cannot be read as questions; the message names the line.
    """
    columns = column_names.parse(Columns, model.settings["data"]["columns"])
    if not files:
        for fields in predict.read_json_lines(stdin, "standard input", (columns.question, columns.context)):
            yield {"id": fields["id"], "question": fields[columns.question], "context": fields[columns.context]}
    paths = [str(predict.input_path(name)) for name in files]
    for question in squad.read(paths, True, columns, answered=False):
        yield {"id": question.id, "question": question.question, "context": question.context}
