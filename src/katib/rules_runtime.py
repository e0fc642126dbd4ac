"""Rules for Experiments that the cluster accepts and that cannot work with any algorithm."""

import re
from collections.abc import Iterator, Sequence

from katib import metric_filter, shell_command
from katib.experiment import (
    META,
    OBJECTIVE,
    SOURCE,
    TEMPLATE,
    TRIAL,
    Experiment,
    Parameter,
    iter_strings,
    parse_number,
    resolve_meta,
)
from katib.findings import Problem, Rule
from katib.rules_webhook import filter_problems
from katib.schema import EXPERIMENT, job_problems, type_problems, unknown_fields
from katib.search_space import probe_commands
from katib.shell_command import SimpleCommand

MARK = "TRIALPARAMETER"  # in place of a placeholder while a shell line is parsed
NAME_FIX = "use letters, digits, _ and -"


def _repeated_keys(experiment: Experiment) -> Iterator[Problem]:
    for path in experiment.document.repeated:
        yield path, "the key occurs twice, and the first value is lost", "remove one of them"


def _unused_parameters(experiment: Experiment) -> Iterator[Problem]:
    references = {reference for _, reference, _ in experiment.trial_parameters}
    for parameter in experiment.parameters:
        if parameter.name not in references:
            message = f"no trial parameter refers to {parameter.name}, so Katib never creates a trial"
            yield (*parameter.path, "name"), message, "add a trial parameter that refers to it, or remove it"


def _feasible_space(experiment: Experiment) -> Iterator[Problem]:
    names: set[str] = set()
    for parameter in experiment.parameters:
        path = parameter.space_path
        if not parameter.name:
            yield parameter.path, "the parameter has no name", "add a name"
        elif parameter.name in names:
            message = f"the parameter {parameter.name} occurs twice"
            yield (*parameter.path, "name"), message, "give every parameter its own name"
        names.add(parameter.name)
        if parameter.type in ("double", "int"):
            yield from _range_problems(parameter)
        elif parameter.type in ("categorical", "discrete"):
            if not parameter.choices and experiment.mapping(*path):
                yield (*path, "list"), "the list is empty", "list the values"
            for index, choice in enumerate(parameter.choices):
                if parameter.type == "discrete" and parse_number(choice) is None:
                    message = f"a discrete value must be a number, got {choice!r}"
                    yield (*path, "list", index), message, "use parameterType: categorical"
                if '"' in choice or "\\" in choice or re.search(r"[\x00-\x1f]", choice):
                    message = f"Katib inserts {choice!r} into the template's JSON unescaped, which makes it invalid"
                    yield (*path, "list", index), message, "use values without quotation marks and backslashes"
            if len(set(parameter.choices)) < len(parameter.choices):
                yield (*path, "list"), "a value occurs twice", "list every value once"


def _range_problems(parameter: Parameter) -> Iterator[Problem]:
    path = parameter.space_path
    numbers: dict[str, float | None] = {}
    for key, text in (("min", parameter.low), ("max", parameter.high), ("step", parameter.step)):
        if not text:
            continue
        numbers[key] = value = parse_number(text)
        if value is None:
            yield (*path, key), f"{key} must be a finite number, got {text!r}", "use a number"
        elif parameter.type == "int" and value != int(value):
            message = f"{key} of an int must be an integer, got {value:g}"
            yield (*path, key), message, "use an integer, or parameterType: double"
        elif key == "step" and value <= 0:
            yield (*path, key), f"step must be above 0, got {value:g}", "use the distance between two values"
    low, high = numbers.get("min"), numbers.get("max")
    if low is not None and high is not None:
        if low > high:
            yield (*path, "min"), f"min {parameter.low} is above max {parameter.high}", "swap min and max"
        if parameter.distribution in ("logUniform", "logNormal") and low <= 0:
            message = f"{parameter.distribution} needs values above 0, and min is {parameter.low}"
            yield (*path, "min"), message, "use a min above 0, or distribution: uniform"


