"""What stands in a split's folder or tables, before the classes of both splits are known."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """What is wrong with the files of a split.

    Attributes:
        split: "train" or "val".
        name: the file's, as an image's id.
        location: the file, "" where there is none.
        what: "not an image", "not there", "no label", "named twice" or "no training images".
        label: the class it should have, "" if unknown.
        message: the whole of it, for people; "" if the file may well be left out.
    """

    split: str
    name: str
    location: str
    what: str
    label: str
    message: str


@dataclass(frozen=True)
class Listing:
    """What stands in a split's place before the classes of all splits are known."""

    place: str
    names: list[str]
    classes: list[str]  # [N] class id of each image
    boxes: Mapping[str, tuple[float, ...]]  # by name
    declared: list[str]  # classes it says there are, in the order of their labels
    locations: list[str]  # [N] where each image is; for Parquet "": in `tables`
    tables: list[str]
    others: list[str]  # files that are not images but matter: annotations, boxes
    problems: list[Problem]
