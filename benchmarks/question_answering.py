"""Fine-tuning for question answering: windows per second, against transformers' Trainer with its public recipe.

`python -m benchmarks.question_answering --data ../shared/data` takes real questions; without it, generated ones. Every
contestant is a fresh process with the same random weights of a 6-layer, 384-wide BERT, the same windows, batches of 12
and fused AdamW; ours goes through the same `fit` as `train.py`. The first steps are left out (compilation of kernels).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.recipe import rates

BATCH = 12
CONTESTANTS = {
    "ours": "isotrain",
    "grouped": "Trainer, dynamic padding, grouped by length",
    "padded": "Trainer, the recipe as it comes (padded to 384)",
}


def main() -> None:
    """Prints the table, or, as `--worker`, measures one contestant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with squad/ and bert-base-uncased-vocab.txt")
    parser.add_argument("--windows", type=int, default=600, help="one epoch of them is measured")
    parser.add_argument("--padded-steps", type=int, default=8, help="steps of the padded recipe: all cost the same")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", nargs="*", default=["fp32", "bf16"])
    parser.add_argument("--dropout", nargs="*", type=float, default=[0.1, 0.0])
    parser.add_argument("--processor-time", action="store_true", help="rates by processor time, on a busy machine")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return _worker(options.folder, options.precision[0], options.dropout[0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.data, options.windows)
        rows = []
        for precision in options.precision:
            for dropout in options.dropout:
                rows += _rows(folder, precision, dropout, options)
    by = ", by processor time: others shared the machine" if options.processor_time else ""
    measure.report(
        "Fine-tuning, question answering",
        [
            "contestant",
            "precision",
            "dropout",
            "windows/s",
            "isotrain is faster by",
            "mean loss of the epoch",
        ],
        rows,
        f"{'Real questions of SQuAD' if options.data else 'Generated questions'}, one epoch of {options.windows}, "
        f"batches of {BATCH}, 6 layers, 384 wide, random weights, {options.threads} threads; "
        f"medians of {options.repeats} (smallest to largest){by}. Required: 5 times the recipe as it comes, 1.5 times "
        "the grouped one, at the same precision and dropout. The losses differ because the peer's softmax goes over "
        "padding too, and by the order of the batches.",
    )


def _rows(folder: Path, precision: str, dropout: float, options: argparse.Namespace) -> list[list[str]]:
    losses: dict[str, float] = {}

    def run(contestant: str) -> float:
        result = contest(folder, contestant, precision, dropout, options.padded_steps, options.threads)
        losses[contestant] = result["loss"]
        return float(result["rate_by_processor" if options.processor_time else "rate"])

    found = measure.alternate({name: functools.partial(run, name) for name in CONTESTANTS}, options.repeats)
    rows = []
    for name, title in CONTESTANTS.items():
        faster = "" if name == "ours" else f"{measure.ratio(found['ours'], found[name]).text(2)}"
        loss = "" if name == "padded" else f"{losses[name]:.3f}"  # it does not see the whole epoch
        rows.append([title, precision, f"{dropout:g}", found[name].text(1), faster, loss])
    return rows


def contest(
    folder: Path, contestant: str, precision: str, dropout: float, padded_steps: int, threads: int
) -> dict[str, Any]:
    """One measurement in a fresh process: `rate` in windows per second, `loss`."""
    environment = {"OMP_NUM_THREADS": str(threads), "ISOTRAIN_CACHE": str(folder / "cache")}
    if contestant == "ours":
        return measure.fresh(
            "benchmarks.question_answering",
            "--worker",
            "ours",
            "--folder",
            str(folder),
            "--precision",
            precision,
            "--dropout",
            str(dropout),
            env=environment,
        )
    steps = ("--steps", str(padded_steps)) if contestant == "padded" else ()
    return measure.fresh(
        "benchmarks.recipe",
        "--model",
        str(folder / "model"),
        "--data",
        str(folder / "train.json"),
        "--cache",
        str(folder / "datasets"),
        "--batches",
        contestant,
        "--precision",
        precision,
        "--dropout",
        str(dropout),
        *steps,
        env=environment,
    )


def prepare(folder: Path, data: Path | None, windows: int, layers: int = 6, width: int = 384) -> None:
    """Writes what all contestants share: train.json, val.json (flat), model/ (random weights and the tokenizer)."""
    import torch
    from transformers import BertConfig, BertForQuestionAnswering
    from transformers.utils import logging

    from config.compose import compose
    from datamodules.text import squad
    from trainers.build import build

    logging.disable_progress_bar()
    os.environ["ISOTRAIN_CACHE"] = str(folder / "cache")
    overrides = ["model=minilm", "model.pretrained=null", "data=squad_sample"]
    if data is not None:
        overrides = [
            "model=minilm",
            "model.pretrained=null",
            f"model.tokenizer={data / 'bert-base-uncased-vocab.txt'}",
            "data=squad",
            f"data.train_file={data / 'squad' / 'train-v1.1-subset.json'}",
            f"data.val_file={data / 'squad' / 'dev-v1.1.json'}",
        ]
    module = build(compose(overrides), "data")
    questions = list(squad.read(module.files("train")))
    random.Random(0).shuffle(questions)
    _flat(folder / "train.json", questions[:windows])  # at least one window each
    _flat(folder / "val.json", questions[windows : windows + 20])
    module.tokenizer().save_pretrained(folder / "model")
    torch.manual_seed(0)
    size = BertConfig(
        vocab_size=module.vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        intermediate_size=4 * width,
    )
    BertForQuestionAnswering(size).save_pretrained(folder / "model")


def overrides(folder: Path, precision: str, dropout: float) -> list[str]:
    """The command line of ours over what `prepare` wrote."""
    return [
        "model=minilm",
        f"model.pretrained={folder / 'model'}",
        f"model.dropout={dropout}",
        f"model.attention_dropout={dropout}",
        "data=squad",
        f"data.train_file={folder / 'train.json'}",
        f"data.val_file={folder / 'val.json'}",
        f"data.batch_size={BATCH}",
        "optim.lr=3e-5",
        "optim.warmup=0",
        "trainer.max_epochs=1",
        f"trainer.precision={'bf16-mixed' if precision == 'bf16' else '32-true'}",
        "trainer.accelerator=cpu",
    ]


def _flat(path: Path, questions: list[Any]) -> None:
    rows = [
        {
            "id": each.id,
            "title": each.title,
            "context": each.context,
            "question": each.question,
            "answers": {
                "text": [text for text, _ in each.answers],
                "answer_start": [at for _, at in each.answers],
            },
        }
        for each in questions
    ]
    path.write_text(json.dumps({"data": rows}))


def _worker(folder: Path, precision: str, dropout: float) -> None:
    """Ours: what train.py does between its record and its export, with a clock in the module."""
    from config.compose import compose
    from trainers import hardware
    from trainers.build import build
    from trainers.fit import fit

    config = compose(
        [
            *overrides(folder, precision, dropout),
            "trainer.limit_val_batches=0",
            "trainer.limit_train_batches=null",
        ]
    )
    hardware.configure_cpu(int(os.environ["OMP_NUM_THREADS"]))
    data = build(config, "data")
    data.prepare_data()
    data.setup("fit")
    model = build(config, "model", data=data, optim=config.optim)
    ends: list[tuple[float, float]] = []
    losses: list[float] = []

    def end(outputs: Any, *_: Any) -> None:
        ends.append((time.time(), time.process_time()))
        losses.append(float(outputs["loss"]))

    model.on_train_batch_end = end
    with tempfile.TemporaryDirectory() as name:
        fit(config, data, model, [], Path(name))
    print(json.dumps({"windows": len(data.train_windows), "loss": sum(losses) / len(losses), **rates(ends)}))


if __name__ == "__main__":
    main()
