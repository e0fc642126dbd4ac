"""Types and ranges that a class declares in its own signature are checked without importing it."""

import importlib
import inspect
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf
from tests.conftest import ROOT, Run

from config import signatures, tasks
from config.check import iter_targets
from config.compose import compose, group_choices
from config.ranges import Keys, Range, Rule, check_value, describe_rule

# -- a task of one's own, outside the repository ------------------------------------------------------------------------

PACKAGE = '''
"""Classes of a user's own. Importing this module is a mistake: config reads its text."""

from __future__ import annotations

import collections.abc as abc
import typing as t

import no_such_library
from config.ranges import Keys, Range

raise SystemExit("imported")


class Shared:
    def __init__(self, data, optim, width: t.Annotated[int, Range(low=1, high=2**10)], *, depth: t.Literal[1, 2] = 1) -> None:
        ...


class Model(Shared):
    pass


class Data:
    def __init__(
        self,
        path: str | None = None,
        *,
        batch_size: "t.Annotated[int, Range(low=1)]" = 1,
        scale: t.Annotated[float, Range(above=0, below=1.5)] | None = None,
        limit: t.Annotated[int, Range(low=1, also=(-1,))] = -1,
        anything: "some.Thing[int]" = None,
        noise: t.Annotated[abc.Mapping[str, t.Any] | None, Keys("heights.Noise")] = None,
    ) -> None:
        ...


import dataclasses


@dataclasses.dataclass(frozen=True)
class Noise:
    mean: t.Annotated[float, Range(low=-1, high=1)]
    kind: t.Literal["white", "pink"] = "white"
    seen: t.ClassVar[int] = 0
    drawn: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass
class Explained:
    cells: t.Annotated[int, Range(low=2)]
'''
TASK = """
EXPLAIN_SETTINGS = "heights.Explained"


def explainer():
    raise NotImplementedError
"""
YAML = {
    "task/height": "name: height\nmodule: heights_task\nmonitor: val_loss\nmetrics:\n  val_loss: {mode: min, worst: 1.0}\n",
    "model/height": "_target_: heights.Model\ntask: height\nlr: 0.1\nwidth: 8\n",
    "data/height": "defaults:\n  - /task@_global_.task: height\n  - _self_\n_target_: heights.Data\npath: null\nbatch_size: 4\n"
    "scale: null\nlimit: -1\nanything: [1]\nnoise: {mean: 0.0}\ncontract: x\nepochs: 1\n",
    "explain/height": "defaults:\n  - enforce\n  - _self_\nheight:\n  cells: 4\n  measures:\n    far: {block: true, bound: 0.0}\n",
}


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package and a conf/."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "heights.py").write_text(PACKAGE)
    (folder / "heights_task.py").write_text(TASK)
    for name, text in YAML.items():
        path = folder / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


CODE = """
import sys
from config.check import check_config
from config.compose import compose
from config.errors import InputError
from config.messages import explain_error

for line in sys.stdin:
    try:
        check_config(compose(["model=height", "data=height", "explain=height", *line.split()]))
        print("fine")
    except InputError as error:
        print(error)
    except Exception as error:
        print(explain_error(error))
"""
LINES = {
    "": "fine",
    "model.width=1024 data.scale=1.25 data.limit=7 data.noise.mean=-1 data.anything=no": "fine",
    "model.width=1025": "model.width=1025: must be a whole number, at least 1 and at most 1024",
    "model.width=wide": "model.width=wide: must be a whole number, at least 1 and at most 1024",
    "+model.depth=2": "fine",
    "+model.depth=3": "model.depth=3: must be 1 or 2",
    "~model.width": "model: heights.Model requires the argument width",
    "+model.with=1": "model.with: heights.Model has no such argument (did you mean width?)",
    "data.batch_size=0": "data.batch_size=0: must be a whole number, at least 1",
    "data.scale=1.5": "data.scale=1.5: must be a number, above 0 and below 1.5 or null",
    "data.limit=0": "data.limit=0: must be a whole number, at least 1 or -1",
    "data.path=[1]": "data.path=[1]: must be text or null",
    "data.noise.mean=2": "data.noise.mean=2: must be a number, at least -1 and at most 1",
    "+data.noise.kind=brown": "data.noise.kind=brown: must be white or pink",
    "+data.noise.knid=pink": "data.noise has no key knid; valid keys: mean, kind (did you mean kind?)",
    "~data.noise.mean": "data.noise.mean is missing",
    "data.noise=3": "data.noise=3: must be a mapping or null",
    "data.noise=null": "fine",
    "explain.height.cells=1": "explain.height.cells=1: must be a whole number, at least 2",
    "explain.height.measures.far.bound=101": "explain.height.measures.far.bound=101: must be a number, at least -100 and at most 100",
    "explain.height.measures.far.block=1": "explain.height.measures.far.block=1: must be true or false",
    "data.batch_sise=1": "unknown key data.batch_sise; keys of data: path, batch_size, scale, limit, anything, noise, contract, epochs "
    "(did you mean batch_size?)",
    "model=bert_tiny": "the model is for the task question_answering and the data set for height: choose a model and a data set of "
    "one task: model=height or majority, or data=squad or squad_sample or squad_v2",
}


