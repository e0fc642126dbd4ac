"""What Katib's wrapper and collector do, as the facts about v0.19 say."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katib import collector, metric_filter, shell_command
from katib.collector import EarlyStopper, Entry, StopRule, UnreadableMetrics
from runs import metric_lines
from runs.metric_lines import KATIB_FILTER

T1, T2 = "2026-01-01T00:00:00.5Z", "2026-01-01T00:00:01+00:00"


def texts(line: str, *metrics: str, style: str = "TEXT", filters: tuple[str, ...] = (KATIB_FILTER,)) -> list[str]:
    return [entry.value for entry in collector.parse_line(line, list(metrics or ("val_loss",)), style, list(filters))]


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("val_loss=0.5", ["0.5"]),
        ("val_loss = 1e-05", ["1e-05"]),
        ("val_loss=.98 val_loss=+3 val_loss=5.", [".98", "+3", "5"]),
        ("val_loss=nan", [""]),
        ("val_loss=inf", [""]),
        ("val_loss=tensor(0.1)", [""]),
        ("val_loss=1,234.5", ["1"]),
        ("val_loss: 0.7", []),
        ("train/val_loss=5.6", ["5.6"]),
        ("best_val_loss=0.1", []),
        ("\x1b[32mval_loss\x1b[0m=0.5", []),
        ("10%|#  | val_loss=0.9\r20%|## | val_loss=0.8", ["0.9", "0.8"]),
        ("Epoch 3 done", []),
    ],
)
def test_text_is_read_as_katib_reads_it(line: str, values: list[str]) -> None:
    assert texts(line) == values


@pytest.mark.parametrize("metric", ["val/loss", "val.loss"])
def test_names_with_slashes_and_dots_never_match_themselves(metric: str) -> None:
    assert texts(f"{metric}=0.5", metric) == []


@pytest.mark.parametrize(
    ("line", "time"),
    [
        ("2026-01-01T00:00:00.123456Z val_loss=1", "2026-01-01T00:00:00.123456Z"),
        ("2026-01-01T00:00:00+02:00 val_loss=1", "2026-01-01T00:00:00+02:00"),
        ("2026-01-01T00:00:00 val_loss=1", collector.NO_TIME),
        ("2026-01-01 00:00:00 val_loss=1", collector.NO_TIME),
        ("2026-13-01T00:00:00Z val_loss=1", collector.NO_TIME),
        ("val_loss=1", collector.NO_TIME),
    ],
)
def test_times_need_a_zone(line: str, time: str) -> None:
    assert [entry.time for entry in collector.parse_line(line, ["val_loss"], "TEXT", [KATIB_FILTER])] == [time]


def test_own_filters_replace_the_default() -> None:
    assert texts(
        "{metricName: val_loss, metricValue: 0.5}",
        filters=(r"{metricName: ([\w|-]+), metricValue: ((-?\d+)(\.\d+)?)}",),
    ) == ["0.5"]
    assert texts("val_loss=0.5", filters=(r"{metricName: ([\w|-]+), metricValue: ((-?\d+)(\.\d+)?)}",)) == []


LINE = "val_loss=1e-05 loss: 0.5 Loss=+3"


@pytest.mark.parametrize(
    ("expression", "line", "pairs"),
    [
        (r"([[:alpha:]]+)=([[:digit:].]+)", "loss=0.5", [("loss", "0.5")]),
        (r"(?P<name>\w+)=(?P<value>[\d.]+)", "loss=0.5", [("loss", "0.5")]),
        (r"(?<name>\w+)=(?<value>[\d.]+)", "loss=0.5", [("loss", "0.5")]),
        (r"(\p{L}+)=([\d.]+)", "loss=0.5", [("loss", "0.5")]),
        (r"(\pL+)=([\d.]+)\z", "loss=0.5", [("loss", "0.5")]),
        (r"((?i)LOSS)=([\d.]+)", "Loss=0.5", [("Loss", "0.5")]),
        (r"([.*+?\w-]+)=([\d.]+)", "a.b*=0.5", [("a.b*", "0.5")]),
        (r"(\++) ([\d.]+)", "++ 0.5", [("++", "0.5")]),
        (r"(\w+)\x{3d}(.+)", "loss=0.5", [("loss", "0.5")]),
        (r"(?U)(\w+)=(.+)", "loss=0.5", [("loss", "0")]),
        (r"(\w{,3})=(.+)", "w{,3}=1 loss=0.5", [("w{,3}", "1 loss=0.5")]),
        (r"(\w*)=?([\d.]*)", "loss=0.5 a", [("loss", "0.5"), ("a", "")]),
        (r"(\w+)=.*", "loss=0.5", []),
        (KATIB_FILTER, LINE, [("val_loss", "1e-05"), ("Loss", "+3")]),
        (r"([\w|-]+)\s*=\s*((-?\d+)(\.\d+)?)", LINE, [("val_loss", "1")]),
        (r"(\d+)=(.*)", "٣=1", []),
    ],
)
def test_expressions_are_those_of_go(expression: str, line: str, pairs: list[tuple[str, str]]) -> None:
    """The expected pairs are those of Go's regexp."""
    assert list(metric_filter.find_values(expression, line)) == pairs


