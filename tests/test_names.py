"""Names in src/ are the field's terms: a pronoun or a participle names nothing."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
BANNED = {
    "each", "found", "asked", "said", "mine", "told", "place", "places", "sure", "given", "wanted", "known",
    "mend", "chosen", "shown", "kept", "seen", "tried", "gone", "begun", "what", "why", "where", "there",
    "here", "about", "one", "whole", "now", "ours", "own", "alike", "beside", "behind", "good", "bad", "wrong",
    "of", "again", "others",
}  # fmt: skip
KEYS = {"hydra_plugins/isotrain_katib/sweeper.py": "where"}  # hydra.sweeper.where


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yields each name that a file binds, attributes of `self` and fields included, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield (node.id if isinstance(node, ast.Name) else node.attr), node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or (
            isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name
        ):
            yield node.name, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, getattr(node, "lineno", 0)


def test_a_banned_name_is_noticed():
    code = "class A:\n  found: int\ndef of(place):\n  self.said = [each for each in place]\nimport x as why"
    assert {name for name, _ in bound_names(ast.parse(code))} & BANNED == {
        "found",
        "of",
        "place",
        "said",
        "each",
        "why",
    }


@pytest.mark.parametrize("room", sorted(path.name for path in SRC.iterdir() if path.is_dir()))
def test_names_are_nouns_and_verbs(room):
    uses = [
        f"{path.relative_to(SRC)}:{line}: {name}"
        for path in sorted((SRC / room).rglob("*.py"))
        for name, line in bound_names(ast.parse(path.read_text()))
        if name.strip("_") in BANNED and KEYS.get(str(path.relative_to(SRC))) != name
    ]
    assert not uses, "name the thing instead:\n" + "\n".join(uses)
