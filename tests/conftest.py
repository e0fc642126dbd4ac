"""What several tests need: the command line as a user types it, and the real data where it is there."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from runs import metric_lines

# Before mlflow is imported: tests call it directly, too, and its import decides whether it sends anything.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

Run = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ISOTRAIN_SHARED_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Takes back what tuning the CPU in this process sets: hypothesis draws denormal numbers too."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(autouse=True)
def environment(cache: Path) -> Iterator[None]:
    """Takes back what a command called in this process sets for its children: a later training would be a step of its pipeline."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() | before.keys():
        if not name.startswith("PYTEST_") and os.environ.get(name) != before.get(name):
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


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


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a tests/warm.py for what trains and explains."""
    yield from serve_warm(tmp_path_factory.mktemp("warm") / "socket", "hydra", "torch", "lightning.pytorch")


@pytest.fixture(scope="session")
def warm_kfp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a tests/warm.py for clients of Kubeflow Pipelines."""
    yield from serve_warm(tmp_path_factory.mktemp("warm-kfp") / "socket", "hydra", "kfp", "kfp_server_api")


def serve_warm(path: Path, *modules: str, **settings: str) -> Iterator[Path]:
    """Runs tests/warm.py at a socket, with modules imported and further environment variables, while the generator lives."""
    # huggingface_hub reads its settings when it is imported: those of `run`.
    hub = {"HF_HOME": os.environ["ISOTRAIN_CACHE"] + "/hf", "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **hub, **settings}
    command = [sys.executable, str(ROOT / "tests" / "warm.py"), str(path), *modules]
    server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    while not path.exists():
        assert server.poll() is None
        time.sleep(0.05)
    yield path
    server.kill()
    server.wait()


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Puts an empty MLflow store at a path and returns its address: to make one from nothing takes MLflow many seconds."""
    template = tmp_path_factory.mktemp("mlflow") / "mlflow.db"

    def put(path: Path) -> str:
        if not template.exists():
            from mlflow import MlflowClient

            MlflowClient(f"sqlite:///{template}").search_experiments()
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(template, path)
        return f"sqlite:///{path}"

    return put


@pytest.fixture
def run(cache: Path, tmp_path: Path, warm: Path, request: pytest.FixtureRequest) -> Run:
    """Runs a command line of ours, as a user does: run("train.py", "model=bert_tiny") or run("-m", "runs", "list").

    It is forked from a process that has imported torch, unless it is to be cold: a sitecustomize is read at the start.
    """

    def call(
        *arguments: str, timeout: float = 300, cold: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "ISOTRAIN_CACHE": str(cache),
            "HF_HOME": str(cache / "hf"),
            "HF_HUB_OFFLINE": "1",
            **environment,
        }
        # Other settings of huggingface_hub than those of the warm process need a new one.
        cold = cold or any(name.startswith("HF_") for name in environment)
        head = [str(ROOT / "train.py")] if arguments[0] == "train.py" else [arguments[0]]
        command = [*head, *arguments[1:]]
        if not cold and needs_torch(arguments):
            return forked(warm, command, tmp_path, env, timeout)
        if not cold and arguments[:2] == ("-m", "pipelines"):
            return forked(request.getfixturevalue("warm_kfp"), command, tmp_path, env, timeout)
        return subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=env,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    return call


def needs_torch(arguments: Sequence[str]) -> bool:
    """Whether a command line of ours imports torch."""
    rooms = ("datamodules", "quality", "explain", "trainers")
    return arguments[0].endswith("train.py") or (arguments[0] == "-m" and arguments[1] in rooms)


def parse_metric_line(text: str) -> metric_lines.MetricLine:
    """Parses what `metric_lines.format_line` wrote, and nothing else."""
    time_stamp, *words = text.split(" ")
    fields = dict(word.split("=") for word in words)
    return metric_lines.from_json(json.dumps({"timestamp": time_stamp, **fields}))


def forked(
    warm: Path, command: list[str], folder: Path, environment: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Runs a command line in a process of tests/warm.py."""
    with tempfile.TemporaryDirectory() as said, socket.socket(socket.AF_UNIX) as connection:
        asked = {"arguments": command, "folder": str(folder), "environment": environment}
        asked |= {name: f"{said}/{name}" for name in ("stdout", "stderr")}
        connection.settimeout(timeout)
        connection.connect(str(warm))
        connection.sendall(json.dumps(asked).encode() + b"\n")
        answers = connection.makefile()
        child = int(answers.readline())
        try:
            code = int(answers.readline())
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            raise
        stdout, stderr = (Path(said, name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess([sys.executable, *command], code, stdout, stderr)
