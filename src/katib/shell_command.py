"""A trial's command: how Katib's pod webhook wraps it, what a shell makes of it, and which Hydra overrides are in it."""

import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WRAPPED = ("StdOut", "File", "TensorFlowEvent")  # collectors whose trials run inside a wrapped shell
SHELLS = ("sh", "bash")
# What a shell sees where nothing is quoted.
_TOKEN = re.compile(r"(?P<redirect>\d*[<>]+(?:&[12])?)|(?P<operator>&&|\|\||[;&|()\n])|(?P<word>[^();&|<>\s]+)|\s")


def wrap(words: Sequence[str], collector: str, path: str, stops: bool) -> list[str]:
    """What the pod of a trial runs (pkg/webhook/v1beta1/pod/utils.go of Katib v0.19), before `expand`.

    Words are joined by spaces, without quotes: that is what the webhook does.

    Args:
        words: command and arguments of the primary container.
        collector: its kind.
        path: the file or directory that it reads.
        stops: whether the trial has early-stopping rules.
    """
    if collector not in WRAPPED:
        return list(words)
    shell, rest = (list(words[:2]), list(words[2:])) if is_shell(words) else (["sh", "-c"], list(words))
    folder = path if collector == "TensorFlowEvent" else posixpath.dirname(path)
    if collector == "StdOut":
        rest.append(f"1>{path} 2>&1")
    mark = posixpath.join(folder, "$$$$.pid")
    if stops:
        stopped = f"[ $(head -n 1 {posixpath.join(folder, '$$.pid')}) = early-stopped ]"
        said = "echo Training Container was Early Stopped; else echo Training Container was Failed; exit 1; fi"
        rest += ["||", f"if test -f {mark} && {stopped}; then {said}"]
    rest += ["&&", f"echo completed > {mark}"]
    return [*shell, " ".join(rest)]


def is_shell(words: Sequence[str]) -> bool:
    """Whether the webhook recognises a shell: exactly `sh -c` or `bash -c`."""
    return len(words) > 1 and words[0] in SHELLS and words[1] == "-c"


def expand(text: str, environment: Mapping[str, str]) -> str:
    """What Kubernetes does to a command: `$$` becomes `$`, `$(NAME)` a variable's value if there is one."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return environment.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^()]*)\)", value, text)


def script(words: Sequence[str]) -> str:
    """The line that the trial's shell reads first."""
    return " ".join(words[2:] if is_shell(words) else words)


def bare(line: str) -> str:
    """The line with what is quoted, escaped or inside `$(...)` as x; places stay, and so does a $ in double quotes."""
    out, quote, escaped, depth = [], "", False, 0
    for index, char in enumerate(line):
        if escaped or (char == "\\" and quote != "'"):
            escaped = not escaped
            out.append("x")
        elif quote:
            out.append(char if quote == '"' and char == "$" and not depth else "x")
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
            out.append("x")
        elif depth or (char == "(" and index and line[index - 1] == "$" and out[-1] == "$"):
            depth += (char == "(") - (char == ")")
            out.append("x")
        else:
            out.append(char)
    return "".join(out)


@dataclass(frozen=True)
class Simple:
    """One simple command of a shell line.

    Attributes:
        operator: what stands before it: "", &&, ||, ;, |, & or a line break.
        words: quotes resolved, nothing expanded; redirections left out.
        start, end: where its words begin and end in the line.
    """

    operator: str
    words: list[str]
    start: int
    end: int

    @property
    def program(self) -> str:
        """Its first word that is no assignment and no keyword."""
        for word in self.words:
            if not re.fullmatch(r"\w+=.*|then|do|else|if|while|until|time|!|\{", word, re.DOTALL):
                return word
        return ""

    @property
    def overrides(self) -> list[str] | None:
        """The Hydra overrides, if this calls train.py."""
        program = posixpath.basename(self.program)
        if program != "train.py" and not re.fullmatch(r"python[\d.]*|torchrun|accelerate|xvfb-run|nice|env", program):
            return None
        for index, word in enumerate(self.words):
            if posixpath.basename(word) == "train.py":
                return self.words[index + 1 :]
        return None


def commands(line: str) -> list[Simple]:
    """The simple commands of a shell line.

    Raises:
        ValueError: an open quote.
    """
    found: list[Simple] = []
    words: list[str] = []
    operator, start, end, target = "", 0, 0, False
    for token in _TOKEN.finditer(bare(line)):
        if token.lastgroup == "word":
            resolved = shlex.split(line[token.start() : token.end()])
            if not target:
                start = start if words else token.start()
                words += resolved
                end = token.end()
            target = False
        elif token.lastgroup == "redirect":
            target = not token[0].endswith("&1") and not token[0].endswith("&2")
        elif token.lastgroup == "operator":
            if words:
                found.append(Simple(operator, words, start, end))
            operator, words = token[0], []
    return [*found, Simple(operator, words, start, end)] if words else found


def training(line: str) -> Simple | None:
    """The call of our train.py in a shell line, the last if there are several; None if there is none.

    Raises:
        ValueError: an open quote.
    """
    return next((each for each in reversed(commands(line)) if each.overrides is not None), None)


def overrides(line: str) -> list[str] | None:
    """The Hydra overrides of the call of our train.py in a shell line; None if there is no such call.

    Raises:
        ValueError: an open quote.
    """
    found = training(line)
    return None if found is None else found.overrides
