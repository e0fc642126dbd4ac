"""The steps of the pipeline: each runs commands of isotrain and publishes their results as artifacts of KFP (`kfp.dsl`).

A step is recorded on the volume (`pipelines.record`), so that its results survive a failure. A check writes its report and
succeeds whatever its verdict is; the gate after it fails.

Arguments of several steps: `overrides` of train.py; `root`, folder of runs and records; `policy`, enforce, warn or off;
`registered`, name of the registered model ("": of the data set); `server`, MLflow's URI; `run`, folder of the run;
`fingerprint` of the data step and `image`, on which caching depends; `dataset`, `trained`, `report`, `summary`, `metrics`
and `confusion`, output artifacts.
"""

import filecmp
import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config import files, networks, tasks
from config.errors import ContractError, ExecutionError, ExplanationError, InputError
from config.masking import MASK
from config.numbers import format_number
from config.parsing import parse_yaml, read_bytes, read_text
from pipelines import artifacts
from pipelines.commands import experiment_path, run_command, set_environment
from pipelines.interruption import delete_on_termination, experiment_prefix
from pipelines.known_results import check_benchmark
from pipelines.parameter_secrets import refuse_secrets
from pipelines.prerequisites import check_prerequisites
from pipelines.record import publish_run, read_steps, record_step, run_folder
from pipelines.report import write_report
from pipelines.retries import repeat
from pipelines.unfinished import publish_unfinished
from pipelines.verdict import POLICIES, Verdict
from reports.markdown import code, escape

Artifact = Any
# Keys of conf/data that select examples, for every task; a task adds its EXAMPLE_KEYS. Other keys belong to the model.
EXAMPLE_KEYS = (
    "path", "train_file", "val_file", "test_file", "split", "test_split", "split_seed", "group",
    "group_near_duplicates", "hub", "sample", "max_train", "max_val",
)  # fmt: skip
FORMAT = 2  # of folders that are named by their content; raise it when the content changes
NO_CHAMPION = Verdict("none", "there is no champion yet")


@repeat
def data(
    overrides: Sequence[str], root: str, dataset: Artifact, summary: Artifact, later: Mapping[str, str] | None = None
) -> str:
    """Check what later steps need, fetch or generate the data, and prepare it.

    Invalid data does not fail this step; the quality step reports it.

    Args:
        overrides: Overrides of train.py.
        root: Folder of runs and records.
        dataset: Artifact for the description of the data.
        summary: Artifact for the result.
        later: Parameters of later steps (`prerequisites`); None in pipelines compiled before December 2026.

    Returns:
        `train:<fingerprint> val:<fingerprint>` and digests of local files, which the caching of later steps depends on.
    """
    with record_step(root, "data") as step:
        if ended := publish_unfinished(root, run_folder(root)):
            step["published"] = ended
            print(f"isotrain: data: published the pages of runs that were terminated: {', '.join(ended)}", flush=True)
        refuse_secrets({"overrides": overrides, **(later or {})})
        set_environment(root)
        if later is not None:
            name = later["registered"] or _model_name(_choice(overrides, "data"))
            check_prerequisites(step, overrides, root, later, lambda server: _fetch_champion(step, name, server, root))
        fingerprints = json.loads(run_command(step, "-m", "datamodules", "fingerprint", *overrides).splitlines()[-1])
        output = run_command(step, "-m", "datamodules", "prepare", *overrides, valid_codes=(0, 2))
        description = json.loads(output.splitlines()[-1]) if step["exit"] == 0 else {"not prepared": step["said"]}
        fingerprint = " ".join(
            [*(f"{name}:{fingerprints[name]}" for name in ("train", "val")), *_file_digests(overrides)]
        )
        step["fingerprint"] = fingerprint
        dataset.metadata |= {"overrides": list(overrides), **fingerprints}
        content = {"overrides": list(overrides), **description, "fingerprints": fingerprints}
        artifacts.markdown(dataset, json.dumps(content, indent=1))
        rows: list[tuple[str, object]] = [(f"{split}: fingerprint", value) for split, value in fingerprints.items()]
        counts = [(split, *item) for split in ("train", "val") for item in description.get(split, {}).items()]
        rows += [(f"{split}: {name}", value) for split, name, value in counts if isinstance(value, int)]
        rows += [("not prepared", step["said"])] if step["exit"] else []
        artifacts.markdown(summary, f"# Data\n\n{code(' '.join(overrides))}\n\n{artifacts.table(['', ''], rows)}\n")
        return fingerprint


