"""Removes from this environment what only a GPU loads: `docker build --build-arg ACCELERATOR=cpu`.

torch's wheels on PyPI link to some of CUDA's libraries, without which torch cannot be imported; the rest is loaded when a GPU is
used. What a process that has imported torch has mapped stays. Triton, which compiles for GPUs, is uninstalled.
"""

import subprocess
import sys
from pathlib import Path


def unused_libraries(folder: Path, mapped: set[Path]) -> list[Path]:
    """Return the files of NVIDIA's packages that are neither mapped nor Python.

    Args:
        folder: site-packages.
        mapped: files that a process has mapped, resolved.
    """
    files = sorted(path for path in folder.glob("nvidia/**/*") if path.is_file() or path.is_symlink())
    return [path for path in files if path.suffix != ".py" and path.resolve() not in mapped]


def main() -> None:
    """Import torch, and remove what that has not mapped."""
    import torch

    with Path("/proc/self/maps").open(encoding="utf-8") as file:
        mapped = {Path(line.split(maxsplit=5)[-1].strip()) for line in file}
    files = unused_libraries(Path(torch.__file__).resolve().parents[1], mapped)
    size = sum(path.lstat().st_size for path in files)
    for path in files:
        path.unlink()
    subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", "triton"], check=True)
    print(f"removed {len(files)} files of CUDA's libraries, {size / 2**30:.1f} GiB, and triton")


if __name__ == "__main__":
    main()
