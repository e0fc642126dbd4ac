"""A trial's command: Katib's wrapper around it, its parts as a shell parses them, and its Hydra overrides."""

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from config.errors import InputError
from katib.shell_parser import ASSIGNMENT, Command, Part, Pipeline, ShellSyntaxError, Word, iter_commands, parse

WRAPPED = ("StdOut", "File", "TensorFlowEvent")  # collectors whose trials run in a wrapped shell
EARLY_STOPPED = "early-stopped"  # the collector's mark in the wrapper's file
SHELLS = ("sh", "bash")
ALL_SHELLS = (*SHELLS, "dash", "ash", "zsh")
# Programs that run the program in their arguments.
_PREFIXES = re.compile(r"env|exec|nice|nohup|setsid|command|tini|dumb-init|--|\w+=.*", re.DOTALL)
_INTERPRETERS = re.compile(r"python[\d.]*|torchrun|accelerate|xvfb-run|nice|env")


def wrap(words: Sequence[str], collector: str, path: str, stops_early: bool) -> list[str]:
    """Return the command of a trial's pod, before `expand` (pkg/webhook/v1beta1/pod/utils.go of Katib v0.19).

    Words are joined with spaces and without quotes, as the webhook does.

    Args:
        words: command and arguments of the primary container.
        collector: kind of collector.
        path: file or directory that the collector reads.
        stops_early: whether the trial has early-stopping rules.
    """
    if collector not in WRAPPED:
        return list(words)
    shell, rest = (list(words[:2]), list(words[2:])) if is_shell(words) else (["sh", "-c"], list(words))
    folder = path if collector == "TensorFlowEvent" else posixpath.dirname(path)
    if collector == "StdOut":
        rest.append(f"1>{path} 2>&1")
    mark = posixpath.join(folder, "$$$$.pid")
    if stops_early:
        condition = f"test -f {mark} && [ $(head -n 1 {posixpath.join(folder, '$$.pid')}) = {EARLY_STOPPED} ]"
        outcome = "echo Training Container was Early Stopped; else echo Training Container was Failed; exit 1; fi"
        rest += ["||", f"if {condition}; then {outcome}"]
    rest += ["&&", f"echo completed > {mark}"]
    return [*shell, " ".join(rest)]


def is_shell(words: Sequence[str]) -> bool:
    """Return whether the webhook recognizes a shell: exactly `sh -c` or `bash -c`."""
    return len(words) > 1 and words[0] in SHELLS and words[1] == "-c"


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Expand a command as Kubernetes does: `$$` to `$`, `$(NAME)` to the value of a variable if it exists."""

    def replacement(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else environment.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^()]*)\)", replacement, text)


def script(words: Sequence[str]) -> str:
    """Return the line that the trial's shell reads."""
    return " ".join(words[2:] if is_shell(words) else words)


def is_bash(words: Sequence[str]) -> bool:
    """Return whether bash reads the line, and not sh, which is dash in Debian's images."""
    return is_shell(words) and words[0] == "bash"


def parse_words(words: Sequence[str], wrapped: bool = True) -> list[Pipeline]:
    """Parse a trial's command.

    Args:
        words: command and arguments of the primary container.
        wrapped: whether Katib wraps them, which joins them to a shell line; else the container runs them as they are.

    Raises:
        ShellSyntaxError: the shell would refuse the line.
    """
    if wrapped or is_shell(words):
        return parse(script(words) if wrapped else words[2], is_bash(words))
    return [Pipeline("", [Command("simple", [Word((Part("text", word, True),), 0, 0) for word in words])])]


def split_assignment(word: Word) -> tuple[str, Word] | None:
    """Return name and value of an assignment; None for any other word."""
    first, *rest = word.parts or (Part("text", "", False),)
    match = ASSIGNMENT.match(first.text) if first.kind == "text" and not first.quoted else None
    if match is None:
        return None
    return match[1], Word((Part("text", first.text[match.end() :], False), *rest), word.start, word.end)


def call_words(command: Command) -> list[Word]:
    """Return the words of a simple command from its program on, without the assignments in front of it."""
    if command.kind != "simple":
        return []
    first = next((i for i, word in enumerate(command.words) if split_assignment(word) is None), len(command.words))
    return command.words[first:]


def program(command: Command) -> str:
    """Return the name of a simple command's program, without its folder; "" if there is none."""
    return next((posixpath.basename(word.text) for word in call_words(command)), "")


def shell_script(command: Command) -> tuple[Word, list[Word]] | None:
    """Return the script of `sh -c SCRIPT WORD ...`, and the words after it; None if the command is no such call."""
    words = call_words(command)
    while words and _PREFIXES.fullmatch(posixpath.basename(words[0].text)):
        words = words[1:]
    if not words or posixpath.basename(words[0].text) not in ALL_SHELLS:
        return None
    is_script, index = False, 1
    while index < len(words) and (option := words[index].text)[:1] in ("-", "+"):
        is_script |= re.fullmatch(r"-[a-z]*c[a-z]*", option) is not None
        index += 2 if re.fullmatch(r"[-+][a-z]*[oO]", option) else 1
    return (words[index], words[index + 1 :]) if is_script and index < len(words) else None


