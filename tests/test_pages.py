"""The parts of pages: templates, macros, charts, that HTML is in templates alone, and that data never becomes HTML."""

import ast
import http.server
import re
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError, meta
from markdown_it import MarkdownIt
from tests.browser import asked

from reports import charts, markdown, page
from reports.charts import Series
from reports.page import Cell, Piece, Span

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
    pieces = [
        Piece(HOSTILE),
        Piece(HOSTILE, mark=True, incorrect=True, title=HOSTILE),
        Piece(HOSTILE, underline=True, value=-1, title=HOSTILE),
    ]
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


# Whole pages, with hostile text in every field

H = HOSTILE
PIECES = [Piece(H, mark=True), Piece(H, value=-0.4, title=H), Piece(H, underline=True)]
CELL = Cell(H, href=H, note=H, badge=H, sort=H)
SERIES = [Series(H, [(0, 1), (1, 2)], [H, H]), Series(H, [(0, 1)], style="dots")]
FIGURE = (H, [H, H])
CALIBRATION = {"error": 0.1, "bins": [(0.5, 0.5, 3)]}
TABLE_KINDS = ("", "number", "text", "id", "nowrap", "code", "badge", "image")
COLUMNS, ROWS = [(H, kind) for kind in TABLE_KINDS], [[H] * len(TABLE_KINDS), [CELL] * len(TABLE_KINDS)]
SUMMARY = [(H, H), (H, CELL)]
PART = {"label": H, "value": 1.0, "strength": -0.5, "pieces": PIECES}
COUNTS = {H: {H: 3, "b": 1}, "b": {H: 1}}
COMPARISON = {
    "data": H, "metric": H, "mode": H, "best": H, "count": 2, "value": 1.5, "command": H, "task": H, "curves_title": H,
    "curves": SERIES, "times": SERIES[0], "second": H,
    "axes": [(H, [(0.0, H), (1.0, H)])] * 2, "lines": [([0.1, 0.9], 0.5, H)], "scatters": [(H, SERIES)],
}  # fmt: skip
CARD = {"name": H, "missing": 3}
NUMBERS = {"edges": [0, 1], "bars": {H: [3]}, "numbers": [[H, 1.0, 2.0, 0.5, 3.0]]}
CHECK = {
    "outcome": H, "name": H, "value": 1.0, "threshold": H, "path": H, "message": H, "summary": H, "note": H, "columns": COLUMNS, "rows": ROWS,
}  # fmt: skip
PAGES: dict[str, dict[str, Any]] = {
    "no_report": {},
    "export": {
        "status": H, "reasons": [H], "summary": SUMMARY, "metrics": [[H, H, 0.5, 0.5, H, H, None]], "margin": 1.0, "notes": [H],
        "speed": [[H, H, H, None]], "requests": 200, "threads": 2, "explanations": H, "lowest": [[H, 0.5]], "changed": [[H, CELL, CELL]],
        "changed_count": 3, "examples": 9,
    },
    "run": {
        "status": H, "reason": H, "predictions_error": H, "summary": SUMMARY, "metrics": {"rows": [[H, H, H, None]], "note": H},
        "curves": [(H, [*SERIES, Series(H, [(0, 1), (1, 2)], style="noisy")])], "noisy": True, "confusion": {"counts": COUNTS, "pairs": [[H, H, 1, H]]},
        "mistakes": {
            "summary": H, "error": H, "missing": H, "note": H, "task": H, "columns": COLUMNS, "rows": ROWS, "groups": [H, f"{H} 2"],
        },
        "calibration": CALIBRATION, "timings": [[H, H, H, 0.5]], "machine": H, "gates": [[H, H, H, CELL]],
        "changes": {"run": H, "rows": [[H, H, H]]}, "configuration": H, "lineage": [[H, H, H]], "command": H,
        "command_notes": [H],
    },
    "runs": {
        "summary": H, "columns": COLUMNS, "rows": ROWS, "data_names": [H, f"{H} 2"],
        "comparisons": [COMPARISON, {**COMPARISON, "mode": None}],
    },
    "contract": {
        "status": H, "summary": SUMMARY, "errors": H, "violated_checks": [CHECK], "checks": [[H, H, H, H, H]],
        "cards": [{**CARD, **NUMBERS}, {**CARD, "counts": COUNTS}], "wide_cards": [{**CARD, "counts": COUNTS}], "constants": [H],
        "galleries": [(H, [FIGURE])], "extreme_columns": COLUMNS, "extremes": ROWS,
    },
    "drift": {
        "status": H, "summary": H, "method": H, "changes": [(H, H)], "columns": COLUMNS, "rows": ROWS,
        "drifted": [
            {"name": H, "statistic": H, "value": 1.0, "threshold": 2.0, "effect": 3.0, "kind": H, "shown": shown}
            for shown in ({"edges": [0, 1], "bars": {H: [1]}}, {"counts": COUNTS})
        ],
    },
    "explain": {
        "status": H, "reasons": [H], "summary": SUMMARY, "measures": [[H, H, H, None, H, H, H]], "notes": [H],
        "calibration": CALIBRATION,
        "sections": [
            {
                "title": H, "note": H, "columns": COLUMNS, "rows": ROWS, "figures": [FIGURE],
                "cards": [{"title": H, "correct": True, "note": H, "parts": [PART], "figures": figures}],
            }
            for figures in ([], [FIGURE])
        ],
    },
    "search": {
        "summary": SUMMARY, "command": H, "history": SERIES, "objective": H, "curves": SERIES, "x_label": H, "statuses": [(H, H)],
        "axes": [(H, [(0, H), (1, H)])], "lines": [([0.5], 0.5, H)], "importances": [(H, H, 0.5)], "count": 3, "few": 30,
        "minimum": 6, "parameters": [(H, "number")], "trials": [[CELL, H, H, H, H]], "scatters": [(H, SERIES)],
    },
    "pipeline": {
        "status": H, "decision": H, "tone": H, "summary": SUMMARY, "parameters": [[H, H]], "commands": [[H, H, H, H]],
        "graph": {"width": 9, "height": 9, "node": (4, 4), "edges": [[(0, 0), (1, 1)]], "nodes": [(0, 0, H, H, H)]},
        "steps": [[H, H, H, H, H, CELL]], "comparison": {"version": H, "verdict": H, "rows": [[H, 1, 2, H, H, None, 3, 4]]},
    },
}  # fmt: skip


