"""InferenceServices of KServe whose server is `python -m serving serve`: the text of the file, and what KServe asks of it."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from config.errors import InputError

API_VERSION, KIND = "serving.kserve.io/v1beta1", "InferenceService"
VERSION_ANNOTATION = "isotrain/model-version"
MODES = ("Standard", "Knative")
MODEL_FOLDER = "/mnt/models"  # where KServe puts what STORAGE_URI names
TIMEOUT = 30  # seconds of a request: serve's --timeout
_PORT = 8080
# KServe's validation: name, and prefixes of addresses that its storage initializer reads.
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_MAX_NAME = 53  # NAME-predictor is the name of a Service: 63 characters
_SOURCES = ("pvc://", "s3://", "gs://", "hf://", "https://", "http://", "hdfs://", "webhdfs://", "oci://")
_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_AMOUNTS = {
    "cpu": (r"\d+m|\d+(\.\d{1,3})?", "CPUs, such as 500m or 2"),
    "memory": (r"[1-9]\d*([EPTGMK]i?)?", "an amount, such as 2Gi"),
    "gpus": (r"\d+", "a number of GPUs"),
}


@dataclass(frozen=True)
class Service:
    """What an InferenceService is made of.

    Attributes:
        command: words after `python -m serving` that write it.
        name: of the InferenceService, and of the model in addresses.
        image: of the server, by digest.
        namespace: None for that of kubectl.
        source: address of the model's files for KServe's storage initializer; None for the registry.
        model: NAME, NAME@ALIAS or NAME/VERSION in MLflow's registry; None for `source`.
        follow: alias whose changes the server follows; None for none.
        server: MLflow's address; None for that of the config map.
        config_map: config map with MLFLOW_TRACKING_URI.
        version: the model's version, if it is known.
        mode: KServe's deployment mode.
        min_replicas, max_replicas: number of servers; 0 scales to zero.
        cpu, memory, gpus: of a server.
        service_account: of its pods; None for the namespace's default.
        drain: seconds in which a server that ends still accepts requests.
        canary: percentage of the traffic for this model, the rest goes to the present one; None for all.
    """

    command: str
    name: str
    image: str
    namespace: str | None = None
    source: str | None = None
    model: str | None = None
    follow: str | None = None
    server: str | None = None
    config_map: str = "isotrain"
    version: str | None = None
    mode: str = "Standard"
    min_replicas: int = 1
    max_replicas: int = 1
    cpu: str = "1"
    memory: str = "2Gi"
    gpus: str = "0"
    service_account: str | None = None
    drain: int = 10
    canary: int | None = None


def check(service: Service) -> None:
    """Check what KServe or the cluster would refuse, or could never run.

    Raises:
        InputError: a setting is invalid.
    """
    if not _NAME.fullmatch(service.name) or len(service.name) > _MAX_NAME:
        raise InputError(
            f"--name {service.name}: must be a letter, then at most {_MAX_NAME - 1} lower-case letters, digits and dashes"
        )
    if re.search(r"\s", service.image) or not service.image:
        raise InputError(f"--image {service.image!r}: the name of an image has no blanks")
    if service.source is not None and (
        not service.source.startswith(_SOURCES) or re.search(r"\s", service.source) or not service.source.split("//")[1]
    ):
        raise InputError(f"--source {service.source}: must be an address that KServe reads: {', '.join(_SOURCES)}")
    for name, value in (("-n", service.namespace), ("--service-account", service.service_account)):
        if value is not None and not _OBJECT.fullmatch(value):
            raise InputError(f"{name} {value}: must be the name of an object of Kubernetes")
    for name, (pattern, noun) in _AMOUNTS.items():
        if not re.fullmatch(pattern, getattr(service, name)):
            raise InputError(f"--{name} {getattr(service, name)}: must be {noun}")
    if not 0 <= service.min_replicas <= service.max_replicas or service.max_replicas < 1:
        raise InputError(
            f"--min-replicas {service.min_replicas} --max-replicas {service.max_replicas}: must be 0 or more, and 1 or more, "
            "the first not above the second"
        )
    if service.min_replicas == 0 and service.mode != "Knative":
        raise InputError("--min-replicas 0: only Knative scales to zero: add --mode Knative, where the cluster has it")
    if not 0 <= service.drain <= 3600:
        raise InputError(f"--drain {service.drain}: must be from 0 to 3600")
    if service.canary is not None:
        if not 0 <= service.canary <= 100:
            raise InputError(f"--canary {service.canary}: must be from 0 to 100 per cent")
        if service.follow:
            raise InputError(f"--canary {service.canary}: a server that follows an alias changes its model itself")
        longest = _MAX_NAME - len(_canary_name(service)) - 1  # NAME-CANARY-predictor
        if service.mode == "Standard" and len(service.name) > longest:
            raise InputError(f"--name {service.name}: with a canary in Standard mode, at most {longest} characters")
        if service.mode == "Standard" and service.source is None:
            raise InputError(f"--canary {service.canary}: KServe's Standard mode takes canaries with --source only")


def format_service(service: Service, stable: Mapping[str, Any] | None = None) -> str:
    """Return the file of an InferenceService, with a comment for each choice.

    Args:
        service: the service.
        stable: for a canary in Standard mode: the InferenceService that answers the rest of the requests.
    """
    return "\n".join(_lines(service, stable)) + "\n"


def _lines(service: Service, stable: Mapping[str, Any] | None) -> Iterator[str]:
    yield f"# python -m serving {service.command}"
    yield f"# kubectl apply -f FILE; kubectl wait --for=condition=Ready inferenceservice/{service.name}"
    yield f"apiVersion: {API_VERSION}"
    yield f"kind: {KIND}"
    yield "metadata:"
    yield f"  name: {service.name}"
    if service.namespace:
        yield f"  namespace: {service.namespace}"
    yield "  annotations:"
    yield f"    serving.kserve.io/deploymentMode: {service.mode}  # " + (
        "a Deployment and a Service of Kubernetes" if service.mode == "Standard" else "a Service of Knative"
    )
    yield "spec:"
    if service.canary is not None and service.mode == "Standard":
        assert stable is not None
        yield "  predictor:  # as before"
        yield from (f"    {line}" for line in _dump(stable["spec"]["predictor"]))
        yield "  canary:"
        yield f"    - trafficPercent: {service.canary}  # of the requests; without this entry, and its predictor above, it is promoted"
        yield "      predictor:"
        yield f"        name: {_canary_name(service)}"
        yield from (f"    {line}" for line in _predictor(service))
        return
    yield "  predictor:"
    yield from _predictor(service)


def _canary_name(service: Service) -> str:
    return f"canary-{service.version[:6]}" if service.version else "canary"


def _predictor(service: Service) -> Iterator[str]:
    """Yield the lines of the predictor's fields, indented by four."""
    is_canary = service.canary is not None and service.mode == "Standard"
    if service.canary is not None and not is_canary:
        yield f"    canaryTrafficPercent: {service.canary}  # of the requests; the rest goes to the last revision that got all"
    zero = "; 0: none without requests, the first one waits for the start" if service.min_replicas == 0 else ""
    yield f"    minReplicas: {service.min_replicas}{f'  # servers{zero}' if zero else ''}"
    if not is_canary:  # KServe refuses it
        yield f"    maxReplicas: {service.max_replicas}"
    yield f"    timeout: {TIMEOUT + 5}  # seconds; the server itself answers 504 after {TIMEOUT}"
    yield "    annotations:  # of the pods"
    if service.version:
        yield f'      {VERSION_ANNOTATION}: "{service.version}"  # of the files; /v2/models/{service.name} has it, too'
    yield '      serving.kserve.io/enable-prometheus-scraping: "false"  # KServe\'s own would name a port that nobody listens on'
    yield '      prometheus.io/scrape: "true"'
    yield f'      prometheus.io/port: "{_PORT}"'
    yield "      prometheus.io/path: /metrics"
    if service.service_account:
        yield f"    serviceAccountName: {service.service_account}  # KServe reads the object store's secret from it"
    if service.mode == "Standard":
        grace = service.drain + TIMEOUT + 5
        yield "    automountServiceAccountToken: false  # the server asks Kubernetes nothing"
        yield f"    terminationGracePeriodSeconds: {grace}  # --drain, then the longest request"
        yield "    securityContext: {runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000, seccompProfile: {type: RuntimeDefault}}"
    yield "    containers:"
    yield "      - name: kserve-container  # KServe's name for the server"
    yield f"        image: {service.image}"
    yield "        command: [python, -m, serving, serve]"
    yield "        args:"
    yield from (f"          - {json.dumps(word)}" for word in _arguments(service))
    yield from _environment(service)
    yield "        ports:"
    yield f"          - {{name: http1, containerPort: {_PORT}, protocol: TCP}}"
    yield "        readinessProbe:  # the model is loaded and has answered an example"
    yield f"          httpGet: {{path: /v2/health/ready, port: {_PORT}}}"
    yield "          periodSeconds: 5"
    yield "          timeoutSeconds: 3"
    if service.mode == "Standard":
        yield "        startupProbe:  # Python's imports: seconds with a CPU, minutes with a tenth of one"
        yield f"          httpGet: {{path: /v2/health/live, port: {_PORT}}}"
        yield "          periodSeconds: 5"
        yield "          timeoutSeconds: 5"
        yield "          failureThreshold: 60"
    yield "        livenessProbe:  # true from the start, while the model is loaded, too"
    yield f"          httpGet: {{path: /v2/health/live, port: {_PORT}}}"
    yield "          periodSeconds: 10"
    yield "          timeoutSeconds: 5"
    yield "          failureThreshold: 6"
    if service.mode != "Standard":
        yield "          initialDelaySeconds: 20  # Python's imports"
    yield "        resources:"
    amounts = f"cpu: {json.dumps(service.cpu)}, memory: {service.memory}"
    gpus = f", nvidia.com/gpu: {json.dumps(service.gpus)}" if service.gpus != "0" else ""
    yield f"          requests: {{{amounts}{gpus}}}"
    yield f"          limits: {{{amounts}{gpus}}}  # the server starts as many threads as it has CPUs"
    yield "        terminationMessagePolicy: FallbackToLogsOnError  # the pod's status then has the end of the log"
    yield "        securityContext:"
    yield "          allowPrivilegeEscalation: false"
    yield "          capabilities: {drop: [ALL]}"
    if service.mode == "Knative":  # which takes none for the pod
        yield "          runAsNonRoot: true"
        yield "          runAsUser: 1000"
        yield "          seccompProfile: {type: RuntimeDefault}"
    yield "        volumeMounts:"
    yield "          - {name: cache, mountPath: /cache}"
    yield "    volumes:"
    yield "      - {name: cache, emptyDir: {}}"


