"""Dropout and attention with dropout on a CPU: torch's distribution and gradients, only quicker."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trainers import fast_dropout, hardware

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def module(p: float) -> fast_dropout.Dropout:
    return fast_dropout.Dropout(p).train()


# The mask


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.001, 0.1, 0.3, 0.5, 0.9])
def test_rate_and_expectation(dtype: torch.dtype, p: float) -> None:
    size = 2_000_000
    out = module(p)(torch.ones(size, dtype=dtype))
    kept = (out != 0).double().mean().item()
    assert abs(kept - (1 - p)) < 4.5 * math.sqrt(p * (1 - p) / size) + 1 / 131_072
    # What stays is scaled alike, so that the expectation is the input (to the dtype's rounding of the scale).
    assert len(out.unique()) == 2
    assert out.double().max().item() == pytest.approx(1 / (1 - p), rel=2 * torch.finfo(dtype).eps + 1e-4)


@given(st.floats(0.0005, 0.9995))
@settings(max_examples=40, deadline=None)
def test_every_16_bit_value_is_counted(p: float) -> None:
    # Each of the 65,536 values of the noise once: exactly round(p * 65536) are at or below the threshold.
    count = round(p * fast_dropout.NOISE_LEVELS)
    every = torch.arange(-fast_dropout.NOISE_LEVELS // 2, fast_dropout.NOISE_LEVELS // 2).to(torch.int16)
    for dtype in DTYPES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fast_dropout, "_random", lambda _: every.clone())
            noise, threshold, scale = fast_dropout.draw_noise((fast_dropout.NOISE_LEVELS,), p, dtype)
        kept = fast_dropout._apply_threshold(torch.ones_like(noise), noise, threshold, torch.empty_like(noise))
        assert (kept == 0).sum() == count
        assert scale == fast_dropout.NOISE_LEVELS / (fast_dropout.NOISE_LEVELS - count)


def test_the_usual_rates_need_no_conversion_in_bfloat16() -> None:
    assert all(
        fast_dropout._bfloat16_threshold(round(p * fast_dropout.NOISE_LEVELS)) is not None
        for p in (0.05, 0.1, 0.2, 0.3)
    )


def test_bits_are_uniform_and_independent() -> None:
    bits = fast_dropout._random(4 * fast_dropout.STREAM_WORDS * 5 // 2)  # two streams and a half
    values = bits.double() / 32768
    assert abs(values.mean()) < 5 * values.std() / math.sqrt(len(values))
    counts = torch.bincount((bits.int() + 32768) >> 8, minlength=256).double()
    expected = len(bits) / 256
    chi = (((counts - expected) ** 2) / expected).sum().item()
    assert 255 - 6 * math.sqrt(510) < chi < 255 + 6 * math.sqrt(510)
    # Neighbours, elements of the same 64-bit word, and the same place in the next stream are uncorrelated.
    for lag in (1, 2, 3, 4, 64, 4 * fast_dropout.STREAM_WORDS):
        correlation = (values[lag:] * values[:-lag]).mean() / values.var()
        assert abs(correlation) < 5 / math.sqrt(len(values) - lag), lag


def test_calls_and_seeds() -> None:
    drop, x = module(0.5), torch.ones(100_000)
    first, second = drop(x), drop(x)
    assert abs(((first == 0) & (second == 0)).float().mean() - 0.25) < 0.01
    torch.manual_seed(0)
    assert torch.equal(drop(x), first)
    state = torch.get_rng_state()
    third = drop(x)
    torch.set_rng_state(state)
    assert torch.equal(drop(x), third)


def test_threads_do_not_matter() -> None:
    size = 4 * fast_dropout.STREAM_WORDS * 3 + 7
    before = torch.get_num_threads()
    masks = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(1)
            masks.append(fast_dropout._random(size))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_has_the_mask(dtype: torch.dtype) -> None:
    x = torch.ones(1000, dtype=dtype, requires_grad=True)
    out = module(0.3)(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())


def test_plain_where_it_should_be() -> None:
    x = torch.randn(100)
    assert torch.equal(module(0.5).eval()(x), x)
    assert torch.equal(module(0.0)(x), x)
    assert torch.equal(module(1.0)(x), torch.zeros(100))
    assert module(0.5)(torch.empty(0, 3)).shape == (0, 3)
    assert module(0.5)(torch.ones(3, device="meta")).is_meta
    inplace = torch.ones(1000)
    assert fast_dropout.Dropout(0.5, inplace=True).train()(inplace) is inplace
    assert (inplace == 0).any()


# Attention


def naive(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, keep: torch.Tensor
) -> torch.Tensor:
    """Attention as one writes it down; `keep` [B, H, Q, K] is the dropout mask over 1 - p."""
    scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return (scores.softmax(-1) * keep) @ v


def inputs(dtype: torch.dtype, batch: int = 2, heads: int = 3, length: int = 17, width: int = 8) -> list[torch.Tensor]:
    # As a model makes them: transposed views.
    return [torch.randn(batch, length, heads, width, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(3)]


def padding(batch: int = 2, length: int = 17) -> torch.Tensor:
    keep = torch.arange(length) < torch.tensor([length, length - 5])[:, None]
    return keep[:, None, None, :].expand(batch, 1, length, length)


def ours(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, p: float) -> torch.Tensor:
    torch.manual_seed(3)
    return fast_dropout.attention(nn.Identity(), q, k, v, mask, p, is_causal=False)[0].transpose(1, 2)


def same_mask(q: torch.Tensor, k: torch.Tensor, p: float) -> torch.Tensor:
    """The mask that `ours` draws."""
    torch.manual_seed(3)
    batch, heads, queries, _ = q.shape
    noise, threshold, scale = fast_dropout.draw_noise((batch * heads, queries, k.shape[2]), p, q.dtype)
    return ((noise > threshold) | noise.isnan()).to(q.dtype).view(batch, heads, queries, -1) * scale


@pytest.mark.parametrize("masked", ["none", "padding", "rows"])
def test_attention_is_the_naive_one_and_so_are_its_gradients(masked: str) -> None:
    q, k, v = inputs(torch.float64)
    rows = (torch.rand(2, 1, 17, 17) > 0.3) | torch.eye(17).bool()
    mask = {"none": None, "padding": padding(), "rows": rows}[masked]
    keep = same_mask(q, k, 0.2)
    assert 0 < (keep == 0).double().mean() < 0.4
    out, expected = ours(q, k, v, mask, 0.2), naive(q, k, v, mask, keep)
    torch.testing.assert_close(out, expected)
    upstream = torch.randn_like(out)
    found = torch.autograd.grad(out, (q, k, v), upstream)
    for a, b in zip(found, torch.autograd.grad(expected, (q, k, v), upstream), strict=True):
        torch.testing.assert_close(a, b)
    small = [x.detach()[:, :2, :5, :4].requires_grad_() for x in (q, k, v)]
    small_mask = None if mask is None else mask[:, :, :5, :5]
    assert torch.autograd.gradcheck(lambda q, k, v: ours(q, k, v, small_mask, 0.2), small)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_attention_in_training_precisions(dtype: torch.dtype, near: float) -> None:
    exact = inputs(torch.float64, length=40)
    rough = [x.detach().to(dtype).requires_grad_() for x in exact]
    keep = same_mask(rough[0], rough[1], 0.1)
    mask = padding(length=40)
    out, expected = ours(*rough, mask, 0.1), naive(*exact, mask, keep.double())
    assert (out - expected).norm() / expected.norm() < near
    for a, b in zip(
        torch.autograd.grad(out.double().square().sum(), rough),
        torch.autograd.grad(expected.square().sum(), exact),
        strict=True,
    ):
        assert (a - b).norm() / b.norm() < near


@pytest.mark.parametrize("units", [True, False])
def test_attention_in_bfloat16_without_dropout(units: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []
    inner = fast_dropout.Attention.apply
    monkeypatch.setattr(fast_dropout.Attention, "apply", lambda *given: calls.append(given[-1]) or inner(*given))
    monkeypatch.setattr(fast_dropout, "cpu_flags", lambda: frozenset({"amx_bf16"} if units else ()))
    q, k, v = inputs(torch.bfloat16, length=40)
    mask = padding(length=40)
    out = fast_dropout.attention(nn.Identity().train(), q, k, v, mask, 0.0)[0].transpose(1, 2)
    expected = nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), mask)
    assert (out - expected).norm() / expected.norm() < 0.01
    assert calls == ([] if units else [0.0])
    for a, b in zip(
        torch.autograd.grad(out.double().square().sum(), (q, k, v)),
        torch.autograd.grad(expected.square().sum(), (q, k, v)),
        strict=True,
    ):
        assert (a - b).norm() / b.norm() < 0.02
    calls.clear()
    with torch.no_grad():
        fast_dropout.attention(nn.Identity().eval(), q.detach(), k.detach(), v.detach(), mask, 0.0)
    assert not calls, "its forward is quick"


@pytest.mark.parametrize("ours", [True, False])
def test_attention_in_float32_goes_by_whose_products_are_used(ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []
    inner = fast_dropout.Attention.apply
    monkeypatch.setattr(fast_dropout.Attention, "apply", lambda *given: calls.append(given[-1]) or inner(*given))
    before = torch.backends.mkldnn.matmul.fp32_precision
    q, k, v = inputs(torch.float32, length=40)
    mask = padding(length=40)
    try:
        torch.backends.mkldnn.matmul.fp32_precision = "bf16" if ours else "none"
        out = fast_dropout.attention(nn.Identity(), q, k, v, mask, 0.0)[0].transpose(1, 2)
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
    expected = nn.functional.scaled_dot_product_attention(q, k, v, mask)
    assert calls == ([0.0] if ours else [])
    if "amx_bf16" not in fast_dropout.cpu_flags():
        assert (out - expected).norm() / expected.norm() < 1e-5


def test_attention_expects_what_it_is_without_dropout() -> None:
    q, k, v = (x.detach() for x in inputs(torch.float32))
    total = (
        sum(fast_dropout.attention(nn.Identity(), q, k, v, None, 0.3, is_causal=False)[0] for _ in range(1500)) / 1500
    )
    plain = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    assert (total - plain).abs().max() < 0.15
    assert ((total - plain).mean()).abs() < 0.005


def test_attention_leaves_to_sdpa_what_it_does_not_do() -> None:
    q, k, v = (x.detach() for x in inputs(torch.float32))
    plain = nn.functional.scaled_dot_product_attention
    causal = fast_dropout.attention(nn.Identity(), q, k, v, None, 0.0, is_causal=True)[0].transpose(1, 2)
    torch.testing.assert_close(causal, plain(q, k, v, is_causal=True))
    state = torch.get_rng_state()
    torch.testing.assert_close(
        fast_dropout.attention(nn.Identity(), q, k, v, padding(), 0.0)[0].transpose(1, 2),
        plain(q, k, v, padding()),
    )
    assert torch.equal(torch.get_rng_state(), state)
    first = fast_dropout.attention(nn.Identity(), q, k, v, None, 0.5, is_causal=True)[0].transpose(1, 2)[:, :, 0]
    # The first query sees the first key alone, dropped or doubled.
    assert torch.equal((first == 0).all(-1) | torch.isclose(first, 2 * v[:, :, 0]).all(-1), torch.ones(2, 3).bool())


# Models


def tiny(kind: str, p: float = 0.1) -> nn.Module:
    from transformers import AutoConfig, AutoModelForQuestionAnswering

    sizes = {"vocab_size": 50, "max_position_embeddings": 64}
    if kind == "distilbert":
        sizes |= {
            "dim": 24,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 48,
            "dropout": p,
            "attention_dropout": p,
            "qa_dropout": p,
        }
    else:
        sizes |= {
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "hidden_dropout_prob": p,
            "attention_probs_dropout_prob": p,
        }
    torch.manual_seed(0)
    attention = "eager" if kind == "mpnet" else "sdpa"  # transformers has no other for it
    return AutoModelForQuestionAnswering.from_config(AutoConfig.for_model(kind, **sizes), attn_implementation=attention)


BATCH = {
    "input_ids": torch.arange(2, 34).view(2, 16),
    "attention_mask": (torch.arange(16) < torch.tensor([[16], [11]])).long(),
}


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "electra", "mpnet"])
def test_models(kind: str, tmp_path: pytest.TempPathFactory) -> None:
    model = tiny(kind)
    quick = copy.deepcopy(model)
    fast_dropout.enable(quick)
    assert any(type(module) is fast_dropout.Dropout for module in quick.modules())
    fast_dropout.enable(quick)
    assert not any(type(m) is nn.Dropout for m in quick.modules())
    assert list(quick.state_dict()) == list(model.state_dict())
    model.eval(), quick.eval()
    with torch.no_grad():
        torch.testing.assert_close(quick(**BATCH).start_logits, model(**BATCH).start_logits)
    quick.train()
    torch.manual_seed(5)
    first = quick(**BATCH).start_logits
    first.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for n, p in quick.named_parameters() if "pooler" not in n)
    torch.manual_seed(5)
    assert torch.equal(quick(**BATCH).start_logits, first)
    quick.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path / "plain")
    assert (tmp_path / "config.json").read_text() == (tmp_path / "plain" / "config.json").read_text()


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "electra"])
def test_models_go_through_our_attention(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []
    inner = fast_dropout.Attention.apply
    monkeypatch.setattr(fast_dropout.Attention, "apply", lambda *given: calls.append(given[-1]) or inner(*given))
    model = tiny(kind).train()
    fast_dropout.enable(model)
    model(**BATCH)
    assert calls == [0.1, 0.1]
    model.eval()(**BATCH)
    assert len(calls) == 2


def test_models_expect_what_torch_expects() -> None:
    # Logits over many masks: the same mean and spread as with torch's dropout.
    model = tiny("bert", 0.2).train()
    quick = copy.deepcopy(model)
    fast_dropout.enable(quick)
    batch = {key: value.repeat(250, 1) for key, value in BATCH.items()}
    with torch.no_grad():
        logits = [torch.stack(m(**batch).start_logits.view(250, 2, 16).split(1)).squeeze(1) for m in (model, quick)]
    for a, b in ((x[0, :, 0], x[1, :, 0]) for x in [torch.stack(logits)]):
        assert (a.mean(0) - b.mean(0)).abs().max() < 5 * a.std(0).max() / math.sqrt(125)
        assert (a.std(0) / b.std(0) - 1).abs().max() < 0.25


def test_autocast_and_checkpointing() -> None:
    model = tiny("bert").train()
    fast_dropout.enable(model)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        torch.manual_seed(2)
        with torch.autocast("cpu", torch.bfloat16):
            model(**BATCH).start_logits.sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_fitting_turns_dropout_on() -> None:
    # A loaded checkpoint is in eval mode, and Lightning would leave it there.
    import lightning.pytorch as pl

    from trainers.question_answering import QuestionAnswering

    module = QuestionAnswering.__new__(QuestionAnswering)
    pl.LightningModule.__init__(module)
    module.model = tiny("bert").eval()
    module._trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    module.setup("fit")
    module.on_fit_start()
    assert all(part.training for part in module.modules())
    assert module.model.config._attn_implementation == fast_dropout.ATTENTION_NAME


# The processor's settings


def test_quick_float32_is_float32() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    try:
        hardware.enable_onednn_float32()
        assert hardware._float32_is_exact()
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


def test_quick_float32_gives_way_to_bfloat16_units(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    for flags, vendor, exact in (
        ({"avx512f", "amx_bf16"}, "AuthenticAMD", True),
        ({"avx512f"}, "GenuineIntel", True),
        ({"avx2"}, "AuthenticAMD", True),
        ({"avx512f"}, "AuthenticAMD", False),
    ):
        monkeypatch.setattr(hardware, "cpu_flags", lambda flags=flags: frozenset(flags))
        monkeypatch.setattr(hardware, "read_cpuinfo", lambda key, vendor=vendor: vendor)
        monkeypatch.setattr(hardware, "_float32_is_exact", lambda exact=exact: exact)
        assert not hardware.enable_onednn_float32()
        assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_the_float32_check_sees_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware._float32_is_exact()
    plain = torch.Tensor.__matmul__

    def rough(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return plain(a, b) if a.dtype == torch.float64 else plain(a.bfloat16(), b.bfloat16()).float()

    monkeypatch.setattr(torch.Tensor, "__matmul__", rough)
    assert not hardware._float32_is_exact()


@pytest.mark.parametrize(
    ("units", "expected"),
    [({"avx2"}, "32-true"), ({"avx512f", "avx512_bf16"}, "bf16-mixed"), ({"amx_bf16"}, "bf16-mixed")],
)
def test_precision_auto_goes_by_the_processor(units: set[str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset(units))
    assert hardware.resolve_precision("auto", "cpu") == expected
    assert hardware.resolve_precision("16-mixed", "cpu") == "16-mixed"