@pytest.mark.parametrize(
    "expression",
    [
        *(r"(?=a)(b)(c)", r"(?<!/)(a)(b)", r"(a)\1", r"(a)++(b)", r"(?>a)(b)", r"(a)(b)\Z", r"(?x)(a)(b)", r"(?#a)(b)"),
        *(
            r"(a{1001})(b)",
            r"(?P=a)(b)",
            r"(\C)(b)",
            r"([a)(b)",
            r"(a",
            r"([[:foo:]])(b)",
            r"(\p{Foo})(b)",
            "(\ud800)(b)",
        ),
    ],
)
def test_expressions_that_go_refuses_are_refused(expression: str) -> None:
    with pytest.raises(ValueError):
        metric_filter.compile_filter(expression)
    assert metric_filter.filter_problem(expression) is not None


@pytest.mark.parametrize(
    ("expression", "groups"),
    [
        (r"((val_)?loss): ([\d.]+)", ["(val_)?loss", "val_", r"[\d.]+"]),
        (r"(?P<n>a)(?:b(c))(?i)(d)", ["a", "c", "(?i)d"]),
        (r"(?i:(a)(b))(c)", ["(?i)a", "(?i)b", "c"]),
        (r"([)(]+)\((\))\Q(\E([[:^alpha:](]])", ["[)(]+", r"\)", "[[:^alpha:](]]"]),
        (r"[]()]([^](]+)(?<x>y)", ["[^](]+", "y"]),
    ],
)
def test_groups_of_an_expression(expression: str, groups: list[str]) -> None:
    assert metric_filter.group_expressions(expression) == groups


@pytest.mark.parametrize(
    ("expression", "valid"),
    [
        *(
            (rf"(\w+)[=:]\s*{value}", True)
            for value in (r"([\d.]+)", r"(\S+)", r"(-?\d+)", r"((?:0|1)\.\d{4})", r"(\d{9})")
        ),
        *(
            (rf"(\w+) {value}", True)
            for value in (r"(\s*0\.\d+)", r"([+-]?\d*(\.\d+)?)", r"(\d\.\d+e-\d\d)", r"(0\.9\d*)")
        ),
        (r"{metricName: ([\w|-]+), metricValue: ((-?\d+)(\.\d+)?)}", True),
        *(
            (rf"(\w+)={value}", False)
            for value in (r"([a-z]+)([\d.]+)", r"(\[)(.*)\]", r"(nan|inf)", r"()(\d+)", r"(\d+%)")
        ),
        (r"((val_)?loss): ([\d.]+)", False),
        (r"((a)=(1))", False),
    ],
)
def test_the_second_group_must_hold_a_number(expression: str, valid: bool) -> None:
    problem = metric_filter.filter_problem(expression)
    assert (problem is None) is valid, problem
    assert problem is None or "second group" in problem[0]