def _arguments(service: Service) -> list[str]:
    words = [f"run={MODEL_FOLDER}" if service.source is not None else f"model={service.model}"]
    if service.follow:
        words += ["--follow", service.follow]
    words += ["--name", service.name, "--host", "0.0.0.0", "--port", str(_PORT), "--log-format", "json"]
    drain = service.drain if service.mode == "Standard" else 0  # Knative's proxy waits itself
    return [*words, "--timeout", str(TIMEOUT), "--drain", str(drain)]


def _environment(service: Service) -> Iterator[str]:
    yield "        env:"
    yield "          - {name: ISOTRAIN_CACHE, value: /cache}"
    yield "          - {name: PROTOCOL, value: v2}  # tells KServe that this is the Open Inference Protocol"
    if service.source is not None:
        yield f"          - {{name: STORAGE_URI, value: {json.dumps(service.source)}}}  # KServe puts it into {MODEL_FOLDER}"
    elif service.server:
        yield f"          - {{name: MLFLOW_TRACKING_URI, value: {json.dumps(service.server)}}}"
    else:
        yield "          - name: MLFLOW_TRACKING_URI  # the registry's address"
        yield f"            valueFrom: {{configMapKeyRef: {{name: {service.config_map}, key: MLFLOW_TRACKING_URI}}}}"


def _dump(value: Any) -> list[str]:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, width=1000)).splitlines()
