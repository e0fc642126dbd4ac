"""A run's report: one page that needs nothing else."""

import base64
import io
import json
import shlex
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from config.errors import Refused
from runs import calibration, charts, metric_lines, page, questions, rows
from runs import folder as folders
from runs.command import again
from runs.fields import is_number, mapping
from runs.lineage import lineage
from runs.listing import choice, status
from runs.page import badge, escaped, number
from runs.rows import Columns
from runs.statistics import Mean
from runs.terminal import duration, when

FILE = "report.html"
MISTAKES = 200  # shown
PAIRS = 12
_RAW = ("train_examples_per_second",)


def write(folder: Path, against: Path | None = None) -> Path:
    """Writes a run's report into its folder.

    Args:
        folder: the run's.
        against: another run; the page says what their configurations differ by.

    Raises:
        Refused: there is no run, or its record cannot be read.
    """
    record = folders.read_record(folder)
    columns, trouble = _columns(folder)
    found = rows.known(columns) if columns is not None else {}
    name = f"{choice(record, 'model') or 'a model'} on {choice(record, 'data') or 'its data'}"
    parts = [
        f"<h1>{escaped(name)} {badge(status(folder, record))}</h1>",
        *_summary(folder, record, found, trouble),
        *_metrics(record, columns, found),
        *_curves(folder),
        *_confusion(record),
        *_mistakes(folder, columns),
        *_calibration(columns),
        *_work(record),
        *_gates(folder, record),
        *_configuration(record, against),
        *_lineage(folder, record),
    ]
    page.write(folder / FILE, name, parts, page.SCRIPT)
    return folder / FILE


def _columns(folder: Path) -> tuple[Columns | None, str]:
    """The predictions, or why there are none."""
    if not (folder / folders.PREDICTIONS).exists():
        return None, ""
    try:
        return rows.read(folder), ""
    except Refused as error:
        return None, str(error)


def _summary(folder: Path, record: Mapping[str, Any], found: Mapping[str, Mean], trouble: str) -> list[str]:
    config = mapping(record.get("config"))
    task = mapping(config.get("task"))
    monitor = config.get("monitor") or task.get("monitor") or ""
    metrics = mapping(record.get("metrics"))
    said = []
    if isinstance(monitor, str) and is_number(metrics.get(monitor)):
        interval = ""
        if monitor in found:
            one = found[monitor]
            interval = f" (95 % interval {one.low:.2f} to {one.high:.2f}, over {one.examples:,} examples)"
        best = mapping(record.get("best"))
        at = f" after epoch {best.get('epoch')} and {best['step']:,} steps" if isinstance(best.get("step"), int) else ""
        said.append(f"it reached {monitor} {page.exact(metrics[monitor])}{interval}{at}")
    hardware = mapping(record.get("hardware"))
    gpus = hardware.get("gpus") if isinstance(hardware.get("gpus"), list) else []
    what, of = ("GPU", len(gpus)) if gpus else ("core", hardware.get("cores"))
    on = f"{of or '?'} {what}{'s' if of != 1 else ''}"
    said.append(f"it took {duration(record.get('duration_seconds'))} on {on}")
    if record.get("restarts"):
        said.append(f"it was restarted {record['restarts']} times")
    for gate in ("quality", "explain"):
        verdict = mapping(record.get(gate)).get("status")
        if isinstance(verdict, str):
            said.append(f"{'its data' if gate == 'quality' else 'its explanations'}: {verdict}")
    text = "; ".join(said)
    lines = [f"<p>{escaped(text[:1].upper() + text[1:])}.</p>"]
    if record.get("reason"):
        lines.append(f"<p><b>{escaped(record['reason'])}</b></p>")
    if trouble:
        lines.append(f"<p><b>Its predictions cannot be read: {escaped(trouble)}.</b></p>")
    stamps = f"{when(record.get('started'))} · {'/'.join(folder.resolve().parts[-2:])}"
    return [*lines, f"<p class='small'>{escaped(stamps)}</p>"]


def _metrics(record: Mapping[str, Any], columns: Columns | None, found: Mapping[str, Mean]) -> list[str]:
    metrics = {name: value for name, value in mapping(record.get("metrics")).items() if is_number(value)}
    if not metrics:
        return []
    cells = []
    for name, value in metrics.items():
        one = found.get(name)
        plot = interval = ""
        if one is not None and np.isfinite(one.low):
            interval = f"{one.low:.2f} to {one.high:.2f}"
            if name not in rows.LOWER_IS_BETTER:
                plot = charts.interval(one.value, one.low, one.high, (0.0, 100.0))
        cells.append([f"<b>{escaped(name)}</b>", page.exact(value), interval, plot])
    by = "" if columns is None else rows.clustered(columns.clusters)
    drawn = f", whole {columns.by}{'es' if columns.by == 'class' else 's'} drawn" if columns is not None and by else ""
    note = f"<p class='small'>Intervals are for other examples of the same kind (bootstrap{drawn}), not for other seeds.</p>"
    return [
        "<h2>Metrics</h2>",
        page.table(["metric", "value", "95 % interval", "of 0 to 100"], cells, ["", "n", "w", ""]),
        note,
    ]


