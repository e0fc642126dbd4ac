"""The tokenizer of a run: loaded, or trained on the training split, and stored as a folder that transformers loads.

Its properties that training needs (padding id, size, type ids) are stored with it as JSON: a warm start imports
neither transformers nor tokenizers before it builds a model.
"""

import contextlib
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import parsing
from config.errors import InputError, ResourceError, first_line
from datamodules.sources import hub
from datamodules.sources.hub_errors import MODEL_ALTERNATIVES, hub_access
from datamodules.storage import cache, fingerprint
from datamodules.text.vocabulary import SPECIAL_TOKENS, character_wordpiece, splits_characters, train, wordpiece
from runs import digests

FORMAT = 2  # part of the cache key: increment it when the entries change
MIN_ACCENTS = 0.001  # share of an uncased vocabulary's tokens with accents, above which its texts keep theirs
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
        fingerprint: of its source and its treatment; part of the cache keys of its output.
        vocab_size: one more than the largest token id.
        pad_id: id of the padding token.
        type_count: number of token type ids in its format of a pair.
        unknown_id: id of the token that replaces unknown text; None: it has none.
        leading_space: whether its tokens of a text depend on white space before the text.
        default_types: whether it returns token type ids by default (`model_input_names`).
        source: description of its source, for records and messages.
    """

    folder: Path
    fingerprint: str
    vocab_size: int
    pad_id: int
    type_count: int
    unknown_id: int | None
    leading_space: bool
    default_types: bool
    source: str

    @property
    def uses_types(self) -> bool:
        """Whether token types distinguish the two texts of a pair."""
        return self.type_count > 1

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
        return _prepare_trained(root, vocab_size, corpus, verify)
    key = "model.tokenizer" if tokenizer else "model.pretrained"
    path = Path(name).expanduser()
    if path.is_dir():
        return _prepare_folder(root, path, key, verify)
    if path.is_file():
        return _prepare_file(root, path, key, verify)
    if name.startswith(("/", ".", "~")) or name.endswith((".txt", ".json")) or name.count("/") > 1:
        raise InputError(f"there is no file or folder {key}={name} (in {Path.cwd()})")
    return _prepare_hub(root, name, None if tokenizer else revision, verify)


def _prepare_folder(root: Path, path: Path, key: str, verify: fingerprint.Verify) -> PreparedTokenizer:
    try:
        parsing.check_folder(path)
    except OSError as error:
        raise InputError(f"{key}={path}: cannot read {error.filename}: {error.strerror}") from error
    digests.check_model(path, FILES)
    files = [str(path / file) for file in FILES if (path / file).is_file()]
    names = {Path(file).name for file in files}
    if not names - {"config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer_config.json"}:
        content = ", ".join(sorted(child.name for child in path.iterdir())[:12]) or "nothing"
        raise InputError(f"{key}={path}: the folder has no tokenizer (tokenizer.json, vocab.txt, ...); found {content}")
    if "vocab.txt" in names and not names & {"tokenizer.json", "tokenizer_config.json", "config.json"}:
        return _prepare_file(root, path / "vocab.txt", key, verify)
    source = fingerprint.hash_files(files, root, verify)
    return _prepare(root, source, str(path), lambda: (_load_folder(path), ""), verify)


def _load_folder(path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)


def _prepare_file(root: Path, path: Path, key: str, verify: fingerprint.Verify) -> PreparedTokenizer:
    def load() -> tuple[Any, str]:
        if path.suffix == ".json":
            from transformers import PreTrainedTokenizerFast

            loaded = PreTrainedTokenizerFast(tokenizer_file=str(path))
            # The file marks special tokens without their roles, which follow from the usual names.
            for (role, bert_name), roberta_name in zip(SPECIAL_TOKENS.items(), ROBERTA_TOKENS, strict=True):
                matches = [name for name in (bert_name, roberta_name) if name in loaded.get_vocab()]
                if getattr(loaded, role) is None and matches:
                    setattr(loaded, role, matches[0])
            return loaded, ""
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
        # A cased vocabulary has capital letters outside its special tokens.
        words = [token for token in tokens if not (token[:1] == "[" and token[-1:] == "]")]
        lower = all(token == token.lower() for token in words)
        vocabulary = {token: index for index, token in enumerate(tokens)}
        # BERT's uncased tokenizer decomposes characters and removes accents: a token that has any would never match.
        if lower and sum(_strip_accents(word) != word for word in words) > MIN_ACCENTS * len(words):
            return wordpiece(vocabulary, lower, strip_accents=False), "accents"
        return wordpiece(vocabulary, lower), ""

    return _prepare(root, fingerprint.hash_files([str(path)], root, verify), str(path), load, verify)


def _strip_accents(text: str) -> str:
    """Return what BERT's uncased tokenizer makes of the letters of a text."""
    decomposed = unicodedata.normalize("NFD", text)
    return "".join(character for character in decomposed if unicodedata.category(character) != "Mn")


