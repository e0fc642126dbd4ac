"""A search as one HTML page: history, parallel coordinates, importance, curves, the best point. No script, no network."""

import html
import io
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from config import files
from config.numbers import format_number
from katib.experiment import parse_number
from katib.table import status_counts
from katib.trials import Trial

COLOURS = {"Succeeded": "#3b6ea5", "EarlyStopped": "#b58a2a", "Failed": "#a33a3a", "MetricsUnavailable": "#a33a3a"}
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-size: 13px; } td, th { padding: .2rem .6rem; text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } tr:nth-child(even) { background: #f4f4f4; }
pre { background: #f4f4f4; padding: .7rem; white-space: pre-wrap; } svg { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; }
"""


def write(
    path: Path,
    *,
    name: str,
    objective: str,
    maximize: bool,
    algorithm: str,
    parameters: Sequence[Any],
    trials: Sequence[Trial],
    verdict: str,
    command: str,
) -> None:
    """Writes the page.

    Args:
        path: of the page.
        name: of the Experiment.
        objective: the metric searched by, and its direction.
        maximize: whether more is better.
        algorithm: Katib's name.
        parameters: `katib.experiment.Parameter`s.
        trials: all, in the order of their beginning.
        verdict: how the search ended, or that it goes on.
        command: that trains with the best overrides; "" if there is no best.
    """
    valued = [each for each in trials if each.value is not None]
    best = (max if maximize else min)(valued, key=lambda each: each.value or 0.0, default=None)
    parts = [f"<h1>{html.escape(name)}</h1>", f"<p>{html.escape(verdict)}. {html.escape(status_counts(trials))}. "]
    parts.append(f"{html.escape(algorithm)}, {'highest' if maximize else 'lowest'} {html.escape(objective)}.</p>")
    if best is not None and best.value is not None:
        value = format_number(best.value, 6)
        parts.append(f"<h2>Best: {html.escape(objective)} {value}, {html.escape(best.name)}</h2>")
        parts.append(f"<pre>{html.escape(command)}</pre>" if command else "")
    pictures = [
        ("History", _history(trials, objective, maximize)),
        ("Parameters", _parallel(trials, parameters, objective, maximize)),
        ("Importance", _importance(trials, parameters, maximize)),
        ("Curves", _curves(trials, objective)),
    ]
    for title, (picture, said) in pictures:
        parts.append(f"<h2>{title}</h2><p>{html.escape(said)}</p>{picture}")
    parts.append("<h2>Trials</h2>" + _table(trials, objective, best))
    page = f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(name)}</title>"
    page += f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style></head><body>"
    files.write_text(path, page + "\n".join(parts) + "</body></html>\n")


def import_ahead() -> None:
    """Imports what the report needs: two seconds that need not come after the last trial."""
    import matplotlib.pyplot  # noqa: F401
    import optuna.importance  # noqa: F401


def _figure(width: float, height: float) -> Any:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams.update(
        {"svg.hashsalt": "isotrain", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    return plt.subplots(figsize=(width, height), layout="constrained")


def _svg(figure: Any) -> str:
    import matplotlib.pyplot as plt

    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


def _history(trials: Sequence[Trial], objective: str, maximize: bool) -> tuple[str, str]:
    """Each trial's value, and the best so far."""
    points = [(index, each) for index, each in enumerate(trials, 1) if each.value is not None]
    if not points:
        return "", "No trial has a value yet."
    figure, axes = _figure(7.2, 2.6)
    for status in dict.fromkeys(each.status for _, each in points):
        mine = [(index, each.value) for index, each in points if each.status == status]
        axes.scatter(*zip(*mine, strict=True), s=18, color=COLOURS.get(status, "#777"), label=status, zorder=3)
    best, steps = None, []
    for index, each in points:
        value = each.value or 0.0
        best = value if best is None else (max if maximize else min)(best, value)
        steps.append((index, best))
    axes.step(*zip(*steps, strict=True), where="post", color="#222", linewidth=1, label="best so far")
    axes.set(xlabel="trial", ylabel=objective)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure), "Each point is a trial, in the order of their beginning."


def _position(parameter: Any, text: str) -> float:
    """Where a value lies on its parameter's axis, from 0 to 1."""
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


def _parallel(trials: Sequence[Trial], parameters: Sequence[Any], objective: str, maximize: bool) -> tuple[str, str]:
    """A line for each trial through its parameters to its value."""
    valued = [each for each in trials if each.value is not None]
    if not valued or not parameters:
        return "", "No trial has a value yet."
    import matplotlib as mpl

    values = [each.value or 0.0 for each in valued]
    low, high = min(values), max(values)
    figure, axes = _figure(max(4.0, 1.25 * (len(parameters) + 1)), 3.2)
    colours = mpl.colormaps["viridis"]
    for each in sorted(valued, key=lambda each: (each.value or 0.0) * (1 if maximize else -1)):
        share = ((each.value or 0.0) - low) / (high - low) if high > low else 0.5
        heights = [_position(parameter, each.assignments[parameter.name]) for parameter in parameters]
        colour = colours(share if maximize else 1 - share)
        axes.plot(range(len(heights) + 1), [*heights, share], color=colour, linewidth=1.1, alpha=0.85)
    names = [parameter.name.replace(".", ".\n") for parameter in parameters] + [objective]
    axes.set_xticks(range(len(names)), names, fontsize=7.5)
    axes.set_yticks([])
    axes.set_ylim(-0.12, 1.12)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    for index, parameter in enumerate(parameters):
        axes.axvline(index, color="#bbb", linewidth=0.8, zorder=0)
        if parameter.choices:
            for choice in parameter.choices:
                axes.annotate(
                    choice, (index, _position(parameter, choice)), fontsize=7, xytext=(3, 0), textcoords="offset points"
                )
        else:
            axes.annotate(
                parameter.low, (index, 0), fontsize=7, xytext=(0, -8), textcoords="offset points", ha="center"
            )
            axes.annotate(
                parameter.high, (index, 1), fontsize=7, xytext=(0, 4), textcoords="offset points", ha="center"
            )
    axes.axvline(len(parameters), color="#222", linewidth=0.8, zorder=0)
    axes.annotate(
        format_number(low, 4), (len(parameters), 0), fontsize=7, xytext=(0, -8), textcoords="offset points", ha="center"
    )
    axes.annotate(
        format_number(high, 4), (len(parameters), 1), fontsize=7, xytext=(0, 4), textcoords="offset points", ha="center"
    )
    return _svg(figure), "A line is a trial, from its parameters to its value; bright lines are the better ones."


def _importance(trials: Sequence[Trial], parameters: Sequence[Any], maximize: bool) -> tuple[str, str]:
    """How much of the difference between trials each parameter explains."""
    valued = [each for each in trials if each.value is not None]
    shares = importances(valued, parameters, maximize)
    if not shares:
        return "", "Too few trials with different values to tell (at least 6 are needed)."
    figure, axes = _figure(7.2, 0.5 + 0.28 * len(shares))
    names = sorted(shares, key=lambda name: shares[name])
    axes.barh(names, [shares[name] for name in names], color="#3b6ea5", height=0.6)
    axes.set(xlim=(0, 1))
    axes.set_xlabel("share")
    said = f"PED-ANOVA over {len(valued)} trials: how much each parameter, by itself, sets the best tenth apart."
    return _svg(figure), said + (" Of so few trials, a hint at most." if len(valued) < 30 else "")


def importances(valued: Sequence[Trial], parameters: Sequence[Any], maximize: bool) -> dict[str, float]:
    """PED-ANOVA (Watanabe et al. 2023) by Optuna; empty where there is too little to tell."""
    if len(valued) < 6 or len({each.value for each in valued}) < 2 or not parameters:
        return {}
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    known: dict[str, Any] = {}
    for each in parameters:
        bounds, seen = each.numbers, {trial.assignments[each.name] for trial in valued}
        if len(seen) < 2:
            continue  # fixed by an override, say: it explains nothing
        if each.choices:
            known[each.name] = CategoricalDistribution(tuple(sorted({*each.choices, *seen})))
        elif bounds and bounds[0] < bounds[1]:
            found = [float(text) for text in seen]
            low, high = min(bounds[0], *found), max(bounds[1], *found)
            known[each.name] = FloatDistribution(low, high, log=each.distribution == "logUniform" and low > 0)
    if not known:
        return {}
    study = optuna.create_study(direction="maximize" if maximize else "minimize")
    for each in valued:
        values = {
            name: each.assignments[name] if isinstance(kind, CategoricalDistribution) else float(each.assignments[name])
            for name, kind in known.items()
        }
        study.add_trial(optuna.trial.create_trial(params=values, distributions=known, value=each.value))
    try:
        from optuna.importance import PedAnovaImportanceEvaluator

        evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, 2 / len(valued)))
        found_ = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}
    return {name: share for name, share in found_.items() if math.isfinite(share)}


