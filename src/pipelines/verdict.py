"""The verdict of a step, which KFP passes to later steps as JSON text."""

import json
from dataclasses import asdict, dataclass

POLICIES = ("enforce", "warn", "off")  # of a gate


@dataclass(frozen=True)
class Verdict:
    """Outcome of a check.

    Attributes:
        status: passed, warned, failed, inconclusive, unevaluated, off, or none if there is nothing to judge.
        reason: Reason for the status; "" if it needs none.
        report: Path of the HTML report; "" without one.
    """

    status: str
    reason: str = ""
    report: str = ""

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}" if self.reason else self.status

    def to_json(self) -> str:
        """Return the verdict as the output of a step."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Verdict":
        """Return the verdict in the output of a step."""
        return cls(**json.loads(text))

    @property
    def acceptable(self) -> bool:
        """Whether a gate lets the pipeline continue."""
        return self.status in ("passed", "warned", "off", "none")