def test_classes_outside_the_repository_are_checked_by_their_own_signatures(outside: Path, cache: Path) -> None:
    path = f"{ROOT / 'src'}:{outside}"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": path, "ISOTRAIN_CONF": str(outside / "conf"), "HOME": "/tmp"}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        input="\n".join(LINES),
        text=True,
        capture_output=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert dict(zip(LINES, done.stdout.splitlines(), strict=True)) == LINES


def test_katib_check_refuses_what_a_class_outside_the_repository_would_not_take(outside: Path, run: Run) -> None:
    environment = {"PYTHONPATH": f"{ROOT / 'src'}:{outside}", "ISOTRAIN_CONF": str(outside / "conf")}
    line = ("model=height", "data=height", "optim.lr=0.1", "model.width=int(512,2048)", "--objective", "val_loss")
    done = run("-m", "katib", "new", *line, **environment)
    assert done.returncode == 2
    assert "model.width=2048: must be a whole number, at least 1 and at most 1024" in done.stderr


# -- those of the repository --------------------------------------------------------------------------------------------


def shipped() -> Iterator[tuple[str, signatures.Signature]]:
    """Every class and function that takes settings of conf/, with its signature as read."""
    names = {
        str(node["_target_"])
        for group in ("model", "data", "optim", "logger")
        for choice in group_choices(group)
        for _, node in iter_targets(OmegaConf.to_container(OmegaConf.load(tasks.CONF / group / f"{choice}.yaml")))
    }
    names.remove("${task.majority}")
    for task in tasks.task_names():
        names.add(str(tasks.load_settings(task)["majority"]))
        found = signatures.read_constant(str(tasks.load_settings(task)["module"]), "EXPLAIN_SETTINGS") or ()
        names |= {found} if isinstance(found, str) else set(found)
    while names:
        name = names.pop()
        signature = signatures.read_signature(name)
        assert signature is not None, f"the signature of {name} cannot be read"
        yield name, signature
        keys = [each.rule.keys for each in signature.parameters.values() if each.rule is not None]
        names |= {each.target for each in keys if each is not None}


def test_every_signature_is_read_as_python_reads_it() -> None:
    """Names, defaults and ranges from the syntax are those of the imported object."""
    seen = 0
    for name, signature in shipped():
        target = get_object(name)
        parameters = {
            each.name: each
            for each in inspect.signature(target).parameters.values()
            if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
        }
        assert list(signature.parameters) == list(parameters), name
        for word, parameter in parameters.items():
            assert signature.parameters[word].required == (parameter.default is parameter.empty), f"{name} {word}"
        if not name.startswith(("torch.", "lightning.")):
            hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
            for word, parameter in signature.parameters.items():
                declared = [each for each in _metadata(hints.get(word)) if isinstance(each, Range | Keys)]
                rule = parameter.rule
                read = [] if rule is None else [each for each in (rule.range, rule.keys) if each not in (Range(), None)]
                assert read == declared, f"{name} {word}"
                seen += len(declared)
    assert seen > 40


def _metadata(hint: Any) -> Iterator[Any]:
    yield from getattr(hint, "__metadata__", ())
    for part in typing.get_args(hint):
        yield from _metadata(part)


