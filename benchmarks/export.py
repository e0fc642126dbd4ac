"""Formats of a saved text model: torch in float32 and bfloat16, ONNX Runtime in float32 and 8-bit integers.

An encoder of BERT base's size with random weights answers batches of several sizes; the formats take turns. The median of a
batch in milliseconds, with the quartiles.
"""

import argparse
import copy
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForQuestionAnswering

from benchmarks.measure import machine
from serving import export_formats, export_speed
from trainers import bfloat16, hardware, onnx_network

SHAPES = [(1, 64), (1, 128), (1, 384), (8, 64), (8, 128), (8, 384)]


def batch(examples: int, length: int) -> dict[str, torch.Tensor]:
    """Tokens without padding."""
    ids = torch.randint(1000, 30_000, (examples, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def build(layers: int, folder: Path) -> dict[str, Any]:
    """The network in each format."""
    torch.manual_seed(0)
    network = BertForQuestionAnswering(BertConfig(num_hidden_layers=layers)).eval()
    networks: dict[str, Any] = {"torch fp32": network, "torch bf16": copy.deepcopy(network)}
    bfloat16.convert(networks["torch bf16"])
    for name in ("onnx", "onnx-int8"):
        (folder / name).mkdir()
        export_formats.write_onnx(network, batch(2, 8), folder / name)
    export_formats.quantize(folder / "onnx-int8", lambda: iter(()))
    for name in ("onnx", "onnx-int8"):
        networks[name] = onnx_network.load(folder / name)
        print(f"{name}: {export_speed.folder_size(folder / name) / 2**20:.0f} MiB", flush=True)
    return networks


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int)
    chosen = parser.parse_args()
    hardware.configure_cpu(chosen.threads)
    print(f"Machine: {machine()}; {torch.get_num_threads()} threads\n")
    with tempfile.TemporaryDirectory() as temporary, torch.inference_mode():
        networks = build(chosen.layers, Path(temporary))
        print(f"\n| examples | tokens | {' | '.join(networks)} | int8 over fp32 | int8 over bf16 |")
        print("|---:|---:|" + "---:|" * (len(networks) + 2))
        for examples, length in SHAPES:
            inputs = batch(examples, length)
            seconds: dict[str, list[float]] = {name: [] for name in networks}
            for number in range(2 + chosen.rounds):
                for name, network in networks.items():
                    start = time.perf_counter()
                    network(**inputs)
                    if number >= 2:
                        seconds[name].append(1000 * (time.perf_counter() - start))
            low, median, high = (
                {name: float(np.percentile(values, q)) for name, values in seconds.items()} for q in (25, 50, 75)
            )
            cells = [f"{median[name]:.0f} ({low[name]:.0f} to {high[name]:.0f})" for name in networks]
            ratios = [f"{median[name] / median['onnx-int8']:.1f}x" for name in ("torch fp32", "torch bf16")]
            print(f"| {examples} | {length} | {' | '.join([*cells, *ratios])} |", flush=True)


if __name__ == "__main__":
    main()
