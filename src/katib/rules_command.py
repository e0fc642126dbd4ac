"""Rules for a trial's command: what the shell makes of it once Katib has wrapped it, and what the collector then sees."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from katib import shell_command
from katib.experiment import ANY_PLACEHOLDER, Experiment, container_words
from katib.findings import Problem, Rule
from katib.shell_parser import (
    Command,
    Part,
    Pipeline,
    Redirect,
    ShellSyntaxError,
    UnclosedQuoteError,
    iter_commands,
    parse,
    parse_tolerantly,
)
from katib.shell_values import MARK, value_problems

METRICS, END = "/KATIB/METRICS", "/KATIB/END"  # in place of the files that Katib's wrapper writes
ONE_LINE = 'write command: ["sh", "-c", "<one line>"]'
# Programs that print nothing that a collector could match; `echo` and `printf` are judged by their text.
_SILENT = re.compile(
    r":|\[|break|cd|chmod|chown|continue|cp|declare|exit|export|false|kill|ln|local|mkdir|mv|readonly|return|rm|rmdir|set|"
    r"shift|shopt|sleep|sync|test|touch|trap|true|typeset|ulimit|umask|unset|wait"
)
# Programs that may take trial parameters before the training: they write settings or fetch data.
_SETUP = re.compile(
    r"|\.|aws|cat|curl|echo|envsubst|eval|git|grep|gsutil|head|jq|pip3?|printf|sed|source|tail|tar|tee|tr|unzip|wget|yq|\[\["
)


def _command(experiment: Experiment) -> Iterator[Problem]:
    """Commands that the shell would not run as they are written, or whose output or end the collector never sees."""
    primary, words = experiment.primary, experiment.command
    if primary is None or not words:
        return
    path = (*primary[0], "command" if primary[1].get("command") else "args")
    wrapped = experiment.collector in shell_command.WRAPPED
    try:
        problems = list(_argument_problems(words)) if wrapped else []
        problems += value_problems(experiment)
        if wrapped:
            problems += (
                (message, fix) for level, message, fix in _wrapped_problems(experiment, words) if level == "error"
            )
    except UnclosedQuoteError:
        return  # reported by K401
    for problem in dict.fromkeys(problems):
        yield (path, *problem)


def _collected(experiment: Experiment) -> Iterator[Problem]:
    if experiment.primary is None or not experiment.command or experiment.collector not in shell_command.WRAPPED:
        return
    path = (*experiment.primary[0], "command" if experiment.primary[1].get("command") else "args")
    try:
        for level, message, fix in _wrapped_problems(experiment, experiment.command):
            if level == "warning":
                yield path, message, fix
    except UnclosedQuoteError:
        return  # reported by K401


def _replicas(experiment: Experiment) -> Iterator[Problem]:
    """Containers of one trial that call train.py with different overrides, so that its ranks end with exit code 2."""
    calls = []
    for index, (path, container) in enumerate(experiment.replicas):
        wrapped = index == 0 and experiment.collector in shell_command.WRAPPED
        words = shell_command.train_overrides(container_words(container), wrapped)
        if words and shell_command.takes_overrides(words):
            calls.append((path, {word.partition("=")[0]: word for word in words}))
    for path, overrides in calls[1:]:
        keys = sorted(
            key for key in calls[0][1].keys() | overrides.keys() if calls[0][1].get(key) != overrides.get(key)
        )
        if keys:
            message = (
                f"{', '.join(keys)} differ from the primary container's, so the processes of the trial refuse to train"
            )
            yield (*path, "command"), message, "give all replicas the same overrides"


# --- the list of words, which Katib joins with spaces


def _argument_problems(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Words that are other words after Katib has joined them."""
    masked = _mask(words)
    if shell_command.is_shell(words):
        line, names = (masked[2] if len(masked) > 2 else ""), masked[3:]
        if names and re.search(r"\$[{]?[0-9@*#]", line):
            yield "Katib joins all words after sh -c with spaces, so $0, $1 and $@ are empty", ONE_LINE
        elif names and shell_command.train_overrides(masked[:3]) and not re.search(r"^[-~]|=", names[0]):
            message = "Katib joins all words after sh -c with spaces, so arguments become part of the script"
            yield message, ONE_LINE
        return
    if re.search(r"\s", masked[0]):
        return  # a shell line, which the author splits at blanks
    for word in masked:
        if not re.match(r"--?[\w-]+\s", word) and _is_split(word):
            yield "Katib joins the words without quotes, so a word with spaces or symbols is split", _quoted_word(word)
    for _, command in _iter_nested(masked):
        nested = shell_command.shell_script(command)
        if nested is not None and nested[1] and not re.search(r"\$[{]?[0-9@*]", nested[0].text):
            shell = " ".join(words[:2])
            message = f"Katib does not recognize {shell} as a shell and joins the words, so {nested[0].text} runs alone"
            yield f"{message}, without what follows it", ONE_LINE


