"""Explanations of chunks of examples, cached: a rerun is fast, and a killed run resumes."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.storage import cache
from explain import measures
from explain.model import Subject
from explain.sample import Chunk
from trainers import hardware

logger = logging.getLogger(__name__)

FILE = "values.npz"
MIN_CORRELATION = 0.98  # rank correlation of bfloat16 and float32 values from which bfloat16 is used
NULL_EXAMPLES = 64  # examples that are explained with random weights too: enough for the mean of the null

Explanations = list[dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """The explanation of a sample.

    Attributes:
        subject: the model, its data and its explainer.
        null: the same architecture with random weights.
        ids: of the whole evaluation set.
        sample: positions of the examples, ascending.
        order: the same positions, in the order in which they are explained.
        settings: of the explainer, as configured.
        words: number of examples whose words are explained.
    """

    subject: Subject
    null: Any
    ids: Sequence[str]
    sample: Sequence[int]
    order: Sequence[int]
    settings: Any
    words: int = 0

    @property
    def chunks(self) -> list[list[int]]:
        """The positions of each chunk of the sample."""
        size = self.subject.explainer.CHUNK
        return [list(self.order[start : start + size]) for start in range(0, len(self.order), size)]


def choose_precision(job: Job, progress: Callable[[], None]) -> Any:
    """Return the settings with bfloat16 if training would use it and it explains the first chunk as float32 does."""
    accelerator = "cpu" if job.subject.device.type == "cpu" else "auto"
    if hardware.resolve_precision("auto", accelerator) != "bf16-mixed":
        return job.settings
    bfloat16 = replace(job.settings, bfloat16=True)
    first = job.chunks[0]
    exact = _explain_chunk(job, job.settings, first, progress)
    rounded = _explain_chunk(job, bfloat16, first, lambda: None)
    correlation = float(
        np.mean([measures.rank_correlation(a["values"], b["values"]) for a, b in zip(exact, rounded, strict=True)])
    )
    if correlation >= MIN_CORRELATION:
        return bfloat16
    logger.info("the values in bfloat16 and float32 have a rank correlation of only %.3f: using float32", correlation)
    return job.settings


def explain_chunks(
    job: Job, settings: Any, progress: Callable[[], None], done: Callable[[int], None]
) -> Iterator[dict[str, Any]]:
    """Yield the explanations of the sample in the order of the job.

    Args:
        job: the sample.
        settings: of the explainer.
        progress: called after each example.
        done: called after each chunk with the number of examples so far.
    """
    count = 0
    for positions in job.chunks:
        yield from _explain_chunk(job, settings, positions, progress)
        done(count := count + len(positions))


def settings_record(settings: Any) -> dict[str, Any]:
    """Return settings for a cache key and for verdict.json.

    Fields with their default are left out, so that a new setting whose default is the old behaviour keeps cache entries valid.
    """
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {field.name: values[field.name] for field in fields(settings) if values[field.name] != field.default}


def _explain_chunk(job: Job, settings: Any, positions: list[int], progress: Callable[[], None]) -> Explanations:
    subject, explainer = job.subject, job.subject.explainer
    find_replacements = getattr(explainer, "replacements", None)
    chunk = Chunk(
        positions,
        _spread(job, NULL_EXAMPLES, positions),
        _spread(job, job.words, positions),
        find_replacements(subject.data, job.ids, job.sample, positions, settings) if find_replacements else (),
    )
    key = {
        "format": explainer.FORMAT,
        "model": subject.digest,
        "data": subject.data.fingerprint("val"),
        "prepared": explainer.preprocessing(subject.data),
        "ids": [job.ids[position].encode("utf-8", "backslashreplace").decode() for position in positions],
        "against": [positions.index(position) for position in chunk.null],
        "words": [positions.index(position) for position in chunk.words],
        # Replacements depend on the whole sample.
        "others": [[job.ids[position] for position in row] for row in chunk.replacements],
        "settings": settings_record(settings),
        "on": [subject.device.type, torch.__version__],
    }

    def build(folder: Path) -> None:
        rows = explainer.explain(subject, job.null, chunk, settings, progress)
        arrays = {f"{number}/{name}": array for number, row in enumerate(rows) for name, array in row.items()}
        np.savez(folder / FILE, allow_pickle=False, **arrays)

    def read(folder: Path) -> Explanations:
        result: Explanations = [{} for _ in positions]
        with np.load(folder / FILE, allow_pickle=False) as file:
            for name in file.files:
                number, _, array = name.partition("/")
                result[int(number)][array] = file[name]
        return result

    return read(cache.entry(subject.data.root, "explanations", key, build, check=read))


def _spread(job: Job, count: int, positions: list[int]) -> list[int]:
    """Return the positions that are among `count` examples of the sample, evenly spread."""
    indices = np.linspace(0, len(job.sample), min(count, len(job.sample)), endpoint=False).astype(int)
    selection = {job.sample[index] for index in indices.tolist()}
    return [position for position in positions if position in selection]
