"""Explanations, a few examples at a time: kept in the cache, so that a rerun is free and a killed run goes on."""

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
AGREE = 0.98  # rank correlation of values in bfloat16 and float32 from which on the former will do
NULL = 64  # examples that the random weights are asked about: a null is known well enough from fewer

Explanations = list[dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """What is explained.

    Attributes:
        subject: the model, its data and its explainer.
        null: the same architecture at random weights.
        ids: of the whole evaluation set.
        sample: positions of the examples.
        settings: of the explainer, as configured.
        words: examples of the sample whose words are explained.
    """

    subject: Subject
    null: Any
    ids: Sequence[str]
    sample: Sequence[int]
    settings: Any
    words: int = 0

    @property
    def parts(self) -> list[list[int]]:
        """The sample, a chunk at a time."""
        size = self.subject.explainer.CHUNK
        return [list(self.sample[at : at + size]) for at in range(0, len(self.sample), size)]


def choose_precision(job: Job, progress: Callable[[], None]) -> Any:
    """The settings with bfloat16 where training would take it and the first chunk's values agree with float32's."""
    accelerator = "cpu" if job.subject.device.type == "cpu" else "auto"
    if hardware.resolve_precision("auto", accelerator) != "bf16-mixed":
        return job.settings
    quick = replace(job.settings, bfloat16=True)
    part = job.parts[0]
    pairs = zip(_explain(job, job.settings, part, progress), _explain(job, quick, part, lambda: None), strict=True)
    likeness = float(np.mean([measures.rank_correlation(one["values"], other["values"]) for one, other in pairs]))
    if likeness >= AGREE:
        return quick
    logger.info("bfloat16's values agree with float32's by %.3f only: explaining in float32", likeness)
    return job.settings


def explain_chunks(job: Job, settings: Any, progress: Callable[[], None], done: Callable[[int], None]) -> Iterator[Any]:
    """The explanations of the sample, in its order.

    Args:
        job: what is explained.
        settings: of the explainer.
        progress: called after each example.
        done: called after each chunk, with how many examples are explained.
    """
    count = 0
    for part in job.parts:
        yield from _explain(job, settings, part, progress)
        done(count := count + len(part))


def settings_record(settings: Any) -> dict[str, Any]:
    """Settings for a cache's key and for verdict.json.

    A field at its dataclass's default is left out: a setting that an explainer gets later, its default what was done before,
    leaves the keys of what is cached as they are.
    """
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {field.name: values[field.name] for field in fields(settings) if values[field.name] != field.default}


def _explain(job: Job, settings: Any, part: list[int], progress: Callable[[], None]) -> Explanations:
    subject, explainer = job.subject, job.subject.explainer
    others = getattr(explainer, "others", None)
    chunk = Chunk(
        part,
        _spread(job, NULL, part),
        _spread(job, job.words, part),
        others(subject.data, job.ids, job.sample, part, settings) if others else (),
    )
    key = {
        "format": explainer.FORMAT,
        "model": subject.digest,
        "data": subject.data.fingerprint("val"),
        "prepared": explainer.prepared(subject.data),
        "ids": [job.ids[at].encode("utf-8", "backslashreplace").decode() for at in part],
        "against": [part.index(at) for at in chunk.null],
        "words": [part.index(at) for at in chunk.words],
        # They are of the whole sample: of another one they are others.
        "others": [[job.ids[at] for at in row] for row in chunk.others],
        "settings": settings_record(settings),
        "on": [subject.device.type, torch.__version__],
    }

    def build(folder: Path) -> None:
        values = explainer.explain(subject, job.null, chunk, settings, progress)
        arrays = {f"{number}/{name}": array for number, row in enumerate(values) for name, array in row.items()}
        np.savez(folder / FILE, allow_pickle=False, **arrays)

    result: Explanations = [{} for _ in part]
    with np.load(cache.entry(subject.data.root, "explanations", key, build) / FILE, allow_pickle=False) as file:
        for name in file.files:
            number, _, array = name.partition("/")
            result[int(number)][array] = file[name]
    return result


def _spread(job: Job, count: int, part: list[int]) -> list[int]:
    """Those of a part of the sample that are among so many of it, evenly spread: where not all are asked something."""
    places = np.linspace(0, len(job.sample), min(count, len(job.sample)), endpoint=False).astype(int)
    among = {job.sample[at] for at in places.tolist()}
    return [at for at in part if at in among]
