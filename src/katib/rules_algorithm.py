"""Rules for the algorithms and early stopping of Katib v0.19, whose services fail where one is broken."""

import math
import re
from collections.abc import Iterator

from katib import hyperband
from katib.experiment import COLLECTOR, SPEC, Experiment, parse_number
from katib.findings import Problem, Rule
from katib.service_values import GOPTUNA

SETTINGS = (SPEC, "algorithm", "algorithmSettings")
# Settings of each suggestion service; it does not start with any other.
ALLOWED_SETTINGS = {
    "random": ("random_state",),
    "tpe": ("gamma", "prior_weight", "n_EI_candidates", "random_state"),
    "multivariate-tpe": ("n_startup_trials", "n_ei_candidates", "random_state"),
    "grid": ("random_state",),
    "bayesianoptimization": ("base_estimator", "n_initial_points", "acq_func", "acq_optimizer", "random_state"),
    "cmaes": ("random_state", "sigma", "restart_strategy"),
    "sobol": (),
    "hyperband": ("eta", "r_l", "resource_name"),
    "pbt": ("suggestion_trial_dir", "n_population", "truncation_threshold", "resample_probability"),
}
CHOICES = {
    "base_estimator": ("GP", "RF", "ET", "GBRT"),
    "acq_func": ("gp_hedge", "LCB", "EI", "PI"),  # EIps and PIps need times of trials, which the service does not give
    "acq_optimizer": ("auto", "sampling", "lbfgs"),
    "restart_strategy": ("ipop", "bipop", "none"),
}
# Least value of integer settings.
INTEGERS = {
    "random_state": 0,
    "n_EI_candidates": 1,
    "n_startup_trials": 0,
    "n_ei_candidates": 1,
    "n_initial_points": 1,
    "n_population": 0,  # K216 asks for 5
}
NUMBERS = ("gamma", "prior_weight", "sigma", "r_l", "eta", "truncation_threshold")
SEEDS = 2**32  # numpy takes smaller seeds
# Services that read the texts of an int's bounds as integers; the others read them as floats.
INTEGER_TEXTS = ("multivariate-tpe", "grid", "bayesianoptimization", "hyperband", *GOPTUNA)


def _settings(experiment: Experiment) -> Iterator[Problem]:
    algorithm = experiment.algorithm
    allowed = ALLOWED_SETTINGS.get(algorithm)
    if allowed is None:
        return
    for index, (name, value) in enumerate(experiment.settings.items()):
        path, number = (*SETTINGS, index), parse_number(value)
        if name not in allowed:
            result = "ignores it" if algorithm in (*GOPTUNA, "hyperband", "pbt") else "does not start with it"
            message = f"{algorithm} has no setting {name}, and its service {result}"
            yield (*path, "name"), message, f"use {', '.join(allowed)}" if allowed else "remove it"
        elif name in CHOICES and value not in CHOICES[name]:
            yield (*path, "value"), f"{value!r} is not a {name}", f"use one of {', '.join(CHOICES[name])}"
        elif name in INTEGERS and not re.fullmatch(r"[+-]?[0-9]+", value):
            yield (*path, "value"), f"{name} must be an integer, got {value!r}", "use an integer"
        elif name in NUMBERS and number is None:
            yield (*path, "value"), f"{name} must be a number, got {value!r}", "use a number"
        elif name == "random_state" and algorithm == "cmaes":
            if not -(2**63) <= int(value) < 2**63:
                yield (*path, "value"), f"{name} must have at most 64 bits, got {value}", "use a smaller number"
        elif name in INTEGERS and int(value) < INTEGERS[name]:
            yield (*path, "value"), f"{name} must be {INTEGERS[name]} or more, got {value}", "use a larger number"
        elif name == "random_state" and int(value) >= SEEDS:
            yield (*path, "value"), f"{name} must be below {SEEDS}, got {value}", "use a smaller number"
        elif name == "gamma" and number is not None and not 0 < number < 1:
            yield (*path, "value"), f"gamma must be between 0 and 1, got {value}", "e.g. 0.25"
        elif name == "prior_weight" and number is not None and number <= 0:
            yield (*path, "value"), f"prior_weight must be above 0, got {value}", "e.g. 1.0"
    estimator = experiment.settings.get("base_estimator", "GP")
    is_lbfgs = experiment.settings.get("acq_optimizer") == "lbfgs"
    if algorithm == "bayesianoptimization" and is_lbfgs and estimator != "GP":
        yield SETTINGS, f"acq_optimizer lbfgs does not work with base_estimator {estimator}", "use sampling, or GP"


