"""The parts of pages: templates, macros, charts, and that HTML is in templates alone."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError

from reports import charts, page
from reports.charts import Series
from reports.page import Cell, Piece

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
TEMPLATES = sorted((SOURCE / "reports" / "templates").glob("*.jinja"))
HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'>\"'&amp; \u202e\x07"
TAGS = (
    "a|b|body|br|code|details|div|figcaption|figure|h[1-6]|i|img|li|line|mark|p|path|polyline|pre|rect|"
    "script|span|style|sup|svg|table|tbody|td|text|th|thead|tr|u|ul"
)
TAG = re.compile(rf"</?(?:{TAGS})(?:\s[^<>]*=[^<>]*)?/?>|<(?:{TAGS}) [a-zA-Z]+=", re.IGNORECASE)


def macro(name: str, *args: object, file: str = "macros", **kwargs: object) -> str:
    """What a macro gives, as it is in a page."""
    module = page.environment().get_template(f"{file}.html.jinja").module
    return page.escape_controls(str(getattr(module, name)(*args, **kwargs)))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_every_template_escapes_always(template: Path) -> None:
    source = template.read_text(encoding="utf-8")
    assert page.environment().autoescape is True
    assert not re.search(r"autoescape|\|\s*safe\b|Markup", source)
    page.environment().get_template(template.name)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_html_in_python(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert not [
        f"{path}:{node.lineno}: {node.value}"
        for node in strings
        if id(node) not in docstrings and TAG.search(node.value)
    ]


def test_hostile_text_stays_text_in_every_macro() -> None:
    kinds = ("", "number", "text", "id", "nowrap", "code", "badge", "image")
    cell = Cell(HOSTILE, href=HOSTILE, note=HOSTILE, badge=HOSTILE, sort=HOSTILE)
    pieces = [Piece(HOSTILE), Piece(HOSTILE, mark=True), Piece(HOSTILE, underline=True, value=-1, title=HOSTILE)]
    many = {f"{HOSTILE} {number}": 3 for number in range(20)}
    parts = [
        macro("badge", HOSTILE),
        macro("legend", [HOSTILE, (HOSTILE, HOSTILE)]),
        macro("highlight", pieces),
        macro("image", HOSTILE),
        macro("table", [(HOSTILE, kind) for kind in kinds], [[HOSTILE] * 8, [cell] * 8], [HOSTILE, f"{HOSTILE}2"]),
        macro("definitions", [(HOSTILE, cell)]),
        macro("gallery", [(HOSTILE, [HOSTILE, HOSTILE])]),
        macro("xy", [Series(HOSTILE, [(0, 1), (2, 3)]), Series("b", [(0, 1)], [HOSTILE])], HOSTILE, file="charts"),
        macro("histogram", [0, 1], {HOSTILE: [3]}, file="charts"),
        macro("balance", {HOSTILE: {HOSTILE: 3}}, file="charts"),
        macro("balance", {HOSTILE: many}, file="charts"),
        macro("confusion", {HOSTILE: many}, file="charts"),
        macro("parallel", [(HOSTILE, [(0, HOSTILE)])], [([0.5], 1, HOSTILE)], file="charts"),
    ]
    for part in parts:
        assert not re.search(r"<script|<img src=x|'window|\u202e|\x07", part)
        assert r"\u202e\x07" in part


def test_a_missing_value_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="status"):
        page.write(tmp_path / "a.html", "run.html.jinja", title="a")
    assert not list(tmp_path.iterdir())


def test_a_highlighted_text_is_the_text() -> None:
    text = "  Who is\n <b>Ann</b>  Boleyn? "
    pieces = [Piece(char, value=index / 15 - 1, underline=index % 2 == 0) for index, char in enumerate(text)]
    assert re.sub("<[^>]*>", "", macro("highlight", pieces)) == text.replace("<", "&lt;").replace(">", "&gt;")


def test_an_excerpt_marks_a_part() -> None:
    assert page.mark_excerpt("abcdefgh", 3, 5, 2) == [Piece("... bc"), Piece("de", mark=True), Piece("fg ...")]
    assert page.mark_excerpt("abc", 0, 0, 9) == [Piece(""), Piece("∅", mark=True), Piece("abc")]


def test_charts_leave_out_what_is_no_number() -> None:
    series = [Series("a", [(1, 2), (2, np.nan), (3, np.inf), (4, 1e305)]), Series("b", [])]
    html = macro("xy", series, "step", file="charts")
    assert html.count("<circle") == 1
    assert "nan" not in html
    assert "No values" in macro("xy", [], "step", file="charts")


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0, 1, ["0", "0.2", "0.4", "0.6", "0.8", "1"]), (16.2, 98.8, ["20", "40", "60", "80"]), (0.21, 0.83, ["0.4", "0.6", "0.8"]), (10, 30, ["10", "15", "20", "25", "30"]), (5, 5, ["5"]),
        (-1e299, 1e299, ["-1e+299", "-5e+298", "0", "5e+298", "1e+299"]), (0.1231, 0.1238, ["0.1232", "0.1234", "0.1236", "0.1238"]),
    ],
)  # fmt: skip
def test_ticks_are_round(low: float, high: float, texts: list[str]) -> None:
    assert [text for _, text in charts.Axis(low, high, 0, 100).ticks()] == texts


def test_a_line_of_steps_keeps_its_height() -> None:
    plot = charts.plot_xy([Series("best", [(0, 0), (1, 1)], style="steps")], "trial", 158, 142)
    assert plot is not None
    assert plot.series[0].path == "48.0,108.0 148.0,108.0 148.0,8.0"


def test_confusions_of_many_classes_fit() -> None:
    counts = {f"c{number}": {f"c{number}": 3, f"c{(number + 1) % 200}": 1} for number in range(200)}
    html = macro("confusion", counts, file="charts")
    assert html.count("<rect") == 401
    assert len(html) < 100_000