def _curves(trials: Sequence[Trial], objective: str) -> tuple[str, str]:
    """The objective over each trial's own time."""
    drawn = [(each, points) for each in trials if len(points := _seconds(each)) > 1]
    if not drawn:
        return "", "No trial reported its objective more than once."
    figure, axes = _figure(7.2, 2.8)
    for each, points in drawn:
        colour = COLOURS.get(each.status, "#777")
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1, alpha=0.75, marker=".", markersize=3)
    for status in dict.fromkeys(each.status for each, _ in drawn):
        axes.plot([], [], color=COLOURS.get(status, "#777"), label=status)
    axes.set(xlabel="seconds since the trial began", ylabel=objective)
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure), "A line is a trial; its points are its validations."


def _seconds(trial: Trial) -> list[tuple[float, float]]:
    points = []
    for time, text in trial.curve:
        try:
            moment, value = datetime.fromisoformat(time), float(text)
            begun = datetime.fromisoformat(trial.started) if trial.started else moment
        except ValueError:
            continue
        if math.isfinite(value) and moment.year > 1:
            points.append(((moment - begun).total_seconds(), value))
    # The last line of train.py says its best again.
    return points[:-1] if len(points) > 2 and points[-1][1] in (value for _, value in points[:-1]) else points


def _table(trials: Sequence[Trial], objective: str, best: Trial | None) -> str:
    names = list(trials[0].assignments) if trials else []
    head = "".join(f"<th>{html.escape(each)}</th>" for each in ("trial", "status", objective, *names, "why"))
    rows = []
    for each in trials:
        value = "" if each.value is None else format_number(each.value, 6)
        mark = " style='font-weight:600'" if each is best else ""
        cells = "".join(f"<td class='n'>{html.escape(each.assignments[name])}</td>" for name in names)
        start = f"<td>{html.escape(each.name)}</td><td>{each.status}</td><td class='n'>{value}</td>"
        rows.append(f"<tr{mark}>{start}{cells}<td>{html.escape(each.reason)}</td></tr>")
    return f"<div class='scroll'><table><tr>{head}</tr>{''.join(rows)}</table></div>"
