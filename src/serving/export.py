"""Export of a saved model in another format, accepted only if its answers and explanations are those of the original."""

import copy
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from config import files, tasks
from config.check import check_config
from config.errors import EquivalenceError, InputError
from config.masking import mask_command
from config.numbers import replace_non_finite
from config.temporary_files import temporary_folder
from runs import compare, digests, lineage, metric_lines, predictions, provenance
from runs import folder as folders
from runs.fields import as_mapping
from runs.metric_lines import format_time
from serving import export_formats, export_report, export_speed
from serving.model import keyed_row
from trainers import evaluate, hardware, onnx_network, saved_model
from trainers.build import check_targets
from trainers.saved_model import SavedModel

logger = logging.getLogger(__name__)

FOLDER, VERDICT, CHANGED = "export", "verdict.json", "changed.jsonl"  # the report
INPUTS = 32  # validation examples of which speed is measured
VERSIONS = ("torch", "onnx", "onnxruntime", "onnxscript")


@dataclass(frozen=True)
class Bounds:
    """What an export must reach.

    Attributes:
        margin: by how much a metric may be worse, in its unit.
        metrics: names of the metrics that must be non-inferior; empty for those with the direction of the task's monitor.
        agreement: smallest mean rank correlation of explanations.
        latency: largest 95th percentile of a request's milliseconds; None for any.
        size: largest size of the model folder in MiB; None for any.
    """

    margin: float = 1.0
    metrics: tuple[str, ...] = ()
    agreement: float = 0.9
    latency: float | None = None
    size: float | None = None


def export(
    name: str, target: str, output: Path, overrides: list[str], bounds: Bounds, requests: int = 200, examples: int = 32
) -> dict[str, Any]:
    """Export a saved model into a run folder of its own, if it passes the gate.

    Args:
        name: a run folder or a model folder.
        target: one of `export_formats.FORMATS`.
        output: the new folder: new, empty, or with the report of an export that failed.
        overrides: Hydra overrides; `data=` for another data set than the run's.
        bounds: of the gate.
        requests: number of requests for the latency.
        examples: number of examples whose explanations are compared; 0 for none.

    Returns:
        The verdict, as in verdict.json.

    Raises:
        InputError: the model cannot be loaded, exported, or evaluated; `output` has something else.
        EquivalenceError: it did not pass; the folder has the report, and no model.
    """
    check_output(output)
    original = saved_model.open_model(name)
    tasks.load_member(original.task, "validation_inputs", "python -m serving export")
    if onnx_network.is_onnx(original.folder):
        raise InputError(f"run={name} is a model in ONNX already: export the model that it was exported from")
    explain = [] if any(word.startswith("explain=") for word in overrides) else ["explain=enforce"]
    config = evaluate.compose_saved(original, [*overrides, *explain])
    check_config(config)
    check_targets(config)
    hardware.configure_cpu(config.trainer.threads)
    with temporary_folder(output) as scratch:
        origin = {
            "format": target,
            "parent": str(Path(name).absolute()),
            "parent_sha256": lineage.folder_digest(original.folder),
            "versions": _versions(),
        }
        logger.info("evaluating %s", name)
        data, module, _ = evaluate.validate(original, config, scratch)
        _write_evaluation(scratch / "original", name, config, data, module)
        inputs = _inputs(original, data)
        logger.info("exporting to %s", target)
        model_folder = scratch / "exported" / folders.MODEL
        model_folder.parent.mkdir()
        method = _write_model(original, target, model_folder, module, data, inputs)
        origin |= {"method": method}
        precision = export_formats.FORMATS[target]
        export_formats.write_settings(original, model_folder, precision, origin)
        exported = saved_model.open_model(str(model_folder))
        exported_config = copy.deepcopy(config)
        evaluate.apply_saved_model(exported, exported_config)
        exported_config.trainer.precision = "32-true"  # that of the network is its own
        logger.info("evaluating the export")
        new_data, new_module, _ = evaluate.validate(exported, exported_config, scratch)
        record = _write_evaluation(scratch / "exported", name, config, new_data, new_module)
        changed = _changed_answers(original.task, scratch / "original", scratch / "exported")
        logger.info("measuring %d requests of each", requests)
        speed = export_speed.measure([original, exported], inputs, requests)
        comparison = compare.compare_runs(
            [str(scratch / "original"), str(scratch / "exported")], bounds.metrics, margin=bounds.margin
        )
        explanations = _compare_explanations(original, config, exported, exported_config, examples)
        verdict: dict[str, Any] = {
            **origin,
            "task": original.task,
            "model_sha256": lineage.folder_digest(model_folder),
            "original_precision": original.precision,
            "bounds": vars(bounds),
            "speed": {"original": speed[0], "exported": speed[1]},
            "metrics": [replace_non_finite(_metric(result)) for result in comparison.results],
            "examples": comparison.examples,
            "data": comparison.fingerprint,
            "notes": [note for note in comparison.notes if str(scratch) not in note],
            "changed": len(changed),
            "explanations": explanations,
            "hardware": provenance.hardware_info() | {"threads": _threads()},
            "when": format_time(datetime.now(UTC)),
        }
        verdict |= {"reasons": reasons(verdict, bounds)}
        verdict |= {"status": "failed" if verdict["reasons"] else "passed"}
        _write_report(scratch / "exported" / FOLDER, verdict, changed)
        if verdict["reasons"]:
            _write_report(output / FOLDER, verdict, changed)
            raise EquivalenceError(
                f"the export of {name} to {target} was refused: {'; '.join(verdict['reasons'])}; see "
                f"{output / FOLDER / export_report.FILE}"
            )
        _finish_record(scratch / "exported", original, record, verdict, bool(overrides))
        with files.atomic_folder(output, removable=[f"{FOLDER}/{CHANGED}"]) as new:
            for path in sorted((scratch / "exported").iterdir()):
                path.rename(new / path.name)
    return verdict


