"""python -m benchmarks [--data FOLDER] [NAME ...]: every measurement, one after the other, as Markdown on stdout.

NAME is a file of this folder (question_answering, images_input, images_training, spans, startup, memory, cache_checks,
search, search_training, search_warm, dropout, quality, explain, pipeline_overhead, serving, serving_costs, export); all by
default. FOLDER holds the real data: squad/, bert-base-uncased-vocab.txt and tiny-imagenet-200-subset.tar; without it, what can
be measured on generated data is.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from benchmarks.measure import machine

NAMES = (
    "question_answering",
    "images_input",
    "images_training",
    "startup",
    "spans",
    "memory",
    "cache_checks",
    "search",
    "search_training",
    "search_warm",
    "dropout",
    "quality",
    "explain",
    "pipeline_overhead",
    "serving",
    "serving_costs",
    "export",
)


def main() -> int:
    """Runs the scripts; returns how many failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--data", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    print(f"Machine: {machine()}\n", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        images = _images(chosen.data, Path(temporary)) if chosen.data else None
        for name in chosen.names or NAMES:
            command = [sys.executable, "-m", f"benchmarks.{name}", *_arguments(name, chosen.data, images)]
            print(f"## {name}\n", flush=True)
            failed += subprocess.run(command, check=False).returncode != 0
            print(flush=True)
    return failed


def _images(data: Path, temporary: Path) -> Path | None:
    archive = data / "tiny-imagenet-200-subset.tar"
    if not archive.exists():
        return None
    print("unpacking images", file=sys.stderr)
    with tarfile.open(archive) as opened:
        opened.extractall(temporary, filter="data")
    return temporary / "tiny-imagenet-200"


def _arguments(name: str, data: Path | None, images: Path | None) -> list[str]:
    if name in ("quality", "explain"):
        return ["--data", str(data), "--images", str(images)] if data and images else []
    if name.startswith("images"):
        return ["--data", str(images)] if images else []
    return (
        []
        if data is None
        or name in ("spans", "search", "search_training", "search_warm", "dropout", "cache_checks", "export")
        else ["--data", str(data)]
    )


if __name__ == "__main__":
    sys.exit(main())
