"""Seconds to compare a cache entry with its manifest: `python -m benchmarks.cache_checks`.

Entries of arrays as large as those of SQuAD's training windows (90 MB) and of 100,000 images of 64 pixels (1.2 GB), in the page
cache. "Later start": a process that finds a large file unchanged since an earlier check.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import measure
from datamodules.storage import cache, fingerprint, manifest

ENTRIES = {
    "windows of SQuAD": {"tokens": 20, "types": 10, "chars": 60},
    "100,000 images": {"pixels": 1229, "labels": 1},
}  # MB of each file


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for entry, sizes in ENTRIES.items():
            rows.append([entry, f"{sum(sizes.values()):,}", *_measure(Path(name), sizes, options.repeats)])
    columns = ["entry", "MB", "manifest", "first opening", "later start", "`data.verify=full`", "opening again"]
    print(measure.table(columns, rows))


def _measure(root: Path, sizes: dict[str, int], repeats: int) -> list[str]:
    def build(folder: Path) -> None:
        for file, size in sizes.items():
            with (folder / file).open("wb") as stream:
                for _ in range(size):
                    stream.write(bytes(1_000_000))

    def entry(verify: fingerprint.Verify = "fast") -> Path:
        return cache.entry(root, "benchmark", sizes, build, verify)

    def restart() -> None:
        cache._checked.clear()

    def forget() -> None:
        restart()
        (root / "digests.sqlite").unlink(missing_ok=True)

    folder = entry()
    time.sleep(fingerprint.SETTLING_TIME)
    manifests = _seconds(lambda: manifest.write(folder), lambda: None, repeats)
    first = _seconds(entry, forget, repeats)
    later = _seconds(entry, restart, repeats)
    full = _seconds(lambda: entry("full"), restart, repeats)
    again = _seconds(entry, lambda: None, repeats)
    return [sample.text(4) for sample in (manifests, first, later, full, again)]


def _seconds(call: Callable[[], object], before: Callable[[], object], repeats: int) -> measure.Sample:
    values = []
    for _ in range(repeats):
        before()
        start = time.perf_counter()
        call()
        values.append(time.perf_counter() - start)
    return measure.Sample(tuple(values))


if __name__ == "__main__":
    main()