def check_output(output: Path) -> None:
    """Check that an export may be written to a folder.

    Raises:
        InputError: it has something else than the report of an export that failed.
    """
    files.check_writable(output, "an export")
    if not output.exists():
        return
    names = sorted(path.name for path in output.iterdir()) if output.is_dir() else [output.name]
    verdict = files.read_json(output / FOLDER / VERDICT)
    if names and (names != [FOLDER] or verdict.get("status") != "failed"):
        raise InputError(f"--output {output} exists: name a new folder, or remove it")


def reasons(verdict: Mapping[str, Any], bounds: Bounds) -> list[str]:
    """Return why an export is refused; none if it passed.

    Args:
        verdict: speed, metrics, explanations.
        bounds: what it must reach.
    """
    result = []
    with_margin = [metric for metric in verdict["metrics"] if metric["non_inferior"] is not None]
    if not with_margin:
        result.append("no metric has a direction, so that none could be tested")
    for metric in with_margin:
        if not metric["non_inferior"]:
            hint = "" if metric["difference"] else f": {verdict['examples']} examples are too few for this margin"
            worst = "" if metric["worst"] is None else f", worst case {metric['worst']:+.3g}"
            result.append(
                f"{metric['metric']} is not shown to be non-inferior (margin {bounds.margin:g}; difference "
                f"{metric['difference']:+.3g}{worst}){hint}"
            )
    explanations = verdict["explanations"]
    if explanations.get("mean") is not None and explanations["mean"] < bounds.agreement:
        result.append(
            f"explanations have a mean rank correlation of {explanations['mean']:.3f}, less than {bounds.agreement:g}"
        )
    elif "skipped" not in explanations and explanations["mean"] is None:
        result.append("no explanation could be compared, because all answers of the sample differ")
    speed = verdict["speed"]["exported"]
    if bounds.latency is not None and speed["p95_ms"] > bounds.latency:
        result.append(f"the 95th percentile of the latency is {speed['p95_ms']:.1f} ms, more than {bounds.latency:g}")
    if bounds.size is not None and speed["size_mib"] > bounds.size:
        result.append(f"the model has {speed['size_mib']:.1f} MiB, more than {bounds.size:g}")
    return result


def _write_model(
    original: SavedModel, target: str, folder: Path, module: Any, data: Any, inputs: Sequence[Mapping[str, Any]]
) -> str:
    """Write the files of the exported model but isotrain.json; returns what was done."""
    export_formats.copy_settings(original, folder)
    if target == "bf16":
        export_formats.write_bfloat16(original, folder)
        return "weights and arithmetic in bfloat16"
    make_predictor = tasks.load_member(original.task, "predictor", "python -m serving export")
    predictor = make_predictor(replace(original, precision="32-true"))
    if not hasattr(predictor, "network"):
        raise InputError(f"the predictor of {original.task} has no network, which ONNX needs; use --to bf16")
    rows = [keyed_row(predictor, row) for row in inputs[:2]]
    if len(rows) < 2:
        raise InputError("the validation split has fewer than two examples, which an export to ONNX needs")
    network = predictor.network.cpu().float()
    captured = export_formats.capture_inputs(predictor.network, lambda: predictor.predict(rows, len(rows)))
    export_formats.write_onnx(network, captured, folder)
    if target == "onnx":
        return "float32"

    def calibration() -> Iterator[Mapping[str, Any]]:
        module.cpu()
        return export_formats.calibration_inputs(module, data)

    return export_formats.quantize(folder, calibration)


