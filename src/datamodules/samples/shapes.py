"""Generated images of shapes, in Tiny ImageNet's official layout: to see an image classifier learn in minutes.

A shape of random colour, size, angle and position lies over a textured background with clutter. Neither colour nor
position nor size identifies the shape, and validation images combine textures and hues that never occur in training.
"""

import colorsys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from config.errors import InputError

Points = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.float64]

# Part of the fingerprints of generated data. Replace it, by any new value, with every change of what is generated
# (tests/test_samples.py pins the output), and never otherwise: caches and comparable runs depend on it.
FINGERPRINT = "8bda4dcc5965d4dcdf4e972f6ea19c62270f77eddd4726a0bbb9a0099d9cd7d0"

_SUPERSAMPLING = 4  # shapes are drawn larger by this factor, for smooth edges
_HUES = 8
_DISTRACTORS = 4
_TILT = 0.5  # radians, to either side


def write(folder: Path, seed: int, train: int, val: int, classes: int = 12, size: int = 64) -> None:
    """Write train/, val/, wnids.txt and words.txt.

    Args:
        folder: an empty folder.
        seed: of all random numbers.
        train: number of training images, spread evenly over the classes.
        val: number of validation images.
        classes: number of shapes, 2 to 12: the first of `SHAPES`.
        size: side of the images in pixels.

    Raises:
        InputError: a number out of range.
    """
    if not 2 <= classes <= len(SHAPES):
        raise InputError(f"data.sample.classes={classes}: there are 2 to {len(SHAPES)} shapes")
    if train < classes or val < 1 or size < 16:
        raise InputError(
            f"data.sample: train={train} must be at least classes={classes}, val={val} at least 1, size={size} "
            "at least 16"
        )
    names = sorted(list(SHAPES)[:classes])
    _write_lines(folder / "wnids.txt", names)
    _write_lines(folder / "words.txt", [f"{name}\t{name}" for name in names])
    boxes: dict[str, list[str]] = {name: [] for name in names}
    for name in names:
        (folder / "train" / name / "images").mkdir(parents=True)
    for index in range(train):
        name, file = names[index % classes], f"{names[index % classes]}_{index // classes}.JPEG"
        box = _save(folder / "train" / name / "images" / file, name, [seed, 0, index], size, held_out=False)
        boxes[name].append(f"{file}\t{box}")
    for name in names:
        _write_lines(folder / "train" / name / f"{name}_boxes.txt", boxes[name])
    (folder / "val" / "images").mkdir(parents=True)
    annotations = []
    for index in range(val):
        name, file = names[index % classes], f"val_{index}.JPEG"
        box = _save(folder / "val" / "images" / file, name, [seed, 1, index], size, held_out=True)
        annotations.append(f"{file}\t{name}\t{box}")
    _write_lines(folder / "val" / "val_annotations.txt", annotations)


def _save(path: Path, name: str, seed: list[int], size: int, held_out: bool) -> str:
    """Draw and save an image; return its box as text."""
    image, box = draw(name, np.random.default_rng(seed), size, held_out)
    image.save(path, "JPEG", quality=90)
    return "\t".join(map(str, box))


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def draw(
    name: str, random: np.random.Generator, size: int, held_out: bool
) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """Draw an image of a shape.

    Args:
        name: of the shape.
        random: source of all random numbers.
        size: side of the image in pixels.
        held_out: whether to use the combinations of texture and hue that are reserved for validation.

    Returns:
        The image, and the box of its shape: x0, y0, x1, y1, the outermost pixels inside it (as in Tiny ImageNet).
    """
    texture, hue = _background(random, held_out)
    ground = _colour(random, hue)
    pixels = _TEXTURES[texture](random, size, ground, 0.6 * ground + 0.4 * _colour(random, hue))
    for _ in range(random.integers(2, _DISTRACTORS + 1)):
        speck = _mask(_ellipse(random.uniform(0.4, 1.0)), random, size, random.uniform(0.03, 0.08))
        pixels = _overlay(pixels, speck, _colour(random, random.random()))
    line = Image.new("L", (size, size))
    ends = random.uniform(0, size, 4).tolist()
    ImageDraw.Draw(line).line(ends, fill=200, width=1)
    pixels = _overlay(pixels, np.asarray(line) / 255, _colour(random, random.random()))
    mask = _mask(SHAPES[name](), random, size, random.uniform(0.24, 0.38))
    surroundings = float((pixels.mean(2) * mask).sum() / max(mask.sum(), 1e-9))
    colour = _colour(random, random.random())
    while abs(colour.mean() - surroundings) < 0.35:  # enough contrast with the background
        colour = _colour(random, random.random())
    shading = 1 + 0.12 * _smooth(random, size)[..., None]
    pixels = _overlay(pixels, mask, np.clip(colour * shading, 0, 1))
    pixels = pixels + random.normal(0, 0.02, pixels.shape)
    rows, columns = np.flatnonzero((mask > 0.5).any(1)), np.flatnonzero((mask > 0.5).any(0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)), box


# -- shapes ------------------------------------------------------------------------------------------------------------
# Polygons around the origin, within about the unit circle: the filled one, then the one cut out of it.


