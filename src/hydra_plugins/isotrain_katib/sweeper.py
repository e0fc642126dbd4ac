"""`hydra/sweeper=katib`: a sweep as a Katib Experiment, on this machine or on a cluster.

Hydra finds a sweeper only in the namespace package `hydra_plugins`, and imports all modules there whenever it starts, in
programs of others, too. So this one imports nothing of isotrain before a sweep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from hydra.plugins.sweeper import Sweeper

if TYPE_CHECKING:
    from config.ranges import Range


class KatibSweeper(Sweeper):
    """Makes an Experiment of the overrides, and runs or submits it."""

    def __init__(
        self,
        *,
        params: Mapping[str, Any] | None,
        algorithm: str,
        settings: Mapping[str, Any] | None,
        objective: str | None,
        goal: float | None,
        max_trials: Annotated[int, Range(low=1)],
        parallel: Annotated[int, Range(low=1)],
        max_failed: Annotated[int, Range(low=0)],
        stop_early: bool,
        retries: Annotated[int, Range(low=0)],
        name: str | None,
        title: str,
        where: Literal["local", "cluster"],
        deadline: Annotated[float, Range(above=0)] | None,
        mounts: Mapping[str, Any] | None,
        wait: bool,
        timeout: Annotated[float, Range(above=0)] | None,
        wait_for_start: str | int | None,
        namespace: str | None,
        context: str | None,
        image: str | None,
        cpu: str | float | None,
        memory: str | int | None,
        gpus: Annotated[int, Range(low=0)] | None,
        queue: str | None,
        priority_class: str | None,
        kind: Literal["Job", "PyTorchJob", "TrainJob"],
        processes: Annotated[int, Range(low=1)] | None,
        collector: Literal["StdOut", "File", "Push"],
    ) -> None:
        """Declare the keys of hydra.sweeper, whose values `sweep` reads from the configuration."""
        self.config: Any = None
        self.hydra_context: Any = None

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        """Keep what Hydra composed; trials are commands, so that neither a launcher nor the function is needed."""
        self.hydra_context, self.config = hydra_context, config

    def sweep(self, arguments: list[str]) -> list[str]:
        """Search, and return the best overrides.

        Args:
            arguments: overrides, some with several values.

        Raises:
            InputError: a setting or an override is refused.
            ExecutionError: the search failed.
        """
        from katib.sweep import sweep

        return sweep(self.config, arguments, self.hydra_context.config_loader)
