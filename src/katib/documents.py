"""YAML as the Kubernetes API server will read it, with the line of every value."""

import json
import re
import sys
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from config.errors import InputError

YamlPath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Numbers as Go's YAML sees them: `1e-5` is one (PyYAML would make it text), a date is text."""


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
    """One document of a file.

    Attributes:
        file: as it was given; `-` is standard input.
        value: mappings, lists, texts, numbers.
        lines: line (from 1) of each place in it.
        repeated: places whose key occurs twice; YAML keeps the last.
    """

    file: str
    value: Any
    lines: dict[YamlPath, int] = field(repr=False)
    repeated: tuple[YamlPath, ...] = ()

    def line(self, place: YamlPath) -> int:
        """The line of a place, or of what should hold it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read(file: str) -> list[Document]:
    """Reads all documents of a YAML or JSON file.

    Args:
        file: its path; `-` reads standard input.

    Raises:
        InputError: no such file, or no YAML; with the line.
    """
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not text in UTF-8") from error
    return parse(text, file)


def parse(text: str, file: str) -> list[Document]:
    """As `read`, from text."""
    found = []
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            lines: dict[YamlPath, int] = {}
            repeated: list[YamlPath] = []
            _walk(node, (), lines, repeated)
            value = loader.construct_document(node)
            if value is not None:
                found.append(Document(file, value, lines, tuple(repeated)))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else file
        raise InputError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{file}: not YAML: {error}") from error
    return found


def written(place: YamlPath) -> str:
    """`spec.parameters[0].feasibleSpace.min`."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[\w-]+", str(part)):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(str(part))}]"
    return text


def _walk(node: yaml.Node, place: YamlPath, lines: dict[YamlPath, int], repeated: list[YamlPath]) -> None:
    # A block value of a key begins one line below it; the key's line is the one to show.
    lines.setdefault(place, node.start_mark.line + 1)
    for part, key, child in _children(node):
        inner = (*place, part)
        if inner in lines:
            repeated.append(inner)
        lines[inner] = (key or child).start_mark.line + 1
        _walk(child, inner, lines, repeated)


def _children(node: yaml.Node) -> Iterator[tuple[str | int, yaml.Node | None, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            name: Hashable = key.value
            yield str(name), key, child
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield index, None, child