def _iter_nested(words: Sequence[str]) -> Iterator[tuple[str, Command]]:
    try:
        yield from iter_commands(parse(" ".join(words)))
    except ShellSyntaxError:
        return  # reported below


def _is_split(word: str) -> bool:
    try:
        (pipeline,) = parse(word)
    except ValueError:  # an operator, or a part of a quoted text
        return False
    words, redirects = pipeline.commands[0].words, pipeline.commands[0].redirects
    return len(words) > 1 or len(pipeline.commands) > 1 or bool(words and redirects)


def _quoted_word(word: str) -> str:
    return f"quote it for the shell: {_unmask(shlex.quote(word))}" if "'" not in word else ONE_LINE


# --- what the wrapper adds, and what it captures


def _wrapped_problems(experiment: Experiment, words: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Return level, message and fix for commands whose output or end is lost."""
    masked = _mask(words)
    line, bash = shell_command.script(masked), shell_command.is_bash(masked)
    try:
        parse(line, bash)
    except UnclosedQuoteError:
        raise
    except ShellSyntaxError as error:
        message = str(error)
        if not _ends_open(line):
            yield "error", f"the shell cannot parse the command: {_unmask(message)}", "put the value in single quotes"
            return
    invalid = next((part for part in _iter_parts(parse_tolerantly(line, bash)) if part.kind == "invalid"), None)
    if invalid is not None:
        message = f"{_unmask(invalid.text)} is not a shell variable, so the shell exits with status 2"
        yield "error", message, "put it in single quotes"
    stdout = experiment.collector == "StdOut"
    try:
        pipelines = parse(f"{line} {f'1>{METRICS} 2>&1 ' * stdout}&& echo completed > {END}", bash)
    except ShellSyntaxError:
        pipelines = []
    if not (problem := _end_problem(line, pipelines, stdout)):
        yield from _flow_problems(experiment, pipelines[:-1], stdout)
    else:
        yield ("error", *problem)


def _ends_open(line: str) -> bool:
    """Return whether a line ends with an operator that needs another command."""
    return re.search(r"(&&|\|)\s*$", line) is not None


def _end_problem(line: str, pipelines: list[Pipeline], stdout: bool) -> tuple[str, str] | None:
    """Return why Katib's text does not follow the command's last word; None if it does."""
    ends = [redirect.target.text for pipeline in pipelines for redirect in pipeline.commands[-1].redirects]
    last = pipelines[-2].commands[-1] if len(pipelines) > 1 else None
    if END in ends and last is not None and (last.words or last.kind != "simple" or len(last.redirects) > 2):
        return None
    stripped = line.rstrip(" \t")
    if not stripped.strip():
        return "the command is empty", "write the command that trains"
    if stripped.endswith("\n"):
        message = "the command ends with a line break, so its output is not redirected and the metrics file stays empty"
        return message, "in YAML, write >- instead of | or >"
    if stripped.endswith("&") and not stripped.endswith("&&"):
        return "Katib does not wait for a command in the background", "remove the & after the command"
    if operator := re.search(r"(;|&&|\|\|?)\s*$", stripped):
        message = (
            f"the command ends with {operator[1]}, so its output is not redirected and the metrics file stays empty"
        )
        return message, f"remove the {operator[1]}"
    if any(redirect.body is not None for redirect in _iter_redirects(pipelines)):
        message = "the here-document at the command's end takes in what Katib appends"
        return message, "put the command and its here-document in braces: { ...; <line break> }"
    return "the comment hides what Katib appends to the command", "remove the comment"


def _flow_problems(experiment: Experiment, pipelines: list[Pipeline], stdout: bool) -> Iterator[tuple[str, str, str]]:
    """Commands that end the shell too early, run in the background, or print where the collector does not look."""
    functions = {
        command.words[0].text: command for _, command in iter_commands(pipelines) if command.kind == "function"
    }
    final = _final_list(pipelines)
    yield from (("error", *problem) for problem in _exit_problems(pipelines, final))
    if final[-1].negated:
        yield "error", "the ! before the command makes the shell take success for failure", "remove the !"
    units = list(_units(pipelines, not stdout, False, functions))
    programs = [unit for unit in units if unit.has_parameter and not unit.is_setup]
    if any(unit.background and not unit.is_awaited for unit in programs):
        yield "error", "Katib does not wait for a command in the background", "remove the & after the command"
        return
    several = any(len(unit.pipeline.commands) > 1 for unit in programs)
    # A command that the shell waits for is its only child, as one in the foreground is.
    backgrounds = [unit for unit in units if unit.background]
    siblings = [unit for unit in backgrounds if not unit.is_awaited or unit not in programs]
    if experiment.early_stopping and (several or siblings or len(backgrounds) > 1):
        message = "early stopping ends the shell's only child process, and "
        message += "a pipe has several" if several else "a command in the background is another one"
        yield "error", message, "write to a file instead of a pipe" if several else "remove the background command"
    if not stdout:
        return
    collected = [unit for unit in units if unit.is_collected]
    loud = [unit for unit in collected if not unit.is_silent(experiment.metrics)]
    message = "Katib collects only the output of the last command, which is not the one with the trial parameters"
    earlier = _units(final[:-1], False, False, functions)
    if final[-1].operator == "||" and any(unit.has_parameter and not unit.is_setup for unit in earlier):
        text = "Katib collects the output of the command after ||, which runs only if the one before it fails"
        level = "warning" if any(unit in programs for unit in loud) else "error"
        yield level, text, "put the commands in braces: { ... || ...; }"
    elif final[-1].commands[-1].kind == "function":
        yield "error", "the command defines a function and does not call it", "call the function at the end"
    elif not loud:
        if len(units) == len(collected):
            message, fix = "the command prints no metric", "print the metrics as name=number"
        elif collected or any(pipeline is not final[-1] for pipeline in pipelines):
            fix = "move the training to the end, or put the commands in braces: { ...; ...; }"
        else:
            message = "the command writes its output to a file of its own, and the metrics file stays empty"
            fix = "remove the redirection, or use tee"
        yield "error", message, fix
    elif programs and not any(
        unit in programs or any(_reads_output(unit, program) for program in programs) for unit in loud
    ):
        fix = "move the training to the end, or put the commands in braces: { ...; ...; }"
        yield "warning", message, f"{fix}; ignore this if the last command prints the metrics"


def _final_list(pipelines: list[Pipeline]) -> list[Pipeline]:
    """Return the last pipelines that && and || connect."""
    start = len(pipelines) - 1
    while start > 0 and pipelines[start].operator in ("&&", "||"):
        start -= 1
    return pipelines[start:]


def _exit_problems(pipelines: list[Pipeline], last: list[Pipeline]) -> Iterator[tuple[str, str]]:
    """Commands that replace or end the shell before it has marked the trial as completed.

    Args:
        pipelines: pipelines that the shell runs itself.
        last: the last ones; an exit before them is one of a special case.
    """
    for pipeline in pipelines:
        if len(pipeline.commands) > 1 or pipeline.background:
            continue  # in a shell of its own
        command, is_last = pipeline.commands[0], any(pipeline is row for row in last)
        words = [word.text for word in shell_command.call_words(command)]
        if words[:1] == ["exec"] and len(words) > 1:
            yield "exec replaces the shell that marks the trial as completed", "remove exec"
        elif words[:1] == ["exit"] and is_last and pipeline.operator != "||":
            yield "exit ends the shell before it marks the trial as completed", "remove exit"
        elif command.kind not in ("(", "function"):
            inner = [row for row in command.body if not _fails(row.commands[0])]  # a failure may be right
            yield from _exit_problems(inner, inner if is_last else [])


def _fails(command: Command) -> bool:
    words = [word.text for word in shell_command.call_words(command)]
    return len(words) == 2 and words[0] == "exit" and re.fullmatch(r"0*[1-9]\d*", words[1]) is not None


class _Unit:
    """A pipeline of simple commands, or a pipeline with compound commands, as far as its output is concerned.

    Attributes:
        pipeline: the pipeline.
        is_collected: whether its output reaches the metrics file.
        background: whether the shell goes on while it runs.
        is_awaited: whether a `wait` follows it.
        has_parameter: whether trial parameters occur in it.
        is_setup: whether all its programs prepare something only.
    """

    def __init__(
        self, pipeline: Pipeline, is_collected: bool, background: bool, functions: Mapping[str, Command]
    ) -> None:
        self.pipeline, self.is_collected, self.background = pipeline, is_collected, background
        self.is_awaited = False
        commands = [command for _, command in iter_commands([pipeline])]
        for command in list(commands):
            if function := functions.get(shell_command.program(command)):
                commands += [inner for _, inner in iter_commands(function.body)]
        self.texts = [text for command in commands for text in _texts(command)]
        self.has_parameter = any(MARK in text for text in self.texts)
        self.names = [shell_command.program(command) for command in commands if command.kind == "simple"]
        self.commands = commands
        self.is_setup = all(_SILENT.fullmatch(name) or _SETUP.fullmatch(name) for name in self.names)

    def is_silent(self, metrics: Sequence[str]) -> bool:
        """Return whether nothing that it prints can be a metric."""
        for command, name in zip(self.commands, [shell_command.program(row) for row in self.commands], strict=True):
            if command.kind != "simple" or _SILENT.fullmatch(name) or not name:
                continue
            words = shell_command.call_words(command)
            literal = all(word.is_literal for word in words)
            if name not in ("echo", "printf") or not literal or any(m in word.text for m in metrics for word in words):
                return False
        return True


def _units(
    pipelines: list[Pipeline], collected: bool, background: bool, functions: Mapping[str, Command]
) -> list[_Unit]:
    """Return the units of a list of pipelines.

    Args:
        pipelines: the pipelines.
        collected: whether the output of the list reaches the metrics file.
        background: whether the list runs in the background.
        functions: the functions of the line, by name.
    """
    units: list[_Unit] = []
    for pipeline in pipelines:
        command = pipeline.commands[-1]
        output, hidden = collected, background or pipeline.background
        for redirect in command.redirects:
            output = redirect.target.text == METRICS or (output and not redirect.is_output)
        if command.kind == "function":
            continue
        if command.body and len(pipeline.commands) == 1:
            head = Command("[[", command.words, command.redirects)  # `case WORD in`, which prints nothing
            if command.words or any(redirect.body for redirect in command.redirects):
                units.append(_Unit(Pipeline("", [head]), False, False, {}))
            units += _units(command.body, output, hidden, functions)
            continue
        unit = _Unit(pipeline, output, hidden, functions)
        if "wait" in unit.names:
            for row in units:
                row.is_awaited = True
        units.append(unit)
    return units


def _reads_output(unit: _Unit, earlier: _Unit) -> bool:
    """Return whether a command names a file or folder that an earlier one names too."""
    paths = [
        {re.split(r"[*?]", part)[0] for text in row.texts for part in text.split("=") if _is_path(part)}
        for row in (unit, earlier)
    ]
    return any(
        a == b or a.startswith(b.rstrip("/") + "/") or b.startswith(a.rstrip("/") + "/")
        for a in paths[0]
        for b in paths[1]
    ) or bool(_targets(earlier) & set(unit.texts))


def _is_path(text: str) -> bool:
    return re.search(r"[^-./]", text) is not None and re.search(r"[./]", text) is not None and not text.startswith("-")


def _targets(unit: _Unit) -> set[str]:
    """Return the files that the output of a unit goes to."""
    targets = {row.target.text for command in unit.commands for row in command.redirects if ">" in row.operator}
    for command in unit.commands:
        if shell_command.program(command) == "tee":
            targets |= {word.text for word in shell_command.call_words(command)[1:]}
    return targets - {"1", "2"}


def _texts(command: Command) -> Iterator[str]:
    for word in command.words:
        yield word.text
    for redirect in command.redirects:
        yield redirect.target.text
        if redirect.body is not None:
            yield redirect.body.text


def _iter_redirects(pipelines: list[Pipeline]) -> Iterator[Redirect]:
    for _, command in iter_commands(pipelines):
        yield from command.redirects


def _iter_parts(pipelines: list[Pipeline]) -> Iterator[Part]:
    for _, command in iter_commands(pipelines):
        for word in (*command.words, *(row.body for row in command.redirects if row.body is not None)):
            yield from word.parts


def _mask(words: Sequence[str]) -> list[str]:
    return [ANY_PLACEHOLDER.sub(MARK, word) for word in words]


def _unmask(text: str) -> str:
    return text.replace(MARK, "${trialParameters...}")


RULES = (
    Rule("K227", "error", "all replicas of a trial train with the same overrides", _replicas),
    Rule(
        "K206",
        "error",
        "the shell runs the command as it is written, and the collector sees its output and its end",
        _command,
    ),
    Rule("K313", "warning", "the collector reads the output of the command with the trial parameters", _collected),
)