def plan(when: str, registered: str, server: str, data: str, fingerprint: str, root: str, summary: Artifact) -> str:
    """Decide whether to train: `always`, or `changed`: only on other data than the champion's.

    Returns:
        yes or no.
    """
    with record_step(root, "plan") as step:
        if when not in ("always", "changed"):
            raise InputError(f"when={when}: must be always or changed")
        answer, reason = "yes", "when=always"
        if when == "changed":
            champion = _fetch_champion(step, registered or _model_name(data), server, root)
            parts = [part for part in fingerprint.split() if part.startswith(("train:", "val:"))]
            if champion is None:
                reason = NO_CHAMPION.reason
            elif champion["data"] == dict(part.split(":", 1) for part in parts):
                answer, reason = "no", f"version {champion['version']}, the champion, was trained on this data"
            else:
                reason = f"version {champion['version']}, the champion, was trained on other data"
        step["verdict"] = f"{answer}: {reason}"
        artifacts.markdown(summary, f"# Train: {answer}\n\n{escape(reason)}.\n")
        return answer


def quality(
    policy: str, overrides: Sequence[str], root: str, report: Artifact, summary: Artifact, metrics: Artifact
) -> str:
    """Verify the data contract; returns the verdict as JSON."""
    with record_step(root, "quality") as step:
        if policy == "off":
            return _skip(step, Verdict("off"), report, summary)
        _check_policy("quality step", policy)
        folder = run_folder(root) / "quality"
        run_command(step, "-m", "quality", "--folder", folder, *overrides, valid_codes=(0, 4))
        result = files.read_json(folder / "verdict.json")
        outcomes = [check["outcome"] for check in result["checks"]]
        broken = [check["name"] for check in result["checks"] if check["outcome"] not in ("passed", "warned")]
        reason = f"{len(broken)} of {len(outcomes)} checks: {', '.join(broken[:3])}" if broken else ""
        values = {name: outcomes.count(name) for name in ("passed", "warned", "failed", "unevaluated")}
        return _publish_check(step, folder, result, reason, values, report, summary, metrics)


def drift(
    policy: str, registered: str, server: str, overrides: Sequence[str], root: str, report: Artifact, summary: Artifact
) -> str:
    """Compare the data with the champion's; returns the verdict as JSON."""
    with record_step(root, "drift") as step:
        if policy == "off":
            return _skip(step, Verdict("off"), report, summary)
        name = registered or _model_name(_choice(overrides, "data"))
        reference, folder = run_folder(root) / "champion", run_folder(root) / "drift"
        if _fetch_champion(step, name, server, root, reference) is None:
            return _skip(step, NO_CHAMPION, report, summary)
        if not (reference / "quality" / "sample.parquet").exists():
            verdict = Verdict("unevaluated", "the champion was trained with quality=off, without a sample of its data")
            return _skip(step, verdict, report, summary)
        words = [f"reference={reference}", "--folder", str(folder), *overrides]
        output = run_command(step, "-m", "quality", "drift", *words, valid_codes=(0, 4)).strip().splitlines()[-1]
        page = folder / "report.html"
        verdict = Verdict("failed", output, str(page)) if step["exit"] == 4 else Verdict("passed", report=str(page))
        step |= {"verdict": str(verdict), "report": str(page)}
        artifacts.html(report, page)
        artifacts.markdown(summary, f"# Drift: {verdict.status}\n\n{escape(output)}\n")
        return verdict.to_json()


def gate(subject: str, policy: str, verdict: str, root: str) -> str:
    """Fail under the policy `enforce` if a verdict is not acceptable.

    Args:
        subject: quality, drift, explanation or benchmark.
        policy: enforce, warn or off.
        verdict: The verdict as JSON.
        root: Folder of runs and records.

    Returns:
        The verdict: gates in pipelines compiled before December 2026 have it as an output.
    """
    with record_step(root, f"{subject} gate") as step:
        _check_policy(f"{subject} gate", policy)
        result = Verdict.from_json(verdict)
        step["verdict"] = str(result)
        if result.report:  # a cached step has no record in this run that would name the report
            step["report"] = result.report
        if policy == "enforce" and not result.acceptable:
            errors = {"quality": ContractError, "drift": ContractError, "explanation": ExplanationError}
            location = f"; see {result.report}" if result.report else ""
            raise errors.get(subject, ExecutionError)(f"the {subject} gate stops the pipeline: {result}{location}")
        return verdict


