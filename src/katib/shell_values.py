"""Values of parameters that a shell, or Kubernetes before it, changes on their way to a trial's program."""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from katib import shell_command
from katib.experiment import ANY_PLACEHOLDER, META, PLACEHOLDER, TEMPLATE, Experiment, resolve_meta
from katib.shell_parser import Command, Part, ShellSyntaxError, Word, iter_commands, parse

MARK = "TRIALPARAMETER"  # in place of placeholders while a line is parsed
_GLOB = re.compile(r"[*?]")


def changed_values(experiment: Experiment, bash: bool | None = None) -> dict[str, list[str]]:
    """Return the values of lists that a shell or Kubernetes changes, by parameter.

    Args:
        experiment: the Experiment.
        bash: whether bash reads the command; None takes the command's shell.
    """
    judge = _judge(experiment, bash)
    changed: dict[str, list[str]] = {}
    if judge is None:
        return changed
    for name, reference, values in _values(experiment):
        placeholder = PLACEHOLDER.format(name=name)
        changed[reference] = [value for value in values if judge(placeholder, placeholder, value)]
    return changed


def _judge(experiment: Experiment, bash: bool | None = None) -> Callable[[str, str, str], bool] | None:
    """Return `_changed` for the command of an Experiment; None if no shell reads it."""
    words = experiment.command
    if experiment.primary is None or not words:
        return None
    line, is_bash = shell_command.script(words), shell_command.is_bash(words)
    if experiment.collector not in shell_command.WRAPPED:
        command = Command("simple", [Word((Part("text", word, True),), 0, 0) for word in words])
        nested = shell_command.shell_script(command)
        if nested is None:
            return None
        line, is_bash = nested[0].text, "bash" in shell_command.program(command)
    environment = shell_command.environment(experiment.primary[1])
    return functools.partial(_changed, line, is_bash if bash is None else bash, environment)


def value_problems(experiment: Experiment, fixed: Mapping[str, str] | None = None) -> Iterator[tuple[str, str]]:
    """Return values of parameters that a trial's program does not receive as they are, and how to quote them.

    Args:
        experiment: the Experiment.
        fixed: values of parameters, in place of those in their lists.
    """
    judge = _judge(experiment)
    if judge is None:
        return
    for name, _, values in _values(experiment, fixed):
        placeholder = PLACEHOLDER.format(name=name)
        changed = next((value for value in values if judge(placeholder, placeholder, value)), None)
        if changed is None:
            continue
        forms = [f"'{placeholder}'", f'"{placeholder}"', f"\"'{placeholder}'\"", f"'\"{placeholder}\"'"]
        form = next((form for form in forms if not any(judge(placeholder, form, value) for value in values)), None)
        fix = "use plain names as values, and translate them in the program"
        if form is not None:
            fix = f"write {form} in place of {placeholder} in the command"
        yield f"the shell changes the value {changed!r}, so the trial's program does not receive it", fix


def _values(experiment: Experiment, fixed: Mapping[str, str] | None = None) -> Iterator[tuple[str, str, list[str]]]:
    """Return name, reference and values of each trial parameter whose values are not just numbers."""
    choices = {parameter.name: parameter.choices for parameter in experiment.parameters}
    choices |= {name: (value,) for name, value in (fixed or {}).items()}
    for name, reference, _ in experiment.trial_parameters:
        if META.search(reference):
            value = resolve_meta(experiment.mapping(*TEMPLATE), reference, "trial", "namespace")
            yield name, reference, [] if value is None else [value]
        else:  # other values break the template's JSON, which K204 reports
            values = choices.get(reference, ())
            yield name, reference, [value for value in values if not re.search(r'["\\\x00-\x1f]', value)]


def _changed(line: str, bash: bool, environment: Mapping[str, str], placeholder: str, form: str, value: str) -> bool:
    """Return whether a shell, or Kubernetes before it, changes a value that replaces a placeholder.

    Args:
        line: the line with its placeholders.
        bash: whether bash reads it.
        environment: the container's variables.
        placeholder: the placeholder.
        form: text in its place, with quotes around it.
        value: the value. If it is quoted as a whole, its quotes are for the shell.
    """
    mark = f"{MARK}VALUE"
    template = line.replace(placeholder, form)
    meaning = value[1:-1] if re.fullmatch(r"'[^']*'", value) else value
    texts = [ANY_PLACEHOLDER.sub(MARK, template.replace(placeholder, text)) for text in (mark, value)]
    variables = [
        {name: ANY_PLACEHOLDER.sub(MARK, text.replace(placeholder, new)) for name, text in environment.items()}
        for new in (mark, value)
    ]
    before, after = (shell_command.expand(text, values) for text, values in zip(texts, variables, strict=True))
    try:
        intended = _signature(before, bash, variables[0])
    except ShellSyntaxError:
        return False  # the line itself is refused
    try:
        return _replace(intended, mark, meaning) != _signature(after, bash, variables[1])
    except ShellSyntaxError:
        return True


def _replace(signature: object, mark: str, value: str) -> object:
    if isinstance(signature, str):
        return signature.replace(mark, value)
    if isinstance(signature, tuple):
        return tuple(_replace(item, mark, value) for item in signature)
    return signature


def _signature(line: str, bash: bool, variables: Mapping[str, str]) -> tuple[object, ...]:
    """Return what a shell makes of a line: its commands, their words, and what is expanded in them."""
    values, rows = dict(variables), []
    for operator, command in iter_commands(parse(line, bash)):
        assigns = bash or shell_command.program(command) in ("", "export", "readonly")
        words = tuple(_word_signature(word, bash, values, assigns) for word in command.words)
        redirects = tuple(
            (row.descriptor, row.operator, _word_signature(row.target, bash, values), _body_signature(row.body))
            for row in command.redirects
        )
        nested: object = None
        if (call := shell_command.shell_script(command)) and not call[1]:
            nested = _signature(call[0].text, "bash" in shell_command.program(command), values)
        rows.append((operator, command.kind, words, redirects, nested))
        shell_command.assign(command, values)
    return tuple(rows)


def _body_signature(body: Word | None) -> tuple[object, ...]:
    return () if body is None else tuple((part.kind, part.text) for part in _merge(body.parts))


def _word_signature(word: Word, bash: bool, values: Mapping[str, str], assigns: bool = False) -> tuple[object, ...]:
    """Return a word's text and expansions, and the fields that it becomes."""
    parts = tuple((part.kind, part.text) for part in _merge(word.parts))
    bare = "".join(part.text for part in word.parts if part.kind == "text" and not part.quoted)
    unquoted = [values.get(part.text, "x") for part in word.parts if part.kind == "variable" and not part.quoted]
    split = any(re.search(r"[ \t\n]" if len(word.parts) > 1 else r"^$|[ \t\n*?]", text) for text in unquoted)
    # A word with = in front of it matches no file in practice.
    globs = "=" not in bare.split("*")[0].split("?")[0] and _GLOB.search(bare) is not None
    braces = bash and re.search(r"\{[^{}]*(,|\.\.)[^{}]*\}", bare) is not None
    return parts, split, globs, braces, re.match(r"([A-Za-z_]\w*=)?~(/|$)" if assigns else r"~(/|$)", bare) is not None


def _merge(parts: Sequence[Part]) -> list[Part]:
    """Join neighbouring parts that are text."""
    merged: list[Part] = []
    for part in parts:
        if part.kind == "text" and merged and merged[-1].kind == "text":
            merged[-1] = Part("text", merged[-1].text + part.text, False)
        else:
            merged.append(Part(part.kind, part.text, False))
    return merged
