"""Questions with whole numbers as ids, as those of COVID-QA and GermanQuAD: every command gives each id back as text."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Run

DATA = ("data=squad", "data.path=data")
SETTINGS = (
    *DATA,
    "data.max_length=96",
    "data.stride=16",
    "data.max_query_length=16",
    "data.batch_size=8",
    "model=bert_tiny",
    "model.vocab_size=150",
    "trainer.max_steps=2",
    "trainer.threads=1",
    "logger=none",
    "quality=off",
)
# The largest is more than a 64-bit integer and more than a double counts in ones.
IDS = [262, 7, 0, 2**53 + 1, 2**53 + 2, 10**20, *range(1001, 1011)]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """data/ in COVID-QA's layout: a question in each paragraph; the first paragraph is in both splits."""

    def article(number: int, identity: int) -> dict[str, Any]:
        year = str(1900 + number)
        context = f"the virus {number} was found in year {year} by doctor ada, and in bats of cave {number}."
        question = {
            "question": f"when was the virus {number} found?",
            "id": identity,
            "answers": [{"text": year, "answer_start": context.index(year)}],
            "is_impossible": False,
        }
        return {"paragraphs": [{"qas": [question], "context": context, "document_id": 630 + number}]}

    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name, shift in (("train", 0), ("dev", 50)):
        articles = [article(number + shift * (number > 0), identity) for number, identity in enumerate(IDS)]
        Path(f"data/{name}.json").write_text(json.dumps({"data": articles}))
    return articles


def rows(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def call(run: Run, *arguments: str, code: int = 0) -> str:
    done = run(*arguments)
    assert done.returncode == code, done.stderr
    return done.stdout


def train(run: Run) -> list[dict[str, Any]]:
    """A run in run/; returns its predictions."""
    call(run, "train.py", *SETTINGS, "hydra.run.dir=run")
    return rows("run/predictions.jsonl")


def test_every_command_gives_ids_back_as_text(data: list[dict[str, Any]], run: Run) -> None:
    validation, expected = train(run), list(map(str, IDS))
    assert [row["id"] for row in validation] == expected

    call(run, "-m", "trainers", "evaluate", "run=run", "--output", "again")
    assert rows("again/predictions.jsonl") == validation

    questions = [{"id": number, **paragraph} for number, paragraph in zip(IDS, flat(data), strict=True)]
    Path("questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    for file in ("data/dev.json", "questions.jsonl"):
        predicted = [json.loads(line) for line in call(run, "-m", "trainers", "predict", "run=run", file).splitlines()]
        assert [(row["id"], row["prediction"]) for row in predicted] == [
            (row["id"], row["prediction"]) for row in validation
        ]

    # Predictions of another program may have the numbers themselves.
    shutil.copytree("run", "other")
    lines = [json.dumps({**row, "id": int(row["id"])}) + "\n" for row in reversed(validation)]
    Path("other/predictions.jsonl").write_text("".join(lines))
    comparison = json.loads(call(run, "-m", "runs", "compare", "run", "other", "--json"))
    assert comparison["examples"] == len(IDS)
    assert [result["difference"]["value"] for result in comparison["results"]] == [0, 0]

    call(run, "-m", "quality", *DATA, "--folder", "report", code=4)
    assert {row["id"] for row in rows("report/rows.jsonl")} == {"262"}
    assert "no paragraph is in both splits | 1 | = 0 | 1 | `262`" in Path("report/report.md").read_text()


def flat(articles: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Question and context of each article."""
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    return [{"question": row["qas"][0]["question"], "context": row["context"]} for row in paragraphs]


@pytest.mark.slow
def test_explanations_have_ids_as_text(run: Run) -> None:
    train(run)
    done = run("-m", "explain", "run=run", "explain.examples=16", "trainer.threads=1", "--folder", "explained")
    assert done.returncode in (0, 5), done.stderr
    assert {row["id"] for row in rows("explained/explanations.jsonl")} == set(map(str, IDS))
