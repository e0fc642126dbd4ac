"""Models in MLflow's registry, with card, lineage and aliases (`python -m runs register` and `champion`)."""

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import files, parsing, tasks
from config.errors import InputError, ResourceError, UnreachableError, first_line
from config.system_errors import is_damaged_database, to_expected_error
from runs import floor as floors
from runs import folder as folders
from runs import kubeflow_registry, mlflow_model, mlflow_store, model_card
from runs.fields import as_mapping, is_number
from runs.lineage import collect_lineage, folder_digest
from runs.listing import choice_name

logger = logging.getLogger(__name__)

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
SERVER = "sqlite:///outputs/mlflow/mlflow.db"
EXPERIMENT = "isotrain-registry"
_DIGEST_TAG = "model_sha256"
_ROLLED_BACK_TAG = "rolled_back"
# Why a version is champion or not: keys of the card, and the tags.
_PROMOTION_TAGS = {"floor": "floor", "justification": "justification", "not promoted": "not_promoted"}
# Files of a gate: its report, and the reference data of `quality drift reference=`.
_GATE_FILES = ("verdict.json", "report.html", "profile.json", "sample.parquet")
_DOWNLOAD = ".champion.json"  # in a folder of `find_champion`: the champion, and the files that were downloaded


@dataclass(frozen=True)
class RegisteredVersion:
    """A version in the registry.

    Attributes:
        name: Name of the registered model.
        version: Its number.
        aliases: Its present aliases.
        new: Whether this call created it.
        reason: Why it was not promoted, if it was to become champion.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    new: bool
    reason: str = ""


def register_run(
    folder: Path,
    name: str | None = None,
    server: str | None = None,
    champion: bool = False,
    use: str | None = None,
    licence: str | None = None,
    despite_gates: bool = False,
    kubeflow: str | None = None,
    instead_of: str | None = None,
    floor: float | None = None,
    justification: str | None = None,
) -> RegisteredVersion:
    """Register the model of a run as a candidate, or as the champion.

    A model that was not compared with the champion (`instead_of`) becomes champion only if it reaches its floor (`runs.floor`)
    and no gate failed, or with a justification; else it becomes a candidate, and card and tags have the reason. A model whose
    files are registered already is not uploaded again, but gets the alias.

    Args:
        folder: Folder of a finished run.
        name: Name of the registered model; by default its task and data.
        server: MLflow's address or sqlite:///FILE; by default MLFLOW_TRACKING_URI, or the file that logger=mlflow uses.
        champion: Whether it becomes the champion, and the present champion the previous one.
        use: Intended use, for the model card.
        licence: Licence of the model, for the model card.
        despite_gates: Whether a model that failed a gate is registered.
        kubeflow: Address of a Kubeflow Model Registry, where the version is registered, too.
        instead_of: With `champion`: the version that it was compared with, or "none". If there is another champion by now, or
            the model was rolled back, it becomes a candidate instead.
        floor: With `champion`: value that the run's monitor must reach; by default see `runs.floor`.
        justification: With `champion`: a person's reason to promote it whatever floor and gates say.

    Raises:
        InputError: The name is empty, `floor` or `justification` without `champion`, the run is not finished, has no model, failed a gate, or its task is not configured.
        UnreachableError: The server does not answer.
    """
    if name is not None and not name.strip():
        raise InputError(
            "--name is empty, perhaps from a variable that is not set: give a name, or leave the option out"
        )
    for option, value in (("floor", floor), ("justification", justification)):
        if value is not None and not champion:
            raise InputError(f"--{option} needs --champion: a candidate may have any result")
    compared = instead_of not in (None, "none")  # with a champion, by a pipeline
    if compared and floor is not None:
        raise InputError("--floor and --instead-of VERSION: it was compared with the champion; leave one of them out")
    record = folders.read_record(folder)
    # Exit code 5: the explanation gate ended a run whose model is complete. The verdicts are checked below.
    if record["status"] != "finished" and record.get("exit_code") != 5:
        raise InputError(f"{folder} is {record['status']}, not finished: it has no final model to register")
    model = folder / folders.MODEL
    if not model.is_dir():
        raise InputError(f"{folder} has no {folders.MODEL}/ to register (baselines have none)")
    for gate, title in model_card.GATES:
        verdict = model_card.gate_verdict(folder, record, gate)
        if verdict in model_card.FAILED and not despite_gates:
            raise InputError(
                f"{title.lower()} of {folder}: {verdict}; see {folder / gate / 'report.html'}. --despite-gates registers the "
                "model nevertheless"
            )
    task = tasks.task_from_record(record)
    tasks.load_module(task)  # the card needs it
    name = name or f"{task}-{choice_name(record, 'data') or 'data'}"
    digest = folder_digest(model)
    with _client(server) as client:
        _create_model(client, name, task)
        existing = next((item for item in _versions(client, name) if item.tags.get(_DIGEST_TAG) == digest), None)
        current = _version_of_alias(client, name, CHAMPION)
        is_champion = existing is not None and current == str(existing.version)
        promotion: dict[str, str] = {}
        if champion and not compared and not is_champion:
            promotion = _judge_promotion(folder, record, floor, justification)
        elif justification is not None:
            promotion = {"justification": justification}
        card = model_card.format_card(folder, record, use, licence, digest, promotion)
        if existing is not None:
            version = str(existing.version)
            if all(
                Path(item.path).name != mlflow_model.FILE
                for item in client.list_artifacts(existing.run_id, folders.MODEL)
            ):
                _log_model_files(client, existing.run_id, folder, record)  # of an isotrain that did not write them
        else:
            version = _create_version(client, name, folder, record, digest, card)
        current = _version_of_alias(client, name, CHAMPION)
        reason = promotion.get("not promoted", "")
        if champion and not reason and instead_of is not None:
            if instead_of != (current or "none"):
                reason = "there is another champion by now"
            elif existing is not None and _ROLLED_BACK_TAG in existing.tags:
                reason = "this model was rolled back"
        promoted = champion and (current == version or not reason)
        if promotion:
            _record_promotion(client, name, version, promotion, card if existing else None)
        if promoted:
            _promote(client, name, version)
        elif current != version:
            client.set_registered_model_alias(name, CANDIDATE, version)
        if kubeflow is not None:
            registered = client.get_model_version(name, version)
            # The URI of the version itself is runs:/…, which only MLflow can resolve.
            uri = f"{client.get_run(registered.run_id).info.artifact_uri}/{folders.MODEL}"
            kubeflow_registry.register_version(kubeflow, name, version, uri, registered.tags, card)
        aliases = _aliases_of_version(client, name, version)
        return RegisteredVersion(name, version, aliases, existing is None, "" if promoted else reason)


def _judge_promotion(
    folder: Path, record: Mapping[str, Any], floor: float | None, justification: str | None
) -> dict[str, str]:
    """Return why a run may become champion or not, for card and tags; a justification spares running a baseline."""
    if justification is None or floor is not None:
        verdict: floors.FloorVerdict | None = floors.judge_floor(folder, floor)
    else:
        verdict = floors.read_floor(folder)
    promotion = {"floor": str(verdict or "not judged")}
    if justification is not None:
        promotion["justification"] = justification
    elif verdict is not None and (obstacle := floors.promotion_obstacle(folder, record, verdict)):
        promotion["not promoted"] = obstacle
    return promotion


def _record_promotion(client: Any, name: str, version: str, promotion: Mapping[str, str], card: str | None) -> None:
    """Set the tags of a promotion, and replace the card of a version that was registered before."""
    for key, tag in _PROMOTION_TAGS.items():
        if key in promotion:
            client.set_model_version_tag(name, version, tag, promotion[key][:4000])
        elif tag in client.get_model_version(name, version).tags:
            client.delete_model_version_tag(name, version, tag)
    if card is not None:
        client.update_model_version(name, version, card)
        _log_card(client, client.get_model_version(name, version).run_id, card)


def rollback_champion(name: str, server: str | None = None) -> RegisteredVersion:
    """Make the previous champion the champion again, and the champion the previous one.

    Raises:
        InputError: There is no previous champion.
        UnreachableError: The server does not answer.
    """
    with _client(server) as client:
        previous = _version_of_alias(client, name, PREVIOUS)
        current = _version_of_alias(client, name, CHAMPION)
        if previous is None or previous == current:
            raise InputError(f"{name} has no previous champion to roll back to")
        # The new champion first, so that there is one if the process is killed in between.
        client.set_registered_model_alias(name, CHAMPION, previous)
        if current is not None:
            client.set_registered_model_alias(name, PREVIOUS, current)
            client.set_model_version_tag(name, current, _ROLLED_BACK_TAG, "true")
        return RegisteredVersion(name, previous, _aliases_of_version(client, name, previous), False)


def find_champion(name: str, server: str | None = None, folder: Path | None = None) -> dict[str, Any] | None:
    """Return the champion, as `find_version`; None without one."""
    return find_version(name, CHAMPION, server, folder)


def find_version(
    name: str, version: str, server: str | None = None, folder: Path | None = None
) -> dict[str, Any] | None:
    """Return a version, and optionally download its run: run.json, model/, predictions.jsonl, quality/.

    That is enough for `trainers evaluate run=`, `runs compare` and `quality drift reference=` on any machine.

    Args:
        name: Name of the registered model.
        version: Its number, or an alias.
        server: MLflow, as for `register_run`.
        folder: Target folder of the files: new, empty, or of an earlier download, whose files are replaced. Other files in
            it stay.

    Returns:
        name, version, digest, run (the folder that was registered) and data (fingerprint by split); None if there is none.

    Raises:
        InputError: The name is empty, the folder holds something else, or the files cannot be downloaded.
        UnreachableError: The server does not answer.
    """
    if not name.strip():
        raise InputError("name the registered model: the name is empty")
    old_files = [] if folder is None else _downloaded_files(folder)
    with _client(server) as client:
        number = version if version.isdecimal() else _version_of_alias(client, name, version)
        registered = None if number is None else _version(client, name, number)
        if registered is None:
            return None
        number, tags = str(registered.version), registered.tags
        digest = tags.get(_DIGEST_TAG, "")
        if folder is not None:
            with files.atomic_folder(folder, removable=old_files) as temporary:
                client.download_artifacts(registered.run_id, "", str(temporary))
                if not (temporary / folders.RECORD).exists():
                    raise InputError(
                        f"{name} version {number} has no {folders.RECORD}: it was not registered by isotrain"
                    )
                names = sorted(str(path.relative_to(temporary)) for path in temporary.rglob("*") if path.is_file())
                files.write_json(
                    temporary / _DOWNLOAD, {"name": name, "version": number, "digest": digest, "files": names}
                )
        return {
            "name": name,
            "version": number,
            "digest": digest,
            "run": tags.get("run", ""),
            "data": {tag.removeprefix("data_"): value for tag, value in tags.items() if tag.startswith("data_")},
        }


def read_download(folder: Path) -> dict[str, Any]:
    """Return name, version and digest of the version that `find_version` downloaded to a folder; empty for other folders."""
    return files.read_json(folder / _DOWNLOAD)


def _downloaded_files(folder: Path) -> list[str]:
    """Return the relative names of the files of an earlier download in a folder.

    Raises:
        InputError: The folder holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--folder {folder}: this is a file; name a folder")
    names = files.read_json(folder / _DOWNLOAD).get("files")
    if isinstance(names, list):
        return [str(name) for name in names]
    if folder.exists() and (entries := sorted(entry.name for entry in folder.iterdir())):
        raise InputError(
            f"--folder {folder} is not empty and not an earlier download (it contains {', '.join(entries[:3])}): nothing was "
            "replaced; name a new folder"
        )
    return []


