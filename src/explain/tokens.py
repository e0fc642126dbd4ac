"""Texts whose parts can be hidden: sentences, words, and a network's response while tokens are masked."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from config.errors import InputError
from config.ranges import Range
from explain import shapley
from explain.model import inference_context
from trainers.onnx_network import is_onnx_network

MAX_WORDS = 48  # words with values of their own; the others stay visible
STEPS = 8  # of the integral of integrated gradients

Arrays = dict[str, npt.NDArray[Any]]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Span = tuple[int, int]  # first character, last + 1
SourceSpan = tuple[int, int, int]  # number of the source text, first character, last + 1

# A sentence ends at . ! or ? (and closing quotes or brackets) before white space, unless a lower-case letter follows.
_END = re.compile(r"[.!?][\"')\]”’]*\s+(?![a-zß-ÿ])")
_WORD = re.compile(r"\w+(?:[-'’.,]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class ExtraSettings:
    """Settings that the values do not depend on; conf/explain describes them."""

    words: Annotated[int, Range(low=0, high=10**6)]


class Response(NamedTuple):
    """The response of a network while tokens are hidden.

    Attributes:
        target: [E] log-probability of the prediction for the whole input.
        unchanged: bool [E], whether the prediction is still the same.
    """

    target: Floats
    unchanged: Bools


class View:
    """One input in which tokens can be replaced by the mask token; its length never changes.

    The view of a task interprets the network's outputs: `outputs`, `target`, `unchanged`.
    """

    def __init__(
        self, network: Any, ids: Ints, types: Ints | None, mask_id: int, settings: Any, device: torch.device
    ) -> None:
        """Initialise the view.

        Args:
            network: of transformers, or one of the user's own.
            ids: [L] tokens.
            types: [L] token types; None if the model has none.
            mask_id: token that replaces hidden ones.
            settings: of the explanation, with batch_size, seed and bfloat16.
            device: device of the network.
        """
        self.network, self.ids, self.types, self.mask_id = network, ids, types, mask_id
        self.settings, self.device = settings, device

    def outputs(self, batch: dict[str, Tensor]) -> Any:
        """Return the outputs of the network's forward pass."""
        raise NotImplementedError

    def target(self, outputs: Any) -> Tensor:
        """Return the log-probability [B] of the prediction for the whole input."""
        raise NotImplementedError

    def unchanged(self, outputs: Any) -> Tensor:
        """Return bool [B], whether the prediction is that for the whole input."""
        raise NotImplementedError

    def batch(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Add attention mask and token types to `input_ids` [B, L] or `inputs_embeds` [B, L, D]."""
        (first,) = inputs.values()
        size = first.shape[:2]
        batch = {**inputs, "attention_mask": torch.ones(size, dtype=torch.int64, device=self.device)}
        if self.types is not None:
            batch["token_type_ids"] = torch.from_numpy(self.types).to(self.device).expand(size)
        return batch

    def evaluate(self, hidden: Bools) -> Response:
        """Return the response while tokens [E, L] are hidden."""
        targets, unchanged = [], []
        for rows in shapley.split_batches(hidden, self.settings.batch_size):
            mask = torch.from_numpy(rows).to(self.device)
            ids = torch.from_numpy(self.ids).to(self.device).expand(len(mask), -1).masked_fill(mask, self.mask_id)
            with inference_context(self.device, self.settings.bfloat16):
                outputs = self.outputs(self.batch(input_ids=ids))
            targets.append(self.target(outputs).double().cpu().numpy())
            unchanged.append(self.unchanged(outputs).cpu().numpy())
        return Response(np.concatenate(targets), np.concatenate(unchanged))


def mask_token(tokenizer: Any) -> int:
    """Return the token that replaces hidden ones: the mask token, else the unknown one, else padding."""
    tokens = (getattr(tokenizer, name, None) for name in ("mask_token_id", "unk_token_id", "pad_token_id"))
    return int(next(token for token in tokens if token is not None))


def hide_groups(group: Ints, missing: Bools) -> Bools:
    """Return the hidden tokens [E, L] while groups [E, k] are missing; tokens of no group (-1) are never hidden."""
    return np.asarray(np.where(group >= 0, missing[:, group], False))


def explain_groups(view: View, null_view: View | None, group: Ints, players: int) -> Arrays:
    """Explain a prediction by groups of tokens, from all their coalitions.

    Args:
        view: the input.
        null_view: the input of a network with random weights; None to leave it out.
        group: [L] of each token; tokens of no group (-1) stay visible.
        players: number of groups.

    Returns:
        `values` [k], `coalitions` [2**k] of the target, `same` [2**k], `gradients` [k], and `null` [k] and
        `null_coalitions` [2**k] of the network with random weights.
    """
    hidden = hide_groups(group, ~shapley.all_coalitions(players))
    response = view.evaluate(hidden)
    arrays = {
        "values": shapley.exact_values(response.target),
        "coalitions": response.target,
        "same": response.unchanged,
        "gradients": integrated_gradients(view, group, players),
    }
    if null_view is not None:
        coalitions = null_view.evaluate(hidden).target
        arrays |= {"null": shapley.exact_values(coalitions), "null_coalitions": coalitions}
    return arrays


def integrated_gradients(view: View, group: Ints, players: int) -> Floats:
    """Compute captum's integrated gradients (Sundararajan et al. 2017) of embeddings from hidden to visible tokens.

    Args:
        view: the input.
        group: [L] of each token; tokens of no group (-1) stay visible.
        players: number of groups.

    Returns:
        [players] sums by group; NaN for a network in ONNX, which has no gradients.
    """
    if is_onnx_network(view.network):
        return np.full(players, np.nan)
    from captum.attr import IntegratedGradients

    ids = torch.from_numpy(view.ids).to(view.device)[None]
    hidden = ids.masked_fill(torch.from_numpy(group >= 0).to(view.device), view.mask_id)
    embed = _input_embeddings(view.network)

    def target(embeddings: Tensor) -> Tensor:
        if hasattr(view.network, "get_input_embeddings"):
            return view.target(view.outputs(view.batch(inputs_embeds=embeddings)))
        # A network of the user's own takes tokens only: the outputs of its embedding are replaced.
        handle = embed.register_forward_hook(lambda *_: embeddings)
        try:
            return view.target(view.outputs(view.batch(input_ids=ids.expand(len(embeddings), -1))))
        finally:
            handle.remove()

    with torch.autocast(view.device.type, torch.bfloat16, enabled=view.settings.bfloat16):
        values = IntegratedGradients(target).attribute(
            embed(ids), baselines=embed(hidden), n_steps=STEPS, internal_batch_size=view.settings.batch_size
        )
    sums = np.zeros(players)
    np.add.at(sums, group[group >= 0], values[0].sum(dim=1).double().cpu().numpy()[group >= 0])
    return sums


def _input_embeddings(network: Any) -> Any:
    """Return the layer that embeds tokens: of a network of the user's own the first `torch.nn.Embedding`.

    Raises:
        InputError: there is none.
    """
    if hasattr(network, "get_input_embeddings"):
        return network.get_input_embeddings()
    layer = next((layer for layer in network.modules() if isinstance(layer, torch.nn.Embedding)), None)
    if layer is None:
        name = f"{type(network).__module__}.{type(network).__qualname__}"
        raise InputError(f"{name} has no torch.nn.Embedding for tokens, which explanations need: set explain=off")
    return layer


def split_sentences(text: str, low: int, high: int, most: int) -> list[Span]:
    """Split a part of a text into sentences; the shortest are joined to their shorter neighbour if there are too many.

    Args:
        text: the text.
        low: first character of the part.
        high: character after its last.
        most: maximal number of sentences, at least 1.
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


def split_words(text: str, low: int = 0, high: int | None = None) -> list[Span]:
    """Split a part of a text into words and punctuation marks."""
    return [match.span() for match in _WORD.finditer(text, low, len(text) if high is None else high)]


def word_values(view: View, source: Ints, chars: Ints, words: Sequence[SourceSpan], seed: int) -> Arrays:
    """Estimate values of words while everything else is visible, from one permutation in both directions.

    Args:
        view: the input.
        source: [L] source text of each token; tokens of no source (-1) stay visible.
        chars: [L, 2] characters of each token in its source.
        words: the words.
        seed: of the permutation.

    Returns:
        `words` [w] values and `word_chars` [w, 3] source and characters of the first `MAX_WORDS` words that have tokens;
        empty for fewer than two.
    """
    owner = np.full(len(view.ids), -1)
    for number, (word_source, first, last) in enumerate(words):
        owner[(source == word_source) & (chars[:, 0] < last) & (chars[:, 1] > first)] = number
    players = np.unique(owner[owner >= 0])[:MAX_WORDS]
    if len(players) < 2:
        return {"words": np.empty(0), "word_chars": np.empty((0, 3), np.int64)}
    rank = np.full(len(words) + 1, -1)  # one more: tokens without a word (-1) have no rank
    rank[players] = np.arange(len(players))
    plan = shapley.draw_permutations(len(players), 1, seed)
    values = plan.shapley(view.evaluate(hide_groups(rank[owner], ~plan.masks)).target)
    return {"words": values, "word_chars": np.array(words, np.int64)[players]}


def span_rows(sources: Sequence[str], names: Sequence[str], spans: Ints, values: Floats) -> list[dict[str, Any]]:
    """Return spans as entries of explanations.jsonl: text, of (name of the source), begin, value.

    Args:
        sources: the source texts.
        names: of the sources.
        spans: [w, 3] source and characters.
        values: [w].
    """
    return [
        {"text": sources[source][first:last], "of": names[source], "begin": first, "value": value}
        for (source, first, last), value in zip(spans.tolist(), values.tolist(), strict=True)
    ]
