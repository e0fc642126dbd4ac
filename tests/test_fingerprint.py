"""Fingerprints: equal exactly when names and contents are, and cheap when nothing changed."""

import os
import shutil
import sqlite3
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import InputError
from datamodules.storage import fingerprint
from datamodules.storage.fingerprint import hash_files


def write(folder: Path, files: dict[str, bytes]) -> list[str]:
    """Writes files, dated an hour ago so that their digests are remembered."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        age(path)
    return [str(folder / name) for name in files]


def age(path: Path, hours: int = 1) -> None:
    when = path.stat().st_mtime_ns - hours * 3600 * 10**9
    os.utime(path, ns=(when, when))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The local files whose content was read."""
    read: list[str] = []
    original = fingerprint._digest
    monkeypatch.setattr(fingerprint, "_digest", lambda file: read.append(file) or original(file))
    return read


names = st.sampled_from(["a", "b", "c/d", "c/e", "f/g/h"])
contents = st.dictionaries(names, st.binary(max_size=3), min_size=1)


@settings(deadline=None, max_examples=25)
@given(one=contents, other=contents)
def test_equal_exactly_when_names_and_contents_are(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    first, second = (write(folder / name, {**files, "anchor": b""}) for name, files in (("1", one), ("2", other)))
    root = folder / "cache"
    assert (hash_files(first, root) == hash_files(second, root)) == (one == other)


def test_a_moved_folder_and_another_order_change_nothing(tmp_path: Path) -> None:
    files = write(tmp_path / "here", {"train/a": b"1", "train/b": b"2", "val/a": b"3"})
    before = hash_files(files, tmp_path / "cache")
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = [file.replace("here", "there") for file in files]
    assert hash_files(moved[::-1], tmp_path / "other cache") == before


def test_nothing_is_read_again_while_nothing_changes(tmp_path: Path, reads: list[str]) -> None:
    files = write(tmp_path / "data", {str(i): bytes([i]) for i in range(200)})
    before = hash_files(files, tmp_path)
    assert sorted(reads) == sorted(files)
    reads.clear()
    assert hash_files(files, tmp_path) == before
    assert reads == []

    write(tmp_path / "data", {"7": b"other"})
    assert hash_files(files, tmp_path) != before
    assert reads == [str(tmp_path / "data" / "7")]


def test_a_file_in_another_listing_is_not_read_again(tmp_path: Path, reads: list[str]) -> None:
    files = write(tmp_path / "data", {"a": b"1", "b": b"2"})
    hash_files(files, tmp_path)
    reads.clear()
    hash_files(files[:1], tmp_path)
    assert reads == []


def test_full_verification_sees_what_size_and_time_hide(tmp_path: Path) -> None:
    files = write(tmp_path / "data", {"a": b"1"})
    stat = Path(files[0]).stat()
    before = hash_files(files, tmp_path)
    with Path(files[0]).open("r+b") as stream:
        stream.write(b"2")
    os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert hash_files(files, tmp_path) == before
    changed = hash_files(files, tmp_path, "full")
    assert changed != before
    assert hash_files(files, tmp_path) == changed


def test_a_file_changed_a_moment_ago_is_not_trusted(tmp_path: Path, reads: list[str]) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"1")
    stat = file.stat()
    before = hash_files([str(file)], tmp_path / "cache")
    file.write_bytes(b"2")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # within one tick of the clock
    assert hash_files([str(file)], tmp_path / "cache") != before


def test_a_damaged_memory_is_made_anew(tmp_path: Path) -> None:
    files = write(tmp_path / "data", {"a": b"1"})
    before = hash_files(files, tmp_path)
    (tmp_path / "digests.sqlite").write_bytes(b"no database" * 1000)
    assert hash_files(files, tmp_path) == before
    with sqlite3.connect(tmp_path / "digests.sqlite") as connection:
        assert connection.execute("select count(*) from files").fetchone() == (1,)


def test_without_a_memory_it_works_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = write(tmp_path / "data", {"a": b"1"})
    (tmp_path / "no folder").touch()
    assert hash_files(files, tmp_path / "no folder") == hash_files(files, tmp_path / "cache")
    assert "not stored" in caplog.text


def test_missing_and_no_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nothing"):
        hash_files([str(tmp_path / "nothing")], tmp_path)
    with pytest.raises(InputError, match="no files"):
        hash_files([], tmp_path)


def test_remote_files_count_by_their_content_or_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/data/a", b"1")
    before = hash_files(["memory://data/a"], tmp_path)
    memory.pipe("/data/a", b"2")
    assert hash_files(["memory://data/a"], tmp_path) != before

    info = type(memory).info
    monkeypatch.setattr(type(memory), "info", lambda self, path, **more: {**info(self, path, **more), "ETag": "x"})
    by_tag = hash_files(["memory://data/a"], tmp_path)
    memory.pipe("/data/a", b"3")
    assert hash_files(["memory://data/a"], tmp_path) == by_tag
    assert hash_files(["memory://data/a"], tmp_path, "full") != by_tag
    with pytest.raises(InputError, match="memory://data/b"):
        hash_files(["memory://data/b"], tmp_path)