def test_heavy_libraries_signatures_are_read_without_importing_them() -> None:
    code = (
        "import sys; from config import signatures\n"
        "assert 'momentum' in signatures.read_signature('torch.optim.SGD').parameters\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_optimizers_argument_is_refused_without_torch() -> None:
    from config.check import check_config
    from config.errors import InputError

    with pytest.raises(
        InputError,
        match=r"optim\.optimizer\.momentun: torch\.optim\.SGD has no such argument \(did you mean momentum\?\)",
    ):
        check_config(compose(["optim=sgd", "+optim.optimizer.momentun=0.5"]))


# -- what is read of a module ---------------------------------------------------------------------------------------------


MODULE = """
import functools
from dataclasses import dataclass
from typing import Annotated, Literal, Optional
from . import sibling
from .sibling import Elsewhere as Renamed

def plain(a, b=1, *args, c, d=2, **more): ...
@functools.lru_cache(maxsize=1)
def cached(a: int): ...
@sibling.unknown
def decorated(a: int): ...
class Empty: ...
class Child(Renamed): ...
class Meta(metaclass=abc): ...
class Fresh:
    def __new__(cls, a): ...
class Unknown(sibling.Base): ...
class Itself(sibling.Itself): ...
class Made:
    @classmethod
    def of(cls, a: int): ...
    @staticmethod
    def bare(a: int): ...
class Nested:
    class Inner:
        def __init__(self, a: int): ...
def forms(
    a: int | str | None, b: Literal["x", 2, None], c: Optional[int], d: "int", e: list[int], f: dict, g: None,
    h: int | list, i: Annotated[int, "no range"], j: Annotated[int, Range(low=unknown)], k: Annotated[float, Range(low=-1, below=2**3)],
): ...
CONSTANT: str = "a"
PAIR = ("a", "b")
CALLED = call()
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("package")
    (folder / "read_only").mkdir()
    (folder / "read_only" / "__init__.py").write_text("from .parts import plain as again\n")
    (folder / "read_only" / "parts.py").write_text(MODULE)
    (folder / "read_only" / "sibling.py").write_text(
        "class Elsewhere:\n    def __init__(self, a: int, b: int = 0): ...\n"
    )
    (folder / "read_only" / "torn.py").write_text("def (")
    sys.path.insert(0, str(folder))
    yield "read_only"
    sys.path.remove(str(folder))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("parts.plain", {"a": True, "b": False, "c": True, "d": False, "**": True}),
        ("again", {"a": True, "b": False, "c": True, "d": False, "**": True}),
        ("parts.cached", {"a": True}),
        ("parts.decorated", None),
        ("parts.Empty", {}),
        ("parts.Child", {"a": True, "b": False}),
        ("parts.Renamed", {"a": True, "b": False}),
        ("parts.Meta", None),
        ("parts.Fresh", None),
        ("parts.Unknown", None),
        ("parts.Itself", None),
        ("parts.Made.of", {"a": True}),
        ("parts.Made.bare", {"a": True}),
        ("parts.Nested.Inner", {"a": True}),
        ("parts.nothing", None),
        ("nothing.at_all", None),
        ("torn.anything", None),
    ],
)
def test_signatures(package: str, name: str, parameters: dict[str, bool] | None) -> None:
    found = signatures.read_signature(f"{package}.{name}")
    if parameters is None:
        assert found is None
        return
    assert found is not None
    read = {name: parameter.required for name, parameter in found.parameters.items()}
    assert read | ({"**": True} if found.open else {}) == parameters


def test_annotations(package: str) -> None:
    found = signatures.read_signature(f"{package}.parts.forms")
    assert found is not None
    assert {name: parameter.rule for name, parameter in found.parameters.items()} == {
        "a": Rule(("int", "str"), optional=True),
        "b": Rule(("str", "int"), choices=("x", 2), optional=True),
        "c": None,
        "d": Rule(("int",)),
        "e": Rule(("list",)),
        "f": Rule(("map",)),
        "g": Rule((), optional=True),
        "h": Rule(("int", "list")),
        "i": Rule(("int",)),
        "j": None,
        "k": Rule(("float",), Range(low=-1, below=8)),
    }


def test_constants(package: str) -> None:
    assert signatures.read_constant(f"{package}.parts", "CONSTANT") == "a"
    assert signatures.read_constant(f"{package}.parts", "PAIR") == ("a", "b")
    assert signatures.read_constant(f"{package}.parts", "CALLED") is None
    assert signatures.read_constant(f"{package}.parts", "ABSENT") is None
    assert signatures.read_constant("nothing.at_all", "ABSENT") is None
    assert f"{package}.parts" not in sys.modules
    importlib.invalidate_caches()


@pytest.mark.parametrize(
    ("rule", "right", "wrong", "text"),
    [
        (Rule(("int",), Range(low=1)), [1, 2], [0, 1.0, True, None, "1"], "a whole number, at least 1"),
        (Rule(("float",), Range(above=0, below=1)), [0.5], [0, 1, 1.0, float("inf")], "a number, above 0 and below 1"),
        (
            Rule(("int",), Range(low=1, also=(-1,)), optional=True),
            [-1, 1, None],
            [0],
            "a whole number, at least 1 or -1 or null",
        ),
        (Rule((), optional=True), [None], [0, "", False], "null"),
        (Rule(("str",), choices=("a", "b")), ["a"], ["c", None], "a or b"),
        (Rule(("list",)), [[], (1,)], [{}, "a"], "a list"),
        (Rule(("map",)), [{}], [[], None], "a mapping"),
    ],
)
def test_rules(rule: Rule, right: list[Any], wrong: list[Any], text: str) -> None:
    assert [check_value(value, rule) for value in right] == [""] * len(right)
    assert all(check_value(value, rule) for value in wrong)
    assert describe_rule(rule) == text
