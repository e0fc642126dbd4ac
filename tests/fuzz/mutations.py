"""Damage to files and values, drawn from a random generator: the same seed gives the same damage."""

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

_DEEP, _LONG = "@deep@", "@long@"
# Texts that a writer of JSON or YAML cannot write.
_RAW = {_DEEP: "[" * 100_000 + "]" * 100_000, _LONG: "7" * 5000}
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        10**400,
        3.5,
        -0.0,
        1e308,
        2**31,
        2**63,
        -(2**63),
        2**70,
        float("nan"),
        float("inf"),
    ),
    *("", " ", "0", "null", "nan", "e" * 300, "é\u202e\0", "\ud800", "../../../../tmp/x", "/etc/hostname", "/dev/null"),
    *(
        "${oc.env:HOME}",
        "${x",
        "<script>alert(1)</script>",
        "'; drop table x; --",
        "https://user@host:x/",
        "{",
        "%s{0}",
    ),
    *([], {}, [[]], [2, 3], {"a": 1}, [None], ["a", 1], {"_target_": "os.system"}, "2026-01-01", "1h", _DEEP, _LONG),
)

NOT_UTF8 = os.fsdecode(b"\xff\xfe")  # name to which an argument's file is moved


def mutate_bytes(content: bytes, generator: random.Random) -> bytes:
    """Return bytes with one to three kinds of damage."""
    data = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 3))):
        size = len(data)
        start = generator.randrange(size + 1)
        length = min(size - start, generator.choice((1, 4, 64, 1024)))
        match generator.randrange(9):
            case 0:
                for _ in range(generator.choice((1, 8, 100)) if size else 0):
                    data[generator.randrange(size)] ^= 1 << generator.randrange(8)
            case 1:
                del data[start:]
            case 2:
                data[start : start + length] = bytes(length)
            case 3:
                data[start : start + length] = b"\xff" * length
            case 4:
                del data[start : start + length]
            case 5:
                data[start:start] = data[start : start + length] * generator.choice((1, 50))
            case 6:
                data[start:start] = generator.randbytes(generator.choice((1, 8, 500)))
            case 7:
                data = bytearray(
                    generator.choice((b"", b"\0", b"\xff\xfe\xfd", b"[", b"null\n", b"PK\x03\x04", b"PAR1PAR1"))
                )
            case _:  # the end holds the directory of archives and tables
                place = max(0, size - generator.randrange(1, 200))
                data[place : place + 8] = generator.randbytes(8)
    return bytes(data)


def _nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container with each key or index of it."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _nodes(value[key])


def mutate_value(value: Any, generator: random.Random) -> Any:
    """Return a value of JSON or YAML with one to three entries replaced, removed, renamed, copied or added."""
    for _ in range(generator.choice((1, 1, 2, 3))):
        nodes = list(_nodes(value))
        if not nodes:
            return generator.choice(VALUES)
        container, key = generator.choice(nodes)
        match generator.randrange(8):
            case 0:
                del container[key]
            case 1 if isinstance(container, dict):
                container[generator.choice(("", "é" * 100, "x", "__class__", str(key).upper()))] = container.pop(key)
            case 2:
                other, name = generator.choice(nodes)
                with contextlib.suppress(KeyError, IndexError):
                    container[key] = json.loads(json.dumps(other[name], default=str))
            case 3 if isinstance(container, list):
                container.extend([container[key]] * generator.choice((1, 3)))
            case 4 if isinstance(container, dict):
                container[generator.choice(("x", "type", "id", "_target_", "name"))] = generator.choice(VALUES)
            case _:
                container[key] = generator.choice(VALUES)
    return value


def _insert_raw(text: str) -> str:
    for name, raw in _RAW.items():
        text = text.replace(f'"{name}"', raw).replace(f"'{name}'", raw).replace(name, raw)
    return text


