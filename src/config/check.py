"""Everything about a composed configuration that can be told without torch."""

import functools
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from config import signatures, tasks
from config.errors import InputError
from config.messages import describe_task_mismatch, format_choices
from config.ranges import Keys, Rule, check_key
from config.rules import CALLER_ARGUMENTS, MEASURE_RULES, NON_ARGUMENT_KEYS, RENAMED_KEYS, RULES


def check_config(config: DictConfig) -> None:
    """Refuses a configuration that could not train.

    Types and ranges, by `config.rules` and by the signatures of the classes that the configuration names; arguments that
    these do not take, or lack; a model and a data set of different tasks; a metric that the task does not declare. Other
    unknown keys and choices do not get this far: Hydra refuses them while composing.

    Raises:
        InputError: all findings in one message.
    """
    if problem := _task(config) or describe_task_mismatch(
        config
    ):  # before anything else: what one task's data asks of a model another's lacks
        raise InputError(problem)
    OmegaConf.resolve(config)
    plain: Any = OmegaConf.to_container(config)
    values = (check_key(key, value, rule) for key, value, rule in iter_rules(plain) if rule is not None)
    findings = [f"{old} is now {new}" for old, new in RENAMED_KEYS.items() if _select(plain, old) is not _ABSENT]
    findings += [text for text in values if text]
    findings += [*_arguments(plain), *_monitor(config), *_meanings(config)]
    if findings:
        raise InputError("; ".join(findings))


def iter_rules(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, Rule | None]]:
    """The keys of a resolved configuration that something is known of: dotted key, value, rule (None: it accepts everything)."""
    for key, rule in RULES.items():
        value = _select(config, key)
        if value is not _ABSENT:
            yield key, value, rule
    for path, node in iter_targets(config):
        if (signature := signatures.read_signature(str(node["_target_"]))) is not None:
            yield from _of_arguments(path, node, signature)
    for name, section in (config.get("explain") or {}).items():
        if isinstance(section, Mapping) and name in tasks.task_names():
            yield from _of_explanations(name, section)


