"""Text that looks like personal data: e-mail addresses, phone numbers, card numbers."""

import re

# A quick look first: most text has neither an @ nor seven digits.
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,8}\.[A-Za-z]{2,24}")
# North American, or international with a plus sign and at least seven digits.
_PHONE = re.compile(
    r"(?<![\w.+-])(?:(?:\+?1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}|\+\d{1,3}(?:[ .()-]{0,2}\d){7,12})(?![\w-])"
)
_CARD = re.compile(r"(?<![\w.-])[3-6]\d{3}(?:[ -]?\d{3,6}){2,3}\d?(?![\w-]|\.\d)")
_DIGITS = re.compile(r"\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d")


def count_personal_data(text: str) -> tuple[int, int, int]:
    """How many e-mail addresses, phone numbers and card numbers a text seems to have."""
    emails = len(_EMAIL.findall(text)) if "@" in text else 0
    if not _DIGITS.search(text):
        return emails, 0, 0
    cards = sum(is_card_number(match[0]) for match in _CARD.finditer(text))
    return emails, len(_PHONE.findall(text)), cards


def is_card_number(text: str) -> bool:
    """Whether the digits of a text have a card number's length (13 to 19) and check digit (Luhn, ISO/IEC 7812-1)."""
    digits = [int(each) for each in text if each.isdigit()]
    if not 13 <= len(digits) <= 19:
        return False
    doubled = [2 * each - 9 if each > 4 else 2 * each for each in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0
