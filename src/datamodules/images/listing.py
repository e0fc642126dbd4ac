"""Content of a split's folder or tables, before the classes of both splits are known."""

import re
from dataclasses import dataclass, field, replace
from itertools import compress

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from config.numbers import format_count


@dataclass(frozen=True)
class Problem:
    """A defect of a split's files.

    Attributes:
        split: "train" or "val".
        name: the file's, as an image's id.
        location: path or URL of the file, "" if it does not exist.
        kind: "not an image", "not there", "no label", "named twice" or "no training images".
        label: the class the file should have, "" if unknown.
        message: of the error that the problem raises; "" if the file can be skipped.
    """

    split: str
    name: str
    location: str
    kind: str
    label: str = ""
    message: str = ""


@dataclass
class Listing:
    """Images of a split, with the ids of their classes.

    Attributes:
        location: the folder or the first table, for messages.
        names: [N] the images' ids.
        classes: [N] class id of each image.
        boxes: by name.
        declared: ids of the classes that the split declares, in the order of their labels.
        paths: [N] path or URL of each image; empty for tables.
        inner_paths: [N] path of each image below the folder of its class, or of all images; empty for tables.
        tables: Parquet files that contain the images.
        other_files: files that are not images but matter: annotations, boxes.
        problems: of files that are not images with a label.
        rows: int64 [N] positions of the images in the tables; None: all, in order.
    """

    location: str
    names: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    boxes: dict[str, tuple[float, ...]] = field(default_factory=dict)
    declared: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    inner_paths: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    other_files: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    rows: npt.NDArray[np.int64] | None = None

    def select(self, mask: npt.NDArray[np.bool_], keep_problems: bool) -> "Listing":
        """Return the images of a part of a listing.

        Args:
            mask: bool [N] the images of the part.
            keep_problems: whether the part gets the problems, which only one part should.
        """
        return replace(
            self,
            names=list(compress(self.names, mask)),
            classes=list(compress(self.classes, mask)),
            paths=list(compress(self.paths, mask)),
            inner_paths=list(compress(self.inner_paths, mask)),
            problems=self.problems if keep_problems else [],
            rows=np.flatnonzero(mask) if self.tables else None,
        )

    def match_groups(self, group: str) -> list[str]:
        """Return what the group of a regular expression matches in each image's inner path.

        Raises:
            InputError: it is not a regular expression with one group, or some paths do not match.
        """
        name = f"data.group={group}"
        try:
            pattern = re.compile(group)
        except re.error as error:
            raise InputError(f"{name} is not a regular expression: {error}") from None
        if pattern.groups != 1:
            raise InputError(
                f"{name}: for image files it is a regular expression with one group in parentheses, such as "
                rf"^(patient\d+)_, and not with {pattern.groups}"
            )
        matches = [pattern.search(path) for path in self.inner_paths]
        unmatched = [path for path, match in zip(self.inner_paths, matches, strict=True) if not (match and match[1])]
        if unmatched:
            raise InputError(
                f"{name} finds no group in {format_count(len(unmatched), 'path')} of {len(matches)} below the class folders of "
                f"{self.location}, such as {unmatched[0]}; every image needs one"
            )
        return [match[1] for match in matches if match]
