"""The tokenizer of a run: loaded, or trained on the training split, and stored as a folder that transformers loads.

Its properties that training needs (padding id, size, type ids) are stored with it as JSON: a warm start imports
neither transformers nor tokenizers before it builds a model.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.errors import InputError, ResourceError
from datamodules.sources import hub
from datamodules.sources.hub_errors import MODEL_ALTERNATIVES, hub_access
from datamodules.storage import cache, fingerprint

FORMAT = 1  # part of the cache key: increment it when the entries change
SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
ROBERTA_TOKENS = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")  # in the same order
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)


@dataclass(frozen=True)
class PreparedTokenizer:
    """A tokenizer in the cache.

    Attributes:
        folder: for transformers' AutoTokenizer; the tokenizers library loads its `tokenizer.json`.
        fingerprint: of its source; part of the cache keys of its output.
        vocab_size: one more than the largest token id.
        pad_id: id of the padding token.
        uses_types: whether its models take token type ids.
        source: description of its source, for records and messages.
    """

    folder: Path
    fingerprint: str
    vocab_size: int
    pad_id: int
    uses_types: bool
    source: str

    def load(self) -> Any:
        """Load the transformers tokenizer."""
        return _load_folder(self.folder)


@dataclass(frozen=True)
class Corpus:
    """Texts to train a vocabulary on.

    Attributes:
        fingerprint: of the texts.
        texts: yields the texts.
    """

    fingerprint: str
    texts: Callable[[], Iterable[str]]


def prepare(
    root: Path,
    pretrained: str | None = None,
    tokenizer: str | None = None,
    vocab_size: int | None = None,
    corpus: Corpus | None = None,
    revision: str | None = None,
    verify: fingerprint.Verify = "fast",
) -> PreparedTokenizer:
    """Return the configured tokenizer as a cache entry.

    Args:
        root: the cache folder.
        pretrained: checkpoint whose tokenizer is used without `tokenizer`: a folder or a Hub name.
        tokenizer: a folder, a `vocab.txt` (WordPiece, BERT's), a `tokenizer.json`, or a Hub name.
        vocab_size: of the vocabulary that is trained if both are None.
        corpus: that the vocabulary is trained on.
        revision: of `pretrained`, if it is a Hub name.
        verify: "full" reads local files again even if they look unchanged.

    Raises:
        InputError: no such file or name, no network, or an unsuitable tokenizer.
    """
    name = tokenizer or pretrained
    if name is None:
        return _prepare_trained(root, vocab_size, corpus)
    key = "model.tokenizer" if tokenizer else "model.pretrained"
    path = Path(name).expanduser()
    if path.is_dir():
        return _prepare_folder(root, path, key, verify)
    if path.is_file():
        return _prepare_file(root, path, key, verify)
    if name.startswith(("/", ".", "~")) or name.endswith((".txt", ".json")) or name.count("/") > 1:
        raise InputError(f"there is no file or folder {key}={name} (in {Path.cwd()})")
    return _prepare_hub(root, name, None if tokenizer else revision)


def _prepare_folder(root: Path, path: Path, key: str, verify: fingerprint.Verify) -> PreparedTokenizer:
    files = [str(path / file) for file in FILES if (path / file).is_file()]
    names = {Path(file).name for file in files}
    if not names - {"config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer_config.json"}:
        content = ", ".join(sorted(child.name for child in path.iterdir())[:12]) or "nothing"
        raise InputError(f"{key}={path}: the folder has no tokenizer (tokenizer.json, vocab.txt, ...); found {content}")
    if "vocab.txt" in names and not names & {"tokenizer.json", "tokenizer_config.json", "config.json"}:
        return _prepare_file(root, path / "vocab.txt", key, verify)
    return _prepare(root, fingerprint.hash_files(files, root, verify), str(path), lambda: _load_folder(path))


def _load_folder(path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(path), local_files_only=True)


def _prepare_file(root: Path, path: Path, key: str, verify: fingerprint.Verify) -> PreparedTokenizer:
    def load() -> Any:
        if path.suffix == ".json":
            from transformers import PreTrainedTokenizerFast

            loaded = PreTrainedTokenizerFast(tokenizer_file=str(path))
            # The file marks special tokens without their roles, which follow from the usual names.
            for (role, bert_name), roberta_name in zip(SPECIAL_TOKENS.items(), ROBERTA_TOKENS, strict=True):
                matches = [name for name in (bert_name, roberta_name) if name in loaded.get_vocab()]
                if getattr(loaded, role) is None and matches:
                    setattr(loaded, role, matches[0])
            return loaded
        try:
            tokens = path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{key}={path}: not UTF-8 text (near byte {error.start})") from error
        tokens = [token.rstrip("\r") for token in (tokens[:-1] if tokens and not tokens[-1] else tokens)]
        missing = [token for token in SPECIAL_TOKENS.values() if token not in tokens]
        if missing:
            raise InputError(
                f"{key}={path}: not a WordPiece vocabulary, one token per line: {', '.join(missing)} missing"
            )
        return _wordpiece({token: index for index, token in enumerate(tokens)})

    return _prepare(root, fingerprint.hash_files([str(path)], root, verify), str(path), load)


def _prepare_hub(root: Path, name: str, revision: str | None) -> PreparedTokenizer:
    config = hub.download(name, revision or "main", "config.json", "model", MODEL_ALTERNATIVES)[0]
    # The client's cache is `snapshots/<commit>/config.json`.
    commit = Path(config).parent.name

    def load() -> Any:
        from transformers import AutoTokenizer

        complete = hub.cached_path(name, commit, "tokenizer_config.json", "model") is not None and any(
            hub.cached_path(name, commit, file, "model") for file in ("tokenizer.json", "vocab.txt", "vocab.json")
        )
        with contextlib.nullcontext() if complete else hub_access(f"the tokenizer of {name}", MODEL_ALTERNATIVES):
            return AutoTokenizer.from_pretrained(name, revision=commit, local_files_only=complete)

    return _prepare(root, f"{name}@{commit}", name, load)


def _prepare_trained(root: Path, vocab_size: int | None, corpus: Corpus | None) -> PreparedTokenizer:
    if corpus is None or vocab_size is None:
        raise InputError(
            "give model.tokenizer or model.pretrained: there is no training split to train a vocabulary on"
        )
    if vocab_size < len(SPECIAL_TOKENS) + 1:
        raise InputError(f"model.vocab_size must be larger than {len(SPECIAL_TOKENS)}, not {vocab_size}")
    return _prepare(
        root,
        f"trained-{vocab_size}:{corpus.fingerprint}",
        f"WordPiece trained on the data ({vocab_size})",
        lambda: _wordpiece(train(corpus.texts, vocab_size), lower=True),
    )


def train(texts: Callable[[], Iterable[str]], vocab_size: int) -> dict[str, int]:
    """Train a WordPiece vocabulary with the normaliser, splitting and special tokens of BERT's uncased one.

    Equal texts give equal vocabularies, token by token, in every process. By default the trainer numbers the characters
    inside words in the order of a hash table that differs between processes, and breaks ties by these numbers.
    Therefore they are passed in a fixed order, as special tokens.

    Args:
        texts: yields the texts; called twice.
        vocab_size: maximum number of tokens; fewer if the texts do not contain as many.

    Returns:
        Token ids by token.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    characters: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    for text in texts():
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            characters.update(word)
            inside.update(word[1:])
    # The most common characters; a word with any other is unknown.
    limit = max(1, min(1000, vocab_size // 4))
    alphabet = sorted(sorted(characters, key=lambda character: (-characters[character], character))[:limit])
    fixed_tokens = [
        *SPECIAL_TOKENS.values(),
        *alphabet,
        *("##" + character for character in alphabet if inside[character]),
    ]
    tokenizer.train_from_iterator(
        texts(),
        trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            special_tokens=fixed_tokens[:vocab_size],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        ),
    )
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary


def _wordpiece(vocabulary: dict[str, int], lower: bool | None = None) -> Any:
    from transformers import BertTokenizerFast

    if lower is None:
        # A cased vocabulary has capital letters outside its special tokens.
        lower = not any(token != token.lower() for token in vocabulary if not (token[:1] == "[" and token[-1:] == "]"))
    ordered = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    # transformers 5 ignores `vocab_file=`.
    return BertTokenizerFast(vocab=ordered, do_lower_case=lower)


def _prepare(root: Path, source: str, name: str, load: Callable[[], Any]) -> PreparedTokenizer:
    """Return the cache entry of a tokenizer.

    Args:
        root: the cache folder.
        source: fingerprint of its source.
        name: for messages.
        load: returns the transformers tokenizer.
    """

    def build(folder: Path) -> None:
        try:
            loaded = load()
        except (InputError, ResourceError):
            raise
        except Exception as error:  # the tokenizers library raises no more specific class
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"cannot load the tokenizer {name}: {reason}") from error
        if getattr(loaded, "backend_tokenizer", None) is None:
            raise InputError(
                f"the tokenizer {name} ({type(loaded).__name__}) has no token offsets: "
                'use one with a tokenizer.json (a "fast" one)'
            )
        if loaded.pad_token_id is None:
            raise InputError(f"the tokenizer {name} has no padding token; set one in its tokenizer_config.json")
        loaded.save_pretrained(str(folder))
        meta = {
            "vocab_size": max(loaded.get_vocab().values()) + 1,
            "pad_id": loaded.pad_token_id,
            "uses_types": "token_type_ids" in loaded.model_input_names,
        }
        (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")

    folder = cache.entry(root, "tokenizers", {"format": FORMAT, "source": source}, build)
    return PreparedTokenizer(
        folder, source, source=name, **json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    )
