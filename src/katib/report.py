"""The report of a search as one HTML page: the best trial, history, curves, parameters, importance, trials."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from config.numbers import format_number
from katib.experiment import Experiment, Parameter, parse_number
from katib.table import status_counts
from katib.trials import Trial, best_trial
from reports import page
from reports.charts import Series
from reports.page import Cell
from runs import report_metrics, sweep

RUNS = "runs"  # folder of the trials' run folders, in that of the search
MIN_TRIALS = 6  # with values, for importances
FEW_TRIALS = 30  # below which importances are a hint at most
_COLOURS = {"Succeeded": "c0", "EarlyStopped": "fair", "Failed": "bad", "MetricsUnavailable": "bad"}


def write(path: Path, experiment: Experiment, trials: Sequence[Trial], verdict: str, command: str) -> None:
    """Write the page.

    Trials whose run folders are in `runs/` beside the page have links to their reports, and curves over steps.

    Args:
        path: the page.
        experiment: the Experiment of the search.
        trials: all trials, in the order of their start.
        verdict: how the search ended, or that it is unfinished.
        command: command that trains with the best overrides; "" without a best trial.
    """
    objective, maximize, parameters = experiment.objective, experiment.maximize, experiment.parameters
    best = best_trial(trials, maximize)
    valued = [trial for trial in trials if trial.value is not None]
    shares = importances(valued, parameters, maximize)
    folders = {trial.name: path.parent / RUNS / trial.name for trial in trials}
    curves = _step_curves(trials, folders, objective)
    x_label = "step" if curves else "seconds since the start of the trial"
    curves = curves or [(trial, points) for trial in trials if len(points := _curve(trial)) > 1]
    page.write(
        path,
        "search.html.jinja",
        title=experiment.name,
        summary=[
            ("Status", verdict),
            ("Trials", status_counts(trials)),
            ("Algorithm", f"{experiment.algorithm}, {'highest' if maximize else 'lowest'} {objective}"),
            *([("Best", f"{objective} {_value_text(best)}, {best.name}")] if best else []),
        ],
        objective=objective,
        command=command if best else "",
        history=_history(valued, maximize),
        axes=_axes(parameters, valued, objective),
        lines=_lines(parameters, valued, maximize),
        scatters=sweep.scatters(
            {item.name: [_assignment(trial.assignments.get(item.name)) for trial in valued] for item in parameters},
            [trial.value or 0.0 for trial in valued],
            [f"{trial.name}: {_value_text(trial)}" for trial in valued],
        ),
        importances=[(name, page.format_percent(share), share) for name, share in shares.items()],
        count=len(valued),
        few=FEW_TRIALS,
        minimum=MIN_TRIALS,
        curves=[Series(trial.name, points, colour=_colour(trial)) for trial, points in curves],
        x_label=x_label,
        statuses=[(trial.status, _colour(trial)) for trial in {trial.status: trial for trial, _ in curves}.values()],
        parameters=[(parameter.name, "number") for parameter in parameters],
        trials=[
            [
                Cell(trial.name, href=_address(folders[trial.name], path), badge="best" if trial is best else ""),
                trial.status,
                _value_text(trial),
                *(_assignment(trial.assignments.get(parameter.name)) for parameter in parameters),
                trial.reason,
            ]
            for trial in trials
        ],
    )


def import_ahead() -> None:
    """Import the library that the report needs, which takes a second, while trials run."""
    import optuna.importance  # noqa: F401


def _colour(trial: Trial) -> str:
    return _COLOURS.get(trial.status, "plain")


def _value_text(trial: Trial) -> str | None:
    return None if trial.value is None else format_number(trial.value, 4)


def _assignment(text: str | None) -> float | str | None:
    """A number if it is one, which the table rounds."""
    value = parse_number(text)
    return text if value is None else value


def _history(valued: Sequence[Trial], maximize: bool) -> list[Series]:
    """The value of each trial by status, and the best value so far."""
    if not valued:
        return []
    points = [(index, trial.value or 0.0) for index, trial in enumerate(valued, 1)]
    series = []
    for status in dict.fromkeys(trial.status for trial in valued):
        members = [(point, trial) for point, trial in zip(points, valued, strict=True) if trial.status == status]
        titles = [f"{trial.name}: {_value_text(trial)}" for _, trial in members]
        series.append(Series(status, [point for point, _ in members], titles, "dots", _colour(members[0][1])))
    best = [(index, (max if maximize else min)(value for _, value in points[:index])) for index, _ in points]
    return [Series("best so far", best, style="steps", colour="plain"), *series]


def _axes(
    parameters: Sequence[Parameter], valued: Sequence[Trial], objective: str
) -> list[tuple[str, list[tuple[float, str]]]]:
    """Title and ticks (position from 0 to 1, text) of each axis of the parallel coordinates."""
    values = [trial.value or 0.0 for trial in valued]
    if not values or not parameters:
        return []
    axes = [
        (
            parameter.name,
            [(_position(parameter, choice), choice) for choice in parameter.choices]
            or [(0.0, parameter.low), (1.0, parameter.high)],
        )
        for parameter in parameters
    ]
    return [*axes, (objective, [(0.0, format_number(min(values), 4)), (1.0, format_number(max(values), 4))])]


def _lines(
    parameters: Sequence[Parameter], valued: Sequence[Trial], maximize: bool
) -> list[tuple[list[float], float, str]]:
    """Positions, rank (0 to 1, the best last) and title of each trial's line through the axes."""
    values = [trial.value or 0.0 for trial in valued]
    lines = []
    for trial in sorted(valued, key=lambda trial: (trial.value or 0.0) * (1 if maximize else -1)):
        extent = max(values) - min(values)
        share = ((trial.value or 0.0) - min(values)) / extent if extent else 0.5
        positions = [*(_position(parameter, trial.assignments[parameter.name]) for parameter in parameters), share]
        lines.append((positions, share if maximize else 1 - share, f"{trial.name}: {_value_text(trial)}"))
    return lines


