"""Settings for this machine: threads, precision, faster arithmetic on CPUs, and kernels of GPUs."""

import functools
import os
import platform
from typing import Any

import torch

from config import process
from runs.provenance import read_cpuinfo


def configure_cpu(threads: int | None) -> dict[str, Any]:
    """Set the CPU threads of this process and tune the CPU. Call it before anything is computed.

    Args:
        threads: number of threads; None divides all cores among the processes of this machine.

    Returns:
        Fields of run.json: `threads`, and as `cpu` what `tune_cpu` returns.
    """
    if threads is None:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if process.world_size() > 1 else 1
        # torchrun sets OMP_NUM_THREADS=1 by default, which is too few for training on CPUs.
        threads = max(1, process.available_cores() // processes)
    tuning = tune_cpu()
    torch.set_num_threads(threads)
    # Without it Lightning sets all cores of the machine in a process of several that torchrun did not start: a pod's.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    return {"threads": threads, "cpu": tuning}


def resolve_precision(precision: str | int, accelerator: str) -> str | int:
    """Replace `auto` by one of Lightning's precisions; return any other precision unchanged.

    bf16-mixed on GPUs that support it and on CPUs with AMX or AVX-512 products of bfloat16. With the latter it was 1.4
    to 1.8 times as fast (docs/benchmarks.md).
    """
    if precision != "auto":
        return precision
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if cpu_flags() & {"amx_bf16", "avx512_bf16"} else "32-true"


def avoid_plans_for_widths() -> None:
    """Keep attention off cuDNN, which builds a plan for each shape of a batch.

    torch prefers it on Hopper GPUs. Texts have dozens of widths, and the first batch of a new kind took up to two seconds
    (torch 2.11, cuDNN 9.19); torch's own kernels take any shape.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def tune_cpu() -> dict[str, bool]:
    """Apply CPU settings that save time and change results by rounding at most.

    Call it before anything is computed. Each setting is harmless where it does not apply.

    Returns:
        Which settings were applied, for run.json.
    """
    # Each width of a batch needs kernels of its own; oneDNN keeps 1,024 by default and recompiles the rest.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")
    return {
        "keeps_freed_memory": keep_freed_memory(),
        "onednn_float32": enable_onednn_float32(),
        "flushes_denormals": torch.set_flush_denormal(True),
    }


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for the next step.

    By default it returns large blocks to the system, and every step faults the same pages in again, for up to a third of
    its time. With the setting, the process holds the memory of its largest step.

    Returns:
        Whether the allocator took the settings (glibc does).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    import ctypes

    trim_threshold, mmap_max = -1, -4  # malloc.h
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(mmap_max, 0)) and bool(libc.mallopt(trim_threshold, 2**31 - 1))


def enable_onednn_float32() -> bool:
    """Let oneDNN multiply float32 matrices where MKL would not use AVX-512.

    MKL keeps to AVX2 on processors that are not Intel's; oneDNN is twice as fast on Zen 5. Torch uses oneDNN for
    float32 products only under a setting that also permits bfloat16 arithmetic, which oneDNN uses on AMX units alone.
    Hence the setting is skipped on processors with AMX, and the accuracy of the products is checked.

    Returns:
        Whether oneDNN computes matrix products.
    """
    flags = cpu_flags()
    if "avx512f" not in flags or "amx_bf16" in flags or read_cpuinfo("vendor_id") == "GenuineIntel":
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    default = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    if _float32_is_exact():
        return True
    matmul.fp32_precision = default
    return False


def _float32_is_exact() -> bool:
    """Whether products have float32's accuracy (bfloat16's is 2^-8), at several shapes."""
    generator = torch.Generator().manual_seed(0)
    for rows, inner, columns in ((1, 64, 64), (96, 384, 384), (512, 384, 1536), (160, 32, 160)):
        a = torch.randn(3, rows, inner, generator=generator)
        b = torch.randn(3, inner, columns, generator=generator)
        exact = a.double() @ b.double()
        for product in (a @ b, torch.stack([x @ y for x, y in zip(a, b, strict=True)])):
            if (product - exact).abs().max() > 1e-5 * inner:
                return False
    return True


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Return the processor's feature flags as Linux names them; empty on other systems."""
    return frozenset(read_cpuinfo("flags").split())