class Parser(HTMLParser):
    """Collects what a browser would run or fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.problems: list[str] = []
        self.tag = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tag = tag
        for name, value in attributes:
            if name.startswith("on") or name == "style" or (name == "src" and value != page.escape_controls(H)):
                self.problems.append(f"<{tag} {name}={value}>")
        if tag in ("iframe", "object", "embed", "link", "base", "form"):
            self.problems.append(tag)

    def handle_data(self, data: str) -> None:
        if self.tag == "script" and data.strip():
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.tag = ""


def test_every_page_is_here_and_every_value_of_it() -> None:
    parts = ("base", "macros", "charts")
    names = {path.name.partition(".")[0] for path in TEMPLATES} - set(parts)
    assert names == set(PAGES)
    for name, values in PAGES.items():
        source = (TEMPLATES[0].parent / f"{name}.html.jinja").read_text(encoding="utf-8")
        used = meta.find_undeclared_variables(page.environment().parse(source)) - set(page.environment().globals)
        assert used - {"m", "charts", "title"} == set(values), name


@pytest.mark.parametrize("name", PAGES)
def test_hostile_text_stays_text_in_every_page(name: str) -> None:
    text = page.render(f"{name}.html.jinja", title=H, **PAGES[name])
    found = Parser()
    found.feed(text)
    script = (TEMPLATES[0].parent / "tables.js").read_text(encoding="utf-8")
    assert found.problems == []
    assert found.scripts in ([], [script])
    assert not re.search(r"<script>window|<img src=x|\u202e|\x07", text)
    assert text.count(r"\u202e\x07") > (0 if name == "no_report" else 10)


def test_every_page_has_a_policy_that_fits_its_style_and_script() -> None:
    for name, values in PAGES.items():
        text = page.render(f"{name}.html.jinja", title="a", **values)
        (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
        style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
        script = (TEMPLATES[0].parent / "tables.js").read_text(encoding="utf-8")
        assert policy == page.content_policy(*style, script)
        assert "unsafe" not in policy
        assert policy.startswith("default-src 'none'; ")
        assert text.index("Content-Security-Policy") < text.index("<title>")


@pytest.fixture
def requests() -> Iterator[tuple[str, list[str]]]:
    """An address, and the paths that were asked for."""
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", paths
    server.shutdown()
    server.server_close()


WORKS = """
const bar = document.querySelector('svg.track'), head = document.querySelector('.filterable th');
const before = head.getAttribute('aria-sort'); head.click();
return [window.hacked ?? 0, getComputedStyle(document.querySelector('.badge')).fontWeight,
        bar ? bar.getBoundingClientRect().height > 3 : null, before, head.getAttribute('aria-sort'),
        performance.getEntriesByType('resource').filter(each => !each.name.startsWith('data:')).length];
