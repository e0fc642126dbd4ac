"""Pictures of explained images, as data URIs."""

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

SIDE = 192  # of a picture, in pixels
FOR, AGAINST = (214, 39, 40), (31, 90, 180)  # red speaks for the class, blue against it


def overlay(
    pixels: npt.NDArray[np.uint8],
    values: npt.NDArray[np.float64],
    box: Any = None,
    smooth: bool = False,
    side: int = SIDE,
) -> str:
    """An image in grey under its values: red for the class, blue against it, the stronger the farther from 0.

    Args:
        pixels: uint8 [H, W, 3].
        values: [h, w] of cells or of pixels.
        box: x0, y0, x1, y1 of outermost pixels inside, drawn if there is one.
        smooth: between cells.
        side: of the picture.
    """
    grey = Image.fromarray(pixels).convert("L").resize((side, side), Image.Resampling.BICUBIC)
    base = np.asarray(grey, np.float64)[..., None].repeat(3, axis=2) * 0.6 + 90
    scale = np.abs(values).max() or 1.0
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    strength = np.asarray(Image.fromarray((values / scale).astype(np.float32)).resize((side, side), how), np.float64)
    colour = np.where(strength[..., None] > 0, FOR, AGAINST)
    mix = 0.85 * np.clip(np.abs(strength), 0, 1)[..., None]
    return _uri(_boxed(Image.fromarray((base * (1 - mix) + colour * mix).clip(0, 255).astype(np.uint8)), pixels, box))


def plain(pixels: npt.NDArray[np.uint8], box: Any = None, side: int = SIDE) -> str:
    """An image as it is, with its box."""
    return _uri(_boxed(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), pixels, box))


def heat(values: npt.NDArray[np.float64], side: int = SIDE // 2) -> str:
    """Values [h, w] alone, on white."""
    scale = np.abs(values).max() or 1.0
    strength = np.asarray(
        Image.fromarray((values / scale).astype(np.float32)).resize((side, side), Image.Resampling.NEAREST), np.float64
    )
    mix = np.clip(np.abs(strength), 0, 1)[..., None]
    made = 255 * (1 - mix) + np.where(strength[..., None] > 0, FOR, AGAINST) * mix
    return _uri(Image.fromarray(made.astype(np.uint8)))


def _boxed(image: Image.Image, pixels: Any, box: Any) -> Image.Image:
    if box is not None and not np.isnan(box).any():
        x, y = image.width / pixels.shape[1], image.height / pixels.shape[0]
        corners = [box[0] * x, box[1] * y, (box[2] + 1) * x - 1, (box[3] + 1) * y - 1]
        draw = ImageDraw.Draw(image)
        draw.rectangle([each - 1 if at < 2 else each + 1 for at, each in enumerate(corners)], outline=(0, 0, 0))
        draw.rectangle(corners, outline=(255, 255, 255))
    return image


def _uri(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
