"""What each step of the pipeline does: it calls one of our commands and shows what that left.

A step keeps its record on the volume (`pipelines.record`), so that what it found survives it. Checks write their whole
report and end well; a gate after them ends the pipeline. Artifacts are KFP's objects (`kfp.dsl`).
"""

import filecmp
import hashlib
import json
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from config import files, tasks
from config.errors import ContractError, ExecutionError, ExplanationError, InputError
from pipelines import artifacts, known_results, record
from pipelines.commands import experiment_path, run_command

Artifact = Any
GOOD = ("passed", "warned", "off", "none")
# Keys of conf/data that choose examples, of every task; a task's own are its EXAMPLE_KEYS. The others are the model's.
EXAMPLES = ("path", "train_file", "val_file", "hub", "sample", "max_train", "max_val")
WAIT = 20.0  # seconds between looks at a folder that is in use
FORMAT = 2  # of folders that are named by their content: raise it when what is in them changes


def data(overrides: Sequence[str], root: str, dataset: Artifact, summary: Artifact) -> str:
    """Fetches or generates the data and prepares it; returns `train:<digest> val:<digest>`, by which later steps are cached.

    Data that is too broken to be prepared is no failure here: the step `quality` says what is wrong with it.
    """
    with record.record_step(root, "data") as mine:
        _environment(root)
        prints = json.loads(run_command(mine, "-m", "datamodules", "fingerprint", *overrides).splitlines()[-1])
        prepared = run_command(mine, "-m", "datamodules", "prepare", *overrides, good=(0, 2))
        found = json.loads(prepared.splitlines()[-1]) if mine["exit"] == 0 else {"not prepared": mine["said"]}
        mark = " ".join([*(f"{split}:{prints[split]}" for split in ("train", "val")), *_files(overrides)])
        mine["fingerprint"] = mark
        dataset.metadata |= {"overrides": list(overrides), **prints}
        artifacts.markdown(
            dataset, json.dumps({"overrides": list(overrides), **found, "fingerprints": prints}, indent=1)
        )
        rows: list[tuple[str, object]] = [(f"{split}: fingerprint", each) for split, each in prints.items()]
        counts = [(split, *each) for split in ("train", "val") for each in found.get(split, {}).items()]
        rows += [(f"{split}: {name}", value) for split, name, value in counts if isinstance(value, int)]
        rows += [("not prepared", mine["said"])] if mine["exit"] else []
        artifacts.markdown(summary, f"# Data\n\n`{' '.join(overrides)}`\n\n{artifacts.table(['', ''], rows)}\n")
        return mark


def plan(when: str, registered: str, server: str, data: str, fingerprint: str, root: str, summary: Artifact) -> str:
    """Whether to train: always, or `changed`: only on data that the champion was not trained on."""
    with record.record_step(root, "plan") as mine:
        if when not in ("always", "changed"):
            raise InputError(f"when={when}: always or changed")
        answer, why = "yes", "when=always"
        if when == "changed":
            champion = _champion(mine, registered or _named(data), server, root)
            now = dict(each.split(":", 1) for each in fingerprint.split() if each.startswith(("train:", "val:")))
            if champion is None:
                why = "there is no champion yet"
            elif champion["data"] == now:
                answer, why = "no", f"the data is what version {champion['version']}, the champion, was trained on"
            else:
                why = f"the data is not what version {champion['version']}, the champion, was trained on"
        mine["verdict"] = f"{answer}: {why}"
        artifacts.markdown(summary, f"# Train: {answer}\n\n{why}.\n")
        return answer


def quality(
    policy: str, overrides: Sequence[str], root: str, report: Artifact, summary: Artifact, metrics: Artifact
) -> str:
    """Verifies the contract; returns its status and, where that is not good, why."""
    with record.record_step(root, "quality") as mine:
        return _checked(mine, "quality", policy, root, overrides, report, summary, metrics)


