"""Values of parameters, held against what Katib's services gave (hyperopt 0.2.5, optuna 3.3.0, goptuna 0.8.0, Katib 0.19)."""

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import InputError
from katib import suggestion
from katib.documents import Document
from katib.experiment import Experiment, Parameter
from katib.search_space import probe_points
from katib.service_values import draw_bounds, end_values, write_value

EVERY_INTEGER = tuple(str(value) for value in range(1, 11))
# Algorithm, type, min, max, step, distribution, all values that the service gave in 600 to 3000 draws.
SERVICES: list[tuple[str, str, str, str, str, str, tuple[str, ...]]] = [
    ("random", "int", "4", "64", "16", "uniform", ("0", "16", "32", "48", "64")),
    ("tpe", "int", "4", "64", "16", "uniform", ("0", "16", "32", "48", "64")),
    ("random", "int", "1", "3", "", "uniform", ("1", "2", "3")),
    ("random", "int", "8", "40", "16", "uniform", ("16", "32")),
    ("random", "int", "0", "50", "30", "uniform", ("0", "30", "60")),
    ("random", "int", "1", "10", "2.5", "uniform", ("0", "2", "5", "7", "10")),
    ("random", "int", "3", "60", "20", "logUniform", ("0", "20", "40", "60")),
    ("random", "double", "0.1", "0.9", "0.2", "uniform", ("0.2", "0.4", "0.6000000000000001", "0.8")),
    ("random", "double", "0.05", "0.5", "0.1", "uniform", ("0.1", "0.2", "0.30000000000000004", "0.4", "0.5")),
    ("random", "double", "-0.3", "0.3", "0.2", "uniform", ("-0.2", "-0.0", "0.0", "0.2")),
    ("random", "double", "0.1", "2", "0.5", "logUniform", ("0.0", "0.5", "1.0", "1.5", "2.0")),
    ("multivariate-tpe", "int", "4", "64", "16", "uniform", ("4", "20", "36", "52")),
    ("multivariate-tpe", "int", "8", "40", "16", "uniform", ("8", "24", "40")),
    ("multivariate-tpe", "int", "1", "10", "4", "logUniform", EVERY_INTEGER),
    ("multivariate-tpe", "int", "0", "3", "", "logUniform", ("1", "2", "3")),
    (
        *("multivariate-tpe", "double", "0.1", "0.9", "0.2", "uniform"),
        ("0.1", "0.30000000000000004", "0.5", "0.7000000000000001", "0.9"),
    ),
    (
        *("multivariate-tpe", "double", "-0.3", "0.3", "0.2", "uniform"),
        ("-0.3", "-0.09999999999999998", "0.10000000000000003", "0.3"),
    ),
    ("hyperband", "int", "1", "10", "4", "uniform", EVERY_INTEGER),
    ("bayesianoptimization", "int", "4", "7", "3", "uniform", ("4", "5", "6", "7")),
    ("cmaes", "int", "4", "64", "16", "uniform", ("4", "20", "36", "52", "68")),
    ("cmaes", "int", "69", "96", "28", "uniform", ("69", "97")),
    ("cmaes", "double", "0.1", "0.9", "0.3", "uniform", ("0.1", "0.4", "0.7", "0.9999999999999999")),
]
# The first points of goptuna's Sobol sequence.
SOBOL = [
    {"b": "20", "c": "b", "d": "0.4", "i": "2", "lr": "0.005005"},
    {"b": "36", "c": "a", "d": "0.1", "i": "3", "lr": "0.0075025000000000005"},
    {"b": "4", "c": "c", "d": "0.7", "i": "1", "lr": "0.0025075"},
    {"b": "20", "c": "b", "d": "0.9999999999999999", "i": "2", "lr": "0.00125875"},
    {"b": "36", "c": "a", "d": "0.4", "i": "3", "lr": "0.00625375"},
    {"b": "20", "c": "c", "d": "0.7", "i": "2", "lr": "0.00875125"},
    {"b": "4", "c": "b", "d": "0.1", "i": "1", "lr": "0.0037562500000000005"},
    {"b": "4", "c": "c", "d": "0.4", "i": "2", "lr": "0.003131875"},
]


