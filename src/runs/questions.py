"""Question words, by which reports group questions."""

_WORDS = {word: word for word in ("what", "who", "when", "where", "why", "which", "how")} | {
    "whom": "who",
    "whose": "who",
}


def question_word(question: str) -> str:
    """Return the first question word of a question ("who" for whom and whose), or "other"."""
    words = (word.strip("\"'“,.?!").lower() for word in question.split())
    return next((_WORDS[word] for word in words if word in _WORDS), "other")
