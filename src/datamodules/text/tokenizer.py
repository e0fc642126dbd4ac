"""The tokenizer of a text run: found, or trained on the training split, and kept as a folder transformers
loads.

What training needs to know of it (padding id, size, type ids) lies beside it as JSON: a warm start imports
neither transformers nor tokenizers before it has a model to build.
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
from datamodules.sources.hub_errors import INSTEAD_OF_MODEL, hub_access
from datamodules.storage import cache, fingerprint

FORMAT = 1  # part of the cache key: raise it when what is written changes
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
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
class Prepared:
    """A tokenizer in the cache.

    Attributes:
        folder: loads with transformers' AutoTokenizer; `tokenizer.json` in it with the tokenizers library.
        fingerprint: of its source; part of the key of what is made with it.
        vocab_size: one more than the largest token id.
        pad_id: the id of padding.
        uses_types: whether its models take token type ids.
        source: where it came from, for people.
    """

    folder: Path
    fingerprint: str
    vocab_size: int
    pad_id: int
    uses_types: bool
    source: str

    def load(self) -> Any:
        """The transformers tokenizer."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(self.folder), local_files_only=True)


@dataclass(frozen=True)
class Corpus:
    """Texts a vocabulary can be trained on.

    Attributes:
        fingerprint: of their content.
        texts: yields them.
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
) -> Prepared:
    """The tokenizer that is configured, as a cache entry.

    Args:
        root: the cache folder.
        pretrained: checkpoint whose tokenizer is used unless `tokenizer` names another: a folder or a Hub
            name.
        tokenizer: a folder, a `vocab.txt` (WordPiece, BERT's), a `tokenizer.json`, or a Hub name.
        vocab_size: of the vocabulary trained when both are None.
        corpus: what that vocabulary is trained on.
        revision: of `pretrained`, if it is a Hub name.
        verify: "full" reads local files again even if they look unchanged.

    Raises:
        InputError: no such file or name, no network, or a tokenizer that does not suit.
    """
    name = tokenizer or pretrained
    if name is None:
        return _trained(root, vocab_size, corpus)
    key = "model.tokenizer" if tokenizer else "model.pretrained"
    path = Path(name).expanduser()
    if path.is_dir():
        return _of_folder(root, path, key, verify)
    if path.is_file():
        return _of_file(root, path, key, verify)
    if name.startswith(("/", ".", "~")) or name.endswith((".txt", ".json")) or name.count("/") > 1:
        raise InputError(f"there is no file or folder {key}={name} (seen from {Path.cwd()})")
    return _of_hub(root, name, None if tokenizer else revision)


def _of_folder(root: Path, path: Path, key: str, verify: fingerprint.Verify) -> Prepared:
    files = [str(path / file) for file in FILES if (path / file).is_file()]
    names = {Path(file).name for file in files}
    if not names - {"config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer_config.json"}:
        there = ", ".join(sorted(child.name for child in path.iterdir())[:12]) or "nothing"
        raise InputError(f"{key}={path}: no tokenizer there (tokenizer.json, vocab.txt, ...); found {there}")
    if "vocab.txt" in names and not names & {"tokenizer.json", "tokenizer_config.json", "config.json"}:
        return _of_file(root, path / "vocab.txt", key, verify)

    def load() -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(path), local_files_only=True)

    return _entry(root, fingerprint.hash_files(files, root, verify), str(path), load)


def _of_file(root: Path, path: Path, key: str, verify: fingerprint.Verify) -> Prepared:
    def load() -> Any:
        if path.suffix == ".json":
            from transformers import PreTrainedTokenizerFast

            loaded = PreTrainedTokenizerFast(tokenizer_file=str(path))
            # The file tells which tokens are special, not what they are for: their usual names do.
            for role, names in {
                "pad_token": ("[PAD]", "<pad>"),
                "unk_token": ("[UNK]", "<unk>"),
                "cls_token": ("[CLS]", "<s>"),
                "sep_token": ("[SEP]", "</s>"),
                "mask_token": ("[MASK]", "<mask>"),
            }.items():
                found = [name for name in names if name in loaded.get_vocab()]
                if getattr(loaded, role) is None and found:
                    setattr(loaded, role, found[0])
            return loaded
        try:
            tokens = path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{key}={path}: not UTF-8 text (near byte {error.start})") from error
        tokens = [token.rstrip("\r") for token in (tokens[:-1] if tokens and not tokens[-1] else tokens)]
        missing = [token for token in SPECIAL.values() if token not in tokens]
        if missing:
            raise InputError(
                f"{key}={path}: not a WordPiece vocabulary, one token a line: {', '.join(missing)} missing"
            )
        return _wordpiece({token: index for index, token in enumerate(tokens)})

    return _entry(root, fingerprint.hash_files([str(path)], root, verify), str(path), load)


def _of_hub(root: Path, name: str, revision: str | None) -> Prepared:
    config = hub.download(name, revision or "main", "config.json", "model", INSTEAD_OF_MODEL)[0]
    # The client's cache is `snapshots/<commit>/config.json`.
    commit = Path(config).parent.name

    def load() -> Any:
        from transformers import AutoTokenizer

        complete = hub.cached_path(name, commit, "tokenizer_config.json", "model") is not None and any(
            hub.cached_path(name, commit, file, "model") for file in ("tokenizer.json", "vocab.txt", "vocab.json")
        )
        with contextlib.nullcontext() if complete else hub_access(f"the tokenizer of {name}", INSTEAD_OF_MODEL):
            return AutoTokenizer.from_pretrained(name, revision=commit, local_files_only=complete)

    return _entry(root, f"{name}@{commit}", name, load)


def _trained(root: Path, vocab_size: int | None, corpus: Corpus | None) -> Prepared:
    if corpus is None or vocab_size is None:
        raise InputError(
            "give model.tokenizer or model.pretrained: there is no training split to learn a vocabulary from"
        )
    if vocab_size < len(SPECIAL) + 1:
        raise InputError(f"model.vocab_size must be larger than {len(SPECIAL)}, not {vocab_size}")
    return _entry(
        root,
        f"trained-{vocab_size}:{corpus.fingerprint}",
        f"WordPiece trained on the data ({vocab_size})",
        lambda: _wordpiece(train(corpus.texts, vocab_size), lower=True),
    )


def train(texts: Callable[[], Iterable[str]], vocab_size: int) -> dict[str, int]:
    """A WordPiece vocabulary as BERT's uncased one: the same normaliser, splitting and special tokens.

    The same texts give the same vocabulary, token by token, in every process. Left alone, the learner numbers
    the characters inside words in the order of a hash table that is another one each time, and breaks ties by
    these numbers. So they are given to it, in a fixed order, as if they were special tokens.

    Args:
        texts: yields what to learn from; called twice.
        vocab_size: at most so many tokens; fewer if the texts do not hold so many.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    learner = Tokenizer(models.WordPiece(unk_token=SPECIAL["unk_token"]))
    learner.normalizer = normalizers.BertNormalizer(lowercase=True)
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    characters: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    for text in texts():
        for word, _ in learner.pre_tokenizer.pre_tokenize_str(learner.normalizer.normalize_str(text)):
            characters.update(word)
            inside.update(word[1:])
    # The most common characters; a word with another one is unknown.
    limit = max(1, min(1000, vocab_size // 4))
    alphabet = sorted(sorted(characters, key=lambda character: (-characters[character], character))[:limit])
    fixed = [*SPECIAL.values(), *alphabet, *("##" + character for character in alphabet if inside[character])]
    learner.train_from_iterator(
        texts(),
        trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            special_tokens=fixed[:vocab_size],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        ),
    )
    vocabulary: dict[str, int] = learner.get_vocab()
    return vocabulary


def _wordpiece(vocabulary: dict[str, int], lower: bool | None = None) -> Any:
    from transformers import BertTokenizerFast

    if lower is None:
        # A cased vocabulary has capital letters outside its special tokens.
        lower = not any(token != token.lower() for token in vocabulary if not (token[:1] == "[" and token[-1:] == "]"))
    ordered = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    # `vocab=`, not `vocab_file=`: the latter is ignored in transformers 5, and the vocabulary then has five
    # tokens.
    return BertTokenizerFast(vocab=ordered, do_lower_case=lower)


def _entry(root: Path, source: str, name: str, load: Callable[[], Any]) -> Prepared:
    def build(folder: Path) -> None:
        try:
            loaded = load()
        except (InputError, ResourceError):
            raise
        except Exception as error:  # the tokenizers library raises nothing more special
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"cannot load the tokenizer {name}: {reason}") from error
        if getattr(loaded, "backend_tokenizer", None) is None:
            raise InputError(
                f"the tokenizer {name} ({type(loaded).__name__}) cannot tell where its tokens are: "
                'one with a tokenizer.json (a "fast" one) is needed'
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
    return Prepared(folder, source, source=name, **json.loads((folder / "meta.json").read_text(encoding="utf-8")))