def _prepare_hub(root: Path, name: str, revision: str | None, verify: fingerprint.Verify) -> PreparedTokenizer:
    config = hub.download(name, revision or "main", "config.json", "model", MODEL_ALTERNATIVES)[0]
    # The client's cache is `snapshots/<commit>/config.json`.
    commit = Path(config).parent.name

    def load() -> tuple[Any, str]:
        from transformers import AutoTokenizer

        complete = hub.cached_path(name, commit, "tokenizer_config.json", "model") is not None and any(
            hub.cached_path(name, commit, file, "model") for file in ("tokenizer.json", "vocab.txt", "vocab.json")
        )
        with contextlib.nullcontext() if complete else hub_access(f"the tokenizer of {name}", MODEL_ALTERNATIVES):
            options = {"revision": commit, "local_files_only": complete, "trust_remote_code": False}
            return AutoTokenizer.from_pretrained(name, **options), ""

    return _prepare(root, f"{name}@{commit}", name, load, verify)


def _prepare_trained(
    root: Path, vocab_size: int | None, corpus: Corpus | None, verify: fingerprint.Verify
) -> PreparedTokenizer:
    if corpus is None or vocab_size is None:
        raise InputError(
            "give model.tokenizer or model.pretrained: there is no training split to train a vocabulary on"
        )
    if vocab_size < len(SPECIAL_TOKENS) + 1:
        raise InputError(f"model.vocab_size must be larger than {len(SPECIAL_TOKENS)}, not {vocab_size}")

    def load() -> tuple[Any, str]:
        if splits_characters(corpus.texts()):
            return character_wordpiece(train(corpus.texts, vocab_size, by_character=True)), "characters"
        return wordpiece(train(corpus.texts, vocab_size), lower=True), ""

    source = f"trained-{vocab_size}:{corpus.fingerprint}"
    return _prepare(root, source, f"WordPiece trained on the data ({vocab_size})", load, verify)


def _prepare(
    root: Path, source: str, name: str, load: Callable[[], tuple[Any, str]], verify: fingerprint.Verify
) -> PreparedTokenizer:
    """Return the cache entry of a tokenizer.

    Args:
        root: the cache folder.
        source: fingerprint of its source.
        name: for messages.
        load: returns the transformers tokenizer, and its treatment of texts if that is not the usual one of the source.
        verify: see `cache.entry`.
    """

    def build(folder: Path) -> None:
        try:
            loaded, treatment = load()
        except (InputError, ResourceError):
            raise
        except Exception as error:  # the tokenizers library raises no more specific class
            reason = first_line(error)
            if "trust_remote_code" in str(error):
                reason = (
                    "it needs code of its own (auto_map in tokenizer_config.json), which is never run; use another one"
                )
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
            **_properties(loaded.backend_tokenizer),
            "default_types": "token_type_ids" in loaded.model_input_names,
            "treatment": treatment,
        }
        (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")

    def read(folder: Path) -> PreparedTokenizer:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        treatment = meta.pop("treatment")
        return PreparedTokenizer(folder, f"{source}:{treatment}" if treatment else source, source=name, **meta)

    def check(folder: Path) -> None:
        read(folder)
        json.loads((folder / "tokenizer.json").read_bytes())

    return read(cache.entry(root, "tokenizers", {"format": FORMAT, "source": source}, build, verify, check))


def _properties(loaded: Any) -> dict[str, Any]:
    """Return `type_count`, `unknown_id` and `leading_space` of `PreparedTokenizer`.

    Args:
        loaded: of the tokenizers library.

    Raises:
        InputError: no text has tokens.
    """
    from tokenizers import Tokenizer

    content = loaded.to_str()
    tokenizer = Tokenizer.from_str(content)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    text = short_text(tokenizer)
    pair = tokenizer.encode(text, text)
    special = {token for token, number in zip(pair.ids, pair.sequence_ids, strict=True) if number is None}
    model = json.loads(content)["model"]
    unknown = model.get("unk_id")  # of Unigram
    if unknown is None and model.get("unk_token") is not None:
        unknown = tokenizer.token_to_id(model["unk_token"])

    def tokens(text: str) -> list[int]:
        # Without an unknown token, some models raise an exception of no specific class.
        with contextlib.suppress(Exception):
            return list(tokenizer.encode(text, add_special_tokens=False).ids)
        return []

    return {
        "type_count": max(pair.type_ids) + 1,
        "unknown_id": None if unknown in special else unknown,
        "leading_space": any(tokens(space + text) != tokens(text) for space in (" ", "  ", "\n")),
    }


def short_text(tokenizer: Any) -> str:
    """Return a text that has tokens: "a", else an entry of the vocabulary, which may have no Latin letters.

    Args:
        tokenizer: of the tokenizers library.

    Raises:
        InputError: no text has tokens.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    for text in ("a", *sorted(vocabulary, key=vocabulary.__getitem__), *tokenizer.get_vocab()):
        # Without an unknown token, some models raise an exception of no specific class.
        with contextlib.suppress(Exception):
            if tokenizer.encode(text, add_special_tokens=False).ids:
                return str(text)
    raise InputError("this tokenizer has no tokens for any text of its own vocabulary")


@contextlib.contextmanager
def encoding_errors() -> Iterator[None]:
    """Context of encoding: a tokenizer without an unknown token raises an exception for text it has no tokens for.

    Raises:
        InputError: it does.
    """
    try:
        yield
    except Exception as error:  # the tokenizers library raises no more specific class
        raise InputError(f"the tokenizer has no tokens for some text, and no unknown token either ({error})") from error
