"""Weights of checkpoints: what fits is loaded, what does not is said or refused, and nothing else is random."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
    BertTokenizerFast,
    T5Config,
    T5ForQuestionAnswering,
)

from config.errors import InputError
from trainers import encoders, initial_weights, positions, saved_model, weights
from trainers.drift_features import answer_features, text_features
from trainers.image_classification import build_network
from trainers.predict_answers import AnswerPredictor
from trainers.predict_images import ImagePredictor
from trainers.predict_texts import TextPredictor
from trainers.question_answering import QuestionAnswering
from trainers.task import Task

VOCABULARY = {
    token: number
    for number, token in enumerate(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "wrote", "it", "ada", ".", "?"]
    )
}
DATA = SimpleNamespace(
    vocab_size=len(VOCABULARY), pad_id=0, max_length=64, type_count=2, classes=[{"id": "a"}, {"id": "b"}]
)
HEADS = {"questions": encoders.SPAN_HEAD, "texts": encoders.CLASS_HEAD}
CLASSES = {"questions": BertForQuestionAnswering, "texts": BertForSequenceClassification}
# What wrappers of networks make of the names in a checkpoint.
WRAPPED: dict[str, Callable[[str], str]] = {
    "DataParallel": lambda name: f"module.{name}",
    "compiled": lambda name: f"_orig_mod.{name}",
    "both": lambda name: f"module._orig_mod.{name}",
    "Lightning": lambda name: f"model.{name}",
}


def config(**settings: Any) -> BertConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return BertConfig(vocab_size=len(VOCABULARY), **{**sizes, **settings})


def save(network: Any, folder: Path) -> Path:
    network.save_pretrained(folder)
    BertTokenizerFast(vocab=VOCABULARY).save_pretrained(folder)
    return folder


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Changes the weights in a folder; returns the old ones."""
    file = folder / "model.safetensors"
    state = load_file(file)
    save_file(change(state), file, metadata={"format": "pt"})
    return state


