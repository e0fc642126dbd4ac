"""Token types (segments): the logits of every architecture are those of transformers' own encoding of a pair."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForQuestionAnswering, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from config.errors import InputError
from datamodules.text import tokenizer as tokenizers
from datamodules.text.encoding import EncodedTexts
from datamodules.text.tokenizer import PreparedTokenizer
from datamodules.text.windows import Limits, PairEncoder, Windows
from trainers import inference
from trainers.inference import check_token_types, declare_inputs, span_logits

QUESTION, CONTEXT = "what is red", "the fox is red and the dog is blue"
WORDS = [*dict.fromkeys(f"{QUESTION} {CONTEXT}".split())]
LIMITS = Limits(40, 5, 10)
SIZES = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "input_embedding_size"), 32
    ),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "num_experts", "num_local_experts"), 4),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "attention_head_size", "rotary_dim"), 8),
    **dict.fromkeys(("intermediate_size", "d_ff", "d_inner", "hidden_dim", "ffn_dim", "encoder_ffn_dim"), 64),
    **dict.fromkeys(("decoder_ffn_dim", "feed_forward_size", "moe_intermediate_size"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 96),
    "vocab_size": 400,
}
EXTRA: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "lilt": {"channel_shrink_ratio": 2, "hidden_size": 48, "max_2d_position_embeddings": 64},
    "longformer": {"attention_window": [16, 16]},
    "led": {"attention_window": [16, 16]},
    "qwen3_next": {"num_hidden_layers": 4, "linear_num_value_heads": 4, "linear_num_key_heads": 2},
    "reformer": {"axial_pos_embds": False},
    "xmod": {"default_language": "en_XX"},
}
# Models of pages and images, and those whose own tokenizer has no offsets, no special token before a question or no
# small vocabulary that its class takes: tried with BERT's format.
MODELS = {"bert": {}, "albert": {}, "roberta": {"type_vocab_size": 1}, "distilbert": {}, "deberta-v2": {}, "funnel": {},
          "xlnet": {}, "gpt2": {}, "xlm": {}, "fnet": {}, "big_bird": {"attention_type": "original_full"}}  # fmt: skip


def network(model_type: str, **settings: Any) -> Any:
    default = AutoConfig.for_model(model_type)
    sizes = {name: value for name, value in SIZES.items() if name in default.to_dict()}
    config = AutoConfig.for_model(model_type, **{**sizes, **EXTRA.get(model_type, {}), "pad_token_id": 0, **settings})
    torch.manual_seed(0)
    model = AutoModelForQuestionAnswering.from_config(config).eval()
    if model_type == "xlnet":  # whose weights of segments are too small to matter
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def own_tokenizer(name: str) -> Any:
    """A tokenizer of one of transformers' classes, with a small vocabulary."""
    kind = getattr(transformers, name)
    special = ["<pad>", "<unk>", "<s>", "</s>", "<mask>", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    special += ["<cls>", "<sep>", "[QUESTION]", "<|endoftext|>", "."]
    if kind.model.__name__ == "Unigram":
        letters = [f"▁{letter}" for letter in "abcdefghinorstuwx"] + list("abcdefghinorstuwx▁")
        return kind(
            vocab=[(token, -float(n)) for n, token in enumerate([*special, *(f"▁{w}" for w in WORDS), *letters])]
        )
    if kind.model.__name__ == "BPE":
        letters = list("abcdefghinorstuwxĠ")
        return kind(vocab={token: n for n, token in enumerate([*special, *letters])}, merges=[])
    return kind(vocab={token: n for n, token in enumerate([*special, *WORDS])})


def prepare(loaded: Any, folder: Path) -> PreparedTokenizer:
    if loaded.pad_token_id is None:
        loaded.pad_token = "[PAD]"
    loaded.save_pretrained(folder / "tokenizer")
    return tokenizers.prepare(folder / "cache", tokenizer=str(folder / "tokenizer"))


def logits(model: Any, prepared: PreparedTokenizer) -> torch.Tensor:
    """Start and end logits of one window, as validation computes them."""
    encoder = PairEncoder(prepared.folder / "tokenizer.json")
    windows = Windows.of_records(encoder, [(QUESTION, CONTEXT)], LIMITS, prepared.pad_id, prepared.uses_types)
    length = int(windows.lengths[0])
    batch = {name: torch.from_numpy(array)[:, :length] for name, array in windows.batch([0]).items() if array.ndim == 2}
    with torch.inference_mode():
        return torch.stack(span_logits(model, batch))


def reference(model: Any, loaded: Any, types: bool) -> torch.Tensor:
    """The same of transformers' own encoding of the pair."""
    encoded = loaded(QUESTION, CONTEXT, return_tensors="pt", return_token_type_ids=types)
    names = inference._parameters(type(model).forward)
    with torch.inference_mode():
        output = model(**{name: tensor for name, tensor in encoded.items() if name in names})
    return torch.stack((output.start_logits, output.end_logits))


def embeds_types(model: Any, count: int) -> bool:
    """Whether the weights have a row for each type, or the architecture compares types."""
    tables = [module for name, module in model.named_modules() if "token_type_embedding" in name]
    sizes = [table.num_embeddings for table in tables if isinstance(table, torch.nn.Embedding)]
    return model.config.model_type in ("xlnet", "funnel") or any(size >= count for size in sizes)


@pytest.mark.parametrize("model_type", MODELS)
def test_logits_are_those_of_transformers_with_berts_format(model_type: str, tmp_path: Path) -> None:
    model, loaded = network(model_type, **MODELS[model_type]), own_tokenizer("BertTokenizer")
    prepared = prepare(loaded, tmp_path)
    assert prepared.type_count == 2
    types = embeds_types(model, 2)
    expected = reference(model, loaded, types)
    assert torch.equal(logits(model, prepared), expected)
    if types:  # it matters
        assert not torch.allclose(reference(model, loaded, False), expected, atol=1e-6)


OWN = {
    name: TOKENIZER_MAPPING_NAMES[name]
    for name in MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES
    if name in TOKENIZER_MAPPING_NAMES
}


@pytest.mark.parametrize("model_type", [pytest.param(n, marks=() if n == "albert" else pytest.mark.slow) for n in OWN])
def test_logits_are_those_of_every_types_own_tokenizer(model_type: str, tmp_path: Path) -> None:
    try:
        model = network(model_type)
        loaded = own_tokenizer(OWN[model_type])
        prepared = prepare(loaded, tmp_path)
        PairEncoder(prepared.folder / "tokenizer.json")
    except Exception as error:  # listed where the test is run
        pytest.skip(f"{type(error).__name__}: {error}")
    expected = reference(model, loaded, prepared.uses_types and embeds_types(model, prepared.type_count))
    assert torch.equal(logits(model, prepared), expected)


def test_a_model_with_fewer_types_than_the_tokenizer_is_refused() -> None:
    with pytest.raises(InputError, match=r"3 token types \(segments\), the model has type_vocab_size=2"):
        check_token_types(network("bert"), 3)
    for accepted, count in ((network("bert"), 2), (network("roberta", type_vocab_size=1), 2), (network("xlnet"), 4)):
        check_token_types(accepted, count)


@pytest.mark.parametrize(
    ("model_type", "name", "settings"),
    [
        ("albert", "AlbertTokenizer", {}),
        ("roberta", "BertTokenizer", {"type_vocab_size": 1}),
        ("bert", "BertTokenizer", {}),
    ],
)
def test_an_exported_tokenizer_returns_what_validation_passes(
    model_type: str, name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    model, prepared = network(model_type, **settings), prepare(own_tokenizer(name), tmp_path)
    exported = prepared.load()
    declare_inputs(exported, model, prepared.type_count)
    exported.save_pretrained(tmp_path / "model")
    encoded = AutoTokenizer.from_pretrained(tmp_path / "model")(QUESTION, CONTEXT, return_tensors="pt")
    assert ("token_type_ids" in encoded) == inference.takes_token_types(model)
    with torch.inference_mode():
        output = model(**encoded)
    assert torch.equal(torch.stack((output.start_logits, output.end_logits)), logits(model, prepared))
    stored = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    assert ("model_input_names" in stored) == (model_type != "bert")


def test_pairs_of_texts_have_token_types_too(tmp_path: Path) -> None:
    prepared, loaded = prepare(own_tokenizer("AlbertTokenizer"), tmp_path), own_tokenizer("AlbertTokenizer")
    batch = EncodedTexts.of_records(prepared, [(QUESTION, CONTEXT)], 40).batch([0])
    expected = loaded(QUESTION, CONTEXT, return_token_type_ids=True)["token_type_ids"]
    assert batch["token_type_ids"][0, : len(expected)].tolist() == expected
    assert set(expected) == {0, 1}
