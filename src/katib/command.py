"""A trial's command: how Katib's pod webhook wraps it, what a shell makes of it, and which Hydra overrides are in it."""

import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence

WRAPPED = ("StdOut", "File", "TensorFlowEvent")  # collectors whose trials run inside a wrapped shell
SHELLS = ("sh", "bash")
# What a shell sees where nothing is quoted.
_TOKEN = re.compile(r"(?P<redirect>\d*[<>]+&?)|(?P<operator>[();&|\n]+)|(?P<word>[^();&|<>\s]+)|\s")


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
    """The line with everything quoted or escaped as x; places stay, and so does a $ in double quotes."""
    out, quote, escaped = [], "", False
    for char in line:
        if escaped or (char == "\\" and quote != "'"):
            escaped = not escaped
            out.append("x")
        elif quote:
            out.append(char if quote == '"' and char == "$" else "x")
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
            out.append("x")
        else:
            out.append(char)
    return "".join(out)


def commands(line: str) -> list[list[str]]:
    """The simple commands of a shell line, each as its words; quotes resolved, nothing expanded.

    Raises:
        ValueError: an open quote.
    """
    found: list[list[str]] = [[]]
    target = False
    for token in _TOKEN.finditer(bare(line)):
        if token.lastgroup == "word":
            words = shlex.split(line[token.start() : token.end()])
            found[-1] += [] if target else words
            target = False
        elif token.lastgroup == "redirect":
            target = True
        elif token.lastgroup == "operator":
            found.append([])
    return [words for words in found if words]


def overrides(line: str) -> list[str] | None:
    """The Hydra overrides of the call of our train.py in a shell line; None if there is no such call.

    Raises:
        ValueError: an open quote.
    """
    for words in commands(line):
        for index, word in enumerate(words):
            if posixpath.basename(word) == "train.py":
                return words[index + 1 :]
    return None


def end_of_training(line: str) -> int | None:
    """Where in a shell line the call of train.py ends; None if there is none."""
    end, training = None, False
    for token in _TOKEN.finditer(bare(line)):
        if token.lastgroup == "word":
            words = shlex.split(line[token.start() : token.end()])
            training = training or any(posixpath.basename(word) == "train.py" for word in words)
            end = token.end() if training else end
        elif token.lastgroup and training:
            return end
    return end
