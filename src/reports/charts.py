"""Geometry of the charts: where marks, ticks and labels lie. `templates/charts.html.jinja` draws them as SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from config.numbers import format_number

COLOURS = 8  # in style.css: classes c0 to c7
LARGEST = 1e300  # beyond it differences are no numbers
SMOOTHING = (0.0, 0.6, 0.9, 0.98)  # weights of the past that a reader may choose; style.css has a class for each
COLUMNS = 600  # parts of a noisy curve's range of steps; the lowest and the highest point of each are drawn


@dataclass(frozen=True)
class Series:
    """Points with a name and a colour.

    Attributes:
        name: in the legend.
        points: (x, y), in the order of x; those that are not finite are left out.
        titles: one for each point, shown when the pointer is over it; made of name and values where there are none.
        style: "line" with dots, dots alone, a line of steps without dots, or "noisy": a line of many points without dots,
            and smoothed ones over it, of which the page shows the chosen one.
        colour: class in style.css: c0 to c7, good, fair, bad, plain; "" for the next of c0 to c7.
    """

    name: str
    points: Sequence[tuple[float, float]]
    titles: Sequence[str] = ()
    style: Literal["line", "dots", "steps", "noisy"] = "line"
    colour: str = ""


@dataclass(frozen=True)
class Axis:
    """A scale from values to pixels.

    Attributes:
        low, high: values at its ends.
        start, stop: pixels at its ends.
    """

    low: float
    high: float
    start: float
    stop: float

    def pixel(self, value: float) -> float:
        """Return where a value lies; the ends' pixels for what is beyond them, the middle if the ends are one value."""
        if self.high == self.low:
            return round((self.start + self.stop) / 2, 1)
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 1)

    def ticks(self, count: int = 5) -> list[tuple[float, str]]:
        """Return pixel and text of at most `count` + 1 round values; those of the ends where fewer than two are round."""
        extent = self.high - self.low
        if extent == 0:
            return [(self.pixel(self.low), _short(self.low))]
        power = 10.0 ** math.floor(math.log10(extent / count))
        step = next((power * factor for factor in (1, 2, 5) if extent / (power * factor) <= count), power * 10)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        values = (
            [index * step for index in range(first, last + 1)] if 0 < last - first <= count else [self.low, self.high]
        )
        digits = math.floor(math.log10(max(map(abs, values)))) - math.floor(math.log10(step)) + 1
        return [(self.pixel(value), _short(value, max(3, min(digits, 12)))) for value in values]


class PlottedSeries(NamedTuple):
    """A series in pixels.

    Attributes:
        name, colour, style: those of the series.
        path: points of its polyline.
        dots: x, y and title of each point; none of a noisy curve.
        smoothed: points of a noisy curve's polyline for each of SMOOTHING but the first, which is the curve itself.
    """

    name: str
    colour: str
    style: str
    path: str
    dots: list[tuple[float, float, str]]
    smoothed: list[str]