def test_json_takes_texts_alone() -> None:
    line = json.dumps({"timestamp": T1, "val_loss": "0.5", "val/f1": "80", "epoch": 1})
    assert collector.parse_line(line, ["val_loss", "val/f1", "epoch"], "JSON", []) == [
        Entry(T1, "val_loss", "0.5"),
        Entry(T1, "val/f1", "80"),
    ]
    assert texts('{"val_loss": 0.5}', style="JSON") == []
    assert texts("", style="JSON") == []


@pytest.mark.parametrize(
    "line",
    [
        *("val_loss=0.5", '{"val_loss": NaN}', "[1]", '{"val_loss": "0.5"', '{"x": 1e999}', '{"x": [-1e999]}'),
        pytest.param('{"x": 1' + "0" * 400 + "}", id="integer"),
        pytest.param('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", id="depth"),
        *('{"x": Infinity}', " ", "\r"),
    ],
)
def test_a_line_that_is_not_json_ends_the_collector(line: str) -> None:
    with pytest.raises(UnreadableMetrics):
        collector.parse_metrics(line, ["val_loss"], "JSON", [])


def test_null_is_an_object_without_keys() -> None:
    found = collector.parse_metrics('null\n{"val_loss": "0.5"}\n', ["val_loss"], "JSON", [])
    assert found == [Entry(collector.NO_TIME, "val_loss", "0.5")]


@pytest.mark.parametrize("text", ["--inf", "+-nan", "1e400", "-1e400", "abc", "", "٣", "0x10", "unavailable"])
def test_a_value_that_is_text_is_the_latest_and_no_minimum(text: str) -> None:
    found = collector.parse_metrics(json.dumps({"loss": text}), ["loss"], "JSON", [])
    assert collector.aggregate(found, ["loss"])["loss"] == {"min": "unavailable", "max": "unavailable", "latest": text}
    numbers = [Entry(T1, "loss", "2"), *found, Entry(T2, "loss", "0x1p-1"), Entry(T1, "loss", "1_0")]
    assert collector.aggregate(numbers, ["loss"])["loss"] == {"min": "0x1p-1", "max": "1_0", "latest": "0x1p-1"}


def test_early_stopping_reads_json_as_katib_does() -> None:
    stopper = EarlyStopper(StopRule("m", 5.0, "less", 1), True, [], "JSON")
    assert not stopper.update('{"m": " 6 "}')
    for line in ("", '{"m": "1e400"}', '{"x": 1e999}'):
        with pytest.raises(UnreadableMetrics):
            stopper.update(line)


@pytest.mark.parametrize(
    ("value", "nanoseconds"),
    [(0, 0), (1.5, 5), (1.1234567, 1234567), (1.25, 25), ("2026-01-01T00:00:00.5Z", 500_000_000)],
)
def test_json_times_that_are_numbers_are_misread_as_katib_misreads_them(value: object, nanoseconds: int) -> None:
    (entry,) = collector.parse_line(json.dumps({"timestamp": value, "a": "1"}), ["a"], "JSON", [])
    found = collector.parse_go_time(entry.time)
    assert found is not None
    assert found[1] == nanoseconds


def test_times_that_nobody_can_read_are_none() -> None:
    (entry,) = collector.parse_line('{"timestamp": 1700000000000, "a": "1"}', ["a"], "JSON", [])
    assert entry == Entry(collector.NO_TIME, "a", "1")


def test_filters_may_have_groups_that_take_no_part() -> None:
    expression = r"(?:(m)|lr)=([\d.]+)"
    assert texts("lr=0.1 m=0.5", "m", filters=(expression,)) == ["0.5"]
    assert not EarlyStopper(StopRule("m", 0.1, "less", 1), True, [expression], "TEXT").update("lr=0.1 m=0.5")


def test_without_the_objective_there_is_nothing() -> None:
    found = collector.parse_metrics("train_loss=1\n", ["val_loss", "train_loss"], "TEXT", [KATIB_FILTER])
    assert found == [Entry(collector.NO_TIME, "val_loss", collector.UNAVAILABLE)]
    metric = collector.aggregate(found, ["val_loss"])["val_loss"]
    assert metric == {"min": "unavailable", "max": "unavailable", "latest": "unavailable"}


def test_strategies_take_min_max_and_the_latest_by_time() -> None:
    entries = [Entry(T2, "a", "3"), Entry(T1, "a", "1"), Entry(T1, "a", "2"), Entry(T2, "a", "0.5"), Entry(T1, "b", "")]
    metrics = collector.aggregate(entries, ["a", "b"])
    assert metrics["a"] == {"min": "0.5", "max": "3", "latest": "0.5"}
    assert collector.apply_strategy(metrics["a"], "max") == "3"
    # A value that is no number is the latest, and never the smallest or largest.
    assert metrics["b"] == {"min": "unavailable", "max": "unavailable", "latest": ""}
    assert collector.apply_strategy(metrics["b"], "min") == ""


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=20))
def test_our_own_lines_come_back_exactly_in_both_dialects(values: list[float]) -> None:
    from datetime import UTC, datetime, timedelta

    begun = datetime(2026, 1, 1, tzinfo=UTC)
    lines = [
        metric_lines.MetricLine(begun + timedelta(seconds=index), 1, index, {"val_loss": value})
        for index, value in enumerate(values)
    ]
    text = "\n".join(map(metric_lines.format_line, lines)) + "\n"
    rows = "\n".join(map(metric_lines.to_json, lines)) + "\n"
    found = collector.parse_metrics(text, ["val_loss"], "TEXT", [KATIB_FILTER])
    assert [float(entry.value) for entry in collector.parse_metrics(rows, ["val_loss"], "JSON", [])] == values
    values = [float(f"{value:.6g}") for value in values]  # on stdout
    assert [float(entry.value) for entry in found] == values
    metric = collector.aggregate(found, ["val_loss"])["val_loss"]
    assert (float(metric["min"]), float(metric["max"]), float(metric["latest"])) == (
        min(values),
        max(values),
        values[-1],
    )