@repeat
def tune(
    file: str, backend: str, trials: int, overrides: Sequence[str], fingerprint: str, image: str, root: str,
    report: Artifact, summary: Artifact, resources: Mapping[str, str] | None = None,
) -> list[str]:  # fmt: skip
    """Search for the best overrides; a retried step resumes the same search.

    Args:
        file: File of the Experiment, in the image or on the volume; "" for no search.
        backend: katib, or local for this step.
        trials: Replaces maxTrialCount; 0 for the Experiment's.
        overrides: Overrides of train.py.
        fingerprint: of the data step.
        image: Image of the trials.
        root: Folder of runs and records.
        report: Artifact for the report.
        summary: Artifact for the result.
        resources: cpu, memory and gpus of a trial; "" for the Experiment's.

    Returns:
        The overrides of the best trial, those that the Experiment fixes among them; empty without a file.
    """
    with record_step(root, "tune") as step:
        if not file:
            _skip(step, Verdict("off"), report, summary)
            return []
        if backend not in ("katib", "local"):
            raise InputError(f"tune_backend={backend}: must be katib, or local for this machine")
        set_environment(root)
        path = experiment_path(file)
        if not path.exists():
            raise InputError(f"tune={file}: there is no such file in the image or on the volume of the steps")
        quantities = {name: value for name, value in (resources or {}).items() if value}
        key = _digest(read_text(path), overrides, fingerprint, image, str(trials), *map(str, quantities.items()))
        options = ["--max-trials", str(trials)] if trials else []
        options += [word for name, value in quantities.items() for word in (f"--{name}", value)]
        search = _search_locally if backend == "local" else _search_with_katib
        best, page = search(step, path, key, [*overrides, *options], image, root)
        command = shlex.split(best["command"])
        names = {override.partition("=")[0] for override in overrides}
        words = [word for word in command[command.index("train.py") + 1 :] if word.partition("=")[0] not in names]
        if secrets := [word for word in words if MASK in word]:
            raise InputError(
                f"tune={file}: the trials' command has {', '.join(secrets)}: a pipeline takes secrets from Kubernetes secrets "
                "only; write '${oc.env:NAME}' as the value, and name the secret in conf/pipeline.yaml"
            )
        value = f"{best['objective']} {format_number(best['value'])}"
        step["verdict"] = f"{value}: {' '.join(words)}"
        artifacts.html(report, page)
        table = artifacts.table(["key", "value"], (word.split("=", 1) for word in words))
        artifacts.markdown(summary, f"# Tuned\n\n{escape(best['trial'])}: {escape(value)}\n\n{table}\n")
        return words


def _search_locally(
    step: dict[str, Any], path: Path, key: str, arguments: Sequence[str], image: str, root: str
) -> tuple[dict[str, Any], Path]:
    """The best trial, and the report, of a search in this step."""
    folder = Path(root) / "pipelines" / "searches" / f"tune-{key}"
    page = folder / "report.html"
    step |= {"search": str(folder), "report": str(page)}
    try:
        run_command(step, "-m", "katib", "run", path, *arguments, "--folder", folder, "--wait")
    except ExecutionError as error:
        if error.exit_code != ExecutionError("").exit_code:
            raise
        raise ExecutionError(f"{error}; remove {folder} to start the search again") from None
    return json.loads(run_command(step, "-m", "katib", "best", folder, "--json")), page


