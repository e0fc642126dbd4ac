"""docs/reference.md: every key of conf/ with its default, valid values and effect, from the YAML files and their comments.

    python -m config.reference > docs/reference.md

The effect is the comment behind a key. Choices of a group that set the same class share a table, in which a key has the
comment that most of them give it. Valid values are those that the checks accept.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from config.check import iter_rules
from config.ranges import Rule, describe_rule
from config.tasks import CONF

# Title of each section, and what its first paragraph says.
SECTIONS = {
    "": ("General", "Keys of the whole run, in `conf/train.yaml`."),
    "model": ("Model", "`model=CHOICE`; more in [models](models.md)."),
    "data": ("Data", "`data=CHOICE`; more in [data](data.md)."),
    "optim": ("Optimiser", "`optim=CHOICE`."),
    "trainer": ("Trainer", "How long, on which hardware and how exactly a run trains."),
    "logger": ("Logger", "`logger=CHOICE`, where curves go; more in [loggers](loggers.md)."),
    "quality": ("Data contract", "`quality=CHOICE`; more in [data contracts](quality.md)."),
    "explain": ("Explanation gate", "`explain=CHOICE`; more in [explanation gate](explain.md)."),
    "experiment": ("Recipes", "`experiment=CHOICE` sets several groups at once."),
    "hydra/sweeper": (
        "Sweeper",
        "`hydra/sweeper=CHOICE` with `-m`; more in [searches with Hydra's grammar](katib.md#searches-with-hydras-grammar).",
    ),
    "task": ("Task", "Set by the data set, not on the command line; more in [your own task](tasks.md)."),
    "pipeline": (
        "Pipeline",
        "Settings of `python -m pipelines compile KEY=VALUE ...`; more in [pipelines](pipelines.md).",
    ),
}
HEADER = """# Reference of settings

Every key of `conf/`, generated from the YAML files' own comments by `python -m config.reference > docs/reference.md`.

