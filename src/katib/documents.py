"""YAML documents as the Kubernetes API server reads them, with the line of every value."""

import contextlib
import json
import math
import re
import sys
from dataclasses import dataclass, field
from typing import Any

import yaml

from config import parsing
from config.errors import InputError
from config.masking import register_secrets

YamlPath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Loader with the scalars of sigs.k8s.io/yaml, which reads YAML by go.yaml.in/yaml/v2 and turns it into JSON.

    `y` and `n` are booleans, `08` and `12.0` are integers, `1e-5` is a number; `10:00:00`, `=`, `<<` and dates are
    strings.
    """

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping whose keys are strings, as in JSON."""
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return {_key_text(key, node.start_mark): value for key, value in mapping.items()}


def _key_text(key: Any, mark: yaml.Mark) -> str:
    if isinstance(key, bool):
        return str(key).lower()
    if not isinstance(key, str | int | float):
        raise yaml.constructor.ConstructorError(None, None, "a key is not a string, a number or a boolean", mark)
    return str(key)


def _construct_number(loader: yaml.SafeLoader, node: yaml.Node) -> int | float | str:
    """Construct a number as Go does: whole numbers are integers, what has more than 64 bits is a float."""
    text = str(node.value).replace("_", "")
    with contextlib.suppress(ValueError):
        octal = re.fullmatch(r"([-+]?)0([0-7]+)", text)
        integer = int(f"{octal[1]}0o{octal[2]}" if octal else text, 0)
        if -(2**63) <= integer < 2**64:
            return integer
    try:
        number = float(text)
    except ValueError:
        return str(node.value)
    if math.isinf(number):
        return str(node.value)
    is_whole = number == int(number) and abs(number) < 1e21  # above, Go writes an exponent
    return int(number) if is_whole else number


def _refuse_infinity(loader: yaml.SafeLoader, node: yaml.Node) -> None:
    message = f"JSON, which Kubernetes makes of it, has no {node.value}; write it in quotes"
    raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)


def _tag(name: str) -> str:
    return f"tag:yaml.org,2002:{name}"


_Loader.yaml_implicit_resolvers = {}
for _name, _expression, _first in (
    ("bool", "y|Y|yes|Yes|YES|true|True|TRUE|on|On|ON|n|N|no|No|NO|false|False|FALSE|off|Off|OFF", "yYnNtTfFoO"),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", "<<", "<"),
    ("infinity", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("int", r"[-+]?0([xX][0-9a-fA-F_]+|[oO][0-7_]+|[bB][01_]+)", "-+0"),
    ("float", r"[-+]?(\.[0-9_]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(_tag(_name), re.compile(rf"^(?:{_expression})$"), list(_first))
_CONSTRUCTORS = {name: getattr(yaml.SafeLoader, f"construct_yaml_{name}") for name in ("bool", "str", "seq", "map")}
_Loader.yaml_constructors = {
    None: yaml.SafeLoader.construct_undefined,
    **{_tag(name): constructor for name, constructor in _CONSTRUCTORS.items()},
    **{_tag(name): _construct_number for name in ("int", "float")},
    **{_tag(name): yaml.SafeLoader.construct_yaml_str for name in ("merge", "value", "timestamp")},
    _tag("null"): yaml.SafeLoader.construct_yaml_null,
    _tag("infinity"): _refuse_infinity,
}
_Loader.bool_values = {**yaml.SafeLoader.bool_values, "y": True, "n": False}


@dataclass(frozen=True)
class Document:
    """One document of a YAML file.

    Attributes:
        file: path as given on the command line; `-` is standard input.
        value: mappings, lists, strings and numbers.
        lines: line (from 1) of each path.
        repeated: paths whose key occurs twice; YAML keeps the last value.
    """

    file: str
    value: Any
    lines: dict[YamlPath, int] = field(repr=False)
    repeated: tuple[YamlPath, ...] = ()

    def line(self, path: YamlPath) -> int:
        """Return the line of a path, or of its nearest existing parent."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read(file: str) -> list[Document]:
    """Read all documents of a YAML or JSON file.

    Args:
        file: its path; `-` reads standard input.

    Raises:
        InputError: the file does not exist or is not valid YAML; the message has the line.
    """
    try:
        text = sys.stdin.read(parsing.MAX_YAML + 1) if file == "-" else parsing.read_text(file)
    except OSError as error:
        raise InputError(f"{file}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not text in UTF-8") from error
    return parse(text, file)


def parse(text: str, file: str) -> list[Document]:
    """Parse all documents of a text; see `read`."""
    documents = []
    try:
        parsing.check_length(text)
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            parsing.check_aliases(node)
            lines: dict[YamlPath, int] = {}
            repeated: list[YamlPath] = []
            _collect_lines(loader, node, (), lines, repeated)
            value = loader.construct_document(node)
            if value is not None:
                register_secrets(value)
                documents.append(Document(file, value, lines, tuple(repeated)))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        location = f"{file}:{mark.line + 1}" if mark else file
        raise InputError(f"{location}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError:
        raise InputError(f"{file}: not valid YAML: nested too deeply") from None
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"{file}: not valid YAML: {error}") from error
    return documents


def format_path(path: YamlPath) -> str:
    """Format a path for people: `spec.parameters[0].feasibleSpace.min`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[\w-]+", str(part)):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(str(part))}]"
    return text


def string_dumper() -> type[yaml.SafeDumper]:
    """Return a dumper that quotes the strings which Kubernetes would read as another type; long lines are folded."""

    class Dumper(yaml.SafeDumper):
        yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

        def ignore_aliases(self, data: Any) -> bool:
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)  # the dashes of a list, too

    def represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = '"' if dumper.resolve(yaml.ScalarNode, text, (True, False)) != _tag("str") else None
        if len(text) > 80 and re.fullmatch(r"\S+( \S+)+", text):
            style = ">"
        return dumper.represent_scalar(_tag("str"), text, style=style)

    def represent_number(dumper: yaml.SafeDumper, number: float) -> yaml.ScalarNode:
        return dumper.represent_scalar(_tag("float"), repr(number))

    Dumper.add_representer(str, represent)
    Dumper.add_representer(int, represent_number)
    Dumper.add_representer(float, represent_number)
    return Dumper


def _collect_lines(
    loader: _Loader, node: yaml.Node, path: YamlPath, lines: dict[YamlPath, int], repeated: list[YamlPath]
) -> None:
    # A block value of a key begins one line below its key; the key's line is the one to show.
    lines.setdefault(path, node.start_mark.line + 1)
    children: list[tuple[str | int, yaml.Node, yaml.Node]] = []  # part of the path, node with the line, value
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            children.append((_key_text(loader.construct_object(key, deep=True), key.start_mark), key, child))
    elif isinstance(node, yaml.SequenceNode):
        children = [(index, child, child) for index, child in enumerate(node.value)]
    for part, line_node, child in children:
        child_path = (*path, part)
        if child_path in lines:
            repeated.append(child_path)
        lines[child_path] = line_node.start_mark.line + 1
        _collect_lines(loader, child, child_path, lines, repeated)