def mutate_json(content: bytes, generator: random.Random) -> bytes:
    """Return a JSON document, or one of JSON Lines, with damaged values."""
    text = content.decode("utf-8")
    try:
        documents, lines = [json.loads(text)], False
    except ValueError:
        documents, lines = [json.loads(line) for line in text.splitlines() if line.strip()], True
    if lines and documents and generator.randrange(8) == 0:
        documents *= 2
    place = generator.randrange(len(documents)) if documents else None
    if place is not None:
        documents[place] = mutate_value(documents[place], generator)
    texts = (json.dumps(document, indent=None if lines else 1) for document in documents)
    return _insert_raw("\n".join(texts) + "\n").encode("utf-8", "surrogatepass")


def mutate_yaml(content: bytes, generator: random.Random) -> bytes:
    """Return YAML with damaged values, cycles or many aliases."""
    text = content.decode("utf-8")
    if generator.randrange(6) == 0:
        aliases = "".join(
            f"{name}: &{name} [{', '.join(['*' + last] * 9)}]\n"
            for last, name in zip("abcdefgh", "bcdefghi", strict=True)
        )
        parts = (
            "x: &x [*x]\n",
            "x: &x {y: *x}\n",
            f"a: &a [x]\n{aliases}",
            "<<: *nothing\n",
            "? [1, 2]\n: 3\n",
            "x: !!python/object/apply:os.getcwd []\n",
        )
        part = generator.choice(parts)
        lines = text.splitlines(keepends=True)
        spot = generator.randrange(len(lines) + 1)
        return "".join([*lines[:spot], part, *lines[spot:]]).encode()
    comments = [line for line in text.splitlines() if line.startswith("#")]
    documents = [mutate_value(document, generator) for document in yaml.safe_load_all(text)]
    new = "\n".join([*comments, yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=10_000)])
    return _insert_raw(new).encode("utf-8", "surrogatepass")


def mutate_entry(path: Path, generator: random.Random) -> None:
    """Put something else in the place of a file or folder: nothing, a folder, a link, a device, a pipe."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        kinds = ("nothing", "file", "dangling", "loop")
    else:
        path.unlink()
        kinds = ("nothing", "folder", "dangling", "loop", "pipe", "zero", "null", "socket", "empty", "long")
    match generator.choice(kinds):
        case "file" | "empty":
            path.touch()
        case "folder":
            path.mkdir()
        case "dangling":
            path.symlink_to("/nonexistent/file")
        case "loop":
            path.symlink_to(path.name)
        case "pipe":
            os.mkfifo(path)
        case "zero":
            path.symlink_to("/dev/zero")
        case "null":
            path.symlink_to("/dev/null")
        case "socket":
            os.mknod(path, 0o140644)
        case "long":
            path.symlink_to("x" * 255 + "/" + "y" * 255)


def mutate_checkpoint(path: Path, generator: random.Random) -> None:
    """Write a checkpoint of PyTorch, or weights of safetensors, with entries removed, renamed or replaced."""
    import torch
    from safetensors.torch import load_file, save_file

    is_plain = path.suffix == ".safetensors"
    content: Any = load_file(path) if is_plain else torch.load(path, weights_only=True)
    values: list[Any] = [
        torch.zeros(0),
        torch.zeros(3, 3),
        torch.full((1,), torch.nan),
        torch.zeros(1, dtype=torch.int64),
    ]
    for _ in range(generator.choice((1, 1, 2, 10))):
        nodes = [(parent, key) for parent, key in _nodes(content) if isinstance(parent, dict)]
        if not nodes:
            break
        top = [node for node in nodes if node[0] is content]
        parent, key = generator.choice(generator.choice((nodes, top)) or nodes)
        match generator.randrange(4):
            case 0:
                del parent[key]
            case 1:
                parent[f"{key}x"] = parent.pop(key)
            case 2 if isinstance(parent[key], torch.Tensor):
                parent[key] = parent[key] * generator.choice((torch.nan, 1e30, 0))
            case _:
                parent[key] = generator.choice(
                    values if is_plain else values + [v for v in VALUES if not isinstance(v, str) or "\ud800" not in v]
                )
    if is_plain:
        save_file({str(key): value.contiguous().clone() for key, value in content.items()}, path)
    else:
        torch.save(content, path)


def mutate_table(path: Path, generator: random.Random) -> None:
    """Write a Parquet file with junk as its metadata, or columns of other types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    match generator.randrange(4):
        case 0:
            key = generator.choice((b"huggingface", b"pandas", b"ARROW:schema"))
            table = table.replace_schema_metadata(
                {
                    key: generator.choice(
                        (
                            b"",
                            b"junk",
                            b"[]",
                            b"{}",
                            b'{"info": 1}',
                            b'{"info": {"features": {"label": 3}}}',
                            b"\xff",
                            b"[" * 100_000,
                        )
                    )
                }
            )
        case 1:
            name = generator.choice(table.column_names)
            columns = (
                pa.nulls(len(table)),
                pa.array([b"\xff"] * len(table)),
                pa.array([[1]] * len(table)),
                pa.array([1e308] * len(table)),
                pa.array([None, *["x"] * (len(table) - 1)]),
            )
            table = table.set_column(table.column_names.index(name), name, generator.choice(columns))
        case 2:
            table = table.slice(0, generator.choice((0, 1)))
        case _:
            table = table.rename_columns(
                [generator.choice(("text", "label", "id", "x" * 300, "")) for _ in table.column_names]
            )
    pq.write_table(table, path)


