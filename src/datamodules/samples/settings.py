"""Types and ranges of the generators' settings in `data.sample`, read without importing a generator."""

from dataclasses import dataclass
from typing import Annotated

from config.ranges import Range


@dataclass(frozen=True)
class Sizes:
    """Settings of every generator."""

    seed: Annotated[int, Range(low=0)]
    train: Annotated[int, Range(low=1)]
    val: Annotated[int, Range(low=1)]


@dataclass(frozen=True)
class Questions(Sizes):
    """Settings of `squad_sample`."""

    unanswerable: Annotated[float, Range(low=0, below=1)] = 0.0


@dataclass(frozen=True)
class Shapes(Sizes):
    """Settings of `shapes`."""

    classes: Annotated[int, Range(low=2)] = 12
    size: Annotated[int, Range(low=16)] = 64


@dataclass(frozen=True)
class Topics(Sizes):
    """Settings of `topics`."""

    classes: Annotated[int, Range(low=2)] = 6
