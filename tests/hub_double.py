"""A stand-in for the Hugging Face Hub on loopback, for the real clients: huggingface_hub, transformers, timm.

`with HubDouble() as hub: hub.add("model", "google-bert/bert-base-uncased", folder)` serves the folder under
that name at `hub.url`; clients find it through `HF_ENDPOINT` (`hub.environment(home)`). It speaks the part of
the Hub's protocol that downloading needs: repository information, trees, paths-info, and `resolve` with the
Hub's own headers. Large files answer as the Hub's do, with a redirect to a content server of another origin.

The functions below it write tiny repositories in the layouts of the real ones.
"""

import email.utils
import hashlib
import io
import json
import random
import re
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

# The revisions that conf/data/*.yaml pin.
SQUAD_REVISION = "7b6d24c440a36b6815f21b70d25016731768db1f"
TINY_IMAGENET_REVISION = "5a77092c28e51558c5586e9c5eb71a7e17a5e43f"

# Kept in large-file storage by the real Hub, so served by redirect.
_LARGE = {".safetensors", ".parquet", ".bin"}


class Repository(NamedTuple):
    """One served repository: what it is called, where its files lie, and its only commit."""

    kind: str
    name: str
    folder: Path
    commit: str

    def files(self) -> list[str]:
        """Relative names of all files, sorted."""
        return sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())


