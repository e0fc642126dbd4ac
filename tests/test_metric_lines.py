"""Metric lines: exact both ways, and read by Katib's own regular expression."""

import contextlib
import io
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import parse_metric_line

from runs import metric_lines
from runs.metric_lines import MetricLine

names = st.text("abcXYZ019_-", min_size=1, max_size=12).filter(lambda name: name not in ("epoch", "step", "timestamp"))
numbers = st.floats(allow_nan=False, allow_infinity=False)
times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(lambda time: time.replace(tzinfo=UTC))
whole = st.integers(0, 10**9)
lines = st.builds(MetricLine, times, whole, whole, st.dictionaries(names, numbers, max_size=8))


def as_katib_reads(text: str, wanted: set[str]) -> dict[str, str]:
    """What the StdOut collector gets from a line (pkg/metricscollector/v1beta1/file-metricscollector)."""
    # Go's \w is ASCII.
    found = re.findall(metric_lines.KATIB_FILTER, text, re.ASCII)
    return {name: value for name, value, *_ in found if name in wanted}


def shown(line: MetricLine) -> MetricLine:
    """The line as it is printed."""
    return line._replace(values=metric_lines.round_metrics(line.values, metric_lines.LINE_DIGITS))


@given(lines)
def test_reading_gives_what_was_written(line: MetricLine) -> None:
    assert parse_metric_line(metric_lines.format_line(line)) == shown(line)
    assert metric_lines.from_json(metric_lines.to_json(line)) == line


@given(lines)
def test_katib_reads_every_name_and_value(line: MetricLine) -> None:
    text = metric_lines.format_line(line)
    found = as_katib_reads(text, set(line.values) | {"epoch", "step"})
    assert {name: float(value) for name, value in found.items()} == {
        **shown(line).values,
        "epoch": line.epoch,
        "step": line.step,
    }
    # The time is the first word, as Go's RFC3339Nano has it.
    first = text.split(" ")[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first)
    assert datetime.fromisoformat(first) == line.time


@given(lines)
def test_katib_reads_the_file_too(line: MetricLine) -> None:
    fields = json.loads(metric_lines.to_json(line))
    assert all(isinstance(value, str) for value in fields.values())
    assert {name: float(fields[name]) for name in line.values} == line.values


def test_a_line_has_six_digits_and_the_file_all(tmp_path: Path) -> None:
    stream, path = io.StringIO(), tmp_path / "metrics.jsonl"
    metric_lines.write({"a": 1 / 3, "b": 123456.789, "c": 2 / 3e9, "d": 83.1}, 1, 2, stream, path)
    assert stream.getvalue().endswith("epoch=1 step=2 a=0.333333 b=123457.0 c=6.66667e-10 d=83.1\n")
    assert metric_lines.read(path)[0].values["a"] == pytest.approx(1 / 3, abs=1e-15)


def test_a_line_is_folded_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    metric_lines.write({f"val_metric_{index}": 1.5 for index in range(8)}, 1, 2, stream)
    lines = stream.getvalue().splitlines()
    assert len(lines) > 2
    assert max(map(len, lines)) <= 60
    assert parse_metric_line(" ".join(line.strip() for line in lines)).values["val_metric_7"] == 1.5


def test_the_shape_of_a_line() -> None:
    line = MetricLine(
        datetime(2026, 1, 1, 0, 0, 0, 123456, UTC), 1, 120, {"val_loss": 1.2345, "val_f1": 83.1, "lr": 1e-5}
    )
    assert metric_lines.format_line(line) == (
        "2026-01-01T00:00:00.123456Z epoch=1 step=120 val_loss=1.2345 val_f1=83.1 lr=1e-05"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_never_written(value: float, tmp_path: Path) -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="val_loss"):
        metric_lines.write({"val_f1": 1.0, "val_loss": value}, 1, 2, stream, tmp_path / "metrics.jsonl")
    assert stream.getvalue() == ""
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    "name", ["val/loss", "val loss", "", "val.loss", "välue", "a=b", "a\n", "epoch", "step", "timestamp"]
)
def test_names_that_katib_cannot_match_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a valid metric name"):
        metric_lines.write({name: 1.0}, 1, 2, io.StringIO())


def test_scalars_of_torch_and_numpy_are_numbers(tmp_path: Path) -> None:
    import numpy as np
    import torch

    stream = io.StringIO()
    metric_lines.write({"a": torch.tensor(0.5), "b": np.float64(0.1), "c": np.float32(0.5), "d": 3}, 1, 2, stream)
    assert stream.getvalue().endswith("epoch=1 step=2 a=0.5 b=0.1 c=0.5 d=3.0\n")


def test_each_line_is_flushed_and_appended(tmp_path: Path) -> None:
    class Stream(io.StringIO):
        flushed = 0

        def flush(self) -> None:
            self.flushed = len(self.getvalue())

    stream, path = Stream(), tmp_path / "new" / "metrics.jsonl"
    for step in range(3):
        line = metric_lines.write({"val_loss": step / 3}, 1, step, stream, path)
        assert stream.flushed == len(stream.getvalue())
        assert metric_lines.read(path)[-1] == line
    assert len(metric_lines.read(path)) == 3
    assert [parse_metric_line(text) for text in stream.getvalue().splitlines()] == [
        *map(shown, metric_lines.read(path))
    ]


