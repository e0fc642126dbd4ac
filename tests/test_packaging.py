"""What pip makes of the checkout: an editable install, and nothing else."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ROOT

MESSAGE = "isotrain is not a library: it runs from its checkout"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what a build reads."""
    for name in ("pyproject.toml", "build_backend.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return tmp_path


def pip(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_wheel_is_refused(copy: Path) -> None:
    done = pip(copy, "wheel", "--no-index", "--no-build-isolation", "--no-deps", ".")
    assert (done.returncode, MESSAGE in done.stdout + done.stderr) == (1, True), done.stderr
    assert not list(copy.glob("*.whl"))
    specification = importlib.util.spec_from_file_location("build_backend", copy / "build_backend.py")
    assert specification is not None
    assert specification.loader is not None
    backend = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(backend)
    # Before pip downloads what a wheel would need, and for `python -m build`, too.
    for hook in ("get_requires_for_build_wheel", "get_requires_for_build_sdist", "build_wheel", "build_sdist"):
        with pytest.raises(SystemExit, match=MESSAGE):
            getattr(backend, hook)("folder")


def test_an_editable_install_works(copy: Path) -> None:
    done = pip(
        copy, "install", "--no-index", "--no-build-isolation", "--no-deps", "--target", "site", "--editable", "."
    )
    assert done.returncode == 0, done.stdout + done.stderr
    code = "import site; site.addsitedir('site'); import config; print(config.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code], cwd=copy, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(copy / "src" / "config" / "__init__.py")
