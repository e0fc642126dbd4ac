"""What this room needs of a configuration: unpacked once, at its door, and passed down."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """What decides about a data set.

    Attributes:
        task: name of the data set's task.
        contract: name of a shipped contract, or the path of a file.
        action: enforce, warn or off.
        webhook: address that is told of a failure; None for none.
        summary: file that a failure's report is added to; None for none.
    """

    task: str
    contract: str
    action: str = "enforce"
    webhook: str | None = None
    summary: str | None = None


def read_settings(config: Any) -> Settings:
    """The settings in a composed configuration."""
    quality = config.quality
    return Settings(str(config.task.name), str(quality.contract), str(quality.action), quality.webhook, quality.summary)
