"""conf/explain as one object: read once, where a command or a run enters the room."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from config import tasks
from config.errors import InputError
from explain import calibrate


@dataclass(frozen=True)
class Bound:
    """What a measure's mean must be above.

    Attributes:
        block: whether the measure can fail the model.
        bound: of its mean.
    """

    block: bool
    bound: float


@dataclass(frozen=True)
class Options:
    """conf/explain for one task; its comments say what each does.

    Attributes:
        action: enforce, warn or off.
        examples: size of the sample; None for the task's own.
        seed: of the sample, of permutations and of the random weights.
        precision: auto, 32 or bf16.
        batch_size: rows of a forward pass.
        level: chance that a measure passes that is no better than its bound, over all blocking measures.
        stable: agreement of two explainer seeds below which nothing is judged.
        minimum: right answers below which nothing is judged.
        slice_gap: accuracy that a slice may lie below the rest; None for any.
        own: the task's section, without its measures.
        measures: the bounds by measure, in the order of the configuration.
    """

    action: str
    examples: int | None
    seed: int
    precision: str
    batch_size: int
    level: float
    stable: float
    minimum: int
    slice_gap: float | None
    own: Mapping[str, Any]
    measures: Mapping[str, Bound]


def read_options(config: DictConfig, task: str) -> Options:
    """Unpacks conf/explain, with the bounds of its file of thresholds if it names one.

    Args:
        config: conf/explain.
        task: name of the model's task.

    Raises:
        InputError: the task has no explainer, the configuration has no section for it, or the file of thresholds is not one of this task.
    """
    tasks.load_member(task, "explainer", "explain")
    values: Any = OmegaConf.to_container(config, resolve=True)
    section = values.get(task)
    if not isinstance(section, dict) or not isinstance(section.get("measures"), dict):
        raise InputError(
            f"explain.{task} is not configured: explanations of the task {task} need its section in conf/explain/enforce.yaml, "
            "with its measures"
        )
    bounds = {} if values["thresholds"] is None else calibrate.read_bounds(str(values["thresholds"]), task)
    measures = {
        name: Bound(bool(value["block"]), float(bounds.get(name, value["bound"])))
        for name, value in section["measures"].items()
    }
    names = ("action", "examples", "seed", "batch_size", "level", "stable", "minimum", "slice_gap")
    own = {name: value for name, value in section.items() if name != "measures"}
    return Options(
        **{name: values[name] for name in names}, precision=str(values["precision"]), own=own, measures=measures
    )