def drift(
    policy: str, registered: str, server: str, overrides: Sequence[str], root: str, report: Artifact, summary: Artifact
) -> str:
    """Compares the data with the champion's; drifted data counts as failed."""
    with record.record_step(root, "drift") as mine:
        folder = record.run_folder(root)
        champion = None
        if policy != "off":
            champion = _champion(
                mine, registered or _named(_choice(overrides, "data")), server, root, folder / "champion"
            )
        if policy == "off" or champion is None:
            return _nothing(mine, "off" if policy == "off" else "none: there is no champion yet", report, summary)
        if not (folder / "champion" / "quality" / "sample.parquet").exists():
            return _nothing(
                mine,
                "unevaluated: the champion was trained with quality=off, so that nothing is known of its data",
                report,
                summary,
            )
        asked: list[str | Path] = [f"reference={folder / 'champion'}", "--folder", folder / "drift", *overrides]
        said = run_command(mine, "-m", "quality", "drift", *asked, good=(0, 4)).strip().splitlines()[-1]
        page = folder / "drift" / "report.html"
        verdict = f"failed: {said}; see {page}" if mine["exit"] == 4 else "passed"
        mine |= {"verdict": verdict, "report": str(page)}
        artifacts.html(report, page)
        artifacts.markdown(summary, f"# Drift: {verdict}\n\n{said}\n")
        return verdict


def gate(what: str, policy: str, verdict: str, root: str) -> str:
    """Ends the pipeline on a verdict that is not good, under `enforce`."""
    with record.record_step(root, f"{what} gate") as mine:
        if policy not in ("enforce", "warn", "off"):
            raise InputError(f"the policy of the {what} gate is {policy}: enforce, warn or off")
        mine["verdict"] = verdict
        if "; see " in verdict:
            mine["report"] = verdict.rpartition("; see ")[2]
        if policy == "enforce" and verdict.partition(":")[0] not in GOOD:
            kind = {"quality": ContractError, "drift": ContractError, "explanation": ExplanationError}.get(
                what, ExecutionError
            )
            raise kind(f"the {what} gate stops the pipeline: {verdict}")
        return verdict


def tune(
    file: str, backend: str, trials: int, overrides: Sequence[str], fingerprint: str, image: str, root: str,
    report: Artifact, summary: Artifact,
) -> list[str]:  # fmt: skip
    """Searches; a step that is killed and tried again goes on with the same search."""
    with record.record_step(root, "tune") as mine:
        if not file:
            _nothing(mine, "off", report, summary)
            return []
        if backend not in ("katib", "local"):
            raise InputError(f"tune_backend={backend}: katib, or local for this machine")
        _environment(root)
        path = experiment_path(file)
        if not path.exists():
            raise InputError(f"tune={file}: there is no such file in the image")
        key = _key(path.read_text(encoding="utf-8"), overrides, fingerprint, image, str(trials))
        many = ["--max-trials", str(trials)] if trials else []
        if backend == "local":
            folder = Path(root) / "pipelines" / "searches" / f"tune-{key}"
            page = folder / "report.html"
            mine |= {"search": str(folder), "report": str(page)}
            try:
                run_command(mine, "-m", "katib", "run", path, *overrides, "--folder", folder, *many)
            except ExecutionError as failed:
                if failed.exit_code != 6:
                    raise
                raise ExecutionError(f"{failed}; once {folder} is removed, the same command searches anew") from None
            found = json.loads(run_command(mine, "-m", "katib", "best", folder, "--json"))
        else:
            # Named after this run, so that a retry attaches to it and no other run shares it.
            name = f"tune-{_plain(record.run_folder(root).name)[:8]}-{key[:8]}"
            page = record.run_folder(root) / "tune.html"
            space = dict(yaml.safe_load(path.read_text(encoding="utf-8")).get("metadata") or {}).get("namespace")
            where = ["-n", str(space)] if space else []
            mine |= {"experiment": name, "namespace": space, "report": str(page)}
            record.write(record.run_folder(root) / "steps" / "tune.json", mine)  # whoever cleans up must know it
            asked = ["--name", name, "--image", image, *many, *where, "--watch"]
            run_command(mine, "-m", "katib", "submit", path, *overrides, *asked)
            run_command(mine, "-m", "katib", "trials", name, *where, "--report", page)
            found = json.loads(run_command(mine, "-m", "katib", "best", name, *where, "--json"))
        # With what the Experiment fixes: without it the train step would train something else than the trial did.
        words = shlex.split(found["command"])
        taken = {each.partition("=")[0] for each in overrides}
        chosen = [each for each in words[words.index("train.py") + 1 :] if each.partition("=")[0] not in taken]
        mine["verdict"] = f"{found['objective']} {found['value']:.5g}: {' '.join(chosen)}"
        artifacts.html(report, page)
        said = artifacts.table(["key", "value"], (each.split("=", 1) for each in chosen))
        artifacts.markdown(
            summary, f"# Tuned\n\n{found['trial']}: {found['objective']} {found['value']:.5g}\n\n{said}\n"
        )
        return chosen


