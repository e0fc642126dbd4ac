"""Files of the working directory that have the names of our packages, as a user's own config.py has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ROOT

PACKAGES = sorted(path.parent.name for path in (ROOT / "src").glob("*/__init__.py") if path.parent.name != "isotrain")
COMMANDS = sorted(path.parent.name for path in (ROOT / "src").glob("*/__main__.py"))


def write_files(folder: Path, but: str = "") -> None:
    """A file with the name of each package; half of them are packages."""
    for number, name in enumerate(PACKAGES):
        path = folder / f"{name}.py" if number % 2 else folder / name / "__init__.py"
        if name != but:
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"raise RuntimeError('the {name} of the user')\n")


def python(folder: Path, *words: str, path: str = str(ROOT / "src")) -> subprocess.CompletedProcess[str]:
    """Without -P, the working directory comes before PYTHONPATH, and before installed packages."""
    environment = {**os.environ, "PYTHONPATH": path}
    environment.pop("PYTHONSAFEPATH", None)
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_import_their_own_packages(name: str, tmp_path: Path) -> None:
    write_files(tmp_path, but=name)
    done = python(tmp_path, "-m", name, "--help")
    assert (done.returncode, done.stdout[:7]) == (0, "usage: "), done.stderr


def test_train_py_imports_its_own_packages(tmp_path: Path) -> None:
    write_files(tmp_path)
    small = ["data.sample.train=64", "data.sample.val=16", "logger=none", "quality=off", "hydra.run.dir=a"]
    done = python(tmp_path, str(ROOT / "train.py"), "model=majority", *small, path=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_a_child_process_imports_our_packages(tmp_path: Path) -> None:
    """`runs floor` starts `python -m trainers`, as the steps of a pipeline start commands."""
    write_files(tmp_path)
    (tmp_path / "mine.py").write_text("NAME = 'a task in the working directory'\n")
    code = "from config.child_process import *; import subprocess as s; "
    code += "s.run(command_line('-m', 'runs', 'list'), env=environment(), check=True); "
    code += "s.run(command_line('-c', 'import mine; print(mine.NAME)'), env=environment(), check=True)"
    done = python(tmp_path, "-P", "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "no runs in outputs or multirun; python train.py makes one",
        "a task in the working directory",
    ]
