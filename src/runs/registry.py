"""`python -m runs register`: a run's model in MLflow's registry, with its card, lineage and aliases."""

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import files, tasks
from config.errors import InputError, UnreachableError
from runs import folder as folders
from runs import kubeflow_registry, model_card
from runs.fields import as_mapping, is_number
from runs.lineage import collect_lineage, folder_digest
from runs.listing import choice_name

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
SERVER = "sqlite:///outputs/mlflow/mlflow.db"
EXPERIMENT = "isotrain-registry"
_DIGEST = "model_sha256"
_ROLLED_BACK = "rolled_back"
_REFERENCE = ("profile.json", "sample.parquet")  # in quality/: what `quality drift reference=` looks at
_STOP = ("failed", "inconclusive", "unevaluated")


@dataclass(frozen=True)
class Registered:
    """A version in the registry.

    Attributes:
        name: of the model.
        version: its number.
        aliases: that it has now.
        new: whether it was not there before.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    new: bool


def register_run(
    folder: Path,
    name: str | None = None,
    server: str | None = None,
    champion: bool = False,
    use: str | None = None,
    licence: str | None = None,
    despite: bool = False,
    kubeflow: str | None = None,
    instead_of: str | None = None,
) -> Registered:
    """Registers a run's model as a candidate, or as the champion.

    A model that is there already, file by file, is not put there twice; it gets the alias.

    Args:
        folder: a finished run's.
        name: of the registered model; None: its task and data.
        server: of MLflow, an address or sqlite:///FILE; None: MLFLOW_TRACKING_URI, or the file that logger=mlflow uses.
        champion: take the champion's place; who had it becomes the previous one.
        use: what the model is meant for, for its card.
        licence: of the model, for its card.
        despite: register a model that a gate failed.
        kubeflow: address of a Kubeflow Model Registry that is told of the version.
        instead_of: with `champion`: the version that it was compared with, or "none". If another one is champion by now, or
            the model was champion and was rolled back, it becomes a candidate instead.

    Raises:
        InputError: the run is not finished, has no model, is of a task that this machine does not know, or a gate failed it.
        UnreachableError: the server does not answer.
    """
    record = folders.read_record(folder)
    # A gate may have ended a run whose model is whole: what it said is looked at below.
    if record["status"] != "finished" and record.get("exit_code") != 5:
        raise InputError(f"{folder} is {record['status']}, not finished: there is no final model to register")
    model = folder / folders.MODEL
    if not model.is_dir():
        raise InputError(f"{folder} has no {folders.MODEL}/ to register (a baseline has none)")
    for gate, what in model_card.GATES:
        said = model_card.gate_verdict(folder, record, gate)
        if said in _STOP and not despite:
            raise InputError(
                f"{what.lower()} of {folder}: {said}; see {folder / gate / 'report.html'}. --despite-gates registers it all the same"
            )
    task = tasks.task_from_record(record)
    tasks.load_module(task)  # the card is made of what it says
    name = name or f"{task}-{choice_name(record, 'data') or 'data'}"
    mark = folder_digest(model)
    text = model_card.format_card(folder, record, use, licence, mark)
    with _client(server) as client:
        _named(client, name, task)
        found = next((each for each in _versions(client, name) if each.tags.get(_DIGEST) == mark), None)
        version = str(found.version) if found is not None else _put(client, name, folder, record, mark, text)
        now = _alias(client, name, CHAMPION)
        back = found is not None and _ROLLED_BACK in found.tags
        if champion and (instead_of is None or now == version or (instead_of == (now or "none") and not back)):
            _promote(client, name, version)
        elif now != version:
            client.set_registered_model_alias(name, CANDIDATE, version)
        if kubeflow is not None:
            made = client.get_model_version(name, version)
            uri = f"{client.get_run(made.run_id).info.artifact_uri}/{folders.MODEL}"  # the version's own is runs:/…, known to MLflow alone
            kubeflow_registry.register_version(kubeflow, name, version, uri, made.tags, text)
        return Registered(name, version, _aliases(client, name, version), found is None)


def rollback_champion(name: str, server: str | None = None) -> Registered:
    """Puts the previous champion back; who was champion becomes the previous one.

    Raises:
        InputError: there is no previous champion.
        UnreachableError: the server does not answer.
    """
    with _client(server) as client:
        back = _alias(client, name, PREVIOUS)
        now = _alias(client, name, CHAMPION)
        if back is None or back == now:
            raise InputError(f"{name} has no previous champion to go back to")
        # The new champion first: killed in between, one is in place, and the other is still there by its number.
        client.set_registered_model_alias(name, CHAMPION, back)
        if now is not None:
            client.set_registered_model_alias(name, PREVIOUS, now)
            client.set_model_version_tag(name, now, _ROLLED_BACK, "true")
        return Registered(name, back, _aliases(client, name, back), False)


def find_champion(name: str, server: str | None = None, folder: Path | None = None) -> dict[str, Any] | None:
    """Who is champion, and, if a folder is given, what its run left: run.json, model/, predictions.jsonl, quality/.

    That is enough for `trainers evaluate run=`, `runs compare` and `quality drift reference=`, wherever it was trained.

    Args:
        name: of the registered model.
        server: of MLflow, as for `register`.
        folder: where its files go; an older champion's in it are replaced.

    Returns:
        name, version, digest, run (the folder it was registered from) and data (fingerprint by split); None if there is
        no champion.

    Raises:
        InputError: its files cannot be had.
        UnreachableError: the server does not answer.
    """
    with _client(server) as client:
        version = _alias(client, name, CHAMPION)
        if version is None:
            return None
        made = client.get_model_version(name, version)
        found = {
            "name": name,
            "version": version,
            "digest": made.tags.get(_DIGEST, ""),
            "run": made.tags.get("run", ""),
            "data": {tag.removeprefix("data_"): mark for tag, mark in made.tags.items() if tag.startswith("data_")},
        }
        if folder is not None:
            with files.atomic_folder(folder) as temporary:
                client.download_artifacts(made.run_id, "", str(temporary))
                if not (temporary / folders.RECORD).exists():
                    raise InputError(f"{name} version {version} has no {folders.RECORD}: isotrain did not register it")
        return found


def _promote(client: Any, name: str, version: str) -> None:
    before = _alias(client, name, CHAMPION)
    if _alias(client, name, CANDIDATE) == version:
        client.delete_registered_model_alias(name, CANDIDATE)
    if before == version:
        return
    # The old champion gets its name first: killed in between, none is lost.
    if before is not None:
        client.set_registered_model_alias(name, PREVIOUS, before)
    client.set_registered_model_alias(name, CHAMPION, version)


def _alias(client: Any, name: str, alias: str) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
            return None
        raise


def _aliases(client: Any, name: str, version: str) -> tuple[str, ...]:
    return tuple(each for each in (CHAMPION, PREVIOUS, CANDIDATE) if _alias(client, name, each) == version)


def _named(client: Any, name: str, task: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, tags={"task": task})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _versions(client: Any, name: str) -> list[Any]:
    quote = '"' if "'" in name else "'"  # MLflow's filters know no escapes
    if quote in name:
        raise InputError(f"--name={name}: MLflow cannot find a name with both kinds of quotes")
    return list(client.search_model_versions(f"name={quote}{name}{quote}", max_results=1000))


def _put(client: Any, name: str, folder: Path, record: Mapping[str, Any], mark: str, text: str) -> str:
    """Uploads what belongs to a version, and makes it."""
    tags = {_DIGEST: mark, "run": str(folder.resolve())}
    for what, which, value in collect_lineage(folder, record, mark):
        if what == "parent":
            tags["parent"] = f"{which} {value}".strip()[:4000]
        elif what != "model":
            tags[re.sub(r"[^\w.-]", "_", f"{what}_{which}")] = value
    tags |= {gate: model_card.gate_verdict(folder, record, gate) for gate, _ in model_card.GATES}
    run = client.create_run(_experiment(client), run_name=folder.resolve().name, tags=tags).info.run_id
    for metric, value in as_mapping(record.get("metrics")).items():
        if is_number(value):
            client.log_metric(run, metric, float(value))
    client.log_artifacts(run, str(folder / folders.MODEL), folders.MODEL)
    for part in (folders.RECORD, folders.PREDICTIONS, folders.METRICS):
        if (folder / part).exists():
            client.log_artifact(run, str(folder / part))
    for gate, _ in model_card.GATES:
        for part in ("verdict.json", "report.html", *_REFERENCE):
            if (folder / gate / part).exists():
                client.log_artifact(run, str(folder / gate / part), gate)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "README.md"
        path.write_text(text, encoding="utf-8")
        client.log_artifact(run, str(path), folders.MODEL)
    client.set_terminated(run, "FINISHED")
    made = client.create_model_version(name, f"runs:/{run}/{folders.MODEL}", run, tags=tags, description=text)
    return str(made.version)


def _experiment(client: Any) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    store = str(client.tracking_uri)
    # MLflow would put files into ./mlruns of whoever comes first: they belong beside the store.
    beside = (
        Path(store.removeprefix("sqlite:///")).absolute().parent / "artifacts"
        if store.startswith("sqlite:///")
        else None
    )
    return str(client.create_experiment(EXPERIMENT, artifact_location=beside.as_uri() if beside else None))


@contextlib.contextmanager
def _client(server: str | None) -> Iterator[Any]:
    """A client; what the server does wrong becomes a message for people."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    address = server or os.environ.get("MLFLOW_TRACKING_URI") or SERVER
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError:
        raise InputError("the registry needs MLflow: pip install 'isotrain[mlflow]'") from None
    if address.startswith("sqlite:///"):
        Path(address.removeprefix("sqlite:///")).absolute().parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        yield MlflowClient(tracking_uri=address, registry_uri=address)
    except MlflowException as error:
        message = str(error).splitlines()[0]
        if (
            "Max retries" in str(error)
            or "failed with exception" in str(error)
            or error.error_code == "TEMPORARILY_UNAVAILABLE"
        ):
            raise UnreachableError(f"MLflow at {address} does not answer: {message}") from None
        raise InputError(f"MLflow at {address} refused it: {message}") from None
    except OSError as error:
        raise UnreachableError(f"MLflow at {address} cannot be used: {error}") from None