def _regular(corners: int, inner: float | None = None) -> Points:
    count = corners if inner is None else 2 * corners
    angles = 2 * np.pi * np.arange(count) / count
    radius = np.ones(count) if inner is None else np.where(np.arange(count) % 2 == 0, 1.0, inner)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1)


def _ellipse(ratio: float) -> list[Points]:
    return [_regular(40) * np.array([1.0, ratio])]


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], 1) / 17


def _plus(w: float) -> Points:
    return np.array(
        [(-w, -1), (w, -1), (w, -w), (1, -w), (1, w), (w, w), (w, 1), (-w, 1), (-w, w), (-1, w), (-1, -w), (-w, -w)]
    )


def _half() -> Points:
    angles = np.linspace(0, np.pi, 30)
    return np.stack([np.cos(angles), np.sin(angles) - 0.4], 1)


SHAPES: dict[str, Callable[[], list[Points]]] = {
    "circle": lambda: [_regular(48) * 0.9],
    "square": lambda: [_regular(4)],
    "triangle": lambda: [_regular(3)],
    "star": lambda: [_regular(5, 0.42) * 1.1],
    "cross": lambda: [_plus(0.3)],
    "ring": lambda: [_regular(48), _regular(48) * 0.58],
    "arrow": lambda: [
        np.array([(1, 0), (0.1, 0.75), (0.1, 0.27), (-1, 0.27), (-1, -0.27), (0.1, -0.27), (0.1, -0.75)])
    ],
    "heart": lambda: [_heart()],
    "crescent": lambda: [_regular(48), _regular(48) * 0.85 + np.array([0.45, 0.0])],
    "half": lambda: [_half() * 1.1],
    "bolt": lambda: [np.array([(0.3, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.3, 1), (0.6, -0.2), (0.05, -0.2)])],
    "frame": lambda: [_regular(4) * 1.1, _regular(4) * 0.62],
}


def _mask(polygons: list[Points], random: np.random.Generator, size: int, scale: float) -> Pixels:
    """[size, size] from 0 to 1: the polygons rotated, scaled to a share of the size, at a random position inside."""
    angle, radius = random.uniform(-_TILT, _TILT), scale * size
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rotated = [polygon @ rotation.T * radius for polygon in polygons]
    low, high = rotated[0].min(0), rotated[0].max(0)
    corner = random.uniform(1 - low, np.maximum(size - 2 - high, 2 - low))
    # Drawn in its bounding window, which for a speck is small.
    first = np.floor(corner + low).astype(int)
    extent = np.ceil(high - low).astype(int) + 2
    image = Image.new("L", tuple((extent * _SUPERSAMPLING).tolist()))
    canvas = ImageDraw.Draw(image)
    for fill, polygon in zip((255, 0), rotated, strict=False):
        canvas.polygon([tuple(point) for point in (polygon + corner - first) * _SUPERSAMPLING], fill=fill)
    window = np.asarray(image.resize(tuple(extent.tolist()), Image.Resampling.BOX)) / 255
    mask = np.zeros((size, size))
    columns, rows = (slice(start, start + length) for start, length in zip(first, extent, strict=True))
    part = mask[rows, columns]
    part[:] = window[: part.shape[0], : part.shape[1]]
    return mask


# -- backgrounds -------------------------------------------------------------------------------------------------------


def _background(random: np.random.Generator, held_out: bool) -> tuple[int, float]:
    """A texture and a hue. A quarter of their combinations is reserved for validation, which has no others."""
    while True:
        texture, hue = int(random.integers(len(_TEXTURES))), int(random.integers(_HUES))
        if ((texture + hue) % 4 == 0) == held_out:
            return texture, (hue + random.random()) / _HUES


def _colour(random: np.random.Generator, hue: float) -> Pixels:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, random.uniform(0.25, 0.9), random.uniform(0.15, 0.95)))


def _smooth(random: np.random.Generator, size: int) -> Pixels:
    """[size, size] smooth noise from -1 to 1."""
    small = Image.fromarray(random.uniform(-1, 1, (6, 6)).astype(np.float32))
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), np.float64)


def _waves(random: np.random.Generator, size: int) -> Pixels:
    y, x = np.mgrid[:size, :size]
    angle, period = random.uniform(0, np.pi), random.uniform(5, 16)
    wave: Pixels = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period + random.uniform(0, 6))
    return wave


def _blend(weight: Pixels, first: Pixels, second: Pixels) -> Pixels:
    return first + (second - first) * np.clip(weight, 0, 1)[..., None]


def _overlay(pixels: Pixels, mask: Pixels, colour: Pixels) -> Pixels:
    return pixels * (1 - mask[..., None]) + colour * mask[..., None]


_TEXTURES: list[Callable[[np.random.Generator, int, Pixels, Pixels], Pixels]] = [
    lambda random, size, a, b: _blend(0.5 + 0.5 * _smooth(random, size), a, b),
    lambda random, size, a, b: _blend(0.5 + 2 * _waves(random, size), a, b),
    lambda random, size, a, b: _blend(0.5 + 3 * _waves(random, size) * _waves(random, size), a, b),
    lambda random, size, a, b: _blend(random.random((size, size)), a, b),
]
