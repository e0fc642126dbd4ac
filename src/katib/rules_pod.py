"""Rules of the API server for the workload of a trial (validation of k8s.io/kubernetes 1.34).

The API server checks a workload only when Katib creates a trial, long after it accepted the Experiment.
"""

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from katib import shell_command
from katib.api_types import required_fields
from katib.documents import Document, YamlPath
from katib.experiment import SOURCE, SPEC, TEMPLATE, Experiment, substitute
from katib.findings import Problem, Rule
from katib.quantity import parse_quantity
from katib.rules_algorithm import SETTINGS
from katib.schema import iter_objects
from katib.search_space import probe_points
from katib.shell_parser import ShellSyntaxError, iter_commands

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_DOMAIN_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
# What the OpenAPI document calls required and the API server does not ask for, and the other way round.
_OPTIONAL = (
    *("V1HTTPHeader.value", "V1PodFailurePolicy.rules", "V1PodFailurePolicyOnPodConditionsPattern.status"),
    *("V1PreferredSchedulingTerm.preference", "V1Sysctl.value"),
)
_REQUIRED = {
    "V1ConfigMapEnvSource": ("name",),
    "V1ConfigMapKeySelector": ("name",),
    "V1ConfigMapProjection": ("name",),
    "V1ConfigMapVolumeSource": ("name",),
    "V1Container": ("image",),
    "V1EphemeralVolumeSource": ("volumeClaimTemplate",),
    "V1ExecAction": ("command",),
    "V1PersistentVolumeClaimSpec": ("accessModes", "resources"),
    "V1SecretEnvSource": ("name",),
    "V1SecretKeySelector": ("name",),
    "V1SecretProjection": ("name",),
    "V1SecretVolumeSource": ("secretName",),
}
_HANDLERS = ("exec", "grpc", "httpGet", "sleep", "tcpSocket")
_ONE_OF = {
    "V1DownwardAPIVolumeFile": ("fieldRef", "resourceFieldRef"),
    "V1EnvFromSource": ("configMapRef", "secretRef"),
    "V1EnvVarSource": ("configMapKeyRef", "fieldRef", "fileKeyRef", "resourceFieldRef", "secretKeyRef"),
    "V1LifecycleHandler": _HANDLERS,
    "V1PodFailurePolicyRule": ("onExitCodes", "onPodConditions"),
    "V1Probe": _HANDLERS,
}
_CHOICES: Mapping[str, Sequence[str]] = {
    "V1Container.imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "V1Container.terminationMessagePolicy": ("File", "FallbackToLogsOnError"),
    "V1ContainerPort.protocol": ("TCP", "UDP", "SCTP"),
    "V1HTTPGetAction.scheme": ("HTTP", "HTTPS"),
    "V1HostPathVolumeSource.type": (
        *("", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"),
    ),
    "V1JobSpec.completionMode": ("NonIndexed", "Indexed"),
    "V1JobSpec.podReplacementPolicy": ("TerminatingOrFailed", "Failed"),
    "V1LabelSelectorRequirement.operator": ("In", "NotIn", "Exists", "DoesNotExist"),
    "V1NodeSelectorRequirement.operator": ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"),
    "V1PodFailurePolicyOnExitCodesRequirement.operator": ("In", "NotIn"),
    "V1PodFailurePolicyOnPodConditionsPattern.status": ("True", "False", "Unknown"),
    "V1PodFailurePolicyRule.action": ("FailJob", "FailIndex", "Ignore", "Count"),
    "V1PodSecurityContext.fsGroupChangePolicy": ("OnRootMismatch", "Always"),
    "V1PodSpec.dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "V1SeccompProfile.type": ("RuntimeDefault", "Unconfined", "Localhost"),
    "V1Toleration.effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    "V1Toleration.operator": ("Exists", "Equal"),
    "V1TopologySpreadConstraint.whenUnsatisfiable": ("DoNotSchedule", "ScheduleAnyway"),
    "V1VolumeMount.mountPropagation": ("None", "HostToContainer", "Bidirectional"),
}
# Least and largest value of integers; others are 0 or more.
_RANGES: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("containerPort", "hostPort", "port"), (1, 65535)),
    **dict.fromkeys(("defaultMode", "mode"), (0, 0o777)),
    **dict.fromkeys(("priority", "terminationGracePeriodSeconds", "tolerationSeconds"), (-(2**63), 2**63)),
    "maxSkew": (1, 2**31 - 1),
    "weight": (1, 100),
}
# Forms of texts, and an example of each.
_FORMS: Mapping[str, tuple[re.Pattern[str], str]] = {
    **dict.fromkeys(
        (
            *("V1ConfigMapEnvSource.name", "V1ConfigMapKeySelector.name", "V1SecretEnvSource.name"),
            *("V1SecretKeySelector.name", "V1PodSpec.priorityClassName", "V1PodSpec.runtimeClassName"),
            "V1PodSpec.serviceAccountName",
        ),
        (_DOMAIN_NAME, "lower-case letters, digits, dashes and dots"),
    ),
    "V1ObjectFieldSelector.fieldPath": (
        re.compile(
            r"metadata\.(name|namespace|uid|labels|annotations|(labels|annotations)\['[^']+'\])"
            r"|spec\.(nodeName|serviceAccountName)|status\.(hostIP|hostIPs|podIP|podIPs)"
        ),
        "metadata.name or metadata.labels['key']",
    ),
    "V1ResourceFieldSelector.resource": (
        re.compile(r"(limits|requests)\.(cpu|memory|ephemeral-storage|hugepages-.+)"),
        "limits.cpu or limits.memory",
    ),
}
_RESOURCES = ("cpu", "memory", "ephemeral-storage")  # resources of a container whose names have no domain
_SCRIPT = re.compile(r".+\.(py|sh|bash|r|R|jl|pl|js|jar|ipynb)")


