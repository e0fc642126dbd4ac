"""Charts of the report, as SVG that needs nothing else and takes the page's colours."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from runs.page import escaped, short

LINE = ("#3b6ea5", "#c8862a", "#2e7d4f", "#a33a3a", "#7a5195", "#5f7f8c", "#b5651d", "#6b8e23")
WIDE, HIGH, LEFT, BOTTOM = 340, 170, 46, 22

Points = Sequence[tuple[float, float]]


def curves(lines: Mapping[str, Points], across: str) -> str:
    """Lines over one axis, each name with its colour below; points that are no numbers are left out.

    Args:
        lines: (x, y) by name; in the order of x.
        across: what x is.
    """
    known = {name: [(x, y) for x, y in points if np.isfinite(x) and np.isfinite(y)] for name, points in lines.items()}
    known = {name: points for name, points in known.items() if points}
    if not known:
        return "<p class='small'>no values</p>"
    xs = [x for points in known.values() for x, _ in points]
    ys = [y for points in known.values() for _, y in points]
    said = f"{', '.join(known)} over {across}"
    parts, place = _axes((min(xs), max(xs)), (min(ys), max(ys)), across, said)
    for number, (name, points) in enumerate(known.items()):
        colour = LINE[number % len(LINE)]
        at = [place(x, y) for x, y in points]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        parts.append(f"<polyline points='{drawn}' fill='none' stroke='{colour}' stroke-width='1.6'/>")
        for (x, y), (real_x, real_y) in zip(at, points, strict=True):
            said = f"{escaped(name)}: {short(real_y)} at {escaped(across)} {short(real_x)}"
            parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='2.4' fill='{colour}'><title>{said}</title></circle>")
    legend = "".join(
        f"<i style='background:{LINE[number % len(LINE)]}'></i>{escaped(name)}" for number, name in enumerate(known)
    )
    return "".join(parts) + f"</svg><p class='key small'>{legend}</p>"


def _axes(
    xs: tuple[float, float], ys: tuple[float, float], across: str, said: str
) -> tuple[list[str], Callable[[float, float], tuple[float, float]]]:
    """A frame with its numbers, and where a point lies in it."""
    right, top, base = WIDE - 8, 8, HIGH - BOTTOM
    (x_low, x_high), (y_low, y_high) = xs, ys

    def place(x: float, y: float) -> tuple[float, float]:
        along = (x - x_low) / ((x_high - x_low) or 1)
        up = (y - y_low) / (y_high - y_low) if y_high > y_low else 0.5
        return LEFT + along * (right - LEFT), base - up * (base - top)

    parts = [f"<svg viewBox='0 0 {WIDE} {HIGH}' role='img' aria-label='{escaped(said)}'>"]
    for share in (0.0, 0.5, 1.0):
        y = base - share * (base - top)
        parts.append(f"<line class='grid-line' x1='{LEFT}' x2='{right}' y1='{y:.1f}' y2='{y:.1f}'/>")
        if y_high > y_low or share == 0.5:
            parts.append(
                f"<text x='{LEFT - 4}' y='{y + 4:.1f}' text-anchor='end'>{short(y_low + share * (y_high - y_low))}</text>"
            )
    parts.append(f"<text x='{LEFT}' y='{HIGH - 6}'>{short(x_low)}</text>")
    parts.append(f"<text x='{(LEFT + right) / 2}' y='{HIGH - 6}' text-anchor='middle'>{escaped(across)}</text>")
    if x_high > x_low:
        parts.append(f"<text x='{right}' y='{HIGH - 6}' text-anchor='end'>{short(x_high)}</text>")
    return parts, place


def reliability(bins: Sequence[tuple[float, float, int]]) -> str:
    """How often the model is right against how sure it is: on the diagonal it is as sure as it is right.

    Args:
        bins: mean confidence, share that is right, number of examples.
    """
    side = 200
    parts = [
        f"<svg viewBox='-34 -6 {side + 44} {side + 34}' role='img' aria-label='confidence against accuracy' style='max-width:19rem'>"
    ]
    parts.append(f"<rect class='grid-line' width='{side}' height='{side}' fill='none'/>")
    parts.append(f"<line class='grid-line' x1='0' y1='{side}' x2='{side}' y2='0' stroke-dasharray='4 4'/>")
    points = " ".join(f"{side * sure:.1f},{side - side * right:.1f}" for sure, right, _ in bins)
    parts.append(f"<polyline points='{points}' fill='none' stroke='{LINE[0]}' stroke-width='1.5'/>")
    for sure, right, count in bins:
        said = f"sure {sure:.2f}, right {right:.2f}, {count} examples"
        parts.append(
            f"<circle cx='{side * sure:.1f}' cy='{side - side * right:.1f}' r='3.5' fill='{LINE[0]}'><title>{said}</title></circle>"
        )
    parts.append(f"<text x='{side / 2}' y='{side + 16}' text-anchor='middle'>how sure</text>")
    parts.append(
        f"<text x='-8' y='{side / 2}' text-anchor='middle' transform='rotate(-90 -8 {side / 2})'>how often right</text>"
    )
    return "".join(parts) + "</svg>"


def confusion(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Counts by true class (rows) and predicted class (columns): the darker, the more of its row.

    Args:
        counts: by true and predicted class; zeros may be left out.
    """
    names = sorted({*counts, *(other for row in counts.values() for other in row)})
    cell = max(3.0, min(22.0, 640 / len(names)))
    side, label = cell * len(names), 74.0 if len(names) <= 30 else 4.0
    beyond = label / 2  # slanted names reach over the right edge
    place = {name: number for number, name in enumerate(names)}
    parts = [
        f"<svg viewBox='0 0 {side + label + beyond:.0f} {side + label + 2:.0f}' role='img' aria-label='confusion matrix of {len(names)} classes' "
        f"style='max-width:{side + label + beyond:.0f}px'>",
        f"<rect class='grid-line' x='{label}' y='{label}' width='{side:.1f}' height='{side:.1f}' fill='none'/>",
    ]
    for true, row in counts.items():
        total = sum(row.values()) or 1
        for other, count in row.items():
            x, y = label + cell * place[other], label + cell * place[true]
            colour = LINE[0] if other == true else LINE[3]
            parts.append(
                f"<rect x='{x:.1f}' y='{y:.1f}' width='{cell:.1f}' height='{cell:.1f}' fill='{colour}' fill-opacity='{max(0.08, count / total):.2f}'>"
                f"<title>{escaped(true)} as {escaped(other)}: {count} of {total}</title></rect>"
            )
    if len(names) <= 30:
        for name, number in place.items():
            middle = label + cell * (number + 0.5)
            said = escaped(name if len(name) <= 11 else f"{name[:10]}…")
            parts.append(f"<text x='{label - 4}' y='{middle + 3:.1f}' text-anchor='end'>{said}</text>")
            parts.append(
                f"<text text-anchor='start' transform='translate({middle + 3:.1f} {label - 4}) rotate(-60)'>{said}</text>"
            )
    return "".join(parts) + "</svg>"


