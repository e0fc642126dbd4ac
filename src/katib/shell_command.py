"""A trial's command: Katib's wrapper around it, its parts as a shell parses them, and its Hydra overrides."""

import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from config.errors import InputError

WRAPPED = ("StdOut", "File", "TensorFlowEvent")  # collectors whose trials run in a wrapped shell
SHELLS = ("sh", "bash")
# Tokens of a shell line without quotes.
_TOKEN = re.compile(r"(?P<redirect>\d*[<>]+(?:&[12])?)|(?P<operator>&&|\|\||[;&|()\n])|(?P<word>[^();&|<>\s]+)|\s")


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
        condition = f"test -f {mark} && [ $(head -n 1 {posixpath.join(folder, '$$.pid')}) = early-stopped ]"
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


def mask_quoted(line: str) -> str:
    """Replace characters that are quoted, escaped or inside `$(...)` by x; a $ in double quotes stays.

    The result has the length of the line, so that positions are the same.
    """
    masked, quote, escaped, depth = [], "", False, 0
    for index, char in enumerate(line):
        if escaped or (char == "\\" and quote != "'"):
            escaped = not escaped
            masked.append("x")
        elif quote:
            masked.append(char if quote == '"' and char == "$" and not depth else "x")
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
            masked.append("x")
        elif depth or (char == "(" and index and line[index - 1] == "$" and masked[-1] == "$"):
            depth += (char == "(") - (char == ")")
            masked.append("x")
        else:
            masked.append(char)
    return "".join(masked)


@dataclass(frozen=True)
class SimpleCommand:
    """A simple command of a shell line.

    Attributes:
        operator: operator in front of it: "", &&, ||, ;, |, & or a line break.
        words: words without quotes and redirections; nothing is expanded.
        start, end: positions of its words in the line.
    """

    operator: str
    words: list[str]
    start: int
    end: int

    @property
    def program(self) -> str:
        """Its first word that is neither an assignment nor a keyword."""
        prefix = re.compile(r"\w+=.*|then|do|else|if|while|until|time|!|\{", re.DOTALL)
        return next((word for word in self.words if not prefix.fullmatch(word)), "")

    @property
    def overrides(self) -> list[str] | None:
        """The Hydra overrides if it calls train.py, else None."""
        program = posixpath.basename(self.program)
        if program != "train.py" and not re.fullmatch(r"python[\d.]*|torchrun|accelerate|xvfb-run|nice|env", program):
            return None
        for index, word in enumerate(self.words):
            if posixpath.basename(word) == "train.py":
                return self.words[index + 1 :]
        return None


def split_commands(line: str) -> list[SimpleCommand]:
    """Split a shell line into its simple commands.

    Raises:
        ValueError: a quote is not closed.
    """
    commands: list[SimpleCommand] = []
    words: list[str] = []
    operator, start, end, is_target = "", 0, 0, False
    for token in _TOKEN.finditer(mask_quoted(line)):
        if token.lastgroup == "word":
            unquoted = shlex.split(line[token.start() : token.end()])
            if not is_target:
                start = start if words else token.start()
                words += unquoted
                end = token.end()
            is_target = False
        elif token.lastgroup == "redirect":
            is_target = not token[0].endswith(("&1", "&2"))
        elif token.lastgroup == "operator":
            if words:
                commands.append(SimpleCommand(operator, words, start, end))
            operator, words = token[0], []
    return [*commands, SimpleCommand(operator, words, start, end)] if words else commands


def training_command(line: str) -> SimpleCommand | None:
    """Return the last call of our train.py in a shell line; None if there is none.

    Raises:
        ValueError: a quote is not closed.
    """
    return next((command for command in reversed(split_commands(line)) if command.overrides is not None), None)


def train_overrides(words: Sequence[str]) -> list[str] | None:
    """Return the Hydra overrides of a trial's command; None if it does not call our train.py.

    Args:
        words: command and arguments of the primary container.

    Raises:
        ValueError: a quote is not closed.
    """
    command = training_command(script(words))
    return None if command is None else command.overrides


def append_overrides(words: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Append overrides to the call of train.py.

    Args:
        words: command and arguments of the primary container.
        overrides: Hydra overrides.

    Raises:
        InputError: the command does not call train.py.
    """
    quoted = [shlex.quote(override) for override in overrides]
    line = " ".join(words[2:]) if is_shell(words) else shlex.join(words)
    call = training_command(line)
    if call is None:
        raise InputError("cannot add overrides: the trial's command does not call train.py")
    if not is_shell(words):
        return [*words, *quoted]
    return [*words[:2], " ".join([line[: call.end], *quoted]) + line[call.end :]]
