"""Why a workload does not run, or why it failed: one line from pods, events and logs.

Pure functions on the JSON of the Kubernetes API. The reasons of kubelet and scheduler are those of Kubernetes 1.34
(pkg/kubelet/events, pkg/kubelet/images, pkg/scheduler); older ones say the same with shorter messages.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# What an exit code of a container says: isotrain's (docs/exit_codes.md), and those of shells and of Kubernetes.
# 1 is left out: Katib's wrapper ends with it for any failure of a trial with early stopping.
EXIT_CODES: Mapping[int, str] = {
    2: "configuration or input refused",
    3: "diverged",
    4: "data contract failed",
    5: "explanation gate failed",
    6: "search or pipeline failed",
    7: "a server did not answer",
    8: "out of disk space or memory",
    126: "the command cannot be executed",
    127: "command not found",
    130: "interrupted",
    134: "aborted (SIGABRT)",
    135: "bus error (SIGBUS): often too little shared memory in /dev/shm",
    137: "killed (SIGKILL): out of memory of the node, or not ended within its grace period",
    138: "another process of this training was lost",
    139: "segmentation fault (SIGSEGV)",
    143: "interrupted by SIGTERM",
}
_PULL = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable")
_CREATE = {
    "CreateContainerConfigError": "cannot be configured",
    "CreateContainerError": "cannot be created",
    "RunContainerError": "cannot be started",
    "StartError": "cannot be started",
    "ContainerCannotRun": "cannot be started",
    "PreCreateHookError": "cannot be created",
    "PreStartHookError": "cannot be started",
    "PostStartHookError": "ended by its postStart hook",
}
# Reasons of a pod's own status: the kubelet refused or ended the pod.
_POD_REASONS = {
    "Evicted": "evicted",
    "NodeLost": "its node does not respond",
    "NodeShutdown": "its node shut down",
    "Shutdown": "its node shut down",
    "Terminated": "its node shut down",
    "Preempting": "preempted by a pod of higher priority",
    "DeadlineExceeded": "not ended within activeDeadlineSeconds",
    "UnexpectedAdmissionError": "refused by its node",
    "NodeAffinity": "refused by its node",
    "NodePorts": "refused by its node",
}
_DISRUPTIONS = {
    "PreemptionByScheduler": "preempted by a pod of higher priority",
    "DeletionByTaintManager": "evicted from its node",
    "EvictionByEvictionAPI": "evicted (drain of its node, or another use of the eviction API)",
    "DeletionByPodGC": "its node is gone",
    "TerminationByKubelet": "ended by its node",
}
# Warnings about a pod whose containers wait; the events tell what their states do not.
_START_WARNINGS = (
    "FailedScheduling",
    "FailedMount",
    "FailedAttachVolume",
    "FailedMapVolume",
    "FailedCreatePodSandBox",
    "NetworkNotReady",
    "FailedBinding",
    "ProvisioningFailed",
    "Failed",
    "InspectFailed",
)
# Warnings about a workload without pods, and what a queue says.
_WORKLOAD_WARNINGS = ("FailedCreate", "ReconcileError", "FailedCreatePod", "FailedCreateJob", "CreateJobFailed")
_MAX_LENGTH = 300  # characters of a reason
# Times of a log driver, and klog's header of each line that Katib's collector prints.
_LOG_PREFIX = re.compile(
    r"^(?:I\d{4} [\d:.]+\s+\d+ [\w.-]+:\d+\] ?|\d{4}-\d\d-\d\dT\S+\s+(?:std(?:out|err) [FP] )?(?!epoch=))+"
)
_NOTICE = re.compile(
    r"^isotrain: (?:the run is in|wrote|watch it|created|deleted|warning)\b|: waiting$|; trying again$|\.html$"
)
_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b")
_ERROR_WORD = re.compile(r"\b(?:error|failed|fatal|panic|cannot|not found|no such file|killed)\b", re.IGNORECASE)


def pod_reason(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return in one line why a pod does not run or why it failed; "" if nothing is wrong with it.

    Args:
        pod: the pod.
        events: events of its namespace; those about other objects are ignored.
    """
    status = pod.get("status") or {}
    phase = str(status.get("phase") or "")
    if phase == "Succeeded":
        return ""
    rows = _own_events(pod, events) if phase in ("", "Pending") else []
    warning = _latest_warning(status, rows)
    return _shorten(
        _disruption(status)
        or _unscheduled(pod, warning)
        or _container_reason(pod, rows)
        or (_status_reason(status) if phase in ("Failed", "Unknown") or status.get("reason") else "")
        or (_sentence(warning) if warning else "")
        or (f"its node {_node(pod)} does not respond" if phase == "Unknown" else "")
        or ("it failed" if phase == "Failed" else "")
    )