def train(
    overrides: Sequence[str], best: Sequence[str], fingerprint: str, quality: str, image: str, root: str,
    trained: Artifact, metrics: Artifact, confusion: Artifact, report: Artifact, summary: Artifact, again: str = "",
) -> str:  # fmt: skip
    """Trains in a folder that is named by all that determines the result: the same again goes on, or prints it."""
    given = [*overrides, *best, f"quality={quality}"]
    folder = (
        Path(root) / "pipelines" / "runs" / f"{_choice(overrides, 'model')}-{_key(*given, fingerprint, image, again)}"
    )
    with record.record_step(root, "train", run=str(folder)) as mine:
        _environment(root)
        mine |= {"run": str(folder), "report": str(folder / "report.html")}
        _trained(mine, *given, "explain=off", f"hydra.run.dir={folder}")
        found = _run(str(folder))
        prints = dict(dict(found.get("data") or {}).get("fingerprints") or {})
        if changed := [split for split, mark in prints.items() if f"{split}:{mark}" not in fingerprint.split()]:
            raise InputError(
                f"the {changed[0]} data changed between the step `data` and training: run the pipeline again"
            )
        values = dict(found.get("metrics", {}))
        about = {
            "framework": tasks.load_member(tasks.task_from_record(found), "LIBRARY", "the pipeline"),
            "revision": dict(found.get("git") or {}).get("revision"),
            "image": image,
            "overrides": given,
            "best": list(best),
            "data": fingerprint,
            "config_hash": found.get("config_hash"),
            "run": str(folder),
        }
        artifacts.model(trained, folder, about)
        artifacts.metrics(metrics, values)
        artifacts.confusion(confusion, dict(dict(found.get("details") or {}).get("confusion") or {}))
        artifacts.html(report, folder / "report.html")
        rows = [(name, f"{value:.5g}") for name, value in values.items()]
        artifacts.markdown(
            summary, f"# Trained\n\n`{' '.join(given)}`\n\n{artifacts.table(['metric', 'value'], rows)}\n"
        )
        monitor = str(dict(found["config"])["monitor"])
        mine["verdict"] = f"{monitor} {values[monitor]:.5g}"
        return str(folder)


