"""Every `python -m` command has the same manners: options anywhere, one message, exit codes, quiet ends."""

import importlib
import io
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from tests.conftest import ROOT, Run

from config import command, libraries, terminal

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": ""}


def pipe(arguments: list[str], reader: str, **environment: str) -> tuple[int, str]:
    """A command's exit code and stderr, its stdout read by a shell command."""
    script = f'{{ "{sys.executable}" "$@"; echo "code $?" >&2; }} | {reader}'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *arguments],
        capture_output=True,
        text=True,
        env=ENVIRONMENT | environment,
        check=False,
    )
    *told, last = done.stderr.splitlines()
    return int(last.removeprefix("code ")), "\n".join(told)


@pytest.mark.parametrize("name", ["trainers", "datamodules", "quality", "explain", "katib", "runs", "pipelines"])
def test_help_needs_nothing_heavy_and_says_what_there_is(name: str) -> None:
    code = (
        "import runpy, sys\nsys.argv = ['', '--help']\n"
        f"try: runpy.run_module('{name}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as error: assert error.code in (0, None)\n"
        "heavy = {'torch', 'lightning', 'transformers', 'timm', 'pandas', 'duckdb', 'kfp'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    begin = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    assert f"usage: python -m {name} [-h]" in done.stdout
    spent = os.times()
    assert spent.children_user - begin.children_user < 1


COMMANDS = {
    "trainers": ["evaluate", "predict"],
    "datamodules": ["prepare", "fingerprint"],
    "quality": ["init", "drift"],
    "explain": ["calibrate"],
    "katib": ["check", "run", "new", "submit", "watch", "best", "trials", "delete", "stop"],
    "runs": ["show", "list", "compare", "report", "register", "champion"],
    "pipelines": ["compile", "check", "run", "submit", "schedule", "status", "terminate"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns_and_has_sentences(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    main = importlib.import_module(f"{name}.__main__").main
    for words in ([], *([word] for word in COMMANDS[name])):
        monkeypatch.setattr("sys.argv", [name, *words, "--help"])
        with pytest.raises(SystemExit, match="0"):
            main()
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= 80, text
        (options,) = re.findall(r"^options:\n((?:  .*\n)+)", text, re.MULTILINE)
        for option in re.split(r"^  (?=-)", options, flags=re.MULTILINE)[1:]:
            assert option.rstrip().endswith("."), option


def test_help_of_train_fits_80_columns(run: Run) -> None:
    done = run("train.py", "--help", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80, done.stdout
    assert "resnet50" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trainers", "evaluate", "data=squad", "run=nowhere", "--output", "out", "data.max_val=3"], "run=nowhere"),
        (["quality", "optim.lr=0", "--folder", "out", "data.batch_size=0"], "optim.lr=0: must be a number, above 0"),
        (["quality", "drift", "data=squad", "--split", "val", "optim.lr=0"], "name the reference once"),
        (["explain", "data=squad", "--folder", "out", "explain=warn"], "name the model once"),
        (["katib", "run", "nowhere.yaml", "a=1", "--parallel", "2", "b=2"], "nowhere.yaml"),
        (["datamodules", "prepare", "optim.lr=0", "data.batch_size=0"], "data.batch_size=0: must be a whole number"),
    ],
)
def test_overrides_stand_anywhere_and_what_is_refused_is_one_message(
    arguments: list[str], message: str, run: Run
) -> None:
    done = run("-m", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("isotrain: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["katib", "check", "x.yaml", "--colour"], ["katib", "trials", "x", "y"]])
def test_words_that_no_option_takes_are_refused(arguments: list[str], run: Run) -> None:
    done = run("-m", *arguments)
    assert done.returncode == 2
    assert "unrecognized arguments: " in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs", "register", "a", "--name="],
        ["runs", "register", "a", "--name", ""],
        ["runs", "register", "a", "--name", " "],
        ["runs", "champion", ""],
        ["runs", "champion", "a", "--folder="],
        ["runs", "show", ""],
        ["runs", "list", ""],
        ["runs", "report", "a", "-o", ""],
        ["katib", "run", "a.yaml", "--folder="],
        ["katib", "new", "optim.lr=", "-o", "a.yaml"],
        ["katib", "stop", ""],
        ["pipelines", "run", "--root="],
        ["pipelines", "run", "model="],
        ["quality", "--folder="],
        ["quality", "drift", "reference=", "data=squad"],
        ["quality", "data.path="],
        ["explain", "run=", "--folder", "a"],
        ["explain", "run=a", "explain.thresholds="],
        ["explain", "calibrate", "-o", "", "a", "b", "c"],
        ["trainers", "evaluate", "run=a", "--output="],
        ["trainers", "predict", "run="],
        ["datamodules", "prepare", "data.path="],
    ],
)
def test_a_variable_that_is_not_set_is_no_name(arguments: list[str], run: Run, tmp_path: Path) -> None:
    done = run("-m", *arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "perhaps from a variable that is not set" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("override", ["init_from=", "hydra.run.dir="])
def test_an_override_without_a_value_is_refused(override: str, run: Run, tmp_path: Path) -> None:
    folder = [] if override.startswith("hydra") else ["hydra.run.dir=run"]
    done = run("train.py", override, *folder)
    assert done.returncode == 2, done.stderr
    assert f"{override} has no value, perhaps from a variable that is not set" in done.stderr
    assert list(tmp_path.iterdir()) == []


BARS = """
from config import command
def main():
    import datasets.utils, huggingface_hub.utils, tqdm.auto
    from transformers.utils import logging
    from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
    for bar in (tqdm.tqdm, tqdm.auto.tqdm, huggingface_hub.utils.tqdm, datasets.utils.tqdm, logging.tqdm):
        list(bar(range(3)))
    print(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.get())
    return 0
command.run_main(main)
"""


def test_libraries_draw_no_progress_bars_into_files() -> None:
    done = subprocess.run([sys.executable, "-c", BARS], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


WARNS = """
import warnings
from config import command
def main():
    import numpy
    for filename in (numpy.__file__, "own.py"):
        warnings.warn_explicit("deprecated " + filename[-6:], UserWarning, filename, 1)
    return 0
command.run_main(main)
"""


@pytest.mark.parametrize(("debug", "shown"), [("0", ["own.py"]), ("1", ["own.py", "t__.py"])])
def test_warnings_about_installed_packages_are_for_developers(debug: str, shown: list[str]) -> None:
    environment = {**ENVIRONMENT, "ISOTRAIN_DEBUG": debug}
    done = subprocess.run([sys.executable, "-c", WARNS], capture_output=True, text=True, env=environment, check=False)
    assert sorted(re.findall(r"UserWarning: deprecated (\S+)", done.stderr)) == shown, done.stderr


def test_a_variable_of_a_library_that_is_set_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warnings.showwarning", warnings.showwarning)
    for variable in libraries._VARIABLES:
        monkeypatch.setenv(variable, "mine")
    libraries.configure_libraries()
    assert {os.environ[variable] for variable in libraries._VARIABLES} == {"mine"}


def test_train_configures_libraries_before_it_imports_them() -> None:
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import train; print(sorted({{'torch', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.stdout == "[]\n", done.stderr


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_texts_are_folded_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = "isotrain: a value with a blank needs quotes: write 'data.path=\"/my own data\"' and go on with it"
    assert terminal.fold(text, io.StringIO()) == text
    lines = terminal.fold(text, Terminal()).split("\n")
    assert max(map(len, lines)) <= 40
    assert any("'data.path=\"/my own data\"'" in line for line in lines), lines
    assert " ".join(line.strip() for line in lines) == text


def test_empty_texts_can_be_written() -> None:
    for word in ("init_from=", "+model.x= ", "++a/b@c="):
        assert command.describe_empty_override(word)
    for word in ("a=''", 'a=""', "a=null", "a", "--a", "=", "a=b", "~a"):
        assert command.describe_empty_override(word) is None
    args = command.make_parser("x", "y").parse_known_args(["-p", "a=", "b=c"])[1]
    assert args == ["-p", "a=", "b=c"]


PRINTS = "import sys; from config import command\ndef main():\n    print({})\n    return {}\ncommand.run_main(main)"


LINES = "'line\\n' * 100_000"


def test_a_reader_that_is_gone_ends_a_command_quietly() -> None:
    assert pipe(["-c", PRINTS.format(LINES, 5)], "true") == (0, "")
    assert pipe(["-c", PRINTS.format("__import__('time').sleep(1) or 'short'", 5)], "true") == (0, "")
    assert pipe(["-c", PRINTS.format(LINES, 5)], "cat > /dev/null") == (5, "")


def test_what_a_terminal_cannot_encode_shows_as_escapes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRINTS.format(r"""'tree \U0001f332 \udcff'""", 0)],
        capture_output=True,
        env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, rb"tree \U0001f332 \udcff" + b"\n", b"")


def test_a_named_argument_is_given_once() -> None:
    from config.errors import InputError

    assert command.take_override(["a=1", "run=x=y", "b=2"], "run", "no") == ("x=y", ["a=1", "b=2"])
    for words in (["a=1"], ["run="], ["run=a", "run=b"], ["running=a"]):
        with pytest.raises(InputError, match=r"^no$"):
            command.take_override(words, "run", "no")


def test_progress_goes_to_stderr(tmp_path: Path) -> None:
    code = "import logging; from config import command\ncommand.log_progress(); logging.getLogger('x').info('half')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.stdout, done.stderr) == ("", "half\n")
