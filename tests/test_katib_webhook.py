"""python -m katib check beside Katib 0.19's webhook and services, and the API server's validation.

The answers in the tables are those of Katib's validator, its suggestion services and k8s.io/kubernetes 1.34.
"""

import copy
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.test_katib_check import (
    DROPOUT,
    EPOCHS,
    HYPERBAND,
    PBT,
    algorithm,
    base,
    both,
    collector,
    container,
    first,
    line,
    parameter,
    spec,
    template,
    workers,
)

from config.errors import InputError
from katib import check, documents
from katib.experiment import Experiment
from katib.quantity import canonical_quantity, is_canonical, parse_quantity

Value = dict[str, Any]
Change = Callable[[Value], Any]


def problems(change: Change, text: str = "") -> list[str]:
    """Codes and messages of every rule that composes no command, for a change of `base`; warnings are left out."""
    value = base()
    change(value)
    (document,) = documents.parse(text or json.dumps(value), "search.yaml")
    experiment = Experiment(document)
    findings = [finding for rule in check.RULES for finding in rule.apply(experiment)]
    return [f"{row.code} {row.path}: {row.message}" for row in findings if row.level == "error"]


def pod(value: Value) -> Value:
    template_: Value = template(value)["trialSpec"]["spec"]["template"]["spec"]
    return template_


def job(value: Value) -> Value:
    job_: Value = template(value)["trialSpec"]["spec"]
    return job_


# --- YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, True) for word in ("y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE")),
        *((word, False) for word in ("n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE")),
        *((word, word) for word in ("tRUE", "yEs", "nULL", "10:00:00", "190:20:30", "1:2.5", "=", "<<", "2026-01-01")),
        *(
            (word, word)
            for word in ("1,000", "0o8", "0b2", "0x", "1e", "e3", ".", "_1", "1Gi", "1.2.3", "1e400", "inf")
        ),
        *(("12.0", 12), ("12.", 12), ("1e3", 1000), ("1.5e3", 1500), ("-0.0", 0), ("1e20", 10**20), ("1_000", 1000)),
        *(("08", 8), ("09", 9), ("010", 8), ("0o10", 8), ("0O10", 8), ("0x1F", 31), ("0X1f", 31), ("-0b11", -3)),
        *(("1e-5", 1e-5), ("-.5", -0.5), ("+.5", 0.5), ("5e-324", 5e-324), ("1e21", 1e21), ("0.1", 0.1)),
        *(("9223372036854775808", 2**63), ("123456789012345678901234567890", 1.2345678901234568e29)),
        *(("'y'", "y"), ("!!str y", "y"), ("!!str 08", "08"), ("!!timestamp 2026-01-01", "2026-01-01"), ("~", None)),
        ("[y, n]", [True, False]),
        ("{<<: {a: 1, b: 2}, a: 3}", {"b": 2, "a": 3}),
        ("{y: 1, 08: 2, 12.0: 3, a: 4}", {"true": 1, "8": 2, "12": 3, "a": 4}),
    ],
)
def test_scalars_are_those_of_go(text: str, value: Any) -> None:
    read = documents.parse(f"value: {text}\n", "a")[0].value["value"]
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize("text", [".nan", "-.inf", "{null: 1}", "{[a]: 1}", "!!set {a}"])
def test_values_without_json_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="a:1: not valid YAML"):
        documents.parse(f"value: {text}\n", "a")


def test_keys_that_yaml_reads_as_booleans_have_lines() -> None:
    document = documents.parse("a: 1\ny:\n  n: 2\n", "a")[0]
    assert document.line(("true", "false")) == 3