def _search_with_katib(
    step: dict[str, Any], path: Path, key: str, arguments: Sequence[str], image: str, root: str
) -> tuple[dict[str, Any], Path]:
    """The best trial, and the report, of an Experiment on the cluster."""
    # Named after this run: a retry attaches to it, and no other run shares it.
    name = f"{experiment_prefix(run_folder(root).name)}{key[:8]}"
    page = run_folder(root) / "tune.html"
    experiment, *_ = parse_yaml(read_bytes(path))
    namespace = dict(experiment.get("metadata") or {}).get("namespace")
    options = ["-n", str(namespace)] if namespace else []
    step |= {"experiment": name, "namespace": namespace, "report": str(page)}
    files.write_json(run_folder(root) / "steps" / "tune.json", step)  # for `finish`, should this step be killed
    words = ["--name", name, "--image", image, *options, "--watch"]
    with delete_on_termination(step, name, namespace):
        run_command(step, "-m", "katib", "submit", path, *arguments, *words)
    run_command(step, "-m", "katib", "trials", name, *options, "--report", page)
    return json.loads(run_command(step, "-m", "katib", "best", name, *options, "--json")), page


@repeat
def train(
    overrides: Sequence[str], best: Sequence[str], fingerprint: str, quality: str, image: str, root: str,
    trained: Artifact, metrics: Artifact, confusion: Artifact, report: Artifact, summary: Artifact, refresh: str = "",
) -> str:  # fmt: skip
    """Train in a folder that is named by everything that determines the result, and resume or reuse a run in it.

    Returns:
        The run folder.
    """
    words = [*overrides, *best, f"quality={quality}"]
    name = f"{_choice(overrides, 'model')}-{_digest(*words, fingerprint, image, refresh)}"
    folder = Path(root) / "pipelines" / "runs" / name
    with record_step(root, "train", run=str(folder)) as step:
        set_environment(root)
        step |= {"run": str(folder), "report": str(folder / "report.html")}
        run_command(step, "train.py", *words, "explain=off", f"hydra.run.dir={folder}")
        run = _read_run(str(folder))
        fingerprints = dict(dict(run.get("data") or {}).get("fingerprints") or {})
        if changed := [split for split, value in fingerprints.items() if f"{split}:{value}" not in fingerprint.split()]:
            raise InputError(
                f"the {changed[0]} data changed between the data step and training: run the pipeline again"
            )
        values = dict(run.get("metrics", {}))
        metadata = {
            "framework": _library(folder, tasks.task_from_record(run)),
            "revision": dict(run.get("git") or {}).get("revision"),
            "image": image,
            "overrides": words,
            "best": list(best),
            "data": fingerprint,
            "config_hash": run.get("config_hash"),
            "run": str(folder),
        }
        artifacts.model(trained, folder, metadata)
        artifacts.metrics(metrics, values)
        artifacts.confusion(confusion, dict(dict(run.get("details") or {}).get("confusion") or {}))
        artifacts.html(report, folder / "report.html")
        table = artifacts.table(["metric", "value"], [(name, format_number(value)) for name, value in values.items()])
        artifacts.markdown(summary, f"# Trained\n\n{code(' '.join(words))}\n\n{table}\n")
        monitor = str(dict(run["config"])["monitor"])
        step["verdict"] = f"{monitor} {format_number(values[monitor])}"
        return str(folder)


def _library(run: Path, task: str) -> str:
    """The library that loads the model of a run."""
    if networks.is_exported(files.read_json(run / "model" / "config.json")):
        return "torch"
    return str(tasks.load_member(task, "LIBRARY", "the pipeline"))


def evaluate(
    run: str, baseline: str, margin: float, minimum: int, registered: str, server: str, overrides: Sequence[str],
    root: str, metrics: Artifact, summary: Artifact, floor: str = "",
) -> str:  # fmt: skip
    """Evaluate the baseline on the same examples, and test whether the model is non-inferior by the margin.

    Without a champion to compare with, the model must reach its floor: `floor` if it is set, else as `python -m runs floor`.

    Returns:
        The verdict as JSON.
    """
    with record_step(root, "evaluate") as step:
        reference = baseline
        if baseline == "champion":
            reference = str(run_folder(root) / "champion")
            name = registered or _model_name(_choice(overrides, "data"))
            champion = _fetch_champion(step, name, server, root, Path(reference))
            step["champion"] = str(champion["version"]) if champion else "none"  # `register` replaces only this version
            if champion is None:
                return _skip(step, _judge_floor(step, run, floor, root), None, summary)
        if not reference:
            return _skip(step, Verdict("none", "there is no baseline"), None, summary)
        set_environment(root)
        verdict, notes = _compare(step, run, reference, margin, minimum, overrides, root, metrics)
        step["verdict"] = str(verdict)
        artifacts.markdown(summary, f"# Compared with {escape(baseline)}\n\n{escape(verdict)}.\n\n{escape(notes)}\n")
        return verdict.to_json()


