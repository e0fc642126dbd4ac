"""MLflow's SQLite file is complete or absent, whoever is killed or comes second while it is made."""

import contextlib
import importlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import ROOT

from runs import mlflow_store as store
from runs import registry


def in_child(function: Callable[[], None]) -> int:
    """Start a function in a process of its own, and return its id; its exit code is 1 if the function raises."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        function()
        code = 0
    finally:
        os._exit(code)


def wait(process: int) -> int:
    """The exit code of a process, or its signal as a negative number."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database that is copied in the place of MLflow's, which takes many seconds."""
    path = tmp_path / "template.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table experiments (name text)")
        connection.execute("insert into experiments values (?)", ["x" * 20_000])
    monkeypatch.setattr(store, "_initialize", lambda database, artifacts: shutil.copy(path, database))
    (tmp_path / "m").mkdir()
    return path


def test_a_store_is_made_once(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m" / "mlflow.db"

    def initialize(database: Path, artifacts: str) -> None:
        time.sleep(0.3)
        shutil.copy(template, database)
        with (tmp_path / "made").open("a") as file:
            file.write(f"{artifacts}\n")

    monkeypatch.setattr(store, "_initialize", initialize)
    processes = [in_child(lambda: store.create_database(path)) for _ in range(3)]
    assert [wait(process) for process in processes] == [0, 0, 0]
    assert (tmp_path / "made").read_text() == f"{(tmp_path / 'm' / 'artifacts').as_uri()}\n"
    assert path.read_bytes() == template.read_bytes()
    assert {file.name for file in path.parent.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


@pytest.mark.parametrize("moment", ["_initialize", "_remove_journal", "_rename", "sync_directory"])
def test_a_store_whose_maker_was_killed_is_made_by_the_next(
    moment: str, tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m" / "mlflow.db"

    def kill(*arguments: object) -> None:
        if moment == "_initialize":
            Path(str(arguments[0])).write_bytes(template.read_bytes()[:9_000])
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(store, moment, kill)
        assert wait(in_child(lambda: store.create_database(path))) == -signal.SIGKILL
    assert path.exists() == (moment == "sync_directory")
    store.create_database(path)
    assert path.read_bytes() == template.read_bytes()
    assert {file.name for file in path.parent.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


@pytest.mark.parametrize("hard_links", [True, False])
@pytest.mark.parametrize("case", ["absent", "empty", "journal", "made meanwhile"])
def test_what_has_the_name_of_the_store(
    case: str, hard_links: bool, tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m" / "mlflow.db"
    if case in ("empty", "journal"):
        path.touch()
    if case == "journal":  # of a database that had no pages before: SQLite would empty the new file
        header = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes.fromhex("ffffffff 00000001 00000000 00000200 00001000")
        Path(f"{path}-journal").write_bytes(header.ljust(512, b"\0"))
    if case == "made meanwhile":
        monkeypatch.setattr(store, "_remove_journal", lambda path: path.write_text("another program's"))
    if not hard_links:

        def refuse(source: object, target: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    store.create_database(path)
    if case == "made meanwhile":
        assert path.read_text() == "another program's"
        return
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select count(*) from experiments").fetchone() == (1,)
    assert path.read_bytes() == template.read_bytes()


def test_addresses() -> None:
    assert store.database_path("sqlite:////a/b.db") == Path("/a/b.db")
    assert store.database_path("sqlite:///b.db?timeout=30") == Path.cwd() / "b.db"
    for address in ("http://localhost:5000", "sqlite://", "sqlite:///", "sqlite:///:memory:", "postgresql://h/db"):
        assert store.database_path(address) is None


@pytest.mark.slow
def test_a_first_use_that_is_killed_at_any_moment_leaves_a_store_that_works(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    for name in ("mlflow.store.tracking.sqlalchemy_store", "alembic.command"):
        importlib.import_module(name)  # once, and not in each process

    def use(path: Path) -> None:
        assert registry.find_champion("ships", f"sqlite:///{path}") is None

    start = time.monotonic()
    assert wait(in_child(lambda: use(tmp_path / "first" / "mlflow.db"))) == 0
    seconds = time.monotonic() - start
    generator = random.Random(1)
    for number in range(6):
        path = tmp_path / str(number) / "mlflow.db"
        process = in_child(lambda path=path: use(path))  # type: ignore[misc]
        time.sleep(seconds * (number + generator.random()) / 6)
        os.kill(process, signal.SIGKILL)
        wait(process)
        assert wait(in_child(lambda path=path: use(path))) == 0, number  # type: ignore[misc]
        assert [file.name for file in path.parent.glob(".*")] == [], number


@pytest.mark.slow
def test_three_first_registrations_at_once(tmp_path: Path) -> None:
    from tests.test_registry import made

    folders = [made(tmp_path / name, seed) for seed, name in enumerate("abc", 1)]
    server = ["--server", f"sqlite:///{tmp_path}/m/mlflow.db", "--name", "ships"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "runs", "register", folder, *server],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, stderr=subprocess.PIPE, text=True,
        )
        for folder in folders
    ]  # fmt: skip
    for process in processes:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
    from mlflow import MlflowClient

    versions = MlflowClient(server[1], server[1]).search_model_versions("name='ships'")
    assert sorted(int(version.version) for version in versions) == [1, 2, 3]