def has_started(pod: Mapping[str, Any]) -> bool:
    """Return whether the main container of a pod runs or has run."""
    main = main_container(pod)
    for status in _container_states(pod, "containerStatuses"):
        if status.get("name") == main:
            state = status.get("state") or {}
            ended = state.get("terminated")
            return "running" in state or bool(
                status.get("restartCount") or (ended and ended.get("reason") not in _CREATE)
            )
    return False


def workload_reason(names: Sequence[str], events: Sequence[Mapping[str, Any]]) -> str:
    """Return in one line why a workload has no pods; "" if no event says so.

    Args:
        names: names of the workload: of the trial, its Job, PyTorchJob or TrainJob, and of what these own.
        events: events of the namespace. Those about objects with such a name, or one that begins with it and a hyphen, count.
    """
    rows = [event for event in events if _is_about(event, names) and event.get("reason") in _WORKLOAD_WARNINGS]
    rows = [event for event in rows if (event.get("involvedObject") or {}).get("kind") != "Pod"]
    if not rows:
        return ""
    return _shorten(f"its pods cannot be created: {_message(max(rows, key=event_time))}")


def exit_reason(code: int) -> str:
    """Return an exit code with its meaning: `exit code 3: diverged`."""
    meaning = EXIT_CODES.get(code)
    return f"exit code {code}" + (f": {meaning}" if meaning else "")


def explain_exit_codes(message: str) -> str:
    """Add the meaning of the exit code to a message of Kubernetes that has one: `failed with exit code 3 (diverged)`."""

    def explain(match: re.Match[str]) -> str:
        meaning = EXIT_CODES.get(int(match[1]))
        return f"exit code {match[1]}" + (f" ({meaning})" if meaning else "")

    return re.sub(r"exit code (\d+)\b(?!:| \()", explain, message)


def last_error_line(log: str) -> str:
    """Return the line of a log that says why a program failed; "" if none does.

    It is the last message of isotrain, else the exception below the last traceback of Python, else the last line with a
    word such as error. Times that a log driver puts before each line are left out.

    Args:
        log: the last lines of the log.
    """
    lines = [_LOG_PREFIX.sub("", line).strip() for line in log.splitlines()]
    for index in range(len(lines) - 1, -1, -1):
        line = lines[index]
        if line.startswith("isotrain: ") and not _NOTICE.search(line):
            details = lines[index + 1] if line.endswith(":") and index + 1 < len(lines) else ""
            return _shorten(f"{line.removeprefix('isotrain: ')} {details}".strip())
    for expression in (_EXCEPTION, _ERROR_WORD):
        if matches := [line for line in lines if expression.search(line)]:
            return _shorten(matches[-1])
    return ""


def main_container(pod: Mapping[str, Any]) -> str:
    """Return the name of a pod's main container: kubectl's default, which Argo sets, else the first."""
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    containers = (pod.get("spec") or {}).get("containers") or [{}]
    return str(annotations.get("kubectl.kubernetes.io/default-container") or containers[0].get("name") or "")


