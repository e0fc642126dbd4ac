"""Checks of a composed configuration that need neither torch nor data."""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from config import networks, tasks
from config.environment import read_typed_variables
from config.errors import InputError
from config.masking import hide_environment, register_secrets
from config.messages import describe_task_mismatch, format_choices
from config.numbers import is_finite
from config.ranges import Keys, Rule, check_key
from config.rules import MEASURE_RULES, NON_ARGUMENT_KEYS, RENAMED_KEYS, RULES
from config.signatures import Signature, check_arguments, missing_arguments, read_constant, read_signature

_ABSENT = object()


def check_config(config: DictConfig) -> None:
    """Check that a composed configuration can train, and resolve its interpolations.

    Checked are types and ranges (by `config.rules` and by the signatures of the classes that the configuration names),
    arguments that these classes do not take or that are missing, the tasks of model and data set, and the monitored
    metric. Hydra itself reports other unknown keys and choices while composing.

    Raises:
        InputError: The configuration is invalid; the message has all findings.
    """
    # The task comes first: the data set of one task reads model settings that a model of another task does not have.
    if message := _check_sections(config) or _check_task(config) or describe_task_mismatch(config):
        raise InputError(message)
    source = str(OmegaConf.to_container(config))
    if message := _check_top_level(config, source):
        raise InputError(message)
    read_typed_variables(config, iter_rules)
    OmegaConf.resolve(config)
    plain: Any = OmegaConf.to_container(config)
    register_secrets(plain)
    findings = [f"{old} is now {new}" for old, new in RENAMED_KEYS.items() if _select(plain, old) is not _ABSENT]
    findings += [check_key(key, value, rule) for key, value, rule in iter_rules(plain) if rule is not None]
    findings += [*_check_targets(plain), *_check_monitor(config)]
    findings = [finding for finding in findings if finding] or list(_check_combinations(config))
    if findings:
        raise InputError(hide_environment("; ".join(findings), source))


def check_trust(config: DictConfig, overrides: Sequence[str]) -> None:
    """Check that the user, and no file, said that a checkpoint's own code may be executed.

    Args:
        config: The composed configuration.
        overrides: The overrides of the command line.

    Raises:
        InputError: model.trust_remote_code is true, and not by an override.
    """
    key = "model.trust_remote_code"
    if config.model.get("trust_remote_code") and not any(word.lstrip("+").startswith(f"{key}=") for word in overrides):
        raise InputError(
            f"{key}=true is set by a file; code of a checkpoint is run only if the command line has {key}=true"
        )


def iter_rules(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, Rule | None]]:
    """Iterate over the settings of a resolved configuration that have a rule.

    Yields:
        Dotted key, value and rule; a rule of None accepts every value.
    """
    for key, rule in RULES.items():
        value = _select(config, key)
        if value is not _ABSENT:
            yield key, value, rule
    for path, node in iter_targets(config):
        if (signature := read_signature(str(node["_target_"]))) is not None:
            yield from _argument_rules(path, node, signature)
            if path == "model" and networks.is_network(signature) and not signature.open:
                yield from _argument_rules(path, node, networks.trainer_signature(_task_module(config)))
    for name, section in (config.get("explain") or {}).items():
        if isinstance(section, Mapping) and name in tasks.task_names():
            yield from _explanation_rules(name, section)


