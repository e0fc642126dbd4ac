"""What this machine's processor does well: threads and precision."""

import os

import torch

from config import process
from trainers import cpu


def configure_cpu(threads: int | None) -> int:
    """Sets the CPU threads of this process; None shares all cores among the processes of this machine.

    Without a GPU it also applies `trainers.cpu`'s settings, before anything is computed.

    Returns:
        How many there are.
    """
    if threads is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if process.world_size() > 1 else 1
        # torchrun sets OMP_NUM_THREADS=1 when nobody did, which is right for nobody who trains on CPUs.
        threads = max(1, cores // processes)
    if not torch.cuda.is_available():
        cpu.tune_cpu()
    torch.set_num_threads(threads)
    return threads


def resolve_precision(wanted: str | int, accelerator: str) -> str | int:
    """`auto` as one of Lightning's precisions; anything else as it is.

    bf16-mixed on GPUs that have it and on CPUs with AMX or AVX-512 products of bfloat16. With the latter it was 1.4 to 1.8
    times as fast (docs/benchmarks.md).
    """
    if wanted != "auto":
        return wanted
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if cpu.cpu_flags() & {"amx_bf16", "avx512_bf16"} else "32-true"
