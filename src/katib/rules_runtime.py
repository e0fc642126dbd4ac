"""What the cluster accepts and what then cannot work, whatever the algorithm: commands, containers, metrics, spaces."""

import re
from collections.abc import Iterator, Sequence

from katib import points, shell_command
from katib.documents import YamlPath
from katib.experiment import META, TEMPLATE, Experiment, Parameter, leaves, meta, parse_number, substitute, trial_of
from katib.rule import Problem, Rule
from katib.rules_webhook import SOURCE, TRIAL, filter_problems
from katib.schema import EXPERIMENT, job_problems, type_problems, unknown_fields

MARK = "TRIALPARAMETER"  # stands for a placeholder's value where a line is taken apart


def _types(experiment: Experiment) -> Iterator[Problem]:
    yield from type_problems(experiment.value, EXPERIMENT)


def _repeated(experiment: Experiment) -> Iterator[Problem]:
    for place in experiment.document.repeated:
        yield place, "the key occurs twice; the first one is lost", "keep one of them"


def _unknown(experiment: Experiment) -> Iterator[Problem]:
    yield from unknown_fields(experiment.value, EXPERIMENT)


def _unused(experiment: Experiment) -> Iterator[Problem]:
    referred = {reference for _, reference, _ in experiment.trial_parameters}
    for each in experiment.parameters:
        if each.name not in referred:
            mend = "add a trial parameter that refers to it, or drop it"
            yield (*each.place, "name"), f"no trial parameter refers to {each.name}: no trial is ever created", mend


def _bounds(experiment: Experiment) -> Iterator[Problem]:
    names: set[str] = set()
    for each in experiment.parameters:
        place = (*each.place, "feasibleSpace")
        if not each.name:
            yield each.place, "the parameter has no name", "name it"
        elif each.name in names:
            yield (*each.place, "name"), f"{each.name} occurs twice", "give every parameter a name of its own"
        names.add(each.name)
        if each.type in ("double", "int"):
            yield from _numeric(each, place)
        elif each.type in ("categorical", "discrete"):
            if not each.choices and experiment.mapping(*place):
                yield (*place, "list"), "the list is empty", "list the values"
            for index, choice in enumerate(each.choices):
                if each.type == "discrete" and parse_number(choice) is None:
                    yield (*place, "list", index), f"{choice!r} is no number", "use categorical for texts"
                if '"' in choice or "\\" in choice or re.search(r"[\x00-\x1f]", choice):
                    message = f"{choice!r} is pasted into the template's JSON as it is, and breaks it"
                    yield (*place, "list", index), message, "use values without quotation marks and backslashes"
            if len(set(each.choices)) < len(each.choices):
                yield (*place, "list"), "a value occurs twice", "list every value once"


def _numeric(each: Parameter, place: YamlPath) -> Iterator[Problem]:
    found = {
        key: parse_number(text) for key, text in (("min", each.low), ("max", each.high), ("step", each.step)) if text
    }
    for key, value in found.items():
        if value is None:
            yield (
                (*place, key),
                f"{getattr(each, {'min': 'low', 'max': 'high'}.get(key, key))!r} is no number",
                "give one",
            )
        elif each.type == "int" and value != int(value):
            yield (*place, key), f"{value:g} is not whole, and the parameter is an int", "use double, or a whole number"
        elif key == "step" and value <= 0:
            yield (*place, key), "a step must be above 0", "give the distance between values"
    low, high = found.get("min"), found.get("max")
    if low is not None and high is not None:
        if low > high:
            yield (*place, "min"), f"min {each.low} is above max {each.high}", "swap them"
        if each.distribution in ("logUniform", "logNormal") and low <= 0:
            message = f"{each.distribution} needs values above 0, and min is {each.low}"
            yield (*place, "min"), message, "use uniform, or a min above 0"


def _container(experiment: Experiment) -> Iterator[Problem]:
    wanted = experiment.get(*TRIAL, "primaryContainerName")
    if not wanted or not experiment.mapping(*TEMPLATE):
        return
    names = sorted({str(container.get("name")) for _, container in experiment.containers()})
    if names and wanted not in names:
        message = f"the template has no container {wanted}: the trial would run for ever"
        yield (*TRIAL, "primaryContainerName"), message, f"use {' or '.join(names)}"
        return