def iter_targets(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Iterate over the nodes of a configuration that name a class or function (`_target_`), with their paths."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from iter_targets(value, f"{path}.{key}".lstrip("."))


def check_settings(path: str, values: Mapping[str, Any], keys: Keys) -> list[str]:
    """Check a mapping of settings against the class or function that takes them.

    Args:
        path: Path of the mapping in the configuration, for the messages.
        values: The settings.
        keys: Names the class or function.

    Returns:
        The findings.
    """
    signature = read_signature(keys.target)
    if signature is None:
        return []
    findings = [check_key(key, value, rule) for key, value, rule in _argument_rules(path, values, signature) if rule]
    findings += [*_check_keys(path, values, keys, signature), *_check_nested_keys(path, values, signature)]
    return [finding for finding in findings if finding]


def _argument_rules(path: str, node: Mapping[str, Any], signature: Signature) -> Iterator[tuple[str, Any, Rule | None]]:
    """Rules of the keys of a node, and of mappings among its values."""
    nested = [(level_path, values, inner) for level_path, values, _, inner in _iter_nested(path, node, signature)]
    for level_path, values, taker in [(path, node, signature), *nested]:
        for name, parameter in taker.parameters.items():
            if name in values and name not in NON_ARGUMENT_KEYS.get(level_path, ()):
                yield f"{level_path}.{name}", values[name], parameter.rule


def _iter_nested(
    path: str, node: Mapping[str, Any], signature: Signature
) -> Iterator[tuple[str, Mapping[str, Any], Keys, Signature]]:
    """Mappings among the values of a node, at any depth: path, mapping, its keys, and the signature that takes them."""
    for name, parameter in signature.parameters.items():
        keys, value = parameter.rule and parameter.rule.keys, node.get(name)
        if keys and isinstance(value, Mapping) and (nested := read_signature(keys.target)):
            yield f"{path}.{name}", value, keys, nested
            yield from _iter_nested(f"{path}.{name}", value, nested)


def _check_targets(config: Mapping[str, Any]) -> Iterator[str]:
    """Findings on arguments that a target does not take, or that it lacks."""
    for path, node in iter_targets(config):
        target = str(node["_target_"])
        if (signature := read_signature(target)) is not None:
            yield from check_target(path, node, signature, _task_module(config))
            yield from _check_nested_keys(path, node, signature)


def check_target(path: str, node: Mapping[str, Any], signature: Signature, module: str) -> Iterator[str]:
    """Check that the target of a node can be called with its arguments, and those that isotrain adds.

    Args:
        path: Path of the node, such as `model`.
        node: The node.
        signature: Signature of its target.
        module: Dotted name of the task's module.

    Yields:
        Findings.
    """
    names = networks.argument_names(path, node, signature, module)
    callers: Sequence[str] = networks.caller_arguments(path, signature, module)
    if node.get("_partial_"):  # called later, with further arguments
        callers = tuple(signature.parameters)
    hint = "; for a function of logits and targets, add _partial_: true" if path == "model.loss" else ""
    for finding in check_arguments(path, str(node["_target_"]), signature, names, callers):
        yield finding + (hint if "requires the argument" in finding else "")


def _task_module(config: Mapping[str, Any]) -> str:
    task = config.get("task")
    return str(task.get("module")) if isinstance(task, Mapping) else ""


def _check_nested_keys(path: str, node: Mapping[str, Any], signature: Signature) -> Iterator[str]:
    for nested in _iter_nested(path, node, signature):
        yield from _check_keys(*nested)


def _check_keys(path: str, values: Mapping[str, Any], keys: Keys, signature: Signature) -> Iterator[str]:
    allowed = [name for name in signature.parameters if name not in keys.excluded]
    for name in sorted(str(name) for name in values):
        if name not in allowed and not signature.open:
            yield f"{path} has no key {name}; valid keys: {format_choices(allowed, name)}"
    for name in missing_arguments(signature, {*map(str, values), *keys.excluded}):
        yield f"{path}.{name} is missing"


def _explanation_rules(task: str, section: Mapping[str, Any]) -> Iterator[tuple[str, Any, Rule | None]]:
    """Rules of the section of a task in conf/explain: of its settings and of its measures."""
    path = f"explain.{task}"
    for target in _explanation_targets(task, tuple(tasks.conf_folders())):
        if (signature := read_signature(target)) is not None:
            yield from _argument_rules(path, section, signature)
    measures = section.get("measures")
    for name, measure in measures.items() if isinstance(measures, Mapping) else ():
        for key, rule in MEASURE_RULES.items():
            if isinstance(measure, Mapping) and key in measure:
                yield f"{path}.measures.{name}.{key}", measure[key], rule


@functools.cache
def _explanation_targets(task: str, folders: tuple[Path, ...]) -> tuple[str, ...]:
    """Dotted names of what takes the explanation settings of a task; the folders are a part of the cache's key."""
    targets = read_constant(str(tasks.load_settings(task).get("module")), "EXPLAIN_SETTINGS") or ()
    return (targets,) if isinstance(targets, str) else tuple(targets)


def _select(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for word in key.split("."):
        if not isinstance(node, Mapping) or word not in node:
            return _ABSENT
        node = node[word]
    return node


def _check_sections(config: DictConfig) -> str:
    """Finding on sections that are replaced by something else; "" if all are mappings."""
    for name in ("task", "model", "data", "optim", "trainer", "quality", "explain"):
        if not OmegaConf.is_dict(config.get(name)):
            return f"{name} must be a mapping, as in conf/{name}/*.yaml"
    return ""


def _check_top_level(config: DictConfig, source: str) -> str:
    """Finding on added keys that neither conf/train.yaml nor an interpolation has; "" if there are none."""
    valid = _top_level_keys()
    for key in map(str, config):
        if key not in valid and not re.search(rf"\$\{{{re.escape(key)}\b", source):
            return f"unknown key {key}, which nothing reads; valid keys: {format_choices(valid, key)}"
    return ""


@functools.cache
def _top_level_keys() -> list[str]:
    values = OmegaConf.load(tasks.CONF / "train.yaml")
    groups = [str(group) for choice in values.defaults if OmegaConf.is_dict(choice) for group in choice]
    settings = {*map(str, values), *(group for group in groups if " " not in group), "task"}
    return sorted(settings - {"defaults", "experiment"})


def _check_task(config: DictConfig) -> str:
    """Finding on the YAML of the task; "" if it is valid."""
    name, metrics = config.task.get("name"), config.task.get("metrics")
    model: Any = OmegaConf.to_container(config.model)
    if model.get("_target_") == "${task.majority}" and "majority" not in config.task:
        return f"model=majority is not available for the task {name}: conf/task/{name}.yaml has no key `majority`"
    file = f"conf/task/{name}.yaml"
    if not isinstance(name, str) or not OmegaConf.is_dict(metrics) or not metrics:
        return f"{file} must have name, and metrics: a mapping from each metric to {{mode: min or max, worst: NUMBER}}"
    for metric, value in metrics.items():
        worst = value.get("worst") if OmegaConf.is_dict(value) else None
        has_mode = OmegaConf.is_dict(value) and value.get("mode") in ("min", "max")
        if not has_mode or isinstance(worst, bool) or not isinstance(worst, int | float) or not is_finite(worst):
            return f"{file}: metrics.{metric} must be {{mode: min or max, worst: NUMBER}}"
    return ""


def _check_monitor(config: DictConfig) -> Iterator[str]:
    if config.monitor not in config.task.metrics:
        metrics = ", ".join(config.task.metrics)
        yield f"monitor={config.monitor}: the task {config.task.name} has no such metric; valid: {metrics}"


def _has_fixed_schedule(config: DictConfig) -> bool:
    """Whether the schedule of the learning rate does not depend on the number of steps."""
    warmup = config.optim.warmup
    return bool(config.optim.horizon) or (config.optim.schedule == "constant" and (warmup == 0 or warmup >= 1))


def _check_combinations(config: DictConfig) -> Iterator[str]:
    """Findings on values that are valid one by one but not together."""
    names = [name for name in ("init_from", "population_dir", "population_parent") if config[name] is not None]
    if len(names) > 1:
        yield f"{names[0]} and {names[1]} both name initial weights: set only one of them"
    if config.push_metrics is not None and not re.fullmatch(r"[^\s:/]+:\d{1,5}", str(config.push_metrics)):
        yield f"push_metrics={config.push_metrics}: must be host:port, e.g. katib-db-manager.kubeflow:6789"
    if config.trainer.max_epochs in (None, -1) and config.trainer.max_steps == -1 and config.trainer.max_time is None:
        yield "trainer.max_epochs, trainer.max_steps and trainer.max_time are all unlimited: limit one of them"
    elif config.trainer.max_epochs in (None, -1) and config.trainer.max_steps == -1 and not _has_fixed_schedule(config):
        yield (
            "trainer.max_time alone leaves the number of steps open, on which the schedule depends: set optim.horizon, or "
            "optim.schedule=constant with optim.warmup=0 or in steps"
        )
    if config.explain.action != "off" and str(config.model._target_).startswith("trainers.baselines."):
        yield "explain.action: a baseline has no weights to explain; set explain=off"
    elif config.explain.action != "off":
        tasks.load_member(str(config.task.name), "explainer", "explain")  # fail now, not after training
    if config.optim.lr is None and config.model.lr is not None:
        yield "optim.lr=null: must be a number, above 0"
    warmup = config.optim.warmup
    if not is_finite(warmup):
        return
    if warmup >= 1 and warmup != int(warmup):
        yield f"optim.warmup={warmup}: must be a fraction of the horizon below 1, or a whole number of steps"
    stride, length = config.data.get("stride"), config.data.get("max_length")
    if isinstance(stride, int) and isinstance(length, int) and stride >= length:
        yield f"data.stride={stride}: must be below data.max_length={length}"