def _primary_container(experiment: Experiment) -> Iterator[Problem]:
    primary = experiment.primary_name
    if not primary or not experiment.mapping(*TEMPLATE):
        return
    names = sorted({str(container.get("name")) for _, container in experiment.containers()})
    if names and primary not in names:
        message = f"the template has no container {primary}, so Katib would wait for it forever"
        yield (*TRIAL, "primaryContainerName"), message, f"use {' or '.join(names)}"


def _command(experiment: Experiment) -> Iterator[Problem]:
    """Commands whose output or end the collector never sees."""
    primary, words = experiment.primary, experiment.command
    if primary is None or not words or experiment.collector not in shell_command.WRAPPED:
        return
    path = (*primary[0], "command" if primary[1].get("command") else "args")
    one_line = 'write command: ["sh", "-c", "<one line>"]'
    is_shell = shell_command.is_shell(words)
    if words[0].rsplit("/", 1)[-1] in (*shell_command.SHELLS, "dash", "ash", "zsh") and not is_shell:
        shell = " ".join(words[:2])
        message = f"Katib does not recognize {shell} as a shell: the command does not run, the metrics file stays empty"
        yield path, message, one_line
        return
    line = shell_command.script(words)
    if len(words) > 3 and is_shell:
        message = "Katib joins all words after sh -c with spaces, so arguments become part of the script"
        yield path, message, one_line
    if not is_shell and any(re.search(r"\s", shell_command.mask_quoted(word)) for word in words):
        yield path, "Katib joins the words without quotes, so a word with spaces is split", one_line
    if line.endswith("\n"):
        message = "the command ends with a line break, so its output is not redirected and the metrics file stays empty"
        yield path, message, "in YAML, write >- instead of | or >"
    if re.search(r"(^|\s)#", shell_command.mask_quoted(line)):
        yield path, "the comment hides what Katib appends to the command", "remove the comment"
    try:
        commands = shell_command.split_commands(_mask_placeholders(line))
        scripts = [shell_command.script(words) for _, words in probe_commands(experiment, "trial")]
        filled = [(script, len(shell_command.split_commands(script))) for script in scripts]
    except ValueError:
        return  # an open quote, which K401 reports
    if any(command.program == "exec" for command in commands):
        yield path, "exec replaces the shell that marks the trial as completed", "remove exec"
    yield from ((path, *problem) for problem in _order_problems(experiment, commands))
    for script, count in [(line, len(commands)), *filled]:
        masked = shell_command.mask_quoted(_mask_placeholders(script))
        if match := re.search(r"\$\{(?!#?[A-Za-z_]\w*(:?[-=?+]|%|#|/|\}))[^}]*\}?", masked):
            message = f"{match[0]} is not a shell variable, so the shell exits with status 2"
            yield path, message, "put it in single quotes"
            break
        if count != len(commands) or re.search(r"[^\s$;&|(]\(", masked):
            message = f"the shell would interpret special characters of a value: {script.strip()[:120]}"
            yield path, message, "put the value, or its placeholder, in single quotes"
            break


def _mask_placeholders(line: str) -> str:
    return re.sub(r"\$\{trialParameters\.[^}]*\}", MARK, line)


def _order_problems(experiment: Experiment, commands: Sequence[SimpleCommand]) -> Iterator[tuple[str, str]]:
    """Commands after the training: Katib redirects only the last one's output, and stops the shell's only child."""
    training = [index for index, command in enumerate(commands) if any(MARK in word for word in command.words)]
    if any(command.operator == "&" for command in commands[1:]) or experiment.command[-1].rstrip().endswith(("&", ";")):
        yield "Katib does not wait for a command in the background", "remove the & (or ;) after the command"
    if not training:
        return
    operators = [command.operator for command in commands[training[-1] + 1 :]]
    if operators and all(operator == "|" for operator in operators):
        if experiment.early_stopping:
            message = "early stopping ends the shell's only child process, and a pipe has several"
            yield message, "write to a file instead of a pipe"
    elif operators and experiment.collector == "StdOut":
        message = "Katib collects only the output of the last command, which is not the one with the trial parameters"
        yield message, "move the training to the end"


