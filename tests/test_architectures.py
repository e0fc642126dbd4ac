"""Every type of model that transformers has with a question-answering head: trained, exported, loaded, asked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForQuestionAnswering
from transformers.models.auto.modeling_auto import MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES

from config.errors import InputError
from datamodules.question_answering import QuestionAnsweringData
from trainers import encoders, fast_dropout, positions, saved_model
from trainers.drift_features import answer_features, collect_token_means
from trainers.inference import span_logits, text_inputs
from trainers.predict_answers import AnswerPredictor
from trainers.question_answering import QuestionAnswering

POSITIONS = 80
# Small values of the settings of transformers' configurations, under all their names.
SIZES = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "input_embedding_size"), 32
    ),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers"), 2),
    **dict.fromkeys(("decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "num_experts", "num_local_experts"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "attention_head_size", "rotary_dim"), 8),
    **dict.fromkeys(("intermediate_size", "d_ff", "d_inner", "hidden_dim", "n_inner", "ffn_dim"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "feed_forward_size"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), POSITIONS),
    **dict.fromkeys(("max_encoder_position_embeddings", "max_decoder_position_embeddings"), POSITIONS),
}
# Settings without which the sizes above are inconsistent, or the model is large.
EXTRA: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "layoutlmv3": {"coordinate_size": 5, "shape_size": 6, "input_size": 32},
    "lilt": {"channel_shrink_ratio": 2, "hidden_size": 48, "max_2d_position_embeddings": 64},
    "longformer": {"attention_window": [16, 16]},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 8},
    "led": {"attention_window": [16, 16]},
    "markuplm": {"xpath_unit_hidden_size": 8},
    "qwen3_next": {"num_hidden_layers": 4, "linear_num_value_heads": 4, "linear_num_key_heads": 2},
    "roc_bert": {"pronunciation_vocab_size": 10, "shape_vocab_size": 10},
}
TYPES = [name for name in MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES if name not in encoders.UNSUITABLE]
KINDS = ("deberta-v2", "mpnet", "gpt2", "t5")  # tried by `make test`; all others by `make test-more`


def architecture(model_type: str) -> dict[str, Any]:
    """A small architecture of a type."""
    default = AutoConfig.for_model(model_type)
    names = {key: value for key, value in SIZES.items() if key in default.to_dict()}
    return {"model_type": model_type, **names, **EXTRA.get(model_type, {})}


def walk(types: Any) -> list[Any]:
    return [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in types]


def roberta_tokenizer(folder: Path) -> Path:
    """A tokenizer with RoBERTa's special tokens, of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = [
        "when",
        "was",
        "the",
        "engine",
        "of",
        "city",
        "built",
        "in",
        "year",
        "by",
        "ada",
        "heron",
        "saw",
        "river",
        "?",
        ".",
    ]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *words, *map(str, range(1800, 1816)), *map(str, range(16))]
    tokenizer = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    rows = []
    for number in range(16):
        context = f"the engine of city {number} was built in year {1800 + number} by ada. the heron saw the river."
        answers = {"text": [str(1800 + number)], "answer_start": [context.index(str(1800 + number))]}
        question = f"when was the engine of city {number} built?"
        rows.append({"id": f"q{number}", "title": "t", "context": context, "question": question, "answers": answers})
    for name in ("train", "dev"):
        (folder / f"{name}.json").write_text(json.dumps({"data": rows}))
    return folder


def prepare(folder: Path, **settings: Any) -> QuestionAnsweringData:
    """The questions of a folder, ready for training."""
    limits = {"max_length": 64, "stride": 16, "max_query_length": 20}
    data = QuestionAnsweringData(path=str(folder), batch_size=4, **limits, **settings)
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def data(questions: Path) -> QuestionAnsweringData:
    return prepare(questions, vocab_size=300)


def build(data: Any, model_type: str) -> QuestionAnswering:
    module = QuestionAnswering(data, {"lr": 1e-3}, None, architecture=architecture(model_type))
    fast_dropout.enable(module.model)
    return module


