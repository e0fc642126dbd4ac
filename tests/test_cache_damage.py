"""Damaged files of the cache: the data is the same, or it is built again with a message; it is never other data."""

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import checked_json
from config.errors import InputError
from datamodules.image_classification import ImageClassificationData
from datamodules.question_answering import QuestionAnsweringData
from datamodules.storage import arrays, cache, fingerprint, manifest
from datamodules.storage.manifest import DamagedError
from datamodules.text_classification import TextClassificationData

SRC = str(Path(cache.__file__).resolve().parents[2])


def questions(root: Path, **more: Any) -> QuestionAnsweringData:
    sample = {"seed": 1, "train": 20, "val": 6}
    sizes = {"max_length": 64, "stride": 8, "max_query_length": 24}
    return QuestionAnsweringData(sample=sample, vocab_size=150, **sizes, cache_dir=str(root), **more)


def texts(root: Path, **more: Any) -> TextClassificationData:
    sample = {"seed": 1, "train": 12, "val": 6, "classes": 2}
    return TextClassificationData(sample=sample, vocab_size=150, max_length=64, cache_dir=str(root), **more)


def images(root: Path, **more: Any) -> ImageClassificationData:
    sample = {"seed": 1, "train": 10, "val": 10, "classes": 10, "size": 16}
    return ImageClassificationData(sample=sample, image_size=16, cache_dir=str(root), **more)


KINDS: dict[str, Callable[..., Any]] = {"questions": questions, "texts": texts, "images": images}
PREPARED = {"examples", "labelled_texts", "tokenizers", "windows", "encoded_texts", "images"}


def content(data: Any) -> Any:
    """All that a training sees of a data module."""
    data.prepare_data()
    data.setup("fit")
    result: list[Any] = [json.dumps(data.describe(), sort_keys=True)]
    for split in (data._splits["train"], data._splits["val"]):
        batch = split.batch(range(len(split)))
        result += [(name, array.dtype.str, array.shape, array.tobytes()) for name, array in batch.items()]
        result.append(getattr(split, "counts", None))
    for name in ("examples", "train_examples"):
        for i in range(len(getattr(data, name, ()))):
            each = getattr(data, name)
            result.append((each.id(i), each.question(i), each.context(i), each.title(i), each.answers(i)))
            result.append((each.spans[i].tolist(), bool(each.answerable[i])))
    if isinstance(data, TextClassificationData):
        for split in ("train", "val"):
            each = data.texts(split)
            result += [(each.id(i), each.text(i), each.pair(i), each.label(i)) for i in range(len(each))]
    if isinstance(data, ImageClassificationData):
        result += [data.classes, list(data.names), data.boxes.tobytes()]
    else:
        result.append((data.prepared_tokenizer.folder / "tokenizer.json").read_bytes())
    return result


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing was compared in this process yet."""
    cache._checked.clear()
    yield
    cache._checked.clear()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, Any]]:
    """For each kind of data a cache, a copy of it, and the data's content."""
    result = {}
    for kind, make in KINDS.items():
        folder = tmp_path_factory.mktemp(kind)
        expected = content(make(folder / "cache"))
        shutil.copytree(folder / "cache", folder / "copy")
        result[kind] = (folder / "cache", folder / "copy", expected)
    return result


def restore(root: Path, copy: Path) -> list[Path]:
    """Undo all damage; return the files."""
    cache._checked.clear()
    shutil.rmtree(root)
    shutil.copytree(copy, root)
    return sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")


def damage(path: Path, position: float, bit: int | None) -> None:
    """Flip one bit of a file at a relative position, or cut the file there."""
    before = path.read_bytes()
    index = min(int(position * len(before)), max(len(before) - 1, 0))
    after = bytearray(before)
    if bit is None or not before:
        after = after[:index]
    else:
        after[index] ^= 1 << bit
    path.write_bytes(after)


def entry_of(path: Path, root: Path) -> Path:
    """The entry that a file belongs to."""
    return root.joinpath(*path.relative_to(root).parts[:2])


