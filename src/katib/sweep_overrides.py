"""Hydra's sweep overrides (`optim.lr=tag(log,interval(1e-5,1e-4))`) as those of `katib new` (`optim.lr=loguniform(1e-5,1e-4)`)."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from config.errors import InputError
from katib.check import MAX_CHOICES

USAGE = "a,b, choice(a,b), range(1,5), interval(0,1), int(interval(1,5)), tag(log,interval(1e-5,1e-4)) or glob(*)"
# Name in `katib new` of an interval, by whether it is logarithmic and whether its values are whole numbers.
_DISTRIBUTIONS = {
    (False, False): "uniform",
    (True, False): "loguniform",
    (False, True): "int",
    (True, True): "logint",
}
_WORD = r"[\w./@%+:=-]+"  # what neither a shell nor Hydra changes
_TYPED_WORD = r"(?i:true|false|null|nan|inf|[+-]?[\d_.]+(e[+-]?\d+)?)"  # what Hydra reads as something else than text


def translate(overrides: Sequence[str], config_loader: Any) -> list[str]:
    """Return overrides in the grammar of `katib new`; of several ones of a key, the last.

    Args:
        overrides: overrides in Hydra's grammar, for a sweep or with a fixed value.
        config_loader: Hydra's, which knows the choices of groups.

    Raises:
        InputError: a sweep cannot be written as a parameter of an Experiment, or there is none.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create(config_loader).parse_overrides(list(overrides))
    if not any(override.is_sweep_override() for override in parsed):
        raise InputError(f"there is nothing to search; give a key several values: {USAGE}")
    by_key = {override.get_key_element(): override for override in parsed}
    return [_translate(override) for override in by_key.values()]


def _translate(override: Any) -> str:
    """Translate one override of Hydra's parser."""
    text, key = str(override.input_line), override.get_key_element()
    if not override.is_sweep_override():
        # A call, such as int(3.0), would be a distribution to `katib new`.
        is_call = re.match(r"[^=]*=\s*\w+\(", text)
        return f"{key}={override.get_value_element_as_str()}" if is_call else text
    sweep = override.value()
    tags = sorted(getattr(sweep, "tags", ()))
    if unknown := [name for name in tags if name not in ("log", "int")]:
        raise InputError(f"{text}: the tag {unknown[0]} has no meaning for Katib; use log, int or none")
    if getattr(sweep, "shuffle", False):
        raise InputError(f"{text}: the algorithm chooses the order of the trials; leave out shuffle()")
    if override.is_interval_sweep():
        return f"{key}={_interval(text, sweep.start, sweep.end, tags)}"
    if override.is_range_sweep():
        return f"{key}={_range(text, sweep, tags)}"
    if tags:
        raise InputError(f"{text}: a list of values has no scale; use tag({tags[0]},interval(low,high)) or no tag")
    words = [_word(text, value) for value in override.sweep_iterator()]
    if not words:
        raise InputError(f"{text}: no choice matches")
    return f"{key}=choice({','.join(words)})"


def _interval(text: str, low: float, high: float, tags: Iterable[str]) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{text}: an interval has finite ends")
    if low >= high:
        raise InputError(f"{text}: {_number(low)} is not below {_number(high)}")
    if "log" in tags and low <= 0:
        raise InputError(f"{text}: a logarithmic interval begins above 0")
    is_integer = "int" in tags or (isinstance(low, int) and isinstance(high, int))
    if is_integer and (low != int(low) or high != int(high)):
        raise InputError(f"{text}: an interval of whole numbers has whole numbers as ends")
    return f"{_DISTRIBUTIONS['log' in tags, is_integer]}({_number(low)},{_number(high)})"


def _range(text: str, sweep: Any, tags: Sequence[str]) -> str:
    """Return an int for a range of whole numbers with step 1, else the list of its values.

    Katib's services do not count from the lower end in steps of another size (docs/katib.md).
    """
    start, stop, step = sweep.start, sweep.stop, sweep.step
    if not step or not all(map(math.isfinite, (start, stop, step))):
        raise InputError(f"{text}: a range has finite ends, and a step that is not 0")
    if all(isinstance(number, int) for number in (start, stop, step)) and abs(step) == 1 and abs(stop - start) > 1:
        values = range(start, stop, step)
        if values:
            return _interval(text, min(values[0], values[-1]), max(values[0], values[-1]), tags)
    if tags:
        raise InputError(f"{text}: a list of values has no scale; use tag({tags[0]},interval(low,high)) or no tag")
    if abs((stop - start) / step) > MAX_CHOICES:
        raise InputError(f"{text}: more than {MAX_CHOICES:,} values; use interval(low,high)")
    words = [str(value) for value in sweep.range()]
    if not words:
        raise InputError(f"{text}: the range is empty")
    return f"choice({','.join(words)})"


def _word(text: str, value: Any) -> str:
    """Return a value as a word that a trial's shell and Hydra read as the value."""
    quoted = not isinstance(value, str) and hasattr(value, "text")
    word = value.text if quoted else value
    if word is None or isinstance(word, bool):
        return "null" if word is None else str(word).lower()
    if isinstance(word, int | float):
        return str(word)  # 1.0 is no 1 to trainer.val_check_interval
    if not isinstance(word, str):
        raise InputError(f"{text}: a list or mapping cannot be a value of a parameter; search its parts, or use texts")
    if not re.fullmatch(_WORD, word):
        raise InputError(
            f"{text}: {word!r} cannot be a value of a parameter, because the shell of a trial would change it; use letters, "
            "digits and . / @ % + : = _ -"
        )
    if quoted and re.fullmatch(_TYPED_WORD, word):
        raise InputError(
            f"{text}: {word!r} would be read as no text in a trial; leave out the quotes, or use another text"
        )
    return word


def _number(value: float) -> str:
    """Format an end of an interval: 1e-05, 0.5, 3."""
    short = f"{value:g}"
    return short if not isinstance(value, int) and float(short) == value else str(value)
