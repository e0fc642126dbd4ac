"""What killed writers left is removed by the next one; what living ones write is not."""

import errno
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT

from config import files, temporary_files
from config.temporary_files import remove_temporary_files

WRITERS = {
    "file": "with files.atomic_write(path) as file: file.write(b'half'); wait(); file.write(b' whole')",
    "folder": "with files.atomic_folder(path) as folder: (folder / 'a').write_text('half'); wait(); (folder / 'b').touch()",
    # Killed when the old folder is away and the new one is not in its place.
    "rename": "wait.__globals__['Path'].replace = lambda *_: wait()\nwith files.atomic_folder(path) as folder: (folder / 'b').touch()",
}
PROGRAM = """
import sys
from pathlib import Path
from config import files
path = Path(sys.argv[1])
def wait():
    print("open", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def writer(kind: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has opened a file or folder to write, and waits for a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + WRITERS[kind], path],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def write(kind: str, path: Path) -> None:
    if kind == "file":
        files.write_text(path, "new")
    else:
        with files.atomic_folder(path) as folder:
            (folder / "new").touch()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_next_writer_removes_what_a_killed_one_left(kind: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        with writer(kind, tmp_path / name):
            pass
    assert len(list(tmp_path.glob(".*.tmp"))) == 2
    write(kind, tmp_path / "a")
    (left,) = tmp_path.glob(".*.tmp")
    assert left.name.startswith(".b.")  # of another name: its writer would have to come
    remove_temporary_files(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_living_writer_writes_is_left_to_it(kind: str, tmp_path: Path) -> None:
    with writer(kind, tmp_path / "a") as process:
        write(kind, tmp_path / "a")
        remove_temporary_files(tmp_path)
        assert len(list(tmp_path.glob(".a.*.tmp"))) == 1
        process.communicate("\n", timeout=60)
        assert process.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    if kind == "file":
        assert (tmp_path / "a").read_text() == "half whole"
    else:
        assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["a", "b", "new"]


@pytest.mark.parametrize("by", ["writer", "run"])
def test_a_folder_that_was_being_replaced_returns(by: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes").write_text("somebody's")
    with writer("rename", tmp_path / "a"):
        assert not (tmp_path / "a").exists()
    if by == "writer":
        write("folder", tmp_path / "a")
    else:
        remove_temporary_files(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "notes").read_text() == "somebody's"


def test_a_name_of_another_program_is_not_removed(tmp_path: Path) -> None:
    names = [".a.tmp", "a.1-0123abcd.tmp", ".a.1-0123abcd", ".a.1-0123ABCD.tmp", ".a.x-0123abcd.tmp"]
    for name in names:
        (tmp_path / name).write_text("somebody's")
    (tmp_path / ".a.1-0123abcd.tmp").symlink_to(".a.tmp")
    os.mkfifo(tmp_path / ".a.2-0123abcd.tmp")
    files.write_text(tmp_path / "a", "new")
    remove_temporary_files(tmp_path)
    expected = {*names, "a", ".a.1-0123abcd.tmp", ".a.2-0123abcd.tmp"}
    assert {path.name for path in tmp_path.iterdir()} == expected
    remove_temporary_files(tmp_path / "none")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_writer_whose_file_is_removed_before_its_lock_takes_another(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, moments = fcntl.flock, []

    def remove_once(file: Any, operation: int) -> None:
        if not moments:
            moments.append(time.time())
            remove_temporary_files(tmp_path)
        lock(file, operation)

    monkeypatch.setattr(temporary_files.fcntl, "flock", remove_once)
    write(kind, tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert moments


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_storage_without_locks(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are removed when nothing has changed for a day."""

    def refuse(file: Any, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(temporary_files.fcntl, "flock", refuse)
    left = tmp_path / ".a.1-0123abcd.tmp"
    left.mkdir() if kind == "folder" else left.touch()
    write(kind, tmp_path / "a")
    assert left.exists()
    os.utime(left, (time.time() - 100_000,) * 2)
    write(kind, tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