def declare(folder: Path, **settings: Any) -> None:
    """Changes config.json without the weights."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def load(task: str, folder: Path, **settings: Any) -> tuple[Any, tuple[str, ...]]:
    """As train.py does with model.pretrained."""
    return encoders.build_encoder(HEADS[task], DATA, str(folder), None, None, None, None, **settings)


def assert_equal(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert {name: tensor.tolist() for name, tensor in state.items()} == {
        name: tensor.tolist() for name, tensor in expected.items()
    }


@pytest.mark.parametrize("task", HEADS)
@pytest.mark.parametrize("wrapper", WRAPPED)
def test_prefixes_of_wrappers_are_removed_and_said(
    task: str, wrapper: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save(CLASSES[task](config()), tmp_path / "model")
    state = rewrite(folder, lambda state: {WRAPPED[wrapper](name): tensor for name, tensor in state.items()})
    caplog.set_level(logging.INFO)
    network, new_parameters = load(task, folder)
    assert not new_parameters
    assert_equal(network.state_dict(), state)
    prefix = WRAPPED[wrapper]("")
    assert [record.message for record in caplog.records if "prefix" in record.message] == [
        f'model.pretrained={folder}: removed the prefix "{prefix}" from the names of its weights'
    ]
    network.save_pretrained(tmp_path / "again")
    assert_equal(load_file(tmp_path / "again" / "model.safetensors"), state)
    assert_equal(encoders.load_encoder(HEADS[task], folder).state_dict(), state)  # as predict does


# Changes of a checkpoint after which some of the network would be random, and what the message says.
DAMAGE: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "unknown prefix": (
        lambda state: {f"net.{name}": tensor for name, tensor in state.items()},
        r"it lacks bert\..* and \d+ more; it has net\.bert\.",
    ),
    "a missing layer": (
        lambda state: {name: tensor for name, tensor in state.items() if "layer.1." not in name},
        r"it lacks bert\.encoder\.layer\.1\.",
    ),
    "one missing tensor": (
        lambda state: {name: tensor for name, tensor in state.items() if "word_embeddings" not in name},
        r"it lacks bert\.embeddings\.word_embeddings\.weight$",
    ),
    "another shape": (
        lambda state: {name: tensor[:8] if "position_embeddings" in name else tensor for name, tensor in state.items()},
        r"other shapes .*position_embeddings\.weight is \(8, 16\), not \(512, 16\)",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("task", HEADS)
def test_weights_that_do_not_fit_are_refused(task: str, damage: str, tmp_path: Path) -> None:
    folder = save(CLASSES[task](config()), tmp_path / "model")
    change, message = DAMAGE[damage]
    rewrite(folder, change)
    with pytest.raises(InputError, match=f"^model.pretrained=.*another architecture: {message}"):
        load(task, folder)
    with pytest.raises(InputError, match=f"^run=.*another architecture: {message}"):
        encoders.load_encoder(HEADS[task], folder)


def test_a_missing_part_of_a_model_without_a_base_attribute_is_refused(tmp_path: Path) -> None:
    t5 = T5Config(
        vocab_size=11, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0, decoder_start_token_id=0
    )
    T5ForQuestionAnswering(t5).save_pretrained(tmp_path)
    rewrite(tmp_path, lambda state: {name: tensor for name, tensor in state.items() if "qa_outputs" not in name})
    _, new_parameters = weights.load_transformers(AutoModelForQuestionAnswering, str(tmp_path), "x")
    assert new_parameters == ("qa_outputs.bias", "qa_outputs.weight")
    rewrite(tmp_path, lambda state: {name: tensor for name, tensor in state.items() if "decoder.block.1" not in name})
    with pytest.raises(InputError, match=r"it lacks decoder\.block\.1"):
        weights.load_transformers(AutoModelForQuestionAnswering, str(tmp_path), "x")


@pytest.mark.parametrize("task", HEADS)
@pytest.mark.parametrize("kind", [BertForMaskedLM, BertModel])
def test_training_starts_with_a_new_head_and_says_so(
    task: str, kind: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save(kind(config()), tmp_path / "model")
    caplog.set_level(logging.INFO)
    network, new_parameters = load(task, folder)
    head = {"questions": "qa_outputs", "texts": "classifier"}[task]
    assert {name for name in new_parameters if "pooler" not in name} == {f"{head}.weight", f"{head}.bias"}
    word = next(name for name in load_file(folder / "model.safetensors") if "word_embeddings" in name)
    stored = load_file(folder / "model.safetensors")[word]
    assert torch.equal(network.bert.embeddings.word_embeddings.weight, stored)
    module = Task({})
    module.new_parameters = new_parameters
    initial_weights.load_initial_weights(None, module)
    said = [record.message for record in caplog.records if "random weights" in record.message]
    assert len(said) == 1
    assert new_parameters[0] in said[0]


def test_a_head_for_other_classes_is_new(tmp_path: Path) -> None:
    folder = save(BertForSequenceClassification(config(num_labels=5)), tmp_path / "model")
    _, new_parameters = load("texts", folder, num_labels=2)
    assert new_parameters == ("classifier.bias", "classifier.weight")


def test_weights_that_are_not_used_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save(BertForQuestionAnswering(config()), tmp_path / "model")
    declare(folder, num_hidden_layers=1)
    load("questions", folder)
    assert "has weights that the model does not have, which are not used: bert.encoder.layer.1." in caplog.text


PREDICTORS: dict[str, Callable[[Any], Any]] = {
    "questions": AnswerPredictor,
    "texts": TextPredictor,
    "drift of questions": lambda model: answer_features(model, [("who wrote it?", "ada wrote it.")]),
    "drift of texts": lambda model: text_features(model, [("ada wrote it.", "")]),
}


@pytest.mark.parametrize("kind", PREDICTORS)
def test_nothing_predicts_with_a_random_head(kind: str, tmp_path: Path) -> None:
    task = kind.removeprefix("drift of ")
    folder = save(BertForMaskedLM(config()), tmp_path / "model")
    declare(folder, architectures=[CLASSES[task].__name__])
    with pytest.raises(InputError, match=r"^run=.*do not include those of the head \(.*train it first"):
        PREDICTORS[kind](saved_model.open_model(str(folder)))


def test_evaluate_and_explain_refuse_a_random_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainers import evaluate

    module = SimpleNamespace(new_parameters=("qa_outputs.bias",))
    data = SimpleNamespace(prepare_data=lambda splits: None, setup=lambda stage: None)
    monkeypatch.setattr(evaluate, "build", lambda config, group, **_: data if group == "data" else module)
    model = SimpleNamespace(folder=tmp_path, module=SimpleNamespace())
    config = SimpleNamespace(optim={}, model=SimpleNamespace(_target_="trainers.task.Task"))
    with pytest.raises(InputError, match="which would be random"):
        evaluate.load_module(model, config)  # type: ignore[arg-type]


# -- files ------------------------------------------------------------------------------------------------------------


class Harmful:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def module_of(folder: Path) -> QuestionAnswering:
    return QuestionAnswering(DATA, {}, str(folder))  # type: ignore[arg-type]


def initialised(source: Path, folder: Path) -> Any:
    module = module_of(folder)
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    assert initial_weights.load_initial_weights(str(source), module) is not None
    return module.model.state_dict()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two model folders of one architecture."""
    return tuple(save(BertForQuestionAnswering(config()), tmp_path / name) for name in "ab")  # type: ignore[return-value]


