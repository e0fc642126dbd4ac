"""Augmentation of whole batches, on the device that holds them.

Every example has draws of its own (Mixup and CutMix have one for the batch, as in torchvision and timm). All
draws come from torch's global generators: the pixels' device's, and the CPU's for Mixup and CutMix. Who seeds
them before each step has augmentation that depends on nothing else.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch

from config import check
from config.errors import InputError
from config.ranges import Keys, Range

if TYPE_CHECKING:
    from torch import Tensor

RATIO = (3 / 4, 4 / 3)  # of width to height of random resized crops, as in torchvision
TRIES = 10
PART = 32  # images that a CPU augments at a time
MAGNITUDES = 31  # RandAugment's magnitudes are 0 to 30


@dataclass(frozen=True)
class Settings:
    """What is done to a training batch, in this order; and how pixels are normalised, always.

    Attributes:
        random_resized_crop: smallest and largest part of the image's area that a crop keeps; it is resized to
            the whole. None: not done.
        crop_padding: pixels added on each side before a crop of the original size at a random place.
        padding: "reflect" (mirrored) or "constant" (black).
        flip: mirror half of the images left to right.
        randaugment: (operations for each image, magnitude from 0 to 30), or None.
        mixup: alpha of the Beta distribution that two images are blended by; 0 is off.
        cutmix: alpha of the Beta distribution of the pasted area; 0 is off. With both on, each batch takes
            one of them.
        label_smoothing: probability mass that is spread over all classes.
        mean: of the pixels from 0 to 1, for each channel.
        std: standard deviation of them.
    """

    random_resized_crop: tuple[float, float] | None = None
    crop_padding: int = 0
    padding: str = "reflect"
    flip: bool = False
    randaugment: tuple[int, int] | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


def make_settings(augment: Mapping[str, Any] | None, mean: Any = Settings.mean, std: Any = Settings.std) -> Settings:
    """Checks a configuration's `augment`, `mean` and `std`.

    Args:
        augment: keys as the attributes of `Settings`; `randaugment` as {"ops": 2, "magnitude": 9}.
        mean: three numbers from 0 to 1.
        std: three numbers above 0.

    Raises:
        InputError: an unknown key, or a value that cannot be.
    """
    given = dict(augment or {})
    if problems := check.check_settings("data.augment", given, Keys("datamodules.images.augmentation.configure")):
        raise InputError("; ".join(problems))
    return replace(
        configure(**given),
        mean=_channels("mean", mean, lambda value: 0 <= value <= 1),
        std=_channels("std", std, lambda value: value > 0),
    )


def configure(
    *,
    random_resized_crop: Sequence[float] | None = None,
    crop_padding: Annotated[int, Range(low=0)] | None = 0,
    padding: Literal["reflect", "constant"] | None = "reflect",
    flip: bool | None = False,
    randaugment: Annotated[Mapping[str, Any] | None, Keys("datamodules.images.augmentation.operations")] = None,
    mixup: Annotated[float, Range(low=0)] | None = 0.0,
    cutmix: Annotated[float, Range(low=0)] | None = 0.0,
    label_smoothing: Annotated[float, Range(low=0, below=1)] | None = 0.0,
) -> Settings:
    """`Settings` from the keys of conf/data's `augment`; None is the default."""
    return Settings(
        random_resized_crop=_scale(random_resized_crop),
        crop_padding=crop_padding or 0,
        padding=padding or "reflect",
        flip=bool(flip),
        randaugment=None if randaugment is None else operations(**randaugment),
        mixup=float(mixup or 0),
        cutmix=float(cutmix or 0),
        label_smoothing=float(label_smoothing or 0),
    )


def operations(
    ops: Annotated[int, Range(low=1)] = 2, magnitude: Annotated[int, Range(low=0, high=30)] = 9
) -> tuple[int, int]:
    """`Settings.randaugment` from the keys of conf/data's `augment.randaugment`."""
    return ops, magnitude


def augment_batch(
    pixels: "Tensor",
    labels: "Tensor",
    num_classes: int,
    settings: Settings,
    dtype: torch.dtype = torch.float32,
) -> tuple["Tensor", "Tensor"]:
    """Augments and normalises a batch.

    Args:
        pixels: uint8 [B, H, W, 3].
        labels: int64 [B].
        num_classes: classes in the data.
        settings: what to do.
        dtype: of the images that come out; the arithmetic is in float32.

    Returns:
        Images [B, 3, H, W] in channels_last. Targets: the labels, or float32 [B, num_classes] that sum to
        one, with Mixup, CutMix or label smoothing. Both are what `torch.nn.functional.cross_entropy` takes.
    """
    with _one_thread(pixels):
        return _train_batch(pixels, labels, num_classes, settings, dtype)


