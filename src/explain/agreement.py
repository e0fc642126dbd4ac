"""Agreement of the explanations of two models with the same data, such as a model and its export."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from explain import measures, sample
from explain.model import Subject
from explain.options import Options


def compare(first: Subject, second: Subject, options: Options, examples: int) -> dict[str, Any]:
    """Compare the explanations of two models for a seeded sample of the validation split.

    Args:
        first, second: the models, of one task.
        options: conf/explain.
        examples: size of the sample.

    Returns:
        `mean`, the mean over examples of the rank correlation of the values of their parts, None if no example could be
        compared; `lowest`, that of one example; `examples`, how many were compared; `different`, how many were not, because
        the models predict something else; `lines`, id and correlation of each, the lowest first.
    """
    explainer = first.explainer
    ids, strata = explainer.examples(first.data)
    positions = sample.choose_positions(ids, strata, examples, options.seed)
    settings = explainer.settings(options, first.saved.settings.get("model", {}))
    correlations: list[tuple[float, str]] = []
    for start in range(0, len(positions), explainer.CHUNK):
        part = positions[start : start + explainer.CHUNK]
        chunk = sample.Chunk(part, (), (), [()] * len(part))
        pairs = [
            explainer.explain(subject, subject.network, chunk, settings, lambda: None) for subject in (first, second)
        ]
        for position, a, b in zip(part, *pairs, strict=True):
            if _same_prediction(a, b) and len(a["values"]) > 1:
                correlations.append((float(measures.rank_correlation(a["values"], b["values"])), str(ids[position])))
    values = [value for value, _ in correlations]
    return {
        "mean": float(np.mean(values)) if values else None,
        "lowest": min(values, default=None),
        "examples": len(values),
        "different": len(positions) - len(values),
        "lines": [{"id": name, "correlation": value} for value, name in sorted(correlations)],
    }


def _same_prediction(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two explanations are of one prediction, by the same parts."""
    same = all(np.array_equal(first[name], second[name]) for name in ("predicted", "span") if name in first)
    return same and len(first["values"]) == len(second["values"])