def iter_targets(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The nodes of a configuration that name a class or function, with their paths."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from iter_targets(value, f"{path}.{key}".lstrip("."))


def argument_names(path: str, node: Mapping[str, Any]) -> set[str]:
    """The keys of a node that are arguments of its target."""
    return {str(key) for key in node if not str(key).startswith("_")} - set(NON_ARGUMENT_KEYS.get(path, ()))


def check_settings(path: str, values: Mapping[str, Any], keys: Keys) -> list[str]:
    """What is wrong with a mapping of settings, in words.

    Args:
        path: of the mapping in the configuration, for the messages.
        values: the settings.
        keys: what takes them.
    """
    signature = signatures.read_signature(keys.target)
    if signature is None:
        return []
    found = (check_key(key, value, rule) for key, value, rule in _of_arguments(path, values, signature) if rule)
    unknown = [*_unknown(path, values, keys, signature), *_inner(path, values, signature)]
    return [*(text for text in found if text), *unknown]


def _of_arguments(
    path: str, node: Mapping[str, Any], signature: signatures.Signature
) -> Iterator[tuple[str, Any, Rule | None]]:
    """The rules of a node's keys, and of the keys of mappings among them."""
    for name, parameter in signature.parameters.items():
        if name not in node or name in NON_ARGUMENT_KEYS.get(path, ()):
            continue
        key, value, rule = f"{path}.{name}", node[name], parameter.rule
        yield key, value, rule
        inner = signatures.read_signature(rule.keys.target) if rule is not None and rule.keys is not None else None
        if inner is not None and isinstance(value, Mapping):
            yield from _of_arguments(key, value, inner)


def _arguments(config: Mapping[str, Any]) -> Iterator[str]:
    """Arguments that a target does not take, or lacks; the same of mappings among its arguments."""
    for path, node in iter_targets(config):
        name = str(node["_target_"])
        signature = signatures.read_signature(name)
        if signature is not None:
            yield from signatures.check_arguments(
                path, name, signature, argument_names(path, node), CALLER_ARGUMENTS.get(path, ())
            )
            yield from _inner(path, node, signature)


def _inner(path: str, node: Mapping[str, Any], signature: signatures.Signature) -> Iterator[str]:
    for name, parameter in signature.parameters.items():
        keys, value = parameter.rule and parameter.rule.keys, node.get(name)
        inner = signatures.read_signature(keys.target) if keys and isinstance(value, Mapping) else None
        if keys and inner and isinstance(value, Mapping):
            yield from _unknown(f"{path}.{name}", value, keys, inner)
            yield from _inner(f"{path}.{name}", value, inner)


def _unknown(path: str, values: Mapping[str, Any], keys: Keys, signature: signatures.Signature) -> Iterator[str]:
    known = [name for name in signature.parameters if name not in keys.given]
    for name in sorted(str(name) for name in values):
        if name not in known and not signature.open:
            yield f"{path} has no key {name}; it has {format_choices(known, name)}"
    for name in signatures.missing_arguments(signature, {*map(str, values), *keys.given}):
        yield f"{path} needs {name}"


def _of_explanations(task: str, section: Mapping[str, Any]) -> Iterator[tuple[str, Any, Rule | None]]:
    """The rules of a task's section in conf/explain: of its settings, and of its measures."""
    path = f"explain.{task}"
    for target in _explained(task, tuple(tasks.conf_folders())):
        if (signature := signatures.read_signature(target)) is not None:
            yield from _of_arguments(path, section, signature)
    measures = section.get("measures")
    for name, measure in measures.items() if isinstance(measures, Mapping) else ():
        for key, rule in MEASURE_RULES.items():
            if isinstance(measure, Mapping) and key in measure:
                yield f"{path}.measures.{name}.{key}", measure[key], rule


@functools.cache
def _explained(task: str, folders: tuple[Path, ...]) -> tuple[str, ...]:
    """What takes a task's explanation settings, by dotted names (of the task in these configuration folders)."""
    found = signatures.read_constant(str(tasks.load_settings(task).get("module")), "EXPLAIN_SETTINGS") or ()
    return (found,) if isinstance(found, str) else tuple(found)


_ABSENT = object()


def _select(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for word in key.split("."):
        if not isinstance(node, Mapping) or word not in node:
            return _ABSENT
        node = node[word]
    return node


def _task(config: DictConfig) -> str:
    """What is wrong with the YAML of the task; "" where nothing is."""
    name, metrics = config.task.get("name"), config.task.get("metrics")
    model: Any = OmegaConf.to_container(config.model)
    if model.get("_target_") == "${task.majority}" and "majority" not in config.task:
        return f"the task {name} has no model=majority: conf/task/{name}.yaml names no class as `majority`"
    where = f"conf/task/{name}.yaml"
    if not isinstance(name, str) or not OmegaConf.is_dict(metrics) or not metrics:
        return f"{where}: a task has a name, and metrics: a mapping from each metric to {{mode: min or max, worst: NUMBER}}"
    for metric, value in metrics.items():
        worst = value.get("worst") if OmegaConf.is_dict(value) else None
        known = OmegaConf.is_dict(value) and value.get("mode") in ("min", "max")
        if not known or isinstance(worst, bool) or not isinstance(worst, int | float) or not math.isfinite(worst):
            return f"{where}: metrics.{metric} must be {{mode: min or max, worst: NUMBER}}"
    return ""


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
    elif config.explain.action != "off":
        tasks.load_member(str(config.task.name), "explainer", "explain")  # refused now, not when the model is trained
    if config.optim.lr is None and config.model.lr is not None:
        yield "optim.lr=null: must be a number, above 0"
    if not math.isfinite(config.optim.warmup):
        return
    if config.optim.warmup >= 1 and config.optim.warmup != int(config.optim.warmup):
        yield f"optim.warmup={config.optim.warmup}: below 1 it is a share of the horizon, otherwise whole steps"
    stride, length = config.data.get("stride"), config.data.get("max_length")
    if isinstance(stride, int) and isinstance(length, int) and stride >= length:
        yield f"data.stride={stride}: must be below data.max_length={length}"
