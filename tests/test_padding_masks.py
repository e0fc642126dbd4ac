"""Masks that are not read back from the device: the same logits and gradients as transformers' own, without NaN."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from trainers import padding_masks
from trainers.inference import span_logits, text_logits

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 50,
    "pad_token_id": 0,
}
LOCAL = {"layer_types": ["full_attention", "sliding_attention"], "local_attention": 4}


@pytest.fixture(autouse=True)
def attention() -> Iterator[None]:
    """Takes back the choice of kernels."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)


def network(kind: str, head: str = "AutoModelForQuestionAnswering") -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES, **(LOCAL if kind == "modernbert" else {}))
    return getattr(transformers, head).from_config(config).eval()


def batch(*lengths: int) -> dict[str, torch.Tensor]:
    """Sequences of these lengths, padded to the longest."""
    width = max(lengths)
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, 50, (len(lengths), width), generator=torch.Generator().manual_seed(1)) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def loss(start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(start, torch.tensor([1, 1])) + end[:, :2].sum()


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
@pytest.mark.parametrize("lengths", [(24, 24), (24, 9), (24, 3)])
def test_logits_and_gradients_are_those_of_transformers(kind: str, lengths: tuple[int, int]) -> None:
    expected, model = network(kind), network(kind)
    padding_masks.enable(model)
    assert padding_masks.is_enabled(model)
    given = batch(*lengths)
    used = padding_masks.remove_full_mask(model, given)
    assert ("attention_mask" in used) == (lengths[0] != lengths[1])
    found, wanted = span_logits(model, used), span_logits(expected, given)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    loss(*found).backward()
    loss(*wanted).backward()
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_every_query_attends_to_something() -> None:
    """A GPU's kernels give NaN otherwise."""
    model = network("modernbert")
    padding_masks.enable(model)
    masks: list[torch.Tensor] = []
    plain = padding_masks.make_mask

    def keep(*args: Any, **kwargs: Any) -> Any:
        masks.append(plain(*args, **kwargs))
        return masks[-1]

    from transformers import AttentionMaskInterface

    AttentionMaskInterface.register(padding_masks.ATTENTION_NAME, keep)
    span_logits(model, batch(24, 3))
    assert any(mask.stride(2) for mask in masks)
    assert all(mask.any(-1).all() for mask in masks)
    AttentionMaskInterface.register(padding_masks.ATTENTION_NAME, plain)


def test_the_mask_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """`bool(tensor)` of a tensor on a GPU waits for it; the host looks once, before the copy."""
    model = network("bert", "AutoModelForSequenceClassification")
    padding_masks.enable(model)
    given = batch(24, 9)
    read: list[str] = []
    as_bool = torch.Tensor.__bool__
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda self: (read.append("bool"), as_bool(self))[1])
    text_logits(model, given)
    assert read == []
    text_logits(network("bert", "AutoModelForSequenceClassification"), given)
    assert read  # transformers' own


def test_other_networks_get_their_batches_unchanged() -> None:
    given = batch(8, 8)
    assert padding_masks.remove_full_mask(torch.nn.Linear(1, 1), given) is given
    model = network("bert")
    assert padding_masks.remove_full_mask(model, given) is given
    model.set_attn_implementation("eager")
    padding_masks.enable(model)
    assert not padding_masks.is_enabled(model)
