"""Numbers, booleans and null in environment variables to which a configuration refers (`${oc.env:NAME}`)."""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from config.ranges import Rule, check_value

_REFERENCE = re.compile(r"\$\{oc\.env:[^{}]+\}")

RuleSource = Callable[[Mapping[str, Any]], Iterator[tuple[str, Any, Rule | None]]]


def read_typed_variables(config: DictConfig, iter_rules: RuleSource) -> None:
    """Replace references to environment variables by typed values, where a key's rule allows them.

    OmegaConf reads variables as text. Here the text is read as it would be in an override: `0.1` is a number and `null` is
    null, unless only text is valid for the key.

    Args:
        config: The composed configuration, not resolved; changed in place.
        iter_rules: Yields dotted key, value and rule of each setting of a resolved configuration.
    """
    source: Any = OmegaConf.to_container(config)
    if not _REFERENCE.search(str(source)):
        return
    resolved = copy.deepcopy(config)
    OmegaConf.resolve(resolved)
    for key, text, rule in iter_rules(OmegaConf.to_container(resolved)):  # type: ignore[arg-type]
        if rule is None or not isinstance(text, str) or not _REFERENCE.fullmatch(_raw_text(source, key)):
            continue
        value = _parse(text)
        if not isinstance(value, str) and not check_value(value, rule):
            OmegaConf.update(config, key, value)


def _raw_text(source: Any, key: str) -> str:
    for word in key.split("."):
        source = source.get(word) if isinstance(source, Mapping) else None
    return source if isinstance(source, str) else ""


def _parse(text: str) -> Any:
    """The value that a text has in an override, if it is a number, a boolean or null; else the text."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        value = OverridesParser.create().parse_override(f"key={text}").value()
    except HydraException:
        return text
    return value if value is None or isinstance(value, bool | int | float) else text