def iter_calls(pipelines: list[Pipeline]) -> Iterator[Command]:
    """Return every command, those in the scripts of `sh -c` included."""
    for _, command in iter_commands(pipelines):
        yield command
        if nested := shell_script(command):
            yield from iter_calls(parse(nested[0].text, "bash" in program(command)))


def _train_arguments(command: Command) -> list[Word] | None:
    """Return the arguments of train.py; None if the command does not call it."""
    words = call_words(command)
    for index, word in enumerate(words):
        name = posixpath.basename(word.text)
        if name == "train.py":
            callers = [posixpath.basename(caller.text) for caller in words[:index]]
            return words[index + 1 :] if not callers or any(map(_INTERPRETERS.fullmatch, callers)) else None
        if name.endswith(".py"):
            return None  # an argument of another program
    return None


def takes_overrides(words: Sequence[str]) -> bool:
    """Return whether train.py is ours, from its arguments: overrides, no options in front of them.

    Programs of that name are common, and most take options (`--lr=0.1`).
    """
    return bool(words) and not words[0].startswith("-") and any(re.match(r"[^=-][^=]*=|~\w", word) for word in words)


@dataclass(frozen=True)
class Argument:
    """An argument of train.py.

    Attributes:
        text: the argument, as train.py receives it.
        is_known: whether it is; else the text is as it is written, because it depends on the place where it runs.
    """

    text: str
    is_known: bool = True


def train_call(
    words: Sequence[str], variables: Mapping[str, str] | None = None, wrapped: bool = True
) -> list[Argument] | None:
    """Return the arguments of the last call of a train.py; None if there is no call.

    Args:
        words: command and arguments of the primary container.
        variables: environment of the container. Variables that the command sets are added.
        wrapped: whether Katib wraps the command.

    Raises:
        ShellSyntaxError: the shell would refuse the line.
    """
    values, call = dict(variables or {}), None
    for command in iter_calls(parse_words(words, wrapped)):
        if (arguments := _train_arguments(command)) is not None:
            call = []
            for word in arguments:
                fields = word.expand(values)
                call += [Argument(word.text, False)] if fields is None else [Argument(text) for text in fields]
        assign(command, values)
    return call


def train_overrides(words: Sequence[str], wrapped: bool = True) -> list[str]:
    """Return the texts of `train_call`; empty without a call, or if the shell would refuse the line (K206, K401)."""
    try:
        call = train_call(words, wrapped=wrapped) or []
    except ShellSyntaxError:
        return []
    return [argument.text for argument in call]


def assign(command: Command, values: dict[str, str]) -> None:
    """Set the variables that a command assigns; one whose value is unknown is removed."""
    words = command.words
    if command.kind in ("for", "select"):
        values.pop(words[0].text if words else "", None)
    if command.kind != "simple" or (call_words(command) and program(command) not in ("export", "readonly", "declare")):
        return
    for name, value in filter(None, map(split_assignment, words)):
        fields = Word(tuple(Part(part.kind, part.text, True) for part in value.parts), 0, 0).expand(values)
        if fields is None:
            values.pop(name, None)
        else:
            values[name] = "".join(fields)


def environment(container: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of a container whose values are in the file, expanded as Kubernetes does it."""
    values: dict[str, str] = {}
    rows = container.get("env")
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and isinstance(row.get("value"), str):
            values[str(row.get("name"))] = expand(row["value"], values)
    return values


def append_overrides(words: Sequence[str], overrides: Sequence[str], wrapped: bool = True) -> list[str]:
    """Append overrides to the call of train.py.

    Args:
        words: command and arguments of the primary container.
        overrides: Hydra overrides.
        wrapped: whether Katib wraps the command.

    Raises:
        InputError: the shell would refuse the command, or it does not call train.py, or calls one that is not ours.
    """
    try:
        commands = [command for _, command in iter_commands(parse_words(words, wrapped))]
    except ShellSyntaxError as error:
        raise InputError(f"cannot add overrides: the shell would refuse the trial's command: {error}") from error
    command = next((command for command in reversed(commands) if _train_arguments(command) is not None), None)
    if command is None:
        raise InputError("cannot add overrides: the trial's command does not call train.py")
    call = [word.text for word in _train_arguments(command) or []]
    if call and not takes_overrides(call):
        message = (
            f"cannot add overrides: the trial calls another train.py than isotrain's (its first argument is {call[0]})"
        )
        raise InputError(f"{message}; add them to the file")
    quoted = [shlex.quote(override) for override in overrides]
    if is_shell(words) and (wrapped or len(words) == 3):
        line = " ".join(words[2:])
        return [*words[:2], " ".join([line[: command.end], *quoted]) + line[command.end :]]
    if not wrapped:
        return [*words, *overrides]
    end = 0
    for index, word in enumerate(words):
        end += len(word) + 1
        if end > command.end:
            return [*words[: index + 1], *quoted, *words[index + 1 :]]
    return [*words, *quoted]
