"""A run on Kubeflow none of whose pods starts."""

import pytest

from config.errors import UnreachableError
from pipelines import start
from pipelines.nodes import Node


def nodes_with(**states: str) -> list[Node]:
    """Nodes of these states; names with `_` for `-`."""
    return [Node(name.replace("_", "-"), state) for name, state in states.items()]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    clock = {"now": 0.0}
    monkeypatch.setattr(start.time, "monotonic", lambda: clock["now"])
    return clock


def watch(watcher: start.StartWatch, clock: dict[str, float], nodes: list[Node], seconds: int) -> None:
    for _ in range(seconds // 5):
        clock["now"] += 5
        watcher.update(None, nodes)


def test_a_run_that_does_not_start_is_reported(clock: dict[str, float], capsys: pytest.CaptureFixture[str]) -> None:
    pending = nodes_with(root="RUNNING", data="RUNNING", data_driver="SUCCEEDED", executor="PENDING")
    watch(start.StartWatch(), clock, pending, 600)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        f"isotrain: no pod of the run has started for {seconds} s: executor" for seconds in (120, 240, 480)
    ]


def test_a_pod_that_runs_is_not_reported(clock: dict[str, float], capsys: pytest.CaptureFixture[str]) -> None:
    watcher = start.StartWatch(60)
    watch(watcher, clock, nodes_with(root="RUNNING", data="RUNNING", executor="RUNNING"), 3600)
    assert capsys.readouterr().err == ""
    with pytest.raises(UnreachableError, match="no pod of the run has started for 60 s: executor"):
        watch(watcher, clock, nodes_with(root="RUNNING", data="RUNNING", executor="PENDING"), 120)


def test_a_node_runs_before_the_pod_of_its_attempt(clock: dict[str, float]) -> None:
    """As on Kubeflow Pipelines 2.17, whose nodes all have attempts."""
    run = nodes_with(
        **{"run-x": "RUNNING", "run-x(0)": "RUNNING", "root_driver": "RUNNING", "root_driver(0)": "PENDING"}
    )
    with pytest.raises(UnreachableError, match=r"has started for 60 s: root-driver\(0\)"):
        watch(start.StartWatch(60), clock, run, 120)


def test_the_reason_is_told(clock: dict[str, float], capsys: pytest.CaptureFixture[str]) -> None:
    run = nodes_with(root="RUNNING", root_driver="PENDING")
    with pytest.raises(UnreachableError, match="for 150 s: root-driver; no node has room for cpu 9; the run continues"):
        watch(start.StartWatch(150, lambda run: "no node has room for cpu 9"), clock, run, 200)
    assert capsys.readouterr().err == (
        "isotrain: no pod of the run has started for 120 s: root-driver; no node has room for cpu 9\n"
    )


def test_a_nodes_without_tasks_is_reported(clock: dict[str, float]) -> None:
    with pytest.raises(UnreachableError, match="has started for 60 s; kubectl"):
        watch(start.StartWatch(60), clock, [], 120)
