"""python -m benchmarks.gpu tries every kind of workload and method on a CPU, and reports what fails beside the rest."""

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu import clock, device
from benchmarks.gpu.workloads import METHODS, SMOKE, WORKLOADS, Workload, methods
from tests.conftest import ROOT


def call(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command; nothing is imported from this process."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--smoke", "--output", str(tmp_path / "out"), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
        check=False,
    )


def test_every_kind_of_method_is_measured(tmp_path: Path) -> None:
    chosen = ["isotrain", "trainer-grouped", "timm-compiled"]
    done = call(tmp_path, "--only", "questions", "images", "--methods", *chosen, "--profile")
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    measured = {(row["workload"], row["method"]): row["runs"] for row in results["rows"]}
    assert set(measured) == {
        *(("questions", name) for name in chosen[:2]),
        *(("images", name) for name in (chosen[0], chosen[2])),
    }
    for runs in measured.values():
        assert runs[0]["examples_per_second"] > 0
        assert 0 <= runs[0]["waiting"] < 1
        assert runs[0]["operations_per_second"] > 0
    assert (tmp_path / "out" / "table.md").read_text().strip() in done.stdout
    assert "aten::" in (tmp_path / "out" / "profile-questions-isotrain.txt").read_text()


def test_a_failure_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    done = call(tmp_path, "optim.lr=fast", "--only", "texts", "--methods", "isotrain", "trainer-padded")
    assert done.returncode == 1
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    failed, other = results["rows"]
    assert failed["method"] == "isotrain"
    assert failed["failures"]
    assert "FAILED" in done.stdout
    assert other["runs"]


def test_names_are_checked(tmp_path: Path) -> None:
    for arguments in (["--only", "imagenet"], ["--methods", "keras"]):
        refused = call(tmp_path, *arguments)
        assert refused.returncode == 2
        assert (
            f"no such {'workload' if '--only' in arguments else 'method'}: {arguments[1]}; there are" in refused.stderr
        )


def test_a_process_that_hangs_or_dies_has_failed(tmp_path: Path) -> None:
    code = """
import os, sys, time
from pathlib import Path
from benchmarks.gpu import processes

for target, arguments in ((time.sleep, (60,)), (os._exit, (3,)), (int, ("x",)), (int, ("7",))):
    try:
        print(processes.call(target, *arguments, log=Path(sys.argv[1]), timeout=1))
    except processes.Failed as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")], cwd=ROOT, text=True, capture_output=True, check=True
    )
    assert done.stdout.splitlines() == [
        "no result after 1 s (see log)",
        "the process ended without a result (see log)",
        "ValueError: invalid literal for int() with base 10: 'x' (see log)",
        "7",
    ]


def test_operations_are_those_of_the_formulas() -> None:
    bert = Workload("", "", "questions", "bert-base", 384, 1)
    width, layers, length = 768, 12, 384
    head = 2 * 2 * width * length
    expected = layers * (24 * width**2 * length + 4 * width * length**2) + head
    assert abs(device.forward_operations(bert, [length])[0] / expected - 1) < 1e-3
    # An average over lengths, three times for training; padding does not count.
    assert abs(device.training_operations(bert, [length, length]) / (3 * expected) - 1) < 1e-3
    resnet = Workload("", "", "images", "resnet50", 224, 1)
    assert abs(device.training_operations(resnet, None) / (3 * 2 * 4.09e9) - 1) < 0.01  # its paper: 4.1e9 multiply-adds


def test_a_clock_waits_for_its_warm_up_and_ends_the_training() -> None:
    counted = clock.Clock(batch=4, warm_up=2, seconds=0.0, most_steps=1)
    ended = 0
    try:
        for _ in range(5):
            ended += 1
            counted.step()
    except clock.Measured:
        pass
    assert (ended, counted.figures["steps"]) == (3, 1)


def test_every_workload_has_methods_and_a_name_of_its_own() -> None:
    for known in (WORKLOADS, SMOKE):
        assert len({each.name for each in known}) == len(known)
        for workload in known:
            assert set(methods(workload)) <= set(METHODS)
            assert "isotrain" in methods(workload)