def evaluate(
    run: str, baseline: str, margin: float, minimum: int, registered: str, server: str, overrides: Sequence[str],
    root: str, metrics: Artifact, summary: Artifact,
) -> str:  # fmt: skip
    """Scores the baseline on the same examples, and compares: is the new model no worse by more than the margin?"""
    with record.record_step(root, "evaluate") as mine:
        folder, against = record.run_folder(root), baseline
        if baseline == "champion":
            against = str(folder / "champion")
            champion = _champion(mine, registered or _named(_choice(overrides, "data")), server, root, Path(against))
            mine["champion"] = str(champion["version"]) if champion else "none"  # `register` replaces that one alone
            if champion is None:
                return _nothing(mine, "none: there is no champion yet", None, summary)
        if not against:
            return _nothing(mine, "none: no baseline was given", None, summary)
        if _same_model(Path(run), Path(against)):
            mine["verdict"] = "passed: it is the same model, file by file"
            artifacts.markdown(summary, f"# Against {baseline}\n\n{mine['verdict']}.\n")
            return str(mine["verdict"])
        _environment(root)
        trained = _run(run)
        monitor = str(dict(trained["config"])["monitor"])
        scored = folder / "baseline"
        wanted = _examples(overrides, tasks.task_from_record(trained))
        run_command(mine, "-m", "trainers", "evaluate", f"run={against}", *wanted, "--output", scored, good=(0, 2))
        if mine["exit"] == 2:  # other classes, or another task: nobody is promoted, and the record says why
            verdict = f"inconclusive: the baseline cannot answer these examples: {mine['said']}"
            mine["verdict"] = verdict
            artifacts.markdown(summary, f"# Against {baseline}\n\n{verdict}.\n")
            return verdict
        asked = ["--metric", monitor, "--margin", str(margin), "--json"]
        found = json.loads(run_command(mine, "-m", "runs", "compare", scored, run, *asked))
        result = found["results"][0]
        one = result["difference"]
        said = f"{monitor} {one['b']:.2f} against {one['a']:.2f}: {one['value']:+.2f} (95 % interval {one['low']:+.2f} to {one['high']:+.2f}) over {found['examples']} examples"
        if found["examples"] < minimum:
            verdict = f"inconclusive: {said}; fewer than {minimum}"
        elif result["non_inferior"]:
            verdict = f"passed: {said}; no worse by {margin:g}"
        else:
            verdict = f"failed: {said}; not shown to be no worse by {margin:g}"
        mine["verdict"] = verdict
        artifacts.metrics(
            metrics, {"difference": one["value"], "low": one["low"], "high": one["high"], "examples": found["examples"]}
        )
        artifacts.markdown(summary, f"# Against {baseline}\n\n{verdict}.\n\n{' '.join(found['notes'])}\n")
        return verdict


def explain(
    policy: str, run: str, overrides: Sequence[str], root: str, report: Artifact, summary: Artifact, metrics: Artifact
) -> str:
    """Explains the model, into its run's folder, where a registry looks for the verdict."""
    with record.record_step(root, "explain") as mine:
        _environment(root)
        asked = [each for each in overrides if each.startswith(("explain.", "trainer.threads="))]
        return _checked(mine, "explain", policy, root, asked, report, summary, metrics, run)


def benchmark(policy: str, run: str, root: str, summary: Artifact) -> str:
    """Compares with the floor of conf/known_results.yaml."""
    with record.record_step(root, "benchmark") as mine:
        verdict, said = ("off", "") if policy == "off" else known_results.check_benchmark(_run(run))
        mine["verdict"] = verdict
        artifacts.markdown(summary, f"# Known results: {verdict}\n\n{said}\n")
        return verdict


def register(
    run: str, compared: str, promote: bool, despite: str, registered: str, server: str, root: str, summary: Artifact
) -> str:
    """Registers the model; it becomes champion where there is none, or where it is no worse."""
    with record.record_step(root, "register") as mine:
        _environment(root)
        # Only over the champion that it was compared with: a folder that it beat is another matter.
        against = record.read_json(record.run_folder(root) / "steps" / "evaluate.json").get("champion")
        good = compared.partition(":")[0] in ("passed", "none")
        asked = [*(["--name", registered] if registered else []), *_at(server, root), "--json"]
        asked += ["--champion", "--instead-of", against] if promote and good and against else []
        # A gate that is not enforced does not stop the model here, either: its verdict is in the card.
        asked += ["--despite-gates"] if {"warn", "off"} & set(despite.split()) else []
        mine["run"] = run
        found = json.loads(run_command(mine, "-m", "runs", "register", run, *asked))
        if "champion" in found["aliases"]:
            why = ""
        elif not promote:
            why = "; promote=False"
        elif good and against:
            why = "; it was not promoted: another model became champion meanwhile, or this one was rolled back"
        else:
            why = f"; it was not promoted: {compared}"
        mine["verdict"] = (
            f"{found['name']} version {found['version']} ({', '.join(found['aliases']) or 'no alias'}){why}"
        )
        artifacts.markdown(summary, f"# Registered\n\n{mine['verdict']}.\n")
        return str(mine["verdict"])


