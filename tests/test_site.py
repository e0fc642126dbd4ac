"""The documentation as a site (mkdocs.yml): every page is in its navigation, every link leads somewhere, and every picture names
the command that made it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from tests.test_readme import problem

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


def unnamed(text: str) -> list[str]:
    """Pictures without a command of ours below them."""
    found = []
    for picture, below in re.findall(r"^!\[.*?\]\((.*?)\)\n+(.*?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL):
        commands = re.findall(r"`((?:python|make) .*?)`", below, re.DOTALL)
        if not commands or any(problem(command.replace("\n", " ")) for command in commands):
            found.append(picture)
    return found


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_every_picture_names_its_command(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert unnamed(text) == []
    assert len(re.findall(r"!\[", text)) == len(re.findall(r"^!\[.*\)$", text, re.MULTILINE))


def test_a_picture_without_a_command_is_found() -> None:
    assert unnamed("![A](a.png)\n\nText.\n") == ["a.png"]
    assert unnamed("![A](a.png)\n\n*Made by `python -m studies.pictures`.*\n") == ["a.png"]
    assert unnamed("![A](a.png)\n\n*Made by `python -m studies\nsearch`.*\n\nText.\n") == []