def _position(parameter: Parameter, text: str) -> float:
    """The position of a value on its parameter's axis, from 0 to 1."""
    if parameter.choices:
        choices = list(parameter.choices)
        return choices.index(text) / max(1, len(choices) - 1) if text in choices else 0.0
    low, high = parameter.numbers or (0.0, 1.0)
    value = parse_number(text)
    if value is None:
        return 0.0
    if parameter.distribution == "logUniform" and low > 0:
        low, high, value = math.log(low), math.log(high), math.log(max(value, low))
    return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.0


def importances(valued: Sequence[Trial], parameters: Sequence[Parameter], maximize: bool) -> dict[str, float]:
    """Return the importance of each parameter by Optuna's PED-ANOVA (Watanabe et al. 2023).

    Args:
        valued: trials with values.
        parameters: of the search space.
        maximize: whether a higher objective is better.

    Returns:
        Shares by parameter, the largest first; empty for fewer than `MIN_TRIALS` trials, or trials of one value.
    """
    if len(valued) < MIN_TRIALS or len({trial.value for trial in valued}) < 2:
        return {}
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions: dict[str, Any] = {}
    for parameter in parameters:
        bounds, texts = parameter.numbers, {trial.assignments[parameter.name] for trial in valued}
        if len(texts) < 2:
            continue  # fixed by an override: it explains nothing
        if parameter.choices:
            distributions[parameter.name] = CategoricalDistribution(tuple(sorted({*parameter.choices, *texts})))
        elif bounds and bounds[0] < bounds[1]:
            numbers = [float(text) for text in texts]
            low, high = min(bounds[0], *numbers), max(bounds[1], *numbers)
            log = parameter.distribution == "logUniform" and low > 0
            distributions[parameter.name] = FloatDistribution(low, high, log=log)
    if not distributions:
        return {}
    study = optuna.create_study(direction="maximize" if maximize else "minimize")
    for trial in valued:
        values: dict[str, Any] = {name: trial.assignments[name] for name in distributions}
        for name, kind in distributions.items():
            if isinstance(kind, FloatDistribution):
                values[name] = float(values[name])
        study.add_trial(optuna.trial.create_trial(params=values, distributions=distributions, value=trial.value))
    try:
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=max(0.1, 2 / len(valued)))
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}
    return {name: share for name, share in shares.items() if math.isfinite(share)}


def _address(folder: Path, path: Path) -> str:
    """Return the address of a trial's own report on the page; "" without one."""
    report = folder / "report.html"
    return page.relative_url(report, path.parent) if report.exists() else ""


def _step_curves(
    trials: Sequence[Trial], folders: Mapping[str, Path], objective: str
) -> list[tuple[Trial, Sequence[tuple[float, float]]]]:
    """Return the objective over steps of each trial that has a run folder and at least two validations."""
    curves = ((trial, report_metrics.read_curves(folders[trial.name]).get(objective)) for trial in trials)
    return [(trial, curve.points) for trial, curve in curves if curve is not None and len(curve.points) > 1]


def _curve(trial: Trial) -> list[tuple[float, float]]:
    """Seconds since the start of a trial, and the reported objective."""
    points = []
    for time, text in trial.curve:
        try:
            moment, value = datetime.fromisoformat(time), float(text)
            start = datetime.fromisoformat(trial.started) if trial.started else moment
            seconds = (moment - start).total_seconds()
        except (ValueError, TypeError):  # no time, or one with a zone and one without
            continue
        if math.isfinite(value) and moment.year > 1:
            points.append((seconds, value))
    # The last metric line of train.py repeats the best value.
    return points[:-1] if len(points) > 2 and points[-1][1] in (value for _, value in points[:-1]) else points