def finish(state: str, error: str, backend: str, root: str, report: Artifact, summary: Artifact) -> None:
    """Publishes the record; a search that is not finished is exported and removed, for nobody waits for it now."""
    with record.record_step(root, "finish") as mine:
        folder = record.run_folder(root)
        found = {each["step"]: each for each in record.read_steps(folder) if each["step"] != "finish"}
        experiment = found.get("tune", {}).get("experiment")
        if backend == "katib" and experiment and found["tune"]["state"] != "done":
            where = ["-n", found["tune"]["namespace"]] if found["tune"].get("namespace") else []
            try:
                rows = run_command(mine, "-m", "katib", "trials", experiment, *where, "--json")
                files.write_text(folder / "trials.jsonl", rows)
                run_command(mine, "-m", "katib", "delete", experiment, *where, "--unfinished")
            except ExecutionError as failed:  # the record matters more
                mine["message"] = str(failed)
        wrong = [each for each in found.values() if each["state"] != "done"]
        pages = [each["report"] for each in [*wrong, *reversed(found.values())] if "report" in each]
        page = next((Path(each) for each in pages if Path(each).exists()), folder / "none")
        whole = record.publish_run(folder, state, error)
        mine["verdict"] = whole["state"]
        artifacts.html(report, page)
        artifacts.markdown(summary, as_markdown(whole))


def as_markdown(whole: dict[str, Any]) -> str:
    """A pipeline's record as a page: a row for each step that ran, and how each ended."""
    rows = [
        (each["step"], each["state"], f"{each.get('seconds', 0):.1f}", each.get("message") or each.get("verdict") or "")
        for each in whole["steps"]
    ]
    said = artifacts.table(["step", "state", "seconds", ""], rows)
    return f"# Pipeline run {whole['run']}: {whole['state']}\n\n{said}\n\nSteps without a row were cached, or not reached.\n"


def _checked(
    mine: dict[str, Any], room: str, policy: str, root: str, overrides: Sequence[str], report: Artifact,
    summary: Artifact, metrics: Artifact, run: str = "",
) -> str:  # fmt: skip
    """Runs a check whose failure is a verdict, not an error; publishes its report and returns the verdict."""
    if policy == "off":
        return _nothing(mine, "off", report, summary)
    if policy not in ("enforce", "warn"):
        raise InputError(f"{room}={policy}: enforce, warn or off")
    folder = Path(run) / room if run else record.run_folder(root) / room
    where: list[str | Path] = [f"run={run}"] if run else ["--folder", folder]
    mine["report"] = str(folder / "report.html")
    run_command(mine, "-m", room, *where, *overrides, good=(0, 4 if room == "quality" else 5))
    found = record.read_json(folder / "verdict.json")
    status = str(found.get("status"))
    if room == "quality":
        bad = [each["name"] for each in found["checks"] if each["outcome"] not in ("passed", "warned")]
        why = f"{len(bad)} of {len(found['checks'])} checks: {', '.join(bad[:3])}" if bad else ""
        outcomes = [each["outcome"] for each in found["checks"]]
        values: dict[str, Any] = {name: outcomes.count(name) for name in ("passed", "warned", "failed", "unevaluated")}
    else:
        why = "; ".join(found.get("why", []))
        values = {each["name"]: dict(each["mean"]).get("value") for each in found["measures"]}
    # With the place of the report: a cached verdict's step leaves no record of its own in this run.
    verdict = status if status in GOOD else f"{status}: {why}; see {folder / 'report.html'}"
    mine["verdict"] = verdict
    artifacts.html(report, folder / "report.html")
    text = folder / "report.md"
    artifacts.markdown(summary, text.read_text(encoding="utf-8") if text.exists() else f"# {room}: {verdict}\n")
    artifacts.metrics(metrics, values)
    return verdict


