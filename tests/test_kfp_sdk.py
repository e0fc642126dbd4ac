"""What is compiled here loads, and passes the check, with the SDK of the oldest Kubeflow Pipelines that it is made for.

That SDK is in an environment of its own, .venv/kfp-sdk, from requirements-kfp-sdk.lock: it cannot stand beside the one of the other locks.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ROOT, Run

from pipelines import compilation

pytestmark = pytest.mark.slow
# Settings that leave something in the file that KFP reads, none of which is in the shipped files.
SETTINGS = [
    "large.gpus=2", "small.cpu=500m", "retries=0", "+node_selector.pool=a", "tolerations=[{key: gpu, operator: Exists}]",
    "+steps.publish={command: [python, publish.py, '{train.run}', '{quality.verdict}'], after: [register]}",
]  # fmt: skip
LOAD = """
import sys

import yaml
from google.protobuf import json_format
from kfp import components
from kfp.kubernetes import kubernetes_executor_config_pb2

components.load_component_from_file(sys.argv[1])
spec, platform = yaml.safe_load_all(open(sys.argv[1]))
executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
for executor in executors.values():
    json_format.ParseDict(executor, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
print(*sorted(spec["deploymentSpec"]["executors"]))
"""


@pytest.fixture(scope="module")
def sdk() -> str:
    """The interpreter with the old SDK."""
    make = ["make", f"PYTHON={sys.executable}", ".venv/kfp-sdk/.installed"]
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return str(ROOT / ".venv" / "kfp-sdk" / "bin" / "python")


def call(python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    return subprocess.run([python, *arguments], env=environment, capture_output=True, text=True, timeout=120)


def test_the_environment_has_the_sdk_that_the_support_page_names(sdk: str) -> None:
    version = call(sdk, "-c", "import kfp; print(kfp.__version__)").stdout.strip()
    assert f"| | {version} | " in (ROOT / "docs" / "support.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["train", "train-gpu", "settings"])
def test_a_compiled_file_loads_and_passes_the_check(name: str, sdk: str, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    if name == "settings":
        done = run("-m", "pipelines", "compile", *SETTINGS, "-o", str(file))
        assert done.returncode == 0, done.stderr
    else:
        shutil.copy(ROOT / "pipelines" / f"{name}.yaml", file)
    loaded = call(sdk, "-c", LOAD, str(file))
    assert loaded.returncode == 0, loaded.stderr
    spec, _ = compilation.read_documents(str(file))
    assert loaded.stdout.split() == sorted(spec["deploymentSpec"]["executors"])
    checked = call(sdk, "-m", "pipelines", "check", str(file))
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "1 pipeline checked: 0 findings\n")


@pytest.mark.parametrize(
    ("pattern", "replacement", "loads"),
    [
        ("schemaVersion: 2.1.0", "schemaVersion: 2.1.0\nworkspaces: {}", False),  # a field that this SDK has not
        ("    pvcMount:", "    pvcMounts:", False),
        ("producerTask: train\n", "producerTask: trian\n", True),  # only the check finds it
    ],
)
def test_a_file_that_it_cannot_read_is_noticed(
    pattern: str, replacement: str, loads: bool, sdk: str, tmp_path: Path
) -> None:
    text = (ROOT / "pipelines" / "train.yaml").read_text(encoding="utf-8")
    file = tmp_path / "pipeline.yaml"
    file.write_text(re.sub(re.escape(pattern), replacement, text, count=1), encoding="utf-8")
    assert file.read_text(encoding="utf-8") != text
    assert (call(sdk, "-c", LOAD, str(file)).returncode == 0) == loads
    assert call(sdk, "-m", "pipelines", "check", str(file)).returncode != 0
