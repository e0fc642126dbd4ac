"""The settings of the room in a configuration."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Settings of a verification.

    Attributes:
        task: name of the data set's task.
        contract: name of a shipped contract, or path of a file.
        action: enforce, warn or off.
        webhook: address that failures are posted to; None for none.
        summary: file that the report of a failure is appended to; None for none.
    """

    task: str
    contract: str
    action: str = "enforce"
    webhook: str | None = None
    summary: str | None = None


def read_settings(config: Any) -> Settings:
    """Return the settings in a composed configuration."""
    quality = config.quality
    return Settings(str(config.task.name), str(quality.contract), str(quality.action), quality.webhook, quality.summary)