def normalise_batch(pixels: "Tensor", settings: Settings, dtype: torch.dtype = torch.float32) -> "Tensor":
    """Normalises a batch and does nothing else: uint8 [B, H, W, 3] to [B, 3, H, W] in channels_last."""
    images, rows = _empty(pixels, dtype)
    with _one_thread(pixels):
        for part in _parts(pixels):
            _normalise(pixels[part], rows[part], settings)
    return images


def random_flip(pixels: "Tensor") -> "Tensor":
    """Mirrors each image left to right with probability 1/2. uint8 [B, H, W, 3]."""
    mirrored = torch.rand(len(pixels), device=pixels.device) < 0.5
    # Eight bytes at a time where they divide: torch's choice among bytes takes most of the time otherwise.
    word = torch.int64 if pixels[0].numel() % 8 == 0 else torch.uint8
    before, after = (images.contiguous().flatten(1).view(word) for images in (pixels, pixels.flip(2)))
    return torch.where(mirrored[:, None], after, before).view(torch.uint8).view(pixels.shape)


def random_crop(pixels: "Tensor", padding: int, mode: str = "reflect") -> "Tensor":
    """Pads each side and cuts the original size out at a random place, of each image its own. uint8 [B, H, W,
    3].

    Args:
        pixels: the batch.
        padding: pixels on each side; less than the image's side if mirrored.
        mode: "reflect" or "constant" (black).
    """
    corners = torch.randint(0, 2 * padding + 1, (2, len(pixels)), device=pixels.device)
    return crop(pad(pixels, padding, mode), corners, pixels.shape[1], pixels.shape[2])


def pad(pixels: "Tensor", padding: int, mode: str = "reflect") -> "Tensor":
    """[B, H, W, 3] to [B, H + 2 padding, W + 2 padding, 3], mirrored without the edge itself, or black."""
    if mode == "constant":
        return torch.nn.functional.pad(pixels, (0, 0, padding, padding, padding, padding))
    for axis in (2, 1):
        last = pixels.shape[axis] - 1
        mirror = pixels.flip(axis)  # of the whole: faster than of the strips, which are not contiguous
        before, after = mirror.narrow(axis, last - padding, padding), mirror.narrow(axis, 1, padding)
        pixels = torch.cat([before, pixels, after], axis)
    return pixels


def crop(pixels: "Tensor", corners: "Tensor", height: int, width: int) -> "Tensor":
    """Cuts a window out of each image.

    Args:
        pixels: uint8 [B, H, W, 3].
        corners: int64 [2, B], top and left of each window.
        height: of the windows, in pixels.
        width: of the windows, in pixels.

    Returns:
        uint8 [B, height, width, 3].
    """
    cut = _cut_by_copy if pixels.device.type == "cpu" else _cut_by_index
    return cut(pixels.contiguous(), corners, height, width)


def _cut_by_copy(pixels: "Tensor", corners: "Tensor", height: int, width: int) -> "Tensor":
    """One strided copy for each image; several times as fast on a CPU as torch's indexing."""
    count, _, _, channels = pixels.shape
    rows = pixels.flatten(2).numpy()  # a row of a window is one run of bytes
    windows = np.empty((count, height, width * channels), np.uint8)
    for index, (top, left) in enumerate(zip(*corners.tolist(), strict=True)):
        windows[index] = rows[index, top : top + height, left * channels : (left + width) * channels]
    return torch.from_numpy(windows).view(count, height, width, channels)


def _cut_by_index(pixels: "Tensor", corners: "Tensor", height: int, width: int) -> "Tensor":
    """One indexing of a view of all windows, for GPUs: no transfer of the corners, no loop."""
    count, rows, columns, channels = pixels.shape
    places = (rows - height + 1, columns - width + 1)
    image, row, pixel, _ = pixels.stride()
    every = pixels.as_strided((count, *places, height, width * channels), (image, row, pixel, row, 1))
    chosen = every[torch.arange(count, device=pixels.device), corners[0], corners[1]]
    return chosen.view(count, height, width, channels)