def _form(experiment: Experiment) -> Iterator[Problem]:
    """Ways to write a command whose output, or end, the collector never sees."""
    primary, words = experiment.primary, experiment.line
    if primary is None or not words or experiment.collector not in shell_command.WRAPPED:
        return
    place = (*primary[0], "command" if primary[1].get("command") else "args")
    one = 'write command: ["sh", "-c", "<one line>"]'
    shell = words[0].rsplit("/", 1)[-1] in (*shell_command.SHELLS, "dash", "ash", "zsh")
    if shell and not shell_command.is_shell(words):
        shown = " ".join(words[:2])
        yield place, f"Katib does not recognise {shown}: an empty shell runs, and the metrics file stays empty", one
        return
    line = shell_command.script(words)
    if len(words) > 3 and shell_command.is_shell(words):
        message = "Katib joins the words after sh -c with spaces: without Katib they would be the script's arguments"
        yield place, message, one
    if not shell_command.is_shell(words) and any(re.search(r"\s", shell_command.bare(word)) for word in words):
        yield place, "Katib joins the words without quotes, and the shell splits them again", one
    if line.endswith("\n"):
        message = "the line ends with a line break: the redirection lands on a line of its own, the file stays empty"
        yield place, message, "in YAML, write >- instead of | or >"
    if re.search(r"(^|\s)#", shell_command.bare(line)):
        yield place, "a comment swallows what Katib appends to the line", "remove it"
    try:
        parts = shell_command.commands(_masked(line))
        filled = [(each, len(shell_command.commands(each))) for each in _lines(experiment)]
    except ValueError:
        return  # K401 says so, or the shell will
    if any(each.program == "exec" for each in parts):
        yield place, "exec replaces the shell that would mark the trial as completed", "remove exec"
    yield from ((place, *found) for found in _order(experiment, parts))
    for each, count in [(line, len(parts)), *filled]:
        blank = shell_command.bare(_masked(each))
        if found := re.search(r"\$\{(?!#?[A-Za-z_]\w*(:?[-=?+]|%|#|/|\}))[^}]*\}?", blank):
            yield place, f"{found[0]} is no variable of the shell's: it stops with status 2", "put it in single quotes"
            break
        if count != len(parts) or re.search(r"[^\s$;&|(]\(", blank):
            message = f"the shell takes a value apart: {each.strip()[:120]}"
            yield place, message, "put the value, or its placeholder, in single quotes"
            break


def _masked(line: str) -> str:
    return re.sub(r"\$\{trialParameters\.[^}]*\}", MARK, line)


def _order(experiment: Experiment, parts: Sequence[shell_command.Simple]) -> Iterator[tuple[str, str]]:
    """What follows the training: Katib redirects the last command's output alone, and stops the shell's only child."""
    with_values = [index for index, each in enumerate(parts) if any(MARK in word for word in each.words)]
    if any(each.operator == "&" for each in parts[1:]) or experiment.line[-1].rstrip().endswith(("&", ";")):
        yield "a command in the background is not waited for, and its end is not seen", "remove the & (or ;) behind it"
    if not with_values:
        return
    behind = [each.operator for each in parts[with_values[-1] + 1 :]]
    if behind and all(operator == "|" for operator in behind):
        if experiment.early_stopping:
            yield "Katib stops a shell's only child, and a pipe has several", "write to a file instead of a pipe"
    elif behind and experiment.collector == "StdOut":
        message = "Katib collects the last command's output alone, and the one with the parameters is not the last"
        yield message, "make it the last command"


def _lines(experiment: Experiment) -> list[str]:
    """The trial's script with the values of the search space's points."""
    found = []
    for assignments in points.of(experiment.parameters):
        try:
            trial = trial_of(experiment, substitute(experiment, "trial", assignments, "default"))
        except ValueError:
            continue
        found.append(shell_command.script(trial.line))
    return found


