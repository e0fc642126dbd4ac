"""Statistics of texts in the tables of facts: personal data and broken characters."""

import re

ARTICLES = frozenset(("a", "an", "the"))

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,8}\.[A-Za-z]{2,24}")
# North American, or international with a plus sign and at least seven digits.
_PHONE = re.compile(
    r"(?<![\w.+-])(?:(?:\+?1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}|\+\d{1,3}(?:[ .()-]{0,2}\d){7,12})(?![\w-])"
)
_CARD = re.compile(r"(?<![\w.-])[3-6]\d{3}(?:[ -]?\d{3,6}){2,3}\d?(?![\w-]|\.\d)")
_SEVEN_DIGITS = re.compile(r"\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d")
_BROKEN = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def count_personal_data(text: str) -> tuple[int, int, int]:
    """Count the likely e-mail addresses, phone numbers and card numbers in a text."""
    # Most texts have neither an @ nor seven digits: test for these first.
    emails = len(_EMAIL.findall(text)) if "@" in text else 0
    if not _SEVEN_DIGITS.search(text):
        return emails, 0, 0
    cards = sum(is_card_number(match[0]) for match in _CARD.finditer(text))
    return emails, len(_PHONE.findall(text)), cards


def is_card_number(text: str) -> bool:
    """Return whether the digits of a text have a card number's length (13 to 19) and check digit (Luhn, ISO/IEC 7812-1)."""
    digits = [int(character) for character in text if character.isdigit()]
    if not 13 <= len(digits) <= 19:
        return False
    doubled = [2 * digit - 9 if digit > 4 else 2 * digit for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def count_broken_characters(text: str) -> int:
    """Count replacement and control characters, signs of a wrong encoding."""
    return len(_BROKEN.findall(text))
