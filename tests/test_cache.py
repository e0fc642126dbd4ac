"""The cache: one build whatever happens, and nothing half done is ever read."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import InputError, ResourceError
from datamodules.storage import cache

SRC = str(Path(cache.__file__).resolve().parents[2])

# Builds the entry {"n": 1}: says so in a log, writes half, waits for a file, writes the rest.
BUILDER = """
import sys, time, pathlib
from datamodules.storage import cache
root, log, go = map(pathlib.Path, sys.argv[1:4])
def build(folder):
    with log.open("a") as stream: stream.write("build\\n")
    (folder / "half").write_text("first")
    while not go.exists(): time.sleep(0.01)
    (folder / "whole").write_text("second")
print(cache.entry(root, "things", {"n": 1}, build))
"""


def start(*arguments: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": SRC},
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)


def test_an_entry_is_built_once_and_says_what_it_is_of(tmp_path: Path) -> None:
    calls = []

    def build(folder: Path) -> None:
        calls.append(folder)
        (folder / "content").write_text("x")

    first = cache.entry(tmp_path, "things", {"b": 1, "a": [True, None, "ü"]}, build)
    again = cache.entry(tmp_path, "things", {"a": [True, None, "ü"], "b": 1}, build)
    assert first == again
    assert len(calls) == 1
    assert (first / "content").read_text() == "x"
    assert json.loads((first / "key.json").read_text()) == {"a": [True, None, "ü"], "b": 1}
    assert len(first.name) == 24


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
keys = st.dictionaries(st.text(max_size=5), scalars | st.lists(scalars, max_size=3), max_size=4)


@settings(deadline=None, max_examples=20)
@given(one=keys, other=keys)
def test_keys_and_folders_correspond(tmp_path_factory: pytest.TempPathFactory, one: dict, other: dict) -> None:
    root = tmp_path_factory.mktemp("cache")
    folders = [cache.entry(root, "things", key, lambda _: None) for key in (one, other)]
    assert (folders[0] == folders[1]) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


def test_two_processes_at_once_do_the_work_once(tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    both = [start(tmp_path, log, go) for _ in range(2)]
    wait_for(log)
    time.sleep(0.5)
    go.touch()
    answers = {process.communicate(timeout=60)[0].strip() for process in both}
    assert all(process.returncode == 0 for process in both)
    assert log.read_text() == "build\n"
    (answer,) = answers
    assert (Path(answer) / "whole").read_text() == "second"


def test_what_a_killed_builder_leaves_is_never_read_and_goes_away(tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    process = start(tmp_path, log, go)
    wait_for(log)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    (leftover,) = (tmp_path / "things").glob("*.tmp")
    assert not (tmp_path / "things" / leftover.stem).exists()

    # The next builder, even of another entry, removes it.
    other = cache.entry(tmp_path, "things", {"n": 2}, lambda folder: None)
    assert not leftover.exists()
    go.touch()
    again = start(tmp_path, log, go)
    answer = Path(again.communicate(timeout=60)[0].strip())
    assert sorted(file.name for file in answer.iterdir()) == ["half", "key.json", "manifest.json", "whole"]
    assert answer != other
    assert log.read_text() == "build\n" * 2


def test_leftovers_of_a_builder_at_work_stay(tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    process = start(tmp_path, log, go)
    wait_for(log)
    cache.entry(tmp_path, "things", {"n": 2}, lambda folder: None)
    assert len(list((tmp_path / "things").glob("*.tmp"))) == 1
    go.touch()
    assert (Path(process.communicate(timeout=60)[0].strip()) / "half").exists()


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        cache.entry(tmp_path, "things", {}, build)
    assert [path.suffix for path in (tmp_path / "things").iterdir()] == [".lock"]
    assert cache.entry(tmp_path, "things", {}, lambda folder: None).is_dir()


@pytest.mark.parametrize("how", ["python", "numpy"])
def test_a_full_disk_is_told_with_the_way_out_and_leaves_nothing(tmp_path: Path, how: str) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_text("x")
        (folder / "big").symlink_to("/dev/full")
        with (folder / "big").open("wb") as stream:
            if how == "python":
                stream.write(b"x" * (1 << 20))
            else:
                np.zeros(1 << 20, np.uint8).tofile(stream)

    with pytest.raises(ResourceError, match=r"no space left .*things.*data\.cache_dir.*ISOTRAIN_CACHE"):
        cache.entry(tmp_path, "things", {}, build)
    assert [path.suffix for path in (tmp_path / "things").iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be created.*data\.cache_dir"):
        cache.entry(tmp_path / "file", "things", {}, lambda folder: None)


def test_the_root_is_what_is_configured_else_the_environments_else_the_homes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ISOTRAIN_CACHE", raising=False)
    assert cache.root(None) == tmp_path / ".cache" / "isotrain"
    monkeypatch.setenv("ISOTRAIN_CACHE", "/elsewhere")
    assert cache.root(None) == Path("/elsewhere")
    assert cache.root("~/mine") == tmp_path / "mine"
