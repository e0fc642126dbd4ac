"""A task of a user's own has a table of facts and a contract: three names are enough, and a missing one is told."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from config.errors import InputError
from quality.verification import verify_data

FACTS = """
import pyarrow as pa

FORMAT = 1
SCHEMA = pa.schema([("split", pa.string()), ("number", pa.int64()), ("id", pa.string()), ("degrees", pa.float32())])


def tables(data, split):
    rows = [{"split": split, "number": n, "id": f"{split}-{n}", "degrees": d} for n, d in enumerate(data.degrees[split])]
    yield pa.Table.from_pylist(rows, schema=SCHEMA)
"""
TASK = """
EXAMPLES = "days"


def facts():
    from weather import facts

    return facts
"""
CONTRACT = """
dataset: data/main/facts
columns:
  - name: degrees
    checks:
      - invalid: {name: it is not hot, valid_max: 60}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the package `weather`."""
    files = {
        "conf/task/weather.yaml": "name: weather\nmodule: weather.task\n",
        "contracts/weather.yaml": CONTRACT,
        "weather/__init__.py": "",
        "weather/task.py": TASK,
        "weather/facts.py": FACTS,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("ISOTRAIN_CONF", str(tmp_path / "conf"))
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "weather"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path / "weather"


def data(root: Path, **degrees: list[float]) -> Any:
    return SimpleNamespace(
        root=root,
        origin="here",
        degrees=degrees,
        fingerprint=lambda split: json.dumps(degrees[split]),
        expected=lambda split: None,
        limit=lambda split: None,
    )


def test_three_names_are_a_table_of_facts(own: Path, tmp_path: Path) -> None:
    verdict, report = verify_data(data(tmp_path / "cache", train=[3.0, 21.5, 14.0], val=[18.0]), "weather", "weather")
    assert (verdict.status, verdict.task) == ("passed", "weather")
    page = (report / "report.html").read_text()
    assert "3 train, 1 val days" in page
    assert "train-1" in page  # the warmest
    assert "degrees" in json.loads((report / "profile.json").read_text())["columns"]
    verdict, report = verify_data(data(tmp_path / "cache", train=[3.0, 210.5, 14.0], val=[18.0]), "weather", "weather")
    assert verdict.status == "failed"
    assert json.loads((report / "rows.jsonl").read_text())["id"] == "train-1"


def test_contracts_among_the_configuration_are_refused(own: Path, tmp_path: Path) -> None:
    (tmp_path / "conf" / "quality").mkdir()
    (tmp_path / "contracts").rename(tmp_path / "conf" / "quality" / "contracts")
    with pytest.raises(InputError, match=rf"move them to {tmp_path}/contracts"):
        verify_data(data(tmp_path / "cache", train=[3.0], val=[18.0]), "weather", "weather")


def test_what_is_missing_is_told(own: Path, tmp_path: Path) -> None:
    (own / "facts.py").write_text("FORMAT = 1\nSCHEMA = None\n")
    with pytest.raises(
        InputError, match=r"the facts of the task weather need tables, but weather\.facts does not define it"
    ):
        verify_data(data(tmp_path / "cache", train=[], val=[]), "weather", "weather")
    (own / "task.py").write_text("")
    sys.modules.pop("weather.task")
    with pytest.raises(InputError, match=r"needs facts of the task weather, but weather\.task does not define it"):
        verify_data(data(tmp_path / "cache", train=[], val=[]), "weather", "weather")