@pytest.mark.parametrize(
    ("source", "replacement", "code"),
    [
        ("name: search", "name: y", "K118 metadata.name"),
        ('value: "1"', "value: y", "K118 spec.algorithm"),
        ("additional: []", "additionalMetricNames: [y, n]", "K118 spec.objective.additionalMetricNames[1]"),
        ('list: ["8"]', "list: [08, 09]", "K118 spec.parameters[0].feasibleSpace.list[0]"),
        ("max: 4", "maxTrialCount: 4.5", "K118 spec.maxTrialCount"),
        ("max: 4", "maxTrialCount: 3000000000", "K118 spec.maxTrialCount"),
        ("additional: []", "metricStrategies: [null]", "K118 spec.objective.metricStrategies[0]"),
        ("name: search", "name: a\n  labels: {team: 7}", "K118 metadata.labels.team"),
        ("name: search", "name: a\n  annotations: [a]", "K118 metadata.annotations"),
    ],
)
def test_types_are_those_that_go_decodes(source: str, replacement: str, code: str) -> None:
    text = (
        "apiVersion: kubeflow.org/v1beta1\nkind: Experiment\nmetadata:\n  name: search\nspec:\n  max: 4\n"
        '  objective:\n    additional: []\n  algorithm:\n    algorithmSettings:\n    - name: a\n      value: "1"\n'
        '  parameters:\n  - name: a\n    feasibleSpace:\n      list: ["8"]\n'
    )
    assert not [row for row in problems(lambda v: None, text) if row.startswith("K118")]
    assert [row for row in problems(lambda v: None, text.replace(source, replacement)) if row.startswith(code)]


def test_whole_floats_are_integers() -> None:
    text = (
        json.dumps(base()).replace('"maxTrialCount": 4', '"maxTrialCount": 12.0').replace('"goal": 95', '"goal": 9.5')
    )
    assert problems(lambda v: None, text) == []


# --- a Job before and after decoding


def inside(part: Callable[[Value], Value], **fields: Any) -> Change:
    return lambda value: part(value).update(fields)


def volume(**source: Any) -> Change:
    return lambda value: pod(value).update(volumes=[{"name": "a", **source}])


ENV = {"name": "A"}
PROBE = {"exec": {"command": ["true"]}}
MOUNT = {"name": "a", "mountPath": "/a"}
TIME = "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "change",
    [
        inside(container, env=[{**ENV, "value": ""}]),
        *(inside(container, **{key: []}) for key in ("env", "args", "ports", "volumeMounts", "envFrom")),
        *(inside(container, **{key: ""}) for key in ("image", "workingDir", "imagePullPolicy")),
        *(inside(container, **{key: False}) for key in ("tty", "stdin", "stdinOnce")),
        *(inside(container, **{key: None}) for key in ("env", "resources", "image", "tty", "securityContext")),
        inside(container, args=[None]),
        inside(container, volumeMounts=[{**MOUNT, "readOnly": False}]),
        inside(container, volumeMounts=[{**MOUNT, "subPath": ""}]),
        *(inside(container, livenessProbe={**PROBE, key: 0}) for key in ("initialDelaySeconds", "periodSeconds")),
        inside(container, ports=[{"containerPort": 80, "hostPort": 0}]),
        inside(container, resources={"limits": {}}),
        *(inside(pod, **{key: False}) for key in ("hostNetwork", "hostPID", "hostIPC")),
        *(inside(pod, **{key: ""}) for key in ("nodeName", "serviceAccountName", "priorityClassName", "dnsPolicy")),
        *(inside(pod, **{key: []}) for key in ("volumes", "tolerations", "imagePullSecrets", "initContainers")),
        *(inside(pod, **{key: {}}) for key in ("nodeSelector", "overhead")),
        inside(pod, overhead={"memory": "1024Mi"}),
        inside(job, template={"metadata": {"creationTimestamp": None}, "spec": {}}),
        inside(lambda v: template(v)["trialSpec"], metadata={"labels": {}}),
        inside(lambda v: template(v)["trialSpec"], metadata={"creationTimestamp": None}),
        inside(lambda v: template(v)["trialSpec"], metadata={"creationTimestamp": "today"}),
        *(volume(emptyDir=value) for value in ({"medium": ""}, {"sizeLimit": "1024Mi"}, {"sizeLimit": "1.5Gi"})),
        *(volume(emptyDir={"sizeLimit": value}) for value in (1024, "1000", "0.5", "4GB", "4 Gi", "4gi", "", True)),
        volume(persistentVolumeClaim={"claimName": "a", "readOnly": False}),
        volume(configMap={"name": "a", "items": []}),
        volume(secret={"secretName": ""}),
        *(inside(container, resources={"limits": {"memory": text}}) for text in ("4GB", "4 Gi", "4gb", "4K", "x", "")),
        inside(container, resources={"requests": {"cpu": True}}),
        inside(container, livenessProbe={"httpGet": {"port": {}}}),
    ],
)
def test_values_that_go_does_not_write_again_are_refused(change: Change) -> None:
    assert [row for row in problems(change) if row.startswith("K114")]