A key is set on the command line: `python train.py optim.lr=1e-4 data.batch_size=16`; `python train.py --help` lists the choices of each
group, `python train.py --cfg job` prints the composed configuration, and `null` means "none". A default such as `${seed}` is the value of
another key. Unknown keys, wrong types and values out of range are refused before anything is loaded. Metrics of the tasks are in `conf/task/`.
"""
_FIRST = ("bert_tiny", "bert_tiny_classifier", "enforce")  # choices with all keys of their group


@dataclass(frozen=True)
class Setting:
    """A key of a YAML file.

    Attributes:
        key: dotted, as on the command line.
        default: its value, as written; "" for a mapping whose keys follow.
        comment: the comment behind it.
        rule: its valid values; None if the checks accept any.
        value: its value.
    """

    key: str
    default: str
    comment: str
    rule: Rule | None
    value: Any


@dataclass(frozen=True)
class Choice:
    """A YAML file of a group.

    Attributes:
        name: of the choice.
        summary: lines of the comment at the head of the file.
        target: class that takes the keys; "" for none.
        settings: in the order of the file.
    """

    name: str
    summary: list[str]
    target: str
    settings: list[Setting]


def read_choice(path: Path, group: str) -> Choice:
    """Read a YAML file of conf/ with its comments.

    Args:
        path: of the file.
        group: prefix of its keys; "" or "pipeline" for none.
    """
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    values = yaml.safe_load(text) or {}
    is_root = group in ("", "pipeline") or text.startswith("# @package _global_")
    prefix = "" if is_root else group.replace("/", ".")
    rules = {key: rule for key, _, rule in iter_rules({prefix: values} if prefix else values)}
    summary = [line.lstrip("# ").rstrip() for line in lines[: _count_comments(lines)]]
    root = yaml.compose(text)
    settings = [] if root is None else list(_settings(root, values, prefix, lines, rules))
    return Choice(path.stem, summary, str(values.get("_target_", "")), settings)


def _count_comments(lines: list[str]) -> int:
    return next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))


def _settings(
    node: yaml.Node, values: Mapping[str, Any], prefix: str, lines: list[str], rules: Mapping[str, Rule | None]
) -> Iterator[Setting]:
    """Iterate over the keys of a mapping, and of the mappings in it that are written as blocks."""
    assert isinstance(node, yaml.MappingNode)
    for name_node, child in node.value:
        name = str(name_node.value)
        if name in ("defaults", "_target_", "hydra"):
            continue
        key = f"{prefix}.{name}".lstrip(".")
        block = isinstance(child, yaml.MappingNode) and not child.flow_style
        one_line = child.end_mark.line == name_node.end_mark.line and not block
        line = lines[name_node.end_mark.line]
        rest = line[child.end_mark.column :] if one_line else line[name_node.end_mark.column + 1 :]
        comment = re.search(r"(?:^|\s)#\s*(.*)$", rest)
        default = "" if block else " ".join(_source(child, lines).split())
        yield Setting(key, default, comment[1].strip() if comment else "", rules.get(key), values[name])
        if block:
            yield from _settings(child, values[name], key, lines, rules)


def _source(node: yaml.Node, lines: list[str]) -> str:
    """Return a value as the file has it."""
    start, stop = node.start_mark, node.end_mark
    if start.line == stop.line:
        text = lines[start.line][start.column : stop.column]
        return str(text)
    return "\n".join(
        [lines[start.line][start.column :], *lines[start.line + 1 : stop.line], lines[stop.line][: stop.column]]
    )


def read_group(group: str, conf: Path = CONF) -> list[Choice]:
    """Return the choices of a group."""
    if group in ("", "pipeline"):
        return [read_choice(conf / f"{group or 'train'}.yaml", group)]
    choices = [read_choice(path, group) for path in sorted((conf / group).glob("*.yaml"))]
    return sorted(choices, key=lambda choice: choice.name not in _FIRST)


def tables(choices: list[Choice]) -> dict[str, list[Choice]]:
    """Return the choices by the class that takes their keys."""
    groups: dict[str, list[Choice]] = {}
    for choice in choices:
        groups.setdefault(choice.target, []).append(choice)
    return groups


def effect(key: str, choices: list[Choice]) -> str:
    """Return the comment that most choices have behind a key; "" if there is none."""
    comments = Counter(row.comment for choice in choices for row in choice.settings if row.key == key and row.comment)
    return next((comment for comment, _ in comments.most_common(1)), "")


def _values(setting: Setting) -> str:
    if setting.rule is not None:
        return describe_rule(setting.rule)
    if setting.default == "":
        return "a mapping"
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a mapping",
    }
    name: str = names.get(type(setting.value), "any")
    return name


def _default(key: str, choices: list[Choice]) -> str:
    """Return the default of a key; where choices differ, each with their names, the most common one first."""
    names: dict[str, list[str]] = {}
    for choice in choices:
        for row in choice.settings:
            if row.key == key and row.default:
                names.setdefault(row.default, []).append(choice.name)
    if len(names) == 1 and len(choices) == len(next(iter(names.values()))):
        return _code(next(iter(names)))
    ordered = sorted(names.items(), key=lambda pair: -len(pair[1]))
    return "; ".join(f"{_code(default)} ({', '.join(choices_with_it)})" for default, choices_with_it in ordered)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(choices: list[Choice]) -> Iterator[str]:
    yield from ("| key | default | values | effect |", "|---|---|---|---|")
    settings = {row.key: row for choice in reversed(choices) for row in choice.settings}
    order = dict.fromkeys(row.key for choice in choices for row in choice.settings)
    for key in order:
        text = effect(key, choices).replace("|", "\\|").replace("<", "&lt;")
        yield _row([_code(key), _default(key, choices), _values(settings[key]).replace("|", "\\|"), text])


def format_reference(conf: Path = CONF) -> str:
    """Return the reference as Markdown."""
    lines = [HEADER]
    for group, (title, text) in SECTIONS.items():
        choices = read_group(group, conf)
        lines += [f"## {title}", "", text, ""]
        if group not in ("", "pipeline", "trainer"):
            lines += ["| choice | |", "|---|---|"]
            lines += [
                _row([_code(choice.name), _summary(choice)]) for choice in sorted(choices, key=lambda row: row.name)
            ]
            lines.append("")
        if group in ("experiment", "task"):
            continue
        for target, members in tables(choices).items():
            if target:
                lines += [f"### `{target.rpartition('.')[2]}`" if "$" not in target else "### Baselines", ""]
                lines += [f"Keys of {', '.join(_code(choice.name) for choice in members)} (`{target}`).", ""]
            lines += [*_table(members), ""]
    return "\n".join(lines)


def _summary(choice: Choice) -> str:
    """Return the first line of the head of a file: a command, and what it does."""
    line = next((line for line in choice.summary if line and not line.startswith("@")), "")
    command, _, text = line.partition("  ")
    text = text.strip().replace("|", "\\|").replace("<", "&lt;")
    return f"{_code(command)} {text}".strip() if command.startswith("python") else line.replace("<", "&lt;")


if __name__ == "__main__":
    sys.stdout.write(format_reference())
