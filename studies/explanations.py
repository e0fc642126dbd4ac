"""Can explanations serve as quality control? Models with and without planted shortcuts, checked in three ways."""

from __future__ import annotations

from pathlib import Path

from benchmarks import explain_gate

from studies import common
from studies.common import Row, Settings

TITLE = "Can explanations serve as quality control?"
HYPOTHESIS = (
    "The explanation gate fails models that learned a planted shortcut, or nothing, and passes models without a shortcut. Accuracy alone "
    "passes the shortcuts, because their evaluation data has the shortcut too. The data contract alone detects neither, because nothing in "
    "the data is malformed."
)
MARGIN = (
    10.0  # points: accuracy alone rejects a model that is this much worse than the model without shortcut of its seed
)

# The planted images are of another size than Tiny ImageNet's.
CONTRACT: dict[str, list[str]] = {"images": ["quality.contract=image_folder"], "questions": []}


def run(settings: Settings, folder: Path) -> list[Row]:
    """One row for each task, kind of model and seed: its metric, and whether each judge rejects it."""
    own, rows = settings["explanations"], []
    for task in own["tasks"]:
        models = explain_gate.models(task, folder / "data")
        for seed in settings["seeds"]:
            for name, overrides in models.items():
                of = f"{task}-{name.replace(' ', '-')}-{seed}"

                def compute(task: str = task, of: str = of, overrides: list[str] = overrides, seed: int = seed) -> Row:
                    more = [
                        f"seed={seed}",
                        f"explain.examples={own['examples']}",
                        f"trainer.threads={settings['threads']}",
                    ]
                    metric, status = explain_gate.one(task, folder / "runs" / of, [*overrides, *more], own["examples"])
                    data = [each for each in overrides if each.startswith("data")]
                    contract = common.run("-m", "quality", *data, *CONTRACT[task], "--folder", folder / "quality" / of)
                    if contract.code not in (0, 4):
                        raise common.failed(contract)
                    return {"metric": metric, "explanations": status, "contract": contract.code}

                rows.append({"task": task, "model": name, "seed": seed, **common.unit(folder, of, compute)})
    return rows


def report(rows: list[Row], figures: Path) -> str:
    """The section."""
    honest = {(row["task"], row["seed"]): row["metric"] for row in rows if row["model"] == "without shortcut"}
    judges = {
        "explanations": lambda row: row["explanations"] not in ("passed", "warned"),
        "accuracy alone": lambda row: row["metric"] < honest[row["task"], row["seed"]] - MARGIN,
        "the data contract alone": lambda row: row["contract"] == 4,
    }
    kinds = list(dict.fromkeys((row["task"], row["model"]) for row in rows))
    cells = []
    for task, model in kinds:
        of = [row for row in rows if (row["task"], row["model"]) == (task, model)]
        mean = sum(row["metric"] for row in of) / len(of)
        cells.append(
            [f"{task}: {model}", f"{mean:.1f}", *(f"{sum(map(judge, of))} of {len(of)}" for judge in judges.values())]
        )
    values, rates = {}, []
    for name, judge in judges.items():
        bad = [row for row in rows if row["model"] not in ("without shortcut", "random weights")]
        good = [row for row in rows if row["model"] == "without shortcut"]
        caught, alarms = sum(map(judge, bad)), sum(map(judge, good))
        rates.append([name, common.share(caught, len(bad)), common.share(alarms, len(good))])
        values[name] = (100 * caught / max(1, len(bad)), *(100 * each for each in common.wilson(caught, len(bad))))
    return "\n\n".join([
        common.table(["model", "accuracy or F1", *(f"rejected by {name}" for name in judges)], cells),
        "Models with a planted shortcut (without random weights, which accuracy detects):",
        common.table(["check", "shortcuts rejected", "models without shortcut rejected"], rates),
        common.bars(figures / "explanations.svg", "Shortcuts rejected", values, "percent, with 95 % intervals"),
        f"Accuracy alone rejects a model that is {MARGIN:g} points worse than the model without shortcut of the same seed, on its own "
        "evaluation data. Intervals are Wilson's. The result holds for the planted shortcuts only.",
    ])  # fmt: skip
