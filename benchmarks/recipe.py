"""The peer: transformers' own Trainer with its public question-answering recipe, in few lines.

As `examples/pytorch/question-answering/run_qa.py` does it: `datasets.map` tokenises into windows of 384 tokens with a
stride of 128, the Trainer trains. `--batches padded` is the recipe as it comes (every window padded to 384);
`--batches grouped` pads to the longest window of a batch and groups windows by length.

    python -m benchmarks.recipe --model FOLDER --data questions.json --batches grouped --precision bf16
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from typing import Any


def features(
    examples: dict[str, list[Any]], tokenizer: Any, padded: bool, max_length: int = 384, stride: int = 128
) -> dict[str, Any]:
    """The recipe's `prepare_train_features`: windows with the answer's token positions, CLS where it is not."""
    encoded = tokenizer(
        [question.lstrip() for question in examples["question"]],
        examples["context"],
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding="max_length" if padded else False,
    )
    samples = encoded.pop("overflow_to_sample_mapping")
    mappings = encoded.pop("offset_mapping")
    encoded["start_positions"], encoded["end_positions"] = [], []
    for i, mapping in enumerate(mappings):
        answers = examples["answers"][samples[i]]
        sequence = encoded.sequence_ids(i)
        first = sequence.index(1)
        last = len(sequence) - 1 - sequence[::-1].index(1)
        start = end = encoded["input_ids"][i].index(tokenizer.cls_token_id)
        if answers["answer_start"]:
            begin = answers["answer_start"][0]
            finish = begin + len(answers["text"][0])
            if mapping[first][0] <= begin and mapping[last][1] >= finish:
                start, end = first, last
                while start < len(mapping) and mapping[start][0] <= begin:
                    start += 1
                while mapping[end][1] >= finish:
                    end -= 1
                start, end = start - 1, end + 1
        encoded["start_positions"].append(start)
        encoded["end_positions"].append(end)
    return dict(encoded)


def main() -> None:
    """Trains; the last line on stdout is JSON with rates and times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a transformers folder: weights and tokenizer")
    parser.add_argument("--data", required=True, help='flat JSON: {"data": [{id, context, question, answers}]}')
    parser.add_argument("--cache", required=True, help="folder of the datasets library's cache")
    parser.add_argument("--batches", choices=("padded", "grouped"), default="padded")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=-1)
    parser.add_argument("--skip", type=int, default=2, help="steps that do not count")
    options = parser.parse_args()

    from datasets import load_dataset
    from transformers import (
        AutoConfig,
        AutoModelForQuestionAnswering,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        default_data_collator,
    )

    padded = options.batches == "padded"
    files = {"train": options.data}
    raw = load_dataset("json", data_files=files, field="data", cache_dir=options.cache)["train"]
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    config = AutoConfig.from_pretrained(options.model)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = options.dropout
    model = AutoModelForQuestionAnswering.from_pretrained(options.model, config=config)
    train = raw.map(
        features,
        batched=True,
        remove_columns=raw.column_names,
        fn_kwargs={"tokenizer": tokenizer, "padded": padded},
    )
    ends: list[tuple[float, float]] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append((time.time(), time.process_time()))

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=12,
            learning_rate=3e-5,
            weight_decay=0.01,
            num_train_epochs=1,
            max_steps=options.steps,
            dataloader_drop_last=True,
            train_sampling_strategy="random" if padded else "group_by_length",
            bf16=options.precision == "bf16",
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=train,
            processing_class=tokenizer,
            data_collator=default_data_collator if padded else DataCollatorWithPadding(tokenizer),
            callbacks=[Clock()],
        )
        loss = trainer.train().training_loss
    print(json.dumps({"windows": len(train), "loss": loss, "first_step": ends[0][0], **rates(ends, options.skip)}))


def rates(ends: list[tuple[float, float]], skip: int = 2, batch: int = 12) -> dict[str, float]:
    """Examples per second and per second of processor time, from both clocks at the end of each step.

    The first steps are left out: kernels are compiled then. The second rate is of use where others share the machine.
    """
    counted = len(ends) - skip
    if skip < 1 or counted < 1:
        return {}
    seconds, processor = (ends[-1][i] - ends[skip - 1][i] for i in (0, 1))
    return {"rate": batch * counted / seconds, "rate_by_processor": batch * counted / processor}


if __name__ == "__main__":
    main()
