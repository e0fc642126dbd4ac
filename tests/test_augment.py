"""Augmentation: each operation against its definition, draws for each image, and one seed, one result."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as tv

from config.errors import InputError
from datamodules.images import augmentation

CLASSES = 7


def batch(count: int = 40, height: int = 16, width: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=random)
    return pixels, torch.randint(0, CLASSES, (count,), generator=random)


def numpy_padded(pixels: torch.Tensor, padding: int, mode: str) -> np.ndarray:
    return np.pad(pixels.numpy(), ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode=mode)


# -- normalising -------------------------------------------------------------------------------------------


def test_normalising_is_torchvisions_in_channels_last() -> None:
    pixels, _ = batch(70, 12, 20)  # more than one part, and not square
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.25, 0.3)
    images = augmentation.normalise_batch(pixels, augmentation.make_settings({}, mean, std))
    expected = tv.normalize(pixels.permute(0, 3, 1, 2).float() / 255, list(mean), list(std))
    assert images.dtype == torch.float32
    assert images.shape == (70, 3, 12, 20)
    assert images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(images, expected, atol=1e-5, rtol=1e-5)


def test_evaluation_draws_nothing_and_empty_settings_only_normalise() -> None:
    pixels, labels = batch()
    before = torch.get_rng_state()
    evaluated = augmentation.normalise_batch(pixels, augmentation.make_settings({}))
    assert torch.equal(torch.get_rng_state(), before)
    trained, targets = augmentation.augment_batch(pixels, labels, CLASSES, augmentation.make_settings({}))
    assert torch.equal(trained, evaluated)
    assert targets is labels


def test_training_works_after_evaluation_in_inference_mode() -> None:
    augmentation._scale_and_shift.cache_clear()
    pixels, labels = batch()
    with torch.inference_mode():
        augmentation.normalise_batch(pixels, augmentation.make_settings({}))
    images, _ = augmentation.augment_batch(
        pixels, labels, CLASSES, augmentation.make_settings({"flip": True, "mixup": 0.2})
    )
    network = torch.nn.Conv2d(3, 1, 3)
    network(images).sum().backward()
    assert network.weight.grad is not None


# -- crop and flip -----------------------------------------------------------------------------------------


@given(
    height=st.integers(4, 12),
    width=st.integers(4, 12),
    padding=st.integers(1, 3),
    mode=st.sampled_from(["reflect", "constant"]),
    seed=st.integers(0, 99),
)
def test_every_crop_is_the_window_at_its_corner(height: int, width: int, padding: int, mode: str, seed: int) -> None:
    pixels, _ = batch(5, height, width, seed)
    padded = augmentation.pad(pixels, padding, mode)
    expected = numpy_padded(pixels, padding, mode)
    assert np.array_equal(padded.numpy(), expected)
    corners = torch.randint(0, 2 * padding + 1, (2, 5), generator=torch.Generator().manual_seed(seed))
    windows = [
        image[top : top + height, left : left + width]
        for image, (top, left) in zip(expected, corners.T.tolist(), strict=True)
    ]
    for cut in (augmentation.crop, augmentation._crop_by_copy, augmentation._crop_by_index):
        assert np.array_equal(cut(padded, corners, height, width).numpy(), np.stack(windows))


def test_random_crops_reach_every_place_and_differ_between_images() -> None:
    torch.manual_seed(0)
    # The pixel's value is its place, so the first pixel tells where the crop began.
    places = torch.arange(64, dtype=torch.uint8).view(1, 8, 8, 1).expand(2000, 8, 8, 3)
    cropped = augmentation.random_crop(places, 2, "constant")
    corners = [tuple(divmod(int(image[4, 4, 0]), 8)) for image in cropped]
    assert set(corners) == set(itertools.product(range(2, 7), range(2, 7)))
    assert max(corners.count(corner) for corner in set(corners)) < 2000 / 25 * 1.6


@pytest.mark.parametrize("size", [(16, 16), (7, 5)])  # 7 * 5 * 3 bytes do not divide by eight
def test_a_flip_mirrors_half_of_the_images_and_leaves_the_others(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    pixels, _ = batch(600, *size)
    flipped = augmentation.random_flip(pixels)
    mirrored = (flipped == pixels.flip(2)).flatten(1).all(1)
    same = (flipped == pixels).flatten(1).all(1)
    assert bool((mirrored ^ same).all())
    assert 240 < int(mirrored.sum()) < 360


def test_a_resized_crop_of_everything_is_the_image() -> None:
    pixels, _ = batch(3)
    zero, whole = torch.zeros(3), torch.full((3,), 16.0)
    assert torch.equal(augmentation.resized_crop(pixels, zero, zero, whole, whole), pixels)


@given(left=st.integers(0, 10), top=st.integers(0, 10), across=st.integers(4, 20), down=st.integers(4, 20))
def test_a_resized_crop_is_torchvisions_away_from_its_rim(left: int, top: int, across: int, down: int) -> None:
    pixels, _ = batch(1, 32, 32)
    ours = augmentation.resized_crop(pixels, *(torch.tensor([float(value)]) for value in (left, top, across, down)))
    peer = tv.resized_crop(pixels.permute(0, 3, 1, 2), top, left, down, across, [32, 32], antialias=False)
    # At the rim torchvision repeats the crop's last pixel, where we see the image's next.
    rim_x, rim_y = 16 // across + 1, 16 // down + 1
    inner = (slice(None), slice(rim_y, -rim_y), slice(rim_x, -rim_x))
    assert (ours[inner].int() - peer.permute(0, 2, 3, 1)[inner].int()).abs().max() <= 1


def test_random_resized_crops_keep_the_area_they_may() -> None:
    torch.manual_seed(0)
    # Red grows to the right and green downwards: their ranges tell the crop's width and height.
    ramp = torch.arange(64, dtype=torch.uint8) * 4
    pixels = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.zeros(64, 64, dtype=torch.uint8)], 2)
    cropped = augmentation.random_resized_crop(pixels.expand(500, 64, 64, 3), (0.3, 0.6)).int()
    across = (cropped[:, 0, -1, 0] - cropped[:, 0, 0, 0]) / 4
    down = (cropped[:, -1, 0, 1] - cropped[:, 0, 0, 1]) / 4
    area = across * down / 64**2
    assert float(area.min()) > 0.24
    assert float(area.max()) < 0.63
    assert len(area.unique()) > 100


# -- RandAugment -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("magnitude", [3, 9, 30])
@pytest.mark.parametrize("number", range(14))
def test_each_operation_is_torchvisions(number: int, magnitude: int) -> None:
    pixels, _ = batch(3, 24, 24)
    images = pixels.permute(0, 3, 1, 2)
    name, about = list(v2.RandAugment._AUGMENTATION_SPACE.items())[number]

    only = type("Only", (v2.RandAugment,), {"_AUGMENTATION_SPACE": {name: about}})
    torch.manual_seed(0)
    peer = only(num_ops=1, magnitude=magnitude, interpolation=InterpolationMode.BILINEAR)
    expected = [peer(images) for _ in range(12)]  # both signs
    operation, signed = augmentation._operations(magnitude / 30, (24, 24))[number]
    assert signed == about[1]
    for sign in (1.0, -1.0) if signed else (1.0,):
        ours = operation(images, sign) if operation else images
        assert any(int((ours.int() - other.int()).abs().max()) <= 1 for other in expected), name


def test_each_image_draws_its_own_operations() -> None:
    torch.manual_seed(0)
    one, _ = batch(1, 24, 24)
    augmented = augmentation.randaugment(one.expand(200, 24, 24, 3), 2, 9)
    assert augmented.shape == (200, 24, 24, 3)
    assert augmented.dtype == torch.uint8
    assert len({bytes(image.numpy().tobytes()) for image in augmented}) > 100


def test_images_stay_at_their_place_in_the_batch() -> None:
    torch.manual_seed(0)
    brightness = torch.arange(0, 200, 4, dtype=torch.uint8)
    # The mean of a flat image hardly moves at a small magnitude, unless it is inverted or the like.
    pixels = brightness[:, None, None, None].expand(50, 16, 16, 3)
    moved = (augmentation.randaugment(pixels, 1, 1).float().mean((1, 2, 3)) - brightness).abs()
    assert float(moved.median()) < 4


# -- Mixup, CutMix, label smoothing ------------------------------------------------------------------------


@given(
    mixup=st.sampled_from([0.0, 0.2, 1.0]),
    cutmix=st.sampled_from([0.0, 1.0]),
    smoothing=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 50),
)
def test_mixed_targets_sum_to_one(mixup: float, cutmix: float, smoothing: float, seed: int) -> None:
    torch.manual_seed(seed)
    pixels, labels = batch(9)
    chosen = augmentation.make_settings({"mixup": mixup, "cutmix": cutmix, "label_smoothing": smoothing})
    images, targets = augmentation.augment_batch(pixels, labels, CLASSES, chosen)
    assert images.dtype == torch.float32
    if mixup or cutmix or smoothing:
        assert targets.shape == (9, CLASSES)
        torch.testing.assert_close(targets.sum(1), torch.ones(9))
        assert bool((targets >= smoothing / CLASSES - 1e-6).all())
    else:
        assert torch.equal(targets, labels)
    assert bool(torch.isfinite(cross_entropy(images.new_zeros(9, CLASSES), targets)))


@pytest.mark.parametrize("seed", range(5))
def test_mixup_blends_images_as_it_blends_labels(seed: int) -> None:
    torch.manual_seed(seed)
    pixels, _ = batch(CLASSES)
    chosen = augmentation.make_settings({"mixup": 1.0})
    images, targets = augmentation.augment_batch(pixels, torch.arange(CLASSES), CLASSES, chosen)
    plain = augmentation.normalise_batch(pixels, chosen)
    blended = torch.einsum("ij,jchw->ichw", targets, plain)
    torch.testing.assert_close(images, blended, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_labels_by_the_area_it_pastes(seed: int) -> None:
    torch.manual_seed(seed)
    colours = torch.arange(0, CLASSES * 30, 30, dtype=torch.uint8)
    pixels = colours[:, None, None, None].expand(CLASSES, 16, 16, 3)
    chosen = augmentation.make_settings({"cutmix": 1.0})
    images, targets = augmentation.augment_batch(pixels, torch.arange(CLASSES), CLASSES, chosen)
    own = augmentation.normalise_batch(pixels, chosen)
    share = (images == own).float().mean((1, 2, 3))
    torch.testing.assert_close(targets.diagonal(), share)


def test_smoothed_targets_give_the_loss_of_label_smoothing() -> None:
    pixels, labels = batch()
    _, targets = augmentation.augment_batch(
        pixels, labels, CLASSES, augmentation.make_settings({"label_smoothing": 0.1})
    )
    logits = torch.randn(40, CLASSES, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cross_entropy(logits, targets), cross_entropy(logits, labels, label_smoothing=0.1))


# -- one seed, one result ----------------------------------------------------------------------------------

EVERYTHING = {
    "random_resized_crop": [0.3, 1.0],
    "crop_padding": 2,
    "flip": True,
    "randaugment": {"ops": 2, "magnitude": 9},
    "mixup": 0.2,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
}


@pytest.mark.parametrize("chosen", [{key: value} for key, value in EVERYTHING.items()] + [EVERYTHING])
def test_the_global_generator_decides_everything(chosen: dict[str, object]) -> None:
    settings = augmentation.make_settings(chosen)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        pixels, labels = batch()
        results.append(augmentation.augment_batch(pixels, labels, CLASSES, settings))
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    if chosen != {"label_smoothing": 0.1}:
        assert not torch.equal(results[0][0], results[2][0])


def test_the_given_pixels_stay_as_they_are() -> None:
    pixels, labels = batch()
    before = pixels.clone()
    augmentation.augment_batch(pixels, labels, CLASSES, augmentation.make_settings(EVERYTHING))
    assert torch.equal(pixels, before)


# -- configuration -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_settings", "named"),
    [
        ({"cropping": 4}, "cropping"),
        ({"crop_padding": -1}, "crop_padding"),
        ({"crop_padding": 1.5}, "crop_padding"),
        ({"padding": "wrap"}, "padding"),
        ({"flip": "sometimes"}, "flip"),
        ({"mixup": -0.1}, "mixup"),
        ({"cutmix": "much"}, "cutmix"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"random_resized_crop": [1.0, 0.3]}, "random_resized_crop"),
        ({"random_resized_crop": 0.3}, "random_resized_crop"),
        ({"randaugment": {"ops": 2, "strength": 9}}, "randaugment"),
        ({"randaugment": {"ops": 0}}, "randaugment"),
        ({"randaugment": {"magnitude": 31}}, "randaugment"),
        ({"randaugment": 2}, "randaugment"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given_settings: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=rf"data\.augment.*{named}"):
        augmentation.make_settings(given_settings)


@pytest.mark.parametrize(
    ("mean", "std"),
    [([0.5, 0.5], [1, 1, 1]), ([0.5] * 3, [0.2, 0.0, 0.2]), ([127, 127, 127], [0.2] * 3), (None, [1] * 3)],
)
def test_means_and_deviations_of_other_forms_are_refused(mean: object, std: object) -> None:
    with pytest.raises(InputError, match=r"data\.(mean|std) must be three numbers"):
        augmentation.make_settings({}, mean, std)


def test_threads_are_as_before() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        pixels, labels = batch()
        augmentation.augment_batch(pixels, labels, CLASSES, augmentation.make_settings(EVERYTHING))
        augmentation.normalise_batch(pixels, augmentation.make_settings({}))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
