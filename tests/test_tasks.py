"""Tasks: no room knows one by name; what a task lacks is refused by name; a record decides nothing about code."""

import ast
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import made_runs
from tests.conftest import ROOT, Run

from config import files, tasks
from runs import folder as folders

SRC = ROOT / "src"
NAMES = ("question_answering", "image_classification", "text_classification")
NAME = re.compile("|".join(name.replace("_", "[_-]") for name in NAMES), re.IGNORECASE)


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Every module outside src/tasks, with its syntax tree."""
    for path in sorted(SRC.rglob("*.py")):
        name = path.relative_to(SRC).as_posix()
        if not name.startswith("tasks/"):
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def docstrings(tree: ast.Module) -> set[int]:
    """The nodes that are docstrings, of modules, classes, functions, and attributes."""
    return {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def named(tree: ast.Module) -> list[str]:
    """String constants with a task's name in them."""
    skipped = docstrings(tree)
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in skipped
        and NAME.search(node.value)
    ]


def classes() -> set[str]:
    """Names of the classes of the modules that are a task's own: its data modules and LightningModules."""
    return {
        node.name
        for name, tree in sources()
        if NAME.search(name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


def type_tests(tree: ast.Module, known: set[str]) -> list[str]:
    """Names of a task's classes in isinstance, issubclass, class patterns, and comparisons of types."""
    found = []
    for node in ast.walk(tree):
        tested: list[ast.AST] = []
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            tested = [*node.args[1:]]
        elif isinstance(node, ast.MatchClass):
            tested = [node.cls]
        elif isinstance(node, ast.Compare):
            tested = [node.left, *node.comparators]
        for child in (child for part in tested for child in ast.walk(part)):
            name = getattr(child, "id", getattr(child, "attr", getattr(child, "value", None)))
            if isinstance(name, str) and name in known:
                found.append(name)
    return found


def imports(tree: ast.Module) -> set[str]:
    """Modules of src/ that a module imports, also inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    paths = (f"{dotted.replace('.', '/')}.py" for dotted in found)
    return {path for path in paths if (SRC / path).is_file()}


def test_no_room_names_a_task() -> None:
    """Each asks the task's module instead: config.tasks.load_member."""
    found = [f"{name}: {text}" for name, tree in sources() for text in named(tree)]
    assert found == []


def test_no_room_tests_the_type_of_a_tasks_class() -> None:
    known = classes()
    assert {"QuestionAnsweringData", "ImageClassification"} <= known
    found = [f"{name}: {text}" for name, tree in sources() for text in type_tests(tree, known)]
    assert found == []


COMMANDS = ("train.py", *sorted(path.relative_to(SRC).as_posix() for path in SRC.glob("*/__main__.py")))


def ways(command: str) -> list[str]:
    """How a command reaches a task's own modules by imports alone."""
    graph = {name: imports(tree) for name, tree in sources()}
    graph["train.py"] = imports(ast.parse((ROOT / "train.py").read_text(encoding="utf-8")))
    found, waiting = {command: command}, [command]
    while waiting:
        name = waiting.pop(0)
        for other in sorted(graph.get(name, set()) - found.keys()):
            found[other] = f"{found[name]} -> {other}"
            waiting.append(other)
    return sorted(way for name, way in found.items() if NAME.search(name))


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_imports_a_tasks_own_modules(command: str) -> None:
    """They come through the task's module, or by the configuration (`_target_`): another task needs none of them."""
    assert ways(command) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("x = task == 'question_answering'", True),
        ("x = f'explain.{1}.image_classification.grid'", True),
        ("x = {'Text-Classification': 1}", True),
        ("'''About question_answering.'''\ndef f():\n    '''question_answering'''", False),
        ("from datamodules.question_answering import QuestionAnsweringData", False),
        ("x = 'question'", False),
    ],
)
def test_the_search_finds_names(code: str, found: bool) -> None:
    assert bool(named(ast.parse(code))) is found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("isinstance(data, A)", True),
        ("isinstance(data, (int, module.A))", True),
        ("type(data) is A", True),
        ("type(data).__name__ == 'A'", True),
        ("match data:\n    case A():\n        pass", True),
        ("isinstance(data, B)", False),
        ("def f(data: A) -> None: ...", False),
    ],
)
def test_the_search_finds_tests_of_types(code: str, found: bool) -> None:
    assert bool(type_tests(ast.parse(code), {"A"})) is found


def two_runs(folder: Path) -> list[str]:
    """Two runs of tests/own_task."""
    for seed, name in enumerate("ab"):
        made_runs.write(folder / name, made_runs.ages(60, 4.0, seed))
    return [str(folder / name) for name in "ab"]


@pytest.mark.parametrize("name", ["question_answering", "image_classification"])
def test_every_task_of_ours_has_what_runs_asks(name: str) -> None:
    module = tasks.load_module(name)
    for attribute in ("EXAMPLES", "CLUSTER", "CLUSTER_NAME", "USE", "LIMITS", "LIBRARY", "MISTAKE_ORDER"):
        assert isinstance(getattr(module, attribute), str)
    rows = made_runs.questions(40, 0.5, 1) if name == "question_answering" else made_runs.images(40, 0.5, 1)
    declared = tasks.load_settings(name)["metrics"]
    for row in rows:
        assert set(module.scores(row)) <= set(declared)
        assert module.is_correct(row) in (True, False)
        assert len(module.mistake(row)) == len(module.MISTAKE_COLUMNS)
        assert module.mistake_group(row)
    assert sorted(rows, key=module.mistake_key)
    assert set(module.MISTAKE_COLUMNS.values()) <= {"", "n", "t", "i", "w", "picture", "spans"}


