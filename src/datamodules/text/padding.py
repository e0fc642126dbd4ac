"""Batches of token sequences that lie one after the other in flat arrays."""

from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.storage import arrays

# Batch widths are multiples of it. Processors compile kernels for each width and keep them (some 10 MiB a width for a
# small model), GPUs are quickest at multiples of 8.
MULTIPLE = 16
Array = npt.NDArray[Any]


def pad_batch(
    chosen: Array, tokens: Array, types: Array | None, offsets: Array, longest: int, pad_id: int
) -> dict[str, Array]:
    """Some sequences, padded to the longest of them, rounded up to a multiple of `MULTIPLE`.

    Args:
        chosen: [B] positions of the sequences.
        tokens: [T] ids of all sequences.
        types: [T] token type ids; None: the model takes none.
        offsets: [N + 1] sequence i is tokens[offsets[i]:offsets[i + 1]].
        longest: of all sequences; no batch is wider: the model may have no positions for it.
        pad_id: the id of padding.

    Returns:
        input_ids, attention_mask, token_type_ids (with `types`), int64 [B, L].
    """
    starts = offsets[chosen]
    lengths = (offsets[chosen + 1] - starts).astype(np.int64)
    width = min(-(-int(lengths.max(initial=0)) // MULTIPLE) * MULTIPLE, longest)
    mask = np.arange(width) < lengths[:, None]
    source = arrays.ragged(starts, lengths)
    input_ids = np.full(mask.shape, pad_id, np.int64)
    input_ids[mask] = tokens[source]
    batch = {"input_ids": input_ids, "attention_mask": mask.astype(np.int64)}
    if types is not None:
        batch["token_type_ids"] = np.zeros(mask.shape, np.int64)
        batch["token_type_ids"][mask] = types[source]
    return batch