def check_damage(
    kind: str, prepared: dict[str, tuple[Path, Path, Any]], number: float, position: float, bit: int | None, log: Any
) -> None:
    root, copy, expected = prepared[kind]
    paths = restore(root, copy)
    # Samples have most of the files, which nothing reads once the data is prepared.
    paths = [path for path in paths if entry_of(path, root).parent.name in PREPARED] if number < 0.9 else paths
    path = paths[int(number / 0.9 * len(paths)) if number < 0.9 else int((number - 0.9) * 10 * len(paths))]
    damage(path, position, bit)
    damaged = path.read_bytes()
    log.clear()
    assert content(KINDS[kind](root)) == expected, path
    entry = entry_of(path, root)
    if entry.parent.name in PREPARED:
        messages = [record.getMessage() for record in log.records if record.levelno == logging.WARNING]
        (message,) = [message for message in messages if "damaged" in message]
        assert str(entry) in message
        assert f"set aside as {entry.name}.damaged" in message
        aside = entry.with_name(f"{entry.name}.damaged") / path.relative_to(entry)
        assert aside.read_bytes() == damaged


positions = st.floats(0, 1, exclude_max=True)
bits = st.none() | st.integers(0, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flip_or_a_cut_never_gives_other_data(kind: str, prepared: Any, caplog: pytest.LogCaptureFixture) -> None:
    @settings(deadline=None, max_examples=12, suppress_health_check=list(HealthCheck), database=None)
    @given(number=positions, position=positions, bit=bits)
    def check(number: float, position: float, bit: int | None) -> None:
        check_damage(kind, prepared, number, position, bit, caplog)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_flips_and_cuts_never_give_other_data(kind: str, prepared: Any, caplog: pytest.LogCaptureFixture) -> None:
    @settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck), database=None)
    @given(number=positions, position=positions, bit=bits)
    def check(number: float, position: float, bit: int | None) -> None:
        check_damage(kind, prepared, number, position, bit, caplog)

    check()


# --- entries of versions without manifests


@pytest.mark.parametrize("kind", KINDS)
def test_entries_without_a_manifest_are_read_and_get_one(
    kind: str, prepared: Any, caplog: pytest.LogCaptureFixture
) -> None:
    root, copy, expected = prepared[kind]
    for path in restore(root, copy):
        if path.name == manifest.FILE:
            path.unlink()
    before = {path: path.stat().st_ino for path in root.rglob("*") if path.is_file()}
    assert content(KINDS[kind](root)) == expected
    assert "damaged" not in caplog.text
    assert {path: path.stat().st_ino for path in before} == before
    for path in root.glob("*/*/key.json"):
        if path.parts[-3] in PREPARED:
            assert manifest.read(path.parent) == manifest.read(copy / path.parent.relative_to(root))


OFFSETS = {
    "examples": ("questions", "contexts.offsets.npy"),
    "windows": ("questions", "offsets.npy"),
    "labelled_texts": ("texts", "texts.offsets.npy"),
    "encoded_texts": ("texts", "offsets.npy"),
    "images": ("images", "names.offsets.npy"),
}


@pytest.mark.parametrize("entry_kind", OFFSETS)
def test_without_a_manifest_offsets_are_compared_with_sizes(
    entry_kind: str, prepared: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """One bit of an offset, of 10^10 elements: it allocated 19.9 GB."""
    kind, name = OFFSETS[entry_kind]
    root, copy, expected = prepared[kind]
    restore(root, copy)
    path = next(root.glob(f"{entry_kind}/*/{name}"))
    (path.parent / manifest.FILE).unlink()
    values = np.load(path, mmap_mode="r+")
    values[len(values) // 2] ^= 1 << 33
    values.flush()
    assert content(KINDS[kind](root)) == expected
    assert f"{path.parent} is damaged ({path.name}: its offsets " in caplog.text
    assert (path.parent / manifest.FILE).exists()


Change = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: content[:40],
        lambda content: b"",
        lambda content: content.replace(b"(5,", b"(9,"),
        lambda content: content.replace(b"(5,", b"(-5,").replace(b" \n", b"\n"),
        lambda content: content.replace(b"<i8", b"<i2"),
        lambda content: content.replace(b"<i8", b"|O8"),
        lambda content: content.replace(b"<i8", b"<z8"),
        lambda content: content.replace(b"{", b"("),
        lambda content: content.replace(b"NUMPY", b"NUMPX"),
        lambda content: content.replace(b"(5,", b"(5000000000000,").replace(b" " * 12, b"", 1),
    ],
)
def test_an_array_whose_header_does_not_fit_is_not_opened(change: Change, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(5))
    np.testing.assert_array_equal(arrays.load(path), np.arange(5))
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before
    with pytest.raises(DamagedError, match=r"a\.npy is damaged: .*; repeat the command with data\.verify=full"):
        arrays.load(path)


