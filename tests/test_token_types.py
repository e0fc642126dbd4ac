"""Token types (segments): the logits of every architecture are those of transformers' own encoding of a pair."""

import json
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from tests.test_architectures import architecture
from tokenizers import processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from config.errors import InputError
from datamodules.text import tokenizer as tokenizers
from datamodules.text.encoding import EncodedTexts
from datamodules.text.tokenizer import PreparedTokenizer
from datamodules.text.windows import Limits, PairEncoder, Windows
from trainers import encoders, inference
from trainers.inference import check_token_types, span_logits

QUESTION, CONTEXT = "what is red", "the fox is red and the dog is blue"
WORDS = [*dict.fromkeys(f"{QUESTION} {CONTEXT}".split())]
LIMITS = Limits(72, 5, 20)
# Types that are tried by `make test`, with BERT's format and with that of ALBERT; all others by `make test-more`.
KINDS = ("bert", "albert", "roberta", "distilbert", "deberta-v2", "funnel", "xlnet", "gpt2", "xlm", "fnet", "big_bird")
TYPES = [name for name in MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES if name not in encoders.UNSUITABLE]
# Classes of the tokenizers of types for which transformers has only a general one, where they are those of another type.
SHARED = {"nystromformer": "AlbertTokenizer", "xlm-roberta-xl": "XLMRobertaTokenizer", "umt5": "T5Tokenizer"}
CLASSES = {name: SHARED.get(name, TOKENIZER_MAPPING_NAMES.get(name)) for name in TYPES}
# Own tokenizers that are refused, by the reason; the types themselves are tried with BERT's format.
REFUSED = {
    **dict.fromkeys(
        ("gpt2", "gpt_neo", "gpt_neox", "gptj", "mpt", "opt", "xlnet"), "no special token before a question"
    ),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next"), "no special token before a question"),
    **dict.fromkeys(("mbart", "mt5", "t5", "umt5"), "no special token before a question"),
    "canine": "the folder has no tokenizer",
    "roc_bert": "has no token offsets",
    "roformer": "rjieba",
    **dict.fromkeys(("flaubert", "xlm"), "sacremoses"),
}
# Files of those whose class takes no vocabulary.
FILES = {
    "canine": (),
    "roc_bert": ("vocab.txt", "word_shape.json", "word_pronunciation.json"),
    "roformer": ("vocab.txt",),
    **dict.fromkeys(("flaubert", "xlm"), ("vocab.json", "merges.txt")),
}


