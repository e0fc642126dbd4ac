"""Every reader of every command: the command line, the files it reads, and which of them are damaged."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from omegaconf import OmegaConf
from tests.fuzz import mutations, world

REFUSED = frozenset({0, 2})  # codes of a command without gates
GATED = frozenset({0, 2, 4, 5})


class Target(NamedTuple):
    """One command and what it reads.

    Attributes:
        name: The name.
        arguments: The command line, in the case's folder.
        inputs: Files and folders of the world that are copied into the case's folder.
        damaged: Patterns of the files that are damaged. A pattern that names a folder damages its entry.
        outputs: Patterns of files that the command may write.
        codes: Exit codes that damage may lead to.
        override: Returns further arguments, in place of damaged files.
    """

    name: str
    arguments: tuple[str, ...]
    inputs: tuple[str, ...]
    damaged: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    codes: frozenset[int] = REFUSED
    override: Callable[[random.Random], list[str]] | None = None


MODELS = {"qa": "questions.jsonl", "text": "texts.csv", "image": "images/val/dots"}
MODEL_FILES = (
    "model/*",
    "run.json",
    "model/config.json",
    "model/*.safetensors",
    "model/isotrain.json",
    "model/tokenizer*",
)
RUN_FILES = (
    *("run.json", "run.json", "metrics.jsonl", "predictions.jsonl", ".hydra/*", "quality/verdict.json", "explain/*"),
    *("report.html", "quality/rows.jsonl", "."),
)


def _train(name: str, data: str, overrides: tuple[str, ...], damaged: tuple[str, ...]) -> Target:
    return Target(
        f"train on damaged {name}",
        ("train.py", *(f"data.path={data}" if word.startswith("data.path=") else word for word in overrides), *world.NO_GATES, "hydra.run.dir=run"),
        (data,), damaged, ("run/*",), REFUSED | {3},
    )  # fmt: skip


def _of_runs(name: str, *arguments: str, outputs: tuple[str, ...] = ()) -> Target:
    return Target(
        name, ("-m", "runs", *arguments), ("runs/qa", "runs/qa-1"), tuple(f"runs/qa/{f}" for f in RUN_FILES), outputs
    )


def _configuration(generator: random.Random) -> list[str]:
    """Draw an override of one key of the configuration by a value of the wrong kind or size."""
    from config.compose import compose_cached

    config = OmegaConf.to_container(compose_cached(()), resolve=False)
    keys = []

    def walk(node: object, prefix: str) -> None:
        for key, value in node.items() if isinstance(node, dict) else ():
            keys.append(f"{prefix}{key}")
            walk(value, f"{prefix}{key}.")

    walk(config, "")
    skipped = ("trainer.max_time", "hydra", "data.sample.train", "data.sample.val")  # large ones are large trainings
    name = generator.choice([key for key in keys if not key.startswith(skipped)])
    value = generator.choice(
        [v for v in mutations.VALUES if v not in ("@deep@",) and not (isinstance(v, str) and "\0" in v)]
    )
    text = (
        {None: "null", True: "true", False: "false"}.get(value) if not isinstance(value, list | dict | float) else None
    )
    if text is None:
        text = str(value).replace("@long@", "7" * 5000).replace("'", "\\'")
        text = f"'{text}'" if isinstance(value, str) else text.replace(" ", "")
    return [f"{generator.choice(('', '', '+', '++', '~'))}{name}={text.encode('utf-8', 'replace').decode()}"]


def _case_arguments(generator: random.Random) -> list[str]:
    return _configuration(generator)


_SEARCH = ("search/experiment.json", "search/trials.jsonl", "search/*", "search/toy*/*")
TARGETS: tuple[Target, ...] = (
    _train("questions", "questions", world.QUESTIONS, ("questions/*.json",)),
    _train("texts", "texts", world.TEXTS, ("texts/*",)),
    _train("parquet", "text_tables", world.TEXTS, ("text_tables/*.parquet",)),
    _train("csv", "text_tables/csv", world.TEXTS, ("text_tables/csv/*",)),
    _train("images", "images", world.IMAGES, ("images/*/*/*", "images/*/*/*", "images/*/*", "images/*")),
    Target(
        "configuration",
        ("train.py", *world.QUESTIONS, *world.NO_GATES, "hydra.run.dir=run"),
        ("questions",),
        (),
        ("run/*", "e" * 3 + "*", "*.jsonl", "null*", "nan*", "0*"),  # damaged values that name a folder or file
        REFUSED | {3, 7, 8},
        _case_arguments,
    ),
    *(
        Target(
            f"resume {name}",
            ("train.py", *world.QUESTIONS, "quality=off", "explain=off", "hydra.run.dir=runs/unfinished"),
            ("runs/unfinished", "questions"),
            damaged,
            ("runs/unfinished/*",),
            REFUSED | {3},
        )
        for name, damaged in (
            ("checkpoint", ("runs/unfinished/checkpoints/*",)),
            (
                "run",
                (
                    "runs/unfinished/run.json",
                    "runs/unfinished/metrics.jsonl",
                    "runs/unfinished/.hydra/*",
                    "runs/unfinished/*",
                ),
            ),
        )
    ),
    Target(
        "finished run again",
        (
            "train.py",
            *world.QUESTIONS,
            "quality=warn",
            "explain=warn",
            "explain.examples=8",
            "explain.min_correct=1",
            "hydra.run.dir=runs/qa",
        ),
        ("runs/qa", "questions"),
        tuple(f"runs/qa/{f}" for f in RUN_FILES),
        ("runs/qa/*",),
        REFUSED | {3},
    ),
    Target(
        "init_from",
        ("train.py", *world.QUESTIONS, *world.NO_GATES, "init_from=runs/qa", "hydra.run.dir=run"),
        ("runs/qa", "questions"),
        tuple(f"runs/qa/{f}" for f in ("run.json", "model/*", "checkpoints/best.ckpt", "checkpoints")),
        ("run/*",),
        REFUSED | {3},
    ),
    *(
        Target(
            f"predict {name}",
            ("-m", "trainers", "predict", f"run=runs/{name}", path),
            (f"runs/{name}", path),
            tuple(f"runs/{name}/{f}" for f in MODEL_FILES),
        )
        for name, path in MODELS.items()
    ),
    *(
        Target(
            f"predict {name} folder",
            ("-m", "trainers", "predict", f"run=runs/{name}/model", path),
            (f"runs/{name}/model", path),
            (f"runs/{name}/model/*", f"runs/{name}/model"),
        )
        for name, path in MODELS.items()
    ),
    *(
        Target(
            f"predict from {path}",
            ("-m", "trainers", "predict", f"run=runs/{name}", path),
            (f"runs/{name}", path),
            (path, f"{path}/*"),
        )
        for name, path in (
            *MODELS.items(),
            ("qa", "questions/dev-v1.1.json"),
            ("text", "text_tables/val.parquet"),
            ("text", "texts/val.jsonl"),
        )
    ),
    *(
        Target(
            f"evaluate {name}",
            ("-m", "trainers", "evaluate", f"run=runs/{name}", "trainer.threads=1", "--output", "out"),
            (f"runs/{name}", data),
            (f"runs/{name}/run.json", f"runs/{name}/run.json", *(f"runs/{name}/{f}" for f in MODEL_FILES)),
            ("out/*",),
            REFUSED,
        )
        for name, data in (("qa", "questions"), ("text", "texts"), ("image", "images"))
    ),
    *(
        Target(
            f"contract {name}",
            (
                "-m",
                "quality",
                f"data={data}",
                f"data.path={path}",
                f"quality.contract=contract-{name}.yaml",
                "--folder",
                "out",
            ),
            (path, f"contract-{name}.yaml"),
            (f"contract-{name}.yaml",),
            ("out/*",),
            GATED,
        )
        for name, data, path in (
            ("squad", "squad", "questions"),
            ("text_folder", "text_folder", "texts"),
            ("image_folder", "image_folder", "images"),
        )
    ),
    Target(
        "quality of questions",
        ("-m", "quality", "data=squad", "data.path=questions", "--folder", "out"),
        ("questions",),
        ("questions/*",),
        ("out/*",),
        GATED,
    ),
    Target(
        "quality of images",
        ("-m", "quality", "data=image_folder", "data.path=images", "--folder", "out"),
        ("images",),
        ("images/*/*/*", "images/*/*/*", "images/*/*"),
        ("out/*",),
        GATED,
    ),
    Target(
        "quality init",
        (
            "-m",
            "quality",
            "init",
            "data=squad",
            "data.path=questions",
            "quality.contract=contract-squad.yaml",
            "-o",
            "new.yaml",
        ),
        ("questions", "contract-squad.yaml"),
        ("contract-squad.yaml", "questions/*"),
        ("new.yaml",),
        GATED,
    ),
    Target(
        "drift",
        ("-m", "quality", "drift", "reference=runs/qa", "data=squad", "data.path=questions", "--folder", "out"),
        ("runs/qa", "questions"),
        ("runs/qa/run.json", "runs/qa/run.json", "runs/qa/quality/*", "runs/qa/*"),
        ("out/*",),
        GATED,
    ),
    Target(
        "drift with a model",
        (
            "-m",
            "quality",
            "drift",
            "reference=runs/qa",
            "--model",
            "runs/qa",
            "data=squad",
            "data.path=questions",
            "--folder",
            "out",
        ),
        ("runs/qa", "questions"),
        ("runs/qa/run.json", "runs/qa/model/*"),
        ("out/*",),
        GATED,
    ),
    Target(
        "explain",
        ("-m", "explain", "run=runs/qa", "explain.examples=8", "explain.min_correct=1", "--folder", "out"),
        ("runs/qa", "questions"),
        ("runs/qa/run.json", "runs/qa/model/*"),
        ("out/*",),
        GATED,
    ),
    Target(
        "explain calibrate",
        ("-m", "explain", "calibrate", "-o", "bounds.json", "runs/qa", "runs/qa-1", "runs/qa-2"),
        ("runs/qa", "runs/qa-1", "runs/qa-2"),
        ("runs/qa/explain/verdict.json", "runs/qa/explain/*", "runs/qa/run.json"),
        ("bounds.json",),
        GATED,
    ),
    *(
        Target(
            f"cache of {name}",
            ("-m", "datamodules", "prepare", *overrides),
            ("cache", data),
            ("cache/*/*/*", "cache/*/*/*", "cache/*/*", "cache/*"),
            ("cache/*",),
        )
        for name, data, overrides in (
            ("questions", "questions", world.QUESTIONS),
            ("texts", "texts", world.TEXTS),
            ("images", "images", world.IMAGES),
        )
    ),
    *(
        Target(
            f"train on a cache of {name}",
            ("train.py", *overrides, *world.NO_GATES, "hydra.run.dir=run"),
            ("cache", data),
            ("cache/*/*/*", "cache/*/*/*", "cache/*/*", "cache/*"),
            ("cache/*", "run/*"),
            REFUSED | {3},
        )
        for name, data, overrides in (
            ("questions", "questions", world.QUESTIONS),
            ("texts", "texts", world.TEXTS),
            ("images", "images", world.IMAGES),
        )
    ),
    _of_runs("runs show", "show", "runs/qa"),
    _of_runs("runs show --command", "show", "--command", "runs/qa"),
    _of_runs("runs show --json", "show", "--json", "runs/qa"),
    _of_runs("runs list", "list", "runs"),
    _of_runs("runs list --where", "list", "runs", "--where", "val_f1>0", "--sort", "val_f1", "--json"),
    _of_runs("runs compare", "compare", "runs/qa-1", "runs/qa", "--resamples", "100"),
    _of_runs("runs report", "report", "runs/qa", "runs/qa-1", "-o", "page.html", outputs=("runs/*", "page.html")),
    _of_runs("runs report --against", "report", "runs/qa-1", "--against", "runs/qa", outputs=("runs/*",)),
    Target(
        "runs register",
        ("-m", "runs", "register", "runs/qa", "--name", "new", "--server", world.SERVER, "--despite-gates"),
        ("runs/qa", "registry"),
        ("runs/qa/run.json", "runs/qa/model/*", "runs/qa/*/verdict.json", "runs/qa/*", "registry/mlflow.db"),
        ("registry/*",),
        REFUSED | {7},
    ),
    Target(
        "runs register at first use",
        (
            "-m",
            "runs",
            "register",
            "runs/qa",
            "--name",
            "new",
            "--server",
            "sqlite:///store/mlflow.db",
            "--despite-gates",
        ),
        ("runs/qa",),
        ("runs/qa/run.json", "runs/qa/model/*"),
        ("store/*",),
        REFUSED | {7},
    ),
    Target(
        "runs champion",
        ("-m", "runs", "champion", "qa", "--server", world.SERVER, "--folder", "out"),
        ("registry",),
        ("registry/mlflow.db", "registry/mlflow.db", "registry/*"),
        ("out/*", "registry/*"),
        REFUSED | {7},
    ),
    Target("katib check", ("-m", "katib", "check", "experiment.yaml"), ("experiment.yaml",), ("experiment.yaml",)),
    Target("katib check search", ("-m", "katib", "check", "search.yaml"), ("search.yaml",), ("search.yaml",)),
    Target(
        "katib check --json",
        ("-m", "katib", "check", "--format", "json", "experiment.yaml", "search.yaml"),
        ("experiment.yaml", "search.yaml"),
        ("*.yaml",),
    ),
    Target(
        "katib run",
        ("-m", "katib", "run", "search.yaml", "--folder", "new", "--deadline", "10"),
        ("search.yaml",),
        ("search.yaml",),
        ("new/*",),
        REFUSED | {6},
    ),
    Target(
        "katib run again",
        ("-m", "katib", "run", "search.yaml", "--folder", "search", "--max-trials", "3"),
        ("search.yaml", "search"),
        _SEARCH,
        ("search/*",),
        REFUSED | {6},
    ),
    Target("katib best", ("-m", "katib", "best", "./search"), ("search",), _SEARCH),
    Target(
        "katib new --again",
        ("-m", "katib", "new", "--again", "experiment.yaml"),
        ("experiment.yaml",),
        ("experiment.yaml",),
        ("experiment.yaml",),
    ),
    Target("katib stop", ("-m", "katib", "stop", "runs/qa", "--wait", "1"), ("runs/qa",), ("runs/qa/*", "runs/qa/.*")),
    Target("pipelines check", ("-m", "pipelines", "check", "pipeline.yaml"), ("pipeline.yaml",), ("pipeline.yaml",)),
    Target(
        "pipelines compile --again",
        ("-m", "pipelines", "compile", "--again", "pipeline.yaml"),
        ("pipeline.yaml",),
        ("pipeline.yaml",),
        ("pipeline.yaml",),
    ),
    Target(
        "pipelines status",
        ("-m", "pipelines", "status", "outputs/pipelines/p"),
        ("outputs",),
        ("outputs/pipelines/p/*", "outputs/pipelines/p/*/*"),
        (),
        REFUSED | {6},
    ),
)


def choose_file(folder: Path, target: Target, generator: random.Random) -> Path | None:
    """Choose the file or folder to damage; None if the patterns match nothing."""
    patterns = list(target.damaged)
    generator.shuffle(patterns)
    for pattern in patterns:
        if matches := sorted(folder.glob(pattern) if pattern != "." else [folder]):
            return generator.choice(matches)
    return None