def test_medianstop_is_a_mean_of_means() -> None:
    histories = [[1.0, 2.0, 3.0, 100.0], [2.0, 4.0], [6.0]]
    rule = collector.medianstop_rule(histories, "val_f1", True, min_trials=3, start_step=3)
    assert rule == StopRule("val_f1", (2.0 + 3.0 + 6.0) / 3, "less", 3)
    assert collector.medianstop_rule(histories, "val_f1", True, min_trials=4, start_step=3) is None
    assert collector.medianstop_rule([*histories, []], "val_loss", False, 3, 1) == StopRule(
        "val_loss", 3.0, "greater", 1
    )


def stops_at(rule: StopRule, maximize: bool, values: list[float]) -> int | None:
    stopper = EarlyStopper(rule, maximize, [KATIB_FILTER], "TEXT")
    return next((index for index, value in enumerate(values, 1) if stopper.update(f"epoch={index} m={value!r}")), None)


def test_a_trial_is_stopped_by_its_best_so_far_from_the_start_step_on() -> None:
    rule = StopRule("m", 5.0, "less", 3)
    assert stops_at(rule, True, [1, 2, 3, 9]) == 3
    assert stops_at(rule, True, [6, 1, 1, 1]) is None  # its best is good enough
    assert stops_at(rule, True, [1, 2]) is None
    assert stops_at(StopRule("m", 5.0, "greater", 1), False, [4, 9, 9]) is None
    assert stops_at(StopRule("m", 5.0, "greater", 1), False, [6]) == 1


