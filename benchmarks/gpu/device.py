"""The device: its name, datasheet peak and measured ceilings; the floating-point operations of a network."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.workloads import ENCODERS, Workload

# Dense bfloat16 operations per second by the vendors' datasheets (SXM parts), by a word of the device's name.
PEAKS = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "B200": 2250e12}


def describe(repeats: int = 20) -> dict[str, Any]:
    """Name, memory, driver, peak by the datasheet, and what a large product and a large copy reach.

    Args:
        repeats: products, and copies, that are timed.
    """
    import torch

    if not torch.cuda.is_available():
        return {"device": "cpu"}
    properties = torch.cuda.get_device_properties(0)
    name = properties.name
    found: dict[str, Any] = {
        "device": name,
        "memory_mib": properties.total_memory // 2**20,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "peak": next((peak for word, peak in PEAKS.items() if word in name.split()), None),
    }
    side = 8192
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = _time(lambda: a @ b, repeats)
    found["matrix_product"] = 2 * side**3 / seconds
    source = torch.randn(2**30, device="cuda")  # 4 GiB
    target = torch.empty_like(source)
    seconds = _time(lambda: target.copy_(source), repeats)
    found["copy_bytes_per_second"] = 2 * source.nbytes / seconds
    return found


def _time(run: Any, repeats: int) -> float:
    """Seconds of one call: the mean of `repeats` calls after three."""
    import torch

    for _ in range(3):
        run()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


def forward_operations(workload: Workload, sizes: list[int]) -> list[float]:
    """Floating-point operations of the matrix products and convolutions of a forward pass over one example.

    Args:
        workload: the network.
        sizes: lengths in tokens, or sides of images.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    found = []
    for size in sizes:
        with torch.device("meta"):
            if workload.kind == "images":
                from timm import create_model

                fixed = {"img_size": size} if workload.network.startswith("vit") else {}
                network: Any = create_model(workload.network, num_classes=200, **fixed)
                inputs: dict[str, Any] = {"x": torch.empty(1, 3, size, size)}
            else:
                from transformers import BertConfig, BertForQuestionAnswering

                # Its products are plain ones, which are counted.
                config = BertConfig(**ENCODERS[workload.network], attn_implementation="eager")
                network = BertForQuestionAnswering(config)
                inputs = {"input_ids": torch.zeros(1, size, dtype=torch.int64)}
            if workload.network.startswith("vit"):
                for block in network.blocks:
                    block.attn.fused_attn = False
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network.eval()(**inputs)
        found.append(float(counter.get_total_flops()))
    return found


def training_operations(workload: Workload, lengths: Any) -> float:
    """Operations of training on an average example: three times those of the forward pass; padding does not count.

    Those of an encoder are a n + b n^2 for n tokens, by two measured lengths.

    Args:
        workload: the network.
        lengths: tokens of each example, [N]; ignored for images.
    """
    if workload.kind == "images":
        return 3 * forward_operations(workload, [workload.size])[0]
    short, long = workload.size // 4, workload.size
    at_short, at_long = forward_operations(workload, [short, long])
    quadratic = (at_long / long - at_short / short) / (long - short)
    linear = at_short / short - quadratic * short
    return 3 * sum(linear * n + quadratic * n * n for n in lengths) / len(lengths)