@dataclass(frozen=True)
class Plot:
    """Axes and what lies between them.

    Attributes:
        x, y: the axes.
        series: those with points.
        label: a description for readers who do not see it.
    """

    x: Axis
    y: Axis
    series: list[PlottedSeries]
    label: str

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Name and colour of each series."""
        return [(row.name, row.colour) for row in self.series]


def plot_xy(series: Sequence[Series], x_label: str, width: float, height: float) -> Plot | None:
    """Return a plot of some series over one axis; None if there is no point."""
    points = {index: [_finite(point) for point in row.points] for index, row in enumerate(series)}
    finite = [point for row in points.values() for point in row if point is not None]
    if not finite:
        return None
    (x_low, x_high), (y_low, y_high) = ((min(values), max(values)) for values in zip(*finite, strict=True))
    x, y = Axis(x_low, x_high, 48, width - 10), Axis(y_low, y_high, height - 34, 8)
    plotted = []
    for index, row in enumerate(series):
        colour = row.colour or f"c{index % COLOURS}"
        if row.style == "noisy":
            if curve := [point for point in points[index] if point is not None]:
                paths = [_noisy(smooth(curve, weight), x, y) for weight in SMOOTHING]
                plotted.append(PlottedSeries(row.name, colour, row.style, paths[0], [], paths[1:]))
            continue
        dots = [
            (x.pixel(point[0]), y.pixel(point[1]), _title(row, position, x_label))
            for position, point in enumerate(points[index])
            if point is not None
        ]
        if dots:
            path = _steps(dots) if row.style == "steps" else [(left, top) for left, top, _ in dots]
            plotted.append(PlottedSeries(row.name, colour, row.style, _polyline(path), dots, []))
    return Plot(x, y, plotted, f"{', '.join(row.name for row in plotted)} over {x_label}")


def _title(series: Series, position: int, x_label: str) -> str:
    if series.titles:
        return series.titles[position]
    x, y = series.points[position]
    return f"{series.name}: {_short(y)} at {x_label} {_short(x)}"


def _finite(point: tuple[float, float]) -> tuple[float, float] | None:
    """Return a point; None if it cannot be drawn."""
    x, y = point
    return (x, y) if abs(x) < LARGEST and abs(y) < LARGEST else None


def smooth(points: Sequence[tuple[float, float]], weight: float) -> list[tuple[float, float]]:
    """Return a curve's exponential moving average, without the bias of its start, as TensorBoard computes it.

    Args:
        points: (x, y), in the order of x.
        weight: of the past, 0 to 1; 0 returns the points.
    """
    smoothed, total, share = [], 0.0, 0.0
    for x, y in points:
        total, share = weight * total + (1 - weight) * y, weight * share + (1 - weight)
        smoothed.append((x, total / share))
    return smoothed


def _noisy(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    """Return a polyline of many points: in each of COLUMNS parts of the axis the first, lowest, highest and last one."""
    if len(points) > 2 * COLUMNS:
        parts: dict[int, list[tuple[float, float]]] = {}
        for point in points:
            parts.setdefault(int((point[0] - x.low) / (x.high - x.low) * COLUMNS), []).append(point)
        points = [
            point
            for part in parts.values()
            for point in sorted({part[0], min(part, key=_height), max(part, key=_height), part[-1]})
        ]
    return _polyline([(x.pixel(left), y.pixel(top)) for left, top in points])


def _height(point: tuple[float, float]) -> float:
    return point[1]


def _steps(dots: Sequence[tuple[float, float, str]]) -> list[tuple[float, float]]:
    """Return the corners of a line that keeps its height up to the next dot."""
    path = [dots[0][:2]]
    for x, y, _ in dots[1:]:
        path += [(x, path[-1][1]), (x, y)]
    return path


def histogram_outlines(
    edges: Sequence[float], counts: Mapping[str, Sequence[int]], width: float, height: float
) -> dict[str, str]:
    """Return the polygon of each histogram, as shares of its own total, over common bins.

    Args:
        edges: [B + 1]; bins are drawn equally wide.
        counts: [B] by name.
        width, height: of the drawing.
    """
    shares = {name: [count / max(1, sum(row)) for count in row] for name, row in counts.items() if row}
    highest = max((max(row) for row in shares.values()), default=0.0) or 1.0
    step = width / max(1, len(edges) - 1)
    polygons = {}
    for name, row in shares.items():
        path = [(0.0, height)]
        for index, share in enumerate(row):
            top = height - height * share / highest
            path += [(index * step, top), ((index + 1) * step, top)]
        polygons[name] = _polyline([*path, (width, height)])
    return polygons


def share_lengths(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, dict[str, tuple[int, float]]]]:
    """Return each value with its count by split, and that count's length: 1 for the largest share of all.

    Args:
        counts: by split and value.
    """
    totals = {split: max(1, sum(row.values())) for split, row in counts.items()}
    names = dict.fromkeys(name for row in counts.values() for name in row)
    highest = max((count / totals[split] for split, row in counts.items() for count in row.values()), default=0) or 1
    return [
        (name, {split: (row.get(name, 0), row.get(name, 0) / totals[split] / highest) for split, row in counts.items()})
        for name in names
    ]


def reliability_rows(bins: Sequence[tuple[float, float, int]]) -> list[list[str | int]]:
    """Return the table of a reliability diagram: confidence, accuracy, their difference and the examples of each bin."""
    return [
        [f"{confidence:.3f}", f"{accuracy:.3f}", f"{accuracy - confidence:+.3f}", count]
        for confidence, accuracy, count in bins
    ]


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix.

    Attributes:
        names: of rows and columns.
        side: of a cell, in pixels.
        cells: row, column, share of its row, title; those with a count.
    """

    names: list[str]
    side: float
    cells: list[tuple[int, int, float, str]]


def confusion_matrix(counts: Mapping[str, Mapping[str, int]]) -> Matrix:
    """Return the matrix of counts by true and predicted class; zeros may be missing."""
    names = sorted({*counts, *(name for row in counts.values() for name in row)})
    index = {name: number for number, name in enumerate(names)}
    cells = []
    for label, row in counts.items():
        total = sum(row.values()) or 1
        cells += [
            (index[label], index[name], count / total, f"{label} as {name}: {count} of {total}")
            for name, count in row.items()
        ]
    return Matrix(names, max(3.0, min(22.0, 640 / len(names))), cells)


def _polyline(path: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in path)


def _short(value: float, digits: int = 3) -> str:
    return format_number(value, digits, grouped=True)