def _judge_floor(step: dict[str, Any], run: str, floor: str, root: str) -> Verdict:
    set_environment(root)
    options = [f"--floor={floor}"] if floor else []
    result = json.loads(run_command(step, "-m", "runs", "floor", run, *options, "--json"))
    return Verdict(str(result["status"]), f"{NO_CHAMPION.reason}; {result['reason']}")


def _compare(
    step: dict[str, Any], run: str, reference: str, margin: float, minimum: int, overrides: Sequence[str], root: str,
    metrics: Artifact,
) -> tuple[Verdict, str]:  # fmt: skip
    """Verdict on a run compared with a reference, and the notes of the comparison."""
    if _same_weights(Path(run), Path(reference)):
        return Verdict("passed", "it is the same model, file by file"), ""
    record = _read_run(run)
    monitor = str(dict(record["config"])["monitor"])
    folder = run_folder(root) / "baseline"
    words = [f"run={reference}", *_example_overrides(overrides, tasks.task_from_record(record))]
    run_command(step, "-m", "trainers", "evaluate", *words, "--output", folder, valid_codes=(0, 2))
    if step["exit"] == 2:  # other classes, or another task
        return Verdict("inconclusive", f"the baseline cannot be evaluated on these examples: {step['said']}"), ""
    options = ["--metric", monitor, "--margin", str(margin), "--json"]
    comparison = json.loads(run_command(step, "-m", "runs", "compare", folder, run, *options))
    result, examples = comparison["results"][0], comparison["examples"]
    difference = result["difference"]
    interval = f"95 % confidence interval {difference['low']:+.2f} to {difference['high']:+.2f}"
    text = (
        f"{monitor} {difference['b']:.2f} against {difference['a']:.2f}: {difference['value']:+.2f} "
        f"({interval}) over {examples} examples"
    )
    values = {"difference": difference["value"], "low": difference["low"], "high": difference["high"]}
    artifacts.metrics(metrics, values | {"examples": examples})
    step["comparison"] = {
        "metric": monitor,
        "margin": margin,
        "examples": examples,
        "difference": difference,
        "higher_is_better": result.get("higher_is_better"),
    }
    if examples < minimum:
        verdict = Verdict("inconclusive", f"{text}; fewer than {minimum}")
    elif result["non_inferior"]:
        verdict = Verdict("passed", f"{text}; non-inferior by a margin of {margin:g}")
    else:
        verdict = Verdict("failed", f"{text}; non-inferiority not shown for a margin of {margin:g}")
    return verdict, " ".join(comparison["notes"])


def explain(
    policy: str, run: str, overrides: Sequence[str], root: str, report: Artifact, summary: Artifact, metrics: Artifact
) -> str:
    """Explain the model; the results go to its run folder, where the registry reads the verdict.

    Returns:
        The verdict as JSON.
    """
    with record_step(root, "explain") as step:
        if policy == "off":
            return _skip(step, Verdict("off"), report, summary)
        _check_policy("explain step", policy)
        set_environment(root)
        words = [override for override in overrides if override.startswith(("explain.", "trainer.threads="))]
        run_command(step, "-m", "explain", f"run={run}", *words, valid_codes=(0, 5))
        folder = Path(run) / "explain"
        result = files.read_json(folder / "verdict.json")
        values = {measure["name"]: dict(measure["mean"]).get("value") for measure in result["measures"]}
        reason = "; ".join(result.get("why", []))
        return _publish_check(step, folder, result, reason, values, report, summary, metrics)


def benchmark(policy: str, run: str, root: str, summary: Artifact) -> str:
    """Compare the run with conf/known_results.yaml; returns the verdict as JSON."""
    with record_step(root, "benchmark") as step:
        verdict, source = (Verdict("off"), "") if policy == "off" else check_benchmark(_read_run(run))
        step["verdict"] = str(verdict)
        artifacts.markdown(summary, f"# Known results: {escape(verdict)}\n\n{escape(source)}\n")
        return verdict.to_json()