@pytest.mark.parametrize(
    "change",
    [
        inside(container, env=[{**ENV, "value": "0"}, ENV]),
        inside(container, securityContext={"privileged": False, "readOnlyRootFilesystem": False, "runAsUser": 0}),
        inside(container, resources={}, securityContext={}),
        inside(container, resources={"limits": {"memory": "1024Mi", "cpu": 0.5}, "requests": {"cpu": "0.5"}}),
        inside(container, resources={"limits": {"memory": " 4Gi", "nvidia.com/gpu": "1"}}),
        inside(pod, securityContext={"runAsNonRoot": False, "fsGroup": 0}, automountServiceAccountToken=False),
        inside(pod, terminationGracePeriodSeconds=0, enableServiceLinks=False, hostUsers=False, priority=0),
        inside(job, backoffLimit=0, ttlSecondsAfterFinished=0, suspend=False),
        inside(lambda v: template(v)["trialSpec"], status={}, metadata={}),
        inside(lambda v: template(v)["trialSpec"], metadata={"creationTimestamp": TIME}),
        *(volume(emptyDir=value) for value in ({}, {"medium": "Memory", "sizeLimit": "1Gi"}, {"sizeLimit": "1500m"})),
        *(volume(emptyDir={"sizeLimit": text}) for text in ("0", "1e3", "12E-3", "5.", "+1Gi", "01", "1024", "-1Gi")),
        volume(hostPath={"path": "/a", "type": ""}),
        volume(image={"reference": "a"}),  # a field of Kubernetes 1.31
        volume(csi={"driver": "a", "readOnly": False, "fsType": ""}),
    ],
)
def test_values_that_go_writes_again_are_accepted(change: Change) -> None:
    assert [row for row in problems(change) if row.startswith("K114")] == []


def test_only_jobs_are_compared() -> None:
    assert problems(workers(env=[], tty=False, stdin=None)) == []
    assert problems(workers(resources={"limits": {"memory": "4GB"}}))[0].startswith("K218")


# --- quantities


@pytest.mark.parametrize(
    ("text", "written"),
    [
        *(("1024Mi", "1Gi"), ("1024Ki", "1Mi"), ("1.5Gi", "1536Mi"), ("0.5Gi", "512Mi"), ("1024Ti", "1Pi")),
        *(("1.1Gi", "1181116006400m"), ("0.1Ki", "102400m"), ("1.5Ki", "1536"), ("1.0Gi", "1Gi"), ("0Gi", "0")),
        *(("1.5", "1500m"), (".5", "500m"), ("1000m", "1"), ("1000", "1k"), ("1000000", "1M"), ("1.5G", "1500M")),
        *(("0.1m", "100u"), ("1000n", "1u"), ("0.1n", "1n"), ("1e-10", "1e-9"), ("10e2", "1e3"), ("-1024Mi", "-1Gi")),
        *((text, text) for text in ("0", "1", "500m", "4Gi", "1000Mi", "1e3", "1024", "1E", "9223372036854775808")),
        *((text, None) for text in ("", "4GB", "4 Gi", "4gi", "4K", "1e", "one", "1,5", "1_000", "0x10", "1Zi", "NaN")),
    ],
)
def test_quantities_have_gos_canonical_form(text: str, written: str | None) -> None:
    assert canonical_quantity(text) == written


