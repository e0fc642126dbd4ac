"""timm's architectures: at any size that they take, exported so that plain timm builds the same network, and timm's own folders."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from tests.conftest import Run
from timm.data import create_transform, resolve_data_config
from timm.models._registry import _module_to_models

from config.compose import compose
from config.errors import InputError
from datamodules.images import augmentation, decoder
from trainers import image_sizes
from trainers.build import check_model
from trainers.image_classification import ImageClassification
from trainers.image_preprocessing import read_preprocessing
from trainers.predict_images import ImagePredictor
from trainers.saved_model import open_model

CLASSES = ["a", "b", "c"]
# One of each way to take an image size: positions, windows, mixing over positions, relative positions, convolutions.
REPRESENTATIVE = [
    "test_vit", "test_vit_relpos", "test_coatnet", "gmixer_12_224", "swinv2_cr_tiny_ns_224", "eva02_tiny_patch14_224",
    "test_mambaout", "test_resnet", "levit_128s",
]  # fmt: skip


def network(name: str, size: int, stem: str = "standard", **arguments: Any) -> ImageClassification:
    """An untrained classifier for images of a size."""
    data: Any = SimpleNamespace(
        num_classes=len(CLASSES), image_size=size, classes=[{"id": name, "name": name} for name in CLASSES],
        mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2), augment=augmentation.Settings(), resizing=decoder.TRAINING,
    )  # fmt: skip
    torch.manual_seed(0)
    return ImageClassification(data, {}, name, stem=stem, arguments=arguments)  # type: ignore[arg-type]


def export(module: ImageClassification, folder: Path) -> Path:
    """The model folder of a classifier whose weights all differ from those of a new one."""
    with torch.no_grad():
        for tensor in module.model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.001 * torch.rand_like(tensor))  # more, and the activations of deep networks overflow
    module.export(str(folder))
    return folder


def assert_same_everywhere(module: ImageClassification, folder: Path, size: int) -> None:
    """Assert that training works, and that plain timm and `predict` build the exported network again."""
    images = torch.rand(2, 3, size, size)
    module.model.train()(images).sum().backward()
    export(module, folder)
    with torch.inference_mode():
        expected = module.model.eval()(images)
        assert expected.shape == (2, len(CLASSES))
        assert expected.isfinite().all()
        plain = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        torch.testing.assert_close(plain.state_dict(), module.model.state_dict(), rtol=0, atol=0)
        torch.testing.assert_close(plain(images), expected, rtol=1e-3, atol=1e-3)
        predictor = ImagePredictor(open_model(str(folder)))
        torch.testing.assert_close(predictor.network(images), expected, rtol=1e-3, atol=1e-3)
    config = json.loads((folder / "config.json").read_text())
    assert read_preprocessing(config)["image_size"] == size
    assert config["pretrained_cfg"]["fixed_input_size"] == (config["model_args"].get("img_size") == size)


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_networks_are_exported_at_the_size_of_the_data(name: str, tmp_path: Path) -> None:
    size = 70 if "patch14" in name else 64
    assert_same_everywhere(network(name, size), tmp_path / "model", size)


def smallest(module: str) -> str:
    """The architecture of a family with the fewest parameters."""

    def parameters(name: str) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in timm.create_model(name).parameters())

    names = sorted(name for name in _module_to_models[module] if timm.is_model(name))
    candidates = sorted(names, key=lambda name: ("test_" not in name, not name.endswith(("0", "s", "t")), len(name)))
    return min(candidates[:12], key=parameters)


def usable_size(name: str) -> int:
    """64 pixels, or the smallest size that the refusal of 64 names."""
    try:
        image_sizes.size_arguments(name, {}, 64)
    except InputError as error:
        return int(str(error).partition("of the sizes tried it takes ")[2].partition(",")[0])
    return 64


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", sorted(_module_to_models))
def test_every_family_of_timm(family: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name = smallest(family)
        size = usable_size(name)
        assert_same_everywhere(network(name, size), tmp_path / "model", size)


REFUSED = {
    "size": (["model=vit_small", "model.name=test_vit", "data.image_size=60"],
             r"data\.image_size=60: timm's test_vit does not take .*it takes 32, 64, 160"),
    "only one size": (["model.name=efficientformer_l1"], r"does not take images of this size .*it takes 224$"),
    "too small": (["model.name=inception_v3"], r"it takes 96, 299$"),
    "size of its own": (["model=vit_small", "model.name=test_vit_relpos", "+model.arguments={img_size: 96}"],
                        r"data\.image_size=64: timm's test_vit_relpos does not take .*it takes 96"),
    "channels": (["+model.arguments={in_chans: 1}"], r"model\.arguments\.in_chans=1: images have three channels"),
    "classes": (["+model.arguments={num_classes: 9}"], r"model\.arguments\.num_classes: the data determines"),
    "features": (["+model.arguments={features_only: true}"], r"cannot classify .*not one logit per class"),
    "unknown argument": (["+model.arguments={depth: 3}"], r"model\.arguments: timm's resnet18 does not take them"),
    "unknown name": (["model.name=resnet19"], r"model\.name=resnet19: timm has no such model"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_train_is_refused_with_the_configuration(case: str) -> None:
    overrides, message = REFUSED[case]
    config = compose(["model=resnet18", "model.stem=standard", "data=tiny_imagenet", *overrides])
    with pytest.raises(InputError, match=message):
        check_model(config)


def test_a_refused_size_ends_the_run_before_data_is_prepared(run: Run, tmp_path: Path) -> None:
    done = run(
        "train.py", "model=vit_small", "model.name=test_vit", "data=shapes", "data.image_size=60",
        f"hydra.run.dir={tmp_path / 'run'}", ISOTRAIN_CACHE=str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "it takes 32, 64, 160" in done.stderr
    assert not (tmp_path / "cache").exists()


def test_a_network_of_a_folder_keeps_the_folders_arguments(tmp_path: Path) -> None:
    """Trained further at another size, and exported again."""
    first = export(network("test_resnet", 64, channels=[8, 16, 24, 32]), tmp_path / "first")
    module = network("test_resnet", 96)
    again = ImageClassification(module.data, {}, "resnet18", pretrained=str(first))
    assert_same_everywhere(again, tmp_path / "second", 96)


def test_networks_whose_modules_share_weights_are_exported(tmp_path: Path) -> None:
    """As CoaT's; safetensors refuses tensors that share memory."""
    module = network("test_resnet", 64)
    first, second, *_ = (part for part in module.model.modules() if isinstance(part, torch.nn.BatchNorm2d))
    second.weight = torch.nn.Parameter(first.weight.detach()[: len(second.weight)])
    second.bias = torch.nn.Parameter(second.weight.detach())
    export(module, tmp_path / "model")
    plain = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(plain(images), module.model.eval()(images))


