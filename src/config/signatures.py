"""The settings that a class or function takes, read from its source: what it names is never imported.

So `config` knows the types and ranges of a model or data set without the seconds that importing torch takes. What cannot
be read from the syntax (compiled modules, unknown decorators or base classes) has no signature here; `trainers.build`
binds that once it is imported. An annotation of another form than int, float, str, bool, None, Literal, Annotated with
Range or Keys, Mapping, Sequence and unions of these accepts everything.
"""

import ast
import functools
import importlib.util
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from config.messages import suggest_name
from config.ranges import Keys, Range, Rule

_SCALARS = ("int", "float", "str", "bool")
_MAPPINGS = ("Mapping", "dict", "Dict")
_SEQUENCES = ("Sequence", "list", "List", "tuple", "Tuple")
# Decorators that leave a function's arguments as they are.
_TRANSPARENT = ("cache", "lru_cache", "contextmanager", "staticmethod", "classmethod", "override", "final")
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_LONGEST = 5  # re-exports that are followed from module to module


@dataclass(frozen=True)
class Parameter:
    """An argument.

    Attributes:
        rule: its values; None where its annotation accepts everything.
        required: whether it has no default.
    """

    rule: Rule | None = None
    required: bool = False


@dataclass(frozen=True)
class Signature:
    """The arguments of a class or function.

    Attributes:
        parameters: by name, those that can be given by keyword.
        open: whether it takes any others, too (`**kwargs`).
    """

    parameters: Mapping[str, Parameter]
    open: bool = False


@dataclass(frozen=True)
class _Module:
    """A module's file and syntax."""

    name: str
    path: Path
    tree: ast.Module


def read_signature(target: str) -> Signature | None:
    """The signature of a class or function.

    Args:
        target: dotted name, as in `_target_`.

    Returns:
        None where it cannot be read from the syntax.
    """
    return _read(target, tuple(sys.path))


def read_constant(module: str, name: str) -> Any:
    """A constant of a module, assigned at its top level as a literal; None where there is none."""
    found = _module(module, tuple(sys.path))
    for node in found.tree.body if found else ():
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        names = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(each, ast.Name) and each.id == name for each in names):
            try:
                return ast.literal_eval(node.value)
            except ValueError:
                return None
    return None


def check_arguments(
    path: str, name: str, signature: Signature, arguments: Iterable[str], given: Iterable[str] = ()
) -> Iterator[str]:
    """What keeps a target from being called with the arguments of its node, in words.

    Args:
        path: of the node, e.g. `model`.
        name: of the target.
        signature: of the target.
        arguments: the node's own.
        given: what is given beside them.
    """
    arguments, parameters = set(arguments), signature.parameters
    if not signature.open:
        for argument in sorted(arguments - set(parameters)):
            yield f"{path}.{argument}: {name} takes no such argument{suggest_name(argument, parameters)}"
    for parameter in sorted(missing_arguments(signature, {*arguments, *given})):
        yield f"{path}: {name} needs {parameter}"


def missing_arguments(signature: Signature, arguments: Iterable[str]) -> list[str]:
    """The required arguments that are not among those given."""
    arguments = set(arguments)
    return [name for name, each in signature.parameters.items() if each.required and name not in arguments]


# -- modules ----------------------------------------------------------------------------------------------------------


@functools.cache
def _module(name: str, search: tuple[str, ...]) -> _Module | None:
    """A module, found without importing it or its packages (importlib.util.find_spec imports the packages).

    Args:
        name: dotted.
        search: sys.path, which the answer depends on.
    """
    words = name.split(".")
    try:
        spec = importlib.util.find_spec(words[0])
    except (ImportError, ValueError):
        return None
    for count in range(2, len(words) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join(words[:count]), list(spec.submodule_search_locations))
    path = spec.origin if spec else None
    if path is None or not path.endswith(".py"):
        return None
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    return _Module(name, Path(path), tree)


