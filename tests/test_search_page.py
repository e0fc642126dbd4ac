"""The page of a local search: curves over steps, and links to the reports of its trials."""

from pathlib import Path

from tests import made_runs
from tests.browser import asked, needs_nothing

from katib import documents, report
from katib.experiment import Experiment
from katib.trials import Trial

ROOT = Path(__file__).resolve().parents[1]
TIMES = [("2026-01-01T00:00:01Z", "10"), ("2026-01-01T00:00:05Z", "20"), ("2026-01-01T00:00:09Z", "20")]


def trial(name: str, value: float) -> Trial:
    settings = {"optim.lr": "3.14159265e-05", "data.batch_size": "8", "optim.weight_decay": "0.01"}
    settings |= {"optim.warmup": "0.1", "model.dropout": "0.1", "optim.layer_decay": "0.9"}
    return Trial(name, 0, "Succeeded", settings, value=value, curve=TIMES, started="2026-01-01T00:00:00Z")


def test_trials_have_steps_and_links(tmp_path: Path) -> None:
    (document,) = documents.read(str(ROOT / "katib" / "questions-tpe.yaml"))
    experiment = Experiment(document)
    trials = [trial("first", 61.23456), trial("a b", 70.0)]
    page = tmp_path / "report.html"
    report.write(page, experiment, trials, "Succeeded", "python train.py")
    labels = "return [...document.querySelectorAll('svg > text')].map(each => each.textContent)"
    assert "seconds since the start of the trial" in asked(page, labels)
    assert asked(page, "return document.links.length") == 0
    for name in ("first", "a b"):
        folder = made_runs.write(tmp_path / "runs" / name, made_runs.questions(30, 0.5, 1))
        (folder / "report.html").write_text("a page")
    report.write(page, experiment, trials, "Succeeded", "python train.py")
    assert needs_nothing(page)
    assert "step" in asked(page, labels)
    assert "seconds since the start of the trial" not in asked(page, labels)
    links = asked(page, "return [...document.links].map(each => [each.textContent, each.getAttribute('href')])")
    assert links == [["first", "runs/first/report.html"], ["a b", "runs/a%20b/report.html"]]
    cells = asked(page, "return [...document.querySelectorAll('td.number')].map(each => each.textContent)")
    assert {"61.23", "3.142e-05"} <= set(cells)


def test_each_parameter_that_differs_has_a_scatter(tmp_path: Path) -> None:
    (document,) = documents.read(str(ROOT / "katib" / "questions-tpe.yaml"))
    trials = [trial(f"trial-{index}", 60.0 + index) for index in range(3)]
    for index, each in enumerate(trials):
        each.assignments.update({"optim.lr": f"{10.0**-index}", "data.batch_size": str(8 * 2**index)})
    page = tmp_path / "report.html"
    report.write(page, Experiment(document), trials, "Succeeded", "python train.py")
    cards = asked(page, "return [...document.querySelectorAll('h3')].map(each => each.textContent)")
    assert cards[-2:] == ["val_f1 and optim.lr", "val_f1 and data.batch_size"]
    titles = asked(
        page, "return [...document.querySelectorAll('circle title')].map(each => each.textContent).slice(-3)"
    )
    assert titles == ["trial-0: 60", "trial-1: 61", "trial-2: 62"]
    labels = asked(page, "return [...document.querySelectorAll('svg > text')].map(each => each.textContent)")
    assert {"log10(optim.lr)", "data.batch_size"} <= set(labels)