@given(
    st.decimals(-(10**6), 10**6, places=3, allow_nan=False),
    st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "E-3"]),
)
def test_canonical_quantities_keep_their_value_and_form(number: Decimal, unit: str) -> None:
    written = canonical_quantity(f"{number}{unit}")
    assert written is not None
    assert parse_quantity(written) == parse_quantity(f"{number}{unit}")
    assert is_canonical(written)


# --- settings and bounds


@pytest.mark.parametrize(
    ("name", "key", "refused", "accepted"),
    [
        ("random", "random_state", ("-1", "1.0", "1e3", "", "4294967296"), ("0", "+1", "4294967295")),
        ("grid", "random_state", ("-1",), ("0",)),
        ("tpe", "random_state", ("-1", "99999999999999999999"), ("5",)),
        ("tpe", "gamma", ("-1", "0", "1", "1.5", "inf", "nan", ""), ("0.25", "1e-300")),
        ("tpe", "prior_weight", ("-1", "0", "0.0", "inf", "nan", ""), ("0.5", "2")),
        ("tpe", "n_EI_candidates", ("-1", "0", "1.0"), ("1", "24")),
        ("multivariate-tpe", "n_ei_candidates", ("-1", "0", "1e3"), ("1",)),
        ("multivariate-tpe", "n_startup_trials", ("-1", "1.0"), ("0", "5")),
        ("multivariate-tpe", "random_state", ("-1", "4294967296"), ("0",)),
        ("bayesianoptimization", "n_initial_points", ("-1", "0", "1.0"), ("1",)),
        ("bayesianoptimization", "random_state", ("-1", "4294967296"), ("0",)),
        ("bayesianoptimization", "acq_func", ("EIps", "PIps", "ei"), ("EI", "PI", "LCB", "gp_hedge")),
        ("cmaes", "random_state", ("1.0", "1e3", "", "99999999999999999999"), ("-1", "4294967296")),
        ("cmaes", "sigma", ("inf", "", "x"), ("0", "-1", "0.1")),
        ("cmaes", "restart_strategy", ("None", "", "yes"), ("ipop", "bipop", "none")),
    ],
)
def test_settings_out_of_their_services_ranges(name: str, key: str, refused: Any, accepted: Any) -> None:
    def codes(text: str) -> list[str]:
        parameters = [DROPOUT] if name == "cmaes" else []
        change = both(algorithm(name, *copy.deepcopy(parameters), **{key: text}), first(step="0.0001"))
        return [row for row in problems(change) if row.startswith("K210")]

    assert [text for text in refused if not codes(text)] == []
    assert [text for text in accepted if codes(text)] == []


@pytest.mark.parametrize("estimator", ["RF", "ET", "GBRT"])
def test_lbfgs_needs_a_gaussian_process(estimator: str) -> None:
    settings = {"acq_optimizer": "lbfgs", "base_estimator": estimator}
    assert problems(algorithm("bayesianoptimization", **settings))[0].startswith("K210")
    assert problems(algorithm("bayesianoptimization", **{**settings, "base_estimator": "GP"})) == []


ALGORITHMS = ("random", "tpe", "multivariate-tpe", "grid", "bayesianoptimization", "cmaes", "sobol")


@pytest.mark.parametrize(
    ("space", "refusing"),
    [
        ({"min": "1", "max": "16.0"}, ("multivariate-tpe", "grid", "bayesianoptimization", "cmaes", "sobol")),
        ({"min": "1.0", "max": "16"}, ("multivariate-tpe", "grid", "bayesianoptimization", "cmaes", "sobol")),
        ({"min": "1", "max": "1e1"}, ("multivariate-tpe", "grid", "bayesianoptimization", "cmaes", "sobol")),
        ({"min": "1", "max": "16", "step": "1.0"}, ("multivariate-tpe", "grid", "cmaes", "sobol")),
        ({"min": "+1", "max": "16"}, ()),
        ({"min": "5", "max": "5"}, ("random", "tpe", "bayesianoptimization", "cmaes")),
    ],
)
def test_bounds_that_a_service_does_not_read(space: dict[str, str], refusing: tuple[str, ...]) -> None:
    def codes(name: str) -> list[str]:
        change = both(algorithm(name, parameter("trainer.max_epochs", "int", **space)), first(step="0.001"))
        return [row for row in problems(change) if row.startswith("K223")]

    assert tuple(name for name in ALGORITHMS if codes(name)) == refusing


