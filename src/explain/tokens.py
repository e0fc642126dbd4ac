"""Texts as parts that can be hidden: sentences, words, and a view of a network's input in which tokens are masked."""

import re
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from explain import shapley
from explain.model import inference_context

WORDS = 48  # that get values of their own; the rest of longer texts stays shown

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# A sentence ends at . ! or ? (and closing quotes or brackets) before a space and no small letter.
_END = re.compile(r"[.!?][\"')\]”’]*\s+(?![a-zß-ÿ])")
_WORD = re.compile(r"\w+(?:[-'’.,]\w+)*|[^\w\s]")


class Settings(Protocol):
    """What a view needs of an explainer's settings."""

    @property
    def batch_size(self) -> int:
        """Rows of a forward pass."""

    @property
    def seed(self) -> int:
        """Of permutations."""

    @property
    def bfloat16(self) -> bool:
        """Whether forward passes are in bfloat16."""


class Response(NamedTuple):
    """What a network says while some parts are hidden.

    Attributes:
        target: [E] log-probability of what it predicts of the whole.
        same: bool [E], whether that is still what it predicts.
    """

    target: Floats
    same: Bools


class View:
    """One input, with some tokens shown and the others replaced by the mask token; its length never changes.

    A task's own view says what the network's outputs mean: `outputs`, `target`, `same`.
    """

    def __init__(
        self, network: Any, ids: Ints, types: Ints | None, mask_id: int, settings: Settings, device: torch.device
    ) -> None:
        """Takes an input; its structure tokens stay as they are.

        Args:
            network: of transformers.
            ids: [L] tokens.
            types: [L] token types; None if the model has none.
            mask_id: stands for a hidden token.
            settings: of the explanation.
            device: where the network is.
        """
        self.network, self.ids, self.types, self.mask_id = network, ids, types, mask_id
        self.settings, self.device = settings, device

    def outputs(self, batch: dict[str, Tensor]) -> Any:
        """The network's forward pass."""
        raise NotImplementedError

    def target(self, outputs: Any) -> Tensor:
        """[B] log-probability of what the network predicts of the whole."""
        raise NotImplementedError

    def same(self, outputs: Any) -> Tensor:
        """Bool [B], whether that is still what it predicts."""
        raise NotImplementedError

    def batch(self, **inputs: Tensor) -> dict[str, Tensor]:
        """`input_ids` [B, L] or `inputs_embeds` [B, L, D], with the attention mask and token types that belong to it."""
        (first,) = inputs.values()
        size = first.shape[:2]
        batch = {**inputs, "attention_mask": torch.ones(size, dtype=torch.int64, device=self.device)}
        if self.types is not None:
            batch["token_type_ids"] = torch.from_numpy(self.types).to(self.device).expand(size)
        return batch

    def ask(self, hidden: Bools) -> Response:
        """What the network says with these tokens [E, L] hidden."""
        targets, same = [], []
        for rows in shapley.split_batches(hidden, self.settings.batch_size):
            masked = torch.from_numpy(rows).to(self.device)
            ids = torch.from_numpy(self.ids).to(self.device).expand(len(masked), -1).masked_fill(masked, self.mask_id)
            with inference_context(self.device, self.settings.bfloat16):
                outputs = self.outputs(self.batch(input_ids=ids))
            targets.append(self.target(outputs).double().cpu().numpy())
            same.append(self.same(outputs).cpu().numpy())
        return Response(np.concatenate(targets), np.concatenate(same))


def mask_token(tokenizer: Any) -> int:
    """The token that stands for hidden ones: the mask token, else the unknown one, else padding."""
    tokens = (getattr(tokenizer, name, None) for name in ("mask_token_id", "unk_token_id", "pad_token_id"))
    return int(next(token for token in tokens if token is not None))


def hide_groups(group: Ints, missing: Bools) -> Bools:
    """Tokens [E, L] that are hidden while groups [E, k] are missing; tokens of no group (-1) never are."""
    return np.asarray(np.where(group >= 0, missing[:, group], False))


def split_sentences(text: str, low: int, high: int, most: int) -> list[tuple[int, int]]:
    """The sentences of a part of a text, as characters; neighbours are joined where there are more than `most`.

    The shortest is joined to its shorter neighbour first.

    Args:
        text: the text.
        low: first character of the part.
        high: character after its last.
        most: sentences, at least 1.
    """
    ends = [match.end() for match in _END.finditer(text, low, high) if match.end() < high]
    edges = [low, *ends, high]
    while len(edges) - 1 > most:
        lengths = np.diff(edges)
        shortest = int(lengths.argmin())
        left = lengths[shortest - 1] if shortest else np.inf
        right = lengths[shortest + 1] if shortest + 1 < len(lengths) else np.inf
        del edges[shortest if left <= right else shortest + 1]
    return list(pairwise(edges))


def split_words(text: str, low: int = 0, high: int | None = None) -> list[tuple[int, int]]:
    """The words and punctuation marks of a part of a text, as characters."""
    return [match.span() for match in _WORD.finditer(text, low, len(text) if high is None else high)]


def word_values(view: View, owner: Ints, count: int, seed: int) -> tuple[Floats, Ints]:
    """Values of words while all else is shown, from one permutation, there and back.

    Args:
        view: the input.
        owner: [L] the word of each token, -1 for tokens that stay shown.
        count: of all words.
        seed: of the permutation.

    Returns:
        [w] values and [w] numbers of the first `WORDS` words that have tokens; none of fewer than two.
    """
    kept = np.unique(owner[owner >= 0])[:WORDS]
    if len(kept) < 2:
        return np.empty(0), np.empty(0, np.int64)
    rank = np.full(count + 1, -1)  # one more: no word (-1) has no rank
    rank[kept] = np.arange(len(kept))
    plan = shapley.draw_permutations(len(kept), 1, seed)
    return plan.shapley(view.ask(hide_groups(rank[owner], ~plan.masks)).target), kept