def event_time(event: Mapping[str, Any]) -> str:
    """Return when an event happened last; kubelet and scheduler set different fields."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next(
        (str(time) for time in times if time), str((event.get("metadata") or {}).get("creationTimestamp") or "")
    )


# --- parts of a pod


def _disruption(status: Mapping[str, Any]) -> str:
    """Return who disrupted the pod, by its condition DisruptionTarget."""
    condition = _condition(status, "DisruptionTarget")
    if condition.get("status") != "True":
        return ""
    reason = str(condition.get("reason") or "")
    return _join(_DISRUPTIONS.get(reason, f"disrupted ({reason})"), str(condition.get("message") or ""))


def _status_reason(status: Mapping[str, Any]) -> str:
    """Return the reason of a pod's own status: evicted, refused or ended by its node."""
    reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    if reason.startswith("OutOf"):
        return _join(f"its node has no room left ({reason})", message)
    return _join(_POD_REASONS.get(reason, reason), message)


def _unscheduled(pod: Mapping[str, Any], warning: Mapping[str, Any]) -> str:
    """Return why the scheduler has no node for the pod."""
    condition = _condition(pod.get("status") or {}, "PodScheduled")
    if condition.get("status") == "True":
        return ""
    if condition.get("reason") == "SchedulingGated":
        return "held back by a scheduling gate (" + _message(condition) + ")"
    message = str(condition.get("message") or "") or (_message(warning) if warning else "")
    if not message or (condition.get("status") != "False" and warning.get("reason") != "FailedScheduling"):
        return ""
    # After the nodes, the scheduler says why preempting other pods would not help.
    message = re.split(r"(?<=\.) (?:no new claims|preemption:)", message)[0].rstrip(".")
    if match := re.search(r'persistentvolumeclaim "([^"]+)" not found', message):
        return f"the volume claim {match[1]} does not exist: create it (katib/cluster/volumes.yaml has isotrain's)"
    if match := re.search(r'persistentvolumeclaim "([^"]+)" is being deleted', message):
        return f"the volume claim {match[1]} is being deleted"
    if "unbound immediate PersistentVolumeClaims" in message:
        return _join(f"no volume for the claim {', '.join(_claims(pod))}", message)
    if re.search(r"Insufficient|Too many pods", message):
        return _join(f"no node has room for {_requests(pod)}", message)
    return _join("no node can take it", message)