@pytest.mark.parametrize(("maximum", "count"), [("4", 0), ("4.0", 1)])
def test_hyperband_reads_bounds_as_integers(maximum: str, count: int) -> None:
    epochs = {**EPOCHS, "feasibleSpace": {"min": "1", "max": maximum}}
    rows = problems(algorithm("hyperband", epochs, **HYPERBAND, counts=(4, 5)))
    assert [row[:4] for row in rows] == ["K223"] * count


def test_cmaes_searches_a_point_with_its_own_sigma() -> None:
    epochs = parameter("trainer.max_epochs", "int", min="5", max="5")
    assert [row for row in problems(algorithm("cmaes", epochs, sigma="0.1")) if row.startswith("K223")] == []


# --- the webhook's other rules


@pytest.mark.parametrize("value", [{}, {"kind": ""}, {"kind": None}])
def test_a_collector_needs_a_kind(value: Value) -> None:
    change: Change = lambda v: spec(v).update(metricsCollectorSpec={"collector": value})  # noqa: E731
    assert problems(change)[0].startswith("K115")


@pytest.mark.parametrize("value", [{}, {"collector": None}, None])
def test_without_a_collector_it_is_stdout(value: Any) -> None:
    assert problems(lambda v: spec(v).update(metricsCollectorSpec=value)) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda v: spec(v).update(resumePolicy=""),
        collector("File", fileSystemPath={"path": "/m/m.log", "kind": "", "format": ""}),
        collector("File", fileSystemPath={"path": "/m/m.log", "kind": None, "format": None}),
    ],
)
def test_empty_values_are_katibs_defaults(change: Change) -> None:
    assert problems(change) == []


# --- pods


def mounted(*paths: str, **fields: Any) -> Change:
    """Volumes that the primary container mounts at paths."""

    def change(value: Value) -> None:
        names = [f"v{index}" for index, _ in enumerate(paths)]
        pod(value)["volumes"] = [{"name": name, "emptyDir": {}} for name in names]
        mounts = [{"name": name, "mountPath": path} for name, path in zip(names, paths, strict=True)]
        container(value).update(volumeMounts=mounts, **fields)

    return change


