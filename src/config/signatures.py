"""Signatures of classes and functions, parsed from their source without importing it.

They tell `config` the types and ranges of the settings of a model or data set without the seconds that importing torch
takes. What the syntax does not tell (compiled modules, unknown decorators or base classes) has no signature here;
`trainers.build` checks it after the import. Annotations are understood if they consist of int, float, str, bool, None,
Literal, Annotated with Range or Keys, Mapping, Sequence and unions of these; any other one accepts every value.
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
# Decorators that do not change the arguments of a function.
_TRANSPARENT = ("cache", "lru_cache", "contextmanager", "staticmethod", "classmethod", "override", "final")
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_MAX_DEPTH = 5  # of re-exports and base classes that are followed from module to module


@dataclass(frozen=True)
class Parameter:
    """An argument of a class or function.

    Attributes:
        rule: Its valid values; None if every value is valid.
        required: Whether it has no default.
    """

    rule: Rule | None = None
    required: bool = False


@dataclass(frozen=True)
class Signature:
    """The arguments of a class or function.

    Attributes:
        parameters: By name.
        open: Whether it also takes any other keyword (`**kwargs`).
    """

    parameters: Mapping[str, Parameter]
    open: bool = False


@dataclass(frozen=True)
class _Module:
    """The file and the syntax tree of a module."""

    name: str
    path: Path
    tree: ast.Module


def read_signature(target: str) -> Signature | None:
    """Return the signature of a class or function; None if the syntax does not tell it.

    Args:
        target: Dotted name, as in `_target_`.
    """
    return _read(target, tuple(sys.path))


def read_constant(module: str, name: str) -> Any:
    """Return the value of a literal that a module assigns to a name at its top level; None if there is none."""
    source = _module(module, tuple(sys.path))
    for node in source.tree.body if source else ():
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            try:
                return ast.literal_eval(node.value)
            except ValueError:
                return None
    return None


def check_arguments(
    path: str, name: str, signature: Signature, arguments: Iterable[str], caller_arguments: Iterable[str] = ()
) -> Iterator[str]:
    """Check that a target can be called with the arguments of its node.

    Args:
        path: Path of the node, e.g. `model`.
        name: Name of the target.
        signature: Signature of the target.
        arguments: Arguments in the node.
        caller_arguments: Arguments that the caller adds.

    Yields:
        Findings.
    """
    arguments, parameters = set(arguments), signature.parameters
    if not signature.open:
        for argument in sorted(arguments - set(parameters)):
            yield f"{path}.{argument}: {name} has no such argument{suggest_name(argument, parameters)}"
    for parameter in sorted(missing_arguments(signature, {*arguments, *caller_arguments})):
        yield f"{path}: {name} requires the argument {parameter}"


def missing_arguments(signature: Signature, arguments: Iterable[str]) -> list[str]:
    """Return the required arguments that are not in `arguments`."""
    arguments = set(arguments)
    return [name for name, item in signature.parameters.items() if item.required and name not in arguments]


# -- modules ----------------------------------------------------------------------------------------------------------


@functools.cache
def _module(name: str, search: tuple[str, ...]) -> _Module | None:
    """Find and parse a module without importing it or its packages, which importlib.util.find_spec would import.

    Args:
        name: Dotted name.
        search: sys.path, as a part of the cache's key.
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


def _member(module: _Module, names: list[str], search: tuple[str, ...]) -> Signature | None:
    """The signature of a member of a module, or of a class in it."""
    definition = _definition(module, names[0], search)
    if definition is None:
        return None
    module, node = definition
    for name in names[1:]:
        if not isinstance(node, ast.ClassDef):
            return None
        members = [item for item in node.body if isinstance(item, ast.ClassDef | ast.FunctionDef) and item.name == name]
        if not members:
            return None
        if isinstance(members[-1], ast.FunctionDef):
            static = "staticmethod" in map(_name, members[-1].decorator_list)
            return _function_signature(members[-1], method=not static)
        node = members[-1]
    return _function_signature(node) if isinstance(node, ast.FunctionDef) else _class_signature(module, node, search)