def register(
    run: str, evaluation: str, promote: bool, policies: str, registered: str, server: str, root: str, summary: Artifact
) -> str:
    """Register the model; it becomes the champion if it is non-inferior to the champion, or reaches the floor if there is none.

    Args:
        run: The run folder.
        evaluation: Verdict of the evaluate step as JSON.
        promote: Whether it may become the champion.
        policies: Policies of the quality and explanation gates, separated by a blank.
        registered: Name of the registered model; by default task and data.
        server: Address of MLflow; "" for the default.
        root: Folder of runs and records.
        summary: Artifact for the result.

    Returns:
        The registered version in words.
    """
    with record_step(root, "register") as step:
        set_environment(root)
        # It replaces only the champion that it was compared with, not one that was registered since, and never after a
        # comparison with another baseline.
        champion = files.read_json(run_folder(root) / "steps" / "evaluate.json").get("champion")
        verdict = Verdict.from_json(evaluation)
        non_inferior = verdict.status in ("passed", "none")
        words = [*(["--name", registered] if registered else []), *_server_options(server, root), "--json"]
        words += ["--champion", "--instead-of", champion] if promote and non_inferior and champion else []
        # A gate that is not enforced does not prevent the registration; its verdict is in the model card.
        words += ["--despite-gates"] if {"warn", "off"} & set(policies.split()) else []
        step["run"] = run
        version = json.loads(run_command(step, "-m", "runs", "register", run, *words))
        if "champion" in version["aliases"]:
            reason = ""
        elif not promote:
            reason = "; promote=False"
        else:
            reason = f"; it was not promoted: {version.get('reason') or verdict}"
        aliases = ", ".join(version["aliases"]) or "no alias"
        text = f"{version['name']} version {version['version']} ({aliases}){reason}"
        step["verdict"] = text
        artifacts.markdown(summary, f"# Registered\n\n{escape(text)}.\n")
        return text


def finish(state: str, error: str, backend: str, root: str, report: Artifact, summary: Artifact) -> None:
    """Publish the record of the pipeline run; an unfinished Experiment is exported and deleted."""
    with record_step(root, "finish") as step:
        folder = run_folder(root)
        steps = {item["step"]: item for item in read_steps(folder) if item["step"] != "finish"}
        search = steps.get("tune", {})
        if backend == "katib" and search.get("experiment") and search["state"] != "done":
            options = ["-n", search["namespace"]] if search.get("namespace") else []
            try:
                rows = run_command(step, "-m", "katib", "trials", search["experiment"], *options, "--json")
                files.write_text(folder / "trials.jsonl", rows)
                run_command(step, "-m", "katib", "delete", search["experiment"], *options, "--unfinished")
            except ExecutionError as failure:  # the record must be published nevertheless
                step["message"] = str(failure)
        failed = [item for item in steps.values() if item["state"] != "done"]
        pages = [Path(item["report"]) for item in failed if "report" in item]
        result = publish_run(folder, state, error)
        pages.append(write_report(folder, result))
        step["verdict"] = result["state"]
        artifacts.html(report, next(page for page in pages if page.exists()))
        artifacts.markdown(summary, _format_run(result))


def _format_run(record: dict[str, Any]) -> str:
    """The record of a pipeline run in Markdown: a row for each step that ran."""
    rows = [
        (step["step"], step["state"], f"{step.get('seconds', 0):.1f}", step.get("message") or step.get("verdict") or "")
        for step in record["steps"]
    ]
    table = artifacts.table(["step", "state", "seconds", "result"], rows)
    title = f"# Pipeline run {escape(record['run'])}: {escape(record['state'])}"
    return f"{title}\n\n{table}\n\nSteps without a row were cached, or not reached.\n"


