"""Parts of Markdown texts in which data stays text: no HTML, link, image, code or table begins in it.

Kubeflow Pipelines and GitHub show Markdown with raw HTML and images, which a browser would fetch.
"""

import re
from collections.abc import Iterable, Sequence

_MARKUP = re.compile(r"[\\`\[\]|*~]")


def escape(value: object) -> str:
    """Return a value as plain text in one line."""
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\g<0>", text)


def code(value: object) -> str:
    """Return a value as code in one line; nothing for an empty one."""
    text = " ".join(str(value).split()).replace("`", "'").replace("|", "\\|")
    return f"`{text}`" if text else ""


def code_block(text: str, language: str = "text") -> str:
    """Return a text as lines of code."""
    return f"```{language}\n{text.replace('```', chr(39) * 3)}\n```"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], alignment: str = "") -> str:
    """Return a table.

    Args:
        header: titles of the columns.
        rows: cells, from `escape` or `code`.
        alignment: the line below the header, such as `|---|---:|`; by default all columns are left-aligned.
    """
    rule = alignment or f"|{'---|' * len(header)}"
    return "\n".join([f"| {' | '.join(header)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])
