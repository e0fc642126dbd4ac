"""Quantities of Kubernetes resources: `500m`, `1.5Gi`, `1e3`."""

import re
from decimal import ROUND_CEILING, Decimal
from itertools import count

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d{1,4}|)", re.ASCII)
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_EXPONENTS = {suffix: exponent for exponent, suffix in _DECIMAL.items()}


def parse_quantity(value: object) -> Decimal | None:
    """Return the number that a quantity stands for; None if it is not a quantity.

    Args:
        value: a number, or text as in a manifest, e.g. "500m".
    """
    match = _QUANTITY.fullmatch(str(value).strip())
    if match is None or isinstance(value, bool):
        return None
    number, suffix = Decimal(match[1]), match[2]
    if suffix in _BINARY:
        return number * Decimal(1024) ** _BINARY.index(suffix)
    exponent = _EXPONENTS[suffix] if suffix in _EXPONENTS else int(suffix[1:])
    return number.scaleb(exponent)


def canonical_quantity(text: str) -> str | None:
    """Return a quantity in the form in which Kubernetes writes it: 1Gi for 1024Mi, 1500m for 1.5.

    That is the largest unit with a whole number, in the text's own family of units: powers of 1024, powers of 1000, or
    an exponent (k8s.io/apimachinery, Quantity.CanonicalizeBytes).

    Args:
        text: the quantity; None is returned if it is not one.
    """
    value, match = parse_quantity(text), _QUANTITY.fullmatch(text.strip())
    if value is None or match is None:
        return None
    suffix = match[2]
    if suffix.endswith("i") and abs(value) >= 1024 and value == int(value):
        integer = int(value)
        power = next(power for power in count() if integer % 1024 ** (power + 1) or power == len(_BINARY) - 1)
        return f"{integer // 1024**power}{_BINARY[power]}"
    nano = int(value.scaleb(9).to_integral_value(ROUND_CEILING))
    if nano == 0:
        return "0"
    exponent = next(power for power in count(-9, 3) if nano % 10 ** (power + 12))
    is_exponent = suffix[:1] in ("e", "E") and len(suffix) > 1 and not suffix.endswith("i")
    if not is_exponent:
        exponent = min(exponent, 18)
    number = nano // 10 ** (exponent + 9)
    unit = (f"e{exponent}" if exponent else "") if is_exponent else _DECIMAL[exponent]
    return f"{number}{unit}"


def is_canonical(text: str) -> bool:
    """Return whether Kubernetes writes a quantity as it is; it keeps a sign, leading zeros and the form of an exponent."""
    plain = re.sub(r"^([-+]?)0+(?=\d)", r"\1", text).removeprefix("+")
    plain = re.sub(r"\.(?!\d)", "", plain)
    plain = re.sub(r"[eE]\+?(-?\d)", r"e\1", plain)
    return plain == canonical_quantity(text)