def _container_reason(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> str:
    """Return what is wrong with the first container that has something wrong: init containers, then the main one."""
    for kind in ("initContainerStatuses", "containerStatuses"):
        for status in _container_states(pod, kind):
            state, last = status.get("state") or {}, (status.get("lastState") or {}).get("terminated") or {}
            subject = f"container {status.get('name')}"
            if waiting := state.get("waiting"):
                reason = str(waiting.get("reason") or "")
                if reason == "CrashLoopBackOff":
                    return f"restarted {status.get('restartCount', 0)} times; last: {_ended(pod, status, last)}"
                if text := _waiting(pod, status, waiting, events):
                    return text
            elif state.get("terminated"):
                if text := _ended(pod, status, state["terminated"]):
                    return text
            elif last and (text := _ended(pod, status, last)):
                return f"{subject} restarted {status.get('restartCount', 0)} times; last: {text}"
    return ""


def _waiting(
    pod: Mapping[str, Any], status: Mapping[str, Any], waiting: Mapping[str, Any], events: Sequence[Mapping[str, Any]]
) -> str:
    """Return why a container waits; "" if it is only being created."""
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if reason in _PULL:
        # Kubernetes before 1.31 has the cause in the event only.
        if ("Back-off" in message and ": " not in message) or not message:
            pulls = [_message(event) for event in events if "pull image" in str(event.get("message"))]
            message = pulls[-1] if pulls else message
        return _join(f"the image {_image(pod, status)} cannot be pulled", message)
    if reason in _CREATE:
        return _join(f"container {status.get('name')} {_CREATE[reason]}", message)
    return ""


def _ended(pod: Mapping[str, Any], status: Mapping[str, Any], ended: Mapping[str, Any]) -> str:
    """Return why a container ended; "" if it succeeded."""
    name, reason, message = status.get("name"), str(ended.get("reason") or ""), str(ended.get("message") or "")
    if reason == "OOMKilled":
        limit = _limit(pod, str(name))
        return f"container {name} ran out of memory (OOMKilled" + (f" at its limit of {limit})" if limit else ")")
    if reason in _CREATE:
        return _join(f"container {name} {_CREATE[reason]}", message)
    code = int(ended.get("exitCode") or 0)
    if not code:
        return ""
    if "\n" in message.strip():  # the end of the log, by terminationMessagePolicy
        message = last_error_line(message) or message
    detail = "" if reason in ("Error", "Completed", "") else f" ({reason})"
    return _join(f"container {name}: {exit_reason(code)}" + detail, message)


def _container_states(pod: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    """Return the states of containers: the main one first, then in the order of the specification."""
    states = (pod.get("status") or {}).get(kind) or []
    key = "initContainers" if kind.startswith("init") else "containers"
    names = [container.get("name") for container in (pod.get("spec") or {}).get(key) or []]
    main = main_container(pod)
    order = {name: index for index, name in enumerate([main, *(name for name in names if name != main)])}
    return sorted(states, key=lambda state: order.get(state.get("name"), len(order)))


def _image(pod: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    return str(_container(pod, str(status.get("name"))).get("image") or status.get("image") or "")


def _limit(pod: Mapping[str, Any], name: str) -> str:
    return str(((_container(pod, name).get("resources") or {}).get("limits") or {}).get("memory") or "")


def _container(pod: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    spec = pod.get("spec") or {}
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    return next((container for container in containers if container.get("name") == name), {})


def _requests(pod: Mapping[str, Any]) -> str:
    """Return the requests of the main container: `cpu 2, memory 4Gi`."""
    resources = _container(pod, main_container(pod)).get("resources") or {}
    requests = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return ", ".join(f"{name} {value}" for name, value in requests.items()) or "the pod"


def _claims(pod: Mapping[str, Any]) -> list[str]:
    volumes = (pod.get("spec") or {}).get("volumes") or []
    claims = [(volume.get("persistentVolumeClaim") or {}).get("claimName") for volume in volumes]
    return [str(claim) for claim in claims if claim]


def _node(pod: Mapping[str, Any]) -> str:
    return str((pod.get("spec") or {}).get("nodeName") or "")


def _condition(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return next((row for row in status.get("conditions") or [] if row.get("type") == name), {})


# --- events


def _own_events(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the events about a pod, oldest first."""
    metadata = pod.get("metadata") or {}
    rows = []
    for event in events:
        target = event.get("involvedObject") or {}
        # A pod that is created again has the name of the one before, and another uid.
        key = "uid" if target.get("uid") and metadata.get("uid") else "name"
        if target.get("kind") == "Pod" and target.get(key) == metadata.get(key):
            rows.append(event)
    return sorted(rows, key=event_time)


def _latest_warning(status: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the latest event of a pod if it says why the pod does not start; empty after progress."""
    rows = [event for event in events if event.get("reason") != "BackOff"]
    event = rows[-1] if rows else {}
    is_scheduled = _condition(status, "PodScheduled").get("status") == "True"
    if event.get("reason") not in _START_WARNINGS or (is_scheduled and event.get("reason") == "FailedScheduling"):
        return {}
    return event


def _is_about(event: Mapping[str, Any], names: Sequence[str]) -> bool:
    name = str((event.get("involvedObject") or {}).get("name") or "")
    return any(name == owner or name.startswith(f"{owner}-") for owner in names)


def _message(row: Mapping[str, Any]) -> str:
    return " ".join(str(row.get("message") or "").split())


def _sentence(warning: Mapping[str, Any]) -> str:
    """Return a warning as a reason: volumes and sandboxes that cannot be set up."""
    reason = str(warning.get("reason") or "")
    if reason in ("FailedMount", "FailedAttachVolume", "FailedMapVolume"):
        return _join("a volume cannot be mounted", _message(warning))
    return _join("it cannot be started", _message(warning))


def _join(text: str, message: str) -> str:
    """Return a text and the message of Kubernetes in one line."""
    message = " ".join(message.split())
    return f"{text}: {message}" if message and text else text or message


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 3] + "..."