def _bounds(experiment: Experiment) -> Iterator[Problem]:
    """Bounds that a service does not read, or between which it cannot search (tried with Katib 0.19's services)."""
    algorithm = experiment.algorithm
    has_sigma = (parse_number(experiment.settings.get("sigma")) or 0) > 0
    for parameter in experiment.parameters:
        if parameter.type not in ("double", "int"):
            continue
        keys = ("min", "max") if algorithm in ("bayesianoptimization", "hyperband") else ("min", "max", "step")
        for key, text in zip(keys, (parameter.low, parameter.high, parameter.step), strict=False):
            number = parse_number(text)  # None is reported by K204
            is_text = parameter.type == "int" and algorithm in INTEGER_TEXTS
            if is_text and number is not None and not re.fullmatch(r"[+-]?[0-9]+", text):
                message = f"the service of {algorithm} does not read {text!r} as an integer"
                yield (*parameter.space_path, key), message, f'write "{number:.0f}"'
        numbers = parameter.numbers
        fails = algorithm in ("random", "tpe", "bayesianoptimization") or (algorithm == "cmaes" and not has_sigma)
        if fails and numbers and numbers[0] == numbers[1]:
            message = f"the service of {algorithm} fails with min equal to max"
            yield (*parameter.space_path, "max"), message, "use a larger max, or write the value in the command"


def _grid(experiment: Experiment) -> Iterator[Problem]:
    for parameter in experiment.parameters:
        if parameter.type == "double" and not parameter.step:
            message = f"grid needs a step for the double {parameter.name}"
            yield parameter.space_path, message, "add a step, or make it discrete with a list"
    size, maximum = math.prod(len(row.grid()) for row in experiment.parameters), experiment.count("maxTrialCount")
    if size and maximum is not None and maximum > size:
        message = f"{maximum} is more than the grid's {size} points, which its service refuses"
        yield (SPEC, "maxTrialCount"), message, f"use at most {size}"


def _bayesian(experiment: Experiment) -> Iterator[Problem]:
    for parameter in experiment.parameters:
        if parameter.type == "double" and parameter.numbers and parameter.numbers[0] <= 0:
            message = (
                "bayesianoptimization searches doubles on a logarithmic scale (Katib 0.19), and its service fails "
                f"with a min of {parameter.low}"
            )
            yield (*parameter.space_path, "min"), message, "use a min above 0, e.g. 1e-6"


def _cmaes(experiment: Experiment) -> Iterator[Problem]:
    count = sum(parameter.type in ("double", "int") for parameter in experiment.parameters)
    if count < 2:
        message = f"cmaes needs at least two parameters of type double or int, got {count}"
        yield (SPEC, "parameters"), message, "add one, or use multivariate-tpe"


def _multivariate_tpe(experiment: Experiment) -> Iterator[Problem]:
    for parameter in experiment.parameters:
        if parameter.distribution in ("normal", "logNormal"):
            message = f"multivariate-tpe does not support the distribution {parameter.distribution}"
            yield (*parameter.space_path, "distribution"), message, "use uniform or logUniform"


def _hyperband(experiment: Experiment) -> Iterator[Problem]:
    settings = experiment.settings
    if not settings.get("r_l"):
        yield SETTINGS, "hyperband needs the setting r_l", "add r_l, the largest resource of a trial"
    resource_name = settings.get("resource_name")
    if not resource_name:
        message = "hyperband needs the setting resource_name"
        yield SETTINGS, message, "add resource_name, the parameter that takes the resource"
    resource = next((row for row in experiment.parameters if row.name == resource_name), None)
    if resource_name and resource is None:
        message = f"resource_name {resource_name} is not a parameter of the search space"
        yield SETTINGS, message, "name the parameter that takes the resource"
    elif resource is not None and resource.type not in ("int", "double"):
        message = f"the resource must be an int, because hyperband sets integers, got {resource.type}"
        yield (*resource.path, "parameterType"), message, "use int"
    if settings.get("r_l"):
        count = hyperband.initial_trials(settings)
        if count is None:
            message = f"r_l must be 1 or more and eta 2 or more, got r_l {settings['r_l']}"
            yield SETTINGS, message, "e.g. r_l 9 and eta 3"
        elif experiment.parallel < count:
            message = f"hyperband starts {count} trials at once, and parallelTrialCount is {experiment.parallel}"
            yield (SPEC, "parallelTrialCount"), message, f"use {count}, or a smaller r_l"
    if experiment.early_stopping:
        message = "hyperband fails when a trial ends as EarlyStopped"
        yield (SPEC, "earlyStopping"), message, "remove earlyStopping; hyperband stops trials itself"
    for parameter in experiment.parameters:
        for index, choice in enumerate(parameter.choices if parameter.type == "discrete" else ()):
            if not re.fullmatch(r"[+-]?\d+", choice):
                message = f"hyperband reads discrete values as integers, got {choice}"
                yield (*parameter.space_path, "list", index), message, "use parameterType: categorical"