def test_a_task_without_scores_is_refused_by_name(run: Run, tmp_path: Path) -> None:
    own = shutil.copytree(made_runs.OWN_TASK, tmp_path / "own")
    module = own / "age_task.py"
    module.write_text(module.read_text().replace("def scores(", "def other("))
    done = run("-m", "runs", "compare", *two_runs(tmp_path), **made_runs.own_task(own))
    assert done.returncode == 2
    for word in ("runs compare", "scores", "task age", "age_task", "docs/tasks.md"):
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_report_shows_what_the_task_has(run: Run, tmp_path: Path) -> None:
    """A task without functions that the page could use: the page says which, and shows the rest."""
    folder, _ = two_runs(tmp_path)
    page = Path(folder) / "report.html"
    own = shutil.copytree(made_runs.OWN_TASK, tmp_path / "own")
    whole = (own / "age_task.py").read_text()

    def text(module: str) -> str:
        (own / "age_task.py").write_text(module)
        shutil.rmtree(own / "__pycache__", ignore_errors=True)
        done = run("-m", "runs", "report", folder, **made_runs.own_task(own))
        assert done.returncode == 0, done.stderr
        return page.read_text(encoding="utf-8")

    shown = text(whole)
    rows = made_runs.ages(60, 4.0, 0)
    wrong = sorted((abs(row["prediction"] - row["age"]), row["id"]) for row in rows)[::-1]
    wrong = [row for row in wrong if row[0] > 5]
    assert f"{len(wrong)} of 60 predictions are wrong, the furthest off first" in shown
    assert re.findall(r'<td class="id">(face \d+)</td>', shown) == [name for _, name in wrong]
    assert "No intervals" not in shown
    assert "has no is_correct" in text(whole.replace("def is_correct(", "def other(").replace("* is_correct(row)", ""))
    assert "has no MISTAKE_COLUMNS" in text(whole.replace("MISTAKE_COLUMNS", "OTHER"))
    assert "No intervals: the module of the task age has no scores" in text(whole.replace("def scores(", "def other("))
    broken = text(
        whole.replace("def mistake(row: Mapping[str, Any]) -> list[Any]:\n", "def mistake(row):\n    1 / 0\n")
    )
    assert "cannot be shown: ZeroDivisionError" in broken
    assert "<h2>Configuration</h2>" in broken
    assert "line 1, is not a prediction of the task age: KeyError" in text(whole.replace('row["age"]', 'row["years"]'))


def test_a_record_names_no_code(run: Run, tmp_path: Path) -> None:
    """The module of a task comes from this machine's configuration; one that a record names is never imported."""
    (tmp_path / "evil_task.py").write_text("open('imported', 'w').close()\n")
    names = [str(made_runs.write(tmp_path / name, made_runs.questions(30, 0.5, 1))) for name in "ab"]
    for name in names:
        record = folders.read_record(name)
        record["config"]["task"] |= {"module": "evil_task"}
        record["config"] |= {"_target_": "evil_task.run"}
        files.write_json(Path(name) / "run.json", record)
    path = {"PYTHONPATH": f"{SRC}:{tmp_path}"}
    for command in (["compare", *names], ["report", names[0]], ["show", names[0]], ["list", *names]):
        done = run("-m", "runs", *command, **path)
        assert done.returncode == 0, done.stderr
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("name", ["os", "../question_answering", "age", None])
def test_a_task_that_this_machine_does_not_know(name: str | None, run: Run, tmp_path: Path) -> None:
    """compare and register refuse it with what to do; report, show and list go on without it."""
    sides = two_runs(tmp_path)
    for side in sides:
        record = folders.read_record(side)
        record["config"]["task"] = {} if name is None else {"name": name}
        files.write_json(Path(side) / "run.json", record)
        (Path(side) / "model").mkdir()
    why = "has no task" if name is None else f"there is no task {name}"
    server = ["--server", f"sqlite:///{tmp_path}/mlflow.db"]
    for command in (["compare", *sides], ["register", sides[0], *server]):
        done = run("-m", "runs", *command)
        assert (done.returncode, why in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
    assert run("-m", "runs", "show", sides[0]).returncode == 0
    rows = json.loads(run("-m", "runs", "list", *sides, "--json").stdout)
    assert [row["monitor"] for row in rows] == ["val_mae", "val_mae"]
    assert [row["task"] for row in rows] == [name, name]
    done = run("-m", "runs", "report", *sides)
    assert done.returncode == 0, done.stderr
    page = (Path(sides[0]) / "report.html").read_text()
    assert "The predictions cannot be read" in page
    assert "<h2>Mistakes</h2>" not in page
    assert "best is not known" in (tmp_path / "report.html").read_text()


def test_the_best_of_many_runs_follows_the_metrics_direction(run: Run, tmp_path: Path) -> None:
    for name, spread in (("worse", 9.0), ("best", 2.0), ("middle", 5.0)):
        made_runs.write(tmp_path / name, made_runs.ages(60, spread, 1))
    done = run("-m", "runs", "report", str(tmp_path), **made_runs.own_task())
    assert done.returncode == 0, done.stderr
    assert "The best of 3 runs is best (" in (tmp_path / "report.html").read_text()


def test_a_records_data_is_opened_with_this_machines_class() -> None:
    from datamodules import factory

    record = {
        "choices": {"data": "squad_sample"},
        "config": {"data": {"_target_": "evil.Data", "max_val": 7, "seed": 3}},
    }
    node = factory.compose_recorded(record, "question_answering")
    assert (node._target_, node.max_val, node.seed) == (
        "datamodules.question_answering.QuestionAnsweringData", 7, 3,
    )  # fmt: skip
    assert factory.select_choice({"choices": {"data": "shapes"}}, "question_answering", "data") == "squad"
    assert factory.select_choice({"choices": {"data": "../../etc"}}, "question_answering", "data") == "squad"