def _metrics(experiment: Experiment) -> Iterator[Problem]:
    text = experiment.metrics_format == "TEXT" and experiment.collector in ("StdOut", "File")
    for index, metric in enumerate(experiment.metrics):
        path = metric_path(index)
        if ";" in metric:
            yield path, "a metric name must not contain a semicolon, which separates names for the collector", NAME_FIX
        elif metric and text and not any(_can_match(expression, metric) for expression in experiment.filters):
            fix = "extend the filter" if experiment.get(*SOURCE, "filter") else NAME_FIX
            yield path, f"the collector's regular expression cannot match the name {metric}", fix
    names = set(experiment.metrics)
    for index, row in enumerate(experiment.items(*OBJECTIVE, "metricStrategies")):
        path = (*OBJECTIVE, "metricStrategies", index)
        if isinstance(row, dict) and row.get("name") not in names:
            message = f"the objective has no metric {row.get('name')}"
            yield (*path, "name"), message, f"use {', '.join(sorted(names))}"
        if isinstance(row, dict) and row.get("value") not in ("min", "max", "latest"):
            yield (*path, "value"), f"{row.get('value')!r} is not a strategy", "use min, max or latest"


def metric_path(index: int) -> tuple[str | int, ...]:
    """Return the path of a metric in `Experiment.metrics`."""
    if index == 0:
        return (*OBJECTIVE, "objectiveMetricName")
    return (*OBJECTIVE, "additionalMetricNames", index - 1)


def _can_match(expression: str, metric: str) -> bool:
    try:
        return metric_filter.can_match_name(expression, metric)
    except ValueError:
        return True  # reported by K117 and K209


def _stdout_filter(experiment: Experiment) -> Iterator[Problem]:
    if experiment.collector == "StdOut":
        yield from filter_problems(experiment)
    for index, expression in enumerate(experiment.items(*SOURCE, "filter", "metricsFormat")):
        if ";" in str(expression):
            path = (*SOURCE, "filter", "metricsFormat", index)
            message = "a filter must not contain a semicolon, which separates filters for the collector"
            yield path, message, r"write it as \x3b"


def _meta_references(experiment: Experiment) -> Iterator[Problem]:
    template = experiment.mapping(*TEMPLATE)
    for _, reference, path in experiment.trial_parameters:
        if META.search(reference) and template and resolve_meta(template, reference, "t", "n") is None:
            message = f"the template has no value for {reference}"
            yield (*path, "reference"), message, "use ${trialSpec.Name}, or a label or annotation of the template"
    for path, text in iter_strings(template, TEMPLATE):
        if "${trialSpec." in text:
            message = "Katib replaces only ${trialParameters.…} in the template"
            yield path, message, "add a trial parameter with this reference, and use its placeholder"


def _pod_fields(experiment: Experiment) -> Iterator[Problem]:
    """Misspelt fields of containers in workloads that the webhook does not check."""
    if experiment.kind in ("Job", "TrainJob", ""):
        return
    for path, container in experiment.containers():
        yield from job_problems(container, path, "V1Container")


RULES = (
    Rule("K118", "error", "values have the types that Go decodes", lambda row: type_problems(row.value, EXPERIMENT)),
    Rule("K201", "error", "no key occurs twice", _repeated_keys),
    Rule("K202", "error", "Katib has all fields", lambda row: unknown_fields(row.value, EXPERIMENT)),
    Rule("K203", "error", "every parameter is referenced by a trial parameter", _unused_parameters),
    Rule("K204", "error", "feasible spaces contain valid values", _feasible_space),
    Rule("K205", "error", "the template has the primary container", _primary_container),
    Rule("K206", "error", "the collector sees the command's output and its end", _command),
    Rule("K207", "error", "the collector can match every metric's name", _metrics),
    Rule("K208", "error", "references to the trial itself can be resolved", _meta_references),
    Rule("K209", "error", "filters of the StdOut collector are valid", _stdout_filter),
    Rule("K218", "error", "containers have only fields of a container", _pod_fields),
)