def _definition(
    module: _Module, name: str, search: tuple[str, ...], depth: int = 0
) -> tuple[_Module, ast.ClassDef | ast.FunctionDef] | None:
    """A class or function at the top level of a module, or of the module from which this one imports it."""
    for node in reversed(module.tree.body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
        if not isinstance(node, ast.ImportFrom) or depth >= _MAX_DEPTH:
            continue
        for alias in node.names:
            if (alias.asname or alias.name) == name and (origin := _origin(module, node)):
                source = _module(origin, search)
                return _definition(source, alias.name, search, depth + 1) if source else None
    return None


def _origin(module: _Module, node: ast.ImportFrom) -> str:
    """The absolute name of the module in a `from ... import`."""
    if not node.level:
        return node.module or ""
    package = module.name.split(".")
    up = node.level - (module.path.name == "__init__.py")
    return ".".join([*package[: len(package) - up], *([node.module] if node.module else [])])


# -- classes and functions --------------------------------------------------------------------------------------------


def _class_signature(module: _Module, node: ast.ClassDef, search: tuple[str, ...], depth: int = 0) -> Signature | None:
    decorators = list(map(_name, node.decorator_list))
    methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
    if set(decorators) - {"final", "dataclass"} or "__new__" in methods or node.keywords or depth >= _MAX_DEPTH:
        return None
    if "dataclass" in decorators and "__init__" not in methods:
        return _dataclass_signature(module, node, search, depth)
    if "__init__" in methods:
        return _function_signature(methods["__init__"], method=True)
    if not node.bases:
        return Signature({})
    return _base_signature(module, node.bases[0], search, depth)


def _base_signature(module: _Module, node: ast.expr, search: tuple[str, ...], depth: int) -> Signature | None:
    base = _definition(module, node.id, search) if isinstance(node, ast.Name) else None
    return _class_signature(base[0], base[1], search, depth + 1) if base and isinstance(base[1], ast.ClassDef) else None


def _dataclass_signature(module: _Module, node: ast.ClassDef, search: tuple[str, ...], depth: int) -> Signature | None:
    parameters: dict[str, Parameter] = {}
    for base in reversed(node.bases):
        inherited = _base_signature(module, base, search, depth)
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
            keywords = {word.arg: word.value for word in value.keywords}
            if isinstance(init := keywords.get("init"), ast.Constant) and init.value is False:
                continue
            required = not {"default", "default_factory"} & set(keywords)
        parameters[field.target.id] = Parameter(_rule(field.annotation), required)
    return Signature(parameters)


def _function_signature(node: ast.FunctionDef, method: bool = False) -> Signature | None:
    if set(map(_name, node.decorator_list)) - set(_TRANSPARENT):
        return None
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = list(zip(positional, defaults, strict=True))[int(method) :]  # a method without self
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    parameters = {item.arg: Parameter(_rule(item.annotation), default is None) for item, default in pairs}
    return Signature(parameters, open=arguments.kwarg is not None)


# -- annotations ------------------------------------------------------------------------------------------------------


def _rule(node: ast.expr | None) -> Rule | None:
    """The rule that an annotation declares; None if it accepts every value."""
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
    """A rule for either of two; None (any value) where one rule cannot express both."""
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


def _literal(nodes: list[ast.expr]) -> Rule | None:
    try:
        choices = [ast.literal_eval(node) for node in nodes]
    except ValueError:
        return None
    values = tuple(choice for choice in choices if choice is not None)
    types = tuple(dict.fromkeys(type(choice).__name__ for choice in values))
    return Rule(types, choices=values, optional=None in choices) if set(types) <= set(_SCALARS) else None


def _annotated(rule: Rule | None, metadata: list[ast.expr]) -> Rule | None:
    if rule is None:
        return None
    for node in metadata:
        if not isinstance(node, ast.Call) or _name(node.func) not in ("Range", "Keys"):
            continue
        try:
            positional = [_value(value) for value in node.args]
            keywords = {str(word.arg): _value(word.value) for word in node.keywords}
            if _name(node.func) == "Range":
                rule = replace(rule, range=Range(*positional, **keywords))
            else:
                rule = replace(rule, keys=Keys(*positional, **keywords))
        except (ValueError, TypeError):
            return None
    return rule


def _value(node: ast.expr) -> Any:
    """The value of a literal, or of arithmetic on numbers such as 2**32 - 1.

    Raises:
        ValueError: It is something else.
    """
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = _value(node.left), _value(node.right)
        if isinstance(left, int | float) and isinstance(right, int | float) and abs(right) < 1000:
            return _ARITHMETIC[type(node.op)](left, right)
    return ast.literal_eval(node)


def _name(node: ast.AST | None) -> str:
    """The last part of a name: `Annotated` in `typing.Annotated[int, ...]`, `dataclass` in `@dataclass(frozen=True)`."""
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    if isinstance(node, ast.Call):
        return _name(node.func)
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
