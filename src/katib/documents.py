"""YAML documents as the Kubernetes API server reads them, with the line of every value."""

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from config.errors import InputError

YamlPath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Loader with the numbers of Go's YAML: `1e-5` is a number (a string in PyYAML), a date is a string."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)$"),
    list("-+.0123456789"),
)


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
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not text in UTF-8") from error
    return parse(text, file)


def parse(text: str, file: str) -> list[Document]:
    """Parse all documents of a text; see `read`."""
    documents = []
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            lines: dict[YamlPath, int] = {}
            repeated: list[YamlPath] = []
            _collect_lines(node, (), lines, repeated)
            value = loader.construct_document(node)
            if value is not None:
                documents.append(Document(file, value, lines, tuple(repeated)))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        location = f"{file}:{mark.line + 1}" if mark else file
        raise InputError(f"{location}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    except (ValueError, TypeError, RecursionError) as error:
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


def _collect_lines(node: yaml.Node, path: YamlPath, lines: dict[YamlPath, int], repeated: list[YamlPath]) -> None:
    # A block value of a key begins one line below its key; the key's line is the one to show.
    lines.setdefault(path, node.start_mark.line + 1)
    children: list[tuple[str | int, yaml.Node, yaml.Node]] = []  # part of the path, node with the line, value
    if isinstance(node, yaml.MappingNode):
        children = [(str(key.value), key, child) for key, child in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = [(index, child, child) for index, child in enumerate(node.value)]
    for part, line_node, child in children:
        child_path = (*path, part)
        if child_path in lines:
            repeated.append(child_path)
        lines[child_path] = line_node.start_mark.line + 1
        _collect_lines(child, child_path, lines, repeated)