def random_resized_crop(pixels: "Tensor", scale: tuple[float, float]) -> "Tensor":
    """Cuts a random part of each image out and resizes it (bilinear) to the whole. uint8 [B, H, W, 3].

    Areas and ratios are drawn as by torchvision's RandomResizedCrop. The part is never larger than the
    result, so no antialiasing is needed.

    Args:
        pixels: the batch.
        scale: smallest and largest part of the area.
    """
    count, height, width, _ = pixels.shape
    device = pixels.device
    area = height * width * torch.empty(count, TRIES, device=device).uniform_(*scale)
    ratio = torch.empty(count, TRIES, device=device).uniform_(math.log(RATIO[0]), math.log(RATIO[1])).exp()
    across, down = (area * ratio).sqrt().round().clamp_(min=1), (area / ratio).sqrt().round().clamp_(min=1)
    fits = (across <= width) & (down <= height)
    first = fits.int().argmax(1, keepdim=True)  # the first that fits, else the whole image
    any_fits = fits.any(1)
    across = torch.where(any_fits, across.gather(1, first)[:, 0], width)
    down = torch.where(any_fits, down.gather(1, first)[:, 0], height)
    left = (torch.rand(count, device=device) * (width - across + 1)).floor()
    top = (torch.rand(count, device=device) * (height - down + 1)).floor()
    return resized_crop(pixels, left, top, across, down)


