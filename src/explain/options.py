"""The options in conf/explain."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from config.errors import InputError
from explain.calibrate import read_bounds


@dataclass(frozen=True)
class Bound:
    """The bound of a measure.

    Attributes:
        block: whether the measure can fail the model.
        bound: value that the mean must exceed.
    """

    block: bool
    bound: float


@dataclass(frozen=True)
class Options:
    """conf/explain for one task.

    Attributes:
        action: enforce, warn or off.
        examples: size of the sample; None for the task's default.
        seed: of the sample, of coalitions and of the random weights.
        precision: auto, 32 or bf16.
        batch_size: rows of a forward pass.
        alpha: significance level of the blocking measures together.
        looks: number of looks at growing parts of the sample; 1: always the whole sample.
        min_agreement: smallest agreement of two explainer seeds; below it the verdict is inconclusive.
        min_correct: smallest number of correct predictions; below it the verdict is inconclusive.
        slice_gap: largest accuracy difference between a slice and the rest; None for any.
        section: the section of the task, without its measures.
        measures: the bounds by measure, in the order of the configuration.
    """

    action: str
    examples: int | None
    seed: int
    precision: str
    batch_size: int
    alpha: float
    looks: int
    min_agreement: float
    min_correct: int
    slice_gap: float | None
    section: Mapping[str, Any]
    measures: Mapping[str, Bound]

    @property
    def numeric_settings(self) -> dict[str, Any]:
        """The options that the settings of every explainer have: batch_size, seed, bfloat16."""
        return {"batch_size": self.batch_size, "seed": self.seed, "bfloat16": self.precision == "bf16"}


def read_options(config: DictConfig, task: str) -> Options:
    """Read conf/explain, with the bounds of `thresholds` if it names a file.

    Args:
        config: conf/explain.
        task: name of the model's task.

    Raises:
        InputError: the configuration has no section for the task, or the file of thresholds is invalid.
    """
    values: Any = OmegaConf.to_container(config, resolve=True)
    section = values.get(task)
    if not isinstance(section, dict) or not isinstance(section.get("measures"), dict):
        raise InputError(
            f"explain.{task} is not configured: add its section, with measures, as in conf/explain/enforce.yaml"
        )
    bounds = {} if values["thresholds"] is None else read_bounds(str(values["thresholds"]), task)
    measures = {
        name: Bound(bool(measure["block"]), float(bounds.get(name, measure["bound"])))
        for name, measure in section["measures"].items()
    }
    names = ("action", "examples", "seed", "batch_size", "alpha", "looks", "min_agreement", "min_correct", "slice_gap")
    return Options(
        **{name: values[name] for name in names},
        precision=str(values["precision"]),
        section={name: value for name, value in section.items() if name != "measures"},
        measures=measures,
    )