def _curves(folder: Path) -> list[str]:
    try:
        lines = metric_lines.read(folder / folders.METRICS)
    except (Refused, OSError, ValueError):
        return []
    series: dict[str, list[tuple[float, float]]] = {}
    for line in later(lines):
        for name, value in line.values.items():
            series.setdefault(name, []).append((float(line.step), float(value)))
    if not any(len(points) > 1 for points in series.values()):
        return []
    losses = {name: points for name, points in series.items() if name.endswith("loss")}
    others = {name: points for name, points in series.items() if name not in losses and name.startswith("val_")}
    shown = [("Losses", losses), ("Metrics", others)]
    for name in _RAW:
        if len(series.get(name, ())) > 1:
            shown.append((name.replace("_", " "), {name: series[name]}))
    cards = "".join(
        f"<div class='card'><h3>{escaped(title)}</h3>{charts.curves(each, 'step')}</div>"
        for title, each in shown
        if each
    )
    return ["<h2>Learning curves</h2>", f"<div class='grid'>{cards}</div>"]


def later(lines: Sequence[metric_lines.Line]) -> list[metric_lines.Line]:
    """Lines of a curve: the last one, which says the best once more, is of a step that was before."""
    found: list[metric_lines.Line] = []
    for line in lines:
        if not found or line.step > found[-1].step:
            found.append(line)
    return found


def _confusion(record: Mapping[str, Any]) -> list[str]:
    details = mapping(record.get("details"))
    counts = {
        str(true): {str(other): count for other, count in row.items() if isinstance(count, int)}
        for true, row in mapping(details.get("confusion")).items()
        if isinstance(row, dict)
    }
    if not counts:
        return []
    pairs = sorted(
        ((count, true, other) for true, row in counts.items() for other, count in row.items() if true != other),
        reverse=True,
    )[:PAIRS]
    cells = [
        [escaped(true), escaped(other), number(count), f"{count / max(1, sum(counts[true].values())):.0%}"]
        for count, true, other in pairs
    ]
    table = page.table(["true", "taken for", "times", "of its examples"], cells, ["i", "i", "n", "n"])
    note = "<p class='small'>Rows are true classes, columns predicted ones; point at a cell to read it.</p>"
    picture = f"<div class='scroll'>{charts.confusion(counts)}</div>{note}"
    body = f"<div class='two'><div>{picture}</div><div><h3>Most confused</h3>{table}</div></div>"
    return ["<h2>Confusions</h2>", body]


def _mistakes(folder: Path, columns: Columns | None) -> list[str]:
    if columns is None:
        return []
    wrong = [number_ for number_ in range(len(columns.ids)) if not columns.right[number_]]
    if not wrong:
        return ["<h2>Mistakes</h2>", f"<p>None in {len(columns.ids):,} examples.</p>"]
    if columns.by == "document":
        wrong.sort(key=lambda at: (columns.rows[at]["f1"], -float(columns.rows[at].get("probability") or 0)))
        cells, slices = _questions(columns, wrong[:MISTAKES])
        header, kinds = ["F1", "sure", "question", "answer", "it says", "document"], ["n", "n", "t", "i", "i", "i"]
        order = "the furthest off, and of those the surest, first"
    else:
        wrong.sort(key=lambda at: -float(columns.rows[at].get("loss", columns.rows[at].get("probability", 0.0))))
        cells, slices = _images(folder, columns, wrong[:MISTAKES])
        header, kinds = ["loss", "sure", "", "true", "it says", "image"], ["n", "n", "", "i", "i", "i"]
        order = "the highest loss first"
    more = f"; {MISTAKES} of them are here" if len(wrong) > MISTAKES else ""
    return [
        "<h2>Mistakes</h2>",
        f"<p>{len(wrong):,} of {len(columns.ids):,} examples are not right{more}, {order}. A click on a column sorts by it.</p>",
        page.table(header, cells, kinds, slices=slices),
    ]


