"""Each script of benchmarks/ runs and prints a table, in its smallest form and on generated data."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.__main__ import NAMES
from tests.conftest import ROOT

# What makes each small. Those that others start have no row.
SMALL = {
    "question_answering": "--windows 16 --padded-steps 2 --repeats 1 --precision fp32 --dropout 0",
    "images_input": "--images 200 --batch-size 32 --repeats 1",
    "images_training": "--steps 12 --repeats 1",
    "startup": "--windows 16 --repeats 1",
    "spans": "--questions 20 --repeats 1",
    "memory": "--questions 10 --images 32",
    "cache_checks": "--repeats 1",
    "search": "--seeds 1",
    "search_training": "--seeds 1 --tasks questions --points 2 --max-trials 5",
    "search_warm": "--trials 2 --steps 2 --repeats 1",
    "dropout": "--seeds 2 --epochs 1",
    "quality": "--repeats 1",
    "explain": "--repeats 1 --steps 1 --orders 2 --examples 1",
    "explain_gate": "--seeds 1 --tasks texts",
    "explain_looks": "--seeds 2",
    "pipeline_overhead": "--repeats 1 --steps 2",
    "serving": "--seconds 0.5 --repeats 1 --layers 1 --width 32",
    "serving_costs": "--requests 20 --repeats 1",
    "export": "--layers 1 --rounds 2",
}


def test_each_script_has_a_small_form() -> None:
    scripts = set()
    for path in (ROOT / "benchmarks").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        options = {
            node.args[0].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and getattr(node.func, "attr", "") == "add_argument"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        }
        if options & {"--repeats", "--seeds", "--rounds", "--questions"}:
            scripts.add(path.stem)
    assert scripts == set(SMALL)
    assert set(NAMES) <= set(SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_script_runs(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", f"benchmarks.{name}", *SMALL[name].split()]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    lines = done.stdout.splitlines()
    assert any(line.startswith("|---") for line in lines), done.stdout
    left = [path.name for path in tmp_path.iterdir() if not path.name.startswith("torchinductor")]
    assert not left, "folders were left behind"