def _job(experiment: Experiment) -> Iterator[Problem]:
    if experiment.kind != "Job":
        return
    path = (*TEMPLATE, "spec", "template", "spec")
    policy = experiment.get(*path, "restartPolicy")
    if policy not in ("Never", "OnFailure"):
        message = "the restartPolicy of the pod is missing" if policy is None else f"a Job cannot restart {policy!r}"
        yield (*path, "restartPolicy"), message, "use restartPolicy: Never"
    elif policy != "Never" and experiment.get(*TEMPLATE, "spec", "podFailurePolicy") is not None:
        yield (*path, "restartPolicy"), f"a podFailurePolicy excludes {policy}", "use restartPolicy: Never"
    if experiment.get(*TEMPLATE, "spec", "selector") and not experiment.get(*TEMPLATE, "spec", "manualSelector"):
        yield (*TEMPLATE, "spec", "selector"), "a Job makes its selector itself", "remove the selector"
    yield from _object_problems(experiment.get(*TEMPLATE), TEMPLATE, "V1Job")


def _pods(experiment: Experiment) -> Iterator[Problem]:
    if experiment.kind == "TrainJob":  # the runtime has its pod
        yield from _object_problems(experiment.get(*TEMPLATE), TEMPLATE, "TrainJob")
        return
    for path in dict.fromkeys(path[:-2] for path, _ in experiment.containers()):
        pod = experiment.mapping(*path)
        if experiment.kind != "Job":
            yield from _object_problems(pod, path, "V1PodSpec")
        groups = [(*path, group) for group in ("containers", "initContainers")]
        rows = [((*group, index), row) for group in groups for index, row in enumerate(experiment.items(*group))]
        containers = [(row_path, row) for row_path, row in rows if isinstance(row, dict)]
        items = enumerate(experiment.items(*path, "volumes"))
        volumes = [((*path, "volumes", index), row) for index, row in items if isinstance(row, dict)]
        yield from _name_problems(containers, "container")
        yield from _name_problems(volumes, "volume")
        for volume_path, volume in volumes:
            sources = [key for key, value in volume.items() if key != "name" and value is not None]
            if len(sources) > 1:
                yield volume_path, f"a volume has one source, got {', '.join(sources)}", "make several volumes"
        names = [volume.get("name") for _, volume in volumes]
        for container_path, container in containers:
            yield from _mount_problems(container, container_path, names)
            yield from _resource_problems(container.get("resources"), (*container_path, "resources"))


def _object_problems(value: Any, path: YamlPath, kind: str) -> Iterator[Problem]:
    """Return missing fields and invalid values in an object and everything inside it."""
    for child_path, child_kind, fields in iter_objects(value, path, kind):
        for key in (*required_fields(child_kind), *_REQUIRED.get(child_kind, ())):
            if fields.get(key) in (None, "", []) and f"{child_kind}.{key}" not in _OPTIONAL:
                yield (*child_path, key), f"{key} is missing", f"add {key}"
        if options := _ONE_OF.get(child_kind):
            keys = [key for key in options if fields.get(key) is not None]
            if len(keys) != 1:
                message = f"exactly one of {', '.join(options)} must be set, got {' and '.join(keys) or 'none'}"
                yield child_path, message, "set one of them"
        if child_kind == "V1EnvVar" and fields.get("value") and fields.get("valueFrom") is not None:
            yield child_path, "value and valueFrom exclude each other", "remove one of them"
        if child_kind == "V1Toleration" and not fields.get("key") and fields.get("operator") != "Exists":
            yield child_path, "a toleration without a key needs operator: Exists", "add key or operator"
        for key, field in fields.items():
            if field is not None:
                yield from _field_problems(field, (*child_path, key), f"{child_kind}.{key}")


