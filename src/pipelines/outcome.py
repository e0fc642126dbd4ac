"""What a run on Kubeflow registered: as the log of its register step says, since KFP's API has no text of a step."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines import failures
from pipelines.nodes import Node
from pipelines.server import Server

_RESULT = re.compile(r"^isotrain: register: done in [\d.]+ s: (.+)$", re.MULTILINE)  # of pipelines.record


def registration(
    server: Server, run: str, rows: Sequence[Mapping[str, Any]], nodes: Sequence[Node], namespace: str | None
) -> str:
    """Return the version that a run registered, whether it became champion, and why not; "" if that is not known.

    Args:
        server: Keeps the logs.
        run: Id of the run.
        rows: Its steps, as of `nodes.fold_steps`.
        nodes: Its nodes.
        namespace: Namespace of its pods, if it is known.
    """
    row = next((row for row in rows if row["step"] == "register" and row["state"] == "SUCCEEDED"), None)
    results = _RESULT.findall(failures.read_log(server, run, row, nodes, namespace)) if row else []
    return f"registered {results[-1]}" if results else ""
