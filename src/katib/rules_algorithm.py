"""What each algorithm of Katib v0.19 needs, and does not say before its service fails."""

import math
import re
from collections.abc import Iterator

from katib import hyperband
from katib.experiment import Experiment, parse_number
from katib.rule import Problem, Rule
from katib.rules_webhook import SPEC

SETTINGS = (SPEC, "algorithm", "algorithmSettings")

# Settings that each suggestion service of Katib 0.19 takes; it fails on others when it starts.
_SKOPT = ("base_estimator", "n_initial_points", "acq_func", "acq_optimizer", "random_state")
KNOWN_SETTINGS = {
    "random": ("random_state",),
    "tpe": ("gamma", "prior_weight", "n_EI_candidates", "random_state"),
    "multivariate-tpe": ("n_startup_trials", "n_ei_candidates", "random_state"),
    "grid": ("random_state",),
    "bayesianoptimization": _SKOPT,
    "cmaes": ("random_state", "sigma", "restart_strategy"),
    "sobol": (),
    "hyperband": ("eta", "r_l", "resource_name"),
    "pbt": ("suggestion_trial_dir", "n_population", "truncation_threshold", "resample_probability"),
}
CHOICES = {
    "base_estimator": ("GP", "RF", "ET", "GBRT"),
    "acq_func": ("gp_hedge", "LCB", "EI", "PI", "EIps", "PIps"),
    "acq_optimizer": ("auto", "sampling", "lbfgs"),
    "restart_strategy": ("ipop", "bipop", "none"),
}
WHOLE = ("random_state", "n_EI_candidates", "n_startup_trials", "n_ei_candidates", "n_initial_points", "n_population")


def _settings(experiment: Experiment) -> Iterator[Problem]:
    known = KNOWN_SETTINGS.get(experiment.algorithm)
    for index, name in enumerate(experiment.settings):
        place, value = (*SETTINGS, index), experiment.settings[name]
        if known is None:
            continue
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            yield (*place, "name"), f"{experiment.algorithm} has no setting {name} and would not start", takes
        elif name in CHOICES and value not in CHOICES[name]:
            yield (*place, "value"), f"{value!r} is no {name}", f"use one of {', '.join(CHOICES[name])}"
        elif name in WHOLE and not re.fullmatch(r"[+-]?\d+", value):
            yield (*place, "value"), f"{name} must be a whole number, not {value!r}", "give one"
        elif name in ("gamma", "prior_weight", "sigma", "r_l", "eta") and parse_number(value) is None:
            yield (*place, "value"), f"{name} must be a number, not {value!r}", "give one"


def _grid(experiment: Experiment) -> Iterator[Problem]:
    if experiment.algorithm != "grid":
        return
    for each in experiment.parameters:
        if each.type == "double" and not each.step:
            place = (*each.place, "feasibleSpace")
            yield place, f"grid needs a step for the double {each.name}", "add a step, or make it a list"
    size, maximum = grid_size(experiment), experiment.count("maxTrialCount")
    if size and maximum is not None and maximum > size:
        message = f"maxTrialCount {maximum} is more than the grid's {size} combinations: its service refuses that"
        yield (SPEC, "maxTrialCount"), message, f"use at most {size}"


def grid_size(experiment: Experiment) -> int:
    """Number of combinations; 0 if a parameter has no countable values."""
    return math.prod(len(each.steps()) for each in experiment.parameters)


def _skopt(experiment: Experiment) -> Iterator[Problem]:
    if experiment.algorithm != "bayesianoptimization":
        return
    for each in experiment.parameters:
        bounds = each.numbers
        if each.type == "double" and bounds and bounds[0] <= 0:
            message = (
                f"Katib 0.19 searches doubles on a logarithmic scale here: a min of {each.low} crashes the service"
            )
            yield (*each.place, "feasibleSpace", "min"), message, "use a min above 0, e.g. 1e-6"


def _cmaes(experiment: Experiment) -> Iterator[Problem]:
    if experiment.algorithm == "cmaes":
        numeric = [each for each in experiment.parameters if each.type in ("double", "int")]
        if len(numeric) < 2:
            message = f"cmaes needs two parameters that are double or int, and there are {len(numeric)}"
            yield (SPEC, "parameters"), message, "add one, or use multivariate-tpe"


def _distribution(experiment: Experiment) -> Iterator[Problem]:
    if experiment.algorithm != "multivariate-tpe":
        return
    for each in experiment.parameters:
        if each.distribution in ("normal", "logNormal"):
            place = (*each.place, "feasibleSpace", "distribution")
            yield place, f"multivariate-tpe has no {each.distribution}", "use uniform or logUniform"


