"""OptimizationJobs of Kubeflow Trainer: `check`, the schema behind it, and `run`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import optimization_job_cases as table
from tests.conftest import Run
from tests.optimization_job_cases import Case, Value

from katib import check, documents, optimization_check, optimization_job, optimization_schema
from katib.experiment import Experiment

CASES = list(table.cases())
NAMES = [case.name for case in CASES]


def document(value: Value) -> Experiment:
    (parsed,) = documents.parse(optimization_job.format_yaml(value), "search.yaml")
    assert parsed.value == value
    return Experiment(parsed)


def errors(value: Value) -> list[str]:
    return [row.code for row in check.check_search(document(value)) if row.level == "error"]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_check_answers_as_the_api_server(case: Case) -> None:
    assert set(errors(case.value)) == case.codes


def test_a_repeated_key_and_an_unknown_version_are_errors() -> None:
    text = optimization_job.format_yaml(table.base()).replace("numTrials: 4", "numTrials: 4\n  numTrials: 5")
    (parsed,) = documents.parse(text, "a.yaml")
    assert [row.code for row in check.check_search(Experiment(parsed)) if row.level == "error"] == ["K501"]


def test_findings_have_the_lines_and_names_of_the_file(run: Run, tmp_path: Path) -> None:
    value = table.base()
    value["spec"]["parameters"][1]["searchSpace"]["categorical"]["choices"] = ["8", "0"]
    text = optimization_job.format_yaml(value)
    (tmp_path / "a.yaml").write_text(text)
    done = run("-m", "katib", "check", "a.yaml")
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "name: batch_size" in row) + 1
    assert done.returncode == 2
    assert f"a.yaml:{line}: error K401 spec.parameters[1].searchSpace: " in done.stdout
    assert "data.batch_size" in done.stdout
    assert "note K511 kind: no release of Kubeflow Trainer has a controller" in done.stdout
    assert "1 OptimizationJob checked and 1 refused" in done.stderr


def test_quotes_are_advised_in_terms_of_variables() -> None:
    value = next(case.value for case in CASES if case.name == "accepted-shell-splits")
    (row,) = [row for row in check.check_search(document(value)) if row.code == "K206"]
    reference = "$(KUBEFLOW_TRAINER_OPT_batch_size)"
    assert row.fix == f"write '{reference}' in place of {reference} in the command"
    assert row.path == "spec.trainJobTemplate.spec.trainer.command"


WARNINGS = {
    "accepted-name-dots": "K507",
    "accepted-other-program": "K510",
    "accepted-choice-empty": "K508",
}


@pytest.mark.parametrize("name", WARNINGS)
def test_warnings(name: str) -> None:
    value = next(case.value for case in CASES if case.name == name)
    assert WARNINGS[name] in [row.code for row in check.check_search(document(value)) if row.level == "warning"]


def test_a_grid_smaller_than_its_trials_is_a_warning() -> None:
    value = next(case.value for case in CASES if case.name == "accepted-grid")
    assert "K509" not in [row.code for row in check.check_search(document(value))]
    value["spec"]["numTrials"] = 3
    assert "K509" in [row.code for row in check.check_search(document(value))]


def test_every_rule_is_tested() -> None:
    codes = {code for case in CASES for code in case.codes} | set(WARNINGS.values())
    others = {"K509", "K511"}  # above
    assert {code for code in codes if code.startswith("K5")} | others == {
        row.code for row in optimization_check.ALL_RULES
    }
    assert codes <= check.TITLES.keys()


# --- the schema, without one of its limits at a time

Step = tuple[str, ...]


def limits(schema: Any, path: Step = ()) -> Iterator[tuple[Step, str, str]]:
    """Yields each limit of a schema: its path, its key, and the name of a required field."""
    for key, value in schema.items():
        if key == "properties":
            for name, child in value.items():
                yield from limits(child, (*path, key, name))
        elif key == "items":
            yield from limits(value, (*path, key))
        elif key == "required":
            yield from ((path, key, name) for name in value)
        elif (key, value) not in (("minItems", 0), ("map-key", ""), ("minLength", 0)):
            yield path, key, ""


def without(schema: Any, limit: tuple[Step, str, str]) -> Any:
    """Returns a schema without a limit."""
    path, key, name = limit
    if path:
        return {**schema, path[0]: without(schema[path[0]], (path[1:], key, name))}
    rest = {"required": [row for row in schema["required"] if row != name]} if name else {}
    return {**{row: value for row, value in schema.items() if row != key}, **rest}


def verdict(value: Value, schema: Any) -> tuple[bool, bool, bool]:
    """Whether fields, limits and rules refuse an object; objects that are refused do not reach the rules."""
    fields = any(optimization_schema.field_problems(value, schema))
    bounds = any(optimization_schema.limit_problems(value, schema))
    try:
        return fields, bounds, not (fields or bounds) and any(optimization_schema.rule_problems(value))
    except (AttributeError, KeyError, TypeError, ValueError):
        return fields, bounds, True


def test_every_limit_of_the_schema_is_tested() -> None:
    values = [case.value for case in CASES]
    schema = optimization_schema.SCHEMA
    verdicts = [verdict(value, schema) for value in values]
    rows = list(limits(schema))
    assert len(rows) > 100
    untested = [
        ".".join(path) + f" {key} {name}"
        for path, key, name in rows
        if all(
            verdict(value, without(schema, (path, key, name))) == before
            for value, before in zip(values, verdicts, strict=True)
        )
    ]
    assert untested == []


# --- running here


def test_a_job_runs_on_this_machine(run: Run, tmp_path: Path) -> None:
    value = table.base()
    command = value["spec"]["trainJobTemplate"]["spec"]["trainer"]["command"]
    command[2:2] = ["quality=off"]
    value["spec"] |= {"numTrials": 1, "parallelTrials": 1}
    (tmp_path / "job.yaml").write_text(optimization_job.format_yaml(value))
    small = ("data.sample.train=48", "data.sample.val=16", "trainer.max_steps=1", "data.batch_size=8")
    done = run("-m", "katib", "run", "job.yaml", *small)
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in (tmp_path / "searches/search/trials.jsonl").read_text().splitlines()]
    assert row["status"] == "Succeeded"
    assert row["assignments"].keys() == {"optim.lr", "data.batch_size"}
    assert row["assignments"]["data.batch_size"] == "8"
    record = json.loads((tmp_path / "searches/search/runs" / row["name"] / "run.json").read_text())
    assert record["config"]["optim"]["lr"] == float(row["assignments"]["optim.lr"])


def test_a_program_reads_its_variables_on_this_machine(run: Run, tmp_path: Path) -> None:
    value = table.base()
    program = "import os; print('val_f1=' + os.environ['KUBEFLOW_TRAINER_OPT_batch_size'], os.environ['TRIAL'])"
    value["spec"]["trainJobTemplate"]["spec"]["trainer"] |= {
        "command": ["python", "-c", program],
        "env": [{**table.TRIAL_NAME, "name": "TRIAL"}],
    }
    value["spec"]["searchAlgorithm"] = {"grid": {}}
    value["spec"]["parameters"] = value["spec"]["parameters"][1:]
    value["spec"]["numTrials"] = 4
    (tmp_path / "job.yaml").write_text(optimization_job.format_yaml(value))
    done = run("-m", "katib", "run", "job.yaml")
    assert done.returncode == 0, done.stderr
    assert "best: val_f1=16" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "searches/search/trials.jsonl").read_text().splitlines()]
    assert sorted(row["value"] for row in rows) == [8, 16]
    for row in rows:
        assert row["name"] in (tmp_path / f"searches/search/trials/{row['name']}/katib/metrics.log").read_text()
