"""Everything about a composed configuration that can be told without torch."""

import math
import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from config.errors import Refused
from config.messages import two_tasks
from config.rules import RULES, Rule

_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "map": "a mapping",
}


def check(config: DictConfig) -> None:
    """Refuses a configuration that could not train.

    Types and ranges by `config.rules`, a model and a data set of different tasks, and a metric that the task does not
    declare. Unknown keys and choices do not get this far: Hydra refuses them while composing.

    Raises:
        Refused: all findings in one message.
    """
    if problem := two_tasks(config):  # before anything else: what one task's data asks of a model another's lacks
        raise Refused(problem)
    OmegaConf.resolve(config)
    findings = [*_values(config), *_monitor(config), *_meanings(config)]
    if findings:
        raise Refused("; ".join(findings))


def _values(config: DictConfig) -> Iterator[str]:
    for key, rule in RULES.items():
        value = OmegaConf.select(config, key, default=_ABSENT)
        if value is not _ABSENT and (problem := _problem(value, rule)):
            shown = "null" if value is None else str(value)
            yield f"{key}={shown}: {problem}"


_ABSENT = object()


def _problem(value: Any, rule: Rule) -> str:
    """What is wrong with a value, or nothing."""
    if value is None:
        return "" if rule.optional else f"must be {_expected(rule)}"
    if value in rule.also and type(value) in (int, float, str):
        return ""
    if not any(_is(value, kind) for kind in rule.types):
        return f"must be {_expected(rule)}"
    if rule.choices and value not in rule.choices:
        return f"must be {_expected(rule)}"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be finite"
    if isinstance(value, int | float) and not isinstance(value, bool):
        too_low = (rule.low is not None and value < rule.low) or (rule.above is not None and value <= rule.above)
        if too_low or (rule.high is not None and value > rule.high):
            return f"must be {_expected(rule)}"
    return ""


def _is(value: Any, kind: str) -> bool:
    if kind in ("map", "list"):
        return bool(OmegaConf.is_dict(value) if kind == "map" else OmegaConf.is_list(value))
    if kind == "bool":
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    types: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
    return isinstance(value, types[kind])


def _expected(rule: Rule) -> str:
    if rule.choices:
        text = " or ".join(str(choice) for choice in rule.choices)
    else:
        text = " or ".join(_NAMES[kind] for kind in rule.types)
        low = f"above {rule.above:g}" if rule.above is not None else ""
        low = f"at least {rule.low:g}" if rule.low is not None else low
        high = f"at most {rule.high:g}" if rule.high is not None else ""
        bounds = " and ".join(bound for bound in (low, high) if bound)
        text = f"{text}, {bounds}" if bounds else text
    extra = [str(value) for value in rule.also] + (["null"] if rule.optional else [])
    return " or ".join([text, *extra])


def _monitor(config: DictConfig) -> Iterator[str]:
    if config.monitor not in config.task.metrics:
        declared = ", ".join(config.task.metrics)
        yield f"monitor={config.monitor}: {config.task.name} does not report it; it reports {declared}"


def _meanings(config: DictConfig) -> Iterator[str]:
    """Values that are fine one by one and not together."""
    if config.init_from is not None and config.population_dir is not None:
        yield "init_from and population_dir both say where weights come from: give one of them"
    if config.push_metrics is not None and not re.fullmatch(r"[^\s:/]+:\d{1,5}", str(config.push_metrics)):
        yield f"push_metrics={config.push_metrics}: must be host:port, e.g. katib-db-manager.kubeflow:6789"
    if config.trainer.max_epochs in (None, -1) and config.trainer.max_steps == -1 and config.trainer.max_time is None:
        yield "trainer.max_epochs, trainer.max_steps and trainer.max_time are all unlimited: limit one of them"
    if config.explain.action != "off" and str(config.model._target_).startswith("trainers.baselines."):
        yield "explain.action: a baseline has no weights that could be explained; leave explain=off"
    if config.optim.lr is None and config.model.lr is not None:
        yield "optim.lr=null: must be a number, above 0"
    if not math.isfinite(config.optim.warmup):
        return
    if config.optim.warmup >= 1 and config.optim.warmup != int(config.optim.warmup):
        yield f"optim.warmup={config.optim.warmup}: below 1 it is a share of the horizon, otherwise whole steps"
    stride, length = config.data.get("stride"), config.data.get("max_length")
    if isinstance(stride, int) and isinstance(length, int) and stride >= length:
        yield f"data.stride={stride}: must be below data.max_length={length}"