def make_parameter(kind: str, low: str, high: str, step: str = "", distribution: str = "uniform") -> Parameter:
    return Parameter("x", kind, low, high, step, (), distribution, ())


@pytest.mark.parametrize(("algorithm", "kind", "low", "high", "step", "distribution", "values"), SERVICES)
def test_values_are_those_of_the_services(
    algorithm: str, kind: str, low: str, high: str, step: str, distribution: str, values: tuple[str, ...]
) -> None:
    parameter = make_parameter(kind, low, high, step, distribution)
    bounds = draw_bounds(parameter, algorithm)
    assert bounds is not None
    draws = np.linspace(np.nextafter(bounds[0], bounds[1]), np.nextafter(bounds[1], bounds[0]), 4001)
    texts = {write_value(parameter, algorithm, float(draw)) for draw in draws}
    assert {float(text) for text in texts} == {float(text) for text in values}
    assert texts <= set(values)
    ends = end_values(parameter, algorithm)
    assert (float(ends[0]), float(ends[-1])) == (min(map(float, values)), max(map(float, values)))
    assert set(ends) <= set(values)


@pytest.mark.parametrize("row", [row for row in SERVICES if row[0] != "cmaes"])
def test_run_suggests_the_same_values(row: tuple[str, str, str, str, str, str, tuple[str, ...]]) -> None:
    algorithm, kind, low, high, step, distribution, values = row
    parameter = make_parameter(kind, low, high, step, distribution)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    name = suggestion.draw_name(parameter, algorithm)
    distributions = {name: suggestion.build_distribution(parameter, algorithm)}
    texts = {suggestion.write_draw(parameter, algorithm, study.ask(distributions).params[name]) for _ in range(150)}
    assert {float(text) for text in texts} == {float(text) for text in values}
    assert texts <= set(values)


def test_the_lowest_batch_size_is_as_rare_as_in_hyperopt() -> None:
    parameter = make_parameter("int", "4", "64", "16")
    draws = np.linspace(4, 64, 6001)
    sizes, counts = np.unique([write_value(parameter, "random", float(draw)) for draw in draws], return_counts=True)
    assert dict(zip(sizes, counts, strict=True))["0"] / 6001 == pytest.approx(0.067, abs=0.001)


@given(st.floats(-100, 100), st.floats(0.001, 200), st.floats(0.001, 50), st.integers(0, 2**32 - 1))
def test_hyperopt_rounds_with_numpy(low: float, extent: float, step: float, seed: int) -> None:
    parameter = make_parameter("double", repr(low), repr(low + extent), repr(step))
    draw = float(np.random.default_rng(seed).uniform(low, low + extent))
    assert write_value(parameter, "random", draw) == str(float(np.round(draw / step) * step))


@given(st.floats(-10, 10), st.floats(0, 10), st.floats(0.005, 3), st.integers(0, 6))
def test_grids_are_numpy_ranges(low: float, extent: float, step: float, digits: int) -> None:
    low, high, step = round(low, digits), round(low + extent, digits), max(round(step, digits), 10.0**-digits * 5)
    values = np.arange(low, high + step, step)  # convert_to_combinations of Katib's services
    values = values[:-1] if values[-1] > high else values
    parameter = make_parameter("double", repr(low), repr(high), repr(step))
    assert parameter.grid() == [str(float(value)) for value in values]


def test_grids_have_the_sizes_of_katib() -> None:
    assert len(make_parameter("double", "0.001", "0.1", "0.0001").grid()) == 990
    assert make_parameter("double", "0", "1", "0.1").grid()[-1] == "1.0"
    assert make_parameter("int", "1", "10", "4").grid() == ["1", "5", "9"]
    assert make_parameter("double", "2", "1", "0.5").grid() == []


def make_experiment(algorithm: str, settings: dict[str, str], *parameters: dict[str, Any]) -> Experiment:
    rows = [{"name": name, "value": value} for name, value in settings.items()]
    spec = {"algorithm": {"algorithmName": algorithm, "algorithmSettings": rows}, "parameters": list(parameters)}
    return Experiment(Document("file", {"metadata": {"name": "search"}, "spec": spec}, {}))