def _field_problems(field: Any, path: YamlPath, name: str) -> Iterator[Problem]:
    """Return what is invalid in a field; its name is the type of its object and its key, e.g. V1Job.metadata."""
    key = str(path[-1])
    choices = _CHOICES.get(name)
    if choices and field and field not in choices:
        yield path, f"{field!r} is not a valid {key}", f"use {' or '.join(choice for choice in choices if choice)}"
    pattern, example = _FORMS.get(name, (None, ""))
    if pattern and field and not pattern.fullmatch(str(field)):
        yield path, f"{field!r} is not a valid {key}", f"use {example}"
    low, high = _RANGES.get(key, (0, 2**63))
    if isinstance(field, int) and not isinstance(field, bool) and not low <= field <= high:
        bounds = f"between {low} and {high}" if high < 2**31 - 1 else f"{low} or more"
        yield path, f"{key} must be {bounds}, got {field}", f"use {bounds}"
    if key in ("labels", "matchLabels", "nodeSelector") and isinstance(field, dict):
        yield from _label_problems(field, path)


def _label_problems(labels: Mapping[str, Any], path: YamlPath) -> Iterator[Problem]:
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not (value is None or _LABEL_VALUE.fullmatch(str(value))):
            message = f"{key}: {value} is not a label"
            yield (
                (*path, key),
                message,
                "use at most 63 letters, digits, -, _ and ., with a letter or digit at the ends",
            )


def _name_problems(rows: Sequence[tuple[YamlPath, Mapping[str, Any]]], kind: str) -> Iterator[Problem]:
    names: set[str] = set()
    for path, row in rows:
        name = row.get("name")
        if isinstance(name, str) and name and not _NAME.fullmatch(name):
            fix = "use at most 63 lower-case letters, digits and dashes"
            yield (*path, "name"), f"{name!r} is not a name of a {kind}", fix
        if name and name in names:
            yield (*path, "name"), f"two {kind}s have the name {name}", f"give every {kind} its own name"
        names.add(str(name))


def _mount_problems(container: Mapping[str, Any], path: YamlPath, volumes: Sequence[Any]) -> Iterator[Problem]:
    paths: set[str] = set()
    for index, mount in enumerate(_mounts(container)):
        mount_path = (*path, "volumeMounts", index)
        name, target, inner = mount.get("name"), mount.get("mountPath"), str(mount.get("subPath") or "")
        if name and name not in volumes:
            yield (*mount_path, "name"), f"the pod has no volume {name}", f"add {name} to the pod's volumes"
        if target and target in paths:
            yield (*mount_path, "mountPath"), f"two volumes are mounted at {target}", "mount one of them elsewhere"
        if inner.startswith("/") or ".." in inner.split("/"):
            yield (*mount_path, "subPath"), f"subPath must be relative and without .., got {inner}", "correct it"
        paths.add(str(target))


def _mounts(container: Mapping[str, Any]) -> list[dict[str, Any]]:
    mounts = container.get("volumeMounts")
    return [mount for mount in mounts if isinstance(mount, dict)] if isinstance(mounts, list) else []


def _resource_problems(resources: Any, path: YamlPath) -> Iterator[Problem]:
    if not isinstance(resources, dict):
        return
    quantities: dict[str, dict[str, Decimal]] = {"limits": {}, "requests": {}}
    for group, values in quantities.items():
        rows = resources.get(group)
        for name, text in rows.items() if isinstance(rows, dict) else ():
            value = parse_quantity(text)
            if "/" not in name and name not in _RESOURCES and not name.startswith("hugepages-"):
                fix = f"use {', '.join(_RESOURCES)}, or a name with a domain such as nvidia.com/gpu"
                yield (*path, group, name), f"a container has no resource {name}", fix
            elif value is not None and value < 0:
                yield (*path, group, name), f"{name} must not be negative, got {text}", "use 0 or more"
            elif value is not None and "/" in name and value != int(value):
                yield (*path, group, name), f"{name} must be a whole number, got {text}", "use a whole number"
            if value is not None:
                values[name] = value
    for name, request in quantities["requests"].items():
        limit = quantities["limits"].get(name)
        text = resources["requests"][name]
        if limit is not None and request > limit:
            message = f"the request {text} of {name} is above the limit {resources['limits'][name]}"
            yield (*path, "requests", name), message, "use a request of at most the limit"
        elif "/" in name and request != limit:
            message = f"the limit of {name} must equal its request, which is {text}"
            yield (*path, "requests", name), message, "set the limit alone"


