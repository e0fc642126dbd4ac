"""Attempts of a step: which failures are worth another attempt, and what became of the earlier ones.

Kubeflow Pipelines compiles the number of retries without a policy, and the defaults are opposites: Argo's own, OnFailure, retries
a failed step and not a deleted pod (KFP 2.16); KFP's manifests since 2.17 set OnError, which retries a deleted pod and not a
failed step. Neither knows exit codes. A step therefore repeats itself after a failure that may pass, and another pod of it ends
at once after a failure that would be repeated.

Sources: argoproj/argo-workflows, processNodeRetries in workflow/controller/operator.go; kubeflow/pipelines,
manifests/kustomize/third-party/argo/base/workflow-controller-configmap-patch.yaml.
"""

import functools
import os
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from cluster.reasons import EXIT_CODES
from config.errors import DivergenceError

# Environment variables of a step. None of them is a part of the key of a cached step.
RETRIES = "ISOTRAIN_STEP_RETRIES"  # attempts after the first; compiled into the pipeline
SECONDS = "ISOTRAIN_RETRY_SECONDS"  # before the second attempt; doubled for each further one
NODE = "ARGO_NODE_ID"  # set by Argo; another one for each retry of Argo, the same one when a run is retried by hand
REPEATABLE = (7, 8, 137, 138)  # a server is away, disk or memory full, killed, another process of the training was lost
_MAX_SECONDS = 300.0
_PROCESS = uuid.uuid4().hex
_FIELDS = ("state", "code", "message", "began", "seconds", "node")  # of an earlier attempt

P = ParamSpec("P")
T = TypeVar("T")


class RefusedAttempt(SystemExit):
    """An attempt that would fail as the one before did; it ends with the exit code of that one."""


def repeat(function: Callable[P, T]) -> Callable[P, T]:
    """Repeat a step, where it is, after a failure that may pass (REPEATABLE).

    Args:
        function: The step; it ends with SystemExit if it fails, as `record_step` does.
    """

    @functools.wraps(function)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
        for number in range(_retries() or 0):
            try:
                return function(*args, **kwargs)
            except RefusedAttempt:
                raise
            except SystemExit as error:
                if error.code not in REPEATABLE:
                    raise
                seconds = min(_MAX_SECONDS, float(os.environ.get(SECONDS) or 30) * 2**number)
                print(f"isotrain: exit code {error.code}: repeated in {seconds:g} s", flush=True)
                time.sleep(seconds)
        return function(*args, **kwargs)

    return repeated


def start_attempt(previous: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the record of a step says about its attempts: this one's origin, and `attempts`, the earlier ones.

    Args:
        previous: Record of the step that this attempt replaces; empty for the first one.
        inputs: What determines the result.

    Raises:
        RefusedAttempt: It would fail as the one before, or there were enough.
    """
    node = os.environ.get(NODE)
    origin = {"process": _PROCESS, "node": node}
    if not previous or previous.get("inputs") != inputs:
        return {**origin, "attempts": []}
    last = {name: previous[name] for name in _FIELDS if previous.get(name) is not None}
    if last.get("state") == "running":
        last["state"] = "lost"  # its pod was deleted or evicted, or the process killed
    attempts = [*previous.get("attempts", []), last]
    if node and previous.get("process") != _PROCESS and node in [attempt.get("node") for attempt in attempts]:
        return {**origin, "attempts": []}  # the run is retried by hand
    if reason := _refusal(attempts):
        print(f"isotrain: {previous.get('step')}: not retried, because {reason}", flush=True)
        raise RefusedAttempt(last["code"])
    return {**origin, "attempts": attempts}


def describe_attempts(attempts: list[dict[str, Any]]) -> str:
    """Return what became of the earlier attempts, in words; "" without any."""
    parts = []
    for number, attempt in enumerate(attempts, 1):
        if attempt.get("state") == "lost":
            parts.append(f"attempt {number} was lost with its pod or process")
        elif attempt.get("state") == "interrupted":
            parts.append(f"attempt {number} was interrupted")
        elif attempt.get("code"):
            parts.append(f"attempt {number} ended with exit code {attempt['code']}")
        else:
            parts.append(f"attempt {number} was done, but KFP did not receive its results")
    return "; ".join(parts)


def _refusal(attempts: list[dict[str, Any]]) -> str:
    """Why another attempt would fail; "" if it may succeed."""
    last = attempts[-1]
    code = last.get("code", 0)
    if last.get("state") in ("lost", "interrupted") or code == 0:
        return ""
    message = last.get("message", "")
    if code == DivergenceError.exit_code:
        return f"it diverged: {message}"
    if code not in REPEATABLE and code < 128:
        return f"it would end again with exit code {code}, {EXIT_CODES.get(code, 'a bug')}: {message}"
    retries = _retries()
    if retries is None or len(attempts) <= retries:
        return ""
    return f"{len(attempts)} attempts have failed, the last one with exit code {code}: {message}"


def _retries() -> int | None:
    """Attempts after the first; None in a pipeline compiled before December 2026."""
    value = os.environ.get(RETRIES, "")
    return int(value) if value.isdecimal() else None
