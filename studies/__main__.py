"""The five questions of this project, each with a study: `python -m studies [NAME …]`.

Measurements are kept (`--keep`), so that an interrupted study resumes; docs/studies.md is written from them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from benchmarks import measure

from studies import common, defects, environment, explanations, pipelines, search

STUDIES: dict[str, ModuleType] = {
    "pipelines": pipelines, "environment": environment, "explanations": explanations, "defects": defects, "search": search
}  # fmt: skip
HEAD = """# Studies

`make studies` repeats these five studies in small sizes on this machine; `studies/cluster.yaml` has sizes for a cluster. The hypotheses were
written before the measurements (wording edited since). Sizes, arms (the compared variants) and seeds are in the configuration. Each answer states what the data cannot show."""


def main() -> int:
    """Runs the studies and writes the report."""
    parser = argparse.ArgumentParser(
        prog="python -m studies", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(STUDIES)}; default: all")
    parser.add_argument(
        "--config", type=Path, default=measure.ROOT / "studies" / "small.yaml", help="sizes, arms, seeds"
    )
    parser.add_argument("--keep", type=Path, default=measure.ROOT / "outputs" / "studies", help="what was measured")
    parser.add_argument("--report", type=Path, default=measure.ROOT / "docs" / "studies.md")
    parser.add_argument(
        "--only-report", action="store_true", help="write the report of what is kept, and measure nothing"
    )
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in STUDIES]:
        print(f"isotrain: there is no study {unknown[0]}; there are {', '.join(STUDIES)}", file=sys.stderr)
        return 2
    settings: dict[str, Any] = yaml.safe_load(options.config.read_text())
    chosen = options.names or list(STUDIES)
    parts = [HEAD, f"Machine: {measure.machine()}."]
    for name, study in STUDIES.items():
        folder = options.keep.resolve() / name / _sizes(name, settings)
        if name in chosen and not options.only_report:
            rows = study.run({**settings, "seeds": settings[name].get("seeds", settings["seeds"])}, folder)
            common.keep(folder / "rows.yaml", yaml.safe_dump(rows, sort_keys=False))
        elif (folder / "rows.yaml").exists():
            rows = yaml.safe_load((folder / "rows.yaml").read_text())
        else:
            continue
        body = study.report(rows, options.report.parent / "studies")
        parts.append(f"## {study.TITLE}\n\n**Hypothesis.** {study.HYPOTHESIS}\n\n{body}{_answer(options.report, name)}")
    options.report.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(options.report)
    return 0


def _sizes(name: str, settings: dict[str, Any]) -> str:
    """A folder for each choice of sizes: what was measured with others is not this. Seeds are in the units' names."""
    of = {"threads": settings["threads"], **{key: each for key, each in settings[name].items() if key != "seeds"}}
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:8]


def _answer(report: Path, name: str) -> str:
    """What a person concluded: kept in studies/answers, because numbers do not write it."""
    path = measure.ROOT / "studies" / "answers" / f"{name}.md"
    return f"\n\n**Answer.** {path.read_text(encoding='utf-8').strip()}" if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
