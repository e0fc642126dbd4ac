"""What a data set's configuration sets for the model, and warnings of combinations that waste time."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from tests.conftest import Run

from config.check import check_config
from config.compose import compose
from config.errors import InputError
from runs.folder import config_differences
from trainers import advice, initial_weights
from trainers.build import build
from trainers.image_classification import ImageClassification


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=resnet50", "data=image_folder"], (True, "standard", 3e-4)),
        (["model=resnet18", "data=image_folder"], (True, "standard", 3e-4)),
        (["model=vit_small", "data=image_folder"], (True, "standard", 1e-4)),
        (["model=resnet50", "data=tiny_imagenet"], (False, "small", 2e-3)),
        (["model=resnet18", "data=shapes"], (False, "small", 1e-3)),
        (["model=convnext_tiny", "data=tiny_imagenet"], (False, "standard", 1e-4)),
        (["model=resnet18", "data=image_folder", "model.pretrained=false", "model.stem=small"], (False, "small", 3e-4)),
        (["model.pretrained=null", "model=resnet18", "data=image_folder"], (None, "standard", 3e-4)),
        (["model=resnet18", "data=image_folder", "data.suitable.pretrained=false"], (False, "standard", 3e-4)),
        (["model=resnet18", "data=shapes", "model.pretrained=true"], (True, "small", 1e-3)),
    ],
)
def test_a_data_set_says_what_suits_it_and_an_override_wins(
    overrides: list[str], expected: tuple[bool | None, str, float]
) -> None:
    config = compose(overrides)
    check_config(config)
    assert (config.model.pretrained, config.model.stem, config.model.lr) == expected
    assert config.optim.lr == expected[2]


def test_a_run_is_resumed_whatever_the_data_set_suggests_now() -> None:
    old = {"model": {"pretrained": False}, "data": {"path": "a"}}
    new = {"model": {"pretrained": False}, "data": {"path": "a", "suitable": {"pretrained": True}}}
    assert config_differences(old, new) == []
    assert config_differences(old, {**new, "model": {"pretrained": True}}) == [("model.pretrained", False, True)]


def write_images(folder: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        for red, name in ((0, "black"), (200, "red")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (40, 40), (red, number, 0)).save(folder / split / name / f"{number}.png")


def test_weights_that_cannot_be_had_are_told_before_any_image_is_decoded(run: Run, tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    small = ["model=resnet18", "data=image_folder", "data.path=images", "data.image_size=32", "quality=off",
             "trainer.max_steps=1", "trainer.threads=1", "hydra.run.dir=run"]  # fmt: skip
    told = run("train.py", *small)
    assert told.returncode == 2
    assert "cannot get the weights timm/resnet18.a1_in1k (model.pretrained=true): HF_HUB_OFFLINE is set" in told.stderr
    assert "model.pretrained=false for random weights" in told.stderr
    assert "decoding" not in told.stderr
    made = run("train.py", *small, "model.pretrained=false", "model.name=test_resnet")
    assert made.returncode == 0, made.stderr
    # The standard stem: the exported model takes images of the size that it was trained on.
    saved = OmegaConf.load(tmp_path / "run" / "model" / "config.json")
    assert saved.pretrained_cfg.input_size == [3, 32, 32]
    # Weights that init_from replaces are not fetched.
    small = [*small[:-1], "model.name=test_resnet"]
    assert "cannot get the weights timm/test_resnet" in run("train.py", *small, "hydra.run.dir=third").stderr
    made = run("train.py", *small, "init_from=run", "hydra.run.dir=second")
    assert made.returncode == 0, made.stderr
    assert "weights of run" in made.stderr
    assert "fine-tuning the weights" not in made.stderr
    assert "from the Hub" not in made.stderr


def test_a_network_that_gets_other_weights_is_built_without_timms(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were looked for")

    for name in ("_check_weights", "weights.load_timm"):
        monkeypatch.setattr(f"trainers.image_classification.{name}", refuse)
    words = ["model=resnet18", "data=image_folder", "model.name=test_resnet", "data.image_size=32"]
    data = SimpleNamespace(num_classes=2, image_size=32)
    for source in (f"init_from={tmp_path}", f"population_parent={tmp_path}"):
        config = compose([*words, source])
        if "population" in source:  # of the first generation
            with pytest.raises(AssertionError, match="weights were looked for"):
                ImageClassification.check_config(config)
            assert initial_weights.network_arguments(config) == {}
            (tmp_path / "checkpoints").mkdir()
            (tmp_path / "checkpoints" / "best.ckpt").touch()
        ImageClassification.check_config(config)
        module = build(config, "model", data=data, optim={}, **initial_weights.network_arguments(config))
        assert module.new_parameters == ()


def test_a_network_without_weights_is_refused() -> None:
    config = compose(["model=resnet18", "data=image_folder", "model.name=cspresnet50d"])
    with pytest.raises(
        InputError, match=r"^model\.name=cspresnet50d: timm has no weights for it; use model\.pretrained=fa"
    ):
        ImageClassification.check_config(config)


def test_the_small_stem_is_warned_of_at_large_sizes(caplog: pytest.LogCaptureFixture) -> None:
    words = ["model=resnet18", "data=image_folder", "model.pretrained=false", "model.stem=small"]
    ImageClassification.check_config(compose(words))
    assert (
        "model.stem=small is for images of about 64 pixels: at data.image_size=224 each step takes four" in caplog.text
    )
    caplog.clear()
    ImageClassification.check_config(compose([*words, "data.image_size=64"]))
    ImageClassification.check_config(compose(words[:-1]))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("parameters", "examples", "settings", "warned"),
    [
        (25_000_000, 20_000, {"pretrained": False}, True),
        (25_000_000, 30_000, {"pretrained": False}, False),
        (15_000_000, 10, {"pretrained": None}, False),
        (25_000_000, 10, {"pretrained": True}, False),
        (25_000_000, 10, {}, False),
        (25_000_000, 10, {"pretrained": None, "init_from": "runs/a"}, False),
    ],
)
def test_large_random_models_on_little_data_are_warned_of(
    parameters: int, examples: int, settings: dict[str, object], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    model = SimpleNamespace(parameters=lambda: [torch.empty(parameters, device="meta")])
    data = SimpleNamespace(train_dataloader=lambda: SimpleNamespace(dataset=range(examples)))
    init_from = settings.pop("init_from", None)
    advice.warn_random_weights(OmegaConf.create({"model": settings, "init_from": init_from}), model, data)
    message = f"million random weights learn little from {examples} examples"
    assert (message in caplog.text) == warned


def test_random_weights_that_nobody_chose_are_warned_of_with_models_that_are_fine_tuned(run: Run) -> None:
    message = "model=bert_tiny, the default, has random weights, for tests with generated data; model=minilm or model=bert fine"
    for words, warned in (
        (["data=squad"], True),
        (["data=squad_v2", "optim.lr=1e-4"], True),
        (["data=squad", "model=bert_tiny"], False),
        (["data=squad", "init_from=old"], False),
    ):
        told = run("train.py", *words, "data.path=none", "hydra.run.dir=run")
        assert told.returncode == 2
        assert "there is no folder data.path=none" in told.stderr
        assert (message in told.stderr) == warned


def test_models_that_data_sets_suggest_are_pretrained() -> None:
    for data in ("squad", "squad_v2"):
        for name in compose([f"data={data}"]).data.suitable.models:
            assert compose([f"model={name}", f"data={data}"]).model.pretrained
