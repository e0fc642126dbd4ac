"""Retries of Argo Workflows, which runs the steps of Kubeflow Pipelines, with processes in place of pods.

As processNodeRetries in argoproj/argo-workflows, workflow/controller/operator.go (3.7 and 4.0): a pod that ended by itself with
another code than 0 is Failed, one that was deleted is in Error. OnFailure retries the former only, OnError the latter only. The
maximum of the backoff counts from the start of the first pod: after it nothing is retried.
"""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLICIES = {"2.16": "OnFailure", "2.17": "OnError"}  # of KFP's manifests, by version


@dataclass(frozen=True)
class Outcome:
    """How a step ended.

    Attributes:
        phase: Succeeded, Failed or Error.
        code: Exit code of the last pod.
        pods: Number of pods.
        log: What they printed.
    """

    phase: str
    code: int
    pods: int
    log: str


class Argo:
    """Runs steps.

    Attributes:
        policy: The retry policy of the cluster.
        retry: The `retryPolicy` of a step in a compiled pipeline.
        elapsed: Seconds that each pod takes, as far as the maximum of the backoff is concerned.
    """

    def __init__(self, policy: str, retry: Mapping[str, Any], elapsed: float = 0.0) -> None:
        self.policy, self.retry, self.elapsed = policy, retry, elapsed

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        deleted: Sequence[int] = (),
        marker: Path | None = None,
        launcher_first: bool = False,
    ) -> Outcome:
        """Run a step and retry it. The same call once more is what Retry does in KFP: the nodes have the same ids again.

        Args:
            command: Command of the pod.
            environment: Environment variables of the pod.
            deleted: Numbers of the pods that are deleted when `marker` exists.
            marker: A file that the step writes while it works; it prints lines from then on.
            launcher_first: Whether the launcher, which reads the output, ends seconds before the step is killed, as seen on KFP 2.17;
                else both end at once.
        """
        log = ""
        for number in range(int(self.retry["maxRetryCount"]) + 1):
            process = subprocess.Popen(
                command,
                env={**os.environ, **environment, "ARGO_NODE_ID": f"workflow-{number}"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            if number in deleted and marker is not None:
                output = _delete(process, marker, launcher_first)
            else:
                output, _ = process.communicate(timeout=120)
            log += output
            phase = "Error" if number in deleted else "Failed" if process.returncode else "Succeeded"
            outcome = Outcome(phase, process.returncode, number + 1, log)
            late = self.elapsed * (number + 1) > float(str(self.retry["backoffMaxDuration"]).removesuffix("s"))
            if (
                phase == "Succeeded"
                or late
                or self.policy not in ("Always", {"Failed": "OnFailure", "Error": "OnError"}[phase])
            ):
                return outcome
        return outcome


def _delete(process: subprocess.Popen[str], marker: Path, launcher_first: bool) -> str:
    """Delete the pod of a step that works, and return its output until then."""
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if marker.exists():
            break
    process.stdout.close()
    if launcher_first:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
    for kill, number in ((os.killpg, process.pid), (os.kill, int(marker.read_text()))):
        with contextlib.suppress(ProcessLookupError):
            kill(number, signal.SIGKILL)
    marker.unlink()
    process.wait()
    return output


LEVELS = 5  # of nodes that the workflow defaults make retry: the workflow, root, exit handler, step and executor


def count_pods(strategy: Mapping[str, Any], status: str, code: str) -> int:
    """Return the number of pods of a step that always ends in the same way, with a `retryStrategy` in the workflow defaults.

    Args:
        strategy: The `retryStrategy`. Argo looks at its expression only if its policy retries.
        status: Failed or Error.
        code: Exit code of the pod; that of the levels above, which have no pod, is -1.
    """

    def is_retried(exit_code: str) -> bool:
        names = {"status": status, "exitCode": exit_code}
        text = re.sub(r"lastRetry\.(\w+)", r"\1", strategy.get("expression", "True")).replace("||", "or")
        policy = strategy["retryPolicy"] in ("Always", {"Failed": "OnFailure", "Error": "OnError"}[status])
        return policy and bool(eval(text, {}, names))

    pods = 1
    for level in range(LEVELS):
        pods *= 1 + int(strategy["limit"]) * is_retried("-1" if level else code)
    return pods
