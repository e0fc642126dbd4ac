"""The command `python -m serving manifest`."""

import argparse
import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config import command, files
from config.errors import InputError
from config.masking import mask_text
from config.parsing import parse_yaml, read_bytes

logger = logging.getLogger(__name__)

_NO_MODEL = "name one model by run=FOLDER (a run or model folder) or model=NAME[@ALIAS] (in the registry)"
_CLAIM, _ROOT = "isotrain-runs", Path("/runs")  # of deploy/: where steps and trials have their runs
_COMMAND = "# python -m serving manifest "


def add_parser(commands: Any) -> None:
    """Add the command to those of `python -m serving`."""
    parser = command.add_command(
        commands,
        "manifest",
        "write an InferenceService of KServe",
        "Its server is `python -m serving serve` in isotrain's image, with probes, resources, and the model from a volume, "
        "an object store or MLflow's registry. Each choice has a comment.",
        "python -m serving manifest run=/runs/a --name questions --image registry/isotrain@sha256:… -o questions.yaml",
    )
    parser.add_argument(
        "model", metavar="run=FOLDER|model=NAME[@ALIAS]", help="run or model folder; or a model in the registry"
    )
    parser.add_argument("--name", required=True, help="name of the InferenceService, and of the model in addresses")
    parser.add_argument("--image", required=True, help="image of the server, by its digest: NAME@sha256:…")
    parser.add_argument(
        "--source", metavar="URI",
        help="where the cluster finds the folder: pvc://CLAIM/PATH, s3://BUCKET/PATH, … (default: pvc://isotrain-runs/… "
        "for a folder in /runs)",
    )  # fmt: skip
    parser.add_argument("--follow", metavar="ALIAS", help="with model=NAME: serve what the alias names, as it changes")
    parser.add_argument(
        "--server", metavar="URL", help="with model=NAME: MLflow's address (default: of the config map isotrain)"
    )
    parser.add_argument("-n", "--namespace", help="namespace (default: kubectl's)")
    parser.add_argument(
        "--mode",
        choices=("Standard", "Knative"),
        default="Standard",
        help="KServe's deployment mode (default: Standard)",
    )
    parser.add_argument(
        "--min-replicas", type=int, default=1, metavar="N", help="servers, at least; 0 with Knative (default: 1)"
    )
    parser.add_argument("--max-replicas", type=int, metavar="N", help="servers, at most (default: as at least, or 1)")
    parser.add_argument("--cpu", default="1", help="CPUs of a server (default: 1)")
    parser.add_argument("--memory", default="2Gi", help="memory of a server (default: 2Gi)")
    parser.add_argument("--gpus", default="0", help="GPUs of a server (default: 0)")
    parser.add_argument("--service-account", metavar="NAME", help="account of the pods (default: the namespace's)")
    parser.add_argument("--drain", type=int, default=10, metavar="S", help="seconds of serve --drain (default: 10)")
    parser.add_argument("--canary", type=int, metavar="PERCENT", help="give this model a share of the requests only")
    parser.add_argument(
        "--stable", metavar="FILE",
        help="with --canary in Standard mode: the InferenceService that answers the rest, as applied",
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FILE", help="file to write (default: standard output)")
    parser.set_defaults(run_command=_run)


def _run(args: argparse.Namespace) -> int:
    from serving import manifest

    service = _service(args)
    manifest.check(service)
    if "@sha256:" not in service.image:
        logger.warning(
            "the image %r is not named by its digest: the cluster may run another one than was tried", service.image
        )
    text = manifest.format_service(service, _stable(args, service))
    if args.output is None:
        print(text, end="", flush=True)
    else:
        files.check_replaceable(args.output, lambda path: files.has_line(path, _COMMAND), "an InferenceService")
        files.write_text(args.output, text)
    return 0


def _service(args: argparse.Namespace) -> Any:
    from serving import registered
    from serving.manifest import Service

    source = name = version = None
    if args.model.startswith("model="):
        name, _ = command.take_override([args.model], "model", _NO_MODEL)
        if args.source:
            raise InputError(
                f"--source {args.source}: has no effect with model={name}, whose files are in the registry"
            )
        registered.parse(name, args.follow, args.server, Path())
        if args.server is not None and mask_text(args.server) != args.server:
            raise InputError(
                f"--server {mask_text(args.server)}: has a secret, which the InferenceService would show to all who may read it"
            )
    else:
        folder, _ = command.take_override([args.model], "run", _NO_MODEL)
        for option, value in (("--follow", args.follow), ("--server", args.server)):
            if value is not None:
                raise InputError(f"{option} {value}: needs model=NAME: a folder is in no registry")
        model = _model_folder(Path(folder))
        source = args.source or _claim_address(model)
        version = _version(model)
    least = args.min_replicas
    return Service(
        command=shlex.join(args.words),
        name=args.name, image=args.image, namespace=args.namespace, source=source, model=name, follow=args.follow,
        server=args.server, version=version, mode=args.mode, min_replicas=least,
        max_replicas=max(1, least) if args.max_replicas is None else args.max_replicas,
        cpu=args.cpu, memory=args.memory, gpus=args.gpus, service_account=args.service_account, drain=args.drain,
        canary=args.canary,
    )  # fmt: skip


def _model_folder(folder: Path) -> Path:
    """Return the model folder of a run; a model folder is one."""
    if not folder.is_dir():
        raise InputError(f"run={folder}: no such folder")
    model = folder / "model" if (folder / "run.json").exists() else folder
    if not (model / "config.json").exists():
        raise InputError(f"run={folder}: neither a run nor a model folder")
    return model


def _claim_address(model: Path) -> str:
    path = model.absolute()
    if not path.is_relative_to(_ROOT):
        raise InputError(
            f"run={model}: the cluster cannot know this folder: copy it where the cluster reads it, and name that by --source "
            f"pvc://CLAIM/PATH or s3://BUCKET/PATH (a folder in {_ROOT} is one of the claim {_CLAIM})"
        )
    return f"pvc://{_CLAIM}/{path.relative_to(_ROOT)}"


def _version(model: Path) -> str:
    from runs.lineage import folder_digest

    return folder_digest(model)[:12]


def _stable(args: argparse.Namespace, service: Any) -> Mapping[str, Any] | None:
    needed = service.canary is not None and service.mode == "Standard"
    if needed and not args.stable:
        raise InputError(
            f"--canary {service.canary}: name the InferenceService that answers the other requests by --stable FILE, as "
            f"written before or from kubectl get inferenceservice {service.name} -o yaml"
        )
    if args.stable and not needed:
        raise InputError(f"--stable {args.stable}: has no effect without --canary in Standard mode")
    if not args.stable:
        return None
    try:
        documents = parse_yaml(read_bytes(args.stable))
    except OSError as error:
        raise InputError(f"cannot read --stable {args.stable}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"--stable {args.stable} is not YAML: {error}") from error
    value = documents[0] if len(documents) == 1 else None
    if not isinstance(value, Mapping) or value.get("kind") != "InferenceService":
        raise InputError(f"--stable {args.stable}: is not one InferenceService")
    metadata, predictor = value.get("metadata") or {}, (value.get("spec") or {}).get("predictor")
    if metadata.get("name") != service.name or not isinstance(predictor, Mapping):
        raise InputError(f"--stable {args.stable}: is not the InferenceService {service.name}, or has no predictor")
    if service.min_replicas > predictor.get("minReplicas", 1):
        raise InputError(f"--min-replicas {service.min_replicas}: a canary has at most as many as the stable predictor")
    return value
