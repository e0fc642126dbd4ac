"""Explanations, a few examples at a time: kept in the cache, so that a rerun is free and a killed run goes on."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.storage import cache
from explain import images, measures, questions, sample
from explain.model import Subject
from trainers import hardware

logger = logging.getLogger(__name__)

FILE = "values.npz"
SIZE = {"question_answering": 8, "image_classification": 32}
AGREE = 0.98  # rank correlation of values in bfloat16 and float32 from which on the former will do
NULL = 64  # examples that the random weights are asked about: a null is known well enough from fewer

Settings = questions.Settings | images.Settings
Explained = list[dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """What is explained.

    Attributes:
        subject: the model and its data.
        null: the same architecture at random weights.
        ids: of the whole evaluation set.
        chosen: positions of the sample.
        settings: as configured.
        words: questions of the sample whose words are explained.
    """

    subject: Subject
    null: Any
    ids: Sequence[str]
    chosen: Sequence[int]
    settings: Settings
    words: int = 0

    @property
    def parts(self) -> list[list[int]]:
        """The sample, a chunk at a time."""
        size = SIZE[self.subject.saved.task]
        return [list(self.chosen[at : at + size]) for at in range(0, len(self.chosen), size)]


def settings(subject: Subject, asked: Mapping[str, Any]) -> Settings:
    """What decides the values, from conf/explain."""
    task = subject.saved.task
    common = {"batch_size": asked["batch_size"], "seed": asked["seed"], "bfloat16": str(asked["precision"]) == "bf16"}
    if task == "image_classification":
        names: tuple[str, ...] = ("grid", "rounds", "background", "target", "explainer")
        return images.Settings(**{name: asked[task][name] for name in names}, **common)
    names = ("sentences", "other_questions")
    own = {name: asked[task][name] for name in names}
    return questions.Settings(**own, max_answer_tokens=subject.config.model.max_answer_tokens, **common)


def precise(job: Job, progress: Callable[[], None]) -> Settings:
    """The settings with bfloat16 where training would take it and the first chunk's values agree with float32's."""
    accelerator = "cpu" if job.subject.device.type == "cpu" else "auto"
    if hardware.precision("auto", accelerator) != "bf16-mixed":
        return job.settings
    quick = replace(job.settings, bfloat16=True)
    part = job.parts[0]
    pairs = zip(_chunk(job, job.settings, part, progress), _chunk(job, quick, part, lambda: None), strict=True)
    likeness = float(np.mean([measures.alike(one["values"], other["values"]) for one, other in pairs]))
    if likeness >= AGREE:
        return quick
    logger.info("bfloat16's values agree with float32's by %.3f only: explaining in float32", likeness)
    return job.settings


def all_of(job: Job, chosen: Settings, progress: Callable[[], None], done: Callable[[int], None]) -> Iterator[Any]:
    """The explanations of the sample, in its order."""
    count = 0
    for part in job.parts:
        yield from _chunk(job, chosen, part, progress)
        done(count := count + len(part))


def _chunk(job: Job, chosen: Settings, part: list[int], progress: Callable[[], None]) -> Explained:
    subject = job.subject
    kind = images if isinstance(chosen, images.Settings) else questions
    against = _spread(job, NULL, part)
    words = _spread(job, job.words, part)
    others = _others(job, part) if isinstance(chosen, questions.Settings) else []
    key = {
        "format": kind.FORMAT,
        "model": subject.digest,
        "data": subject.data.fingerprint("val"),
        "prepared": _prepared(subject),
        "ids": [job.ids[at].encode("utf-8", "backslashreplace").decode() for at in part],
        "against": [part.index(at) for at in against],
        "words": [part.index(at) for at in words],
        # They are of the whole sample: of another one they are others.
        "others": [[job.ids[at] for at in each] for each in others],
        "settings": asdict(chosen),
        "on": [subject.device.type, torch.__version__],
    }

    def build(folder: Path) -> None:
        if isinstance(chosen, images.Settings):
            made = images.explain(subject, job.null, part, against, chosen, progress)
        else:
            made = questions.explain(subject, job.null, part, others, against, words, chosen, progress)
        arrays = {f"{number}/{name}": value for number, each in enumerate(made) for name, value in each.items()}
        np.savez(folder / FILE, allow_pickle=False, **arrays)

    found: Explained = [{} for _ in part]
    with np.load(cache.entry(subject.data.root, "explanations", key, build) / FILE, allow_pickle=False) as file:
        for name in file.files:
            number, _, what = name.partition("/")
            found[int(number)][what] = file[name]
    return found


def _spread(job: Job, count: int, part: list[int]) -> list[int]:
    """Those of a part of the sample that are among so many of it, evenly spread: where not all are asked something."""
    places = np.linspace(0, len(job.chosen), min(count, len(job.chosen)), endpoint=False).astype(int)
    among = {job.chosen[at] for at in places.tolist()}
    return [at for at in part if at in among]


def _others(job: Job, part: list[int]) -> list[list[int]]:
    """For each question, others to ask in its place: of the sample, about another paragraph."""
    assert isinstance(job.settings, questions.Settings)
    of, count = job.subject.data.examples.context_of, job.settings.other_questions
    found = []
    for at in part:
        keys = sample.hashes([f"{job.ids[at]} {job.ids[each]}" for each in job.chosen], 0)
        ranked = [each for _, each in sorted(zip(keys, job.chosen, strict=True))]
        found.append([each for each in ranked if of[each] != of[at]][:count])
    return found


def _prepared(subject: Subject) -> list[Any]:
    """How the data becomes the model's input."""
    data = subject.data
    if subject.saved.task == "image_classification":
        return [data.image_size, list(data.mean), list(data.std)]
    return [
        data.prepared_tokenizer.fingerprint,
        data.limits.max_length,
        data.limits.stride,
        data.limits.max_query_length,
        data.answerable_only,
    ]
