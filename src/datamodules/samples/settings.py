"""What `data.sample` may say: types and ranges of the generators' settings.

They stand beside the generators, not in them: a generator's text is part of its data's fingerprint.
"""

from dataclasses import dataclass
from typing import Annotated

from config.ranges import Range


@dataclass(frozen=True)
class Sizes:
    """What every generator takes."""

    seed: Annotated[int, Range(low=0)]
    train: Annotated[int, Range(low=1)]
    val: Annotated[int, Range(low=1)]


@dataclass(frozen=True)
class Questions(Sizes):
    """Of `squad_sample`."""

    unanswerable: Annotated[float, Range(low=0, below=1)] = 0.0


@dataclass(frozen=True)
class Shapes(Sizes):
    """Of `shapes`."""

    classes: Annotated[int, Range(low=2)] = 12
    size: Annotated[int, Range(low=16)] = 64


@dataclass(frozen=True)
class Topics(Sizes):
    """Of `topics`."""

    classes: Annotated[int, Range(low=2)] = 6
