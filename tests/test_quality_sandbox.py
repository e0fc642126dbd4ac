"""The SQL of a contract, which may come from somebody else: it reads the tables of the data set, within limits."""

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from config.errors import ContractError, InputError
from quality import __main__ as command
from quality import contract, sandbox
from quality.facts import Facts
from quality.judgement import judge_contract

HEAD = "dataset: data/main/facts\ncolumns:\n  - name: id\nchecks:\n"
PYTHON_TABLE = pa.table({"secret": ["of this module"]})  # DuckDB finds tables in Python variables
FILE_STATEMENTS = (
    "select * from read_text('{secret}')",
    "select * from read_text('{spill}/../secret.txt')",  # DuckDB's own folder may be read
    "select * from '{secret}'",
    "select * from read_csv('{secret}')",
    "select * from read_parquet('{facts}')",
    "select * from glob('{folder}/*')",
    "select * from PYTHON_TABLE",
    "copy facts to '{folder}/written.csv'",
    "attach '{folder}/written.db' as other",
    "export database '{folder}/written'",
    "install httpfs",
    "load httpfs",
    "set memory_limit = '100GB'",
    "set enable_external_access = true",
    "reset lock_configuration",
)
OTHER_STATEMENTS = (
    "",
    "select 1; select 2",
    "select 0; copy facts to '{folder}/written.csv'",
    "copy facts to '{spill}/written.csv'",  # DuckDB itself may write there
    "attach '{spill}/written.db' as other",
    "drop table facts",
    "delete from facts",
    "insert into facts select * from facts",
    "create table other as select * from facts",
    "explain analyze select * from facts",
    "set variable x = 1",
    "checkpoint",
)


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    count = 2_000
    columns = {"split": ["train"] * count, "number": range(count), "id": [f"q{number}" for number in range(count)]}
    pq.write_table(pa.table(columns), tmp_path / "facts.parquet")
    return Facts(tmp_path / "facts.parquet", "0" * 64, "question_answering", [], [])


@pytest.fixture
def connection(facts: Facts, tmp_path: Path) -> Iterator[Any]:
    with sandbox.load(facts.path, tmp_path / "spill") as opened:
        yield opened


def places(folder: Path) -> dict[str, str]:
    (folder / "secret.txt").write_text("a secret\n")
    return {
        "secret": str(folder / "secret.txt"),
        "facts": str(folder / "facts.parquet"),
        "folder": str(folder),
        "spill": str(folder / "spill"),
    }


@pytest.mark.parametrize("statement", [*FILE_STATEMENTS, *OTHER_STATEMENTS])
def test_a_statement_reads_and_writes_nothing_but_the_tables(statement: str, connection: Any, tmp_path: Path) -> None:
    cursor = sandbox.Sandbox(connection)
    before = sorted(tmp_path.iterdir())
    with pytest.raises((duckdb.Error, sandbox.RefusedStatementError)):
        cursor.execute(statement.format(**places(tmp_path))).fetchall()
    assert cursor.execute("select count(*) from facts").fetchall() == [(2_000,)]
    assert sorted(tmp_path.iterdir()) == sorted({*before, tmp_path / "secret.txt"})


@pytest.mark.parametrize("statement", FILE_STATEMENTS)
def test_the_connection_itself_is_locked(statement: str, connection: Any, tmp_path: Path) -> None:
    sandbox.Sandbox(connection)
    with pytest.raises(duckdb.Error):
        connection.execute(statement.format(**places(tmp_path))).fetchall()


def test_statements_share_a_limit_of_time(connection: Any) -> None:
    cursor = sandbox.Sandbox(connection, seconds=0.1)
    with pytest.raises(duckdb.InterruptException):
        cursor.execute("select sum(length(a.id || b.id || c.id)) from facts a, facts b, facts c, facts d").fetchall()
    assert "took longer than 0.1 s" in cursor.limit_error
    assert "quality.time_limit" in cursor.limit_error
    with pytest.raises(sandbox.RefusedStatementError, match="took longer"):
        cursor.execute("select 1")