def _same_model(run: Path, other: Path) -> bool:
    """Whether two runs exported the same weights."""
    one, two = (folder / "model" / "model.safetensors" for folder in (run, other))
    return one.exists() and two.exists() and filecmp.cmp(one, two, shallow=False)


def _nothing(mine: dict[str, Any], verdict: str, report: Artifact | None, summary: Artifact) -> str:
    """A step that had nothing to do says so."""
    mine["verdict"] = verdict
    if report is not None:
        artifacts.html(report, Path("none"))
    artifacts.markdown(summary, f"{mine['step']}: {verdict}\n")
    return verdict


def _champion(
    mine: dict[str, Any], name: str, server: str, root: str, folder: Path | None = None
) -> dict[str, Any] | None:
    more: list[str | Path] = ["--folder", folder] if folder else []
    found = json.loads(run_command(mine, "-m", "runs", "champion", name, *_at(server, root), "--json", *more))
    return dict(found) if found else None


def _at(server: str, root: str) -> list[str]:
    """Where MLflow is: an address that was given, or MLFLOW_TRACKING_URI, which commands read themselves, or a file beside the runs."""
    if not server and os.environ.get("MLFLOW_TRACKING_URI"):
        return []
    return ["--server", server or f"sqlite:///{Path(root).absolute() / 'mlflow' / 'mlflow.db'}"]


def _trained(mine: dict[str, Any], *arguments: str) -> None:
    """Trains; where another process trains in the folder (the same pipeline, begun twice), it is waited for."""
    while True:
        try:
            run_command(mine, "train.py", *arguments)
        except ExecutionError as failed:
            if failed.exit_code != 2 or " is in use by " not in str(failed):
                raise
            print(f"isotrain: {failed}: waiting", flush=True)
            time.sleep(WAIT)
        else:
            return


def _run(folder: str) -> dict[str, Any]:
    """A run's record.

    Raises:
        InputError: it is gone, which a cached step does not see.
    """
    found = record.read_json(Path(folder) / "run.json")
    if not found:
        raise InputError(
            f"{folder} is gone, and Kubeflow Pipelines had its result in the cache: -p again=1 trains anew"
        )
    return found


def _files(overrides: Sequence[str]) -> list[str]:
    """`file:<digest>` of each local file that an override names: a contract, a checkpoint; they count by their content."""
    paths = [Path(value) for _, _, value in (each.partition("=") for each in overrides) if value]
    files = [path for path in paths if len(str(path)) < 255 and path.is_file()]
    return [f"file:{hashlib.sha256(path.read_bytes()).hexdigest()[:24]}" for path in files]


def _plain(text: str) -> str:
    """Letters and digits alone, small."""
    return "".join(each for each in text.lower() if each.isalnum()) or "run"


def _named(data: str) -> str:
    """The registered model's name, as `python -m runs register` makes it: task and data."""
    from config.compose import compose

    return f"{compose([f'data={data}']).task.name}-{data}"


def _examples(overrides: Sequence[str], task: str) -> list[str]:
    """The overrides that another model is evaluated with: the same examples, by its own preprocessing and decoding."""
    keys = (*EXAMPLES, *getattr(tasks.load_module(task), "EXAMPLE_KEYS", ()))
    wanted = {"data", *(f"data.{key}" for key in keys), "trainer.threads", "trainer.precision"}
    names = {each: each.partition("=")[0].lstrip("+").split(".") for each in overrides}
    return [each for each, parts in names.items() if ".".join(parts[:2]) in wanted]


def _choice(overrides: Sequence[str], group: str) -> str:
    return next(each.partition("=")[2] for each in overrides if each.startswith(f"{group}="))


def _key(*parts: str | Sequence[str]) -> str:
    """Twelve hexadecimal digits of what determines a result."""
    return hashlib.sha256(json.dumps([FORMAT, *parts]).encode()).hexdigest()[:12]


def _environment(root: str) -> None:
    """Prepared data is shared by all runs of a volume, unless the environment says where it is."""
    os.environ.setdefault("ISOTRAIN_CACHE", str(Path(root).absolute() / "cache"))
