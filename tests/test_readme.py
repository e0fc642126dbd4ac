"""The commands in README.md and docs/ make sense as they stand: they name programs, scripts, modules and make targets that
exist, options that are in the command's --help, and overrides that compose. tests/test_docs_commands.py runs them.
"""

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from omegaconf import OmegaConf

from config.check import check_config
from config.compose import compose, compose_cached
from config.messages import explain_error

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = ROOT / "tests" / "own_networks"
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if page.exists()]
BLOCK = re.compile(r"^ *```(?:bash|sh|console)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
# Tools that a reader has, or is told to get.
TOOLS = {
    "git",
    "cd",
    "export",
    "pip",
    "uv",
    "source",
    "kill",
    "tail",
    "cat",
    "echo",
    "eval",
    "printf",
    "mkdir",
    "docker",
    "kubectl",
}


class Line(NamedTuple):
    """One command of a page."""

    page: str
    command: str


def commands(page: Path) -> list[Line]:
    """All commands of the page's bash blocks, with continued lines joined and comments left out."""
    found = []
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        for line in re.sub(r"\\\n\s*", "", block[1]).splitlines():
            command = line.strip().removeprefix("$ ")
            if shlex.split(command, comments=True):
                found.append(Line(page.name, command))
    return found


ALL = [line for page in PAGES for line in commands(page)]


def problem(command: str) -> str | None:
    """What in a command does not exist: a program, script, module, make target, or setting."""
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if not words:
        return None
    program, arguments = Path(words[0]).name, words[1:]
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        wrong = [a for a in arguments if "=" not in a and not a.startswith("-") and a not in targets]
        return f"make has no target {wrong[0]}" if wrong else None
    if program == "torchrun":
        return _script(arguments)
    if program in ("python", "python3"):
        if arguments[:1] == ["-m"]:
            module = arguments[1].replace(".", "/")
            places = [
                ROOT / "src" / module / "__main__.py",
                ROOT / module / "__main__.py",
                ROOT / "src" / f"{module}.py",
                ROOT / f"{module}.py",
            ]
            if arguments[1] in ("pip", "venv", "pytest"):
                return None
            if not any(place.exists() for place in places):
                return f"there is no command python -m {arguments[1]}"
            return _option(arguments[1], arguments[2:]) or _overrides(arguments[1], arguments[2:])
        return _script(arguments)
    return None if program in TOOLS or shutil.which(program, path=_path()) else f"there is no program {program}"


def _script(arguments: list[str]) -> str | None:
    script = next((a for a in arguments if a.endswith(".py")), None)
    if script is None or not (ROOT / script).exists():
        return f"there is no script {script}"
    return _composition(arguments[arguments.index(script) + 1 :])


def _overrides(module: str, arguments: list[str]) -> str | None:
    """What is wrong with the overrides of a command that composes the configuration of train.py."""
    if module not in ("quality", "explain", "trainers", "datamodules", "pipelines", "katib"):
        return None
    if module == "pipelines" and arguments[:1] not in (["run"], ["submit"]):
        return None  # compile and check take keys of conf/pipeline.yaml
    after_option = {index + 1 for index, word in enumerate(arguments) if re.fullmatch("--?[a-z-]+", word)}
    words = [word for index, word in enumerate(arguments) if index not in after_option and not word.startswith("-")]
    # These name saved models, and a value such as loguniform(1e-5,1e-4) is a range of a search.
    words = [word for word in words if not re.search(r"^(run|reference)=|[({$]", word)]
    any_task = module not in ("pipelines", "katib") and not any(word.startswith("model") for word in words)
    return _composition([*(["model=majority"] * any_task), *words])


def _composition(arguments: list[str]) -> str | None:
    """What is wrong with overrides of train.py."""
    # A placeholder (<folder>, …) or a list of choices to sweep over is for the reader to fill in.
    given = [a for a in arguments if "=" in a and not re.search("[<…,]", a)]
    try:
        config = (compose if any(a.startswith("hydra.") for a in given) else compose_cached)(given)
        # Paths of loggers refer to the run's folder, which exists in a run alone.
        OmegaConf.update(config, "logger", None, force_add=True)
        check_config(config)
    except Exception as error:  # whatever the command line would say
        return explain_error(error)
    return None


def _option(module: str, arguments: list[str]) -> str | None:
    """What is wrong with the options of `python -m MODULE [SUBCOMMAND]`, by its --help."""
    options = [word.partition("=")[0] for word in arguments if re.match("--?[a-z]", word)]
    # What follows a shell operator is another command's.
    if not options or any(word in ("|", "&&", ";") for word in arguments):
        return None
    subcommand = [word for word in arguments[:1] if re.fullmatch("[a-z-]+", word) and not word.startswith("-")]
    text = _help_text(module, *subcommand)
    wrong = [option for option in options if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text)]
    return f"python -m {module} {' '.join(subcommand)} has no option {wrong[0]}" if wrong else None


