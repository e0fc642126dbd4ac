"""The small stem is timm's own ResNet on an image of twice the size."""

import pytest
import timm
import torch

from config.errors import InputError
from trainers import stem


def test_a_small_stem_is_exactly_a_large_one_on_repeated_pixels() -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=7).eval().double()
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    repeated = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    stem.use_small_stem(model)
    model.double()
    plain = timm.create_model("resnet18", num_classes=7).eval().double()
    plain.load_state_dict(stem.enlarge_stem(model.state_dict()))
    torch.testing.assert_close(plain(repeated), model(images), rtol=1e-12, atol=1e-12)


def test_an_enlarged_state_is_folded_back_exactly() -> None:
    model = timm.create_model("resnet18")
    stem.use_small_stem(model)
    state = model.state_dict()
    again = timm.create_model("resnet18")
    again.load_state_dict(stem.enlarge_stem(state))
    stem.use_small_stem(again)
    assert torch.equal(again.conv1.weight, model.conv1.weight)


def test_pretrained_weights_are_folded_not_thrown_away() -> None:
    """On an image that changes slowly the two stems see about the same."""
    model = timm.create_model("resnet18").eval()
    smooth = torch.nn.functional.interpolate(torch.randn(1, 3, 5, 5), size=64, mode="bicubic")
    large = model.conv1(smooth.repeat_interleave(2, 2).repeat_interleave(2, 3))
    stem.use_small_stem(model)
    small = model.conv1(smooth)
    inner = (..., slice(4, -4), slice(4, -4))
    correlation = torch.corrcoef(torch.stack([large[inner].flatten(), small[inner].flatten()]))[0, 1]
    assert correlation > 0.8


def test_other_networks_are_refused() -> None:
    with pytest.raises(InputError, match=r"model\.stem=small is for timm's ResNets"):
        stem.use_small_stem(timm.create_model("vit_tiny_patch16_224"))
