"""Hyperband's arithmetic as Katib v0.19 has it (pkg/suggestion/v1beta1/hyperband/service.py)."""

import math
from collections.abc import Mapping

from katib.experiment import parse_number


def width(settings: Mapping[str, str]) -> int | None:
    """How many trials Katib's hyperband starts at once; None if r_l is no number."""
    resource, eta = parse_number(settings.get("r_l")), int(parse_number(settings.get("eta", "3")) or 3)
    if resource is None or resource < 1:
        return None
    eta = eta if eta > 0 else 3
    return math.ceil(eta ** int(math.log(resource) / math.log(eta))) if eta > 1 else None


def plan(settings: Mapping[str, str]) -> list[list[tuple[int, int]]]:
    """Katib's brackets: of each, the rungs as (number of trials, resource of each)."""
    resource, eta = float(settings["r_l"]), float(settings.get("eta") or 3)
    eta = eta if eta > 0 else 3.0
    brackets = []
    largest = int(math.log(resource) / math.log(eta))
    for s in range(largest, -1, -1):
        count = math.ceil((largest + 1) * (eta**s / (s + 1)))
        first = resource * eta ** (-s)
        # The service passes r through a text of its whole part between rungs.
        rungs = [(count, int(first))]
        for i in range(s):
            kept = math.ceil(math.ceil(count * eta ** (-i)) / eta)
            rungs.append((kept, int(int(first) * eta ** (i + 1))))
        brackets.append(rungs)
    return brackets
