"""Thumbnails of images, for reports."""

import io
from collections.abc import Iterable, Mapping
from typing import Any

from datamodules.images import decoder
from datamodules.sources.files import read_bytes

SIDE = 96  # of a thumbnail, in pixels


class Thumbnails:
    """Thumbnails of images in files or in rows of Parquet files."""

    def __init__(self, data: Any, rows: Iterable[Mapping[str, Any]]) -> None:
        """Look up the images.

        Args:
            data: the data module.
            rows: rows with `split`, `number` (None for a file with a problem) and `id`.
        """
        keys = {(row["split"], row["number"]) for row in rows if row["number"] is not None}
        self._problems = {problem.name: problem.location for problem in data.problems}
        self._images: dict[tuple[str, int], str | bytes] = {}
        for split in {split for split, _ in keys}:
            # One pass over the split; for files, these are only the paths.
            for number, image in enumerate(data.survey.splits[split].images()):
                if (split, number) in keys:
                    self._images[split, number] = image

    def thumbnail(self, row: Mapping[str, Any]) -> bytes | None:
        """Return an image as a small JPEG; None if it cannot be decoded."""
        source = self._images.get((row["split"], row["number"])) or self._problems.get(row["id"])
        if not source:
            return None
        try:
            with decoder.open_image(read_bytes(source) if isinstance(source, str) else source) as image:
                rgb = decoder.to_rgb(image)
                rgb.thumbnail((SIDE, SIDE))
                small = io.BytesIO()
                rgb.save(small, "JPEG", quality=80)
                return small.getvalue()
        except MemoryError:
            raise
        except Exception:  # Pillow raises many classes of exceptions for broken content
            return None
