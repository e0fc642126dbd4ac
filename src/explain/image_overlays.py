"""Pictures of explained images as data URIs; red speaks for the class, blue against it."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from reports.page import data_uri

SIDE = 96  # of a picture, in pixels
_POSITIVE, _NEGATIVE = (214, 39, 40), (31, 90, 180)

Box = npt.NDArray[np.float64] | None


def draw_image(pixels: npt.NDArray[np.uint8], box: Box = None) -> str:
    """Return an image [H, W, 3] with its box: x0, y0, x1, y1 of the outermost pixels inside."""
    return _data_uri(_draw_box(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC), pixels, box))


def draw_overlay(
    pixels: npt.NDArray[np.uint8], values: npt.NDArray[np.float64], box: Box = None, smooth: bool = False
) -> str:
    """Return an image in grey under its values, the stronger the colour the farther from 0.

    Args:
        pixels: [H, W, 3].
        values: [h, w] of cells or of pixels.
        box: as of `draw_image`.
        smooth: whether values are interpolated.
    """
    grey = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    base = np.asarray(grey, np.float64)[..., None].repeat(3, axis=2) * 0.6 + 90
    return _data_uri(_draw_box(_blend(base, values, smooth, 0.85), pixels, box))


def draw_map(values: npt.NDArray[np.float64]) -> str:
    """Return values [h, w] on white."""
    return _data_uri(_blend(np.full((SIDE, SIDE, 3), 255.0), values, False, 1.0))


def _blend(base: npt.NDArray[np.float64], values: npt.NDArray[np.float64], smooth: bool, opacity: float) -> Image.Image:
    scaled = Image.fromarray((values / (np.abs(values).max() or 1.0)).astype(np.float32))
    resampling = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    strength = np.asarray(scaled.resize((SIDE, SIDE), resampling), np.float64)[..., None]
    weight = opacity * np.clip(np.abs(strength), 0, 1)
    mixed = base * (1 - weight) + np.where(strength > 0, _POSITIVE, _NEGATIVE) * weight
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def _draw_box(image: Image.Image, pixels: Any, box: Box) -> Image.Image:
    if box is not None and not np.isnan(box).any():
        x, y = image.width / pixels.shape[1], image.height / pixels.shape[0]
        left, top, right, bottom = box[0] * x, box[1] * y, (box[2] + 1) * x - 1, (box[3] + 1) * y - 1
        draw = ImageDraw.Draw(image)
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(0, 0, 0))
        draw.rectangle((left, top, right, bottom), outline=(255, 255, 255))
    return image


def _data_uri(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return data_uri(content.getvalue(), "image/png")