@pytest.mark.parametrize(
    "form", ["safetensors", "bin", "shards", "bin shards", "file", "ckpt", "compiled ckpt", "wrapped bin"]
)
def test_init_from_takes_every_form_of_weights(form: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    source, other = pair
    state = load_file(source / "model.safetensors")
    expected = dict(state)
    path = source
    if "shards" in form:
        BertForQuestionAnswering.from_pretrained(source).save_pretrained(source, max_shard_size="4KB")
        (source / "model.safetensors").unlink(missing_ok=True)
        index = source / "model.safetensors.index.json"
        if "bin" in form:
            names = json.loads(index.read_text())
            for shard in set(names["weight_map"].values()):
                torch.save(load_file(source / shard), source / shard.replace(".safetensors", ".bin"))
                (source / shard).unlink()
            names["weight_map"] = {k: v.replace(".safetensors", ".bin") for k, v in names["weight_map"].items()}
            (source / "pytorch_model.bin.index.json").write_text(json.dumps(names))
            index.unlink()
    elif "bin" in form:
        (source / "model.safetensors").unlink()
        prefix = "module." if form.startswith("wrapped") else ""
        torch.save({prefix + name: tensor for name, tensor in state.items()}, source / "pytorch_model.bin")
    elif form == "file":
        path = source / "model.safetensors"
    elif "ckpt" in form:
        path = tmp_path / "x.ckpt"
        prefix = "_orig_mod." if form.startswith("compiled") else ""
        torch.save({"state_dict": {f"{prefix}model.{name}": tensor for name, tensor in state.items()}}, path)
    assert_equal(initialised(path, other), expected)


@pytest.mark.parametrize("command", ["init_from", "init_from a file", "model.pretrained", "predict", "images"])
def test_pickled_code_is_never_run(command: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    source, other = pair
    (source / "model.safetensors").unlink()
    torch.save({"bert.x": Harmful(tmp_path / "executed")}, source / "pytorch_model.bin")
    save_timm(tmp_path / "images")
    (tmp_path / "images" / "model.safetensors").unlink()
    shutil.copy(source / "pytorch_model.bin", tmp_path / "images")
    calls: dict[str, Callable[[], Any]] = {
        "init_from": lambda: initialised(source, other),
        "init_from a file": lambda: initialised(source / "pytorch_model.bin", other),
        "images": lambda: load_images(tmp_path / "images", 3),
        "model.pretrained": lambda: module_of(source),
        "predict": lambda: AnswerPredictor(saved_model.open_model(str(source))),
    }
    with pytest.raises(InputError, match="pickled objects, which could execute code"):
        calls[command]()
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("damage", DAMAGE)
def test_init_from_refuses_weights_that_do_not_fit(damage: str, pair: tuple[Path, Path]) -> None:
    source, other = pair
    rewrite(source, DAMAGE[damage][0])
    with pytest.raises(InputError, match=r"^init_from=.*of another architecture"):
        initialised(source, other)


def test_init_from_needs_all_of_the_head(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    folder = save(BertForMaskedLM(config()), tmp_path / "model")
    with pytest.raises(InputError, match=r"^init_from=.*it lacks qa_outputs\.bias, qa_outputs\.weight"):
        initialised(folder, pair[1])
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"neither a run nor a folder with model\.safetensors or pytorch_model\.bin"):
        initialised(folder, pair[1])


# -- images -----------------------------------------------------------------------------------------------------------


def save_timm(folder: Path, classes: int = 3) -> dict[str, Tensor]:
    """A timm model folder; returns its weights."""
    network = timm.create_model("test_resnet", num_classes=classes)
    folder.mkdir()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    preprocessing = {"classifier": "fc", "first_conv": "conv1.0", "input_size": [3, 32, 32], "num_classes": classes}
    preprocessing |= {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0, "crop_mode": "center"}
    values = {"architecture": "test_resnet", "num_classes": classes, "pretrained_cfg": preprocessing}
    (folder / "config.json").write_text(json.dumps(values))
    return state


def load_images(folder: Path, classes: int) -> tuple[Any, tuple[str, ...]]:
    return build_network("x", str(folder), {}, classes)


def test_images_load_all_or_all_but_the_classifier(tmp_path: Path) -> None:
    state = save_timm(tmp_path / "model")
    network, new_parameters = load_images(tmp_path / "model", 3)
    assert not new_parameters
    assert_equal(network.state_dict(), state)
    network, new_parameters = load_images(tmp_path / "model", 7)
    assert sorted(new_parameters) == ["fc.bias", "fc.weight"]
    loaded = network.state_dict()
    assert loaded["fc.weight"].shape[0] == 7
    assert_equal(
        {name: loaded[name] for name in state if not name.startswith("fc.")},
        {name: state[name] for name in state if not name.startswith("fc.")},
    )


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("classes", [3, 7])
def test_images_prefixes_of_wrappers_are_removed_and_said(
    wrapper: str, classes: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = save_timm(tmp_path / "model")
    rewrite(tmp_path / "model", lambda old: {WRAPPED[wrapper](name): tensor for name, tensor in old.items()})
    caplog.set_level(logging.INFO)
    network, _ = load_images(tmp_path / "model", classes)
    assert torch.equal(network.state_dict()["conv1.0.weight"], state["conv1.0.weight"])
    assert f'removed the prefix "{WRAPPED[wrapper]("")}"' in caplog.text


IMAGE_DAMAGE: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "unknown prefix": lambda state: {f"net.{name}": tensor for name, tensor in state.items()},
    "one missing tensor": lambda state: {name: tensor for name, tensor in state.items() if name != "conv1.0.weight"},
    "another shape": lambda state: {
        name: tensor[:2].clone() if name == "conv1.0.weight" else tensor for name, tensor in state.items()
    },
}


@pytest.mark.parametrize("damage", IMAGE_DAMAGE)
@pytest.mark.parametrize("classes", [3, 7, None])
def test_images_weights_that_do_not_fit_are_refused(damage: str, classes: int | None, tmp_path: Path) -> None:
    save_timm(tmp_path / "model")
    rewrite(tmp_path / "model", IMAGE_DAMAGE[damage])
    folder = tmp_path / "model"
    calls = {None: lambda: ImagePredictor(saved_model.open_model(str(folder)))}
    with pytest.raises(InputError, match="another architecture"):
        calls.get(classes, lambda: load_images(folder, classes or 0))()


# -- tokenizers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", HEADS)
def test_exported_tokenizers_neither_truncate_nor_pad(task: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    from datamodules.text import tokenizer as tokenizers

    folder = save(CLASSES[task](config()), tmp_path / "model")
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    own.enable_truncation(6)
    own.enable_padding(length=6)
    own.save(str(folder / "tokenizer.json"))
    prepared = tokenizers.prepare(tmp_path / "cache", pretrained=str(folder))
    data = SimpleNamespace(tokenizer=prepared.load, max_length=64, type_count=2)
    encoders.export_encoder(CLASSES[task].from_pretrained(folder), data, str(tmp_path / "out"))
    exported = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert (exported.truncation, exported.padding) == (None, None)
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(loaded.backend_tokenizer.encode("ada wrote it . " * 5)) == 22
    assert len(loaded("ada")["input_ids"]) == 3
    assert loaded.model_max_length == 64


# -- positions --------------------------------------------------------------------------------------------------------


def test_predict_fits_windows_and_texts_to_the_positions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save(BertForQuestionAnswering(config(max_position_embeddings=24)), tmp_path / "questions")
    predictor = AnswerPredictor(saved_model.open_model(str(folder)))
    assert (predictor.limits.max_length, predictor.limits.stride, predictor.limits.max_query_length) == (24, 7, 6)
    answers = predictor.answer([("who wrote it ?", "ada wrote it . " * 40)], 8)
    assert len(answers.start) == 1
    assert "windows are reduced to the positions of the model" in caplog.text
    folder = save(BertForSequenceClassification(config(max_position_embeddings=24)), tmp_path / "texts")
    texts = TextPredictor(saved_model.open_model(str(folder)))
    assert texts.logits([("ada wrote it . " * 40, "")], 8).shape == (1, 2)
    assert "texts are truncated to the positions of the model: 24 tokens" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=squad", "model=bert", "model.pretrained={model}"], "data.max_length=24 data.stride=7 data.max_query_length=6"),
        (["data=squad", "model=bert", "model.pretrained={model}", "data.max_length=25", "data.stride=2"], "use data.max_length=24"),
        (["data=text_folder", "model=bert_classifier", "model.pretrained={model}"], "data.max_length=256: .*use data.max_length=24$"),
        (["model=bert", "data=squad", "model.pretrained=null", "+model.architecture.max_position_embeddings=40",
          "data.max_length=41"], "use data.max_length=40"),
        (["model=bert", "data=squad", "model.pretrained=null", "data.max_length=40", "data.stride=2",
          "~model.architecture", "+model.architecture={{model_type: roberta, max_position_embeddings: 40}}"], "use data.max_length=39"),
    ],
)  # fmt: skip
def test_windows_longer_than_the_positions_are_refused_before_data_is_read(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    from config.compose import compose
    from trainers import evaluate
    from trainers.build import check_model

    folder = save(BertForQuestionAnswering(config(max_position_embeddings=24)), tmp_path / "model")
    composed = compose([*(override.format(model=folder) for override in overrides), "data.path=nowhere"])
    with pytest.raises(InputError, match=message):
        check_model(composed)
    with pytest.raises(InputError, match=message):  # evaluate and explain
        evaluate.load_module(SimpleNamespace(folder=folder, module=None), composed)  # type: ignore[arg-type]


@pytest.mark.parametrize(("model_type", "extra"), [("bert", 0), ("roberta", 1), ("mpnet", 2)])
@pytest.mark.parametrize("max_length", [384, 511, 512, 600])
def test_random_weights_have_positions_for_the_data(model_type: str, extra: int, max_length: int) -> None:
    settings = {"model_type": model_type, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    built = encoders._new_config(encoders.SPAN_HEAD, settings, 50, 0, max_length)
    assert built.max_position_embeddings == max(512, max_length + extra)


def test_tables_of_positions_may_have_more_rows_than_positions() -> None:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 40}
    bart = AutoConfig.for_model("bart", **sizes)
    assert positions.longest_input_of(bart, AutoModelForQuestionAnswering) == 40


def test_errors_of_constructors_are_explained() -> None:
    from config.compose import compose
    from config.messages import explain_error
    from trainers.build import build

    node = compose(["model=bert_tiny"])
    node.data._target_ = "builtins.int"
    with pytest.raises(Exception, match="Error in call to target") as raised:
        build(node, "data")
    assert "builtins.int: TypeError" in explain_error(raised.value)


def test_settings_that_transformers_refuses_are_named() -> None:
    with pytest.raises(InputError, match=r"model\.architecture: transformers cannot build this bert: .*hidden size"):
        encoders.build_encoder(
            encoders.SPAN_HEAD, DATA, None, None, {"hidden_size": 15, "num_attention_heads": 2}, None, None
        )
    with pytest.raises(InputError, match="transformers has no such model for text classification"):
        encoders.build_encoder(encoders.CLASS_HEAD, DATA, None, None, {"model_type": "vit"}, None, None)