def parameter_row(name: str, kind: str, **space: Any) -> dict[str, Any]:
    return {"name": name, "parameterType": kind, "feasibleSpace": space}


def test_sobol_points_are_those_of_goptuna() -> None:
    experiment = make_experiment(
        "sobol",
        {},
        parameter_row("lr", "double", min="0.00001", max="0.01"),
        parameter_row("b", "int", min="4", max="64", step="16"),
        parameter_row("d", "double", min="0.1", max="0.9", step="0.3"),
        parameter_row("i", "int", min="1", max="4"),
        parameter_row("c", "categorical", list=["a", "b", "c"]),
    )
    assert [suggestion.sobol_point(experiment, index) for index in range(len(SOBOL))] == SOBOL


def test_hyperband_takes_the_nearest_discrete_value() -> None:
    parameter = Parameter("x", "discrete", "", "", "", ("16", "32", "256"), "uniform", ())
    assert draw_bounds(parameter, "hyperband") == (16.0, 256.0)
    assert [write_value(parameter, "hyperband", draw) for draw in (17.0, 100.0, 143.0, 145.0)] == [
        "16",
        "32",
        "32",
        "256",
    ]
    assert draw_bounds(parameter, "random") is None


def test_logarithmic_ranges_of_multivariate_tpe_begin_above_zero() -> None:
    assert draw_bounds(make_parameter("double", "0", "1", distribution="logUniform"), "multivariate-tpe") == (
        1e-10,
        1.0,
    )


def test_goptuna_writes_no_exponent() -> None:
    parameter = make_parameter("double", "1e-05", "2")
    assert end_values(parameter, "cmaes") == ["0.00001", "1.000005", "2"]
    assert end_values(parameter, "random") == ["1e-05", "1.000005", "2.0"]


def test_points_to_compose_are_those_of_the_cluster() -> None:
    parameter = make_parameter("int", "4", "64", "16")
    sizes = {
        algorithm: {point["x"] for point in probe_points([parameter], algorithm)} for algorithm in ("random", "sobol")
    }
    assert sizes == {"random": {"0", "32", "64"}, "sobol": {"4", "20", "36"}}


@pytest.mark.parametrize(
    ("algorithm", "settings", "space"),
    [
        ("tpe", {"n_EI_candidates": "0"}, {"min": "0", "max": "1"}),
        ("multivariate-tpe", {"n_ei_candidates": "0"}, {"min": "0", "max": "1"}),
        ("random", {"random_state": "-1"}, {"min": "0", "max": "1"}),
        ("random", {}, {"min": "0", "max": "1", "distribution": "logUniform"}),
        ("bayesianoptimization", {}, {"min": "0", "max": "1"}),
        ("bayesianoptimization", {"n_initial_points": "0"}, {"min": "1", "max": "2"}),
        ("hyperband", {}, {"list": ["16", "0.5"]}),
    ],
)
def test_what_a_service_fails_on_is_refused(algorithm: str, settings: dict[str, str], space: dict[str, Any]) -> None:
    row = parameter_row("x", "discrete" if "list" in space else "double", **space)
    with pytest.raises(InputError, match="service fails"):
        suggestion.check_search_support(make_experiment(algorithm, settings, row))


def test_negative_seeds_of_cmaes_are_accepted() -> None:
    row = parameter_row("x", "double", min="0", max="1")
    suggestion.check_search_support(make_experiment("cmaes", {"random_state": "-1"}, row))


def test_a_search_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Its storage has integers where draws are real numbers now."""
    storage = f"sqlite:///{tmp_path}/optuna.db"
    old = optuna.create_study(storage=storage, study_name="search")
    old.tell(old.ask({"x": optuna.distributions.IntDistribution(4, 64, step=16)}), 1.0)
    parameter = make_parameter("int", "4", "64", "16")
    study = optuna.load_study(storage=storage, study_name="search", sampler=optuna.samplers.TPESampler(seed=0))
    study.ask({suggestion.draw_name(parameter, "tpe"): suggestion.build_distribution(parameter, "tpe")})
    parameter_distribution, value = suggestion.fixed_distribution(parameter, "68", "cmaes")
    study.enqueue_trial({"x": value})
    assert study.ask({"x": parameter_distribution}).params == {"x": 68}