def network(model_type: str, prepared: PreparedTokenizer, **settings: Any) -> Any:
    """A small network, as training builds it for a tokenizer."""
    data = SimpleNamespace(vocab_size=400, pad_id=prepared.pad_id, max_length=72, prepared_tokenizer=prepared)
    torch.manual_seed(0)
    kind = {**architecture(model_type), **settings}
    model, _ = encoders.build_encoder(encoders.SPAN_HEAD, data, None, None, kind, None, None)
    if model_type == "xlnet":  # whose weights of segments are too small to matter
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def own_tokenizer(name: str) -> Any:
    """A tokenizer of one of transformers' classes, with a small vocabulary."""
    kind = getattr(transformers, name)
    special = ["<unk>", "<pad>", "<s>", "</s>", "<mask>", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    special += ["<cls>", "<sep>", "[QUESTION]", "<|endoftext|>", "."]
    model = kind.model.__name__ if kind.model else "Unigram"
    if model == "Unigram":
        letters = [f"▁{letter}" for letter in "abcdefghinorstuwx"] + list("abcdefghinorstuwx▁")
        return kind(
            vocab=[(token, -float(n)) for n, token in enumerate([*special, *(f"▁{w}" for w in WORDS), *letters])]
        )
    if model == "BPE":
        options = {"tags_dict": {"p": 0}} if name == "MarkupLMTokenizer" else {}
        letters = list("abcdefghinorstuwxĠ")
        return kind(vocab={token: n for n, token in enumerate([*special, *letters])}, merges=[], **options)
    return kind(vocab={token: n for n, token in enumerate([*special, *WORDS])})


def has_class(name: str) -> bool:
    """Whether a type has a class of tokenizers of its own, not a general one for any tokenizer.json."""
    return CLASSES[name] not in (None, "TokenizersBackend")


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
        torch.manual_seed(0)  # some attention hashes at random
        return torch.stack(span_logits(model, batch))


def reference(model: Any, loaded: Any, types: bool) -> torch.Tensor:
    """The same of transformers' own encoding of the pair."""
    if type(loaded).__name__ in ("LayoutLMv3Tokenizer", "MarkupLMTokenizer"):  # which take words and their places
        pair = loaded.backend_tokenizer.encode(QUESTION, CONTEXT)
        values = {"input_ids": pair.ids, "attention_mask": pair.attention_mask, "token_type_ids": pair.type_ids}
        encoded = {name: torch.tensor([value]) for name, value in values.items() if types or name != "token_type_ids"}
    else:
        encoded = loaded(QUESTION, CONTEXT, return_tensors="pt", return_token_type_ids=types)
    names = inference._parameters(type(model).forward)
    with torch.inference_mode():
        torch.manual_seed(0)
        output = model(**{name: tensor for name, tensor in encoded.items() if name in names})
    return torch.stack((output.start_logits, output.end_logits))


def embeds_types(model: Any, count: int) -> bool:
    """Whether the weights have a row for each type, or the architecture compares types."""
    sizes = [len(table) for name, table in model.named_parameters() if name.endswith("token_type_embeddings.weight")]
    return model.config.model_type in ("xlnet", "funnel") or any(size >= count for size in sizes)


def check_logits(model_type: str, loaded: Any, folder: Path, **settings: Any) -> None:
    """Compare a type's logits, and see that they depend on the token types of a model that has them."""
    prepared = prepare(loaded, folder)
    model = network(model_type, prepared, **settings)
    types = prepared.uses_types and embeds_types(model, prepared.type_count)
    expected = reference(model, prepared.load(), types)
    assert torch.equal(logits(model, prepared), expected)
    if types and model_type != "big_bird":  # which finds the same types by itself
        assert not torch.allclose(reference(model, prepared.load(), False), expected, atol=1e-6)


def walk(types: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in types]


@pytest.mark.parametrize("model_type", walk(name for name in TYPES if name != "longformer"))  # refuses that format
def test_logits_are_those_of_transformers_with_berts_format(model_type: str, tmp_path: Path) -> None:
    settings = {"type_vocab_size": 1} if model_type == "roberta" else {}
    check_logits(model_type, own_tokenizer("BertTokenizer"), tmp_path, **settings)


@pytest.mark.parametrize(
    "model_type",
    [
        pytest.param(name, marks=() if name == "albert" else pytest.mark.slow)
        for name in TYPES
        if has_class(name) and name not in REFUSED
    ],
)
def test_logits_are_those_of_every_types_own_tokenizer(model_type: str, tmp_path: Path) -> None:
    check_logits(model_type, own_tokenizer(CLASSES[model_type]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "message"), REFUSED.items())
def test_own_tokenizers_that_do_not_suit_are_refused(model_type: str, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    if model_type in FILES:
        folder.mkdir()
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": CLASSES[model_type]}))
        for name in FILES[model_type]:
            (folder / name).write_text("{}" if name.endswith(".json") else "[UNK]\n[CLS]\n[SEP]\n[PAD]\n[MASK]\n")
    else:
        loaded = own_tokenizer(CLASSES[model_type])
        loaded.pad_token = loaded.pad_token or "[PAD]"
        loaded.save_pretrained(folder)
    with pytest.raises(InputError, match=message):
        PairEncoder(tokenizers.prepare(tmp_path / "cache", tokenizer=str(folder)).folder / "tokenizer.json")


@pytest.mark.parametrize(("model_type", "setting"), encoders.QUESTION_ENDS.items())
@pytest.mark.parametrize("name", ["BertTokenizer", "RobertaTokenizer", "SplinterTokenizer"])
def test_heads_find_the_end_of_a_question_by_the_tokenizers_own_token(
    model_type: str, setting: str, name: str, tmp_path: Path
) -> None:
    """By default it is a token of the type's first checkpoint: 66 or 104, ordinary tokens of other vocabularies."""
    prepared = prepare(own_tokenizer(name), tmp_path)
    if model_type == "longformer" and name != "RobertaTokenizer":
        with pytest.raises(InputError, match="needs a tokenizer with two separators"):
            network(model_type, prepared)
        return
    token = getattr(network(model_type, prepared).config, setting)
    loaded = prepare(own_tokenizer(name), tmp_path).load()
    ids = loaded(QUESTION, CONTEXT)["input_ids"]
    question = loaded(QUESTION, add_special_tokens=False)["input_ids"]
    assert ids.index(token) - 1 - len(question) in ((0, 2) if name == "SplinterTokenizer" else (0,))


def test_a_format_without_separator_is_refused_for_them(tmp_path: Path) -> None:
    backend = own_tokenizer("BertTokenizer").backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A $B:1", special_tokens=[("[CLS]", backend.token_to_id("[CLS]"))]
    )
    prepared = prepare(PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]"), tmp_path)
    network("bert", prepared)
    for model_type in ("big_bird", "splinter"):
        with pytest.raises(InputError, match=f"a {model_type} .* needs a tokenizer with a separator"):
            network(model_type, prepared)


def test_a_model_with_fewer_types_than_the_tokenizer_is_refused(tmp_path: Path) -> None:
    prepared = prepare(own_tokenizer("BertTokenizer"), tmp_path)
    with pytest.raises(InputError, match=r"3 token types \(segments\), the model has type_vocab_size=2"):
        check_token_types(network("bert", prepared), 3)
    for model_type, settings, count in (("bert", {}, 2), ("roberta", {"type_vocab_size": 1}, 2), ("xlnet", {}, 4)):
        check_token_types(network(model_type, prepared, **settings), count)


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
    prepared = prepare(own_tokenizer(name), tmp_path)
    model = network(model_type, prepared, **settings)
    data = SimpleNamespace(tokenizer=prepared.load, max_length=72, type_count=prepared.type_count)
    encoders.export_encoder(model, data, str(tmp_path / "model"))
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
