"""What the commands of the documentation need: files of a user, saved runs, repositories of the Hub, and tools.

`write_files` makes everything once; a page gets copies of what it names (tests/test_docs_commands.py).
"""

import csv
import json
import shutil
import sys
from pathlib import Path

from tests import made_runs
from tests.hub_double import HubDouble, write_encoder, write_squad, write_timm, write_tiny_imagenet

from datamodules.samples import shapes, squad_sample, topics

# Paths that pages name; a page gets a copy of each that occurs in its text.
QUESTIONS = ("my/questions", "my/folder", "new/questions")
IMAGES = ("my/images", "new/images")
RUNS = ("outputs/a", "outputs/b", "outputs/2026-11-21/10-00-00", "outputs/2026-11-20/23-28-01")
PATHS = (
    *QUESTIONS, *IMAGES, *RUNS, "my/questions.csv", "my/texts", "my/photos", "a.jsonl", "b.jsonl", "questions.jsonl",
    "my/scans", "my/films", "picture.jpg", "multirun/old", "multirun/new",
)  # fmt: skip
# Models and data sets of the Hub, whose tiny doubles are served.
ENCODERS = ("google-bert/bert-base-uncased", "microsoft/deberta-v3-small", "their/model")

# `python` starts a process of tests/warm.py for our commands, which have imported torch there already.
PYTHON = """#!{python} -IS
import json, os, re, signal, socket, sys
words = sys.argv[1:]
if words[:1] != ["train.py"] and not (words[:1] == ["-m"] and os.path.isdir("{root}/src/" + words[1])):
    os.execv("{python}", ["{python}", *words])
if words[0] == "train.py":
    words[0] = os.path.realpath("train.py")
connection = socket.socket(socket.AF_UNIX)
connection.connect("{warm}")
streams = {{"stdout": f"/proc/{{os.getpid()}}/fd/1", "stderr": f"/proc/{{os.getpid()}}/fd/2"}}
asked = {{"arguments": words, "folder": os.getcwd(), "environment": dict(os.environ), **streams}}
connection.sendall(json.dumps(asked).encode() + b"\\n")
answers = connection.makefile()
child = int(answers.readline())
signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
code = int(answers.readline())
sys.exit(code if code >= 0 else 128 - code)
"""

# `docker` without containers: the arguments of a build are declared, and a container's command is run here.
DOCKER = """#!/usr/bin/env bash
set -eu
case $1 in
build)
  for word; do
    if [[ $word =~ ^([A-Z]+)=.+$ ]]; then grep -q "^ARG ${BASH_REMATCH[1]}\\b" Dockerfile; fi
  done ;;
run)
  while [[ $1 != isotrain:* ]]; do shift; done
  exec "${@:2}" ;;
compose)
  [[ $2 == down ]] && exit
  words=("${@:3}"); while [[ ${words[0]} == --* ]]; do words=("${words[@]:1}"); done
  grep -q "^  ${words[0]}:$" docker-compose.yml
  if [[ $2 == run ]]; then exec python train.py "${words[@]:1}"; fi ;;
*) exit 1 ;;
esac
"""


def write_tools(folder: Path, warm: Path, root: Path) -> Path:
    """Writes the programs `python` and `docker` into a folder that is put first on the PATH."""
    folder.mkdir()
    (folder / "python").write_text(PYTHON.format(python=sys.executable, warm=warm, root=root))
    (folder / "docker").write_text(DOCKER)
    for tool in folder.iterdir():
        tool.chmod(0o755)
    return folder


