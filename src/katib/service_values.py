"""Values of parameters as Katib's suggestion services (v0.19) make them from a draw, and write them as text.

hyperopt, optuna, scikit-optimize, goptuna and Katib's own services round to steps in different ways; sources are
pkg/suggestion/v1beta1 of kubeflow/katib, hyperopt 0.2.5 (`quniform`), optuna 3.3.0 and goptuna 0.8.0 (distribution.go).
"""

import math
from decimal import Decimal

from katib.collector import format_go_float
from katib.experiment import Parameter, parse_number

HYPEROPT = ("random", "tpe")
GOPTUNA = ("cmaes", "sobol")  # whose service is written in Go


def draw_bounds(parameter: Parameter, algorithm: str) -> tuple[float, float] | None:
    """Return the range of a service's draws; None if it chooses from a list, or bounds are missing."""
    if parameter.type in ("int", "double") and (bounds := parameter.numbers):
        if algorithm == "multivariate-tpe" and parameter.distribution == "logUniform":
            return max(bounds[0], 1.0 if parameter.type == "int" else 1e-10), bounds[1]
        return bounds
    if parameter.type == "discrete" and algorithm == "hyperband":
        values = [number for choice in parameter.choices if (number := parse_number(choice)) is not None]
        return (min(values), max(values)) if values else None
    return None


def is_rounded(parameter: Parameter, algorithm: str) -> bool:
    """Return whether an algorithm's draws are real numbers that it rounds."""
    if algorithm in (*HYPEROPT, "cmaes"):
        return parameter.type == "int" or (parameter.type == "double" and bool(parameter.step))
    return algorithm == "hyperband" and parameter.type in ("int", "discrete")


def write_value(parameter: Parameter, algorithm: str, draw: float) -> str:
    """Return the text of the value that a service makes from a draw.

    Args:
        parameter: a parameter with `draw_bounds`.
        algorithm: name of the algorithm.
        draw: a number within the bounds; for sobol a coordinate of its point, from 0 to below 1.
    """
    low, high = parameter.numbers or (0.0, 0.0)
    step = parse_number(parameter.step) if parameter.step else None
    integer = parameter.type == "int"
    if algorithm in GOPTUNA:
        return _write_goptuna(draw, low, high, step, integer, algorithm)
    if parameter.type == "discrete":
        return str(min((int(choice) for choice in parameter.choices), key=lambda value: abs(value - draw)))
    if algorithm in HYPEROPT:
        unit = step or (1.0 if integer else None)  # Katib's default for integers
        value = draw if unit is None else math.copysign(round(abs(draw / unit)), draw) * unit
    elif algorithm == "multivariate-tpe" and step and parameter.distribution != "logUniform":
        value = min(low + round((draw - low) / step) * step, _last_step(parameter.low, parameter.high, parameter.step))
    else:
        value = round(draw) if integer else draw
    return str(int(value)) if integer else repr(float(value))


def _write_goptuna(draw: float, low: float, high: float, step: float | None, integer: bool, algorithm: str) -> str:
    """goptuna rounds halves away from zero, and can exceed the maximum; sobol never reaches that of an integer."""
    if algorithm == "sobol":
        if integer:
            unit = step or 1.0
            return str(math.floor(draw * ((high - low) // unit)) * int(unit) + int(low))
        if not step:
            return format_go_float(draw * (high - low) + low)
        shifted = draw * ((high - low + 0.5 * step) - (0 - 0.5 * step)) + (0 - 0.5 * step)
        draw = min(max(_round_away(shifted / step) * step + low, low), high)
    if integer:
        unit = step or 1.0
        return str(int(_round_away((draw - low) / unit) * unit + low) if step else int(_round_away(draw)))
    return format_go_float(math.floor((draw - low) / step + 0.5) * step + low if step and low < high else draw)


def _round_away(value: float) -> float:
    return math.copysign(math.floor(abs(value) + 0.5), value)


def _last_step(low: str, high: str, step: str) -> float:
    """Return the largest value of optuna's range: its decimals are exact."""
    first, last, unit = Decimal(repr(float(low))), Decimal(repr(float(high))), Decimal(repr(float(step)))
    return float(high) if (last - first) % unit == 0 else float((last - first) // unit * unit + first)


def end_values(parameter: Parameter, algorithm: str) -> list[str]:
    """Return the lowest, the middle and the highest value that a service suggests; empty without bounds.

    Ends of a rounded range are those of draws inside it: a half-open interval belongs to a value, and its ends have no
    probability.
    """
    bounds = draw_bounds(parameter, algorithm)
    if bounds is None:
        return []
    low, high = bounds
    if algorithm == "grid" and (grid := parameter.grid()):
        return [grid[0], grid[len(grid) // 2], grid[-1]]
    if algorithm == "sobol":
        return [write_value(parameter, algorithm, draw) for draw in (0.0, 0.5, math.nextafter(1.0, 0.0))]
    logarithmic = low > 0 and (
        (algorithm in (*HYPEROPT, "multivariate-tpe") and parameter.distribution in ("logUniform", "logNormal"))
        or (algorithm == "bayesianoptimization" and parameter.type == "double")
    )
    middle = math.sqrt(low * high) if logarithmic else (low + high) / 2
    if is_rounded(parameter, algorithm) and algorithm != "cmaes":  # which clips its draws to the bounds
        low, high = math.nextafter(low, high), math.nextafter(high, low)
    return [write_value(parameter, algorithm, draw) for draw in (low, middle, high)]
