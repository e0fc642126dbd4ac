"""Why a pod does not run or why it failed, from its JSON and its events, as a real Kubernetes 1.34 and older ones write them."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.reasons import (
    EXIT_CODES,
    explain_exit_codes,
    has_started,
    last_error_line,
    pod_reason,
    workload_reason,
)
from config import errors


def pod(phase: str = "Pending", **status: Any) -> dict[str, Any]:
    """A trial's pod: the training, and Katib's collector behind it."""
    training = {
        "name": "training",
        "image": "isotrain:0.1.0",
        "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"cpu": "4", "memory": "400Mi"}},
    }
    return {
        "metadata": {"name": "a-x1", "uid": "u1", "namespace": "team"},
        "spec": {
            "nodeName": "node-1",
            "containers": [training, {"name": "metrics-logger-and-collector", "image": "collector"}],
            "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": "isotrain-runs"}}],
        },
        "status": {"phase": phase, **status},
    }


def test_of_the_end_of_a_log_the_line_with_the_error_is_told() -> None:
    log = "Started server process [1]\nShutting down\nisotrain: run=/mnt/models: no such folder\n"
    assert pod_reason(ended(2, message=log)) == (
        "container training: exit code 2: configuration or input refused: run=/mnt/models: no such folder"
    )
    assert pod_reason(ended(9, message="first\nlast\n")) == "container training: exit code 9: first last"


def unscheduled(message: str, reason: str = "Unschedulable") -> dict[str, Any]:
    return pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": reason, "message": message}])


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    states = [
        {"name": "metrics-logger-and-collector", "state": {"waiting": {"reason": "ContainerCreating"}}},
        {"name": "training", "state": {"waiting": {"reason": reason, "message": message}}, **more},
    ]
    return pod(conditions=[{"type": "PodScheduled", "status": "True"}], containerStatuses=states)


def ended(code: int, reason: str = "Error", phase: str = "Failed", **more: Any) -> dict[str, Any]:
    states = [
        {"name": "metrics-logger-and-collector", "state": {"terminated": {"exitCode": 255, "reason": "Error"}}},
        {"name": "training", "state": {"terminated": {"exitCode": code, "reason": reason, **more}}},
    ]
    return pod(phase, containerStatuses=states)


def event(reason: str, message: str, time: str = "2026-11-27T05:00:00Z", **target: str) -> dict[str, Any]:
    kind = "Normal" if reason in ("Pulling", "Pulled", "Scheduled", "Created", "Started", "BackOff") else "Warning"
    involved = {"kind": "Pod", "name": "a-x1", "uid": "u1", **target}
    return {"type": kind, "reason": reason, "message": message, "lastTimestamp": time, "involvedObject": involved}


NO_ROOM = (
    "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: "
    "1 No preemption victims found for incoming pod."
)
OLD_NO_ROOM = (
    "0/3 nodes are available: 3 Insufficient memory. preemption: 0/3 nodes are available: 3 No preemption victims."
)
PULL = 'failed to pull and unpack image "docker.io/library/isotrain:0.1.0": failed to resolve reference'


@pytest.mark.parametrize(
    ("value", "events", "reason"),
    [
        # the scheduler
        (
            unscheduled(NO_ROOM),
            [],
            "no node has room for cpu 2, memory 4Gi: 0/1 nodes are available: 1 Insufficient cpu",
        ),
        (
            unscheduled(OLD_NO_ROOM),
            [],
            "no node has room for cpu 2, memory 4Gi: 0/3 nodes are available: 3 Insufficient memory",
        ),
        (unscheduled("0/2 nodes are available: 2 Too many pods."), [], "no node has room for cpu 2, memory 4Gi: "),
        (
            unscheduled(
                '0/1 nodes are available: persistentvolumeclaim "isotrain-runs" not found. preemption: not helpful'
            ),
            [],
            "the volume claim isotrain-runs does not exist: create it (katib/cluster/volumes.yaml has isotrain's)",
        ),
        (
            unscheduled('0/1 nodes are available: persistentvolumeclaim "isotrain-runs" is being deleted.'),
            [],
            "the volume claim isotrain-runs is being deleted",
        ),
        (
            unscheduled("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
            [],
            "no volume for the claim isotrain-runs: 0/1 nodes are available: pod has unbound immediate",
        ),
        (
            unscheduled("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."),
            [],
            "no node can take it: 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector",
        ),
        (
            unscheduled("0/1 nodes are available: 1 node(s) had untolerated taint(s)."),
            [],
            "no node can take it: 0/1 nodes are available: 1 node(s) had untolerated taint",
        ),
        (
            unscheduled("Scheduling is blocked", "SchedulingGated"),
            [],
            "held back by a scheduling gate (Scheduling is blocked)",
        ),
        (pod(), [event("FailedScheduling", NO_ROOM)], "no node has room for cpu 2"),
        # images
        (
            waiting("ImagePullBackOff", f'Back-off pulling image "isotrain:0.1.0": ErrImagePull: {PULL}'),
            [],
            "the image isotrain:0.1.0 cannot be pulled: Back-off pulling image",
        ),
        (
            waiting("ImagePullBackOff", 'Back-off pulling image "isotrain:0.1.0"'),
            [
                event("Failed", f'Failed to pull image "isotrain:0.1.0": {PULL}'),
                event("Failed", "Error: ImagePullBackOff"),
            ],
            'the image isotrain:0.1.0 cannot be pulled: Failed to pull image "isotrain:0.1.0": failed to pull and unpack',
        ),
        (waiting("ErrImagePull", PULL), [], f"the image isotrain:0.1.0 cannot be pulled: {PULL}"),
        (
            waiting("ErrImageNeverPull", 'Container image "isotrain:0.1.0" is not present with pull policy of Never'),
            [],
            "the image isotrain:0.1.0 cannot be pulled: Container image",
        ),
        (
            waiting("InvalidImageName", "Failed to apply default image tag"),
            [],
            "the image isotrain:0.1.0 cannot be pulled: ",
        ),
        # containers and volumes
        (
            waiting("CreateContainerConfigError", 'secret "isotrain-tokens" not found'),
            [],
            'container training cannot be configured: secret "isotrain-tokens" not found',
        ),
        (
            waiting("RunContainerError", "context deadline exceeded"),
            [],
            "container training cannot be started: context",
        ),
        (
            waiting("ContainerCreating"),
            [event("FailedMount", 'MountVolume.SetUp failed for volume "runs" : mount failed: exit status 32')],
            'a volume cannot be mounted: MountVolume.SetUp failed for volume "runs"',
        ),
        (
            waiting("ContainerCreating"),
            [event("FailedCreatePodSandBox", "Failed to create pod sandbox: no network")],
            "it cannot be started: Failed to create pod sandbox: no network",
        ),
        (
            waiting(
                "CrashLoopBackOff",
                "back-off 5m0s",
                restartCount=4,
                lastState={"terminated": {"exitCode": 2, "reason": "Error"}},
            ),
            [],
            "restarted 4 times; last: container training: exit code 2: configuration or input refused",
        ),
        # ends
        (ended(137, "OOMKilled"), [], "container training ran out of memory (OOMKilled at its limit of 400Mi)"),
        (
            ended(137, "OOMKilled", "Running"),
            [],
            "container training ran out of memory (OOMKilled at its limit of 400Mi)",
        ),
        (ended(3), [], "container training: exit code 3: diverged"),
        (
            ended(2, message="it says why"),
            [],
            "container training: exit code 2: configuration or input refused: it says why",
        ),
        (ended(1), [], "container training: exit code 1"),
        (ended(138), [], "container training: exit code 138: another process of this training was lost"),
        (
            ended(128, "StartError", message="exec: no such file"),
            [],
            "container training cannot be started: exec: no such file",
        ),
        (ended(0, "Completed"), [], "container metrics-logger-and-collector: exit code 255"),
        (
            pod("Failed", reason="Evicted", message="The node was low on resource: memory."),
            [],
            "evicted: The node was low on resource: memory.",
        ),
        (
            pod("Failed", reason="OutOfcpu", message="Node didn't have enough resource: cpu"),
            [],
            "its node has no room left (OutOfcpu)",
        ),
        (
            pod("Failed", reason="Terminated", message="Pod was terminated in response to imminent node shutdown."),
            [],
            "its node shut down: ",
        ),
        (
            pod("Failed", reason="DeadlineExceeded", message="Pod was active too long"),
            [],
            "not ended within activeDeadlineSeconds: ",
        ),
        (pod("Unknown"), [], "its node node-1 does not respond"),
        (pod("Failed"), [], "it failed"),
        (
            pod(
                "Failed",
                conditions=[
                    {
                        "type": "DisruptionTarget",
                        "status": "True",
                        "reason": "EvictionByEvictionAPI",
                        "message": "Eviction API: evicting",
                    }
                ],
            ),
            [],
            "evicted (drain of its node, or another use of the eviction API): Eviction API: evicting",
        ),
        # nothing is wrong
        (pod(), [], ""),
        (pod("Running", containerStatuses=[{"name": "training", "state": {"running": {}}}]), [], ""),
        (pod("Succeeded"), [], ""),
        (waiting("ContainerCreating"), [event("Pulling", "Pulling image")], ""),
        (waiting("PodInitializing"), [], ""),
        (
            waiting("ContainerCreating"),
            [
                event("FailedMount", "not yet", "2026-11-27T05:00:00Z"),
                event("Pulling", "Pulling image", "2026-11-27T05:00:09Z"),
            ],
            "",
        ),
        (waiting("ContainerCreating"), [event("FailedScheduling", NO_ROOM)], ""),  # it has a node since
        (waiting("ContainerCreating"), [event("FailedMount", "of the pod before", uid="u0")], ""),
        (pod("Running"), [event("FailedMount", "before it ran")], ""),
    ],
)
def test_a_pod_has_one_reason(value: dict[str, Any], events: list[dict[str, Any]], reason: str) -> None:
    assert pod_reason(value, events).startswith(reason)
    assert bool(pod_reason(value, events)) == bool(reason)
    assert len(pod_reason(value, events)) <= 300
    assert "\n" not in pod_reason(value, events)


def test_an_init_container_is_told_before_the_main_one_and_the_main_one_before_others() -> None:
    value = waiting("PodInitializing")
    value["spec"]["initContainers"] = [{"name": "init", "image": "init:1"}]
    value["status"]["initContainerStatuses"] = [
        {"name": "init", "state": {"waiting": {"reason": "ErrImagePull", "message": "no"}}}
    ]
    assert pod_reason(value) == "the image init:1 cannot be pulled: no"
    argo = ended(1)  # Argo puts its own container first, and names the main one as kubectl's default
    argo["spec"]["containers"].reverse()
    argo["metadata"]["annotations"] = {"kubectl.kubernetes.io/default-container": "training"}
    assert pod_reason(argo) == "container training: exit code 1"
    del argo["metadata"]["annotations"]
    assert pod_reason(argo) == "container metrics-logger-and-collector: exit code 255"


def test_a_container_that_was_restarted_says_why() -> None:
    last = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    value = pod(
        "Running",
        containerStatuses=[{"name": "training", "state": {"running": {}}, "restartCount": 2, "lastState": last}],
    )
    assert pod_reason(value).startswith(
        "container training restarted 2 times; last: container training ran out of memory"
    )


@pytest.mark.parametrize(
    ("value", "started"),
    [
        (pod(), False),
        (waiting("ContainerCreating"), False),
        (waiting("ImagePullBackOff"), False),
        (waiting("CrashLoopBackOff", restartCount=1), True),
        (ended(128, "StartError"), False),
        (ended(3), True),
        (pod("Running", containerStatuses=[{"name": "training", "state": {"running": {}}}]), True),
        # Katib's collector runs, the training's image is still pulled
        (
            pod(
                containerStatuses=[
                    {"name": "metrics-logger-and-collector", "state": {"running": {}}},
                    {"name": "training", "state": {}},
                ]
            ),
            False,
        ),
    ],
)
def test_a_pod_has_started_when_its_main_container_has(value: dict[str, Any], started: bool) -> None:
    assert has_started(value) is started


def test_a_workload_without_pods() -> None:
    quota = 'Error creating: pods "a-7x" is forbidden: exceeded quota: small'
    rows = [
        event("FailedCreate", "older", "2026-11-27T04:00:00Z", kind="Job", name="a"),
        event("FailedCreate", quota, "2026-11-27T05:00:00Z", kind="Job", name="a-node-0"),
        event("FailedCreate", "another trial", "2026-11-27T06:00:00Z", kind="Job", name="ab"),
        event("SuccessfulCreate", "Created pod", "2026-11-27T06:00:00Z", kind="Job", name="a"),
    ]
    assert workload_reason(["a"], rows) == f"its pods cannot be created: {quota}"
    assert workload_reason(["b"], rows) == ""


def test_exit_codes_are_those_of_the_commands() -> None:
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and isinstance(getattr(value, "exit_code", None), int)
    ]
    assert {value.exit_code for value in classes} <= set(EXIT_CODES)
    text = "Container training for pod team/a-x1 failed with exit code 3 matching FailJob rule at index 1"
    assert "exit code 3 (diverged) matching" in explain_exit_codes(text)
    assert explain_exit_codes("failed with exit code 3: diverged") == "failed with exit code 3: diverged"
    assert explain_exit_codes("exit code 99") == "exit code 99"


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", ""),
        ("epoch=1 step=2 val_f1=3\nall is well\n", ""),
        ("isotrain: optim.lr=0: must be above 0\n", "optim.lr=0: must be above 0"),
        ("2026-11-27T05:00:00.123456789Z isotrain: the loss is nan\n", "the loss is nan"),
        ("2026-11-27T05:00:00.1Z stderr F isotrain: the loss is nan\nexit status 3\n", "the loss is nan"),
        ("isotrain: no contract\nisotrain: the run is in /runs/a\n", "no contract"),
        (
            "isotrain: other settings:\n  optim.lr: 1 in the folder, now 2\n",
            "other settings: optim.lr: 1 in the folder, now 2",
        ),
        (
            "Traceback (most recent call last):\n  File x\ntorch.OutOfMemoryError: CUDA out of memory\nsee the docs\n",
            "torch.OutOfMemoryError: CUDA out of memory",
        ),
        (
            "Traceback\nValueError: could not convert string to float: ''\n",
            "ValueError: could not convert string to float: ''",
        ),
        ("sh: 1: pyton: not found\n", "sh: 1: pyton: not found"),
        ("Traceback\nKeyError: 'a'\nisotrain: a bug in isotrain: KeyError: 'a'\n", "a bug in isotrain: KeyError: 'a'"),
    ],
)
def test_the_last_error_line_of_a_log(log: str, line: str) -> None:
    assert last_error_line(log) == line


TEXT = st.text(max_size=400)
ENDED = st.fixed_dictionaries({}, optional={"reason": TEXT, "message": TEXT, "exitCode": st.integers(0, 255)})
CONTAINER = st.fixed_dictionaries(
    {"name": st.sampled_from(["training", "other"])},
    optional={"state": st.dictionaries(st.sampled_from(["waiting", "terminated"]), ENDED, max_size=1)},
)
CONDITION = st.fixed_dictionaries({}, optional={"type": st.just("PodScheduled"), "message": TEXT})


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "phase": st.sampled_from(["", "Pending", "Running", "Failed", "Unknown", "Succeeded", "New"]),
            "reason": TEXT,
            "message": TEXT,
            "conditions": st.lists(CONDITION, max_size=1),
            "containerStatuses": st.lists(CONTAINER, max_size=2),
        },
    ),
    st.text(),
)
def test_any_status_gives_one_short_line(status: dict[str, Any], log: str) -> None:
    value = {**pod(), "status": status}
    for text in (pod_reason(value), pod_reason({"status": status}), last_error_line(log)):
        assert len(text) <= 300
        assert "\n" not in text
    has_started(value)