def _pbt(experiment: Experiment) -> Iterator[Problem]:
    settings = experiment.settings
    for name, fix in (
        ("suggestion_trial_dir", 'add suggestion_trial_dir, the directory of a trial\'s checkpoints; "" mounts none'),
        ("n_population", "add n_population, 5 or more"),
        ("truncation_threshold", "add truncation_threshold; 0.2 replaces the worst fifth"),
    ):
        if not settings.get(name) and (name != "suggestion_trial_dir" or name not in settings):
            yield SETTINGS, f"pbt needs the setting {name}", fix
    population = parse_number(settings.get("n_population"))
    threshold = parse_number(settings.get("truncation_threshold"))
    if population is not None and population < 5:
        yield SETTINGS, f"n_population must be 5 or more, got {population:g}", "use 5 or more"
    if threshold is not None and not 0 <= threshold <= 1:
        message = f"truncation_threshold must be between 0 and 1, got {threshold:g}"
        yield SETTINGS, message, "e.g. 0.2, which replaces the worst fifth"
    if "resample_probability" in settings:
        message = "resample_probability makes the service fail with a TypeError (Katib 0.19)"
        yield SETTINGS, message, "remove it"
    if len(experiment.name) > 26:
        message = f"pbt needs a name of at most 26 characters, got {len(experiment.name)}: it adds 37 for each trial"
        yield ("metadata", "name"), message, "use a shorter name"
    mounted = bool(settings.get("suggestion_trial_dir"))  # Katib mounts no volume for an empty one
    if mounted and experiment.get(SPEC, "resumePolicy", default="Never") != "FromVolume":
        message = "pbt keeps checkpoints on the suggestion's volume, which exists only with FromVolume"
        yield (SPEC, "resumePolicy"), message, "use FromVolume"
    if mounted and experiment.collector == "Push":
        message = "with the Push collector Katib does not mount the suggestion's volume"
        yield (*COLLECTOR, "collector", "kind"), message, "use StdOut or File"
    for parameter in experiment.parameters:
        if parameter.type == "double" and not parameter.step:
            yield parameter.space_path, f"pbt needs a step for the double {parameter.name}", "add a step"
        if parameter.type == "int":
            message = f"pbt returns an int at its bound as '{parameter.high}.0', and its service fails (Katib 0.19)"
            yield (*parameter.path, "parameterType"), message, "use discrete or categorical"


def _medianstop(experiment: Experiment) -> Iterator[Problem]:
    if experiment.early_stopping != "medianstop":
        return
    path = (SPEC, "earlyStopping", "algorithmSettings")
    for index, (name, value) in enumerate(experiment.stopping_settings.items()):
        if name not in ("min_trials_required", "start_step"):
            yield (*path, index), f"medianstop has no setting {name}", "use min_trials_required or start_step"
        elif not re.fullmatch(r"\d+", value) or int(value) < 1:
            message = f"{name} must be an integer of 1 or more, got {value!r}"
            yield (*path, index, "value"), message, "use 1 or more"
    if experiment.collector not in ("StdOut", "File"):
        message = f"the {experiment.collector} collector cannot stop a trial early"
        yield (SPEC, "earlyStopping"), message, "use the StdOut or File collector"


RULES = (
    Rule("K210", "error", "the algorithm has the settings", _settings),
    Rule("K211", "error", "the search space suits grid", _grid, "grid"),
    Rule("K212", "error", "the search space suits bayesianoptimization", _bayesian, "bayesianoptimization"),
    Rule("K213", "error", "the search space suits cmaes", _cmaes, "cmaes"),
    Rule("K214", "error", "the search space suits multivariate-tpe", _multivariate_tpe, "multivariate-tpe"),
    Rule("K215", "error", "the Experiment suits hyperband", _hyperband, "hyperband"),
    Rule("K216", "error", "the Experiment suits pbt", _pbt, "pbt"),
    Rule("K223", "error", "the algorithm's service can search between the bounds", _bounds),
    Rule("K217", "error", "the Experiment suits medianstop", _medianstop),
)