@functools.cache
def _read(target: str, search: tuple[str, ...]) -> Signature | None:
    words = target.split(".")
    for count in range(len(words) - 1, 0, -1):  # the longest prefix that is a module
        if module := _module(".".join(words[:count]), search):
            return _member(module, words[count:], search)
    return None


def _member(module: _Module, names: list[str], search: tuple[str, ...], followed: int = 0) -> Signature | None:
    """The signature of a member of a module, or of a class in it."""
    found = _definition(module, names[0], search, followed)
    if found is None:
        return None
    module, node = found
    for name in names[1:]:
        if not isinstance(node, ast.ClassDef):
            return None
        inner = [each for each in node.body if isinstance(each, ast.ClassDef | ast.FunctionDef) and each.name == name]
        if not inner:
            return None
        if isinstance(inner[-1], ast.FunctionDef):
            static = "staticmethod" in [_name(each) for each in inner[-1].decorator_list]
            return _of_function(inner[-1], bound=not static)
        node = inner[-1]
    return _of_function(node) if isinstance(node, ast.FunctionDef) else _of_class(module, node, search)


def _definition(
    module: _Module, name: str, search: tuple[str, ...], followed: int = 0
) -> tuple[_Module, ast.ClassDef | ast.FunctionDef] | None:
    """A class or function at a module's top level, or where the module imports it from."""
    for node in reversed(module.tree.body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
        if not isinstance(node, ast.ImportFrom) or followed >= _LONGEST:
            continue
        for alias in node.names:
            if (alias.asname or alias.name) == name and (origin := _origin(module, node)):
                source = _module(origin, search)
                return _definition(source, alias.name, search, followed + 1) if source else None
    return None


def _origin(module: _Module, node: ast.ImportFrom) -> str:
    """The absolute name of the module that a `from ... import` names."""
    if not node.level:
        return node.module or ""
    package = module.name.split(".")
    up = node.level - (module.path.name == "__init__.py")
    return ".".join([*package[: len(package) - up], *([node.module] if node.module else [])])


# -- classes and functions --------------------------------------------------------------------------------------------


def _of_class(module: _Module, node: ast.ClassDef, search: tuple[str, ...], followed: int = 0) -> Signature | None:
    decorators = [_name(each) for each in node.decorator_list]
    own = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
    if set(decorators) - {"final", "dataclass"} or "__new__" in own or node.keywords or followed >= _LONGEST:
        return None
    if "dataclass" in decorators and "__init__" not in own:
        return _of_dataclass(module, node, search, followed)
    if "__init__" in own:
        return _of_function(own["__init__"], bound=True)
    if not node.bases:
        return Signature({})
    return _of_base(module, node.bases[0], search, followed)


def _of_base(module: _Module, node: ast.expr, search: tuple[str, ...], followed: int) -> Signature | None:
    base = _definition(module, node.id, search) if isinstance(node, ast.Name) else None
    return _of_class(base[0], base[1], search, followed + 1) if base and isinstance(base[1], ast.ClassDef) else None


def _of_dataclass(module: _Module, node: ast.ClassDef, search: tuple[str, ...], followed: int) -> Signature | None:
    parameters: dict[str, Parameter] = {}
    for base in reversed(node.bases):
        inherited = _of_base(module, base, search, followed)
        if inherited is None or inherited.open:
            return None
        parameters |= inherited.parameters
    for field in node.body:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if _name(field.annotation) in ("ClassVar", "KW_ONLY"):
            continue
        value = field.value
        required = value is None
        if isinstance(value, ast.Call) and _name(value.func) == "field":
            words = {word.arg: word.value for word in value.keywords}
            if isinstance(init := words.get("init"), ast.Constant) and init.value is False:
                continue
            required = not {"default", "default_factory"} & set(words)
        parameters[field.target.id] = Parameter(_rule(field.annotation), required)
    return Signature(parameters)


def _of_function(node: ast.FunctionDef, bound: bool = False) -> Signature | None:
    if {_name(each) for each in node.decorator_list} - set(_TRANSPARENT):
        return None
    own = node.args
    parameters: dict[str, Parameter] = {}
    positional = [*own.posonlyargs, *own.args]
    defaults = [None] * (len(positional) - len(own.defaults)) + list(own.defaults)
    for at, (argument, default) in enumerate(zip(positional, defaults, strict=True)):
        if at == 0 and bound:
            continue
        parameters[argument.arg] = Parameter(_rule(argument.annotation), default is None)
    for argument, default in zip(own.kwonlyargs, own.kw_defaults, strict=True):
        parameters[argument.arg] = Parameter(_rule(argument.annotation), default is None)
    return Signature(parameters, open=own.kwarg is not None)


# -- annotations ------------------------------------------------------------------------------------------------------


def _rule(node: ast.expr | None) -> Rule | None:
    """The rule that an annotation states; None for one that accepts everything."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            node = ast.parse(node.value, mode="eval").body
        except SyntaxError:
            return None
    if isinstance(node, ast.Constant) and node.value is None:
        return Rule((), optional=True)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union(_rule(node.left), _rule(node.right))
    name = _name(node)
    if isinstance(node, ast.Subscript):
        arguments = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Literal":
            return _literal(arguments)
        if name == "Annotated":
            return _annotated(_rule(arguments[0]), arguments[1:])
    elif name in _SCALARS:
        return Rule((name,))
    if name in _MAPPINGS:
        return Rule(("map",))
    return Rule(("list",)) if name in _SEQUENCES else None


def _union(left: Rule | None, right: Rule | None) -> Rule | None:
    """Either of two: with one range, choices or keys between them, as more could not be said in one rule."""
    if left is None or right is None:
        return None
    if not left.types or not right.types:  # null alone
        return replace(left if left.types else right, optional=True)
    if left.choices or right.choices or Range() not in (left.range, right.range) or (left.keys and right.keys):
        return None
    return Rule(
        tuple(dict.fromkeys((*left.types, *right.types))),
        left.range if left.range != Range() else right.range,
        optional=left.optional or right.optional,
        keys=left.keys or right.keys,
    )


def _literal(values: list[ast.expr]) -> Rule | None:
    try:
        choices = [ast.literal_eval(value) for value in values]
    except ValueError:
        return None
    chosen = tuple(choice for choice in choices if choice is not None)
    types = tuple(dict.fromkeys(type(choice).__name__ for choice in chosen))
    return Rule(types, choices=chosen, optional=None in choices) if set(types) <= set(_SCALARS) else None


def _annotated(rule: Rule | None, metadata: list[ast.expr]) -> Rule | None:
    if rule is None:
        return None
    for node in metadata:
        if not isinstance(node, ast.Call) or _name(node.func) not in ("Range", "Keys"):
            continue
        try:
            positional = [_value(value) for value in node.args]
            words = {str(word.arg): _value(word.value) for word in node.keywords}
            if _name(node.func) == "Range":
                rule = replace(rule, range=Range(*positional, **words))
            else:
                rule = replace(rule, keys=Keys(*positional, **words))
        except (ValueError, TypeError):
            return None
    return rule


def _value(node: ast.expr) -> Any:
    """A literal, or arithmetic on numbers such as 2**32 - 1.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = _value(node.left), _value(node.right)
        if isinstance(left, int | float) and isinstance(right, int | float) and abs(right) < 1000:
            return _ARITHMETIC[type(node.op)](left, right)
    return ast.literal_eval(node)


def _name(node: ast.AST | None) -> str:
    """The last word of a name: `Annotated` of `typing.Annotated[int, ...]` or `dataclass` of `@dataclass(frozen=True)`."""
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    if isinstance(node, ast.Call):
        return _name(node.func)
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
