"""Pages: self-contained HTML from the jinja2 templates in `reports/templates`.

A package gives plain data, the template has the HTML. A page is written in two parts:

1. `templates/<page>.html.jinja` extends the base, which brings the style, and imports the macros:

       {% extends "base.html.jinja" %}
       {% import "macros.html.jinja" as m %}
       {% import "charts.html.jinja" as charts %}
       {% block content %}
       <h1>{{ title }} {{ m.badge(status) }}</h1>
       {{ m.table([("phase", ""), ("time", "number"), ("share", "bar")], phases) }}
       {{ charts.xy(curves, "step") }}
       {% endblock %}

2. The package builds the values from numbers, strings, lists and the dataclasses `Cell`, `Piece` and `charts.Series`:

       page.write(folder / "report.html", "run.html.jinja", title=…, status=…, phases=[["fit", "3:20", 0.8]], curves=[…])

Values are always escaped (also control characters, which show as `\\x07`), a name that is missing is an error, and the
file appears atomically. The page's Content-Security-Policy allows the style sheet and the script of `templates/` by their
hashes, and images in the page; style attributes, event handlers and all that is fetched are refused by the browser.

Kinds of a table's columns: "" (as it is), "number" (right-aligned; numbers get 4 significant digits), "text" (long),
"id" (breaks anywhere), "nowrap", "code", "badge" (a status), "image" (a data URI), "bar" (a share, 0 to 1), "pieces"
(a list of `Piece`), "interval" (the arguments of `charts.interval`). Any cell may be a `Cell`, or None, which shows as "-".
"""

import base64
import functools
import hashlib
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from config.files import check_replaceable, has_line, write_text
from config.numbers import format_number
from reports import charts

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"
# Lines at the start of every page; pages of November 2026 have only the second one.
_PAGE_STARTS = ('<meta name="generator" content="isotrain">', "/* Colours follow the reader's system")


@dataclass(frozen=True)
class Cell:
    """A table cell that is more than its value.

    Attributes:
        value: what a plain cell of the column would be.
        href: address that it links to.
        note: small text below it.
        badge: status beside it.
        sort: what the column sorts by in place of the text.
    """

    value: Any
    href: str = ""
    note: str = ""
    badge: str = ""
    sort: float | str | None = None


@dataclass(frozen=True)
class Piece:
    """A piece of a text that is highlighted.

    Attributes:
        text: the piece.
        mark: whether it is marked, as with a pen.
        underline: whether it is underlined.
        incorrect: whether it is underlined with a dashed red line, as a place that is not the right one.
        value: shade, from -1 (blue) to 1 (red); None for none.
        title: shows when the pointer is over it.
    """

    text: str
    mark: bool = False
    underline: bool = False
    incorrect: bool = False
    value: float | None = None
    title: str = ""


@dataclass(frozen=True)
class Span:
    """A part of a text to show.

    Attributes:
        start, stop: its characters; an empty part, or one beyond the text, shows as ∅.
        title: shows when the pointer is over it.
        incorrect: whether it is shown as a `incorrect` Piece; a marked one if not.
    """

    start: int
    stop: int
    title: str = ""
    incorrect: bool = False


def write(path: Path, template: str, **values: Any) -> None:
    """Write a page atomically.

    Args:
        path: HTML file.
        template: name of a file in `reports/templates`.
        values: what the template shows.

    Raises:
        jinja2.UndefinedError: the template uses a value that is missing.
    """
    write_text(path, render(template, **values))


def check_page(path: str | os.PathLike[str]) -> None:
    """Check that a page may be written to a path, before the work whose result it shows.

    Raises:
        InputError: there is a file that is not a page of isotrain.
    """
    check_replaceable(path, lambda page: any(has_line(page, start, 15) for start in _PAGE_STARTS), "a report")


def render(template: str, **values: Any) -> str:
    """Return a page, or a part of one, as text; the arguments are those of `write`."""
    return escape_controls(environment().get_template(template).render(**values))


@functools.cache
def environment() -> "Environment":
    """Return the environment of all templates: autoescape is on, undefined names are errors."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    templates = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"number": format_rounded, "percent": format_percent}
    templates.tests["cell"] = lambda value: isinstance(value, Cell)
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "tables.js"))
    templates.globals |= {
        "geometry": charts,
        "style": Markup(style),
        "script": Markup(script),
        "policy": Markup(content_policy(style, script)),
    }
    return templates


def content_policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy of the pages: this style, this script, images in the page, and nothing else.

    Even if a text became HTML, no script of it would run, and the page fetches nothing and sends no form.
    """
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def escape_controls(text: str) -> str:
    r"""Return a text whose control characters, and others without a shape, are shown as escapes such as `\x07`."""

    def escape(line: str) -> str:
        # Most lines have none, and pages with images are megabytes long.
        if line.replace("\t", "").isprintable():
            return line
        return "".join(char if char.isprintable() or char == "\t" else ascii(char)[1:-1] for char in line)

    return "\n".join(map(escape, text.split("\n")))


def format_rounded(value: Any, digits: int = 4) -> str:
    """Return a number as text: significant digits at most, and a comma between thousands; "-" for None."""
    return "-" if value is None else format_number(value, digits, grouped=True)


def format_percent(share: float) -> str:
    """Return a share, 0 to 1, as a whole percentage."""
    return f"{share:.0%}"


def relative_url(path: str | os.PathLike[str], start: str | os.PathLike[str]) -> str:
    """Return the relative address of a file.

    Args:
        path: the file.
        start: folder of the page that links to it.
    """
    return quote(os.fsencode(os.path.relpath(path, start).replace(os.sep, "/")))


def data_uri(content: bytes, media_type: str) -> str:
    """Return a file's content as an address that needs no file, such as an image in the page."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def mark_excerpt(text: str, spans: Sequence[Span], around: int) -> list[Piece]:
    """Return the surroundings of some parts of a text as pieces; of no parts, the beginning of the text.

    Args:
        text: the text.
        spans: the parts; they may overlap.
        around: characters on each side of a part that are shown.
    """
    spans = [replace(span, start=min(max(0, span.start), len(text)), stop=min(span.stop, len(text))) for span in spans]
    ranges = [(span.start - around, max(span.start, span.stop) + around) for span in spans] or [(0, 2 * around)]
    inner = {end for span in spans for end in (span.start, span.stop)} | {end for row in ranges for end in row}
    ends = sorted({0, len(text), *(end for end in inner if 0 < end < len(text))})
    empty = [span for span in spans if span.stop <= span.start]
    pieces: list[Piece] = []
    for start, stop in itertools.pairwise([*ends, len(text) + 1]):
        pieces += [_piece("∅", [span]) for span in empty if span.start == start]
        if not any(low <= start and stop <= high for low, high in ranges) and stop <= len(text):
            pieces += [Piece(" ... ")] * (not pieces or pieces[-1] != Piece(" ... "))
        elif text[start:stop]:
            pieces.append(_piece(text[start:stop], [row for row in spans if row.start <= start and stop <= row.stop]))
    return pieces


def _piece(text: str, spans: Sequence[Span]) -> Piece:
    """Return the piece of a text that lies in some spans."""
    titles = dict.fromkeys(span.title for span in spans if span.title)
    return Piece(
        text,
        mark=any(not span.incorrect for span in spans),
        incorrect=any(span.incorrect for span in spans),
        title=", ".join(titles),
    )