"""


@pytest.mark.parametrize("policy", [True, False])
def test_a_browser_runs_and_fetches_nothing(policy: bool, requests: tuple[str, list[str]], tmp_path: Path) -> None:
    """Even in a page in which text has become HTML. Without the policy the same page is caught at both."""
    address, paths = requests
    text = page.render("run.html.jinja", title=H, **PAGES["run"])
    hole = (
        f"<script>window.hacked = 1</script><script src='{address}/script'></script><img src='{address}/image'>"
        f"<img src='data:,' onerror='window.hacked = 2'><style>@import '{address}/style';</style>"
        f"<link rel=stylesheet href='{address}/link'><iframe src='{address}/frame'></iframe>"
        f"<p style='background:url({address}/background)'>x</p><a id=a href='javascript:window.hacked=3'>x</a>"
    )
    file = tmp_path / "a.html"
    text = text.replace("<h1>", f"{hole}<h1>", 1)
    file.write_text(text if policy else re.sub(r"<meta http-equiv.*", "", text), encoding="utf-8")
    expression = WORKS.replace("return", "document.getElementById('a').click(); return")
    hacked, weight, bar, before, after, fetched = asked(file, expression)
    assert (weight, bar, before, after) == ("600", True, None, "descending")
    if policy:
        assert (hacked, paths) == (0, [])
    else:
        assert hacked
        assert {"/script", "/image"} <= set(paths)
        assert fetched


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_every_hostile_page_works_in_a_browser(name: str, tmp_path: Path) -> None:
    file = tmp_path / "a.html"
    page.write(file, f"{name}.html.jinja", title=H, **PAGES[name])
    found = asked(
        file,
        "return [window.hacked ?? 0, document.querySelectorAll('img[src=x]').length, getComputedStyle(document.body).maxWidth,"
        " performance.getEntriesByType('resource').filter(each => !each.name.startsWith('data:')).length];",
    )
    assert found[:3] == [0, 0, "1056px"]
    assert (H[:30] in asked(file, "return document.body.innerText")) is (name != "no_report")


# Markdown

MARKUP = "<img src=http://h/x> ![a](http://h/y) [b](http://h/z) `c` | *d* | \n\n# e\n```\n&lt; <b>\n| - | - |\\"


@pytest.mark.parametrize("text", [MARKUP, "```", "`", "\\`", "\\", "| a", "a | b\n---|---"])
def test_markdown_shows_data_as_text(text: str) -> None:
    rows = [[markdown.escape(text), markdown.code(text)]]
    body = f"{markdown.escape(text)}\n\n{markdown.table(['a', 'b'], rows)}\n\n{markdown.code_block(text)}\n\nend\n"
    found = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    tags = re.sub(r"<(?:/?(?:p|table|thead|tbody|tr|th|td|code|pre)|code class=\"language-text\")>", "", found)
    assert "<" not in tags
    assert found.count("<tr>") == 2
    assert found.count("<td>") == 2
    assert found.rstrip().endswith("<p>end</p>")


@given(st.text(max_size=30))
@settings(max_examples=100, deadline=None)
def test_escaped_markdown_is_the_text(text: str) -> None:
    from html import unescape

    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    found = parser.renderInline(f"x{markdown.escape(text)}x")
    assert "<" not in re.sub(r"</?em>", "", found)
    expected = f"x{' '.join(text.split())}x".replace("\0", "\ufffd")  # CommonMark 2.3
    assert unescape(re.sub("<[^>]*>", "", found)).replace("_", "") == expected.replace("_", "")


def test_a_missing_value_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="status"):
        page.write(tmp_path / "a.html", "run.html.jinja", title="a")
    assert not list(tmp_path.iterdir())


def test_a_highlighted_text_is_the_text() -> None:
    text = "  Who is\n <b>Ann</b>  Boleyn? "
    pieces = [Piece(char, value=index / 15 - 1, underline=index % 2 == 0) for index, char in enumerate(text)]
    assert re.sub("<[^>]*>", "", macro("highlight", pieces)) == text.replace("<", "&lt;").replace(">", "&gt;")


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], "abcd ... "),
        ([Span(3, 5)], " ... bc[de]fg ... "),
        ([Span(3, 5), Span(4, 7, incorrect=True)], " ... bc[d][~e~]~fg~hi ... "),
        ([Span(1, 2), Span(14, 15, incorrect=True)], "a[b]cd ... mn~o~p"),
        ([Span(0, 3, incorrect=True), Span(1, 2)], "~a~[~b~]~c~de ... "),
        ([Span(5, 5)], " ... de[∅]fg ... "),
        ([Span(99, 120, incorrect=True)], " ... op~∅~"),
        ([Span(-3, 2)], "[ab]cd ... "),
        ([Span(0, 99)], "[abcdefghijklmnop]"),
    ],
)
def test_an_excerpt_marks_parts(spans: list[Span], expected: str) -> None:
    pieces = page.mark_excerpt("abcdefghijklmnop", spans, 2)
    texts = [f"~{piece.text}~" if piece.incorrect else piece.text for piece in pieces]
    assert "".join(f"[{text}]" if piece.mark else text for piece, text in zip(pieces, texts, strict=True)) == expected


def test_an_excerpt_of_nothing() -> None:
    assert page.mark_excerpt("", [Span(0, 3, "a")], 9) == [Piece("∅", mark=True, title="a")]
    assert page.mark_excerpt("abc", [Span(0, 0)], 9) == [Piece("∅", mark=True), Piece("abc")]
    assert macro("highlight", [Piece("a", mark=True, incorrect=True, title="b")]).strip() == (
        '<mark class="incorrect" title="b">a</mark>'
    )


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


def test_smoothing_is_the_unbiased_moving_average() -> None:
    points = [(0.0, 1.0), (1.0, 3.0), (2.0, -1.0)]
    assert charts.smooth(points, 0) == points
    assert charts.smooth([(step, 5.0) for step in range(3)], 0.9) == [(step, pytest.approx(5)) for step in range(3)]
    # Weights of the past of 0.5: (1 * 1 + 2 * 3) / 3, then (1 * 1 + 2 * 3 + 4 * -1) / 7.
    assert [y for _, y in charts.smooth(points, 0.5)] == [1, pytest.approx(7 / 3), pytest.approx(3 / 7)]


def test_a_long_curve_keeps_its_ends_and_its_extremes() -> None:
    points = [(float(step), 500.0 if step == 70_123 else step % 7) for step in range(100_000)]
    points[31_001] = (31_001.0, -80.0)
    plot = charts.plot_xy([Series("loss", points, style="noisy")], "step", 340, 180)
    assert plot is not None
    (row,) = plot.series
    drawn = [tuple(map(float, pair.split(","))) for pair in row.path.split()]
    assert len(drawn) <= 4 * (charts.COLUMNS + 1)
    assert drawn == sorted(drawn, key=lambda point: point[0])
    assert {plot.x.start, plot.x.stop, plot.x.pixel(70_123), plot.x.pixel(31_001)} <= {x for x, _ in drawn}
    assert {plot.y.start, plot.y.stop} == {max(y for _, y in drawn), min(y for _, y in drawn)}
    assert len(row.smoothed) == len(charts.SMOOTHING) - 1
    assert row.dots == []
