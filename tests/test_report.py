"""`python -m runs report`: its pages, in a real browser."""

import io
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests import made_runs
from tests.browser import asked, needs_nothing
from tests.conftest import Run
from tests.test_pages import PAGES

from config import files
from reports.page import data_uri, write
from runs import folder as folders
from runs import lineage, metric_lines, report_metrics, step_metrics
from runs.rerun import rerun_command

HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'>\"'&amp; \u202e\x07"
TABLES = """
const tables = {};
for (const table of document.querySelectorAll('table')) {
  const heads = [...table.querySelectorAll('th')].map(each => each.textContent);
  tables[heads.join('|')] = [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => [...row.cells].map(cell => cell.innerText.trim()));
}
"""


def report(run: Run, *arguments: str | Path) -> str:
    done = run("-m", "runs", "report", *map(str, arguments))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def tables(page: Path, before: str = "", **more: Any) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = asked(page, f"{before}; {TABLES}; return tables;", **more)
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path, warm: Path) -> Path:
    """A run of images, trained and explained, and one of questions."""
    from tests.conftest import forked

    root = tmp_path_factory.mktemp("trained")
    common = ["trainer.threads=1", "trainer.max_steps=4", "explain=warn", "explain.examples=8", "explain.min_correct=1"]
    small = ["explain.image_classification.grid=2", "explain.image_classification.pictures=0", "quality=warn"]
    for name, arguments in (
        (
            "images",
            ["model=resnet18", "model.name=test_resnet", "model.stem=standard", "data=shapes", "data.sample.train=60"],
        ),
        ("questions", ["data.sample.train=60"]),
    ):
        command = [str(Path(__file__).parents[1] / "train.py"), *arguments, "data.sample.val=60", *common, *small]
        done = forked(
            warm, [*command, f"hydra.run.dir={root / name}"], root, {**os.environ, "HF_HUB_OFFLINE": "1"}, 300
        )
        assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("task", ["images", "questions"])
def test_a_trained_runs_page(task: str, trained: Path, run: Run) -> None:
    folder = trained / task
    assert report(run, folder) == str(folder / "report.html")
    record = folders.read_record(folder)
    page = folder / "report.html"
    assert needs_nothing(page)
    found = tables(page)
    metrics = {row[0]: row[1] for row in found["metric|value|95 % interval|range of examples"]}
    assert {name: float(value.replace(",", "")) for name, value in metrics.items()} == {
        name: pytest.approx(value, rel=6e-4) for name, value in record["metrics"].items()
    }
    gates = {row[0]: row[1] for row in found["gate|verdict|reason|report"]}
    assert gates["data contract"] == record["quality"]["status"]
    assert gates["explanations"] == record["explain"]["status"]
    origin = {
        row[0]: row[2]
        for row in found["origin|name|SHA-256 or revision"]
        if row[0] in ("model", "configuration", "data")
    }
    assert origin["model"] == lineage.folder_digest(folder / "model")
    assert origin["configuration"] == record["config_hash"]
    assert origin["data"] in record["data"]["fingerprints"].values()
    said = asked(page, "return document.body.innerText")
    for title in ("Metrics", "Mistakes", "Confidence", "Time and machine", "Gates", "Configuration", "Record"):
        assert title in said
    if task == "images":
        wrong = sum(
            not row["correct"] for row in map(json.loads, (folder / "predictions.jsonl").read_text().splitlines())
        )
        assert f"{wrong} of 60 predictions are wrong" in said
        loaded = "return [...document.images].map(each => each.naturalWidth)"
        widths = asked(page, loaded)
        assert len(widths) == wrong
        assert all(widths)  # the browser could read every one of them
    else:
        assert "What" in said or "Where" in said
        rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
        wrong_rows = {row["id"]: row for row in rows if not row["exact_match"]}
        kept = [json.loads(line) for line in (folder / "mistakes.jsonl").read_text().splitlines()]
        assert {entry["id"] for entry in kept} == set(wrong_rows)
        shown = asked(page, PARAGRAPHS)
        assert len(shown) == len(wrong_rows)
        known = {(text, row["prediction"]) for row in wrong_rows.values() for text in row["answers"]}
        assert set(map(tuple, shown)) <= known


