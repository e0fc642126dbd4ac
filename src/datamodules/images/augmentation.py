"""Augmentation and normalisation of whole batches, on the device that holds them.

Every example has random numbers of its own (Mixup and CutMix have one set for the batch, as in torchvision and timm). All
come from torch's global generators: that of the pixels' device, and the CPU's for Mixup and CutMix. Seeded before
each step, augmentation depends on nothing else.
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
ATTEMPTS = 10  # to draw a crop that fits
PART = 32  # images that a CPU augments at a time
MAX_MAGNITUDE = 30  # of RandAugment


@dataclass(frozen=True)
class Settings:
    """Augmentation of training batches, in this order, and normalisation of all batches.

    Attributes:
        random_resized_crop: smallest and largest share of the image's area in a crop, which is resized to the full
            size. None: off.
        crop_padding: pixels added on each side before a random crop of the original size.
        padding: "reflect" (mirrored) or "constant" (black).
        flip: mirror half of the images left to right.
        randaugment: (operations for each image, magnitude from 0 to 30), or None.
        mixup: alpha of the Beta distribution of the blending weight of two images; 0 is off.
        cutmix: alpha of the Beta distribution of the pasted area; 0 is off. With both on, each batch uses one of them
            at random.
        label_smoothing: probability mass that is spread over all classes.
        mean: of pixels from 0 to 1, for each channel.
        std: standard deviation of pixels from 0 to 1, for each channel.
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
    """Check a configuration's `augment`, `mean` and `std`.

    Args:
        augment: keys as the attributes of `Settings`; `randaugment` as {"ops": 2, "magnitude": 9}.
        mean: three numbers from 0 to 1.
        std: three numbers above 0.

    Raises:
        InputError: an unknown key, or an invalid value.
    """
    values = dict(augment or {})
    if problems := check.check_settings("data.augment", values, Keys("datamodules.images.augmentation.configure")):
        raise InputError("; ".join(problems))
    return replace(
        configure(**values),
        mean=_parse_channels("mean", mean, lambda value: 0 <= value <= 1),
        std=_parse_channels("std", std, lambda value: value > 0),
    )


def configure(
    *,
    random_resized_crop: Sequence[float] | None = None,
    crop_padding: Annotated[int, Range(low=0)] | None = 0,
    padding: Literal["reflect", "constant"] | None = "reflect",
    flip: bool | None = False,
    randaugment: Annotated[
        Mapping[str, Any] | None, Keys("datamodules.images.augmentation.configure_randaugment")
    ] = None,
    mixup: Annotated[float, Range(low=0)] | None = 0.0,
    cutmix: Annotated[float, Range(low=0)] | None = 0.0,
    label_smoothing: Annotated[float, Range(low=0, below=1)] | None = 0.0,
) -> Settings:
    """Make `Settings` of the keys of conf/data's `augment`; None is the default."""
    return Settings(
        random_resized_crop=_parse_scale(random_resized_crop),
        crop_padding=crop_padding or 0,
        padding=padding or "reflect",
        flip=bool(flip),
        randaugment=None if randaugment is None else configure_randaugment(**randaugment),
        mixup=float(mixup or 0),
        cutmix=float(cutmix or 0),
        label_smoothing=float(label_smoothing or 0),
    )


def configure_randaugment(
    ops: Annotated[int, Range(low=1)] = 2, magnitude: Annotated[int, Range(low=0, high=30)] = 9
) -> tuple[int, int]:
    """Make `Settings.randaugment` of the keys of conf/data's `augment.randaugment`."""
    return ops, magnitude