class HubDouble:
    """A Hub on 127.0.0.1, as a context manager. `requests` lists what was asked for, as (method, path)."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[tuple[str, str]] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def add(self, kind: str, name: str, folder: Path, commit: str | None = None) -> Repository:
        """Serves a folder as a repository of a kind ("model" or "dataset"); `main` is its one commit."""
        commit = commit or hashlib.sha1(f"{kind} {name}".encode()).hexdigest()
        repository = Repository(kind, name, folder, commit)
        self.repositories[kind, name] = repository
        return repository

    def environment(self, home: Path) -> dict[str, str]:
        """Environment variables that send a process's Hub clients here, with `home` as their cache."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

    def __enter__(self) -> "HubDouble":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubDouble
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Quiet: the tests read `requests`."""

    def _route(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(address.path)
        query = urllib.parse.parse_qs(address.query)
        self.hub.requests.append((self.command, path))
        if path.startswith("/content/"):
            return self._content(path.removeprefix("/content/"))
        if path.startswith("/api/"):
            return self._api(path, query, urllib.parse.parse_qs(body.decode("utf-8", "replace")))
        match = re.fullmatch(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)", path)
        if match:
            return self._resolve("dataset" if match[1] else "model", match[2], match[3], match[4])
        return self._send(200 if path == "/" else 404, b"", {})

    def _api(self, path: str, query: dict[str, list[str]], form: dict[str, list[str]]) -> None:
        match = re.fullmatch(
            r"/api/(models|datasets)/([^/]+(?:/[^/]+)?)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?",
            path,
        )
        if not match:
            return self._send(404, b"", {})
        kind, name, what, revision, inner = (
            match[1].removesuffix("s"),
            match[2],
            match[3],
            match[4] or "main",
            match[5],
        )
        repository = self._find(kind, name, revision)
        if repository is None:
            return None
        if what == "tree":
            return self._tree(
                repository, (inner or "").strip("/"), query.get("recursive", ["false"])[0].lower() == "true"
            )
        if what == "paths-info":
            wanted = [p for p in form.get("paths", []) if p in repository.files()]
            return self._json([_describe(repository, p) for p in wanted])
        return self._json(
            {
                "_id": repository.commit[:24],
                "id": repository.name,
                repository.kind + "Id": repository.name,
                "author": repository.name.split("/")[0],
                "sha": repository.commit,
                "private": False,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "lastModified": "2024-01-01T00:00:00.000Z",
                "createdAt": "2024-01-01T00:00:00.000Z",
                "siblings": [{"rfilename": p} for p in repository.files()],
            }
        )

    def _tree(self, repository: Repository, under: str, recursive: bool) -> None:
        files = repository.files()
        prefix = under + "/" if under else ""
        inside = [p for p in files if p.startswith(prefix)]
        if not inside:
            return self._missing("EntryNotFound", f'{under} does not exist on "main"', repository)
        folders = {"/".join(p.split("/")[:n]) for p in inside for n in range(1, p.count("/") + 1)} - {under}
        rows = [
            {"type": "directory", "oid": hashlib.sha1(f.encode()).hexdigest(), "size": 0, "path": f}
            for f in sorted(folders)
            if f.startswith(prefix)
        ]
        rows += [_describe(repository, p) for p in inside]
        return self._json([r for r in rows if recursive or "/" not in str(r["path"])[len(prefix) :]])

    def _resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        repository = self._find(kind, name, revision)
        if repository is None:
            return None
        if path not in repository.files():
            return self._missing("EntryNotFound", "Entry not found", repository)
        file = repository.folder / path
        common = {"X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        if file.suffix not in _LARGE:
            return self._bytes(file.read_bytes(), {**common, "ETag": f'"{_blob(file)}"'})
        # The real one redirects to a content network. `localhost` is another origin than `127.0.0.1`.
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return self._send(
            302,
            b"Found. Redirecting",
            {
                **common,
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(file.stat().st_size),
                "ETag": f'"{_blob(file)}"',
                "Location": f"http://localhost:{self.hub.port}/content/{digest}",
            },
        )

    def _content(self, digest: str) -> None:
        for repository in list(self.hub.repositories.values()):
            for path in repository.files():
                file = repository.folder / path
                if file.suffix in _LARGE and hashlib.sha256(file.read_bytes()).hexdigest() == digest:
                    return self._bytes(file.read_bytes(), {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"})
        return self._send(404, b"", {})

    def _find(self, kind: str, name: str, revision: str) -> Repository | None:
        repository = self.hub.repositories.get((kind, name))
        if repository is None:
            # What the real one says to somebody who is not logged in.
            self._missing("RepoNotFound", "Repository not found", None, status=401)
            return None
        if revision not in ("main", repository.commit):
            self._missing("RevisionNotFound", f"Invalid rev id: {revision}", repository)
            return None
        return repository

    def _missing(self, code: str, message: str, repository: Repository | None, status: int = 404) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        if repository is not None and code == "EntryNotFound":
            headers["X-Repo-Commit"] = repository.commit
        self._send(status, json.dumps({"error": message}).encode(), {**headers, "Content-Type": "application/json"})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json; charset=utf-8"})

    def _bytes(self, content: bytes, headers: dict[str, str]) -> None:
        headers = {"Content-Type": "application/octet-stream", **headers}
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not match or not (match[1] or match[2]):
            return self._send(200, content, headers)
        size = len(content)
        first = int(match[1]) if match[1] else max(size - int(match[2]), 0)
        last = min(int(match[2]), size - 1) if match[1] and match[2] else size - 1
        if first > last:
            return self._send(416, b"", {"Content-Range": f"bytes */{size}"})
        return self._send(206, content[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{size}"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return email.utils.formatdate(timestamp if timestamp is not None else time.time(), usegmt=True)


def _blob(file: Path) -> str:
    """The id git gives the file's content, which is the Hub's ETag of a small file."""
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _describe(repository: Repository, path: str) -> dict[str, Any]:
    file = repository.folder / path
    row: dict[str, Any] = {"type": "file", "oid": _blob(file), "size": file.stat().st_size, "path": path}
    if file.suffix in _LARGE:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        row["lfs"] = {"oid": digest, "size": file.stat().st_size, "pointerSize": 134}
    return row


# Tiny repositories, in the layouts of the real ones.

_CREATURES = ["heron", "otter", "badger", "falcon", "lynx", "beaver", "marten", "osprey"]
_PLACES = ["Avon", "Calder", "Derwent", "Exe", "Forth", "Kennet", "Severn", "Tamar"]
_YEARS = list(range(1801, 1999, 11))


def vocabulary() -> list[str]:
    """A WordPiece vocabulary that spells anything in lower-case ASCII: special tokens, words, letters."""
    words = sorted(
        {w.lower() for w in [*_CREATURES, *_PLACES]}
        | {
            "the",
            "was",
            "seen",
            "near",
            "river",
            "in",
            "which",
            "where",
            "when",
            "animal",
            "year",
            "of",
            "by",
        }
    )
    symbols = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    return [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *symbols,
        *words,
        *[f"##{s}" for s in symbols if s.isalnum()],
    ]


def write_encoder(folder: Path, kind: str = "bert", seed: int = 0) -> Path:
    """Writes a masked language model, 2 layers, 32 wide, with its tokenizer: the Hub's `bert-base-uncased`.

    Args:
        folder: where to; made if need be.
        kind: "bert" or "distilbert".
        seed: of the random weights.
    """
    import torch
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        BertTokenizerFast,
        DistilBertConfig,
        DistilBertForMaskedLM,
    )

    folder.mkdir(parents=True, exist_ok=True)
    vocab = vocabulary()
    torch.manual_seed(seed)
    if kind == "bert":
        config = BertConfig(
            vocab_size=len(vocab),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=512,
        )
        model = BertForMaskedLM(config)
    else:
        model = DistilBertForMaskedLM(
            DistilBertConfig(
                vocab_size=len(vocab),
                dim=32,
                n_layers=2,
                n_heads=2,
                hidden_dim=64,
                max_position_embeddings=512,
            )
        )
    model.save_pretrained(folder)
    BertTokenizerFast(
        vocab={t: i for i, t in enumerate(vocab)}, do_lower_case=True, model_max_length=512
    ).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA tiny model.\n", encoding="utf-8")
    return folder


def write_squad(folder: Path, train: int = 24, val: int = 12, seed: int = 0) -> Path:
    """Writes generated questions as the Hub has `rajpurkar/squad`: `plain_text/train-….parquet`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("id", pa.string()),
            ("title", pa.string()),
            ("context", pa.string()),
            ("question", pa.string()),
            ("answers", pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))])),
        ]
    )
    (folder / "plain_text").mkdir(parents=True, exist_ok=True)
    generator = random.Random(seed)
    for split, count in (("train", train), ("validation", val)):
        rows = [_question(generator, f"{split}-{i:04d}", answers=1 if split == "train" else 3) for i in range(count)]
        pq.write_table(
            pa.Table.from_pylist(rows, schema=schema),
            folder / "plain_text" / f"{split}-00000-of-00001.parquet",
        )
    (folder / "README.md").write_text("---\nlicense: cc-by-sa-4.0\n---\nGenerated.\n", encoding="utf-8")
    return folder