def _mounted_folders(experiment: Experiment) -> Iterator[Problem]:
    """Volumes and scripts at folders where Katib mounts a volume (its pod webhook, pkg/webhook/v1beta1/pod)."""
    primary, population = experiment.primary, experiment.settings.get("suggestion_trial_dir")
    if primary is None or experiment.kind == "TrainJob" or experiment.collector == "Push":
        return
    path, container = primary
    folders = {
        "the folder of the metrics": (experiment.metrics_folder, (*SOURCE, "fileSystemPath", "path")),
        "suggestion_trial_dir": (posixpath.normpath(population) if population else "", SETTINGS),
    }
    mounts = [posixpath.normpath(str(mount.get("mountPath"))) for mount in _mounts(container)]
    for role, (folder, folder_path) in folders.items():
        if folder in mounts:
            message = f"Katib mounts a volume of its own at {folder}, which is {role}: it cannot be where yours is"
            location = (*path, "volumeMounts", mounts.index(folder), "mountPath")
            yield location, message, "mount yours elsewhere, or let the metrics have a folder of their own"
            continue
        # A volume inside the folder is mounted after Katib's and stays visible.
        inner = [mount for mount in mounts if _is_inside(mount, folder)]
        for script in _scripts(experiment, container):
            if _is_inside(script, folder) and not any(_is_inside(script, mount) for mount in inner):
                message = f"Katib mounts an empty volume at {folder}, which is {role}: it hides {script}"
                yield folder_path, message, "use a folder without anything else, e.g. /var/log/katib"


def _scripts(experiment: Experiment, container: Mapping[str, Any]) -> Iterator[str]:
    """Return the absolute paths of the programs and scripts in the primary container's command."""
    folder = container.get("workingDir") or ""
    try:
        pipelines = shell_command.parse_words(experiment.command)
    except ShellSyntaxError:
        return  # K206 and K401 report it
    for _, command in iter_commands(pipelines):
        words = [word.text for word in shell_command.call_words(command)]
        if words[:1] == ["cd"] and len(words) > 1:
            folder = posixpath.join(folder, words[1])
            continue
        for index, word in enumerate(words):
            target = posixpath.normpath(posixpath.join(folder, word))
            is_program = _SCRIPT.fullmatch(word) or (index == 0 and "/" in word)
            if is_program and posixpath.isabs(target) and "=" not in word and not word.startswith("-"):
                yield target


def _is_inside(path: str, folder: str) -> bool:
    return folder.startswith("/") and path.startswith("/") and posixpath.commonpath([path, folder]) == folder


def _added_names(experiment: Experiment) -> Iterator[Problem]:
    """Names that Katib's pod webhook adds to the pod of the primary container."""
    if experiment.primary is None or experiment.kind == "TrainJob" or experiment.collector == "Push":
        return
    is_text = experiment.collector in ("StdOut", "File")
    names = {"containers": ["metrics-logger-and-collector" if is_text else "metrics-collector"], "volumes": []}
    names["volumes"] += ["metrics-volume"] if experiment.metrics_folder else []
    names["volumes"] += ["suggestion-volume"] if experiment.settings.get("suggestion_trial_dir") else []
    path = experiment.primary[0][:-2]
    for group, added in names.items():
        for index, row in enumerate(experiment.items(*path, group)):
            if isinstance(row, dict) and row.get("name") in added:
                message = f"Katib adds a {group[:-1]} of this name to the pod"
                yield (*path, group, index, "name"), message, "use another name"


def _of_trial(rule: Callable[[Experiment], Iterator[Problem]]) -> Callable[[Experiment], Iterator[Problem]]:
    """Return a rule that judges the template with the values of a trial in place of its placeholders."""

    def apply(experiment: Experiment) -> Iterator[Problem]:
        return rule(_fill_template(experiment))

    return apply


def _fill_template(experiment: Experiment) -> Experiment:
    """Return an Experiment whose template has the values of a trial; the same one if there are none."""
    if not experiment.mapping(*TEMPLATE):
        return experiment
    try:
        points = probe_points(experiment.parameters, experiment.algorithm)
        workload = substitute(experiment, "trial", points[0], "default")
    except ValueError:
        return experiment  # other rules report it
    specification = experiment.mapping(SPEC)
    template = {**specification["trialTemplate"], "trialSpec": workload}
    value = {**experiment.value, SPEC: {**specification, "trialTemplate": template}}
    return Experiment(Document(experiment.document.file, value, experiment.document.lines))


RULES = (
    Rule("K219", "error", "the API server accepts the trial's Job", _of_trial(_job)),
    Rule("K220", "error", "the API server accepts the trial's pods", _of_trial(_pods)),
    Rule("K221", "error", "Katib's volumes hide nothing", _of_trial(_mounted_folders)),
    Rule("K222", "error", "the pod does not have the names that Katib adds", _of_trial(_added_names)),
)