def mutate_arguments(arguments: list[str], folder: Path, generator: random.Random) -> str:
    """Replace a path in a command line by one that is no good; return it, or "" if the line has none."""
    places = []
    for number, word in list(enumerate(arguments))[2 if arguments[0] == "-m" else 1 :]:
        key, equals, value = word.rpartition("=")
        is_output = arguments[number - 1] in ("-o", "--output", "--folder") or key == "hydra.run.dir"
        if value and (is_output or (folder / value.removeprefix("./")).exists()) and not value.startswith("-"):
            places.append((number, f"{key}{equals}", value))
    if not places:
        return ""
    number, head, value = generator.choice(places)
    new = folder / "new"
    match generator.randrange(13):
        case 0:
            name = "n" * 300
        case 1:
            name = "/".join(["d" * 200] * 30)
        case 2:
            new.symlink_to("/nonexistent/folder/file")
            name = "new"
        case 3:
            new.symlink_to("new")
            name = "new/x"
        case 4:
            new.symlink_to("new")
            name = "new"
        case 5:
            name = NOT_UTF8
            if (folder / value).exists():
                (folder / value).rename(folder / name)
        case 6:
            new.touch()
            name = "new/below"
        case 7:
            new.write_text("of another program\n")  # as an output, an empty file may be replaced
            name = "new"
        case 8:
            new.mkdir()
            name = "new"
        case 9:
            name = generator.choice(("/dev/full", "/dev/null", "/dev/zero"))
        case 10:
            name = "/proc/isotrain"
        case 11:
            name = "outside/thesis.txt"
        case _:
            name = generator.choice(
                ("nowhere", "s3://nowhere/x", "http://127.0.0.1:9/x", "a b'\"$(x)", "ü/é", "~", ".")
            )
    arguments[number] = f"{head}{name}"
    return arguments[number][:80]


def _is_text(path: Path) -> bool:
    return path.suffix in (".json", ".jsonl", ".yaml", ".yml", ".csv", ".txt")


def mutate_file(path: Path, generator: random.Random) -> str:
    """Damage a file in the way that its format suggests, or any file.

    Returns:
        The name of the damage.
    """
    if generator.randrange(12) == 0 or not path.is_file():
        mutate_entry(path, generator)
        return "entry"
    rewrite = {".ckpt": mutate_checkpoint, ".safetensors": mutate_checkpoint, ".parquet": mutate_table}.get(path.suffix)
    if rewrite is not None and generator.randrange(3):
        rewrite(path, generator)
        return rewrite.__name__.removeprefix("mutate_")
    kinds: list[Callable[[bytes, random.Random], bytes]] = [mutate_bytes]
    kinds += {".json": [mutate_json] * 4, ".jsonl": [mutate_json] * 4, ".yaml": [mutate_yaml] * 4}.get(path.suffix, [])
    kind = generator.choice(kinds)
    content = path.read_bytes()
    try:
        new = kind(content, generator)
    except (ValueError, yaml.YAMLError, IndexError, KeyError, TypeError):
        kind, new = mutate_bytes, mutate_bytes(content, generator)
    path.write_bytes(new)
    return kind.__name__.removeprefix("mutate_")
