"""Trials that are PyTorchJobs and TrainJobs: their fields, patches, processes and resources, as the real APIs take them."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.test_katib_check import (
    LINE,
    ROOT,
    Change,
    algorithm,
    base,
    both,
    container,
    found,
    line,
    parameter,
    patch,
    run,
    template,
    trainjob,
    workers,
)

from config.errors import InputError
from katib import check, documents
from katib.api_types import API_VERSIONS, fields, workload_type
from katib.experiment import Experiment
from katib.resources import Resources, change_resources
from katib.run import CLUSTER_CODES, load_checked
from katib.schema import iter_objects, job_problems
from katib.trial_processes import prepare_launch
from katib.trials import Trial

OLD = ROOT / "tests" / "fixtures" / "shipped_2026_11" / "katib" / "images-trainjob.yaml"
RUNTIME = ROOT / "katib" / "cluster" / "trainer" / "runtime.yaml"
TORCHRUN = LINE.replace("python", "torchrun")
LABELS = {"sidecar.istio.io/inject": "false"}


def experiment(change: Change) -> Experiment:
    value = base()
    change(value)
    (document,) = documents.parse(json.dumps(value), "search.yaml")
    return Experiment(document)


def errors(change: Change) -> list[str]:
    """Codes, paths and messages of the errors that need no composition."""
    rows = [finding for rule in check.RULES for finding in rule.apply(experiment(change))]
    return [f"{row.code} {row.path}: {row.message}; {row.fix}" for row in rows if row.level == "error"]


# --- fields

FULL = trainjob(
    runtimePatches=patch(
        containers=[{"name": "node", "volumeMounts": [{"name": "a", "mountPath": "/a"}], "securityContext": {}}],
        volumes=[{"name": "a", "persistentVolumeClaim": {"claimName": "a"}}],
        securityContext={"runAsUser": 1000},
        tolerations=[{"operator": "Exists"}],
    ),
    initializer=None,
    trainer={"env": [{"name": "A", "value": "1"}], "resourcesPerNode": {"limits": {"cpu": "4"}}},
)
POLICY = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]}


def full_job(value: Any) -> None:
    template(value)["trialSpec"]["spec"]["podFailurePolicy"] = copy.deepcopy(POLICY)


def full_pytorchjob(value: Any) -> None:
    workers()(value)
    body = template(value)["trialSpec"]["spec"]
    body["runPolicy"] = {"schedulingPolicy": {"minResources": {"cpu": "4"}}, "cleanPodPolicy": "None"}


KINDS: Mapping[str, tuple[Change, str, str]] = {
    "Job": (full_job, "K114", "Kubernetes 1.34"),
    "PyTorchJob": (full_pytorchjob, "K218", "the training operator 1.9"),
    "TrainJob": (FULL, "K218", "Trainer 2.1 to 2.3"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_that_the_api_does_not_have_is_refused_wherever_it_is(kind: str) -> None:
    change, code, api = KINDS[kind]
    assert errors(change) == []
    trial = template(experiment(change).value)["trialSpec"]
    objects = list(iter_objects(trial, (), workload_type(trial["apiVersion"], kind)))
    assert len(objects) >= {"Job": 9, "PyTorchJob": 12, "TrainJob": 18}[kind]
    for path, owner, _ in objects:
        changed = copy.deepcopy(trial)
        place = changed
        for part in path:
            place = place[part]
        place["misspelt"] = "x"
        value = base()
        change(value)
        template(value)["trialSpec"] = changed
        (document,) = documents.parse(json.dumps(value), "search.yaml")
        rule = next(rule for rule in check.RULES if rule.code == code)
        expected = "Kubernetes 1.34" if owner.startswith("V1") else api
        messages = [finding.message for finding in rule.apply(Experiment(document)) if finding.level == "error"]
        assert any(f"has no field misspelt (checked against {expected})" in row for row in messages), (path, messages)


def test_fields_that_versions_have_lost_are_refused_with_what_replaces_them() -> None:
    overrides = [{"targetJobs": [{"name": "node"}], "containers": [{"name": "node"}]}]
    cases = {
        "podSpecOverrides": (
            overrides,
            "Trainer 2.0 had it; use podTemplateOverrides in 2.1, runtimePatches since 2.2",
        ),
        "podTemplateOverrides": (overrides, "Trainer 2.1 had it; use runtimePatches since 2.2, or a TrainingRuntime"),
        "labels": ({"team": "a"}, "Trainer 2.0 and 2.1 had it; use metadata of the TrainJob"),
        "annotations": ({"team": "a"}, "Trainer 2.0 and 2.1 had it; use metadata of the TrainJob"),
    }
    for key, (value, message) in cases.items():
        (row,) = errors(trainjob(**{key: value}))
        assert row.startswith(f"K224 spec.trialTemplate.trialSpec.spec.{key}: ")
        assert message in row
    assert "Trainer 2.2 and 2.3 take whole numbers only" in " ".join(
        errors(trainjob(trainer={"numProcPerNode": "auto"}))
    )
    claims = [{"name": "a", "source": {"resourceClaimName": "b"}}]
    rows = errors(lambda value: template(value)["trialSpec"]["spec"]["template"]["spec"].update(resourceClaims=claims))
    assert any("use resourceClaimName or resourceClaimTemplateName" in row for row in rows)


def test_check_refuses_without_strict(tmp_path: Path) -> None:
    value = base()
    trainjob(podSpecOverrides=[])(value)
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(value))
    done = run("check", str(path))
    assert done.returncode == 2
    assert "K224" in done.stdout


@pytest.mark.parametrize("kind", ["Job", "PyTorchJob", "TrainJob"])
def test_another_version_of_the_api_is_refused(kind: str) -> None:
    def change(value: Any) -> None:
        KINDS[kind][0](value)
        template(value)["trialSpec"]["apiVersion"] = "kubeflow.org/v2beta1"

    assert any(f"use {API_VERSIONS[kind]}" in row for row in errors(change))


def test_fields_of_newer_versions_are_notes() -> None:
    rows = [
        row for row in found(trainjob(runtimePatches=patch(terminationGracePeriodSeconds=60))) if row.code == "K004"
    ]
    assert [row.level for row in rows] == ["note", "note"]
    assert "since Trainer 2.2" in rows[0].message
    assert "since Trainer 2.3" in rows[1].message


def test_types_inside_newer_fields_are_checked() -> None:
    rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": ["1"]}}
    rows = errors(lambda value: container(value).update(restartPolicyRules=[rule]))
    assert any("restartPolicyRules[0].exitCodes.values[0]" in row for row in rows)
    assert all(fields(name) for name in ("ContainerRestartRule", "V1Container", "KubeflowOrgV1TFJob", "TrainJob"))


# --- patches


@pytest.mark.parametrize(
    ("patches", "message"),
    [
        (patch("nodes"), "the runtime has no job nodes; use node"),
        (patch("trainer-node"), "the runtime has no job trainer-node"),
        (patch(containers=[{"name": "training"}]), "the runtime's job has no container training; use node"),
        (patch(initContainers=[{"name": "prepare"}]), "the runtime's job has no container prepare"),
        (patch(containers=[{"name": "node", "env": [{"name": "A", "value": "1"}]}]), "move them to trainer.env"),
        ([{**patch()[0], "manager": "isotrain"}], "is no path with a domain"),
        ([{"trainingRuntimeSpec": {}}], "manager is missing"),
        (patch(lifecycle={}), "has no field lifecycle"),
        (patch(containers=[{"name": "node", "resources": {}}]), "has no field resources"),
    ],
)
@pytest.mark.parametrize("runtime", ["isotrain", "torch-distributed"])
def test_a_patch_that_reaches_nothing_is_refused(patches: list[Any], message: str, runtime: str) -> None:
    reference = {"runtimeRef": {"name": runtime}} if runtime != "isotrain" else {}
    rows = errors(trainjob(runtimePatches=patches, **reference))
    assert [row for row in rows if message in row], rows


def test_names_of_an_unknown_runtime_are_not_judged() -> None:
    change = trainjob(runtimePatches=patch("launcher"), runtimeRef={"name": "mpi"})
    assert errors(change) == []
    assert any("the runtime mpi are not known here" in row.message for row in found(change))


# --- processes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (trainjob(trainer={"numNodes": 0}), "numNodes must be 1 or more, got 0"),
        (trainjob(trainer={"numNodes": -1}), "numNodes must be 1 or more, got -1"),
        (trainjob(trainer={"numProcPerNode": 0}), "numProcPerNode must be 1 or more, got 0"),
        (trainjob(trainer={"numProcPerNode": 2}), "starts one process in each pod, and numProcPerNode is 2"),
        (
            both(full_pytorchjob, lambda v: replicas(v)["Worker"].update(replicas=0)),
            "replicas must be 1 or more, got 0",
        ),
        (
            both(full_pytorchjob, lambda v: replicas(v)["Master"].update(replicas=2)),
            "a PyTorchJob has one Master, got 2",
        ),
        (
            both(full_pytorchjob, lambda v: replicas(v).update(Chief=replicas(v)["Worker"])),
            "no replicas of the type Chief",
        ),
        (both(line(TORCHRUN), full_pytorchjob), "without nprocPerNode torchrun starts as many processes"),
        (
            both(full_pytorchjob, lambda v: job(v).update(nprocPerNode="2")),
            "one process in each pod, and nprocPerNode is 2",
        ),
        (both(full_pytorchjob, lambda v: job(v).update(nprocPerNode=2)), "the value must be a string"),
    ],
)
def test_numbers_of_processes_that_cannot_work_are_refused(change: Change, message: str) -> None:
    rows = errors(change)
    assert [row for row in rows if message in row], rows


def job(value: Any) -> Any:
    return template(value)["trialSpec"]["spec"]


def replicas(value: Any) -> Any:
    return job(value)["pytorchReplicaSpecs"]


@pytest.mark.parametrize(
    "change",
    [
        trainjob(trainer={"numNodes": 1}),
        trainjob(TORCHRUN, trainer={"numProcPerNode": 2}),
        both(both(line(TORCHRUN), full_pytorchjob), lambda v: job(v).update(nprocPerNode="2")),
        both(line(TORCHRUN.replace("torchrun", "torchrun --nproc-per-node=2")), full_pytorchjob),
        both(full_pytorchjob, lambda v: job(v).update(nprocPerNode="1")),
        both(full_pytorchjob, lambda v: replicas(v).pop("Worker")),
    ],
)
def test_numbers_of_processes_that_work_are_taken(change: Change) -> None:
    assert errors(change) == []


def sized(values: Sequence[str] = (), algorithm_: str = "random", **space: str) -> Change:
    row = {"list": list(values)} if values else space
    size = parameter("data.batch_size", "discrete" if values else "int", **row)
    return algorithm(algorithm_, size)


@pytest.mark.parametrize(
    ("search", "sizes"),
    [
        (sized(["8", "16", "32"]), "8, 16, 32"),
        (sized(min="6", max="30"), "7"),
        (sized(min="6", max="30", step="6"), ""),
    ],
)
@pytest.mark.parametrize("kind", ["PyTorchJob", "TrainJob", "torchrun", "Job"])
def test_a_batch_that_the_processes_cannot_share_is_refused(search: Change, sizes: str, kind: str) -> None:
    """Three processes; a Job has one."""

    def change(value: Any) -> None:
        search(value)
        command = container(value)["command"][2]
        if kind == "PyTorchJob":
            workers()(value)
            replicas(value)["Worker"]["replicas"] = 2
        elif kind == "TrainJob":
            trainjob(command, trainer={"numNodes": 3})(value)
        elif kind == "torchrun":
            trainjob(command.replace("python", "torchrun"), trainer={"numNodes": 1, "numProcPerNode": 3})(value)

    rows = [row for row in found(change) if row.code == "K408"]
    expected = [f"the 3 processes of a trial cannot share a batch of {sizes}"] if sizes and kind != "Job" else []
    assert [row.message for row in rows] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--kind", "PyTorchJob", "--processes", "1"),
            "--processes 1: a PyTorchJob has at least 2 processes; one process",
        ),
        (("--kind", "TrainJob", "--processes", "0"), "--processes 0: a TrainJob has at least 1 process"),
        (("--processes", "2"), "--processes 2: a Job has one process"),
        (("--kind", "TrainJob", "--processes", "3"), "cannot share a batch of 8"),
        (("--memory", "4"), "--memory 4: write an amount with its unit, such as 4Gi or 500Mi"),
        (("--cpu", "many"), "--cpu many: write an amount"),
        (("--gpus", "-1"), "--gpus must be 0 or more"),
    ],
)
def test_new_refuses_numbers_that_cannot_work(options: Sequence[str], message: str) -> None:
    done = run(
        "new", "model=bert_tiny", "data=squad_sample", "data.batch_size=8", "optim.lr=uniform(0.001,0.01)", *options
    )
    assert done.returncode == 2
    assert message in done.stderr


# --- resources


def test_resources_are_options_of_new() -> None:
    options = ("--cpu", "1500m", "--memory", "1.5Gi", "--gpus", "2", "--kind", "TrainJob", "--processes", "1")
    done = run("new", "model=bert_tiny", "data=squad_sample", "optim.lr=uniform(0.001,0.01)", *options)
    assert done.returncode == 0, done.stderr
    trainer = yaml.safe_load(done.stdout)["spec"]["trialTemplate"]["trialSpec"]["spec"]["trainer"]
    amounts = {"cpu": "1500m", "memory": "1.5Gi", "nvidia.com/gpu": "2"}
    assert trainer["resourcesPerNode"] == {"requests": amounts, "limits": amounts}
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (1, 1)


@pytest.mark.parametrize("name", ["questions-tpe", "questions-pytorchjob", "images-trainjob"])
def test_resources_reach_every_process(name: str) -> None:
    changed = Experiment(documents.read(str(ROOT / "katib" / f"{name}.yaml"))[0])
    change_resources(changed, Resources(cpu="2", gpus=1))
    rows = [row for _, row in changed.containers()]
    assert len(rows) == (2 if name == "questions-pytorchjob" else 1)
    for row in rows:
        resources = row.get("resources") or row["resourcesPerNode"]
        assert resources["requests"] == {"cpu": "2", "memory": "2Gi", "nvidia.com/gpu": "1"}
        assert resources["limits"] == {"cpu": "2", "memory": "8Gi", "nvidia.com/gpu": "1"}
    change_resources(changed, Resources(gpus=0))
    assert "nvidia.com/gpu" not in yaml.safe_dump(changed.value)


def test_another_gpu_keeps_its_name() -> None:
    changed = experiment(lambda value: container(value).update(resources={"limits": {"amd.com/gpu": 1}}))
    change_resources(changed, Resources(gpus=2))
    assert [row["resources"]["limits"] for _, row in changed.containers()] == [{"amd.com/gpu": "2"}]


def test_requests_fit_a_node_of_two_processors() -> None:
    """Three trials, their collectors of 50m each, and half a processor of other pods."""
    for path in sorted((ROOT / "katib").glob("*-*.yaml")):
        search = Experiment(documents.read(str(path))[0])
        for _, row in search.containers():
            requests = (row.get("resources") or row["resourcesPerNode"])["requests"]
            assert 3 * (int(requests["cpu"].removesuffix("m")) + 50) + 500 <= 2000
            assert 3 * int(requests["memory"].removesuffix("Gi")) <= 6


# --- the runtime


def test_the_runtime_has_what_a_job_has() -> None:
    runtime = yaml.safe_load(RUNTIME.read_text())
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["name"] == "node"
    assert replicated["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    assert list(job_problems(replicated["template"], ("template",), "V1JobTemplateSpec")) == []
    trial = yaml.safe_load((ROOT / "katib" / "questions-tpe.yaml").read_text())["spec"]["trialTemplate"]["trialSpec"][
        "spec"
    ]
    own, pod, expected = replicated["template"]["spec"], replicated["template"]["spec"]["template"], trial["template"]
    assert own["backoffLimit"] == 0
    assert own["podFailurePolicy"]["rules"][0] == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget"}],
    }
    assert own["podFailurePolicy"]["rules"][1]["onExitCodes"] == {
        "containerName": "node",
        "operator": "In",
        "values": [138, 143],
    }
    assert pod["metadata"]["labels"] == expected["metadata"]["labels"] == LABELS
    for key in ("restartPolicy", "terminationGracePeriodSeconds", "securityContext", "volumes"):
        assert pod["spec"][key] == expected["spec"][key]
    uid = {"name": "ISOTRAIN_JOB_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['jobset.sigs.k8s.io/jobset-uid']"}}}  # fmt: skip
    others = [row for row in expected["spec"]["containers"][0]["env"] if row["name"] != "ISOTRAIN_JOB_UID"]
    assert pod["spec"]["containers"][0]["env"] == [*others, uid]
    for key in ("image", "volumeMounts", "lifecycle", "securityContext"):
        assert pod["spec"]["containers"][0][key] == expected["spec"]["containers"][0][key]
    reference = yaml.safe_load((ROOT / "katib" / "images-trainjob.yaml").read_text())
    spec = reference["spec"]["trialTemplate"]["trialSpec"]["spec"]
    assert spec["runtimeRef"] == {
        "name": runtime["metadata"]["name"], "kind": runtime["kind"], "apiGroup": runtime["apiVersion"].partition("/")[0]
    }  # fmt: skip
    assert set(spec) == {"runtimeRef", "trainer"}  # what 2.1, 2.2 and 2.3 all have


# --- on this machine


def launch(change: Change, folder: Path) -> Any:
    trial = Trial("a", 0, "Pending", {"optim.lr": "0.001"})
    return prepare_launch(experiment(change), trial, folder, {}, [], (0, 1))


def test_a_trainjob_starts_a_process_for_each_pod(tmp_path: Path) -> None:
    prepared = launch(trainjob(trainer={"numNodes": 3}), tmp_path)
    assert len(prepared.commands) == len(prepared.environments) == 3
    assert [row["PET_NODE_RANK"] for row in prepared.environments] == ["0", "1", "2"]
    assert {(row["PET_NNODES"], row["PET_NPROC_PER_NODE"]) for row in prepared.environments} == {("3", "1")}
    assert "echo completed" in prepared.commands[0][-1]
    assert all("echo completed" not in row[-1] for row in prepared.commands[1:])


@pytest.mark.parametrize(
    ("change", "processes"),
    [
        (trainjob(TORCHRUN), "2"),
        (trainjob(TORCHRUN, trainer={"numProcPerNode": 2}), "4"),
        (trainjob(TORCHRUN, trainer={"numProcPerNode": None, "resourcesPerNode": {"requests": {"cpu": "4"}}}), "2"),
        (both(both(line(TORCHRUN), full_pytorchjob), lambda v: job(v).update(nprocPerNode="2")), "4"),
    ],
)
def test_one_torchrun_starts_all_processes(change: Change, processes: str, tmp_path: Path) -> None:
    prepared = launch(change, tmp_path)
    assert len(prepared.commands) == 1
    assert (prepared.environments[0]["PET_NNODES"], prepared.environments[0]["PET_NPROC_PER_NODE"]) == ("1", processes)
    assert "WORLD_SIZE" not in prepared.environments[0]


def test_an_experiment_for_an_older_trainer_runs_on_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """What the cluster's Trainer would drop has no meaning here."""
    assert load_checked(str(OLD), no_check=False, accepted=CLUSTER_CODES).name == "images-trainjob"
    assert "podTemplateOverrides" in capsys.readouterr().err
    with pytest.raises(InputError, match="has 1 error"):
        load_checked(str(OLD), no_check=False)