def resized_crop(pixels: "Tensor", left: "Tensor", top: "Tensor", across: "Tensor", down: "Tensor") -> "Tensor":
    """Resizes a window of each image, corner and size [B] in pixels, to the whole (bilinear)."""
    count, height, width, _ = pixels.shape
    theta = torch.zeros(count, 2, 3, device=pixels.device)  # window to whole, in coordinates from -1 to 1
    theta[:, 0, 0], theta[:, 0, 2] = across / width, (2 * left + across) / width - 1
    theta[:, 1, 1], theta[:, 1, 2] = down / height, (2 * top + down) / height - 1
    grid = torch.nn.functional.affine_grid(theta, [count, 3, height, width], align_corners=False)
    images = torch.nn.functional.grid_sample(
        pixels.permute(0, 3, 1, 2).float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return images.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def randaugment(pixels: "Tensor", ops: int, magnitude: int) -> "Tensor":
    """RandAugment (arXiv:1909.13719) with torchvision's operations. uint8 [B, H, W, 3].

    Each image draws its own operations and signs; images that drew the same are done together.

    Args:
        pixels: the batch.
        ops: operations for each image.
        magnitude: 0 to 30.
    """
    size = (pixels.shape[1], pixels.shape[2])
    table = _operations(magnitude / (MAGNITUDES - 1), size)
    images = pixels.permute(0, 3, 1, 2).clone()
    for _ in range(ops):
        draws = torch.randint(0, 2 * len(table), (len(pixels),), device=pixels.device).tolist()
        groups: dict[int, list[int]] = {}
        for index, draw in enumerate(draws):
            operation, sign = divmod(draw, 2)
            groups.setdefault(2 * operation + (sign if table[operation][1] else 0), []).append(index)
        for draw, members in sorted(groups.items()):
            operation = table[draw // 2][0]
            if operation is not None:
                rows = torch.tensor(members, device=pixels.device)
                images[rows] = operation(images[rows], -1.0 if draw % 2 else 1.0)
    return images.permute(0, 2, 3, 1)


Operation = Callable[["Tensor", float], "Tensor"]


def _operations(strength: float, size: tuple[int, int]) -> list[tuple[Operation | None, bool]]:
    """Torchvision's space of RandAugment at a strength from 0 to 1: (operation, whether it has a sign)."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as tv

    height, width = size
    shear = math.degrees(math.atan(0.3 * strength))
    colour = 0.9 * strength
    bits = round(8 - 4 * strength)
    bilinear = InterpolationMode.BILINEAR

    def moved(images: "Tensor", translate: list[float], shear: list[float], center: list[float] | None) -> "Tensor":
        result: Tensor = tv.affine(images, 0.0, translate, 1.0, shear, interpolation=bilinear, center=center)
        return result

    return [
        (None, False),
        (lambda images, sign: moved(images, [0, 0], [sign * shear, 0.0], [0, 0]), True),
        (lambda images, sign: moved(images, [0, 0], [0.0, sign * shear], [0, 0]), True),
        (
            lambda images, sign: moved(images, [int(sign * 150 / 331 * width * strength), 0], [0.0, 0.0], None),
            True,
        ),
        (
            lambda images, sign: moved(images, [0, int(sign * 150 / 331 * height * strength)], [0.0, 0.0], None),
            True,
        ),
        (lambda images, sign: tv.rotate(images, sign * 30.0 * strength, interpolation=bilinear), True),
        (lambda images, sign: tv.adjust_brightness(images, 1 + sign * colour), True),
        (lambda images, sign: tv.adjust_saturation(images, 1 + sign * colour), True),
        (lambda images, sign: tv.adjust_contrast(images, 1 + sign * colour), True),
        (lambda images, sign: tv.adjust_sharpness(images, 1 + sign * colour), True),
        (lambda images, _: tv.posterize(images, bits), False),
        (lambda images, _: tv.solarize(images, 255 * (1 - strength)), False),
        (lambda images, _: tv.autocontrast(images), False),
        (lambda images, _: tv.equalize(images), False),
    ]


def _train_batch(
    pixels: "Tensor", labels: "Tensor", num_classes: int, settings: Settings, dtype: torch.dtype
) -> tuple["Tensor", "Tensor"]:
    mixing = settings.mixup > 0 or settings.cutmix > 0
    if settings.random_resized_crop is not None:
        pixels = random_resized_crop(pixels, settings.random_resized_crop)
    moving = settings.randaugment is None
    if settings.randaugment is not None:
        # Of all images at once: those with the same operation are done together.
        pixels = randaugment(_moved(pixels, settings), *settings.randaugment)
    images, rows = _empty(pixels, torch.float32 if mixing else dtype)
    for part in _parts(pixels):
        _normalise(_moved(pixels[part], settings) if moving else pixels[part], rows[part], settings)
    if not mixing and not settings.label_smoothing:
        return images, labels
    targets = torch.nn.functional.one_hot(labels, num_classes).float()
    if mixing:
        images, targets = _mix(images, targets, settings)
    if settings.label_smoothing:
        targets = targets.mul_(1 - settings.label_smoothing).add_(settings.label_smoothing / num_classes)
    return images.to(dtype), targets


def _moved(pixels: "Tensor", settings: Settings) -> "Tensor":
    if settings.flip:
        pixels = random_flip(pixels)
    if settings.crop_padding:
        pixels = random_crop(pixels, settings.crop_padding, settings.padding)
    return pixels


def _parts(pixels: "Tensor") -> Iterator[slice]:
    """What is done at a time: on a GPU all; on a CPU a few images, which stay in its caches."""
    step = PART if pixels.device.type == "cpu" else max(len(pixels), 1)
    return (slice(start, start + step) for start in range(0, len(pixels), step))


@contextlib.contextmanager
def _one_thread(pixels: "Tensor") -> Iterator[None]:
    """On a CPU: so many small operations gain little from more, and wait a lot where cores are shared."""
    threads = torch.get_num_threads()
    if pixels.device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _empty(pixels: "Tensor", dtype: torch.dtype) -> tuple["Tensor", "Tensor"]:
    """Images [B, 3, H, W] in channels_last, to be filled, and the same memory as rows [B, H, W * 3]."""
    images = torch.empty(pixels.shape, dtype=dtype, device=pixels.device)
    return images.permute(0, 3, 1, 2), images.flatten(2)


def _normalise(pixels: "Tensor", rows: "Tensor", settings: Settings) -> None:
    """(pixels / 255 - mean) / std for each channel, uint8 [B, H, W, 3] into rows [B, H, W * 3]."""
    scale, shift = _affine(settings.mean, settings.std, pixels.shape[2], pixels.device)
    # The channels' factors are repeated, so that it is one vectorised multiply-add over long rows.
    if rows.dtype == torch.float32:
        torch.addcmul(shift, rows.copy_(pixels.flatten(2)), scale, out=rows)
    else:
        rows.copy_(torch.addcmul(shift, pixels.flatten(2).float(), scale))


def _mix(images: "Tensor", targets: "Tensor", settings: Settings) -> tuple["Tensor", "Tensor"]:
    from torchvision.transforms import v2

    cut = settings.cutmix > 0 and (settings.mixup <= 0 or bool(torch.rand(()) < 0.5))
    transform = v2.CutMix(alpha=settings.cutmix) if cut else v2.MixUp(alpha=settings.mixup)
    mixed: tuple[Tensor, Tensor] = transform(images, targets)
    return mixed


@functools.lru_cache(maxsize=16)
def _affine(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device
) -> tuple["Tensor", "Tensor"]:
    # Made once: from a list to a GPU is a transfer that waits.
    scale = torch.tensor([1 / (255 * deviation) for deviation in std] * width, device=device)
    shift = torch.tensor([-m / deviation for m, deviation in zip(mean, std, strict=True)] * width, device=device)
    return scale, shift


def _scale(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    try:
        low, high = (float(part) for part in value)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not 0 < low <= high <= 1:
        raise InputError(f"data.augment.random_resized_crop is two parts of the area such as [0.35, 1.0], not {value}")
    return low, high


def _channels(key: str, value: Any, right: Callable[[float], bool]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(map(right, numbers)):
        raise InputError(
            f"data.{key} must be three numbers, for red, green and blue of pixels from 0 to 1, not {value}"
        )
    return numbers
