"""Parameter groups and schedules, held to their definitions."""

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForQuestionAnswering

from trainers.optimizers import build_scheduler, parameter_groups, schedule_factor


def bert() -> torch.nn.Module:
    config = AutoConfig.for_model(
        "bert", vocab_size=50, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16
    )
    return AutoModelForQuestionAnswering.from_config(config)


@pytest.mark.parametrize("model", [bert(), timm.create_model("resnet18"), timm.create_model("vit_tiny_patch16_224")])
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_every_parameter_is_in_one_group_and_norms_and_biases_do_not_decay(
    model: torch.nn.Module, layer_decay: float
) -> None:
    groups = parameter_groups(model.named_parameters(), 1.0, 0.1, layer_decay)
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(model.parameters()))
    for group in groups:
        assert all((parameter.ndim >= 2) == (group["weight_decay"] == 0.1) for parameter in group["params"])


def test_each_layer_learns_at_a_factor_of_the_one_above() -> None:
    model = bert()
    rates = {}
    for group in parameter_groups(model.named_parameters(), 1.0, 0.1, 0.5):
        for parameter in group["params"]:
            rates[id(parameter)] = group["lr"]
    rate = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert rate["qa_outputs.weight"] == 1.0
    assert rate["bert.encoder.layer.2.output.dense.weight"] == 0.5
    assert rate["bert.encoder.layer.0.output.dense.bias"] == 0.125
    assert rate["bert.embeddings.word_embeddings.weight"] == 0.0625


def test_resnet_stages_are_layers() -> None:
    model = timm.create_model("resnet18")
    rates = {id(p): g["lr"] for g in parameter_groups(model.named_parameters(), 1.0, 0.0, 0.5) for p in g["params"]}
    rate = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert rate["fc.weight"] == 1.0
    assert rate["layer4.1.conv1.weight"] == 0.5
    assert rate["layer1.0.conv1.weight"] == 0.0625
    assert rate["conv1.weight"] == 0.03125


@given(
    schedule=st.sampled_from(["linear", "cosine", "constant"]),
    warmup=st.integers(0, 50),
    horizon=st.integers(1, 200),
    step=st.integers(0, 300),
)
def test_the_factor_stays_between_0_and_1_and_ends_at_the_horizon(
    schedule: str, warmup: int, horizon: int, step: int
) -> None:
    value = schedule_factor(schedule, warmup, horizon, step)
    assert 0.0 <= value <= 1.0
    if schedule != "constant" and step >= max(horizon, warmup + 1):
        assert value < 1e-9
    if step == warmup:
        assert value == 1.0 or horizon <= warmup


def test_the_warmup_may_be_a_share_or_steps() -> None:
    for warmup in (0.1, 10):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = build_scheduler(optimizer, "linear", warmup, 100)
        rates = []
        for _ in range(100):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        assert rates.index(max(rates)) == 10