PARAGRAPHS = """
const join = (cell, selector) => [...cell.querySelectorAll(selector)].map(each => each.textContent).join('');
return [...document.querySelectorAll('td.pieces')].map(cell => [join(cell, 'mark'), join(cell, '.incorrect')]);
"""


def test_paragraphs_of_mistakes(run: Run, tmp_path: Path) -> None:
    rows = made_runs.questions(8, 0.0, 1)
    for row in rows:
        row |= {"prediction": "Bb cc", "start": 3, "end": 8}
    folder = made_runs.write(tmp_path / "a", rows)
    texts = [
        {"id": "q0", "context": "Aa Bb cc dd", "true_answers": [{"text": "cc dd", "answer_start": 6}]},
        {"id": "q1", "context": "Aa Bb cc dd", "true_answers": []},
        {"id": "other", "context": 3},
    ]
    (folder / "mistakes.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    report(run, folder)
    page, head = folder / "report.html", "F1|confidence|question|answer|predicted|paragraph|document"
    assert sorted(asked(page, PARAGRAPHS)) == [["", ""]] * 6 + [["", "Bb cc"], ["cc dd", "Bb cc"]]
    assert sorted(row[5] for row in tables(page)[head])[-2:] == ["Aa Bb cc dd"] * 2
    for damage in ('{"id": []}\n', '{"id": "q0", "con', "[1]\n"):
        (folder / "mistakes.jsonl").write_text(damage)
        report(run, folder)
        assert len(tables(page)[head.replace("|paragraph", "")]) == 8
    (folder / "mistakes.jsonl").write_text('{"id": "q0", "context": "x", "true_answers": 3}\n')
    report(run, folder)
    assert "The table cannot be shown: TypeError" in asked(page, "return document.body.innerText")


def test_it_reads_at_any_width_light_and_dark(trained: Path, run: Run) -> None:
    page = trained / "images" / "report.html"
    report(run, trained / "images")
    wide = "return [document.documentElement.scrollWidth, innerWidth]"
    for width in (500, 1100):
        reach, room = asked(page, wide, width=width)
        assert reach <= room, f"at {width} pixels the page is {reach} wide"
    colours = {
        dark: asked(page, "return getComputedStyle(document.body).backgroundColor", dark=dark) for dark in (False, True)
    }
    assert colours[False] == "rgb(255, 255, 255)"
    assert colours[True] != colours[False]


def test_mistakes_are_found_and_sorted(run: Run, tmp_path: Path) -> None:
    folder = made_runs.write(tmp_path / "a", made_runs.images(240, 0.5, 1))
    report(run, folder)
    page, head = folder / "report.html", "loss|confidence||true|predicted|image"
    rows = tables(page)[head]
    losses = [float(row[0]) for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert all(row[3] != row[4] for row in rows)
    kept = "const s = document.querySelector('.filterable select'); s.value = 'n03'; s.onchange();"
    assert {row[3] for row in tables(page, kept)[head]} == {"n03"}
    typed = "const i = document.querySelector('.filterable input'); i.value = 'N05'; i.oninput();"
    assert all("n05" in row[3] + row[4] for row in tables(page, typed)[head])
    clicked = "[...document.querySelectorAll('.filterable th')].find(each => each.textContent === 'true').click();"
    names = [row[3] for row in tables(page, clicked)[head]]
    assert names == sorted(names, reverse=True)
    twice = [float(row[0]) for row in tables(page, clicked.replace("'true'", "'loss'") * 2)[head]]
    assert twice == sorted(losses)


def test_hostile_text_stays_text(run: Run, tmp_path: Path) -> None:
    questions = [
        row | {"question": HOSTILE, "prediction": HOSTILE, "document": HOSTILE}
        for row in made_runs.questions(40, 0.4, 1)
    ]
    images = [
        row | {"id": f"{HOSTILE} {number}", "label": HOSTILE, "prediction": "cat", "correct": False}
        for number, row in enumerate(made_runs.images(40, 0.4, 1))
    ]
    for name, rows in (("<b>&'q", questions), ("i", images)):
        folder = made_runs.write(tmp_path / name, rows, note=HOSTILE)
        record = folders.read_record(folder)
        record |= {
            "reason": HOSTILE,
            "details": {"confusion": {HOSTILE: {"cat": 40}}, "class_accuracy": {HOSTILE: 0.0}},
        }
        record["choices"] = {"model": HOSTILE, "data": HOSTILE}
        files.write_json(folder / "run.json", record)
        report(run, folder)
        assert asked(folder / "report.html", "return window.hacked ?? 0") == 0
        assert "<script>window.hacked=1</script>" in asked(folder / "report.html", "return document.body.innerText")
        assert asked(folder / "report.html", "return document.querySelectorAll('img[src=x]').length") == 0
    report(run, tmp_path)
    assert asked(tmp_path / "report.html", "return window.hacked ?? 0") == 0


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 runs, a few of them in trouble."""
    root = tmp_path_factory.mktemp("many")
    for number in range(197):
        made_runs.write(root / f"{number:03}", made_runs.questions(30, 0.3 + number / 400, number), seed=number)
    made_runs.write(root / "torn", made_runs.questions(30, 0.5, 1))
    (root / "torn" / "run.json").write_text('{"status": "fin')
    made_runs.write(root / "half", made_runs.questions(30, 0.5, 1))
    with (root / "half" / "predictions.jsonl").open("a") as file:
        file.write('{"id": "x", "predi')
    (root / "foreign").mkdir()
    (root / "foreign" / "thesis.doc").write_text("mine")
    return root


@pytest.mark.slow
def test_an_index_of_200_runs(many: Path, run: Run) -> None:
    report(run, many)
    page, head = many / "report.html", "run|status|model|data|metric|value|seed|time|started"
    assert needs_nothing(page)
    rows = {row[0].splitlines()[0]: row for row in tables(page)[head]}
    assert len(rows) == 200
    assert (rows["torn"][1], rows["foreign"][1]) == ("damaged", "foreign")
    assert "cannot be read" in asked(many / "half" / "report.html", "return document.body.innerText")
    for name in ("000", "196", "half"):
        record = folders.read_record(many / name)
        assert float(rows[name][5]) == pytest.approx(record["metrics"]["val_f1"], rel=6e-4)
    links = asked(page, "return [...document.querySelectorAll('a')].map(each => each.getAttribute('href'))")
    assert len(links) == 198
    assert all((many / link).exists() for link in links)
    clicked = "[...document.querySelectorAll('th')].find(each => each.textContent === 'value').click();"
    values = [float(row[5]) for row in tables(page, clicked)[head] if row[5] != "-"]
    assert values == sorted(values, reverse=True)
    reach, room = asked(page, "return [document.documentElement.scrollWidth, innerWidth]", width=500)
    assert reach <= room
    best = max(range(197), key=lambda number: folders.read_record(many / f"{number:03}")["metrics"]["val_f1"])
    said = asked(page, "return document.body.innerText")
    assert re.search(rf"python -m runs compare \d+ {best:03}", said) or "half" in said


def test_the_page_of_a_sweep(run: Run, tmp_path: Path) -> None:
    """The best is compared with its runner-up; parallel coordinates, and a scatter of each parameter."""
    for number, lr in enumerate((1e-5, 1e-3, 1e-4, 1e-2)):
        rows = made_runs.questions(40, 0.2 + number / 5, 1)
        schedule = "linear" if number % 2 else "cosine"
        made_runs.write(tmp_path / str(number), rows, seed=number, optim={"lr": lr, "schedule": schedule, "warmup": 0})
    report(run, tmp_path)
    page = tmp_path / "report.html"
    assert needs_nothing(page)
    rows = tables(page)["run|status|model|data|metric|value|optim.lr|optim.schedule|seed|time|started"]
    assert {(row[0], *row[6:9]) for row in rows} >= {("3", "0.01", "linear", "3"), ("2", "0.0001", "cosine", "2")}
    values = {row[0]: float(row[5]) for row in rows}
    best, second = sorted(values, key=values.__getitem__, reverse=True)[:2]
    said = asked(page, "return document.body.innerText")
    assert f"python -m runs compare {second} {best} in this page's folder" in said
    lines = asked(page, "return document.querySelectorAll('svg.wide polyline').length")
    assert lines == 4
    cards = asked(page, "return [...document.querySelectorAll('h3')].map(each => each.textContent)")
    assert [card for card in cards if " and " in card] == [
        "val_f1 and training time", "val_f1 and optim.lr", "val_f1 and optim.schedule", "val_f1 and seed",
    ]  # fmt: skip
    axes = asked(page, "return [...document.querySelectorAll('svg text')].map(each => each.textContent)")
    assert {"log10(optim.lr)", "optim.schedule: 0 = cosine, 1 = linear"} <= set(axes)


def test_the_page_of_two_runs(run: Run, tmp_path: Path) -> None:
    """They are compared; a sweep has three runs at least."""
    for number in (1, 2):
        made_runs.write(tmp_path / str(number), made_runs.questions(40, 0.3 * number, 1), optim={"lr": 0.1 * number})
    report(run, tmp_path)
    said = asked(tmp_path / "report.html", "return document.body.innerText")
    assert "python -m runs compare 1 2 in this page's folder" in said
    assert "Hyperparameters" not in said


def test_one_run_above_its_folder_and_what_it_differs_by(run: Run, tmp_path: Path) -> None:
    made_runs.write(tmp_path / "runs" / "a", made_runs.questions(30, 0.5, 1), optim={"lr": 0.5})
    other = made_runs.write(tmp_path / "b", made_runs.questions(30, 0.5, 1))
    report(run, tmp_path / "runs", "--against", other, "-o", tmp_path / "out.html")
    assert len(tables(tmp_path / "out.html")["run|status|model|data|metric|value|time|started"]) == 1
    changed = tables(tmp_path / "runs" / "a" / "report.html")["setting|other run|this run"]
    assert changed == [["optim.lr", "0.001", "0.5"]]


@pytest.mark.parametrize("wrong", ["nothing", "empty", "damaged"])
def test_what_has_no_report(wrong: str, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    if wrong != "nothing":
        folder.mkdir()
    if wrong == "damaged":
        (folder / "run.json").write_text("{")
    done = run("-m", "runs", "report", str(folder))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not (folder / "report.html").exists()


def test_records_of_any_shape_have_a_page(run: Run, tmp_path: Path) -> None:
    """What a record lacks, or has in another shape, is left out."""
    for number, strange in enumerate(
        (
            {},
            {"metrics": 3, "config": [], "details": "x", "timings": {"fit": "long"}},
            {"hardware": {"gpus": 3}, "git": None, "best": [1]},
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        files.write_json(folder / "run.json", {"status": "finished", **strange})
        report(run, folder)
        assert "finished" in asked(folder / "report.html", "return document.body.innerText")


def test_the_command_does_it_again(trained: Path, run: Run, tmp_path: Path) -> None:
    for task in ("images", "questions"):
        done = run("-m", "runs", "show", str(trained / task), "--command")
        assert done.returncode == 0, done.stderr
        words = shlex.split(done.stdout)
        assert words[:2] == ["python", "train.py"]
        assert words[-1].startswith(f"hydra.run.dir=outputs/{task}-")
        assert "# data: val with the fingerprint" in done.stderr
        words_again = [word for word in words[2:] if not word.startswith("hydra.run.dir=")]
        folder = tmp_path / task
        done = run("train.py", *words_again, f"hydra.run.dir={folder}")
        assert done.returncode == 0, done.stderr
        assert folders.read_record(folder)["metrics"] == folders.read_record(trained / task)["metrics"]
        assert (folder / "predictions.jsonl").read_bytes() == (trained / task / "predictions.jsonl").read_bytes()


def test_a_trials_command_leaves_its_own_files_alone(tmp_path: Path) -> None:
    """A Katib trial's metrics file, population and server are that trial's."""
    folder = made_runs.write(tmp_path / "seed=1,lr=2", made_runs.questions(10, 0.5, 1))
    (folder / ".hydra").mkdir()
    given = [
        "model=bert_tiny",
        "metrics_file=/x/m.jsonl",
        "population_dir=/p",
        "push_metrics=host:1",
        "~logger",
        "+data.x='a b'",
    ]
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(given))
    found = rerun_command(folder, folders.read_record(folder)).command
    assert found[:5] == ["python", "train.py", "model=bert_tiny", "~logger", "+data.x='a b'"]
    assert re.fullmatch(r"hydra.run.dir=outputs/seed_1_lr_2-\w+", found[-1])


def test_the_line_that_says_the_best_again_is_no_point_of_a_curve(run: Run, tmp_path: Path) -> None:
    folder = made_runs.write(tmp_path / "a", made_runs.questions(10, 0.5, 1))
    metric_lines.write({"val_f1": 99.0}, 2, 20, stream=io.StringIO(), jsonl_path=folder / "metrics.jsonl")
    assert [line.step for line in report_metrics.increasing_steps(metric_lines.read(folder / "metrics.jsonl"))] == [
        10,
        20,
        30,
    ]


ODD_ROWS = [
    {"probability": "x"}, {"probability": [1]}, {"answers": {"a": 1}}, {"id": ["x"]}, {"f1": None}, {"prediction": None}, {"question": 3},
]  # fmt: skip
ODD_RECORDS = [
    {"metrics": {"val_f1": None}}, {"metrics": {"val_f1": "80"}}, {"best": {"step": 5}}, {"metrics": {"val_f1": 10**400}},
    {"timings": {"fit": 1e308}},
]  # fmt: skip


def test_one_odd_run_takes_no_other_page(run: Run, tmp_path: Path) -> None:
    rows = made_runs.questions(10, 0.5, 1)
    made_runs.write(tmp_path / "fine", rows)
    for number, odd in enumerate(ODD_ROWS):
        folder = made_runs.write(tmp_path / f"row{number}", rows)
        lines_ = [json.dumps({**rows[0], **odd}), *(json.dumps(row) for row in rows[1:])]
        (folder / "predictions.jsonl").write_text("\n".join(lines_))
    for number, odd in enumerate(ODD_RECORDS):
        folder = made_runs.write(tmp_path / f"record{number}", rows)
        (folder / "run.json").write_text(json.dumps(folders.read_record(folder) | odd))
    torn = made_runs.write(tmp_path / "torn", made_runs.images(10, 0.5, 1))
    (torn / "pictures.npz").write_bytes(b"PK\x03\x04 no zip")
    report(run, tmp_path)
    assert (tmp_path / "fine" / "report.html").exists()
    assert (torn / "report.html").exists()
    assert len(tables(tmp_path / "report.html")["run|status|model|data|metric|value|time|started"]) == 2 + len(
        ODD_ROWS
    ) + len(ODD_RECORDS)


def test_one_run_of_a_sweep_is_done_again_alone(run: Run, tmp_path: Path) -> None:
    arguments = [
        "data.sample.train=40",
        "data.sample.val=40",
        "trainer.max_steps=1",
        "quality=off",
        "trainer.threads=1",
    ]
    done = run("train.py", "--multirun", *arguments, "seed=3,4", f"hydra.sweep.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    folder = next(
        each.parent for each in tmp_path.glob("*/run.json") if folders.read_record(each.parent)["seeds"]["seed"] == 4
    )
    words = shlex.split(run("-m", "runs", "show", str(folder), "--command").stdout)
    assert "seed=4" in words
    assert "--multirun" not in words


def step_lines(folder: Path, session: int, rows: list[tuple[int, float | str]]) -> None:
    """A session's file of the CSV logger, with a validation of another loss at step 4."""
    lines = [f"0.5,{step},{loss}," for step, loss in rows]
    (folder / "csv" / f"version_{session}").mkdir(parents=True)
    text = "\n".join(["lr,step,train_loss,val_loss", *lines, ",4,9.5,9.5", ""])
    (folder / "csv" / f"version_{session}" / "metrics.csv").write_text(text)


def test_the_losses_of_every_logged_step(tmp_path: Path) -> None:
    folder = made_runs.write(tmp_path / "a", made_runs.questions(10, 0.5, 1))
    assert step_metrics.read(folder) == {}
    step_lines(folder, 0, [(2, 3.0), (4, 2.0), (6, 1.5), (8, 7.0)])
    assert step_metrics.read(folder)["train_loss"] == [(2, 3.0), (4, 2.0), (6, 1.5), (8, 7.0)]
    step_lines(folder, 10, [(6, 1.25), (8, 1.0), (10, "nan")])  # resumed at step 4, the latest of all
    step_lines(folder, 9, [])
    assert step_metrics.read(folder)["train_loss"] == [(2, 3.0), (4, 2.0), (6, 1.25), (8, 1.0)]
    assert [step for step, _ in step_metrics.read(folder)["lr"]] == [2, 4, 6, 8, 10]
    for damage in (b"lr,step\n1,x\n", b"\xff", b"lr,step,train_loss\n1,2,3\n\0\xfe"):
        (folder / "csv" / "version_9" / "metrics.csv").write_bytes(damage)
        assert step_metrics.read(folder) == {}


SHOWN = """
return [...document.querySelectorAll('svg polyline')].filter(line => getComputedStyle(line).display !== 'none')
  .map(line => [line.getAttribute('class'), getComputedStyle(line).strokeOpacity]);
"""


def test_smoothing_is_chosen_without_a_script(run: Run, tmp_path: Path) -> None:
    folder = made_runs.write(tmp_path / "a", made_runs.questions(10, 0.5, 1))
    report(run, folder)
    page = folder / "report.html"
    assert "With logger=csv it is drawn for every logged step" in asked(page, "return document.body.innerText")
    step_lines(folder, 0, [(step, 3.0 - step / 10 + step % 2) for step in range(1, 20)])
    report(run, folder)
    assert needs_nothing(page)
    assert asked(page, SHOWN)[:2] == [["raw", "0.3"], ["smoothed1", "1"]]
    for number, expected in enumerate(([["raw", "1"]], *([["raw", "0.3"], [f"smoothed{n}", "1"]] for n in (1, 2, 3)))):
        chosen = f"document.querySelector('.weight{number}').checked = true;"
        assert asked(page, chosen + SHOWN)[: len(expected)] == expected


LARGER = """
const image = document.images[0], before = image.getBoundingClientRect().width;
image.click();
const during = [image.getBoundingClientRect().width, image.getBoundingClientRect().height, innerWidth, innerHeight];
image.click();
return [before, ...during, image.getBoundingClientRect().width];
"""


def test_images_are_larger_on_a_click(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(picture, "PNG")
    mistakes = {
        "summary": "a", "error": "", "missing": "", "note": "", "task": "a", "columns": [("image", "image")],
        "rows": [[data_uri(picture.getvalue(), "image/png")]] * 2, "groups": ["a", "b"],
    }  # fmt: skip
    page = tmp_path / "a.html"
    write(page, "run.html.jinja", title="a", **{**PAGES["run"], "mistakes": mistakes})
    before, width, height, window_width, window_height, after = asked(page, LARGER)
    assert (before, after) == (64, 64)
    assert (width, height) == (window_width, window_height)


def test_calibration_has_ticks_and_counts(run: Run, tmp_path: Path) -> None:
    folder = made_runs.write(tmp_path / "a", made_runs.questions(40, 0.5, 1))
    report(run, folder)
    page = folder / "report.html"
    rows = tables(page)["confidence|accuracy|difference|examples"]
    assert [int(row[3]) for row in rows] == [4] * 10
    assert all(float(row[1]) - float(row[0]) == pytest.approx(float(row[2])) for row in rows)
    ticks = asked(page, "return [...document.querySelectorAll('svg.square text')].map(each => each.textContent)")
    assert ticks[:12:2] == ["0", "0.2", "0.4", "0.6", "0.8", "1"] == ticks[1:12:2]


def test_tables_have_four_significant_digits(run: Run, tmp_path: Path) -> None:
    folder = made_runs.write(tmp_path / "runs" / "a", made_runs.questions(37, 0.5, 1))
    report(run, tmp_path / "runs")
    values = [
        *(row[1] for row in tables(folder / "report.html")["metric|value|95 % interval|range of examples"]),
        *(
            row[5]
            for row in tables(tmp_path / "runs" / "report.html")["run|status|model|data|metric|value|time|started"]
        ),
    ]
    assert len(values) == 4
    assert all(len(value.replace(".", "").lstrip("0")) <= 4 for value in values), values
