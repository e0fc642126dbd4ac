"""Small pictures of a data set's images, for reports."""

import io
from collections.abc import Iterable, Mapping
from typing import Any

from datamodules.images import decoder
from datamodules.sources.files import read_bytes

SIDE = 96  # of a thumbnail, in pixels


class Thumbnails:
    """Gives thumbnails of images wherever they are: files, or rows of Parquet files."""

    def __init__(self, data: Any, wanted: Iterable[Mapping[str, Any]]) -> None:
        """Finds them.

        Args:
            data: the data module.
            wanted: rows with `split`, `number` (None for a file with a problem) and `id`.
        """
        rows = {(each["split"], each["number"]) for each in wanted if each["number"] is not None}
        self._problems = {each.name: each.location for each in data.problems}
        self._found: dict[tuple[str, int], str | bytes] = {}
        for split in {split for split, _ in rows}:
            # Once through them all: of files these are but their paths.
            for number, image in enumerate(data.survey.splits[split].images()):
                if (split, number) in rows:
                    self._found[split, number] = image

    def thumbnail(self, row: Mapping[str, Any]) -> bytes | None:
        """An image as a small JPEG; None if it cannot be shown."""
        from PIL import Image

        found = self._found.get((row["split"], row["number"])) or self._problems.get(row["id"])
        if not found:
            return None
        try:
            with Image.open(io.BytesIO(read_bytes(found) if isinstance(found, str) else found)) as image:
                rgb = decoder.to_rgb(image)
                rgb.thumbnail((SIDE, SIDE))
                small = io.BytesIO()
                rgb.save(small, "JPEG", quality=80)
                return small.getvalue()
        except MemoryError:
            raise
        except Exception:  # Pillow's readers raise of all kinds on broken content
            return None