def _inputs(model: SavedModel, data: Any) -> list[Mapping[str, Any]]:
    """Return validation examples, evenly spread, as the predictor's inputs."""
    examples = tasks.load_member(model.task, "validation_inputs", "python -m serving export")
    count = sum(1 for _ in examples(data, model.settings))
    return list(islice(examples(data, model.settings), 0, None, max(1, count // INPUTS)))[:INPUTS]


def _write_evaluation(folder: Path, name: str, config: DictConfig, data: Any, module: Any) -> dict[str, Any]:
    """Write predictions and record of an evaluation, as `runs compare` reads them; returns the record."""
    folder.mkdir(exist_ok=True)
    metrics = metric_lines.round_metrics(module.metrics)
    record = evaluate.make_record(name, config, data, metrics, module.details, None)
    predictions.write(folder / folders.PREDICTIONS, module.rows)
    files.write_json(folder / folders.RECORD, record)
    return record


def _changed_answers(task: str, original: Path, exported: Path) -> list[dict[str, Any]]:
    """Return id, original and exported answer and whether each is correct, of the examples whose answers differ.

    Args:
        task: name of the task.
        original: folder with the predictions of the original.
        exported: folder with those of the export.
    """
    is_correct = tasks.load_member(task, "is_correct", "python -m serving export")
    new = {row["id"]: row for row in predictions.read(exported / folders.PREDICTIONS)}
    return [
        {
            "id": row["id"],
            "original": row["prediction"],
            "exported": new[row["id"]]["prediction"],
            "original_correct": bool(is_correct(row)),
            "exported_correct": bool(is_correct(new[row["id"]])),
        }
        for row in predictions.read(original / folders.PREDICTIONS)
        if row["prediction"] != new[row["id"]]["prediction"]
    ]


def _compare_explanations(
    original: SavedModel, config: DictConfig, exported: SavedModel, exported_config: DictConfig, examples: int
) -> dict[str, Any]:
    if not examples:
        return {"skipped": "by --explanations 0"}
    if not hasattr(original.module, "explainer"):
        return {"skipped": f"the task {original.task} has no explainer"}
    from explain import agreement
    from explain.model import open_subject

    logger.info("comparing the explanations of %d examples", examples)
    evaluate.apply_saved_model(original, config)
    first, options = open_subject(original, config)
    second, _ = open_subject(exported, exported_config)
    return agreement.compare(first, second, options, examples)


def _metric(result: compare.MetricComparison) -> dict[str, Any]:
    difference = result.difference
    return {
        "metric": result.metric,
        "original": difference.a,
        "exported": difference.b,
        "difference": difference.value,
        "low": difference.low,
        "high": difference.high,
        "non_inferior": result.non_inferior,
        "worst": result.worst,
    }


def _finish_record(
    folder: Path, original: SavedModel, evaluation: dict[str, Any], verdict: Mapping[str, Any], other_data: bool
) -> None:
    """Write run.json of an accepted export: a finished run whose parent is the original."""
    record = original.record
    keys = ("config", "choices", "config_hash", "data", "quality", "best", "seeds", "git", "lock_hash", "own_code")
    date = verdict["when"]
    fields = {
        **evaluation,
        **{key: record[key] for key in keys if key in record},
        "status": "finished", "reason": None, "exit_code": 0,
        "command": mask_command(sys.argv),
        "started": date, "ended": date,
        "parent": {
            "init_from": verdict["parent"], "config_hash": record.get("config_hash"), "model": verdict["parent_sha256"],
        },
        "packages": provenance.package_versions(),
        "hardware": verdict["hardware"],
        FOLDER: {key: verdict[key] for key in ("format", "method", "parent_sha256", "versions", "status")},
        digests.KEY: {
            f"{folders.MODEL}/{digests.SETTINGS}": digests.file_digest(folder / folders.MODEL / digests.SETTINGS)
        },
    }  # fmt: skip
    recorded = as_mapping(record.get("data"))
    fingerprints = as_mapping(recorded.get("fingerprints")) | evaluation["data"]["fingerprints"]
    fields["data"] = {**recorded, "fingerprints": fingerprints}
    # The network has its precision itself; `evaluate` adds none.
    trainer = {**as_mapping(fields["config"].get("trainer")), "precision": "32-true"}
    fields["config"] = {**fields["config"], "trainer": trainer}
    if other_data:
        fields["config"]["data"] = evaluation["config"]["data"]
    files.write_json(folder / folders.RECORD, fields)
    metric_lines.write(evaluation["metrics"], 0, 0, stream=None, jsonl_path=folder / folders.METRICS)


def _write_report(folder: Path, verdict: Mapping[str, Any], changed: Sequence[Mapping[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    predictions.write(folder / CHANGED, changed)
    export_report.write(folder, verdict, changed)
    files.write_json(folder / VERDICT, verdict)


def _versions() -> dict[str, str]:
    result = {}
    for name in VERSIONS:
        try:
            result[name] = version(name)
        except PackageNotFoundError:
            continue
    return result


def _threads() -> int:
    import torch

    return torch.get_num_threads()