def test_a_transformer_exported_without_its_size_still_loads(tmp_path: Path) -> None:
    """As by earlier versions."""
    module = network("test_vit", 64)
    folder = export(module, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    del config["model_args"]["img_size"], config["pretrained_cfg"]["fixed_input_size"]
    (folder / "config.json").write_text(json.dumps(config))
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        predictor = ImagePredictor(open_model(str(folder)))
        torch.testing.assert_close(predictor.network(images), module.model.eval()(images))


def test_a_search_for_a_size_draws_no_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    image_sizes._find_problem.cache_clear()
    assert image_sizes.size_arguments("test_vit", {}, 64) == {"img_size": 64}
    assert torch.equal(torch.rand(4), expected)


# -- the small stem ---------------------------------------------------------------------------------------------------


def gradient_images(count: int) -> Iterator[Image.Image]:
    """Images of several sizes, with details of several pixels."""
    random = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(random.integers(0, 256, (24, 24, 3), np.uint8))
        yield small.resize((120 + 9 * number, 200 - 7 * number), Image.Resampling.BICUBIC)


def test_plain_timm_sees_images_of_other_sizes_almost_as_training_does_with_a_small_stem(tmp_path: Path) -> None:
    module = network("resnet18", 48, stem="small", channels=[8, 8, 8, 8])
    folder = export(module, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"] == [3, 96, 96]
    assert config["pretrained_cfg"]["interpolation"] == "box"
    assert read_preprocessing(config) == {
        "image_size": 48, "crop_pct": 1.0, "crop_mode": "center", "interpolation": "bicubic",
        "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.2],
    }  # fmt: skip
    plain = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config({}, model=plain))
    predictor = ImagePredictor(open_model(str(folder)))
    near, exact = [], []
    for image in gradient_images(8):
        path = tmp_path / "image.png"
        image.save(path)
        expected = predictor.logits([predictor.prepare(path.read_bytes())])[0]
        with torch.inference_mode():
            near.append(float((plain(transform(image)[None])[0] - expected).norm()))
            stored = Image.fromarray(predictor.prepare(path.read_bytes()).numpy())
            exact.append(float((plain(transform(stored)[None])[0] - expected).norm()))
    scale = float(expected.norm())
    assert max(exact) < 1e-4 * scale
    assert max(near) < 0.1 * scale


def test_stems_of_earlier_exports_are_still_recognised(tmp_path: Path) -> None:
    module = network("resnet18", 48, stem="small", channels=[8, 8, 8, 8])
    folder = export(module, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    del config["small_stem"]
    config["pretrained_cfg"]["interpolation"] = "nearest"
    (folder / "config.json").write_text(json.dumps(config))
    images = torch.rand(2, 3, 48, 48)
    with torch.inference_mode():
        predictor = ImagePredictor(open_model(str(folder)))
        torch.testing.assert_close(predictor.network(images), module.model.eval()(images))
    assert read_preprocessing(config)["interpolation"] == "bicubic"


# -- timm's own folders -----------------------------------------------------------------------------------------------

PREPROCESSING: dict[str, dict[str, Any]] = {
    "test size": {"input_size": (3, 32, 32), "test_input_size": (3, 48, 48), "crop_pct": 0.8, "test_crop_pct": 0.95},
    "squashed": {"input_size": (3, 40, 40), "crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bilinear"},
    "border": {"input_size": (3, 40, 40), "crop_pct": 1.0, "crop_mode": "border", "interpolation": "lanczos"},
    "colours": {"input_size": (3, 40, 40), "crop_pct": 0.875, "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)},
    "timm's defaults": {},
}


def timm_folder(folder: Path, settings: dict[str, Any]) -> Path:
    """A model folder as timm saves it."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=2)
    keys = ("test_input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std", "input_size", "test_crop_pct")
    timm.models.save_for_hf(model, str(folder), model_config={"label_names": ["a", "b"]}, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    stored = {key: value for key, value in config["pretrained_cfg"].items() if key not in keys} | settings
    (folder / "config.json").write_text(json.dumps(config | {"pretrained_cfg": stored, "label_names": ["a", "b"]}))
    return folder


@pytest.mark.parametrize("case", PREPROCESSING)
def test_images_for_timms_own_folders_are_prepared_as_its_validation_does(case: str, tmp_path: Path) -> None:
    folder = timm_folder(tmp_path / "model", PREPROCESSING[case])
    plain = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config({}, model=plain, use_test_size=True))
    predictor = ImagePredictor(open_model(str(folder)))
    for image in gradient_images(4):
        image.save(tmp_path / "image.png")
        with torch.inference_mode():
            expected = plain(transform(image)[None])
        logits = predictor.logits([predictor.prepare((tmp_path / "image.png").read_bytes())])
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["test size", pytest.param("squashed", marks=pytest.mark.slow)])
def test_evaluate_scores_timms_own_folder_as_timms_validation_does(case: str, run: Run, tmp_path: Path) -> None:
    folder = timm_folder(tmp_path / "model", PREPROCESSING[case])
    for number, image in enumerate(gradient_images(8)):
        for split in ("train", "val"):
            path = tmp_path / "images" / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    done = run("-m", "trainers", "evaluate", f"run={folder}", "data=image_folder", f"data.path={tmp_path / 'images'}",
               "trainer.precision=32-true", "trainer.accelerator=cpu", "--output", str(tmp_path / "out"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    plain = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config({}, model=plain, use_test_size=True))
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == 8
    for row in map(json.loads, lines):
        with Image.open(tmp_path / "images" / row["id"]) as image, torch.inference_mode():
            probabilities = plain(transform(image)[None]).softmax(1)[0]
        assert row["prediction"] == "ab"[int(probabilities.argmax())]
        assert row["probability"] == pytest.approx(float(probabilities.max()), abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_size": (3, 64, 48)}, r"48 x 64 pixels; square images of three channels"),
        ({"input_size": (1, 28, 28)}, r"1 channel\(s\) and 28 x 28"),
        ({"interpolation": "random"}, r"interpolation=random is not a filter"),
    ],
)
def test_images_that_cannot_be_prepared_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_preprocessing({"architecture": "test_resnet", "pretrained_cfg": settings})