def _metric_names(experiment: Experiment) -> Iterator[Problem]:
    text = experiment.metrics_format == "TEXT" and experiment.collector in ("StdOut", "File")
    for index, metric in enumerate(experiment.metrics):
        place: YamlPath = ("spec", "objective", "objectiveMetricName")
        if index:
            place = ("spec", "objective", "additionalMetricNames", index - 1)
        if ";" in metric:
            yield place, "a semicolon parts the names that Katib hands to its collector", "use letters, digits, _ and -"
        elif metric and text and not any(_catches(expression, metric) for expression in experiment.filters):
            message = f"no expression of the collector catches {metric}= as a name"
            mend = "widen the filter" if experiment.get(*SOURCE, "filter") else "use letters, digits, _ and -"
            yield place, message, mend
    names = set(experiment.metrics)
    for index, each in enumerate(experiment.items("spec", "objective", "metricStrategies")):
        place = ("spec", "objective", "metricStrategies", index)
        if isinstance(each, dict) and each.get("name") not in names:
            yield (
                (*place, "name"),
                f"{each.get('name')} is no metric of this objective",
                f"use {', '.join(sorted(names))}",
            )
        if isinstance(each, dict) and each.get("value") not in ("min", "max", "latest"):
            yield (*place, "value"), f"{each.get('value')!r} is no strategy", "use min, max or latest"


def _catches(expression: str, metric: str) -> bool:
    """Whether an expression's first group, the name, can be this metric."""
    try:
        return re.fullmatch(_first_group(expression), metric) is not None
    except re.error:
        return True  # K117 and K209 say so


def _first_group(expression: str) -> str:
    """What is inside the first pair of parentheses that captures; all of it if there is none."""
    depth, start, escaped, inside = 0, -1, False, False
    for index, char in enumerate(expression):
        if escaped or char == "\\":
            escaped = not escaped
        elif inside or char == "[":
            inside = char != "]"
        elif char == "(":
            if start < 0 and expression[index + 1 : index + 2] != "?":
                start, depth = index + 1, 0
            depth += 1
        elif char == ")":
            depth -= 1
            if start >= 0 and depth == 0:
                return expression[start:index]
    return expression


def _stdout_filter(experiment: Experiment) -> Iterator[Problem]:
    if experiment.collector == "StdOut":
        yield from filter_problems(experiment)
    for index, text in enumerate(experiment.items(*SOURCE, "filter", "metricsFormat")):
        if ";" in str(text):
            place = (*SOURCE, "filter", "metricsFormat", index)
            yield place, "a semicolon parts the filters that Katib hands to its collector", r"write it as \x3b"


def _meta_references(experiment: Experiment) -> Iterator[Problem]:
    template = experiment.mapping(*TEMPLATE)
    for _, reference, place in experiment.trial_parameters:
        if META.search(reference) and template and meta(template, reference, "t", "n") is None:
            message = f"{reference} is nothing of the template"
            yield (*place, "reference"), message, "use ${trialSpec.Name}, or a label or annotation that it has"
    for place, text in leaves(template, TEMPLATE):
        if "${trialSpec." in text:
            message = "only ${trialParameters.…} is replaced in the template; this stays as it is"
            yield place, message, "add a trial parameter with this reference, and use its placeholder"


def _pod_fields(experiment: Experiment) -> Iterator[Problem]:
    """Misspelt fields in the pods of workloads that the webhook does not look into."""
    if experiment.kind in ("Job", ""):
        return
    for place, container in experiment.containers():
        if experiment.kind != "TrainJob":
            yield from job_problems(container, place, "V1Container")


RULES = (
    Rule("K118", "error", "values have the types that Go decodes", _types),
    Rule("K201", "error", "no key occurs twice", _repeated),
    Rule("K202", "error", "Katib has all fields", _unknown),
    Rule("K203", "error", "every parameter is referred to", _unused),
    Rule("K204", "error", "feasible spaces hold values", _bounds),
    Rule("K205", "error", "the primary container is in every pod", _container),
    Rule("K206", "error", "the collector sees the command's output and its end", _form),
    Rule("K207", "error", "the collector can tell every metric's name", _metric_names),
    Rule("K208", "error", "references to the trial itself", _meta_references),
    Rule("K209", "error", "filters of the StdOut collector", _stdout_filter),
    Rule("K218", "error", "containers have only fields of a container", _pod_fields),
)
