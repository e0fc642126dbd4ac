"""Progress and metrics of a run in the status of its TrainJob, where Kubeflow Trainer's controller collects them.

The controller sets KUBEFLOW_TRAINER_SERVER_URL and the paths of a CA certificate and a token in every pod of a TrainJob, if
its feature gate TrainJobStatus is on. Each post replaces the status, so all posts are complete. The form is that of
Trainer 2.3 (pkg/statusserver).
"""

import contextlib
import json
import logging
import math
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from config.errors import first_line
from runs import metric_lines
from runs.metric_lines import MetricLine

logger = logging.getLogger(__name__)

URL, CA_FILE, TOKEN_FILE = (f"KUBEFLOW_TRAINER_SERVER_{name}" for name in ("URL", "CA_CERT", "TOKEN"))
INTERVAL_S = 5.0  # between two posts: the server admits five a second for all jobs of the cluster
TIMEOUT_S = 5.0
_FINAL_ATTEMPTS = 3
_MAX_METRICS, _MAX_NAME = 256, 64  # of the server
_MAX_SECONDS = 2**31 - 1


class TrainJobStatus:
    """The status of a run, posted by a thread of its own, so that no server slows or stops a training."""

    def __init__(self, url: str, monitor: str, maximize: bool) -> None:
        """Start without progress.

        Args:
            url: address of the status server.
            monitor: the metric of which the best value is posted; of others it is the last one.
            maximize: whether a higher value of it is better.
        """
        self.url, self.monitor, self.maximize = url, monitor, maximize
        self.metrics: dict[str, float] = {}
        self._position: tuple[int, int | None] | None = None  # step, and the number of steps
        self._start: tuple[int, float] | None = None  # the first step of this process, and when it ended
        self._complete = self._changed = False
        self._lock, self._end = threading.Lock(), threading.Event()
        self._problems: set[str] = set()  # kinds of failures that were logged
        self._away = False  # whether a failure was logged since the last success
        self._thread = threading.Thread(target=self._post_regularly, name="trainjob-status", daemon=True)
        self._thread.start()

    def add_line(self, line: MetricLine) -> None:
        """Take the metrics of a validation."""
        with self._lock:
            for name, value in line.values.items():
                before = self.metrics.get(name)
                if name == self.monitor and before is not None:
                    value = max(before, value) if self.maximize else min(before, value)
                self.metrics[name] = value
            self._changed = True

    def advance(self, step: int, total: int | None) -> None:
        """Take the number of optimiser steps so far, and of all; None if that is not known."""
        moment = time.monotonic()
        with self._lock:
            self._start = self._start or (step, moment)
            self._position, self._changed = (step, total), True

    def complete(self) -> None:
        """Let the last post say that all is done."""
        self._complete = self._changed = True

    def close(self) -> None:
        """Stop the thread, and post what is new."""
        self._end.set()
        self._thread.join(TIMEOUT_S)
        attempts = _FINAL_ATTEMPTS if self._complete else 1  # a pod that is to end has little time
        while self._changed and attempts and not self._post():
            attempts -= 1
            time.sleep(1.0 if attempts else 0.0)

    def content(self) -> dict[str, Any]:
        """Return the body of a post."""
        with self._lock:
            position, start, metrics = self._position, self._start, dict(self.metrics)
            self._changed = False
        status: dict[str, Any] = {}
        if self._complete:
            status |= {"progressPercentage": 100, "estimatedRemainingSeconds": 0}
        elif position is not None and position[1]:
            step, total = position[0], position[1]
            status["progressPercentage"] = min(99, 100 * step // total)
            if start is not None and step > start[0]:
                seconds = (time.monotonic() - start[1]) / (step - start[0]) * (total - step)
                status["estimatedRemainingSeconds"] = min(max(0, round(seconds)), _MAX_SECONDS)
        names = [name for name in metrics if 0 < len(name) <= _MAX_NAME and math.isfinite(metrics[name])]
        names.sort(key=lambda name: name != self.monitor)
        status["metrics"] = [{"name": name, "value": repr(metrics[name])} for name in names[:_MAX_METRICS]]
        status["lastUpdatedTime"] = datetime.now(UTC).isoformat(timespec="milliseconds")
        return {"trainerStatus": status}

    def _post_regularly(self) -> None:
        wait = INTERVAL_S
        while not self._end.wait(wait):
            if self._changed:
                wait = INTERVAL_S if self._post() else min(60.0, 2 * wait)

    def _post(self) -> bool:
        """Post the status; each kind of failure is logged once, and the next post has all that this one had."""
        variable = TOKEN_FILE
        try:
            # The token is replaced every hour or sooner.
            token = Path(os.environ[TOKEN_FILE]).read_text(encoding="utf-8").strip()
            variable = CA_FILE
            context = ssl.create_default_context(cafile=os.environ.get(CA_FILE))
            variable = ""
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            body = json.dumps(self.content()).encode()
            request = urllib.request.Request(self.url, body, headers, method="POST")
            opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirect())
            with opener.open(request, timeout=TIMEOUT_S):
                if self._away:
                    logger.info("the status of the TrainJob is updated again")
                self._away = False
                return True
        except urllib.error.HTTPError as error:
            kind, problem = str(error.code), _message(error)
        except (OSError, ValueError, KeyError) as error:  # of a server that is away: URLError, with several reasons
            kind, problem = variable or type(error).__name__, first_line(error)
        self._changed = True
        if kind not in self._problems:
            logger.warning("the status of the TrainJob is not updated (%s: %s); training goes on", kind, problem)
            self._problems.add(kind)
            self._away = True
        return False


def _message(error: urllib.error.HTTPError) -> str:
    """Return the message of Kubernetes' answer, which is JSON; of a proxy's, its text or its reason."""
    text = error.read(10_000).decode(errors="replace").strip()
    with contextlib.suppress(ValueError, TypeError, KeyError):
        text = str(json.loads(text)["message"])
    return text[:500] or error.reason


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirection, to which the token would go, too."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


_active: list[TrainJobStatus] = []


def report_step(step: int, total: int | None) -> None:
    """Report a training step of this process, if it is in a TrainJob whose status can be posted."""
    for status in _active:
        status.advance(step, total)


def report_completion() -> None:
    """Report that the run of this process has its result."""
    for status in _active:
        status.complete()


@contextlib.contextmanager
def post_status(monitor: str, maximize: bool) -> Iterator[None]:
    """Post progress and metrics to Kubeflow Trainer within the block, where it has a status server. Called on rank zero.

    Args:
        monitor: the metric that is the objective; its best value so far is posted.
        maximize: whether a higher value of it is better.
    """
    url = os.environ.get(URL)
    if not url:
        yield
        return
    if not url.startswith("https://"):
        logger.warning("%s is no https address: the status of the TrainJob is not updated", URL)
        yield
        return
    status = TrainJobStatus(url, monitor, maximize)
    _active.append(status)
    metric_lines.listeners.append(status.add_line)
    try:
        yield
    finally:
        metric_lines.listeners.remove(status.add_line)
        _active.remove(status)
        status.close()
