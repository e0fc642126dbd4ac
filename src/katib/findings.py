"""Rules of `check` and their findings, formatted as text for people and as JSON or SARIF for machines."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from katib.documents import YamlPath, format_path
from katib.experiment import Experiment

Level = Literal["error", "warning", "note"]
Problem = tuple[YamlPath, str, str]  # path in the YAML, what is wrong, how to fix it


@dataclass(frozen=True)
class Finding:
    """A problem in an Experiment file, or a note about a part that was not checked.

    Attributes:
        code: code of the rule.
        level: `error` (the Experiment is refused), `warning` (it runs, but badly) or `note` (something was skipped).
        file: path of the file.
        line: line in the file, from 1.
        path: path in the YAML.
        message: what is wrong.
        fix: what to do about it.
    """

    code: str
    level: Level
    file: str
    line: int
    path: str
    message: str
    fix: str = ""


@dataclass(frozen=True)
class Rule:
    """A rule of `check`.

    Attributes:
        code: K0xx: what was not checked; K1xx: the cluster refuses the Experiment; K2xx: it is accepted and cannot work;
            K3xx: it works badly; K4xx: the trial's Hydra command line.
        level: error, warning or note.
        title: what holds where the rule finds nothing, in one line.
        problems: function that returns the problems of an Experiment.
        algorithm: algorithm that the rule is about; "" if it applies to all.
    """

    code: str
    level: Level
    title: str
    problems: Callable[[Experiment], Iterable[Problem]]
    algorithm: str = ""

    def apply(self, experiment: Experiment) -> Iterator[Finding]:
        """Return the findings of this rule in an Experiment."""
        if self.algorithm not in ("", experiment.algorithm):
            return
        for path, message, fix in self.problems(experiment):
            yield build_finding(experiment, self.code, self.level, path, message, fix)


def build_finding(
    experiment: Experiment, code: str, level: Level, path: YamlPath, message: str, fix: str = ""
) -> Finding:
    """Build a finding at a path of an Experiment."""
    document = experiment.document
    return Finding(code, level, document.file, document.line(path), format_path(path), message, fix)


def format_text(findings: Sequence[Finding]) -> str:
    """Format findings as two lines each: location and problem, then the fix."""
    lines = []
    for finding in findings:
        path = f" {finding.path}" if finding.path else ""
        lines.append(f"{finding.file}:{finding.line}: {finding.level} {finding.code}{path}: {finding.message}")
        if finding.fix:
            lines.append(f"    fix: {finding.fix}")
    return "\n".join(lines)


def format_json(findings: Sequence[Finding], files: Sequence[str]) -> str:
    """Format findings as one JSON object: the files, counts by level, the findings."""
    counts = {level: sum(finding.level == level for finding in findings) for level in ("error", "warning", "note")}
    rows = [{"mend" if key == "fix" else key: value for key, value in asdict(row).items()} for row in findings]
    return json.dumps({"files": list(files), **counts, "findings": rows}, indent=2)


def format_sarif(findings: Sequence[Finding], titles: dict[str, str]) -> str:
    """Format findings as SARIF 2.1.0, which code hosts show beside the lines.

    Args:
        findings: of all files.
        titles: title of each rule, by code.
    """
    package_version = "0"
    with contextlib.suppress(PackageNotFoundError):
        package_version = version("isotrain")
    results = [
        {
            "ruleId": finding.code,
            "level": finding.level,
            "message": {"text": f"{finding.path}: {finding.message}" + (f" Fix: {finding.fix}" if finding.fix else "")},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": Path(finding.file).as_posix()},
                        "region": {"startLine": finding.line},
                    },
                    "logicalLocations": [{"fullyQualifiedName": finding.path}],
                }
            ],
        }
        for finding in findings
    ]
    rules = [{"id": code, "shortDescription": {"text": title}} for code, title in sorted(titles.items())]
    driver = {"name": "isotrain katib check", "version": package_version, "rules": rules}
    document = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    return json.dumps(document, indent=2)
