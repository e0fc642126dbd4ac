"""Token sequences, concatenated in flat arrays in memory or on disk, in padded batches."""

import json
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from datamodules.storage import arrays
from datamodules.storage.manifest import DamagedError

# Batch widths are multiples of it. CPU kernels are compiled and cached for each width (some 10 MiB a width for a small
# model), GPUs are fastest at multiples of 8.
WIDTH_MULTIPLE = 16
Array = npt.NDArray[Any]


class TokenArrays:
    """Base class of token sequences.

    Attributes:
        FIELDS: names of the arrays, which are attributes of the object and files of its folder.
        tokens: [T] ids of all sequences, including special tokens, without padding.
        types: [T] token type ids.
        offsets: [N + 1] sequence i is tokens[offsets[i]:offsets[i + 1]].
        lengths: int32 [N] number of tokens of each sequence.
        longest: the maximum of `lengths`, and the limit of a batch's width: the model may have no more positions.
        counts: from the writer of the folder.
    """

    FIELDS: ClassVar[tuple[str, ...]] = ("tokens", "types", "offsets")

    tokens: Array
    types: Array
    offsets: Array

    def __init__(self, fields: dict[str, Array], pad_id: int, uses_types: bool, folder: Path | None = None) -> None:
        """Wrap arrays.

        Args:
            fields: the arrays by name.
            pad_id: id of the padding token.
            uses_types: whether batches have token type ids.
            folder: that the arrays are mapped from; None: they are in memory.

        Raises:
            DamagedError: the arrays do not fit together.
        """
        self.pad_id, self.uses_types, self.folder = pad_id, uses_types, folder
        for name in self.FIELDS:
            setattr(self, name, fields[name])
        arrays.check_offsets(self.offsets, len(self.tokens), (folder or Path()) / "offsets.npy")
        self.lengths = np.diff(self.offsets).astype(np.int32)
        self.longest = int(self.lengths.max(initial=0))
        self.counts: dict[str, Any] = {}

    @classmethod
    def open(cls, folder: Path, pad_id: int, uses_types: bool) -> Self:
        """Open the arrays of a folder as memory maps; see `__init__`."""
        fields = {name: arrays.load(folder / f"{name}.npy") for name in cls.FIELDS}
        for name, field in fields.items():
            length = len(fields["tokens"]) if name in ("types", "chars") else len(fields["offsets"]) - 1
            shape = (length, 2) if name == "chars" else (length,)
            if name not in ("tokens", "offsets") and field.shape != shape:
                raise DamagedError(folder / f"{name}.npy", f"it is an array {field.shape} instead of {shape}")
        opened = cls(fields, pad_id, uses_types, folder)
        opened.counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
        return opened

    def check(self, vocab_size: int) -> None:
        """Check that all tokens are of a vocabulary.

        Args:
            vocab_size: one more than the largest token id.

        Raises:
            DamagedError: they are not.
        """
        arrays.check_range(self.tokens, 0, vocab_size, (self.folder or Path()) / "tokens.npy")

    def __len__(self) -> int:
        return len(self.lengths)

    def __reduce__(self) -> tuple[Any, ...]:
        # A loader's workers open the folder, instead of receiving a copy of the memory maps.
        if self.folder is None:
            return type(self), ({name: getattr(self, name) for name in self.FIELDS}, self.pad_id, self.uses_types)
        return type(self).open, (self.folder, self.pad_id, self.uses_types)

    def pad(self, indices: Array) -> dict[str, Array]:
        """Pad some sequences to the longest of them, rounded up to a multiple of `WIDTH_MULTIPLE`.

        Args:
            indices: [B] positions of the sequences.

        Returns:
            input_ids, attention_mask, token_type_ids (if the tokenizer has several), int64 [B, L].
        """
        starts = self.offsets[indices]
        lengths = (self.offsets[indices + 1] - starts).astype(np.int64)
        width = min(-(-int(lengths.max(initial=0)) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE, self.longest)
        mask = np.arange(width) < lengths[:, None]
        source = arrays.ragged_indices(starts, lengths)
        input_ids = np.full(mask.shape, self.pad_id, np.int64)
        input_ids[mask] = self.tokens[source]
        batch = {"input_ids": input_ids, "attention_mask": mask.astype(np.int64)}
        if self.uses_types:
            batch["token_type_ids"] = np.zeros(mask.shape, np.int64)
            batch["token_type_ids"][mask] = self.types[source]
        return batch


def open_writers(folder: Path, vocab_size: int, **dtypes: npt.DTypeLike) -> dict[str, arrays.ArrayWriter]:
    """Open a writer for each array of token sequences; `offsets` begins with 0.

    Args:
        folder: a cache entry that is being built.
        vocab_size: determines whether token ids take two bytes or four.
        **dtypes: of arrays besides tokens, types and offsets; `chars` has two columns.
    """
    token_dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    dtypes = {"tokens": token_dtype, "types": np.uint8, "offsets": np.int64, **dtypes}
    writers = {
        name: arrays.ArrayWriter(folder / f"{name}.npy", dtype, 2 if name == "chars" else None)
        for name, dtype in dtypes.items()
    }
    writers["offsets"].append([0])
    return writers
