"""transformers' Trainer with its public recipes for questions and for classification of texts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gpu import data as files
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.workloads import Workload


def train(workload: Workload, batches: str, compiled: bool, folder: Path, clock: Clock) -> None:
    """Train until the clock ends it.

    Args:
        workload: questions or texts.
        batches: padded or grouped.
        compiled: whether torch.compile is on.
        folder: of the benchmark's files.
        clock: called after each step.
    """
    import torch
    from transformers import (
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        default_data_collator,
    )

    head = AutoModelForSequenceClassification if workload.kind == "texts" else AutoModelForQuestionAnswering
    model = head.from_pretrained(files.weights(workload, folder))
    tokenizer = AutoTokenizer.from_pretrained(files.tokenizer_folder(folder))
    padded = batches == "padded"

    class EndOfStep(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step()

    with tempfile.TemporaryDirectory() as name:
        arguments = TrainingArguments(
            output_dir=name,
            per_device_train_batch_size=workload.batch,
            learning_rate=3e-5,
            weight_decay=0.01,
            max_steps=1_000_000,
            dataloader_drop_last=True,
            train_sampling_strategy="random" if padded else "group_by_length",
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            torch_compile=compiled,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        )
        Trainer(
            model=model,
            args=arguments,
            train_dataset=files.load_features(workload, folder, padded),
            processing_class=tokenizer,
            # Widths of a multiple of 8, as the recipes choose under mixed precision.
            data_collator=default_data_collator if padded else DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8),
            callbacks=[EndOfStep()],
        ).train()


def avoid_cudnn() -> None:
    """Keep attention off cuDNN, which builds a plan for each width, as isotrain does."""
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)
