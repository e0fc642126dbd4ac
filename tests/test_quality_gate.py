"""The gate as people meet it: train.py, python -m quality and a trial, over data that breaks its contract."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.errors import InputError
from quality import contract, soda, verdict
from quality.judgement import judge_contract

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("data.sample.train=64", "data.sample.val=32", "trainer.max_steps=1")


def questions(folder: Path, **changes: Any) -> Path:
    """A folder in SQuAD's layout of 40 and 20 questions; `train` and `val` change the n-th question."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, name, count in (("train", "train-v1.1.json", 40), ("val", "dev-v1.1.json", 20)):
        paragraphs = []
        for number in range(count):
            context = (
                f"In the year {1200 + number} the {split} town of Example had about {number + 2} thousand people in it, "
                * 2
            )
            qa = {
                "id": f"{split}-{number}",
                "question": f"How many thousand people had the {split} town in {1200 + number}?",
                "answers": [
                    {"text": f"{number + 2} thousand people", "answer_start": context.index(f"about {number + 2}") + 6}
                ],
            }
            item = {"context": context, "qas": [qa]}
            changes.get(split, lambda number, item: None)(number, item)
            paragraphs.append(item)
        articles = [{"title": f"{split}-{at}", "paragraphs": paragraphs[at::5]} for at in range(5)]
        (folder / name).write_text(json.dumps({"data": articles}))
    return folder


def misplaced(number: int, item: dict[str, Any]) -> None:
    if number == 3:
        item["qas"][0]["answers"][0]["answer_start"] += 5


def test_sound_questions_pass(run: Any, tmp_path: Path) -> None:
    done = run(
        "-m", "quality", "data=squad", f"data.path={questions(tmp_path / 'data')}", "--folder", str(tmp_path / "q")
    )
    assert done.returncode == 0, done.stderr
    assert "passed, 31 checks" in done.stdout
    found = json.loads((tmp_path / "q" / "verdict.json").read_text())
    assert (found["status"], len(found["checks"])) == ("passed", 31)


