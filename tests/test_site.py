"""The documentation as a site (mkdocs.yml): every page is in its navigation, and every link leads somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def entries(node: Any) -> Iterator[str]:
    """The files of a navigation."""
    if isinstance(node, str):
        yield node
    for child in node if isinstance(node, list) else node.values() if isinstance(node, dict) else ():
        yield from entries(child)


def test_every_page_is_in_the_navigation_once() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(entries(config["nav"])) == [page.name for page in PAGES]
    assert config["theme"]["font"] is False  # no font of another server


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(text: str) -> Iterator[str]:
    for token in MarkdownIt().enable("table").parse(text):
        for child in token.children or ():
            if child.type in ("link_open", "image"):
                yield str(child.attrs.get("href") or child.attrs.get("src"))


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page.read_text(encoding="utf-8")):
        address, _, anchor = link.partition("#")
        if re.match(r"\w+:", address):
            continue
        target = (page.parent / address).resolve() if address else page
        assert target.exists(), link
        # A page of the site links to pages of the site only.
        assert page.name == "README.md" or target.is_relative_to(ROOT / "docs"), link
        assert not anchor or anchor in anchors(target), link