def resources(limits: Value | None = None, requests: Value | None = None) -> Change:
    values = {"limits": limits, "requests": requests}
    return inside(container, resources={key: value for key, value in values.items() if value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (inside(pod, restartPolicy="Always"), "a Job cannot restart 'Always'"),
        (lambda v: pod(v).pop("restartPolicy"), "the restartPolicy of the pod is missing"),
        (
            both(inside(pod, restartPolicy="OnFailure"), inside(job, podFailurePolicy={"rules": []})),
            "a podFailurePolicy excludes OnFailure",
        ),
        (inside(job, selector={"matchLabels": {"a": "b"}}), "a Job makes its selector itself"),
        (inside(job, backoffLimit=-1), "backoffLimit must be 0 or more"),
        (lambda v: container(v).pop("image"), "image is missing"),
        (inside(pod, containers=[]), "containers is missing"),
        (inside(container, volumeMounts=[{"name": "data", "mountPath": "/data"}]), "the pod has no volume data"),
        (both(mounted("/a"), inside(container, volumeMounts=[{"name": "v0"}])), "mountPath is missing"),
        (mounted("/a", "/a"), "two volumes are mounted at /a"),
        (
            both(mounted("/a"), lambda v: container(v)["volumeMounts"][0].update(subPath="../b")),
            "subPath must be relative",
        ),
        (both(mounted("/a"), lambda v: pod(v)["volumes"].append({"name": "v0"})), "two volumes have the name v0"),
        (lambda v: pod(v)["containers"].append({**container(v)}), "two containers have the name training"),
        (inside(pod, initContainers=[{"name": "Fetch", "image": "a"}]), "'Fetch' is not a name of a container"),
        (volume(emptyDir={}, secret={"secretName": "a"}), "a volume has one source"),
        (volume(persistentVolumeClaim={}), "claimName is missing"),
        (volume(configMap={"items": [{"key": "a", "path": "b"}]}), "name is missing"),
        (resources({"cpu": "1"}, {"cpu": "2"}), "the request 2 of cpu is above the limit 1"),
        (resources({"memory": "1Gi"}, {"memory": "1025Mi"}), "is above the limit 1Gi"),
        (resources({"cpu": "500m"}, {"cpu": 1}), "the request 1 of cpu is above the limit 500m"),
        (resources(None, {"nvidia.com/gpu": 1}), "the limit of nvidia.com/gpu must equal its request"),
        (resources({"nvidia.com/gpu": "0.5"}), "nvidia.com/gpu must be a whole number"),
        (resources({"gpu": 1}), "a container has no resource gpu"),
        (resources({"cpu": "-1"}), "cpu must not be negative"),
        (inside(container, imagePullPolicy="always"), "'always' is not a valid imagePullPolicy"),
        (inside(container, livenessProbe={"periodSeconds": 5}), "exactly one of"),
        (inside(container, lifecycle={"preStop": {**PROBE, "sleep": {"seconds": 1}}}), "got exec and sleep"),
        (
            inside(container, env=[{**ENV, "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
            "exclude",
        ),
        (
            inside(container, env=[{**ENV, "valueFrom": {"fieldRef": {"fieldPath": "metadata.nam"}}}]),
            "not a valid fieldPath",
        ),
        (inside(container, env=[{**ENV, "valueFrom": {}}]), "exactly one of"),
        (inside(container, ports=[{"containerPort": 70000}]), "containerPort must be between 1 and 65535"),
        (inside(pod, nodeSelector={"gpu": "a b"}), "gpu: a b is not a label"),
        (inside(pod, tolerations=[{"operator": "Equal", "value": "a"}]), "a toleration without a key"),
        (inside(pod, serviceAccountName="My Account"), "'My Account' is not a valid serviceAccountName"),
    ],
)
def test_what_the_api_server_refuses(change: Change, message: str) -> None:
    rows = problems(change)
    assert [row for row in rows if message in row and row[:4] in ("K219", "K220")], rows


@pytest.mark.parametrize(
    ("text", "count"), [("${trialParameters.lr}", 0), ("a${trialParameters.lr}", 0), ("${trialParameters.lr}-", 1)]
)
@pytest.mark.parametrize("key", ["nodeSelector", "labels", "serviceAccountName"])
def test_placeholders_are_judged_with_values_of_a_trial(key: str, text: str, count: int) -> None:
    changes: dict[str, Change] = {
        "nodeSelector": inside(pod, nodeSelector={"rate": text}),
        "labels": lambda v: template(v)["trialSpec"].update(metadata={"labels": {"rate": text}}),
        "serviceAccountName": inside(pod, serviceAccountName=text),
    }
    assert len(problems(changes[key])) == count


@pytest.mark.parametrize(
    "change",
    [
        inside(pod, restartPolicy="OnFailure"),
        both(mounted("/a", "/a/b"), lambda v: container(v)["volumeMounts"][0].update(subPath="x/y")),
        resources({"cpu": 1, "memory": "1Gi", "nvidia.com/gpu": 1}, {"cpu": "1000m", "nvidia.com/gpu": "1"}),
        resources(None, {"cpu": "2", "hugepages-2Mi": "4Mi"}),
        volume(),  # an emptyDir
        inside(pod, tolerations=[{"operator": "Exists"}, {"key": "a", "effect": "NoSchedule"}]),
        inside(container, env=[{**ENV, "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b']"}}}]),
        inside(
            job, podFailurePolicy={"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
        ),
    ],
)
def test_what_the_api_server_accepts(change: Change) -> None:
    assert problems(change) == []


def test_pods_of_other_workloads_are_checked() -> None:
    rows = problems(workers(image=None, resources={"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}))
    assert [row.split(": ")[1] for row in rows] == ["image is missing", "the request 2 of cpu is above the limit 1"]
    assert all("Worker" in row for row in rows)


# --- Katib's volumes

SCRIPT = "python {} --lr=${{trialParameters.lr}} --name=${{trialParameters.trialName}}"


def metrics(path: str, kind: str = "File") -> Change:
    return collector(kind, fileSystemPath={"path": path, "kind": "File" if kind == "File" else "Directory"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (mounted("/var/log/katib"), "a volume of its own at /var/log/katib"),
        (mounted("/var/log/katib/"), "a volume of its own at /var/log/katib"),
        (both(metrics("/tmp/model/metrics.txt"), mounted("/data", "/tmp/model")), "a volume of its own at /tmp/model"),
        (both(metrics("/tmp//model/x/../m.txt"), mounted("/tmp/model")), "a volume of its own at /tmp/model"),
        (both(metrics("/logs", "TensorFlowEvent"), mounted("/logs")), "a volume of its own at /logs"),
        (both(metrics("/app/metrics.log"), line(SCRIPT.format("/app/fit.py"))), "it hides /app/fit.py"),
        (both(metrics("/app/metrics.log"), line(SCRIPT.format("-u /app/src/fit.py"))), "it hides /app/src/fit.py"),
        (both(metrics("/app/metrics.log"), line("cd /app && " + SCRIPT.format("fit.py"))), "it hides /app/fit.py"),
        (
            both(metrics("/app/m.log"), mounted(workingDir="/app"), line(SCRIPT.format("fit.py"))),
            "it hides /app/fit.py",
        ),
        (
            both(metrics("/app/m.log"), lambda v: container(v).update(command=SCRIPT.format("/app/fit.py").split())),
            "hides",
        ),
        (both(metrics("/app", "TensorFlowEvent"), line("/app/fit ${trialParameters.lr}")), "it hides /app/fit"),
        (
            both(metrics("/app/m.log"), line("/usr/bin/python /app/fit.py ${trialParameters.lr}")),
            "it hides /app/fit.py",
        ),
    ],
)
def test_volumes_and_scripts_where_katib_mounts_its_own(change: Change, message: str) -> None:
    rows = problems(change)
    assert [row for row in rows if row.startswith("K221") and message in row], rows


@pytest.mark.parametrize(
    "change",
    [
        mounted("/var/log", "/var/log/katib/more"),
        both(collector("Push"), mounted("/var/log/katib")),
        both(metrics("/tmp/model/metrics.txt"), mounted("/tmp", "/tmp/model/weights")),
        both(metrics("/out/metrics.log"), line(SCRIPT.format("/app/fit.py"))),
        both(metrics("/app/m.log"), line(SCRIPT.format("/apple/fit.py"))),
        both(metrics("/app/m.log"), mounted("/app/src"), line(SCRIPT.format("/app/src/fit.py"))),
        both(metrics("/app/m.log"), line(SCRIPT.format("/opt/fit.py --out=/app/m.log"))),
    ],
)
def test_volumes_and_scripts_elsewhere(change: Change) -> None:
    assert [row for row in problems(change) if row.startswith("K221")] == []


def test_the_suggestions_volume_is_mounted_too() -> None:
    settings = {**PBT, "suggestion_trial_dir": "/population"}
    change = both(algorithm("pbt", counts=(5, 10), **settings), first(step="0.0001"), mounted("/population"))
    assert [row for row in problems(change) if "/population, which is suggestion_trial_dir" in row]


def test_names_that_katib_adds_to_the_pod() -> None:
    def add(name: str) -> Change:
        return lambda v: pod(v)["containers"].append({"name": name, "image": "a"})

    assert problems(add("metrics-logger-and-collector"))[0].startswith("K222")
    assert problems(add("metrics-collector")) == []
    assert problems(both(add("metrics-collector"), metrics("/e", "TensorFlowEvent")))[0].startswith("K222")
    assert problems(both(add("metrics-logger-and-collector"), collector("Push"))) == []
