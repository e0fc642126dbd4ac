"""Filters of Katib's collector: the regular expressions that find a metric's name and value in a line of text.

Katib compiles them with Go's `regexp`, whose syntax is RE2's; Python's `re` is another language.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import re2

# Rules of the webhook (validator.go of Katib) and of the collector, which reads the first two groups.
_TWO_BRACKETS = re.compile(r".*\(.*\).*\(.*\).*")
_TOKEN = re.compile(
    r"\\Q.*?(?:\\E|$)|\\.|(?P<set>\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\])"
    r"|(?P<flags>\(\?[imsU-]+\))|(?P<group>\((?:\?P?<\w+>)?(?!\?))|(?P<open>\(\?(?P<scope>[imsU-]*):)|(?P<close>\))|.",
    re.DOTALL,
)


@functools.cache
def compile_filter(expression: str) -> Any:
    """Compile an expression as Go does.

    Raises:
        ValueError: it is not an expression of Go; the message says why.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(expression, options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0]
        raise ValueError(reason.decode(errors="replace") if isinstance(reason, bytes) else str(error)) from error
    # A single byte, which the RE2 library has and Go does not.
    if r"\C" in (match[0] for match in _TOKEN.finditer(expression)):
        raise ValueError(r"invalid escape sequence: \C")
    return compiled


def find_values(expression: str, line: str) -> Iterator[tuple[str, str]]:
    """Return the first two groups, name and value, of every match in a line, without blanks around them."""
    compiled, end = compile_filter(expression), -1
    if compiled.groups < 2:
        return
    for match in compiled.finditer(line):
        if match.start() == match.end() == end:  # Go leaves out an empty match next to the last one
            continue
        end = match.end()
        yield (match[1] or "").strip(), (match[2] or "").strip()


def group_expressions(expression: str) -> list[str]:
    """Return the expression of every capturing group, with the flags that apply to it.

    Args:
        expression: a valid expression.
    """
    groups: list[str] = []
    stack: list[tuple[int | None, int, str]] = []  # index of the group, its start, the flags around it
    flags = ""
    for token in _TOKEN.finditer(expression):
        if token["flags"]:
            flags += token["flags"]
        elif token["group"]:
            stack.append((len(groups), token.end(), flags))
            groups.append(flags)
        elif token["open"]:
            stack.append((None, token.end(), flags))
            flags += f"(?{token['scope']})" if token["scope"] else ""
        elif token["close"] and stack:
            index, start, flags = stack.pop()
            if index is not None:
                groups[index] += expression[start : token.start()]
    return groups


def filter_problem(expression: str) -> tuple[str, str] | None:
    """Return what is wrong with a filter, and a fix; None if its first two groups can be a name and a number."""
    try:
        compiled = compile_filter(expression)
    except ValueError as error:
        fix = "correct it: Katib's expressions are Go's (RE2), without look-around and backreferences"
        return f"invalid regular expression: {error}", f"{fix}; in YAML, put it in single quotes"
    example = r"e.g. '([\w-]+)=([+-]?\d+\.?\d*)'"
    if compiled.groups < 2 or not _TWO_BRACKETS.search(expression):
        return "a filter needs two groups, the first for the name and the second for the value", example
    value = group_expressions(expression)[1]
    if not _matches_any(value, _numbers()):
        message = f"the filter's second group, ({value}), is the value, and no number matches it"
        return message, "write groups before the value as (?:…)"
    return None


def can_match_name(expression: str, metric: str) -> bool:
    """Return whether a valid filter's first group, the name, can be this metric."""
    groups = group_expressions(expression)
    return bool(groups) and _matches_any(groups[0], [metric, f" {metric}", f"{metric} "])


def _matches_any(expression: str, texts: Sequence[str]) -> bool:
    compiled = compile_filter(expression)
    return any(compiled.fullmatch(text) is not None for text in texts)


@functools.cache
def _numbers() -> list[str]:
    """Return numbers in many forms: signs, digits before and after the point, exponents, blanks around."""
    digits = ("0", "9", "10", "42", "99", "100", *("1234567890"[:count] for count in range(1, 11)), "1712345678901")
    decimals = (
        "",
        ".",
        *(f".{'0123456789012345'[start : start + count]}" for start in (0, 4, 9) for count in range(1, 11)),
    )
    plain = [digit + decimal for digit in digits for decimal in decimals] + list(decimals[2:])
    exponents = [
        row + power for row in ("1", "0.5", "1.25", "1.234567", "5.") for power in ("e-05", "e+05", "e5", "E-05", "E5")
    ]
    unsigned = [*plain, *exponents, *(row + power for row in ("1", "1.5") for power in ("e-5", "e-10", "E+05", "E-5"))]
    signed = [sign + number for number in unsigned for sign in ("", "-", "+")]
    return [*signed, *(text for number in plain for text in (f" {number}", f"{number} "))]
