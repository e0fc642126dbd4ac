"""The search space as it is typed: `optim.lr=loguniform(1e-5,1e-4)`."""

import re
from collections.abc import Sequence

from config.errors import InputError
from katib.experiment import Parameter, parse_number

FORMS = {
    "uniform": ("double", "uniform"),
    "loguniform": ("double", "logUniform"),
    "normal": ("double", "normal"),
    "lognormal": ("double", "logNormal"),
    "int": ("int", "uniform"),
    "logint": ("int", "logUniform"),
}
USAGE = (
    "write key=uniform(low,high), uniform(low,high,step), loguniform(low,high), normal(low,high), lognormal(low,high), "
    "int(low,high), logint(low,high) or choice(a,b,...)"
)


def split(arguments: Sequence[str]) -> tuple[list[str], list[Parameter]]:
    """Parts overrides with one value from those with a space of values.

    Args:
        arguments: Hydra overrides; the value of some is a distribution, `optim.lr=loguniform(1e-5,1e-4)`.

    Returns:
        The fixed overrides, and the parameters.

    Raises:
        InputError: a distribution that cannot be read.
    """
    fixed, found = [], []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        call = re.fullmatch(r"\s*(\w+)\((.*)\)\s*", value)
        if call and call[1] in (*FORMS, "choice"):
            found.append(_parameter(key.strip(), call[1], [word.strip() for word in call[2].split(",")], argument))
        elif not equals and not argument.startswith("~"):
            raise InputError(f"{argument}: not an override; write key=value or key=uniform(low,high)")
        else:
            fixed.append(argument)
    return fixed, found


def _parameter(key: str, form: str, values: list[str], argument: str) -> Parameter:
    if form == "choice":
        if not all(values) or len(set(values)) < len(values):
            raise InputError(f"{argument}: every choice must be there, and once")
        kind = "discrete" if all(parse_number(value) is not None for value in values) else "categorical"
        return Parameter(key, kind, "", "", "", tuple(values), "uniform", ())
    kind, distribution = FORMS[form]
    numbers = [parse_number(value) for value in values]
    if len(values) not in (2, 3) or None in numbers:
        raise InputError(f"{argument}: {USAGE}")
    if kind == "int" and any(value != int(value or 0) for value in numbers if value is not None):
        raise InputError(f"{argument}: {form} takes whole numbers")
    low, high, *step = values
    if (numbers[0] or 0) >= (numbers[1] or 0):
        raise InputError(f"{argument}: {low} is not below {high}")
    return Parameter(key, kind, low, high, step[0] if step else "", (), distribution, ())