def test_a_statement_that_cannot_be_interrupted_ends_the_command(
    facts: Facts, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sandbox, "GRACE", 0.01)
    monkeypatch.setattr("atexit.register", lambda _: None)
    loaded = sandbox.load(facts.path, tmp_path / "spill")
    cursor = sandbox.Sandbox(loaded.__enter__(), seconds=0.05)
    with pytest.raises(ContractError, match="could not be verified: its queries took longer"):
        cursor.execute("select levenshtein(repeat('x', 15000), repeat('y', 15000))").fetchall()
    assert cursor.failure


def test_memory_outside_the_limit_of_duckdb_is_limited(connection: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sandbox, "ALLOCATIONS", 100 << 20)
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    cursor = sandbox.Sandbox(connection)
    with sandbox.limit_memory(), pytest.raises(sandbox.RefusedStatementError, match="too much memory"):
        cursor.execute("select len(range(100000000))").fetchall()  # 800 MB
    assert cursor.limit_error
    assert resource.getrlimit(resource.RLIMIT_DATA) == limits


@pytest.mark.parametrize(
    "rows",
    [
        "false union all select content, 1, '' from read_text('/etc/hostname')",
        "false) union all (select 'train', 1, 'forged'",
        "true; select 1, 2, 3",
        "id in (select content from read_text('/etc/hostname'))",
    ],
)
def test_the_condition_of_rows_is_one_expression(rows: str, facts: Facts, connection: Any, tmp_path: Path) -> None:
    text = (
        f"{HEAD}  - failed_rows:\n      name: none\n      expression: number >= 0\n      threshold: {{must_be: 0}}\n"
        f'      attributes: {{rows: "{rows}"}}\n'
    )
    rows_file = tmp_path / "rows.jsonl"
    (check,) = judge_contract(contract.parse(text, "x", "x"), facts, connection, {}, rows_file).checks
    assert (check.outcome, check.rows, check.examples) == ("failed", None, [])
    assert check.message.startswith("its rows are unknown")
    assert rows_file.read_text() == ""


@pytest.mark.parametrize("reference", ["${env.HF_TOKEN}", "${ env.HF_TOKEN }", "${soda.NOW}", "${var.X}"])
@pytest.mark.parametrize("key", ["name", "query"])
def test_a_contract_does_not_read_the_environment(reference: str, key: str) -> None:
    fields = {"name": "none", "query": "select 0", "qualifier": "x"} | {key: f"x {reference}"}
    lines = "".join(f'      {name}: "{value}"\n' for name, value in fields.items())
    text = f"{HEAD}  - metric:\n{lines}      threshold: {{must_be: 0}}\n"
    with pytest.raises(InputError, match="write"):
        contract.parse(text, "x", "x")


def test_a_hostile_contract_is_inconclusive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queries = {
        "copy": f"select 0; copy (select 1) to '{tmp_path}/written.csv'",
        "read": f"select length(content) from read_text('{tmp_path}/secret.txt')",
    }
    checks = "".join(
        f'  - metric: {{name: {name}, qualifier: {name}, query: "{query}", threshold: {{must_be: 0}}}}\n'
        for name, query in queries.items()
    )
    (tmp_path / "secret.txt").write_text("x")
    (tmp_path / "hostile.yaml").write_text(HEAD + checks)
    settings = [f"quality.contract={tmp_path}/hostile.yaml", f"data.cache_dir={tmp_path}/cache"]
    sample = ["data=squad_sample", "data.sample.train=8", "data.sample.val=4"]
    assert command.main([*sample, *settings, "--folder", str(tmp_path / "report")]) == 4
    assert "2 could not be evaluated" in capsys.readouterr().out
    assert not (tmp_path / "written.csv").exists()