@pytest.mark.parametrize("model_type", walk(TYPES))
def test_every_type_trains_and_answers_as_exported(
    model_type: str, data: QuestionAnsweringData, questions: Path, tmp_path: Path
) -> None:
    if model_type == "longformer":
        with pytest.raises(InputError, match="needs a tokenizer with two separators"):
            build(data, model_type)
        data = prepare(questions, tokenizer=str(roberta_tokenizer(tmp_path)))
    torch.manual_seed(0)
    module = build(data, model_type).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    before = {name: parameter.clone() for name, parameter in module.model.named_parameters()}
    for batch in list(data.train_dataloader())[:2]:
        optimizer.zero_grad()
        loss = module.training_step(batch, 0)
        assert torch.isfinite(loss)
        loss.backward()
        optimizer.step()
    changed = [name for name, parameter in module.model.named_parameters() if not torch.equal(parameter, before[name])]
    assert len(changed) > len(before) / 2
    module.eval()
    batch = next(iter(data.val_dataloader()))
    module.export(str(tmp_path / "model"))
    predictor = AnswerPredictor(saved_model.open_model(str(tmp_path / "model")))
    with torch.inference_mode():
        torch.manual_seed(0)  # some attention hashes at random
        ours = span_logits(module.model, batch)
        torch.manual_seed(0)
        loaded = span_logits(predictor.network, batch)
    for one, other in zip(ours, loaded, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    pair = ("when was the engine built?", "the engine was built in year 1804 by ada.")
    assert len(predictor.answer([pair], 4).start) == 1
    features = answer_features(saved_model.open_model(str(tmp_path / "model")), [pair, pair]).features
    assert features.shape[0] == 2
    assert features.shape[1] > 2  # not the logits
    assert np.isfinite(features).all()


@pytest.mark.parametrize("model_type", ["fnet", "mpnet"])  # without a mask, and with one
def test_drift_features_are_means_over_the_tokens_without_padding(model_type: str, data: QuestionAnsweringData) -> None:
    network: Any = build(data, model_type).model.eval()
    batch = next(iter(data.val_dataloader()))
    batch["input_ids"][0, -3:], batch["attention_mask"][0, -3:] = network.config.pad_token_id, 0
    mask = batch["attention_mask"].unsqueeze(2)
    with torch.inference_mode():
        hidden = network.base_model(**text_inputs(network, batch)).last_hidden_state
        means = collect_token_means(network)
        span_logits(network, batch)
    expected = (hidden * mask).sum(1) / mask.sum(1)
    np.testing.assert_allclose(means[0], expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", encoders.UNSUITABLE)
def test_types_that_do_not_train_on_texts_are_refused(model_type: str, data: QuestionAnsweringData) -> None:
    with pytest.raises(InputError, match=f"a {model_type} .*: use another model"):
        QuestionAnswering(data, {"lr": 1e-3}, None, architecture={"model_type": model_type})


@pytest.mark.parametrize("pad_id", [0, 1, 5])
@pytest.mark.parametrize("model_type", walk(TYPES))
def test_the_longest_input_is_what_the_network_takes(model_type: str, pad_id: int) -> None:
    config = encoders._new_config(encoders.SPAN_HEAD, architecture(model_type), 100, pad_id, 16)
    encoders._update_config(config, None, None, {})
    network = AutoModelForQuestionAnswering.from_config(config).eval()
    longest = positions.longest_input(network)
    assert longest == positions.longest_input_of(config, AutoModelForQuestionAnswering)

    def forward(length: int) -> None:
        tokens = torch.arange(length)[None] % 50 + 20
        if model_type == "longformer":
            tokens[0, [4, 5, -1]] = network.config.sep_token_id
        with torch.inference_mode():
            network(input_ids=tokens, attention_mask=torch.ones_like(tokens))

    forward(longest or 3 * POSITIONS)
    if longest is not None:
        assert longest <= 16384
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            forward(longest + 1)