@functools.cache
def _help_text(module: str, *subcommand: str) -> str:
    command = [sys.executable, "-m", module, *subcommand, "--help"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize("line", ALL, ids=[f"{line.page}: {line.command[:80]}" for line in ALL])
def test_every_command_makes_sense(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    if "model=smallnet" in line.command:  # the reader's own network
        monkeypatch.setenv("ISOTRAIN_CONF", str(NETWORKS / "conf"))
        monkeypatch.syspath_prepend(NETWORKS)
    for name, value in re.findall(r"^([A-Z_]+)=(\S+) ", line.command):
        monkeypatch.setenv(name, value)
    assert problem(line.command) is None


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python train.py model=bert data=squad data.path=<folder>", None),
        ("ISOTRAIN_CACHE=/x python train.py", None),
        ("torchrun --nproc-per-node=2 train.py model=bert", None),
        ("python trian.py", "there is no script"),
        ("python train.py model=brt", "model=brt"),
        ("python train.py optim.lrr=1", "lrr"),
        ("python train.py data.batch_size=0", "batch_size"),
        ("python -m nothing here", "python -m nothing"),
        ("python -m datamodules prepare", None),
        ("python -m runs list -n 3 --sort val_f1   # --nothing", None),
        ("python -m runs list --sorted val_f1", "python -m runs list has no option --sorted"),
        ("python -m quality data=squad --foldr x", "python -m quality  has no option --foldr"),
        ("python -m quality data=sqad", "data=sqad"),
        ("python -m katib run x.yaml --max-trials 2 optim.lrr=1", "lrr"),
        (
            "python -m pipelines run model=bert_tiny data=squad_sample -p benchmark=enforce data.batch_size=0",
            "batch_size",
        ),
        ("make tset", "no target tset"),
        ('make train ARGS="model=bert"', None),
        ("no-such-tool --help", "there is no program"),
    ],
)
def test_the_check_sees_what_is_wrong(command: str, expected: str | None) -> None:
    found = problem(command)
    assert (found is None) if expected is None else (found is not None and expected in found)


# --- the table of speeds


def medians(cells: str) -> set[str]:
    """The numbers in front of a range: `14.2 (12.7 to 14.7)`."""
    return set(re.findall(r"([\d,]+(?:\.\d+)?) \([\d,.]+ to", cells))


def unmeasured_rows(readme: str, measured: str) -> list[str]:
    """Rows of the README's table of speeds that no table of docs/benchmarks.md has."""
    section = readme.split("## Benchmarks")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if re.search(r"\d \|$", line)]
    assert rows
    tables = re.findall(r"(?:^\|.*\n)+", measured, re.MULTILINE)
    missing = []
    for row in rows:
        ours, baseline, speedup = (cell.split()[0] for cell in row.strip("| ").split("|")[1:])
        candidates = [table for table in tables if ours in medians(table) and baseline in medians(table)]
        ratios = {f"{float(number.replace(',', '')):.1f}" for table in candidates for number in medians(table)}
        if speedup not in ratios:
            missing.append(row)
    return missing


def test_speeds_of_the_readme_are_those_of_the_benchmarks() -> None:
    readme, measured = (path.read_text() for path in (ROOT / "README.md", ROOT / "docs" / "benchmarks.md"))
    assert unmeasured_rows(readme, measured) == []
    for old, new in (("| 7.8 |", "| 7.9 |"), ("| 1.7 |", "| 1.6 |"), ("256 images/s", "257 images/s")):
        assert old in readme
        assert len(unmeasured_rows(readme.replace(old, new, 1), measured)) == 1
