"""Why trials of a cluster do not run or failed, and why no trial starts: what pods, events and logs know."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from cluster.reasons import (
    event_time,
    explain_exit_codes,
    has_started,
    last_error_line,
    main_container,
    pod_reason,
    workload_reason,
)
from config.errors import InputError, UnreachableError
from katib.cluster import SUGGESTIONS, Cluster, condition_message
from katib.trials import ENDED, Trial

SUGGESTION_LABEL = "katib.kubeflow.org/suggestion"
COLLECTOR = "metrics-logger-and-collector"
_GOOD = ("Succeeded", "EarlyStopped")
_ACTIVE = ("Pending", "Running")  # phases of a pod
# Messages of a failed trial that say no more than a pod's reason.
_EMPTY_MESSAGES = (
    "reached the specified backoff limit",
    "matching FailJob rule",
    "replica(s) failed",
    "one or more job failures",
)
_REPETITIONS = 3  # of an event, after which a failing suggestion service is reported: it fails at first while it starts


class Reasons:
    """Reasons of an Experiment's trials. What was known of a trial's pods is kept when Katib deletes them.

    Attributes:
        missing: what could not be looked at, and why.
        running: names of the trials whose training runs.
        looked: whether pods could be listed.
    """

    def __init__(self, cluster: Cluster, value: Mapping[str, Any]) -> None:
        """Start without reasons.

        Args:
            cluster: the namespace.
            value: the Experiment's object.
        """
        self._cluster, self._name = cluster, str(value["metadata"]["name"])
        self._retained = bool(((value.get("spec") or {}).get("trialTemplate") or {}).get("retain"))
        self._reasons: dict[str, str] = {}
        self._pods: list[dict[str, Any]] = []
        self._events: list[dict[str, Any]] = []
        self.missing: dict[str, str] = {}
        self.running: set[str] = set()
        self.looked = False

    def explain(self, value: Mapping[str, Any], trials: Sequence[Trial]) -> tuple[list[Trial], str]:
        """Return the trials, with a reason where one failed or does not run, and why the search has no running trial.

        The cluster is asked only if something is not well.

        Args:
            value: the Experiment's object.
            trials: its trials.

        Returns:
            The trials; the reason of the search, "" if a trial runs or nothing is known.
        """
        self.running = set()
        stalled = self._cluster.has_suggestions and self._is_stalled(value, trials)
        if not stalled and all(trial.status in _GOOD for trial in trials):
            return list(trials), ""
        api, selector = self._cluster.api, self._cluster.pod_selector(self._name)
        pods = self._optional("pods", lambda: api.list("pods", labels=selector)[0])
        self.looked, self._pods = pods is not None, pods or []
        self._events = self._optional("events", lambda: api.list("events")[0]) or []
        explained = [dataclasses.replace(trial, reason=self._explain_trial(trial)) for trial in trials]
        return explained, self._explain_search(trials) if stalled else ""

    def missing_line(self) -> str:
        """Return what could not be looked at, in one line; "" if everything could."""
        subjects = ", ".join(self.missing)
        return f"{subjects} could not be looked at ({next(iter(self.missing.values()))})" if subjects else ""

    def describe_start(self) -> str:
        """Return how far a search without trials is: whether its suggestion service has a pod, and whether that is ready."""
        if not self.looked:
            return ""
        pods = [pod for pod in self._pods if _label(pod, SUGGESTION_LABEL) == self._name]
        if not pods:
            return "Katib has not started its suggestion service; is Katib's controller running?"
        conditions = [row for pod in pods for row in (pod.get("status") or {}).get("conditions") or []]
        if any(row.get("type") == "Ready" and row.get("status") == "True" for row in conditions):
            return "its suggestion service is ready, but has suggested nothing"
        name = (pods[-1].get("metadata") or {}).get("name")
        return f"its suggestion service is not ready (pod {name})"

    def _is_stalled(self, value: Mapping[str, Any], trials: Sequence[Trial]) -> bool:
        """Whether the search waits for suggestions, or failed without them."""
        if (failure := condition_message(value, "Failed")) is not None:
            return "uggestion" in failure
        total = (value.get("spec") or {}).get("maxTrialCount")
        is_complete = condition_message(value, "Succeeded") is not None or (total and len(trials) >= int(total))
        return not is_complete and all(trial.status in ENDED for trial in trials)

    def _explain_search(self, trials: Sequence[Trial]) -> str:
        suggestion = self._optional("suggestions", lambda: self._cluster.api.find(SUGGESTIONS, self._name)) or {}
        if message := condition_message(suggestion, "Failed"):
            return f"the suggestion service refuses the search: {message}"
        for pod in self._pods:
            if _label(pod, SUGGESTION_LABEL) == self._name and (reason := pod_reason(pod, self._events)):
                return f"the suggestion service does not run: {self._with_log(reason, pod)}"
        latest = max((trial.started for trial in trials), default="")
        for event in sorted(self._events, key=event_time, reverse=True):
            target = event.get("involvedObject") or {}
            is_own = target.get("name") == self._name and target.get("kind") in ("Suggestion", "Experiment")
            count = int((event.get("series") or {}).get("count") or event.get("count") or 1)
            if is_own and event.get("type") == "Warning" and event_time(event) > latest and count >= _REPETITIONS:
                message = " ".join(str(event.get("message")).split())
                issue = " (kubeflow/katib#2723: an objective that is not a number)" if "to float" in message else ""
                return f"the suggestion service fails: {message}{issue}"
        return ""

    def _optional(self, subject: str, request: Callable[[], Any]) -> Any:
        """Send a request that only explains; None if it fails, which is noted in `missing`."""
        if "no permission" in self.missing.get(subject, ""):
            return None
        try:
            result = request()
        except (InputError, UnreachableError) as error:
            self.missing[subject] = str(error)
            return None
        self.missing.pop(subject, None)
        return result

    def _explain_trial(self, trial: Trial) -> str:
        """Return the reason of a trial, and note whether it runs."""
        if trial.status in _GOOD:
            return ""
        pods = [pod for pod in self._pods if _label(pod, self._cluster.trial_label) == trial.name]
        if trial.status not in ENDED:
            active = [pod for pod in pods if (pod.get("status") or {}).get("phase") in _ACTIVE]
            if any(map(has_started, active)):
                self.running.add(trial.name)
            pods = active or pods  # an evicted pod does not count once there is another one
            reason = self._pods_reason(pods) if pods else workload_reason([trial.name], self._events)
            self._reasons[trial.name] = reason
            return reason
        if not (reason := self._reasons.get(trial.name, "")) or pods:
            reason = self._reasons[trial.name] = self._pods_reason(pods) or reason
        message = explain_exit_codes(trial.reason.removeprefix("Trial has failed").removeprefix(". Job message: "))
        is_empty = not message or any(text in message for text in _EMPTY_MESSAGES)
        if reason:
            return reason if is_empty else f"{reason}; {message}"
        if is_empty and self.looked and not pods and not self._retained:
            message = f"{message or 'failed'}; Katib deleted its pods (spec.trialTemplate.retain=true keeps them)"
        return message

    def _pods_reason(self, pods: Sequence[Mapping[str, Any]]) -> str:
        """Return the reason of the pod that failed first, with the last error line of its log."""
        rows = [(pod, reason) for pod in pods if (reason := pod_reason(pod, self._events))]
        if not rows:
            return ""
        # 138 and 143 are the other processes of a training that lost one.
        pod, reason = min(rows, key=lambda row: ("code 138" in row[1] or "code 143" in row[1], _end(row[0])))
        name = f"{pod['metadata']['name']}: " if len(pods) > 1 else ""
        return name + self._with_log(reason, pod)

    def _with_log(self, reason: str, pod: Mapping[str, Any]) -> str:
        """Add the last error line of a pod's log to a reason, if the pod has run."""
        if not has_started(pod):
            return reason
        # Katib redirects the training's output into a file, which the collector prints.
        names = [str(container.get("name")) for container in (pod.get("spec") or {}).get("containers") or []]
        for container in (main_container(pod), *(name for name in names if name == COLLECTOR)):
            log = self._optional("logs", partial(self._cluster.api.read_log, pod["metadata"]["name"], container))
            if line := last_error_line(log or ""):
                return f"{reason}; {line}"
        return reason


def _label(pod: Mapping[str, Any], name: str) -> str:
    return str((pod["metadata"].get("labels") or {}).get(name, ""))


def _end(pod: Mapping[str, Any]) -> str:
    """Return when the main container of a pod ended; a pod that has not ended comes last."""
    main = main_container(pod)
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        if status.get("name") == main:
            return str(((status.get("state") or {}).get("terminated") or {}).get("finishedAt") or "9")
    return "9"
