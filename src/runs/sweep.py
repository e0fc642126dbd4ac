"""How a metric depends on the hyperparameters of several runs: parallel coordinates, and a scatter of each parameter."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from config.numbers import format_number
from reports.charts import Series
from reports.page import format_rounded
from runs import hyperparameters
from runs.fields import is_number

MIN_RUNS = 3
_PARAMETERS = 8  # at most, of which charts are drawn
_NONE: Mapping[str, Any] = {"axes": [], "lines": [], "scatters": []}
_CHOICES = 10  # of a parameter that is no number


class _Scale(NamedTuple):
    """A parameter's values along an axis.

    Attributes:
        label: title of the axis.
        values: numbers to draw, one for each run.
        ticks: position (0 to 1) and text.
    """

    label: str
    values: list[float]
    ticks: list[tuple[float, str]]


def charts(rows: Sequence[Mapping[str, Any]], names: Sequence[str], metric: str, mode: str | None) -> dict[str, Any]:
    """Return what the page draws of runs on the same data; nothing for fewer than `MIN_RUNS`, or runs that do not differ.

    Args:
        rows: N summaries with a value.
        names: N names.
        metric: of the values.
        mode: its direction, max or min; None if it is not known, and all lines have one strength.

    Returns:
        `axes` and `lines` of the parallel coordinates, and `scatters`: title of the x axis, and series.
    """
    if len(rows) < MIN_RUNS:
        return dict(_NONE)
    scales = {key: _scale(key, [row["parameters"].get(key) for row in rows]) for key in hyperparameters.differing(rows)}
    drawn = {key: scale for key, scale in scales.items() if scale is not None}
    drawn = dict(list(drawn.items())[:_PARAMETERS])
    if not drawn:
        return dict(_NONE)
    values = [float(row["value"]) for row in rows]
    titles = [f"{name}: {format_rounded(value, 3)}" for name, value in zip(names, values, strict=True)]
    shares = _shares(values)
    positions = [*(_shares(scale.values) for scale in drawn.values()), shares]
    ranks = [0.5 if mode is None else share if mode == "max" else 1 - share for share in shares]
    lines = [
        ([position[index] for position in positions], ranks[index], titles[index])
        for index in sorted(range(len(rows)), key=ranks.__getitem__)
    ]
    ends = [(0.0, format_number(min(values), 4)), (1.0, format_number(max(values), 4))]
    return {
        "axes": [*((key, scale.ticks) for key, scale in drawn.items()), (metric, ends)],
        "lines": lines,
        "scatters": _scatters(drawn, values, titles),
    }


def scatters(
    parameters: Mapping[str, Sequence[Any]], values: Sequence[float], titles: Sequence[str]
) -> list[tuple[str, list[Series]]]:
    """Return a scatter of each parameter against a metric.

    Args:
        parameters: by name, N values; those of one value, and those with more than 10 choices, have no chart.
        values: N values of the metric.
        titles: N texts that appear over the points.

    Returns:
        Title of the x axis, and series.
    """
    scales = {key: _scale(key, column) for key, column in parameters.items() if len(set(column)) > 1}
    return _scatters({key: scale for key, scale in scales.items() if scale is not None}, values, titles)


def _scatters(
    scales: Mapping[str, _Scale], values: Sequence[float], titles: Sequence[str]
) -> list[tuple[str, list[Series]]]:
    return [
        (scale.label, [Series(key, list(zip(scale.values, values, strict=True)), list(titles), style="dots")])
        for key, scale in list(scales.items())[:_PARAMETERS]
    ]


def _scale(key: str, values: Sequence[Any]) -> _Scale | None:
    """A logarithmic axis for positive numbers over two orders of magnitude; None for too many choices."""
    if all(is_number(value) for value in values):
        numbers = [float(value) for value in values]
        logarithmic = min(numbers) > 0 and max(numbers) / min(numbers) >= 100
        drawn = [math.log10(number) for number in numbers] if logarithmic else numbers
        ends = sorted(zip(_shares(drawn), numbers, strict=True))
        ticks = [(ends[0][0], format_number(ends[0][1], 4)), (ends[-1][0], format_number(ends[-1][1], 4))]
        return _Scale(f"log10({key})" if logarithmic else key, drawn, ticks)
    choices = sorted({hyperparameters.text(value) for value in values})
    if len(choices) > _CHOICES:
        return None
    drawn = [float(choices.index(hyperparameters.text(value))) for value in values]
    ticks = [(index / max(1, len(choices) - 1), choice) for index, choice in enumerate(choices)]
    label = ", ".join(f"{index} = {choice}" for index, choice in enumerate(choices))
    return _Scale(f"{key}: {label}", drawn, ticks)


def _shares(values: Sequence[float]) -> list[float]:
    """Positions between the lowest and the highest value, from 0 to 1."""
    low, extent = min(values), max(values) - min(values)
    return [(value - low) / extent if extent and math.isfinite(extent) else 0.5 for value in values]