@given(st.integers(0, 5), st.integers(0, 7), st.booleans())
def test_cutting_back_keeps_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, had: int, keep: int, torn: bool
) -> None:
    path = tmp_path_factory.mktemp("cut") / "metrics.jsonl"
    for step in range(had):
        metric_lines.write({"val_loss": 0.5}, 1, step, io.StringIO(), path)
    if torn:
        with path.open("a") as file:
            file.write('{"timestamp": "2026-')
    number = path.stat().st_ino if path.exists() else None
    assert metric_lines.truncate_lines(path, keep) == min(had, keep)
    if number is not None:
        assert path.stat().st_ino == number
        assert [line.step for line in metric_lines.read(path)] == list(range(min(had, keep)))
        assert path.read_bytes() == b"" or path.read_bytes().endswith(b"\n")
        metric_lines.write({"val_loss": 0.5}, 1, 99, io.StringIO(), path)
        assert metric_lines.read(path)[-1].step == 99


@given(st.lists(lines, max_size=4), st.integers(0, 5), st.sampled_from([b"", b'{"timestamp": "20', b"other\n"]), lines)
def test_repeated_lines_complete_a_second_file(
    tmp_path_factory: pytest.TempPathFactory, history: list[MetricLine], had: int, end: bytes, foreign: MetricLine
) -> None:
    """Whatever of them it has: nothing in a new pod, the same, more, a torn line, those of another run."""
    path = tmp_path_factory.mktemp("copy") / "new" / "copy.jsonl"
    if had:
        path.parent.mkdir()
        path.write_text("".join(metric_lines.to_json(line) + "\n" for line in [*history, foreign][: had - 1]))
        path.write_bytes(path.read_bytes() + end)
    heard: list[MetricLine] = []
    metric_lines.listeners.append(heard.append)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            metric_lines.repeat(history, path)
    finally:
        metric_lines.listeners.remove(heard.append)
    assert metric_lines.read(path) == history == heard
    assert [parse_metric_line(text) for text in printed.getvalue().splitlines()] == [*map(shown, history)]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        metric_lines.repeat(history, path, show=False)
    assert (printed.getvalue(), metric_lines.read(path)) == ("", history)


def test_cutting_back_what_is_not_there(tmp_path: Path) -> None:
    assert metric_lines.truncate_lines(tmp_path / "metrics.jsonl", 3) == 0
    assert metric_lines.truncate_lines("/dev/null", 3) == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"timestamp": 1}', '{"timestamp":"x","epoch":"1","step":"2"}', "7"])
def test_other_json_is_no_metric_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(text + "\n")
    with pytest.raises(ValueError, match="line 1"):
        metric_lines.read(tmp_path / "metrics.jsonl")


decimals = st.builds(lambda digits, exponent: float(f"{digits}e{exponent}"), st.integers(-(10**15) + 1, 10**15 - 1), st.integers(-30, 30))  # fmt: skip


@given(decimals)
def test_a_decimal_of_15_digits_is_printed_as_it_is(value: float) -> None:
    assert metric_lines.round_metrics({"a": value}) == {"a": value}


@given(numbers)
def test_rounding_changes_the_16th_digit_at_most_and_once(value: float) -> None:
    rounded = metric_lines.round_metrics({"a": value})
    assert rounded["a"] == pytest.approx(value, rel=5.1e-15, abs=0) or abs(value) < 1e-300
    assert metric_lines.round_metrics(rounded) == rounded


@given(st.integers(1, 5000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_the_number_on_a_line_is_short(counts: tuple[int, int]) -> None:
    share = 100 * (counts[0] / counts[1])
    stream = io.StringIO()
    line = metric_lines.write({"val_accuracy": share}, 1, 2, stream)
    text = stream.getvalue().split("val_accuracy=")[1].strip()
    assert float(text) == shown(line).values["val_accuracy"]
    assert len(text.replace(".", "").replace("-", "").split("e")[0].lstrip("0")) <= 7  # 6 digits, and the 0 of "5.0"
    if counts[1] == 2000:  # every share has at most two decimals
        assert len(text.split(".")[1]) <= 2


def test_an_accuracy_has_the_digits_that_it_was_computed_with() -> None:
    stream = io.StringIO()
    metric_lines.write({"val_accuracy": 100 * 0.0585}, 1, 2, stream)
    assert 100 * 0.0585 != 5.85
    assert stream.getvalue().endswith(" val_accuracy=5.85\n")


def test_a_closed_stdout_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        for step in (1, 2):
            metric_lines.write({"val_loss": 0.5}, 1, step, stream, tmp_path / "metrics.jsonl")
    assert [line.step for line in metric_lines.read(tmp_path / "metrics.jsonl")] == [1, 2]
    assert caplog.text.count("stdout is closed") == 1