def _promote(client: Any, name: str, version: str) -> None:
    current = _version_of_alias(client, name, CHAMPION)
    if _version_of_alias(client, name, CANDIDATE) == version:
        client.delete_registered_model_alias(name, CANDIDATE)
    if current == version:
        return
    # The old champion gets its alias first, so that none is lost if the process is killed in between.
    if current is not None:
        client.set_registered_model_alias(name, PREVIOUS, current)
    client.set_registered_model_alias(name, CHAMPION, version)


def _version_of_alias(client: Any, name: str, alias: str) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
            return None
        raise


def _version(client: Any, name: str, number: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
            return None
        raise


def _aliases_of_version(client: Any, name: str, version: str) -> tuple[str, ...]:
    aliases = (CHAMPION, PREVIOUS, CANDIDATE)
    return tuple(alias for alias in aliases if _version_of_alias(client, name, alias) == version)


def _create_model(client: Any, name: str, task: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, tags={"task": task})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _versions(client: Any, name: str) -> list[Any]:
    quote = '"' if "'" in name else "'"  # MLflow's filters have no escapes
    if quote in name:
        raise InputError(f"--name={name}: MLflow cannot find a name with both kinds of quotes")
    return list(client.search_model_versions(f"name={quote}{name}{quote}", max_results=1000))


def tag_key(kind: str, part: str) -> str:
    """Return the key of a tag of lineage, of at most 250 characters, MLflow's limit: of a long path its end."""
    return re.sub(r"[^\w.-]", "_", f"{kind}_{part[len(kind) + 1 - 250 :]}")


def _create_version(client: Any, name: str, folder: Path, record: Mapping[str, Any], digest: str, card: str) -> str:
    """Upload the files of a version and create it; returns its number."""
    tags = {_DIGEST_TAG: digest, "run": str(folder.resolve())}
    for kind, part, value in collect_lineage(folder, record, digest):
        if kind == "parent":
            tags["parent"] = f"{part} {value}".strip()[:4000]
        elif kind != "model":
            tags[tag_key(kind, part)] = value
    tags |= {gate: model_card.gate_verdict(folder, record, gate) for gate, _ in model_card.GATES}
    run = client.create_run(_experiment_id(client), run_name=folder.resolve().name, tags=tags).info.run_id
    for metric, value in as_mapping(record.get("metrics")).items():
        if is_number(value):
            client.log_metric(run, metric, float(value))
    client.log_artifacts(run, str(folder / folders.MODEL), folders.MODEL)
    parts: list[tuple[str, str | None]] = [
        (part, None) for part in (folders.RECORD, folders.PREDICTIONS, folders.METRICS)
    ]
    parts += [(f"{gate}/{part}", gate) for gate, _ in model_card.GATES for part in _GATE_FILES]
    for part, target in parts:
        if (folder / part).exists():
            parsing.check_regular(folder / part)
            client.log_artifact(run, str(folder / part), target)
    _log_card(client, run, card)
    _log_model_files(client, run, folder, record)
    client.set_terminated(run, "FINISHED")
    version = client.create_model_version(name, f"runs:/{run}/{folders.MODEL}", run, tags=tags, description=card)
    return str(version.version)


def _log_card(client: Any, run: str, card: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "README.md"
        path.write_text(card, encoding="utf-8")
        client.log_artifact(run, str(path), folders.MODEL)


def _log_model_files(client: Any, run: str, folder: Path, record: Mapping[str, Any]) -> None:
    """Upload what MLflow needs to load the model itself."""
    task = tasks.load_module(tasks.task_from_record(record))
    if missing := [name for name in mlflow_model.MEMBERS if not hasattr(task, name)]:
        message = "mlflow.pyfunc cannot load this version: %s has no %s (docs/tasks.md)"
        logger.warning(message, task.__name__, ", ".join(missing))
        return
    with mlflow_model.model_files(folder / folders.MODEL, task, as_mapping(record.get("packages"))) as temporary:
        client.log_artifacts(run, str(temporary), folders.MODEL)


def _experiment_id(client: Any) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        return str(experiment.experiment_id)
    path = mlflow_store.database_path(str(client.tracking_uri))
    location = None if path is None else mlflow_store.artifact_location(path)
    try:
        return str(client.create_experiment(EXPERIMENT, artifact_location=location))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # made by another process since
            raise
        return str(client.get_experiment_by_name(EXPERIMENT).experiment_id)


@contextlib.contextmanager
def _client(server: str | None) -> Iterator[Any]:
    """An MLflow client, whose exceptions become messages."""
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
        raise InputError("the registry needs MLflow: pip install -e '.[mlflow]' in isotrain's checkout") from None
    logging.getLogger("alembic").setLevel(logging.ERROR)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    for name in ("mlflow.store.db", "sqlalchemy.pool"):  # a traceback of each error, which comes as an exception, too
        logging.getLogger(name).setLevel(logging.CRITICAL)
    path = mlflow_store.database_path(address)
    try:
        if path is not None:
            mlflow_store.create_database(path)
        yield MlflowClient(tracking_uri=address, registry_uri=address)
    except Exception as error:
        if isinstance(getattr(error, "exit_code", None), int):
            raise
        message = first_line(error)
        expected = to_expected_error(error)
        damaged = path is not None and is_damaged_database(error)
        if isinstance(expected, InputError | ResourceError) and not damaged:  # it or its folder cannot be written
            raise type(expected)(f"MLflow at {address}: {message}") from None
        if damaged or not isinstance(error, MlflowException | OSError):
            if path is None or not mlflow_store.is_database_error(error):
                raise
            raise InputError(
                f"{path} is no complete database of MLflow ({message}): the process that created it was killed, or it "
                "is damaged or another program's; move it away, or name another one with --server"
            ) from None
        if not isinstance(error, MlflowException):
            raise UnreachableError(f"MLflow at {address} cannot be used: {message}") from None
        unreachable = "Max retries" in str(error) or "failed with exception" in str(error)
        if unreachable or error.error_code == "TEMPORARILY_UNAVAILABLE":
            raise UnreachableError(f"MLflow at {address} does not answer: {message}") from None
        raise InputError(f"MLflow at {address} rejects the request: {message}") from None
