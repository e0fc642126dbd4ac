"""Texts, or pairs of texts, as tokens, each cut to one length: what a classifier of texts is given."""

import json
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from datamodules.storage import arrays
from datamodules.text.labelled_texts import LabelledTexts
from datamodules.text.padding import pad_batch
from datamodules.text.tokenizer import Prepared

FORMAT = 1  # part of the cache key: raise it when what `write` writes changes
CHUNK = 2048  # texts at a time
FIELDS = ("tokens", "types", "offsets")
Array = npt.NDArray[Any]


class TextEncoder:
    """A tokenizer that adds its special tokens and cuts what is too long, as transformers' does with `truncation=True`."""

    def __init__(self, tokenizer: Prepared, max_length: int) -> None:
        """Loads a tokenizer.

        Args:
            tokenizer: in the cache.
            max_length: tokens of a text, or of a pair, special tokens included.

        Raises:
            InputError: special tokens alone are as long.
        """
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(tokenizer.folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        special = self.tokenizer.num_special_tokens_to_add(is_pair=True)
        if max_length <= special:
            raise InputError(f"data.max_length={max_length} leaves no room for a text beside {special} special tokens")
        self.tokenizer.enable_truncation(max_length)

    def encode(self, records: Sequence[tuple[str, str]]) -> dict[str, Array]:
        """Tokens of (text, second text or "") pairs, on all cores.

        Returns:
            tokens [T], types [T], offsets [N + 1]: as `Texts` has them; cut [N]: whether a text was too long.
        """
        encodings = self.tokenizer.encode_batch_fast([(text, pair) if pair else text for text, pair in records])
        offsets = np.zeros(len(encodings) + 1, np.int64)
        np.cumsum([len(encoding) for encoding in encodings], out=offsets[1:])
        total = int(offsets[-1])
        return {
            "tokens": np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64, total),
            "types": np.fromiter(chain.from_iterable(encoding.type_ids for encoding in encodings), np.uint8, total),
            "offsets": offsets,
            "cut": np.array([bool(encoding.overflowing) for encoding in encodings], np.bool_),
        }


def write(folder: Path, texts: LabelledTexts, tokenizer: Prepared, max_length: int) -> None:
    """Writes the tokens of a split into a cache entry, chunk by chunk.

    Args:
        folder: the entry that is being built.
        texts: the split.
        tokenizer: in the cache.
        max_length: tokens of a text; the rest of a longer one is left out.
    """
    from tqdm import tqdm

    encoder = TextEncoder(tokenizer, max_length)
    files = {
        "tokens": arrays.ArrayWriter(
            folder / "tokens.npy", np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
        ),
        "types": arrays.ArrayWriter(folder / "types.npy", np.uint8),
        "offsets": arrays.ArrayWriter(folder / "offsets.npy", np.int64),
    }
    files["offsets"].append([0])
    cut = 0
    progress = tqdm(total=len(texts), desc="tokenising", unit=" texts", disable=None, file=sys.stderr)
    with arrays.Writers(files.values()), progress:
        for first in range(0, len(texts), CHUNK):
            chosen = range(first, min(first + CHUNK, len(texts)))
            encoded = encoder.encode([(texts.text(index), texts.pair(index)) for index in chosen])
            encoded["offsets"] = encoded["offsets"][1:] + files["tokens"].rows
            for name, file in files.items():
                file.append(encoded[name])
            cut += int(encoded["cut"].sum())
            progress.update(len(chosen))
    counts = {"texts": len(texts), "cut_texts": cut, "tokens": files["tokens"].rows}
    (folder / "counts.json").write_text(json.dumps(counts), encoding="utf-8")


class EncodedTexts:
    """Tokens of texts, in memory or on disk; makes batches of them.

    Attributes:
        tokens: [T] ids of all texts, special tokens included, no padding.
        types: [T] token type ids.
        offsets: [N + 1] text i is tokens[offsets[i]:offsets[i + 1]].
        lengths: int32 [N] tokens of each.
        labels: int64 [N] classes; None where they are not known.
        counts: what was counted when they were encoded: "texts", "cut_texts", "tokens".
    """

    tokens: Array
    types: Array
    offsets: Array

    def __init__(
        self,
        fields: dict[str, Array],
        pad_id: int,
        uses_types: bool,
        labels: npt.NDArray[np.int64] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Takes the arrays of `Encoder.encode` or of a folder."""
        self.pad_id, self.uses_types, self.labels, self.folder = pad_id, uses_types, labels, folder
        for name in FIELDS:
            setattr(self, name, fields[name])
        self.lengths = np.diff(self.offsets).astype(np.int32)
        self.longest = int(self.lengths.max(initial=0))
        self.counts: dict[str, int] = {}

    @classmethod
    def open(cls, folder: Path, pad_id: int, uses_types: bool, labels: npt.NDArray[np.int64] | None = None) -> Self:
        """Memory-maps what `write` wrote."""
        texts = cls({name: arrays.load(folder / f"{name}.npy") for name in FIELDS}, pad_id, uses_types, labels, folder)
        texts.counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
        return texts

    @classmethod
    def of_records(cls, tokenizer: Prepared, records: Sequence[tuple[str, str] | str], max_length: int) -> Self:
        """Tokens, in memory, of texts without labels, such as those to predict.

        Args:
            tokenizer: in the cache.
            records: texts, or (text, second text) pairs; a second text "" is none.
            max_length: tokens of a text; the rest of a longer one is left out.
        """
        pairs = [(record, "") if isinstance(record, str) else record for record in records]
        encoded = TextEncoder(tokenizer, max_length).encode(pairs)
        texts = cls(encoded, tokenizer.pad_id, tokenizer.uses_types)
        texts.counts = {"texts": len(texts), "cut_texts": int(encoded["cut"].sum()), "tokens": len(texts.tokens)}
        return texts

    def __len__(self) -> int:
        return len(self.lengths)

    def __reduce__(self) -> Any:
        # To the workers of a loader goes the folder, not a copy of what is mapped.
        if self.folder is None:
            fields = {name: getattr(self, name) for name in FIELDS}
            return type(self), (fields, self.pad_id, self.uses_types, self.labels)
        return type(self).open, (self.folder, self.pad_id, self.uses_types, self.labels)

    def batch(self, indices: Sequence[int]) -> dict[str, Array]:
        """Some texts, padded to the longest of them, rounded up to a multiple of 16.

        Returns:
            input_ids, attention_mask, token_type_ids (if the model takes them) [B, L]; labels (where they are known),
            index [B]; all int64.
        """
        index = np.asarray(indices, np.int64)
        types = self.types if self.uses_types else None
        batch = pad_batch(index, self.tokens, types, self.offsets, self.longest, self.pad_id)
        if self.labels is not None:
            batch["labels"] = self.labels[index]
        return batch | {"index": index}
