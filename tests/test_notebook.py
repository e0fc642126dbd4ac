"""The notebook of docs/: what it shows was computed by it, and its cells still run."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT

import isotrain

NOTEBOOK = ROOT / "docs" / "first_comparison.ipynb"


def cells() -> list[dict[str, Any]]:
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def test_it_is_executed_from_top_to_bottom() -> None:
    assert [cell["execution_count"] for cell in cells()] == list(range(1, len(cells()) + 1))
    outputs = [output for cell in cells() for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"execute_result", "stream"}  # no errors
    assert len(outputs) >= len(cells()) - 1
    text = json.dumps(outputs)
    assert not re.search(r"/(home|work|tmp|root|Users)/", text)  # of the machine that executed it
    assert "bert_tiny" in text
    assert "no difference shown" in text or "better" in text


def test_it_names_functions_that_exist() -> None:
    source = "\n".join("".join(cell["source"]) for cell in cells())
    names = set(re.findall(r"isotrain\.(\w+)", source))
    assert names <= set(isotrain.__all__)
    assert {"check_data", "compose", "fit", "compare", "predict", "runs"} <= names


@pytest.mark.slow
def test_its_cells_still_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    )
    notebook = nbformat.read(NOTEBOOK, 4)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    executed = [cell for cell in notebook.cells if cell["cell_type"] == "code"]
    for cell, stored in zip(executed, cells(), strict=True):
        assert [output["output_type"] for output in cell["outputs"]] == [
            item["output_type"] for item in stored["outputs"]
        ]
    assert (tmp_path / "outputs" / "bert" / "report.html").exists()