def test_an_empty_array_is_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.empty((0, 2), np.int32))
    assert arrays.load(tmp_path / "a.npy").shape == (0, 2)


# --- when digests are compared


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose content was read for a digest."""
    names: list[str] = []
    original = fingerprint._digest
    monkeypatch.setattr(fingerprint, "_digest", lambda file: names.append(Path(file).name) or original(file))
    monkeypatch.setattr(fingerprint, "SETTLING_TIME", 0.0)
    return names


def open_entry(root: Path, **settings: Any) -> Path:
    return cache.entry(root, "things", {"n": 1}, lambda folder: (folder / "a").write_text("content"), **settings)


def flip(path: Path) -> None:
    """Change one bit, and keep size, inode and time of modification."""
    status = path.stat()
    before = bytearray(path.read_bytes())
    before[0] ^= 1
    with path.open("r+b") as file:
        file.write(before)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.usefixtures("new_process")
def test_digests_are_compared_once_in_a_process_or_each_time_with_full(tmp_path: Path, reads: list[str]) -> None:
    folder = open_entry(tmp_path)
    assert sorted(reads) == ["a", "key.json"]  # for the manifest
    for settings_, count in (({}, 2), ({}, 0), ({}, 0), ({"verify": "full"}, 2), ({"verify": "full"}, 2), ({}, 0)):
        reads.clear()
        assert open_entry(tmp_path, **settings_) == folder
        assert len(reads) == count
    cache._checked.clear()  # as a new process
    open_entry(tmp_path)
    assert len(reads) == 2


@pytest.mark.usefixtures("new_process")
def test_sizes_are_compared_each_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = open_entry(tmp_path)
    open_entry(tmp_path)
    (folder / "a").write_text("conten")
    open_entry(tmp_path)
    assert "(a: it has 6 bytes instead of 7): it was set aside" in caplog.text
    assert (folder / "a").read_text() == "content"
    (folder / "a").unlink()
    open_entry(tmp_path)
    assert "(a: No such file or directory): it was set aside" in caplog.text
    assert (folder / "a").read_text() == "content"


@pytest.mark.usefixtures("new_process")
def test_large_files_are_read_again_if_they_look_changed_or_with_full(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(manifest, "LARGE", 6)
    folder = open_entry(tmp_path)

    def open_in_new_process(**settings_: Any) -> None:
        reads.clear()
        cache._checked.clear()
        assert open_entry(tmp_path, **settings_) == folder

    open_in_new_process()
    assert sorted(reads) == ["a", "key.json"]
    open_in_new_process()
    assert reads == []
    open_in_new_process(verify="full")
    assert sorted(reads) == ["a", "key.json"]
    assert not caplog.text
    flip(folder / "a")  # the time of its change tells
    open_in_new_process()
    assert "(a: its content has changed since it was written)" in caplog.text
    assert (folder / "a").read_text() == "content"


@pytest.mark.usefixtures("new_process")
def test_full_notices_what_the_file_system_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that returns other bytes: no time has changed."""
    monkeypatch.setattr(manifest, "LARGE", 6)
    folder = open_entry(tmp_path)
    digests = fingerprint.read_digests([str(folder / "a"), str(folder / "key.json")])
    monkeypatch.setattr(fingerprint, "digest_files", lambda files, root: {file: digests[file] for file in files})
    flip(folder / "a")
    open_entry(tmp_path)
    assert not caplog.text
    open_entry(tmp_path, verify="full")
    assert "its content has changed" in caplog.text
    assert (folder / "a").read_text() == "content"


# --- setting aside and building again

BUILDER = """
import sys, time, logging
from pathlib import Path
from datamodules.storage import cache
logging.basicConfig(format="%(message)s")
root, log, go = map(Path, sys.argv[1:])
while not go.exists(): time.sleep(0.01)
def build(folder):
    with log.open("a") as file: file.write("build\\n")
    time.sleep(0.3)
    (folder / "a").write_text("content")
print((cache.entry(root, "things", {"n": 1}, build) / "a").read_text())
"""