def _publish_check(
    step: dict[str, Any], folder: Path, result: dict[str, Any], reason: str, values: dict[str, Any],
    report: Artifact, summary: Artifact, metrics: Artifact,
) -> str:  # fmt: skip
    """Publish report, summary and metrics of a check; returns its verdict as JSON.

    Args:
        step: Record of the step.
        folder: Folder of the check's files.
        result: Its verdict.json.
        reason: Reason of a verdict that is not acceptable.
        values: Metrics of the check.
        report: HTML artifact.
        summary: Markdown artifact.
        metrics: Metrics artifact.
    """
    page, text = folder / "report.html", folder / "report.md"
    verdict = Verdict(str(result.get("status")), report=str(page))
    if not verdict.acceptable:
        verdict = Verdict(verdict.status, reason, verdict.report)
    step |= {"verdict": str(verdict), "report": str(page)}
    artifacts.html(report, page)
    artifacts.markdown(
        summary, text.read_text(encoding="utf-8") if text.exists() else f"# {step['step']}: {escape(verdict)}\n"
    )
    artifacts.metrics(metrics, values)
    return verdict.to_json()


def _check_policy(subject: str, policy: str) -> None:
    if policy not in POLICIES:
        raise InputError(f"the policy of the {subject} is {policy}: must be one of {', '.join(POLICIES)}")


def _skip(step: dict[str, Any], verdict: Verdict, report: Artifact | None, summary: Artifact) -> str:
    """Publish that a step has nothing to do; returns its verdict as JSON."""
    step["verdict"] = str(verdict)
    if report is not None:
        artifacts.html(report, Path("none"))
    artifacts.markdown(summary, f"{step['step']}: {escape(verdict)}\n")
    return verdict.to_json()


def _same_weights(run: Path, reference: Path) -> bool:
    """Whether two runs saved the same weights."""
    first, second = (folder / "model" / "model.safetensors" for folder in (run, reference))
    return first.exists() and second.exists() and filecmp.cmp(first, second, shallow=False)


def _fetch_champion(
    step: dict[str, Any], name: str, server: str, root: str, folder: Path | None = None
) -> dict[str, Any] | None:
    options: list[str | Path] = ["--folder", folder] if folder else []
    words = ["-m", "runs", "champion", name, *_server_options(server, root), "--json", *options]
    champion = json.loads(run_command(step, *words))
    return dict(champion) if champion else None


def _server_options(server: str, root: str) -> list[str]:
    """Options for MLflow's address; by default MLFLOW_TRACKING_URI, which commands read, or a file beside the runs."""
    if not server and os.environ.get("MLFLOW_TRACKING_URI"):
        return []
    return ["--server", server or f"sqlite:///{Path(root).absolute() / 'mlflow' / 'mlflow.db'}"]


def _read_run(folder: str) -> dict[str, Any]:
    """The record of a run.

    Raises:
        InputError: It was removed, which a cached step does not notice.
    """
    record = files.read_json(Path(folder) / "run.json")
    if not record:
        raise InputError(f"{folder} was removed but is the cached result of the train step: -p refresh=1 trains again")
    return record


def _file_digests(overrides: Sequence[str]) -> list[str]:
    """`file:<digest>` of each local file in the overrides, e.g. a contract or a checkpoint."""
    paths = [Path(value) for _, _, value in (override.partition("=") for override in overrides) if value]
    existing = [path for path in paths if len(str(path)) < 255 and path.is_file()]
    return [f"file:{hashlib.sha256(path.read_bytes()).hexdigest()[:24]}" for path in existing]


def _model_name(data: str) -> str:
    """Name of the registered model as in `python -m runs register`: task and data."""
    from config.compose import compose

    return f"{compose([f'data={data}']).task.name}-{data}"


def _example_overrides(overrides: Sequence[str], task: str) -> list[str]:
    """The overrides that select examples; another model keeps its own preprocessing and decoding."""
    keys = (*EXAMPLE_KEYS, *getattr(tasks.load_module(task), "EXAMPLE_KEYS", ()))
    names = {"data", *(f"data.{key}" for key in keys), "trainer.threads", "trainer.precision"}
    parts = {override: override.partition("=")[0].lstrip("+").split(".")[:2] for override in overrides}
    return [override for override, words in parts.items() if ".".join(words) in names]


def _choice(overrides: Sequence[str], group: str) -> str:
    return next(override.partition("=")[2] for override in overrides if override.startswith(f"{group}="))


def _digest(*parts: str | Sequence[str]) -> str:
    """Twelve hexadecimal digits of what determines a result."""
    return hashlib.sha256(json.dumps([FORMAT, *parts]).encode()).hexdigest()[:12]