def _questions(columns: Columns, chosen: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    cells, slices = [], []
    for at in chosen:
        row = columns.rows[at]
        answers = row.get("answers") or ["no answer"]
        cells.append([
            f"{100 * row['f1']:.0f}", _share(row.get("probability")), escaped(row.get("question") or row["id"]),
            escaped(answers[0]), escaped(row.get("prediction") or "no answer"), escaped(row.get("document", "")),
        ])  # fmt: skip
        slices.append(questions.asked(str(row.get("question", ""))))
    return cells, slices


def _images(folder: Path, columns: Columns, chosen: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    pictures, cells, slices = _pictures(folder), [], []
    for at in chosen:
        row = columns.rows[at]
        picture = pictures.get(row["id"], "")
        shown = f"<img alt='' loading='lazy' width='64' src='{picture}'>" if picture else ""
        loss = f"{row['loss']:.2f}" if "loss" in row else ""
        cells.append([
            loss, _share(row.get("probability")), shown, escaped(row["label"]), escaped(row["prediction"]), escaped(row["id"])
        ])  # fmt: skip
        slices.append(str(row["label"]))
    return cells, slices


def _share(value: Any) -> str:
    return f"{value:.0%}" if is_number(value) else ""


def _pictures(folder: Path) -> dict[str, str]:
    """The images that training left for this page, as data addresses."""
    path = folder / folders.PICTURES
    if not path.exists():
        return {}
    from PIL import Image

    found = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for name, pixels in zip(file["ids"].tolist(), file["pixels"], strict=True):
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "PNG")
                found[name] = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ):  # a torn file takes the pictures away, not the report
        return {}
    return found


def _calibration(columns: Columns | None) -> list[str]:
    if columns is None or columns.confidence is None:
        return []
    found = calibration.bins(columns.confidence, columns.right)
    off = calibration.error(found)
    return [
        "<h2>Confidence</h2>",
        f"<p>The model's confidence is off by {off:.3f} on average (expected calibration error; 0 is best).</p>",
        charts.reliability(found),
    ]


def _work(record: Mapping[str, Any]) -> list[str]:
    timings = {name: each for name, each in mapping(record.get("timings")).items() if is_number(each)}
    if not timings:
        return []
    total = sum(timings.values()) or 1.0
    cells = [
        [escaped(name), duration(each), f"{each / total:.0%}", page.bar(each / total)] for name, each in timings.items()
    ]
    use, peak = mapping(record.get("utilisation")), mapping(record.get("peak_memory"))
    facts = {
        "cores in use": f"{use['cpu_percent']} %" if is_number(use.get("cpu_percent")) else None,
        "GPU in use": f"{use['gpu_percent']} %" if is_number(use.get("gpu_percent")) else None,
        "peak memory": f"{peak['process_mib']:,.0f} MiB" if is_number(peak.get("process_mib")) else None,
        "peak GPU memory": f"{peak['gpu_mib']:,.0f} MiB" if is_number(peak.get("gpu_mib")) else None,
    }
    said = "; ".join(f"{name} {value}" for name, value in facts.items() if value)
    return [
        "<h2>Time and machine</h2>",
        page.table(["phase", "time", "", ""], cells, ["", "n", "n", ""]),
        f"<p class='small'>{escaped(said)}</p>",
    ]


def _gates(folder: Path, record: Mapping[str, Any]) -> list[str]:
    cells = []
    for name, what in (("quality", "data contract"), ("explain", "explanations")):
        found = mapping(record.get(name))
        verdict = _json(folder / name / "verdict.json")
        said = verdict.get("status") or found.get("status")
        if not isinstance(said, str):
            cells.append([what, escaped(found.get("action") or "not asked"), "", ""])
            continue
        why = verdict.get("why")
        text = "; ".join(map(str, why)) if isinstance(why, list) else str(why or "")
        link = f"<a href='{name}/report.html'>report</a>" if (folder / name / "report.html").exists() else ""
        cells.append([what, badge(said), escaped(text), link])
    return ["<h2>Gates</h2>", page.table(["", "verdict", "why", ""], cells, ["", "", "t", ""])]


def _configuration(record: Mapping[str, Any], against: Path | None) -> list[str]:
    config = mapping(record.get("config"))
    found = ["<h2>Configuration</h2>"]
    if against is not None:
        other = mapping(folders.read_record(against).get("config"))
        changed = folders.differences(other, config, {})
        cells = [[escaped(key), escaped(was), escaped(now)] for key, was, now in changed]
        found.append(f"<p>It differs from {escaped(against)} by {len(changed)} settings.</p>")
        if cells:
            found.append(page.table(["setting", "there", "here"], cells, ["w", "i", "i"]))
    text = json.dumps(config, indent=1, ensure_ascii=False)
    return [*found, f"<details><summary>all of it</summary><pre>{escaped(text)}</pre></details>"]


def _lineage(folder: Path, record: Mapping[str, Any]) -> list[str]:
    cells = [[what, escaped(name), f"<code>{escaped(mark)}</code>"] for what, name, mark in lineage(folder, record)]
    found = again(folder, record)
    notes = "".join(f"<p class='small'>{escaped(note)}</p>" for note in found.notes)
    return [
        "<h2>Where it comes from</h2>",
        page.table(["", "what", "SHA-256 or revision"], cells, ["", "i", "i"]),
        "<h3>To do it again</h3>",
        f"<pre>{escaped(shlex.join(found.command))}</pre>{notes}",
    ]


def _json(path: Path) -> dict[str, Any]:
    try:
        return mapping(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
