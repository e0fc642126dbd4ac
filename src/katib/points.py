"""The points of a search space at which a trial's command is tried."""

import math
from collections.abc import Sequence

from katib.experiment import Parameter


def of(parameters: Sequence[Parameter]) -> list[dict[str, str]]:
    """Every parameter at its ends and middle in turn, the others in the middle; all at their ends; each choice.

    Args:
        parameters: with bounds or choices; one without either is left out.

    Returns:
        Assignments, each once; values written as Katib writes them.
    """
    values = {each.name: tried(each) for each in parameters}
    values = {name: found for name, found in values.items() if found}
    middle = {name: found[len(found) // 2] for name, found in values.items()}
    points = [middle]
    for name, found in values.items():
        points += [{**middle, name: value} for value in found]
    points += [{name: found[end] for name, found in values.items()} for end in (0, -1)]
    return list({tuple(sorted(point.items())): point for point in points}.values())


def tried(parameter: Parameter) -> list[str]:
    """Both ends and the middle of a range; every choice of a list."""
    if parameter.type in ("categorical", "discrete"):
        return list(parameter.choices)
    bounds = parameter.numbers
    if bounds is None:
        return []
    low, high = bounds
    if parameter.type == "int":
        middle = str((int(low) + int(high)) // 2)
        return [str(int(low)), middle, str(int(high))]
    if parameter.step and (grid := parameter.steps()):
        return [grid[0], grid[len(grid) // 2], grid[-1]]
    logarithmic = parameter.distribution in ("logUniform", "logNormal") and low > 0
    return [repr(low), repr(math.sqrt(low * high) if logarithmic else (low + high) / 2), repr(high)]
