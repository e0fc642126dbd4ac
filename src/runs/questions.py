"""Kinds of questions, which reports slice by."""

ASKED = ("what", "who", "when", "where", "why", "which", "how")


def question_word(question: str) -> str:
    """The first question word of a question, or "other"."""
    words = [word.strip("\"'“,.?!").lower() for word in question.split()]
    found = next((word for word in words if word in ASKED or word in ("whom", "whose")), "other")
    return "who" if found in ("whom", "whose") else found
