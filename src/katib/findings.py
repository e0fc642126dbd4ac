"""What a check found: as text for people, as JSON or SARIF for machines."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        code: of the rule.
        level: an error is refused; a warning works badly; a note says what was left out.
        file: where.
        line: from 1.
        path: in the YAML.
        message: what is wrong.
        mend: what to do about it.
    """

    code: str
    level: Level
    file: str
    line: int
    path: str
    message: str
    mend: str = ""


def text(findings: Sequence[Finding]) -> str:
    """Two lines a finding: place and what; how to mend it."""
    lines = []
    for each in findings:
        lines.append(
            f"{each.file}:{each.line}: {each.level} {each.code} {each.path}: {each.message}".replace("  ", " ")
        )
        if each.mend:
            lines.append(f"    {each.mend}")
    return "\n".join(lines)


def as_json(findings: Sequence[Finding], files: Sequence[str]) -> str:
    """One object: the files, counts by level, the findings."""
    counts = {level: sum(each.level == level for each in findings) for level in ("error", "warning", "note")}
    return json.dumps({"files": list(files), **counts, "findings": [asdict(each) for each in findings]}, indent=2)


def sarif(findings: Sequence[Finding], titles: dict[str, str]) -> str:
    """SARIF 2.1.0, which code hosts show beside the lines.

    Args:
        findings: of all files.
        titles: what each code stands for.
    """
    try:
        ours = version("isotrain")
    except PackageNotFoundError:
        ours = "0"
    results = [
        {
            "ruleId": each.code,
            "level": each.level,
            "message": {"text": f"{each.path}: {each.message}" + (f" {each.mend}" if each.mend else "")},
            "locations": [_location(each)],
        }
        for each in findings
    ]
    rules = [{"id": code, "shortDescription": {"text": title}} for code, title in sorted(titles.items())]
    driver = {"name": "isotrain katib check", "version": ours, "rules": rules}
    document = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    return json.dumps(document, indent=2)


def _location(finding: Finding) -> dict[str, Any]:
    uri = Path(finding.file).as_posix()
    place = {"artifactLocation": {"uri": uri}, "region": {"startLine": finding.line}}
    return {"physicalLocation": place, "logicalLocations": [{"fullyQualifiedName": finding.path}]}