def test_several_processes_set_it_aside_and_build_it_once(tmp_path: Path) -> None:
    folder = open_entry(tmp_path)
    flip(folder / "a")
    log, go = tmp_path / "log", tmp_path / "go"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BUILDER, str(tmp_path), str(log), str(go)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": SRC},
        )
        for _ in range(3)
    ]
    time.sleep(0.3)
    go.touch()
    results = [(*process.communicate(timeout=120), process.returncode) for process in processes]
    assert [(stdout, code) for stdout, _, code in results] == [("content\n", 0)] * 3, results
    assert log.read_text() == "build\n"
    assert sum("set aside" in stderr for _, stderr, _ in results) == 1
    assert sorted(path.name for path in (tmp_path / "things").iterdir() if path.suffix != ".lock") == [
        folder.name,
        f"{folder.name}.damaged",
    ]


@pytest.mark.usefixtures("new_process")
def test_only_the_last_damaged_one_is_kept(tmp_path: Path) -> None:
    folder = open_entry(tmp_path)
    for text in ("1st text", "2nd text"):
        (folder / "a").write_text(text)
        open_entry(tmp_path)
    assert [path.name for path in (tmp_path / "things").glob("*.damaged")] == [f"{folder.name}.damaged"]
    assert (tmp_path / "things" / f"{folder.name}.damaged" / "a").read_text() == "2nd text"


@pytest.mark.usefixtures("new_process")
def test_a_cache_that_cannot_be_written_is_read_and_damage_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_entry(tmp_path)
    (folder / manifest.FILE).unlink()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    assert open_entry(tmp_path) == folder
    assert not (folder / manifest.FILE).exists()
    manifest.write(folder)
    assert open_entry(tmp_path) == folder
    (folder / "a").write_text("text")
    with pytest.raises(InputError, match=rf"{folder} is damaged \(a: .*cannot be written.*ISOTRAIN_CACHE"):
        open_entry(tmp_path)


@pytest.mark.usefixtures("new_process")
def test_an_entry_of_another_key_and_a_file_in_its_place_are_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = open_entry(tmp_path)
    other = cache.entry(tmp_path, "things", {"n": 2}, lambda folder: (folder / "a").write_text("other"))
    shutil.rmtree(folder)
    shutil.copytree(other, folder)
    open_entry(tmp_path)
    assert "key.json is that of another entry" in caplog.text
    shutil.rmtree(folder)
    folder.write_text("a file")
    assert (open_entry(tmp_path) / "a").read_text() == "content"


# --- other files of the cache


contents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(value=contents, position=positions, bit=bits)
def test_json_with_a_digest_is_read_whole_or_refused(
    tmp_path: Path, value: Any, position: float, bit: int | None
) -> None:
    path = tmp_path / "a.json"
    checked_json.write(path, value)
    assert checked_json.read(path) == value
    damage(path, position, bit)
    with contextlib.suppress(ValueError):
        assert json.dumps(checked_json.read(path)) == json.dumps(value)


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(position=positions, bit=bits)
def test_a_damaged_index_of_digests_never_gives_another_fingerprint(
    tmp_path_factory: pytest.TempPathFactory, position: float, bit: int | None
) -> None:
    folder = tmp_path_factory.mktemp("data")
    for name in "abc":
        (folder / name).write_text(name)
        os.utime(folder / name, (0, 0))
    names = [str(folder / name) for name in "abc"]
    expected = fingerprint.hash_files(names, folder / "cache")
    damage(folder / "cache" / "digests.sqlite", position, bit)
    assert fingerprint.hash_files(names, folder / "cache") == expected
    assert fingerprint.hash_files(names[:2], folder / "cache") == fingerprint.hash_files(names[:2], folder / "other")


