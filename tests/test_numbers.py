"""One format of numbers, and one of nested settings."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import terminal
from config.numbers import format_number
from reports import page
from runs.fields import flatten


@pytest.mark.parametrize(
    ("value", "plain", "grouped"),
    [
        (0, "0", "0"),
        (0.0, "0", "0"),
        (83.14159, "83.142", "83.142"),
        (1e-5, "1e-05", "1e-05"),
        (16384, "16384", "16,384"),
        (16384.0, "16384", "16,384"),
        (1234.56, "1234.6", "1,234.6"),
        (123456.7, "123457", "123,457"),
        (99999.6, "100000", "100,000"),
        (-1234567.8, "-1234568", "-1,234,568"),
        (1e20, "1e+20", "1e+20"),
        (math.nan, "nan", "nan"),
        (math.inf, "inf", "inf"),
    ],
)
def test_numbers(value: float, plain: str, grouped: str) -> None:
    assert format_number(value) == plain
    assert format_number(value, grouped=True) == grouped


def test_numbers_of_pages_and_terminals() -> None:
    assert [page.format_rounded(value) for value in (None, 1234.56, 0.123456, 7)] == ["-", "1,235", "0.1235", "7"]
    assert [page.format_rounded(value, 3) for value in (None, 1234.56, 0.123456, 12345, 999.6)] == [
        "-",
        "1,235",
        "0.123",
        "12,345",
        "1,000",
    ]
    assert [page.format_rounded(value, 5) for value in (83.14159, 1234.56, 0.1234567)] == [
        "83.142",
        "1,234.6",
        "0.12346",
    ]
    assert [terminal.format_value(value) for value in (1234.56, True, "a\n", 120000)] == [
        "1234.6",
        "True",
        "a\\n",
        "120000",
    ]


@given(st.floats(-1e300, 1e300), st.integers(3, 7))
def test_a_shown_number_is_the_number_to_its_digits(value: float, digits: int) -> None:
    assert float(format_number(value, digits)) == pytest.approx(value, rel=5.01 * 10.0 ** -min(digits, 3))
    assert format_number(value, digits, grouped=True).replace(",", "") == format_number(value, digits)


def test_nested_settings_are_one_level_of_dotted_keys() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [{"e": 2}]}, "f": {}, "g": None}) == {
        "a.b.c": 1,
        "a.d": [{"e": 2}],
        "f": {},
        "g": None,
    }
