"""Settings that make training on a CPU quicker and change no result beyond rounding.

Apply them before anything is computed; each is harmless where it does not fit.
"""

from __future__ import annotations

import functools
import os
import platform
import sys
from pathlib import Path
from typing import Any


def tune_cpu() -> dict[str, bool]:
    """Applies what helps on this machine.

    Returns:
        What was applied, for run.json.
    """
    import torch

    # Each width of a batch has kernels of its own; oneDNN keeps 1,024 and compiles the rest again and again.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")
    return {
        "keeps_freed_memory": keep_freed_memory(),
        "onednn_float32": enable_onednn_float32(),
        "flushes_denormals": torch.set_flush_denormal(True),
    }


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory for the next step.

    By default it gives large blocks back to the system, and every step faults the same pages in again: up to
    a third of its time. What the process holds stays at the largest step's.

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
    """Lets oneDNN multiply float32 matrices where MKL would not use AVX-512.

    MKL keeps to AVX2 on processors that are not Intel's; oneDNN does twice as much on Zen 5. Torch hands
    float32 matrices to oneDNN only under a setting that also permits bfloat16 arithmetic, which oneDNN uses
    on AMX units alone: so not where those are, and the products are checked to be float32's.

    Returns:
        Whether oneDNN has the matrix products now.
    """
    import torch

    flags = cpu_flags()
    if "avx512f" not in flags or "amx_bf16" in flags or _vendor() == "GenuineIntel":
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    if _float32_is_exact():
        return True
    matmul.fp32_precision = before
    return False


def _float32_is_exact() -> bool:
    """Whether products have float32's accuracy (bfloat16's is 2^-8), at several shapes."""
    import torch

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
    """What the processor can do, in Linux's words; empty elsewhere."""
    return frozenset(_cpuinfo("flags").split())


def _vendor() -> str:
    return _cpuinfo("vendor_id")


def _cpuinfo(key: str) -> str:
    if sys.platform != "linux":
        return ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