def _question(generator: random.Random, name: str, answers: int) -> dict[str, Any]:
    facts = [
        (generator.choice(_YEARS), creature, place)
        for creature, place in zip(generator.sample(_CREATURES, 4), generator.sample(_PLACES, 4), strict=True)
    ]
    context = " ".join(f"In {year} the {creature} was seen near the river {place}." for year, creature, place in facts)
    _, creature, place = generator.choice(facts)
    question, answer = generator.choice(
        [
            (f"Where was the {creature} seen?", place),
            (f"Which animal was seen near the river {place}?", creature),
        ]
    )
    start = re.search(rf"\b{answer}\b", context).start()  # type: ignore[union-attr]
    return {
        "id": name,
        "title": "Rivers",
        "context": context,
        "question": question,
        "answers": {"text": [answer] * answers, "answer_start": [start] * answers},
    }


def write_tiny_imagenet(folder: Path, classes: int = 4, train: int = 6, val: int = 3, seed: int = 0) -> Path:
    """Writes coloured squares as the Hub has `zh-plus/tiny-imagenet`: `data/{train,valid}-….parquet`.

    JPEG of 64 px; `train` and `val` count images per class. One image of each class and split is greyscale,
    as some of the real ones are.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    names = [f"n{1443537 + 1000 * c:08d}" for c in range(classes)]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={b"huggingface": json.dumps({"info": {"features": features}}).encode()},
    )
    (folder / "data").mkdir(parents=True, exist_ok=True)
    generator = random.Random(seed)
    files = (("train", "1359597a978bc4fa", train), ("valid", "70d52db3c749a935", val))  # the real names
    for split, mark, count in files:
        rows = []
        for label in range(classes):
            for i in range(count):
                shade = tuple(min(255, generator.randrange(40) + 215 * (label >> bit & 1)) for bit in range(3))
                picture = Image.new("RGB", (64, 64), shade)
                out = io.BytesIO()
                (picture.convert("L") if i == 0 else picture).save(out, "JPEG")
                rows.append({"image": {"bytes": out.getvalue(), "path": None}, "label": label})
        generator.shuffle(rows)
        pq.write_table(
            pa.Table.from_pylist(rows, schema=schema),
            folder / "data" / f"{split}-00000-of-00001-{mark}.parquet",
        )
    (folder / "README.md").write_text("---\nlicense: mit\n---\nGenerated.\n", encoding="utf-8")
    return folder


def write_timm(folder: Path, name: str = "resnet18", tag: str = "a1_in1k", seed: int = 0) -> Path:
    """Writes random weights of a timm model, in half precision, as the Hub has `timm/resnet18.a1_in1k`."""
    import timm
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = timm.create_model(name)
    weights = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    pretrained = {k: v for k, v in model.pretrained_cfg.items() if k not in ("url", "file", "state_dict", "hf_hub_id")}
    config = {
        "architecture": name,
        "num_classes": 1000,
        "num_features": model.num_features,
        "pretrained_cfg": {**pretrained, "tag": tag},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=list), encoding="utf-8")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlibrary_name: timm\n---\n", encoding="utf-8")
    return folder
