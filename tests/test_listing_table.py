"""`python -m runs list`: the columns that tell runs apart, chosen ones, and CSV."""

import csv
import re
from pathlib import Path
from typing import Any

from tests.test_runs import Runs, changed, finished, runs

from runs import hyperparameters

__all__ = ["runs"]  # the fixture


def sweep(root: Path) -> None:
    """Nine runs of a Hydra sweep in folders with long names; dropout differs as well, without being set by a command."""
    for number in range(9):
        lr, seed = (1e-5, 1e-4, 0.12345678)[number // 3], number % 3
        config = changed(optim__lr=lr, seed=seed, model__dropout=number / 10, data__workers=number)
        folder = root / "multirun-of-a-long-name" / "2026-01-01" / str(number)
        finished(folder, config, [f"seed={seed}", f"+optim.lr={lr}"], val_f1=80 + number + 1 / 7, val_loss=1.0)


def test_the_list_tells_runs_apart(tmp_path: Path, runs: Runs) -> None:
    sweep(tmp_path)
    done = runs("list", str(tmp_path), "--sort", "val_f1", COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = done.stdout.splitlines()
    assert head.split() == [
        "run",
        "status",
        "seed",
        "lr",
        "dropout",
        "metric",
        "time",
    ]  # what a command sets comes first
    assert [row.split()[2:7] for row in rows[:2]] == [
        ["2", "0.12346", "0.8", "val_f1", "88.143"],
        ["1", "0.12346", "0.7", "val_f1", "87.143"],
    ]
    assert max(map(len, done.stdout.splitlines())) <= 80
    wide = runs("list", str(tmp_path), COLUMNS="160").stdout.splitlines()[0]
    assert wide.split() == ["run", "status", "model", "data", "seed", "lr", "dropout", "metric", "time"]
    narrow = runs("list", str(tmp_path), COLUMNS="44").stdout
    assert "val_f1 88.143" in narrow
    assert "no space for" in narrow
    assert max(map(len, narrow.splitlines())) <= 44


def test_the_list_knows_hyperparameters(tmp_path: Path, runs: Runs) -> None:
    sweep(tmp_path)

    def lines(*arguments: str) -> list[str]:
        done = runs("list", str(tmp_path), *arguments, COLUMNS="80")
        assert done.returncode == 0, done.stderr
        return list(done.stdout.splitlines())

    found = lines(
        "--where", "optim.lr>=1e-4", "--where", "seed=0", "--sort=-optim.lr", "--columns", "val_loss,optim.lr"
    )
    assert found[0].split() == ["run", "val_loss", "lr", "metric"]
    assert [row.split()[2] for row in found[1:]] == ["0.0001", "0.12346"]
    assert len(lines("--where", "optim.horizon=null")) == 10
    head, *rows = csv.reader(lines("--csv", "--sort=val_f1", "-n", "2", "--where", "seed=0"))
    first = dict(zip(head, rows[0], strict=True))
    assert (first["optim.lr"], first["val_f1"], first["status"]) == ("0.12345678", "86.14285714285714", "finished")
    assert not {"data.workers", "seed", "metrics", "parameters"} & set(head)  # no hyperparameter; the same in both
    assert lines("--csv", "--columns", "seed", "--where", "seed=1", "-n", "1")[0] == "folder,seed"
    for arguments, said in (
        (["--columns", "lr"], "no field lr; .*did you mean optim.lr"),
        (["--csv", "--columns", "optim.lrr"], "did you mean optim.lr"),
        (["--csv", "--json"], "not allowed with"),
    ):
        done = runs("list", str(tmp_path), *arguments)
        assert done.returncode == 2
        assert re.search(said, done.stderr), done.stderr


def test_hyperparameters_are_compared_where_all_runs_have_them() -> None:
    def row(**parameters: Any) -> dict[str, Any]:
        return {"parameters": parameters, "overridden": [], "model": parameters.get("model"), "data": None}

    assert hyperparameters.flatten({"a": {"b": {"c": [1, {"d": 2}]}, "e": {}}, "f": None}) == {
        "a.b.c": '[1, {"d": 2}]',
        "f": None,
    }
    assert hyperparameters.differing([row(x=1, y=True), row(x=2, y=True), row(), row(x=2, y=1)]) == ["x", "y"]
    assert hyperparameters.differing([row(x=1), row(y=2)]) == []
    models = [row(**{"model": name, "model.size": size, "seed": 0}) for name, size in (("a", 1), ("b", 2))]
    assert hyperparameters.differing(models) == []  # the model is a column; its size follows from it
    models[1]["overridden"] = ["model.size"]
    assert hyperparameters.differing(models) == ["model.size"]
