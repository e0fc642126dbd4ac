"""The floor of a run: the result that a model must reach before it becomes champion without being compared with one.

It is the value that a person sets, else that of conf/known_results.yaml for the model and data, else the result of
model=majority on the same validation examples, which the run must exceed significantly.
"""

import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from config import files, tasks
from config.child_process import command_line, environment, last_message
from config.errors import ExecutionError, InputError
from config.known_results import KNOWN_RESULTS, find_known_result
from config.numbers import format_number
from runs import folder as folders
from runs import model_card
from runs.compare import compare_runs
from runs.digests import file_digest
from runs.fields import as_mapping, is_number

FILE = "floor.json"  # in the run folder: the verdict, and the digest of the predictions that it is about
BASELINE = "model=majority"
_DIGEST = "predictions_sha256"


@dataclass(frozen=True)
class FloorVerdict:
    """Outcome of comparing a run with its floor.

    Attributes:
        status: passed, failed, or unevaluated if there is no floor.
        reason: The numbers, or why there is no floor.
        metric: The metric, as in run.json.
        value: The run's value.
        floor: The floor, or the baseline's value; None if there is none.
        source: --floor, the table of known results, or the baseline.
    """

    status: str
    reason: str
    metric: str
    value: float
    floor: float | None
    source: str

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


def judge_floor(folder: Path, floor: float | None = None) -> FloorVerdict:
    """Compare a run with its floor, and write the verdict into its folder; an earlier verdict on it is taken from there.

    Args:
        folder: Folder of a finished run.
        floor: Value that the run's monitor must reach, in the unit of the metric; replaces an earlier one.

    Raises:
        InputError: The folder is no run, or has no value of its monitor.
        ExecutionError: The baseline failed for another reason than refused input.
    """
    record = folders.read_record(folder)
    if floor is None and (recorded := read_floor(folder)) is not None:
        return recorded
    verdict = _judge(folder, record, floor)
    files.write_json(folder / FILE, {**asdict(verdict), _DIGEST: _predictions_digest(folder)})
    return verdict


def read_floor(folder: Path) -> FloorVerdict | None:
    """Return the recorded verdict; None if there is none, or if it is about other predictions."""
    content = files.read_json(folder / FILE)
    if not content or content.pop(_DIGEST, None) != _predictions_digest(folder):
        return None
    try:
        verdict = FloorVerdict(**content)
    except TypeError:  # damaged, or of another version: judged again
        return None
    return None if verdict.status == "unevaluated" else verdict  # the reason may have gone


def promotion_obstacle(folder: Path, record: Mapping[str, Any], verdict: FloorVerdict) -> str:
    """Return why a run must not become champion, from the floor and the gates; "" if nothing is in the way."""
    if verdict.status != "passed":
        return f"the floor: {verdict}"
    verdicts = {title: model_card.gate_verdict(folder, record, gate) for gate, title in model_card.GATES}
    return "; ".join(f"{title}: {status}" for title, status in verdicts.items() if status in model_card.FAILED)


def format_floor(folder: Path, record: Mapping[str, Any], verdict: FloorVerdict, width: int) -> str:
    """Return the floor, the gates and the conclusion as lines of text of at most `width` characters."""
    obstacle = promotion_obstacle(folder, record, verdict)
    rows = [("floor", str(verdict)), ("source", verdict.source)]
    rows += [(title.lower(), model_card.gate_verdict(folder, record, gate)) for gate, title in model_card.GATES]
    rows.append(
        ("champion", "no, it stays a candidate; --justification promotes it nevertheless" if obstacle else "yes")
    )
    indent = " " * 15
    return "\n".join(
        textwrap.fill(text, width, initial_indent=f"{name:<15}", subsequent_indent=indent, break_on_hyphens=False)
        for name, text in rows
    )


def _judge(folder: Path, record: Mapping[str, Any], floor: float | None) -> FloorVerdict:
    config = as_mapping(record.get("config"))
    monitor = str(config.get("monitor"))
    row, _ = find_known_result(record) if floor is None else (None, "")
    metric = str(row["metric"]) if row else monitor
    value = as_mapping(record.get("metrics")).get(metric)
    if value is None or not is_number(value):
        raise InputError(
            f"{folder} has no value of {metric} in {folders.RECORD}: there is nothing to compare with a floor"
        )
    if row is not None:
        return _compare_value(record, metric, value, float(row["floor"]), f"{KNOWN_RESULTS.name}: {row['source']}")
    if floor is not None:
        return _compare_value(record, metric, value, floor, "--floor")
    return _compare_with_baseline(folder, metric, value)


def _compare_value(record: Mapping[str, Any], metric: str, value: float, floor: float, source: str) -> FloorVerdict:
    declared = as_mapping(tasks.load_settings(tasks.task_from_record(record)).get("metrics"))
    lower_is_better = as_mapping(declared.get(metric)).get("mode") == "min"
    reached = value <= floor if lower_is_better else value >= floor
    reason = f"{metric} {format_number(value)}, {'at most' if lower_is_better else 'at least'} {floor:g}"
    return FloorVerdict("passed" if reached else "failed", reason, metric, value, floor, source)


def _compare_with_baseline(folder: Path, metric: str, value: float) -> FloorVerdict:
    with tempfile.TemporaryDirectory() as temporary:
        baseline = str(Path(temporary) / "baseline")
        problem = _run_baseline(folder, baseline)
        if not problem:
            try:
                (result,) = compare_runs([baseline, str(folder)], [metric]).results
            except InputError as error:
                problem = str(error).replace(baseline, BASELINE)
    if problem:
        text = f"there is none, as {BASELINE} cannot be compared: {problem}; --floor VALUE sets one"
        return FloorVerdict("unevaluated", text, metric, value, None, BASELINE)
    difference = result.difference
    reason = (
        f"{metric} {difference.b:.2f} against {difference.a:.2f} of {BASELINE}: {difference.value:+.2f} (95 % confidence "
        f"interval {difference.low:+.2f} to {difference.high:+.2f}), {result.verdict}"
    )
    status = "passed" if result.verdict == "better" else "failed"
    return FloorVerdict(status, reason, metric, value, difference.a, f"{BASELINE} on the same examples")


def _run_baseline(folder: Path, output: str) -> str:
    """Evaluate the baseline on the data of a run, as a command; returns its message if it refuses the input, else ""."""
    print(f"isotrain: evaluating {BASELINE} on the data of {folder}", file=sys.stderr, flush=True)
    done = subprocess.run(
        command_line("-m", "trainers", "baseline", f"run={folder}", "--output", output),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, env=environment(),
    )  # fmt: skip
    if done.returncode == 0:
        return ""
    message = last_message(done.stderr) or f"{BASELINE} ended with exit code {done.returncode}"
    if done.returncode != InputError.exit_code:
        code = done.returncode if done.returncode > 0 else 128 - done.returncode
        raise ExecutionError(f"the baseline of {folder}: {message}", code)
    return " ".join(message.split())


def _predictions_digest(folder: Path) -> str:
    path = folder / folders.PREDICTIONS
    return file_digest(path) if path.is_file() else ""
