"""What several tests need: the command line as a user types it, and the real data where it is there."""

import os
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ISOTRAIN_SHARED_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Takes back what tuning the CPU in this process sets: hypothesis draws denormal numbers too."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data. Tests on it skip, loudly, where it is absent."""
    if not SHARED.is_dir():
        warnings.warn(f"the real data is not there ({SHARED}): its tests are skipped", stacklevel=1)
        pytest.skip(f"no real data at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def tiny_imagenet(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real Tiny ImageNet subset, unpacked (22,000 images)."""
    target = tmp_path_factory.mktemp("tiny-imagenet")
    with tarfile.open(shared_data / "tiny-imagenet-200-subset.tar") as archive:
        archive.extractall(target, filter="data")
    return target / "tiny-imagenet-200"


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data cache for the whole session, as one machine has; never the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["ISOTRAIN_CACHE"] = str(folder)
    return folder


@pytest.fixture
def run(cache: Path, tmp_path: Path) -> Run:
    """Runs a command line of ours, as a user does: run("train.py", "model=bert_tiny") or run("-m", "runs", "list")."""

    def call(*arguments: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "ISOTRAIN_CACHE": str(cache),
            "HF_HOME": str(cache / "hf"),
            "HF_HUB_OFFLINE": "1",
            **environment,
        }
        head = [str(ROOT / "train.py")] if arguments[0] == "train.py" else [arguments[0]]
        return subprocess.run(
            [sys.executable, *head, *arguments[1:]],
            cwd=tmp_path,
            env=env,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    return call