def test_a_broken_contract_stops_training_and_leaves_its_report(run: Any, tmp_path: Path) -> None:
    data = questions(tmp_path / "data", train=misplaced)
    command = (
        "train.py",
        "data=squad",
        f"data.path={data}",
        "trainer.max_steps=1",
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    done = run(*command)
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert "every answer is where it says to be (1 row, e.g. train-3)" in done.stderr
    report = (tmp_path / "run" / "quality" / "report.html").read_text()
    assert "How many thousand people had the train town in 1203?" in report
    places = re.findall(r'<(?:span class="incorrect"|mark) title="(?:not )?at character (\d+)">([^<]*)<', report)
    texts = re.findall(r'<(?:mark|span)(?: class="incorrect")? title="[^"]*at character[^>]*>([^<]*)<', report)
    assert len({place for place, _ in places}) == 2
    assert "".join(texts).startswith("5 thousand people")
    assert "A dashed underline is where a part is declared to be" in report
    assert "train-3" in report
    rows = [json.loads(line) for line in (tmp_path / "run" / "quality" / "rows.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows if row["check"] == "every answer is where it says to be"} == {"train-3"}
    assert "every answer is where it says to be" in (tmp_path / "run" / "quality" / "report.md").read_text()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["exit_code"]) == ("failed", 4)
    assert not (tmp_path / "run" / "checkpoints").exists()
    # The same command, told only to warn, trains in the same folder.
    done = run(*command, "quality=warn")
    assert done.returncode == 0, done.stderr
    assert "is violated" in done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["quality"]["status"] == "failed"


def test_off_needs_no_soda(run: Any, tmp_path: Path) -> None:
    (tmp_path / "soda_core").mkdir()
    (tmp_path / "soda_core" / "__init__.py").write_text("raise ImportError('there is no Soda here')")
    path = f"{tmp_path}:{ROOT / 'src'}"
    done = run("train.py", *SMALL, "quality=off", f"hydra.run.dir={tmp_path / 'run'}", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run" / "quality").exists()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["quality"] == {"action": "off"}


def test_a_trial_is_stopped_too(run: Any, tmp_path: Path) -> None:
    data = questions(tmp_path / "data", train=misplaced)
    made = run(
        "-m", "katib", "new", "model=bert_tiny", "data=squad", f"data.path={data}", "trainer.max_steps=1",
        "optim.lr=loguniform(1e-4,1e-3)", "--max-trials", "1", "--max-failed", "1", "-o", str(tmp_path / "search.yaml"),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    done = run("-m", "katib", "run", str(tmp_path / "search.yaml"), "--folder", str(tmp_path / "search"), timeout=300)
    assert done.returncode == 6, done.stderr
    trial = json.loads((tmp_path / "search" / "trials.jsonl").read_text().splitlines()[0])
    assert (trial["status"], trial["exit_code"]) == ("Failed", 4)
    assert list((tmp_path / "search").glob("runs/*/quality/report.html"))


def test_a_verdict_is_remembered(run: Any, tmp_path: Path) -> None:
    data = questions(tmp_path / "data")
    command = ("-m", "quality", "data=squad", f"data.path={data}", f"data.cache_dir={tmp_path / 'cache'}")
    first = run(*command, "--folder", str(tmp_path / "one"))
    again = run(*command, "--folder", str(tmp_path / "two"))
    assert "verifying" in first.stderr
    assert "verifying" not in again.stderr
    assert (tmp_path / "one" / "verdict.json").read_text() == (tmp_path / "two" / "verdict.json").read_text()
    questions(data, val=misplaced)
    changed = run(*command, "--folder", str(tmp_path / "three"))
    assert (changed.returncode, "verifying" in changed.stderr) == (4, True)


def test_a_report_takes_nothing_away(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("precious")
    command = ("-m", "quality", *SMALL[:2], "--folder")
    assert run(*command, str(folder)).returncode == 0
    assert run(*command, str(folder)).returncode == 0
    assert (folder / "thesis.txt").read_text() == "precious"
    assert {each.name for each in folder.iterdir()} == {
        "thesis.txt", "report.html", "report.md", "rows.jsonl", "verdict.json", "profile.json", "sample.parquet"
    }  # fmt: skip
    done = run(*command, str(folder / "thesis.txt"))
    assert (done.returncode, "is a file; name a folder" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


def test_data_that_shrinks_warns(run: Any, tmp_path: Path) -> None:
    data = questions(tmp_path / "data")
    command = ("-m", "quality", "data=squad", f"data.path={data}", f"data.cache_dir={tmp_path / 'cache'}")
    assert "passed" in run(*command, "--folder", str(tmp_path / "one")).stdout
    whole = (data / "train-v1.1.json").read_text()
    half = json.dumps({"data": json.loads(whole)["data"][:3]})
    # Smaller, as large as before, and smaller again: a verdict is remembered together with what it was compared with.
    for turn, (text, warned) in enumerate(((half, True), (half, False), (whole, True), (half, True))):
        (data / "train-v1.1.json").write_text(text)
        done = run(*command, "--folder", str(tmp_path / f"turn{turn}"))
        assert done.returncode == 0
        report = (tmp_path / f"turn{turn}" / "report.md").read_text()
        assert ("about as many questions as in the data before" in report) == warned, turn


def test_a_training_that_was_stopped_goes_on_past_the_gate(run: Any, tmp_path: Path) -> None:
    command = ("train.py", *SMALL, "optim.schedule=constant", "optim.warmup=0", f"hydra.run.dir={tmp_path / 'run'}")
    assert run(*command).returncode == 0
    done = run(*command, "trainer.max_steps=2", "quality=warn")
    assert done.returncode == 0, done.stderr


def test_a_contract_of_ones_own(run: Any, tmp_path: Path) -> None:
    data = questions(tmp_path / "data")
    made = run("-m", "quality", "init", "data=squad", f"data.path={data}", "-o", str(tmp_path / "mine.yaml"))
    assert made.returncode == 0, made.stderr
    command = ("-m", "quality", "data=squad", f"data.path={data}", f"quality.contract={tmp_path / 'mine.yaml'}")
    done = run(*command, "--folder", str(tmp_path / "one"))
    assert (done.returncode, "passed" in done.stdout) == (0, True), done.stdout + done.stderr

    def longer(number: int, item: dict[str, Any]) -> None:
        if number == 7:
            item["qas"][0]["question"] += " " + "And why, and how, and since when? " * 4

    questions(data, train=longer)
    done = run(*command, "--folder", str(tmp_path / "two"))
    assert done.returncode == 0
    report = (tmp_path / "two" / "report.md").read_text()
    assert "| warned | question_words is as it was | 1 |" in report
    assert "`train-7`" in report
    again = run("-m", "quality", "init", "data=squad", f"data.path={data}", "-o", str(tmp_path / "mine.yaml"))
    assert (again.returncode, "exists" in again.stderr) == (2, True)


# --- contracts that could not fail

BASE = {
    "dataset": "data/main/facts",
    "columns": [{"name": "n", "data_type": "bigint", "checks": [{"invalid": {"name": "n", "valid_max": 5}}]}],
    "checks": [{"row_count": {"name": "rows", "threshold": {"must_be_greater_than": 0}}}],
}


def changed(**changes: Any) -> str:
    return yaml.safe_dump({**json.loads(json.dumps(BASE)), **changes}, sort_keys=False)


HOLES = {
    "misspelt threshold": (
        changed(checks=[{"row_count": {"threshold": {"must_be_more": 0}}}]),
        "must_be_more",
    ),
    "misspelt check": (changed(checks=[{"row_cont": {}}]), "row_cont"),
    "misspelt key of a check": (
        changed(columns=[{"name": "n", "checks": [{"invalid": {"valid_maxx": 5}}]}]),
        "valid_maxx",
    ),
    "misspelt key of a column": (
        changed(columns=[{"name": "n", "check": [{"invalid": {"valid_max": 5}}]}]),
        "check is not a key",
    ),
    "misspelt type of a column": (changed(columns=[{"name": "n", "data_tpye": "bigint"}]), "data_tpye is not a key"),
    "a filter on all and a query": (
        changed(filter="n = 1", checks=[{"metric": {"query": "select 1", "threshold": {"must_be": 1}}}]),
        "no effect on a query",
    ),
    "a variable": (changed(checks=[{"failed_rows": {"expression": "n > ${var.most}"}}]), "variables"),
    "a key that is a list": ("dataset: data/main/facts\n? [a, b]\n: c\n", "must be a string"),
    "columns to show that are none": (changed(checks=[{"row_count": {"attributes": {"show": 5}}}]), "attributes.show"),
    "misspelt key of the whole": (changed(colums=[]), "colums"),
    "no checks": (changed(checks=[], columns=[{"name": "n"}]), "checks"),
    "none at all": ("dataset: data/main/facts\ncolumns:\n  - name: n\n", "has no checks"),
    "empty columns": (changed(columns=[]), "columns"),
    "another table": (changed(dataset="mem/main/squad"), "data/main/facts"),
    "scopes": (changed(checks=[{"row_count": {"scope": "train"}}]), "scope"),
    "a filter on a query": (
        changed(checks=[{"metric": {"query": "select 1", "filter": "n = 1", "threshold": {"must_be": 1}}}]),
        "no effect on a query",
    ),
    "a key twice": (changed() + "columns: []\n", "duplicate key"),
    "two of one name": (
        changed(columns=[{"name": "n", "checks": [{"invalid": {"name": "rows", "valid_max": 5}}]}]),
        "rows twice",
    ),
    "two of one kind": (
        changed(columns=[{"name": "n", "checks": [{"invalid": {"valid_max": 5}}, {"invalid": {"valid_min": 5}}]}]),
        "qualifier",
    ),
    "a kind that is none": (changed(checks=[{"row_count": {"attributes": {"kind": "size"}}}]), "size"),
    "no YAML": ("dataset: [", "not YAML"),
    "a list": ("- 1", "not a data contract"),
}


@pytest.mark.parametrize("hole", HOLES)
def test_a_contract_that_would_say_nothing_is_refused(hole: str) -> None:
    text, message = HOLES[hole]
    with pytest.raises(InputError, match=re.escape(message)):
        contract.parse(text, "mine", "mine.yaml")
    assert contract.parse(changed(), "mine", "mine.yaml").checks


def test_a_contract_means_what_soda_reads() -> None:
    """YAML 1.2, as Soda's: in 1.1, which PyYAML reads, these are 448, true and a word."""
    columns = [{"name": "n", "checks": [{"invalid": {"valid_max": 5, "valid_values": [1]}}]}]
    text = changed(columns=columns).replace("valid_max: 5", "valid_max: 0700").replace("- 1\n", "- yes\n")
    [rows] = [each.rows for each in contract.parse(text, "mine", "mine.yaml").checks if each.type == "invalid"]
    assert "not in ('yes')" in rows
    assert rows.endswith('"n" > 700)')


def test_a_range_that_is_left_out_is_told(tmp_path: Path) -> None:
    threshold = {"must_be_not_between": {"greater_than": 50, "less_than": 0}}
    found = judged(tmp_path, changed(checks=[{"row_count": {"threshold": threshold}}]), SOUND)
    assert [each.threshold for each in found.checks if each.type == "row_count"] == ["> 50 or < 0"]
    assert found.status == "failed"


def judged(tmp_path: Path, text: str, table: str) -> verdict.Verdict:
    import duckdb

    from quality.facts import Facts

    connection = duckdb.connect(":memory:")
    connection.execute(f"create table facts as {table}")
    of = Facts(tmp_path / "none.parquet", "0" * 64, "question_answering", [], [])
    return judge_contract(
        contract.parse(text, "mine", "mine.yaml"), of, connection, soda.versions(), tmp_path / "rows.jsonl"
    )


SOUND = "select 'train' as split, range as number, range::varchar as id, range % 5 as n from range(20)"
# Contracts that Soda says are well, or does not say are not.
UNSEEN = {
    "an aggregate of nothing": (
        changed(columns=[{"name": "n", "checks": [{"aggregate": {"function": "avg", "filter": "n > 100", "threshold": {"must_be": 3}}}]}]),
        SOUND,
        "inconclusive",
    ),
    "a metric of nothing": (
        changed(checks=[{"metric": {"query": "select avg(n) from facts where n > 100", "threshold": {"must_be": 3}}}]),
        SOUND,
        "inconclusive",
    ),
    "a column that is not there": (
        changed(columns=[{"name": "m", "checks": [{"missing": {"name": "m"}}]}, *BASE["columns"]]),  # type: ignore[misc]
        SOUND,
        "inconclusive",
    ),
    "an expression that is none": (
        changed(checks=[{"failed_rows": {"expression": "n ==== 1"}}]),
        SOUND,
        "inconclusive",
    ),
    "a regular expression on a number": (
        changed(columns=[{"name": "n", "checks": [{"invalid": {"valid_format": {"regex": "^[0-9]$", "name": "digit"}}}]}]),
        SOUND,
        "inconclusive",
    ),
    "a filter that leaves nothing": (
        changed(columns=[{"name": "n", "checks": [{"invalid": {"valid_max": 1, "filter": "split = 'validation'"}}]}]),
        SOUND,
        "inconclusive",
    ),
    "a filter on all that leaves nothing": (changed(filter="split = 'validation'"), SOUND, "failed"),
    "an empty table": (changed(), SOUND + " where false", "failed"),
}  # fmt: skip


@pytest.mark.parametrize("hole", UNSEEN)
def test_what_soda_overlooks_is_no_pass(hole: str, tmp_path: Path) -> None:
    text, table, status = UNSEEN[hole]
    found = judged(tmp_path, text, table)
    assert (found.status, found.accepted) == (status, False)
    assert "contract mine" in verdict.summarise_verdict(found)
    assert judged(tmp_path, changed(), SOUND).status == "passed"


def test_a_regular_expression_is_anchored_or_not_as_written(tmp_path: Path) -> None:
    """DuckDB matches parts: the rows that are shown are those that Soda counts."""
    table = "select 'train' as split, range as number, 'x' || range as id, 'a' || range as n from range(20)"
    for regex, count in (("[0-9]", 0), ("^a[0-9]$", 10)):
        text = changed(
            columns=[
                {"name": "n", "checks": [{"invalid": {"name": "n", "valid_format": {"regex": regex, "name": "r"}}}]}
            ]
        )
        found = judged(tmp_path, text, table)
        check = found.checks[-1]
        assert (check.value, check.rows or 0) == (count, count)


def test_rows_that_are_shown_are_those_that_soda_counts(tmp_path: Path) -> None:
    table = "select 'train' as split, range as number, range::varchar as id, case when range < 4 then null else range end as n from range(40)"
    checks: list[dict[str, Any]] = [
        {"missing": {"name": "a", "missing_values": [7, 9]}},
        {"invalid": {"name": "b", "qualifier": "b", "valid_min": 10, "valid_max": 30, "filter": "number < 20"}},
        {"invalid": {"name": "c", "qualifier": "c", "invalid_values": [11, 12]}},
        {"invalid": {"name": "d", "qualifier": "d", "valid_values": [11, 12]}},
    ]
    found = judged(tmp_path, changed(columns=[{"name": "n", "checks": checks}]), table)
    assert [(each.value, each.rows) for each in found.checks if each.name in "abcd"] == [
        (6, 6),
        (6, 6),
        (2, 2),
        (34, 34),
    ]


def test_nothing_is_sent_and_no_env_file_is_read(run: Any, tmp_path: Path) -> None:
    """With a .env in the folder, in the project and above: Soda reads the nearest one that it finds."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, os, atexit\n"
        "asked = []\n"
        "def refuse(self, address, *more):\n"
        "    asked.append(address)\n"
        "    raise OSError('no network')\n"
        "socket.socket.connect = socket.socket.connect_ex = refuse\n"
        "def info(*given, **more):\n"
        "    asked.append(given)\n"
        "    raise socket.gaierror('no network')\n"
        "socket.getaddrinfo = info\n"
        f"atexit.register(lambda: open({str(tmp_path / 'said')!r}, 'a').write(repr(asked) + os.environ.get('FROM_ENV_FILE', '') + '\\n'))\n"
    )
    env_file = ROOT / ".venv" / ".env"
    mine = not env_file.exists() and env_file.parent.is_dir()
    if mine:
        env_file.write_text("FROM_ENV_FILE=read\nSODA_CORE_TELEMETRY_ENABLED=true\n")
    try:
        done = run(
            "-m", "quality", "data=squad", f"data.path={questions(tmp_path / 'data')}", "--folder", str(tmp_path / "q"),
            cold=True, PYTHONPATH=f"{tmp_path}:{ROOT / 'src'}",
        )  # fmt: skip
    finally:
        if mine:
            env_file.unlink()
    assert done.returncode == 0, done.stderr
    assert set((tmp_path / "said").read_text().splitlines()) == {"[]"}


def test_a_warm_verdict_costs_milliseconds(tmp_path: Path) -> None:
    """Not a benchmark: what is remembered is found without Soda, DuckDB or the rows."""
    import subprocess
    import sys

    data = questions(tmp_path / "data")
    program = (
        "import sys\n"
        "from datamodules import factory\n"
        "from quality.verification import verify_data\n"
        "config = factory.compose_config(sys.argv[1:], any_model=True)\n"
        "data = factory.build(config.data)\n"
        "verify_data(data, config.task.name, config.quality.contract)\n"
        "assert ('soda_core' in sys.modules) == (sys.argv[-1] == 'data.seed=1'), 'loaded'\n"
    )
    for extra in ("data.seed=1", "data.seed=2"):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                program,
                "data=squad",
                f"data.path={data}",
                f"data.cache_dir={tmp_path / 'cache'}",
                extra,
            ],
            env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_two_processes_leave_one_whole_report(tmp_path: Path) -> None:
    """Each file is one of the two's, whole, whoever was last."""
    from concurrent.futures import ThreadPoolExecutor

    from quality.gate import copy_report

    for number in range(2):
        (tmp_path / str(number)).mkdir()
        for name in ("verdict.json", "report.html", "key.json"):
            (tmp_path / str(number) / name).write_text(f"{number}" * 200_000)
    target = tmp_path / "quality"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda turn: copy_report(tmp_path / str(turn % 2), target), range(40)))
    assert {each.name for each in target.iterdir()} == {"verdict.json", "report.html"}
    for file in target.iterdir():
        assert file.read_text() in ("0" * 200_000, "1" * 200_000)