def test_a_value_that_is_no_number_ends_the_collector_of_a_trial_with_a_rule() -> None:
    stopper = EarlyStopper(StopRule("m", 5.0, "less", 3), True, [KATIB_FILTER], "TEXT")
    assert not stopper.update("other=nan")
    with pytest.raises(UnreadableMetrics):
        stopper.update("m=1 other=nan")
    with pytest.raises(UnreadableMetrics):
        EarlyStopper(StopRule("m", 5.0, "less", 3), True, [], "JSON").update('{"m": "nothing"}')


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-05", 1e-5), (".5", 0.5), ("5.", 5.0), ("+3", 3.0), ("1e-400", 0.0), ("1_000", 1000.0), ("1_0.5", 10.5)),
        *(("Inf", math.inf), ("+infinity", math.inf), ("-INF", -math.inf), ("0x1p-2", 0.25), ("0x_1p3", 8.0)),
        *(
            (text, None)
            for text in ("", "0x", "0x10", "--inf", "+-nan", "+nan", "1e400", "-1e400", "infinit", "0x1p9999")
        ),
        *(
            (text, None)
            for text in (".", "1e", "+", "٣", " 1", "1 ", "1__0", "_1", "1_", "1_.5", "1,5", "1e5_", "0_x1p1")
        ),
    ],
)
def test_numbers_are_those_of_go(text: str, value: float | None) -> None:
    assert collector.parse_go_float(text) == value


@given(st.floats() | st.text(st.sampled_from("0123456789.eEpPxX_+-infatyINFATY "), max_size=12))
def test_every_text_is_a_number_or_none(value: float | str) -> None:
    number = collector.parse_go_float(str(value))
    if isinstance(value, float):
        assert number == value or (number is not None and math.isnan(number) and math.isnan(value))
    else:
        assert number is None or isinstance(number, float)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_without_an_exponent(value: float) -> None:
    text = collector.format_go_float(value)
    assert float(text) == value
    assert "e" not in text
    assert not text.endswith(".0")


LOG = "/var/log/katib/metrics.log"


@pytest.mark.parametrize(
    ("words", "kind", "stops", "expected"),
    [
        (
            ["python", "a.py", "x y"],
            "StdOut",
            False,
            ["sh", "-c", f"python a.py x y 1>{LOG} 2>&1 && echo completed > /var/log/katib/$$$$.pid"],
        ),
        (
            ["bash", "-c", "python a.py"],
            "File",
            False,
            ["bash", "-c", "python a.py && echo completed > /var/log/katib/$$$$.pid"],
        ),
        (
            ["/bin/sh", "-c", "a"],
            "File",
            False,
            ["sh", "-c", "/bin/sh -c a && echo completed > /var/log/katib/$$$$.pid"],
        ),
        (["python", "a.py"], "Push", False, ["python", "a.py"]),
        (
            ["sh", "-c", "a"],
            "StdOut",
            True,
            [
                "sh",
                "-c",
                f"a 1>{LOG} 2>&1 || if test -f /var/log/katib/$$$$.pid && "
                "[ $(head -n 1 /var/log/katib/$$.pid) = early-stopped ]; then echo Training Container was Early Stopped; "
                "else echo Training Container was Failed; exit 1; fi && echo completed > /var/log/katib/$$$$.pid",
            ],
        ),
    ],
)
def test_commands_are_wrapped_as_the_pod_webhook_does(
    words: list[str], kind: str, stops: bool, expected: list[str]
) -> None:
    assert shell_command.wrap(words, kind, LOG, stops) == expected


def test_kubernetes_expands_what_it_knows() -> None:
    text = "a $(HOME) $(NO) $$(HOME) $$$$.pid $(head -n 1 /x/$$.pid)"
    assert shell_command.expand(text, {"HOME": "/h"}) == "a /h $(NO) $(HOME) $$.pid $(head -n 1 /x/$$.pid)"