def serve_repositories(hub: HubDouble, folder: Path) -> None:
    """Adds tiny repositories under the names that conf/ and the pages have."""
    import yaml

    encoder = write_encoder(folder / "encoder")
    for name in ENCODERS:
        hub.add("model", name, encoder)
    hub.add("model", "distilbert/distilbert-base-uncased", write_encoder(folder / "distilbert", "distilbert"))
    hub.add("model", "timm/resnet10t.c3_in1k", write_timm(folder / "resnet10t", "resnet10t", "c3_in1k"))
    written = {
        "squad": write_squad(folder / "squad"),
        "tiny_imagenet": write_tiny_imagenet(folder / "images"),
        "imdb": write_reviews(folder / "imdb", ["neg", "pos"]),
        "ag_news": write_reviews(folder / "ag_news", ["World", "Sports", "Business", "Sci/Tech"]),
    }
    root = Path(__file__).resolve().parents[1]
    for name, where in written.items():
        settings = yaml.safe_load((root / "conf" / "data" / f"{name}.yaml").read_text(encoding="utf-8"))["hub"]
        if name in ("imdb", "ag_news"):
            for split in ("train", "val"):
                (where / settings[split]).parent.mkdir(exist_ok=True)
                (where / f"{split}.parquet").rename(where / settings[split])
        hub.add("dataset", settings["repo"], where, settings["revision"])


def write_reviews(folder: Path, classes: list[str]) -> Path:
    """Writes texts and labels as the Hub has them, `train.parquet` and `val.parquet`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"label": {"names": classes, "_type": "ClassLabel"}, "text": {"dtype": "string", "_type": "Value"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    schema = pa.schema([("text", pa.string()), ("label", pa.int64())], metadata=metadata)
    folder.mkdir()
    topics.write(folder, seed=0, train=32, val=16, classes=len(classes))
    for split in ("train", "val"):
        source = folder / f"{split}.jsonl"
        rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
        names = sorted({row["label"] for row in rows})
        table = [{"text": row["text"], "label": names.index(row["label"])} for row in rows]
        pq.write_table(pa.Table.from_pylist(table, schema=schema), folder / f"{split}.parquet")
        source.unlink()
    return folder


def write_files(folder: Path) -> None:
    """Makes what `PATHS` names, but for runs that are trained."""
    for seed, name in enumerate(QUESTIONS):
        squad_sample.write(folder / name, seed, train=96, val=48)
    for seed, name in enumerate(IMAGES):
        (folder / name).mkdir(parents=True)
        shapes.write(folder / name, seed, train=48, val=24)
    shutil.copytree(folder / "my/images/train", folder / "my/photos")
    for number, file in enumerate(sorted((folder / "my/photos").rglob("*.JPEG"))):
        for name in (
            f"my/scans/{'sick' if number % 2 else 'well'}/patient{number // 4}_{number}.jpg",
            f"my/films/{'cat' if number % 2 else 'dog'}/film{number // 4}/{number}.jpg",
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / name)
    shutil.copy(file, folder / "picture.jpg")
    for name in QUESTIONS[1:2]:  # tables, with the columns of both examples
        for part in ("train", "dev"):
            source = folder / name / f"{part}-v1.1.json"
            rows = [
                {"question": q["question"], "context": p["context"], "answer": q["answers"][0]["text"]}
                for a in json.loads(source.read_text(encoding="utf-8"))["data"]
                for p in a["paragraphs"]
                for q in p["qas"]
            ]  # fmt: skip
            source.unlink()
            others = {"question": "q", "context": "passage", "answer": "a"}
            with (folder / name / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, [*rows[0], *others.values()])
                writer.writeheader()
                writer.writerows({**row, **{new: row[old] for old, new in others.items()}} for row in rows)
            short = {"train": "a", "dev": "b"}[part]
            (folder / f"{short}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            if part == "train":
                shutil.copy(folder / name / "train.csv", folder / "my/questions.csv")
                asked = [
                    {"id": str(n), "question": row["question"], "context": row["context"]}
                    for n, row in enumerate(rows[:4])
                ]
                (folder / "questions.jsonl").write_text(
                    "".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8"
                )
    topics.write(folder / "my/texts", seed=0, train=64, val=32)
    for file in (folder / "my/texts").iterdir():
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        named = [{**row, "body": row["text"], "topic": row["label"]} for row in lines]
        file.write_text("".join(json.dumps(row) + "\n" for row in named), encoding="utf-8")
    for side, rate in (("old", 0.6), ("new", 0.7)):
        for seed in range(2):
            made_runs.write(folder / "multirun" / side / str(seed), made_runs.questions(60, rate, seed), seed=seed)