def _hyperband(experiment: Experiment) -> Iterator[Problem]:
    if experiment.algorithm != "hyperband":
        return
    settings = experiment.settings
    for name in ("r_l", "resource_name"):
        if not settings.get(name):
            yield SETTINGS, f"hyperband needs the setting {name}", "r_l: the most of the resource a trial gets"
    resource = settings.get("resource_name")
    found = next((each for each in experiment.parameters if each.name == resource), None)
    if resource and found is None:
        yield SETTINGS, f"resource_name {resource} is no parameter", "name the parameter that holds the resource"
    elif found is not None and found.type not in ("int", "double"):
        yield (*found.place, "parameterType"), "hyperband writes whole numbers into its resource", "use int"
    if settings.get("r_l"):
        width = hyperband.width(settings)
        if width is None:
            yield SETTINGS, f"r_l {settings['r_l']} must be a number of 1 or more, and eta 2 or more", "e.g. 9, and 3"
        elif experiment.parallel < width:
            message = f"hyperband starts {width} trials at once, and parallelTrialCount is {experiment.parallel}"
            yield (SPEC, "parallelTrialCount"), message, f"use {width}, or a smaller r_l"
    if experiment.early_stopping:
        message = "hyperband fails when a trial of a bracket ends as EarlyStopped"
        yield (SPEC, "earlyStopping"), message, "remove it: hyperband stops trials itself"
    for each in experiment.parameters:
        for index, choice in enumerate(each.choices if each.type == "discrete" else ()):
            if not re.fullmatch(r"[+-]?\d+", choice):
                place = (*each.place, "feasibleSpace", "list", index)
                yield (
                    place,
                    f"hyperband reads discrete values as whole numbers, and {choice} is none",
                    "use categorical",
                )


def _pbt(experiment: Experiment) -> Iterator[Problem]:
    if experiment.algorithm != "pbt":
        return
    settings = experiment.settings
    for name in ("suggestion_trial_dir", "n_population", "truncation_threshold"):
        if not settings.get(name):
            yield SETTINGS, f"pbt needs the setting {name}", "suggestion_trial_dir: where the trial keeps checkpoints"
    population, threshold = (
        parse_number(settings.get("n_population")),
        parse_number(settings.get("truncation_threshold")),
    )
    if population is not None and population < 5:
        yield SETTINGS, f"n_population {population:g} is below 5", "use 5 or more"
    if threshold is not None and not 0 <= threshold <= 1:
        yield SETTINGS, f"truncation_threshold {threshold:g} is not between 0 and 1", "0.2 replaces the worst fifth"
    if "resample_probability" in settings:
        yield SETTINGS, "resample_probability ends the service with a TypeError (Katib 0.19)", "remove it"
    if len(experiment.name) > 26:
        message = f"trials are named after the Experiment and 36 letters more; {experiment.name} is longer than 26"
        yield ("metadata", "name"), message, "choose a shorter one"
    if experiment.get(SPEC, "resumePolicy", default="Never") != "FromVolume":
        message = "pbt keeps checkpoints on the suggestion's volume, which only FromVolume makes"
        yield (SPEC, "resumePolicy"), message, "use FromVolume"
    if experiment.collector == "Push":
        place = ("spec", "metricsCollectorSpec", "collector", "kind")
        yield place, "with Push the suggestion's volume is not mounted", "use StdOut or File"
    for each in experiment.parameters:
        if each.type == "double" and not each.step:
            yield (*each.place, "feasibleSpace"), f"pbt needs a step for the double {each.name}", "add a step"
        if each.type == "int":
            message = f"an int at its bound comes back as '{each.high}.0', which ends the service (Katib 0.19)"
            yield (*each.place, "parameterType"), message, "use discrete or categorical"


def _stopping(experiment: Experiment) -> Iterator[Problem]:
    if experiment.early_stopping != "medianstop":
        return
    place = (SPEC, "earlyStopping", "algorithmSettings")
    for index, (name, value) in enumerate(experiment.stopping_settings.items()):
        if name not in ("min_trials_required", "start_step"):
            yield (*place, index), f"medianstop has no setting {name}", "it has min_trials_required and start_step"
        elif not re.fullmatch(r"\d+", value) or int(value) < 1:
            yield (*place, index, "value"), f"{name} must be a whole number of 1 or more, not {value!r}", "give one"
    if experiment.collector not in ("StdOut", "File"):
        message = f"the {experiment.collector} collector cannot stop a trial"
        yield (SPEC, "earlyStopping"), message, "use the StdOut or File collector"


RULES = (
    Rule("K210", "error", "settings that the algorithm takes", _settings),
    Rule("K211", "error", "what grid needs", _grid),
    Rule("K212", "error", "what bayesianoptimization needs", _skopt),
    Rule("K213", "error", "what cmaes needs", _cmaes),
    Rule("K214", "error", "what multivariate-tpe needs", _distribution),
    Rule("K215", "error", "what hyperband needs", _hyperband),
    Rule("K216", "error", "what pbt needs", _pbt),
    Rule("K217", "error", "what medianstop needs", _stopping),
)