def test_a_flipped_digest_in_the_index_is_noticed(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (0, 0))
    names = [str(tmp_path / name) for name in "ab"]
    both, one = (fingerprint.hash_files(files, tmp_path / "fresh") for files in (names, names[:1]))
    fingerprint.hash_files(names, tmp_path / "cache")
    database = tmp_path / "cache" / "digests.sqlite"
    before = database.read_bytes()
    digest = fingerprint.read_digests(names)[names[0]]
    # The digest of a file, which another list of files takes from the index, and the fingerprint of a list.
    for text, files, expected in ((digest, names[:1], one), (both, names, both)):
        content = text.encode()
        assert before.count(content) == 1
        database.write_bytes(before.replace(content, bytes([content[0] ^ 1]) + content[1:]))
        assert fingerprint.hash_files(files, tmp_path / "cache") == expected


def test_an_index_of_an_earlier_version_is_continued(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "digests.sqlite") as connection:
        connection.execute(
            "create table files (path text primary key, size integer, mtime_ns integer, inode text, sha256 text)"
            " without rowid"
        )
        connection.execute("create table listings (signature text primary key, fingerprint text) without rowid")
    connection.close()
    (tmp_path / "a").write_text("a")
    os.utime(tmp_path / "a", (0, 0))
    fingerprint.hash_files([str(tmp_path / "a")], tmp_path)
    with sqlite3.connect(tmp_path / "digests.sqlite") as connection:
        assert connection.execute("select count(*) from files where checksum is not null").fetchone() == (1,)


def test_damaged_compositions_are_composed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from katib import composition

    path = tmp_path / "compositions.json"
    monkeypatch.setattr(composition, "_cache_file", lambda: path)
    composition._cache.cache_clear()
    try:
        checked_json.write(path, {"[]": {"message": "refused"}})
        assert composition._cache() == {"[]": {"message": "refused"}}
        path.write_text(path.read_text().replace("refused", "refuse!"))
        composition._cache.cache_clear()
        assert composition._cache() == {}
        assert f"{path} is damaged" in caplog.text
        path.unlink()
        composition._cache.cache_clear()
        caplog.clear()
        assert composition._cache() == {}
        assert not caplog.text
    finally:
        composition._cache.cache_clear()


def test_damaged_counts_of_earlier_data_are_not_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from quality import tables

    rows = [{"split": "train", "label": None, "rows": 20}]
    path = tmp_path / "counts.json"
    assert tables.read_counts(path) == []
    path.write_text(json.dumps(rows))  # an earlier version
    assert tables.read_counts(path) == rows
    checked_json.write(path, rows)
    assert tables.read_counts(path) == rows
    assert not caplog.text
    path.write_text(path.read_text().replace("20", "21"))
    assert tables.read_counts(path) == []
    assert f"{path} is damaged" in caplog.text


@pytest.mark.slow
def test_facts_verdicts_and_contracts_are_never_other_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from quality.verification import verify_data

    root, copy = tmp_path / "cache", tmp_path / "copy"

    def verify() -> Any:
        verdict, folder = verify_data(questions(root), "question_answering", "squad_sample")
        return verdict, (folder / "profile.json").read_bytes(), (folder / "sample.parquet").read_bytes()

    expected = verify()
    shutil.copytree(root, copy)

    @settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck), database=None)
    @given(number=positions, position=positions, bit=bits)
    def check(number: float, position: float, bit: int | None) -> None:
        paths = restore(root, copy)
        paths = [
            path for path in paths if path.relative_to(root).parts[0] in ("facts", "verdicts", "contracts", "quality")
        ]
        path = paths[int(number * len(paths))]
        damage(path, position, bit)
        caplog.clear()
        assert verify() == expected, path
        assert f"{entry_of(path, root)} is damaged" in caplog.text

    check()


def test_a_command_says_what_it_builds_again(run: Any, tmp_path: Path) -> None:
    command = ("-m", "datamodules", "prepare", "model=bert_tiny", "data=squad_sample", "data.sample.train=20",
               "data.sample.val=6", "model.vocab_size=150", f"data.cache_dir={tmp_path / 'cache'}")  # fmt: skip
    before = run(*command)
    assert before.returncode == 0, before.stderr
    for path in sorted((tmp_path / "cache").glob("windows/*/tokens.npy")):
        flip(path)
    after = run(*command)
    assert (after.returncode, after.stdout) == (0, before.stdout)
    assert after.stderr.count("tokens.npy: its content has changed since it was written): it was set aside as") == 2
