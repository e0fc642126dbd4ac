"""Whether the pods of a run on Kubeflow start, while `submit` waits for the run."""

import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from config.errors import UnreachableError
from pipelines.nodes import Node

SILENCE = 120.0  # seconds without a running pod before the first message; doubled after each message
_POD = re.compile(r"executor(\(\d+\))?|.*-driver(\(\d+\))?")  # names of the nodes that have a pod


class StartWatch:
    """Messages about a run none of whose pods is running.

    Attributes:
        limit: Seconds without a running pod after which waiting ends; None: without limit.
        explain: Returns why the pods of a run do not start; "" if that is not known.
    """

    def __init__(self, limit: float | None = None, explain: Callable[[Any], str] = lambda run: "") -> None:
        self.limit, self.explain = limit, explain
        self._since, self._next = time.monotonic(), SILENCE
        self._states: list[tuple[str, str]] = []

    def update(self, run: Any, nodes: Sequence[Node]) -> None:
        """Look at a run of the API and at its nodes.

        Raises:
            UnreachableError: No pod of it has run for `limit` seconds.
        """
        states = sorted((node.name, node.state) for node in nodes)
        names = {node.name for node in nodes if node.state == "PENDING"}
        # A node is RUNNING while the pod of its attempt, NAME(0), is PENDING.
        pods = [node for node in nodes if _POD.fullmatch(node.name) and f"{node.name}(0)" not in names]
        present = time.monotonic()
        if states != self._states or any(node.state == "RUNNING" for node in pods):
            self._states, self._since, self._next = states, present, SILENCE
            return
        seconds = present - self._since
        waiting = sorted({node.name for node in pods if node.state == "PENDING"})
        is_late = self.limit is not None and seconds >= self.limit
        if not is_late and seconds < self._next:
            return
        text = f"no pod of the run has started for {seconds:.0f} s{': ' if waiting else ''}{', '.join(waiting)}"
        reason = self.explain(run) or "kubectl get pods and kubectl get events in the namespace of the run say why"
        if is_late:
            raise UnreachableError(f"{text}; {reason}; the run continues")
        self._next *= 2
        print(f"isotrain: {text}; {reason}", file=sys.stderr, flush=True)
