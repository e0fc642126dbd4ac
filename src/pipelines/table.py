"""Steps as a table, for a terminal or a pipe."""

import shutil
from collections.abc import Mapping, Sequence
from typing import Any


def format_steps(steps: Sequence[Mapping[str, Any]]) -> str:
    """A line for each step: its name, state and seconds, and what it found."""
    room = max(shutil.get_terminal_size((80, 24)).columns, 60)
    lines = [f"{'step':<17}{'state':<10}{'seconds':>8}  "]
    for each in steps:
        said = str(each.get("message") or each.get("verdict") or "").replace("\n", " ")
        line = f"{each['step']:<17}{each['state']:<10}{each.get('seconds', 0):>8.1f}  {said}"
        lines.append(line if len(line) <= room else line[: room - 3] + "...")
    return "\n".join(line.rstrip() for line in lines)