def augment_batch(
    pixels: "Tensor", labels: "Tensor", num_classes: int, settings: Settings
) -> tuple["Tensor", "Tensor"]:
    """Augment and normalise a batch.

    Args:
        pixels: uint8 [B, H, W, 3].
        labels: int64 [B].
        num_classes: number of classes of the data.
        settings: of augmentation and normalisation.

    Returns:
        Images float32 [B, 3, H, W] in channels_last. Targets: the labels; with Mixup, CutMix or label smoothing
        float32 [B, num_classes] that sum to one. `torch.nn.functional.cross_entropy` takes both.
    """
    with _single_thread(pixels):
        mixing = settings.mixup > 0 or settings.cutmix > 0
        if settings.random_resized_crop is not None:
            pixels = random_resized_crop(pixels, settings.random_resized_crop)
        if settings.randaugment is not None:
            # On the full batch: images with the same operation are processed together.
            pixels = randaugment(_flip_and_crop(pixels, settings), *settings.randaugment)
        images, rows = _empty_images(pixels)
        for part in _parts(pixels):
            inputs = pixels[part] if settings.randaugment is not None else _flip_and_crop(pixels[part], settings)
            _normalise(inputs, rows[part], settings)
        if not mixing and not settings.label_smoothing:
            return images, labels
        targets = torch.nn.functional.one_hot(labels, num_classes).float()
        if mixing:
            images, targets = _mix(images, targets, settings)
        if settings.label_smoothing:
            targets = targets.mul_(1 - settings.label_smoothing).add_(settings.label_smoothing / num_classes)
        return images, targets


def normalise_batch(pixels: "Tensor", settings: Settings) -> "Tensor":
    """Normalise a batch for evaluation, uint8 [B, H, W, 3] to float32 [B, 3, H, W] in channels_last."""
    images, rows = _empty_images(pixels)
    with _single_thread(pixels):
        for part in _parts(pixels):
            _normalise(pixels[part], rows[part], settings)
    return images


def random_flip(pixels: "Tensor") -> "Tensor":
    """Mirror each image left to right with probability 1/2, uint8 [B, H, W, 3]."""
    mirrored = torch.rand(len(pixels), device=pixels.device) < 0.5
    # Eight bytes at a time if possible: `torch.where` is slow on single bytes.
    word = torch.int64 if pixels[0].numel() % 8 == 0 else torch.uint8
    original, flipped = (images.contiguous().flatten(1).view(word) for images in (pixels, pixels.flip(2)))
    return torch.where(mirrored[:, None], flipped, original).view(torch.uint8).view(pixels.shape)


def random_crop(pixels: "Tensor", padding: int, mode: str = "reflect") -> "Tensor":
    """Pad each side, and crop each image to its original size at a random position.

    Args:
        pixels: uint8 [B, H, W, 3].
        padding: pixels on each side; if mirrored, less than the image's side.
        mode: "reflect" or "constant" (black).
    """
    corners = torch.randint(0, 2 * padding + 1, (2, len(pixels)), device=pixels.device)
    return crop(pad(pixels, padding, mode), corners, pixels.shape[1], pixels.shape[2])


def pad(pixels: "Tensor", padding: int, mode: str = "reflect") -> "Tensor":
    """Pad [B, H, W, 3] to [B, H + 2 padding, W + 2 padding, 3], mirrored without the edge pixels, or black."""
    if mode == "constant":
        return torch.nn.functional.pad(pixels, (0, 0, padding, padding, padding, padding))
    for axis in (2, 1):
        last = pixels.shape[axis] - 1
        mirror = pixels.flip(axis)  # of the full image: faster than of strips, which are not contiguous
        low, high = mirror.narrow(axis, last - padding, padding), mirror.narrow(axis, 1, padding)
        pixels = torch.cat([low, pixels, high], axis)
    return pixels


def crop(pixels: "Tensor", corners: "Tensor", height: int, width: int) -> "Tensor":
    """Crop each image to a window of its own.

    Args:
        pixels: uint8 [B, H, W, 3].
        corners: int64 [2, B], top and left of each window.
        height: of the windows, in pixels.
        width: of the windows, in pixels.

    Returns:
        uint8 [B, height, width, 3].
    """
    crop_windows = _crop_by_copy if pixels.device.type == "cpu" else _crop_by_index
    return crop_windows(pixels.contiguous(), corners, height, width)