def interval(value: float, low: float, high: float, ends: tuple[float, float]) -> str:
    """A mean and its interval on a line between two ends.

    Args:
        value: the mean.
        low, high: its interval.
        ends: of the line; what lies beyond is drawn at them.
    """
    wide, (first, last) = 160, ends
    scale = (wide - 8) / ((last - first) or 1)

    def x(at: float) -> float:
        return 4 + (min(max(at, first), last) - first) * scale

    return (
        f"<svg viewBox='0 0 {wide} 14' role='img' aria-label='{short(low)} to {short(high)}' style='min-width:7rem'>"
        f"<title>{short(low)} to {short(high)}, on a line from {short(first)} to {short(last)}</title>"
        f"<line class='grid-line' x1='4' x2='{wide - 4}' y1='7' y2='7'/>"
        f"<line x1='{x(low):.1f}' x2='{x(high):.1f}' y1='7' y2='7' stroke='{LINE[0]}' stroke-width='3'/>"
        f"<circle cx='{x(value):.1f}' cy='7' r='3.6' fill='{LINE[0]}'/></svg>"
    )


def scatter(points: Sequence[tuple[float, float, str]], across: str) -> str:
    """One dot for each (x, y, name)."""
    known = [(x, y, name) for x, y, name in points if np.isfinite(x) and np.isfinite(y)]
    if not known:
        return "<p class='small'>no values</p>"
    x_low, x_high = min(x for x, _, _ in known), max(x for x, _, _ in known)
    y_low, y_high = min(y for _, y, _ in known), max(y for _, y, _ in known)
    parts, place = _axes((x_low, x_high), (y_low, y_high), across, f"{len(known)} runs")
    for x, y, name in known:
        at = place(x, y)
        said = f"{escaped(name)}: {short(y)} at {short(x)} {escaped(across)}"
        parts.append(
            f"<circle cx='{at[0]:.1f}' cy='{at[1]:.1f}' r='3.4' fill='{LINE[0]}' fill-opacity='.7'><title>{said}</title></circle>"
        )
    return "".join(parts) + "</svg>"