def _crop_by_copy(pixels: "Tensor", corners: "Tensor", height: int, width: int) -> "Tensor":
    """Crop by one strided copy per image; several times as fast on a CPU as torch's indexing."""
    count, _, _, channels = pixels.shape
    rows = pixels.flatten(2).numpy()  # a window's row is contiguous
    windows = np.empty((count, height, width * channels), np.uint8)
    for index, (top, left) in enumerate(zip(*corners.tolist(), strict=True)):
        windows[index] = rows[index, top : top + height, left * channels : (left + width) * channels]
    return torch.from_numpy(windows).view(count, height, width, channels)


def _crop_by_index(pixels: "Tensor", corners: "Tensor", height: int, width: int) -> "Tensor":
    """Crop by indexing a view of all possible windows, for GPUs: no transfer of the corners, no loop."""
    count, rows, columns, channels = pixels.shape
    positions = (rows - height + 1, columns - width + 1)
    image, row, pixel, _ = pixels.stride()
    windows = pixels.as_strided((count, *positions, height, width * channels), (image, row, pixel, row, 1))
    crops = windows[torch.arange(count, device=pixels.device), corners[0], corners[1]]
    return crops.view(count, height, width, channels)


def random_resized_crop(pixels: "Tensor", scale: tuple[float, float]) -> "Tensor":
    """Crop each image to a random window, and resize it (bilinear) to the original size.

    Areas and ratios are drawn as by torchvision's RandomResizedCrop. The window is never larger than the result, so
    that no antialiasing is needed.

    Args:
        pixels: uint8 [B, H, W, 3].
        scale: smallest and largest share of the area.
    """
    count, height, width, _ = pixels.shape
    device = pixels.device
    area = height * width * torch.empty(count, ATTEMPTS, device=device).uniform_(*scale)
    ratio = torch.empty(count, ATTEMPTS, device=device).uniform_(math.log(RATIO[0]), math.log(RATIO[1])).exp()
    across, down = (area * ratio).sqrt().round().clamp_(min=1), (area / ratio).sqrt().round().clamp_(min=1)
    fits = (across <= width) & (down <= height)
    first = fits.int().argmax(1, keepdim=True)  # the first that fits, else the full image
    any_fits = fits.any(1)
    across = torch.where(any_fits, across.gather(1, first)[:, 0], width)
    down = torch.where(any_fits, down.gather(1, first)[:, 0], height)
    left = (torch.rand(count, device=device) * (width - across + 1)).floor()
    top = (torch.rand(count, device=device) * (height - down + 1)).floor()
    return resized_crop(pixels, left, top, across, down)


def resized_crop(pixels: "Tensor", left: "Tensor", top: "Tensor", across: "Tensor", down: "Tensor") -> "Tensor":
    """Resize a window of each image to the full size (bilinear).

    Args:
        pixels: uint8 [B, H, W, 3].
        left: [B] left edge of each window, in pixels.
        top: [B] upper edge.
        across: [B] width.
        down: [B] height.
    """
    count, height, width, _ = pixels.shape
    theta = torch.zeros(count, 2, 3, device=pixels.device)  # window to image, in coordinates from -1 to 1
    theta[:, 0, 0], theta[:, 0, 2] = across / width, (2 * left + across) / width - 1
    theta[:, 1, 1], theta[:, 1, 2] = down / height, (2 * top + down) / height - 1
    grid = torch.nn.functional.affine_grid(theta, [count, 3, height, width], align_corners=False)
    images = torch.nn.functional.grid_sample(
        pixels.permute(0, 3, 1, 2).float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return images.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def randaugment(pixels: "Tensor", ops: int, magnitude: int) -> "Tensor":
    """Apply RandAugment (arXiv:1909.13719) with torchvision's operations.

    Operations and signs are drawn for each image; images with the same draw are processed together.

    Args:
        pixels: uint8 [B, H, W, 3].
        ops: operations for each image.
        magnitude: 0 to 30.
    """
    size = (pixels.shape[1], pixels.shape[2])
    table = _operations(magnitude / MAX_MAGNITUDE, size)
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
    """Torchvision's operations of RandAugment at a strength from 0 to 1: (operation, whether it has a sign)."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as tv

    height, width = size
    shear = math.degrees(math.atan(0.3 * strength))
    colour = 0.9 * strength
    bits = round(8 - 4 * strength)
    bilinear = InterpolationMode.BILINEAR

    def affine(images: "Tensor", translate: list[float], shear: list[float], center: list[float] | None) -> "Tensor":
        result: Tensor = tv.affine(images, 0.0, translate, 1.0, shear, interpolation=bilinear, center=center)
        return result

    return [
        (None, False),
        (lambda images, sign: affine(images, [0, 0], [sign * shear, 0.0], [0, 0]), True),
        (lambda images, sign: affine(images, [0, 0], [0.0, sign * shear], [0, 0]), True),
        (
            lambda images, sign: affine(images, [int(sign * 150 / 331 * width * strength), 0], [0.0, 0.0], None),
            True,
        ),
        (
            lambda images, sign: affine(images, [0, int(sign * 150 / 331 * height * strength)], [0.0, 0.0], None),
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


def _flip_and_crop(pixels: "Tensor", settings: Settings) -> "Tensor":
    if settings.flip:
        pixels = random_flip(pixels)
    if settings.crop_padding:
        pixels = random_crop(pixels, settings.crop_padding, settings.padding)
    return pixels


def _parts(pixels: "Tensor") -> Iterator[slice]:
    """Parts of a batch to process at a time: all of it on a GPU; a few images on a CPU, which stay in its caches."""
    step = PART if pixels.device.type == "cpu" else max(len(pixels), 1)
    return (slice(start, start + step) for start in range(0, len(pixels), step))


@contextlib.contextmanager
def _single_thread(pixels: "Tensor") -> Iterator[None]:
    """Use one thread on a CPU: small operations gain little from more, and wait long where cores are shared."""
    threads = torch.get_num_threads()
    if pixels.device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _empty_images(pixels: "Tensor") -> tuple["Tensor", "Tensor"]:
    """Uninitialised images, float32 [B, 3, H, W] in channels_last, and the same memory as rows [B, H, W * 3]."""
    images = torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device)
    return images.permute(0, 3, 1, 2), images.flatten(2)


def _normalise(pixels: "Tensor", rows: "Tensor", settings: Settings) -> None:
    """Write (pixels / 255 - mean) / std of each channel, of uint8 [B, H, W, 3], into rows, float32 [B, H, W * 3]."""
    scale, shift = _scale_and_shift(settings.mean, settings.std, pixels.shape[2], pixels.device)
    # The channels' factors are repeated: one vectorised multiply-add over long rows.
    torch.addcmul(shift, rows.copy_(pixels.flatten(2)), scale, out=rows)


def _mix(images: "Tensor", targets: "Tensor", settings: Settings) -> tuple["Tensor", "Tensor"]:
    from torchvision.transforms import v2

    use_cutmix = settings.cutmix > 0 and (settings.mixup <= 0 or bool(torch.rand(()) < 0.5))
    transform = v2.CutMix(alpha=settings.cutmix) if use_cutmix else v2.MixUp(alpha=settings.mixup)
    mixed: tuple[Tensor, Tensor] = transform(images, targets)
    return mixed


@functools.lru_cache(maxsize=16)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device
) -> tuple["Tensor", "Tensor"]:
    # Cached: copying a list to a GPU synchronises.
    scale = torch.tensor([1 / (255 * deviation) for deviation in std] * width, device=device)
    shift = torch.tensor([-m / deviation for m, deviation in zip(mean, std, strict=True)] * width, device=device)
    return scale, shift


def _parse_scale(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    try:
        low, high = (float(part) for part in value)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not 0 < low <= high <= 1:
        raise InputError(
            f"data.augment.random_resized_crop must be two shares of the area such as [0.35, 1.0], not {value}"
        )
    return low, high


def _parse_channels(key: str, value: Any, is_valid: Callable[[float], bool]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(map(is_valid, numbers)):
        raise InputError(f"data.{key} must be three numbers, for red, green and blue pixels from 0 to 1, not {value}")
    return numbers
