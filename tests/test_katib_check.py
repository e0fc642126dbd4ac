"""python -m katib check: every rule finds what it is for, and nothing in what works."""

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from tests.command_forms import FORMS, LINE

from config import checked_json
from katib import check, composition, documents, hyperband, optimization_check, shell_command, shell_parser
from katib.experiment import Experiment, Parameter
from katib.search_space import probe_points

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted(path for path in (ROOT / "katib").glob("*.yaml") if path.stem != "kustomization")
FORWARDING = "{ trap 'kill $!; wait $!; exit $?' TERM; " + LINE + " & wait $!; }"
Value = dict[str, Any]
Change = Callable[[Value], Any]


def base() -> Value:
    """A small Experiment that has nothing wrong."""
    container = {"name": "training", "image": "isotrain:1", "command": ["sh", "-c", LINE]}
    pod = {"metadata": {"labels": {"sidecar.istio.io/inject": "false"}}}
    pod |= {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "search"},
        "spec": {
            "objective": {
                "type": "maximize",
                "objectiveMetricName": "val_f1",
                "additionalMetricNames": ["val_loss"],
                "metricStrategies": [{"name": "val_f1", "value": "max"}, {"name": "val_loss", "value": "min"}],
            },
            "algorithm": {"algorithmName": "random", "algorithmSettings": [{"name": "random_state", "value": "1"}]},
            "parallelTrialCount": 2,
            "maxTrialCount": 4,
            "maxFailedTrialCount": 2,
            "parameters": [parameter("optim.lr", "double", min="0.0001", max="0.01")],
            "trialTemplate": {
                "primaryContainerName": "training",
                "trialParameters": [
                    {"name": "lr", "reference": "optim.lr"},
                    {"name": "trialName", "reference": "${trialSpec.Name}"},
                ],
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {"backoffLimit": 0, "template": pod},
                },
            },
        },
    }


def parameter(name: str, kind: str, **space: Any) -> Value:
    return {"name": name, "parameterType": kind, "feasibleSpace": space}


def spec(value: Value) -> Value:
    found: Value = value["spec"]
    return found


def template(value: Value) -> Value:
    found: Value = value["spec"]["trialTemplate"]
    return found


def container(value: Value) -> Value:
    found: Value = template(value)["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    return found


def line(text: str) -> Change:
    return lambda value: container(value).update(command=["sh", "-c", text])


def setting(value: Value, **given: str) -> None:
    spec(value)["algorithm"]["algorithmSettings"] = [{"name": k, "value": v} for k, v in given.items()]


def algorithm(name: str, *parameters: Value, counts: tuple[int, int] = (2, 4), **given: str) -> Change:
    """Another algorithm, with its own parameters beside optim.lr, all of them used."""

    def change(value: Value) -> None:
        spec(value)["algorithm"]["algorithmName"] = name
        setting(value, **given)
        spec(value)["parallelTrialCount"], spec(value)["maxTrialCount"] = counts
        text = container(value)["command"][2]
        for index, each in enumerate(parameters):
            spec(value)["parameters"].append(each)
            template(value)["trialParameters"].append({"name": f"p{index}", "reference": each["name"]})
            text += f" {each['name']}=${{trialParameters.p{index}}}"
        if name == "hyperband":
            text += " trainer.on_divergence=report_worst"
        container(value)["command"][2] = text

    return change


def first(**changes: Any) -> Change:
    """Changes the only parameter's feasible space; None removes a key."""

    def change(value: Value) -> None:
        space = spec(value)["parameters"][0]["feasibleSpace"]
        for key, new in changes.items():
            space.pop(key, None) if new is None else space.update({key: new})

    return change


def collector(kind: str, **source: Any) -> Change:
    def change(value: Value) -> None:
        spec(value)["metricsCollectorSpec"] = {"collector": {"kind": kind}, **({"source": source} if source else {})}

    return change


def both(*changes: Change) -> Change:
    def change(value: Value) -> None:
        for each in changes:
            each(value)

    return change


EPOCHS = parameter("trainer.max_epochs", "int", min="1", max="4")
DROPOUT = parameter("model.dropout", "double", min="0.1", max="0.5")
HYPERBAND = {"r_l": "4", "eta": "2", "resource_name": "trainer.max_epochs"}
PBT = {"suggestion_trial_dir": "/population", "n_population": "5", "truncation_threshold": "0.2"}
MEDIAN = {"algorithmName": "medianstop", "algorithmSettings": [{"name": "start_step", "value": "2"}]}


def pbt(value: Value) -> None:
    algorithm("pbt", counts=(5, 10), **PBT)(value)
    first(step="0.0001")(value)
    spec(value)["resumePolicy"] = "FromVolume"


def workers(**container_: Any) -> Change:
    """A PyTorchJob with a Master and a Worker."""

    def change(value: Value) -> None:
        pod = template(value)["trialSpec"]["spec"]["template"]
        pod["spec"]["containers"][0]["name"] = "pytorch"
        other = copy.deepcopy(pod)
        other["spec"]["containers"][0].update(container_)
        replicas = {"Master": {"replicas": 1, "template": pod}, "Worker": {"replicas": 1, "template": other}}
        body = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "spec": {"pytorchReplicaSpecs": replicas}}
        template(value).update(trialSpec=body, primaryContainerName="pytorch")

    return change


def trainjob(command: str = LINE, **fields: Any) -> Change:
    """A TrainJob of two pods that names the runtime of katib/cluster/trainer."""

    def change(value: Value) -> None:
        trainer = {"numNodes": 2, "numProcPerNode": 1, "image": "isotrain:1", "command": ["sh", "-c", command]}
        body = {
            "runtimeRef": {"name": "isotrain", "kind": "TrainingRuntime", "apiGroup": "trainer.kubeflow.org"},
            "trainer": trainer,
        }
        for key, row in fields.items():
            body.update({key: row}) if key not in ("trainer",) else trainer.update(row)
        workload_ = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "spec": body}
        template(value).update(primaryContainerName="node", trialSpec=workload_)

    return change


def patch(job: str = "node", **pod: Any) -> list[Value]:
    """runtimePatches in the form that Trainer 2.2 and 2.3 take."""
    body = {"spec": {"template": {"metadata": {"labels": {"team": "a"}}, "spec": pod}}}
    spec_ = {"template": {"spec": {"replicatedJobs": [{"name": job, "template": body}]}}}
    return [{"manager": "example.com/team", "trainingRuntimeSpec": spec_}]


# Code, and a change of `base` that must bring it.
BROKEN: list[tuple[str, Change]] = [
    ("K002", lambda v: v.update(apiVersion="kubeflow.org/v1alpha3")),
    ("K101", lambda v: v["metadata"].update(name="Search")),
    ("K101", lambda v: v["metadata"].update(name="a" * 41)),
    ("K101", lambda v: v["metadata"].update(name="search-")),
    ("K101", lambda v: v.pop("metadata")),
    ("K102", lambda v: spec(v).update(maxFailedTrialCount=-1)),
    ("K102", lambda v: spec(v).update(maxTrialCount=0)),
    ("K102", lambda v: spec(v).update(parallelTrialCount=0)),
    ("K102", lambda v: spec(v).update(maxFailedTrialCount=5)),
    ("K102", lambda v: spec(v).update(parallelTrialCount=5)),
    ("K102", lambda v: (spec(v).pop("parallelTrialCount"), spec(v).update(maxTrialCount=2))),  # the default is 3
    ("K103", lambda v: spec(v).pop("objective")),
    ("K103", lambda v: spec(v)["objective"].update(type="max")),
    ("K103", lambda v: spec(v)["objective"].pop("objectiveMetricName")),
    ("K103", lambda v: spec(v)["objective"].update(additionalMetricNames=["val_f1"])),
    ("K104", lambda v: spec(v)["algorithm"].update(algorithmName="optuna")),
    ("K104", lambda v: spec(v).pop("algorithm")),
    ("K105", lambda v: spec(v).update(earlyStopping={"algorithmName": "asha"})),
    ("K106", lambda v: spec(v).update(resumePolicy="Always")),
    ("K107", lambda v: spec(v).update(parameters=[])),
    ("K107", lambda v: spec(v).update(nasConfig={"graphConfig": {}})),
    ("K108", lambda v: spec(v)["parameters"][0].update(parameterType="integer")),
    ("K108", first(distribution="loguniform")),
    ("K109", lambda v: spec(v)["parameters"][0].pop("feasibleSpace")),
    ("K109", first(list=["1"])),
    ("K109", first(max=None)),
    ("K109", lambda v: spec(v)["parameters"][0].update(parameterType="categorical")),
    ("K110", lambda v: spec(v).pop("trialTemplate")),
    ("K110", lambda v: template(v).pop("primaryContainerName")),
    ("K110", lambda v: template(v).pop("trialParameters")),
    ("K110", lambda v: template(v).pop("trialSpec")),
    ("K110", lambda v: template(v).update(configMap={"configMapName": "a"})),
    ("K110", lambda v: (template(v).pop("trialSpec"), template(v).update(configMap={"configMapName": "a"}))),
    ("K110", lambda v: template(v)["trialSpec"].update(kind="Workflow", apiVersion="argoproj.io/v1")),
    ("K111", lambda v: template(v)["trialParameters"][0].pop("reference")),
    ("K111", lambda v: template(v)["trialParameters"][0].update(name="{lr}")),
    ("K111", lambda v: template(v)["trialParameters"].append({"name": "lr", "reference": "x"})),
    ("K111", lambda v: template(v)["trialParameters"].append({"name": "other", "reference": "optim.lr"})),
    ("K111", lambda v: template(v)["trialParameters"][0].update(reference="optim.rl")),
    ("K111", lambda v: template(v)["trialParameters"][1].update(reference="${trialSpec.UID}")),
    ("K112", line("python train.py optim.lr=1 hydra.run.dir=/runs/${trialParameters.trialName}")),
    ("K112", line(LINE + " seed=${trialParameters.seed}")),
    ("K113", lambda v: template(v)["trialSpec"].update(metadata={"name": "trial"})),
    ("K113", lambda v: template(v)["trialSpec"].pop("kind")),
    ("K114", lambda v: container(v).update(comand=["x"])),
    ("K114", lambda v: container(v).update(env=[{"name": "A", "value": 1}])),
    ("K114", lambda v: template(v)["trialSpec"]["spec"].update(backoffLimit="${trialParameters.lr}")),
    ("K114", lambda v: template(v)["trialSpec"]["spec"]["template"]["spec"].update(containers={"name": "training"})),
    # Katib's own validator refuses the number, and null ("unable to convert: /metadata - <nil> to Job").
    (
        "K114",
        lambda v: template(v)["trialSpec"]["spec"]["template"]["spec"].update(
            volumes=[{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": 1073741824}}]
        ),
    ),
    ("K114", lambda v: template(v)["trialSpec"].update(metadata=None)),
    ("K115", collector("PrometheusMetric")),
    ("K115", collector("Stdout")),
    ("K115", collector("Custom")),
    ("K116", collector("File", fileSystemPath={"path": "metrics.jsonl", "kind": "File", "format": "JSON"})),
    ("K116", collector("File", fileSystemPath={"path": "/m", "kind": "Directory"})),
    ("K116", collector("File", fileSystemPath={"path": "/m", "kind": "File", "format": "YAML"})),
    ("K116", collector("File", fileSystemPath={"path": "/m", "format": "JSON"}, filter={"metricsFormat": ["(a)(b)"]})),
    ("K116", collector("TensorFlowEvent", fileSystemPath={"path": "events", "kind": "Directory"})),
    ("K116", collector("TensorFlowEvent", fileSystemPath={"path": "/e", "kind": "Directory", "format": "TEXT"})),
    ("K117", collector("File", fileSystemPath={"path": "/m"}, filter={"metricsFormat": ["([a=(b)"]})),
    ("K117", collector("File", fileSystemPath={"path": "/m"}, filter={"metricsFormat": [r"(\w+)=.*"]})),
    ("K117", collector("File", fileSystemPath={"path": "/m"}, filter={"metricsFormat": [r"(?<!/)(\w+)=(\d+)"]})),
    ("K117", collector("File", fileSystemPath={"path": "/m"}, filter={"metricsFormat": [r"((val_)?loss): ([\d.]+)"]})),
    ("K118", first(min=0.0001)),
    ("K118", lambda v: spec(v)["algorithm"].update(algorithmSettings=[{"name": "random_state", "value": 1}])),
    ("K118", lambda v: spec(v).update(maxTrialCount="4")),
    ("K118", lambda v: spec(v)["objective"].update(goal="90")),
    ("K202", lambda v: spec(v).update(maxTrials=4)),
    ("K202", lambda v: spec(v)["objective"].update(metricStrategy="max")),
    ("K203", lambda v: spec(v)["parameters"].append(DROPOUT)),
    ("K204", first(min="0.1")),
    ("K204", first(min="small")),
    ("K204", first(distribution="logUniform", min="0")),
    ("K204", first(step="0")),
    ("K204", algorithm("random", parameter("trainer.max_epochs", "int", min="1.5", max="4"))),
    ("K204", algorithm("random", parameter("seed", "discrete", list=["1", "two"]))),
    ("K204", algorithm("random", parameter("seed", "categorical", list=[], distribution="uniform"))),
    ("K204", algorithm("random", parameter("seed", "categorical", list=["1", "1"]))),
    ("K204", algorithm("random", parameter("optim.schedule", "categorical", list=['"linear"', "cosine"]))),
    ("K204", lambda v: spec(v)["parameters"].append(spec(v)["parameters"][0])),
    ("K205", lambda v: template(v).update(primaryContainerName="train")),
    ("K206", lambda v: container(v).update(command=["/bin/sh", "-c", LINE])),
    ("K206", lambda v: container(v).update(command=["bash", "-lc", LINE])),
    ("K206", lambda v: container(v).update(command=["sh", "-ec", LINE])),
    ("K206", line(LINE + "\n")),
    ("K206", line(LINE + "\necho done")),
    ("K206", line("exec " + LINE)),
    ("K206", line("cd /app && exec " + LINE)),
    ("K206", line(LINE + "  # train")),
    ("K206", line(LINE + "; echo done")),
    ("K206", line(LINE + " && echo done")),
    ("K206", line(LINE + " || true")),
    ("K206", line("X=1 exec " + LINE)),
    ("K206", both(line(LINE + " | tee /tmp/log"), lambda v: spec(v).update(earlyStopping=MEDIAN))),
    ("K206", line(LINE + " &")),
    ("K206", both(line("sleep 9 & " + FORWARDING), lambda v: spec(v).update(earlyStopping=MEDIAN))),
    ("K206", line(LINE + " model.pretrained=${oc.env:WEIGHTS}")),
    ("K206", line(LINE + " data.path=/data/(new)")),
    ("K206", lambda v: container(v).update(command=["sh", "-c", LINE, "again"])),
    ("K206", lambda v: container(v).update(command=["python", "train.py", "monitor=val f1", *LINE.split()[2:]])),
    ("K206", algorithm("random", parameter("data.path", "categorical", list=["/a", "/b;c"]))),
    ("K207", lambda v: spec(v)["objective"].update(objectiveMetricName="val/f1")),
    ("K207", lambda v: spec(v)["objective"].update(additionalMetricNames=["val.loss"])),
    ("K207", lambda v: spec(v)["objective"].update(additionalMetricNames=["a;b"])),
    ("K207", lambda v: spec(v)["objective"]["metricStrategies"][0].update(value="mean")),
    ("K207", lambda v: spec(v)["objective"]["metricStrategies"][0].update(name="f1")),
    ("K207", collector("StdOut", filter={"metricsFormat": [r"(loss)=([+-]?\d+)"]})),
    ("K208", line(LINE + " seed=${trialSpec.Name}")),
    ("K208", lambda v: template(v)["trialParameters"][1].update(reference="${trialSpec.Labels[team]}")),
    ("K209", collector("StdOut", filter={"metricsFormat": ["([a=(b)"]})),
    ("K209", collector("StdOut", filter={"metricsFormat": [r"([\w-]+)=([\d.;]+)"]})),
    ("K209", collector("StdOut", filter={"metricsFormat": [r"((val_)?f1): ([\d.]+)"]})),
    ("K209", collector("StdOut", filter={"metricsFormat": [r"([\w-]+)=([\d.]+)\Z"]})),
    ("K210", lambda v: setting(v, seed="1")),
    ("K210", lambda v: setting(v, random_state="one")),
    ("K210", algorithm("bayesianoptimization", base_estimator="gp")),
    ("K210", algorithm("cmaes", DROPOUT, restart_strategy="yes")),
    ("K211", algorithm("grid")),
    ("K211", both(algorithm("grid", counts=(2, 12)), first(min="1", max="10", step="1"))),
    ("K212", both(algorithm("bayesianoptimization"), first(min="0"))),
    ("K213", algorithm("cmaes")),
    ("K214", both(algorithm("multivariate-tpe"), first(distribution="normal"))),
    ("K215", algorithm("hyperband", EPOCHS, r_l="4", eta="2", counts=(4, 4))),
    ("K215", algorithm("hyperband", EPOCHS, **{**HYPERBAND, "resource_name": "epochs"}, counts=(4, 4))),
    ("K215", algorithm("hyperband", EPOCHS, **HYPERBAND, counts=(3, 4))),
    ("K215", algorithm("hyperband", EPOCHS, **{**HYPERBAND, "r_l": "none"}, counts=(4, 4))),
    (
        "K215",
        both(
            algorithm("hyperband", EPOCHS, **HYPERBAND, counts=(4, 4)), lambda v: spec(v).update(earlyStopping=MEDIAN)
        ),
    ),
    (
        "K215",
        algorithm(
            "hyperband", EPOCHS, parameter("model.dropout", "discrete", list=["0.1"]), **HYPERBAND, counts=(4, 4)
        ),
    ),
    ("K216", both(pbt, lambda v: setting(v, **{**PBT, "n_population": "4"}))),
    ("K216", both(pbt, lambda v: setting(v, **{**PBT, "truncation_threshold": "20"}))),
    ("K216", both(pbt, lambda v: setting(v, **{**PBT, "resample_probability": "0.2"}))),
    ("K216", both(pbt, lambda v: setting(v, n_population="5"))),
    ("K216", both(pbt, lambda v: v["metadata"].update(name="a-name-of-twenty-seven-lett"))),
    ("K216", both(pbt, lambda v: spec(v).update(resumePolicy="Never"))),
    ("K216", both(pbt, collector("Push"))),
    ("K216", both(pbt, first(step=None))),
    ("K216", both(pbt, algorithm("pbt", EPOCHS, counts=(5, 10), **PBT))),
    (
        "K217",
        lambda v: spec(v).update(earlyStopping={**MEDIAN, "algorithmSettings": [{"name": "steps", "value": "1"}]}),
    ),
    (
        "K217",
        lambda v: spec(v).update(earlyStopping={**MEDIAN, "algorithmSettings": [{"name": "start_step", "value": "0"}]}),
    ),
    ("K217", both(lambda v: spec(v).update(earlyStopping=MEDIAN), collector("Push"))),
    ("K218", workers(comand=["x"])),
    ("K219", lambda v: template(v)["trialSpec"]["spec"]["template"]["spec"].pop("restartPolicy")),
    ("K220", lambda v: container(v).update(volumeMounts=[{"name": "runs", "mountPath": "/runs"}])),
    ("K221", lambda v: container(v).update(volumeMounts=[{"name": "logs", "mountPath": "/var/log/katib"}])),
    (
        "K222",
        lambda v: template(v)["trialSpec"]["spec"]["template"]["spec"].update(volumes=[{"name": "metrics-volume"}]),
    ),
    ("K223", first(max="0.0001")),
    ("K218", trainjob(trainer={"numNode": 2})),
    ("K224", trainjob(podTemplateOverrides=[{"targetJobs": [{"name": "node"}]}])),
    ("K225", trainjob(runtimePatches=patch(containers=[{"name": "pytorch"}]))),
    ("K226", trainjob(trainer={"numNodes": 0})),
    (
        "K314",
        trainjob(
            LINE.replace("python", "torchrun"),
            trainer={"numProcPerNode": None, "resourcesPerNode": {"requests": {"cpu": "2"}}},
        ),
    ),
    ("K004", trainjob(runtimePatches=patch())),
    ("K408", both(line(LINE + " data.batch_size=7"), workers())),
    ("K228", trainjob(trainer={"env": [{"name": "PET_NNODES", "value": "2"}]})),
    ("K228", workers(name="worker")),
    ("K227", workers(command=["sh", "-c", LINE + " optim.warmup=1"])),
    ("K227", workers(command=[*LINE.split(), "model=bert"])),
    ("K313", line(LINE + " && python report.py")),
    ("K301", lambda v: spec(v)["objective"].pop("metricStrategies")),
    ("K302", algorithm("tpe")),
    ("K303", both(algorithm("cmaes", DROPOUT), first(distribution="logUniform"))),
    ("K303", first(distribution="logNormal")),
    ("K303", both(algorithm("bayesianoptimization"), first(step="0.001"))),
    ("K304", lambda v: spec(v).pop("maxTrialCount")),
    ("K304", lambda v: spec(v).pop("maxFailedTrialCount")),
    ("K305", lambda v: template(v)["trialSpec"]["spec"].pop("backoffLimit")),
    ("K306", lambda v: template(v)["trialSpec"]["spec"]["template"].pop("metadata")),
    ("K307", lambda v: container(v).pop("command")),
    ("K308", both(lambda v: spec(v).update(earlyStopping=MEDIAN), line(LINE.replace("train.py", "other.py")))),
    ("K309", line(LINE + " +model.arguments={a:1,b:2}")),
    ("K310", algorithm("hyperband", EPOCHS, **HYPERBAND, counts=(4, 8))),
    ("K311", workers(name="worker")),
    ("K312", first(min="0.0003", step="0.0002")),
    ("K312", both(algorithm("tpe"), first(min="0.0003", step="0.0002"))),
    ("K312", algorithm("random", parameter("data.batch_size", "int", min="8", max="62", step="8"))),
    ("K312", algorithm("cmaes", parameter("data.batch_size", "int", min="8", max="64", step="10"))),
    ("K312", algorithm("sobol", parameter("data.batch_size", "int", min="8", max="16"))),
    (
        "K312",
        algorithm(
            "hyperband", EPOCHS, DROPOUT | {"feasibleSpace": {"min": "0.1", "max": "0.5", "step": "0.1"}}, **HYPERBAND
        ),
    ),
    ("K312", both(algorithm("multivariate-tpe"), first(distribution="logUniform", step="0.001"))),
    ("K400", line(LINE.replace("train.py", "other.py"))),
    ("K401", line(LINE.replace("optim.lr", "optim.rl"))),
    ("K401", line(LINE + " model=berta")),
    ("K401", line(LINE + " 'data.path=/a")),
    ("K401", line(LINE + " --multirun")),
    ("K401", line(LINE + " model=resnet18")),
    ("K401", first(max="1000")),
    ("K401", algorithm("random", parameter("data.batch_size", "int", min="0", max="64"))),
    ("K401", algorithm("random", parameter("data.batch_size", "int", min="4", max="64", step="16"))),
    ("K401", algorithm("random", parameter("data.batch_size", "double", min="1", max="64"))),
    ("K401", algorithm("random", parameter("model", "categorical", list=["bert_tiny", "bert-tiny"]))),
    ("K402", lambda v: spec(v)["objective"].update(objectiveMetricName="f1")),
    ("K402", lambda v: spec(v)["objective"].update(additionalMetricNames=["val_accuracy"])),
    ("K402", lambda v: spec(v)["objective"].update(type="minimize")),
    ("K402", collector("StdOut", filter={"metricsFormat": [r"([\w-]+): ([+-]?[\d.]+)"]})),
    ("K402", collector("StdOut", filter={"metricsFormat": [r"([\w|-]+)\s*=\s*((-?\d+)(\.\d+)?)"]})),
    ("K402", collector("StdOut", filter={"metricsFormat": [r"([\w|-]+)=(\d)"]})),
    ("K403", line(LINE + " monitor=val_loss")),
    ("K404", line(LINE.replace("/${trialParameters.trialName}", "/a"))),
    ("K404", line("python train.py optim.lr=${trialParameters.lr} seed=1")),
    ("K405", collector("File", fileSystemPath={"path": "/var/log/katib/m.jsonl", "kind": "File", "format": "JSON"})),
    (
        "K405",
        both(collector("File", fileSystemPath={"path": "/m/m.jsonl"}), line(LINE + " metrics_file=/m/m.jsonl")),
    ),
    ("K406", both(algorithm("hyperband", EPOCHS, **HYPERBAND, counts=(4, 4)), line(LINE))),
    ("K407", collector("Push")),
    ("K407", line(LINE + " push_metrics=katib-db-manager.kubeflow:6789")),
]

# Changes that must bring nothing.
FINE: dict[str, Change] = {
    "base": lambda v: None,
    "exec form": lambda v: container(v).update(command=LINE.split()),
    "command and args": lambda v: container(v).update(command=["python", "train.py"], args=LINE.split()[2:]),
    "bash": lambda v: container(v).update(command=["bash", "-c", LINE]),
    "two commands": line("cd /app && " + LINE),
    "two commands, and one": line("set -e; cd $(dirname /app/x; true)\n" + LINE),
    "defaults of variables": line("export A=${A:-1} B=${B%.*} C=${#B} && " + LINE),
    "another train.py before": line("test -f train.py && cp train.py /tmp/train.py && " + LINE),
    "a pipe": line(LINE + " 2>&1 | tee /tmp/log"),
    "quantities as numbers": lambda v: container(v).update(resources={"limits": {"memory": 1073741824}}),
    "empty metadata": lambda v: template(v)["trialSpec"].update(metadata={}),
    "quoted interpolation": line(LINE + " 'model.pretrained=${oc.env:WEIGHTS,null}'"),
    "quoted symbols": line(LINE + """ 'data.path="/a;b (c) & d"'"""),
    "added and removed keys": line(LINE + " ~trainer.detect_anomaly +trainer.enable_autolog_hparams=false"),
    "goal": lambda v: spec(v)["objective"].update(goal=95),
    "meta references": lambda v: (
        template(v)["trialSpec"].update(metadata={"labels": {"team": "a"}}),
        template(v)["trialParameters"].append({"name": "team", "reference": "${trialSpec.Labels[team]}"}),
        line(LINE + " seed=1 data.path=/data/${trialParameters.team}")(v),
    ),
    "medianstop": lambda v: spec(v).update(earlyStopping=MEDIAN),
    "file": both(
        collector("File", fileSystemPath={"path": "/m/m.jsonl", "format": "JSON"}),
        line(LINE + " metrics_file=/m/m.jsonl"),
    ),
    "push": both(collector("Push"), line(LINE + " push_metrics=katib-db-manager.kubeflow:6789")),
    "grid": both(algorithm("grid", counts=(2, 4)), first(min="0.001", max="0.004", step="0.001")),
    "multivariate-tpe": both(algorithm("multivariate-tpe"), first(distribution="logUniform")),
    "bayesianoptimization": algorithm("bayesianoptimization", base_estimator="GP"),
    "cmaes": algorithm("cmaes", DROPOUT, sigma="0.1"),
    "sobol": lambda v: (algorithm("sobol")(v), spec(v)["algorithm"].pop("algorithmSettings")),
    "hyperband": algorithm("hyperband", EPOCHS, **HYPERBAND, counts=(4, 5)),
    "pbt": pbt,
    "pytorchjob": workers(),
    "trainjob": trainjob(),
    "a shell that passes SIGTERM on": line(FORWARDING),
    "and early stopping, whose signal goes to its child": both(
        line(FORWARDING), lambda v: spec(v).update(earlyStopping=MEDIAN)
    ),
    "random step": algorithm("random", parameter("data.batch_size", "int", min="16", max="64", step="16")),
    "step of a decimal": first(min="0.0003", max="0.0009", step="0.0001"),
    "named groups": collector("StdOut", filter={"metricsFormat": [r"(?P<n>[[:word:]]+)=(?P<v>[^ ]+)"]}),
    "gpus": lambda v: container(v).update(resources={"limits": {"nvidia.com/gpu": 1, "memory": "8Gi"}}),
    "own filter": collector("StdOut", filter={"metricsFormat": [r"([\w-]+)=([+-]?\d+\.?\d*(?:[Ee][+-]?\d+)?)"]}),
}


def workload(api: str, kind: str, primary: str, body: Value) -> Change:
    """Another workload, whose primary container runs a program that is not ours."""

    def change(value: Value) -> None:
        template(value).update(primaryContainerName=primary, trialSpec={"apiVersion": api, "kind": kind, "spec": body})
        template(value)["trialParameters"] = [{"name": "lr", "reference": "optim.lr"}]

    return change


def pod(name: str) -> Value:
    line = ["python3", "/opt/mnist.py", "--lr=${trialParameters.lr}"]
    return {"template": {"spec": {"containers": [{"name": name, "image": "mnist", "command": line}]}}}


# Shapes of Katib's own examples: what they may be told is a warning or a note, never an error.
SHAPES: dict[str, Change] = {
    "tfjob": workload(
        "kubeflow.org/v1", "TFJob", "tensorflow", {"tfReplicaSpecs": {"Worker": {"replicas": 2, **pod("tensorflow")}}}
    ),
    "xgboostjob": workload(
        "kubeflow.org/v1",
        "XGBoostJob",
        "xgboost",
        {"xgbReplicaSpecs": {"Master": pod("xgboost"), "Worker": {"replicas": 2, **pod("xgboost")}}},
    ),
    "mpijob": workload(
        "kubeflow.org/v1",
        "MPIJob",
        "launcher",
        {
            "slotsPerWorker": 1,
            "mpiReplicaSpecs": {"Launcher": pod("launcher"), "Worker": {"replicas": 2, **pod("worker")}},
        },
    ),
    "trainjob": workload(
        "trainer.kubeflow.org/v1alpha1",
        "TrainJob",
        "node",
        {
            "runtimeRef": {"name": "torch-distributed"},
            "trainer": {"numNodes": 2, "image": "mnist", "command": ["python3", "m.py", "--lr=${trialParameters.lr}"]},
        },
    ),
    "config map": lambda v: (
        template(v).pop("trialSpec"),
        template(v).update(
            configMap={"configMapName": "a", "configMapNamespace": "b", "templatePath": "c"},
            successCondition="status.succeeded",
            failureCondition="status.failed",
        ),
    ),
    "event files": collector("TensorFlowEvent", fileSystemPath={"path": "/logs", "kind": "Directory"}),
    "custom collector": lambda v: spec(v).update(
        metricsCollectorSpec={
            "collector": {"kind": "Custom", "customCollector": {"name": "mine", "image": "collector"}},
            "source": {
                "fileSystemPath": {"path": "/m.log", "kind": "File"},
                "filter": {"metricsFormat": [r"([\w|-]+)\s*=\s*((-?\d+)(\.\d+)?)"]},
            },
        }
    ),
    "odd names with a filter": lambda v: (
        collector("StdOut", filter={"metricsFormat": [r"(\w+\s\w+)\s:\s((-?\d+)(\.\d+)?)"]})(v),
        line(LINE.replace("train.py", "other.py"))(v),
        spec(v)["objective"].update(objectiveMetricName="valid_1 auc", additionalMetricNames=[], metricStrategies=[]),
    ),
    "quotes for the shell": lambda v: container(v).update(
        command=["python3", "-u", "trial.py"],
        args=['--settings="${trialParameters.lr}"', "--name=${trialParameters.trialName}"],
    ),
    "network search": lambda v: (
        spec(v).update(nasConfig={"graphConfig": {"numLayers": 8}}, parameters=[]),
        spec(v)["algorithm"].update(
            algorithmName="enas", algorithmSettings=[{"name": "controller_hidden_size", "value": "64"}]
        ),
        template(v)["trialParameters"].append({"name": "arch", "reference": "architecture"}),
        line("python3 -u enas.py --lr=${trialParameters.lr} ${trialParameters.arch} ${trialParameters.trialName}")(v),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_of_katibs_own_examples_are_accepted(name: str) -> None:
    assert [f"{each.code} {each.path}: {each.message}" for each in found(SHAPES[name]) if each.level == "error"] == []


def found(change: Change) -> list[Any]:
    value = base()
    change(value)
    text = yaml.safe_dump(value, sort_keys=False, width=10_000)
    return [
        finding for each in documents.parse(text, "search.yaml") for finding in check.check_experiment(Experiment(each))
    ]


@pytest.mark.parametrize(("code", "change"), BROKEN, ids=[f"{i}-{code}" for i, (code, _) in enumerate(BROKEN)])
def test_each_rule_finds_what_it_is_for(code: str, change: Change) -> None:
    findings = [each for each in found(change) if each.code == code]
    assert findings, [f"{each.code} {each.message}" for each in found(change)]
    for each in findings:
        level = {"K3": "warning", "K1": "error", "K2": "error"}.get(code[:2])
        assert level in (None, each.level)
        assert each.message
        assert each.line > 0
        assert not re.search(r"<class|Traceback|object at", each.message)


@pytest.mark.parametrize("form", FORMS)
def test_verdicts_on_shell_forms_are_those_of_a_real_katib(form: str) -> None:
    words, succeeded = FORMS[form]
    rows = [row for row in found(lambda value: container(value).update(command=words)) if row.level != "note"]
    assert (rows == []) is succeeded, rows
    assert {row.level for row in rows} <= {"error"}


def test_every_rule_is_tested() -> None:
    # Not YAML, no kubernetes package, repeated keys: below; a large search space: tests/test_limits.py; secrets: tests/test_secrets.py.
    # OptimizationJobs: tests/test_optimization_job.py.
    elsewhere = {"K001", "K003", "K005", "K201", "K315"} | {rule.code for rule in optimization_check.ALL_RULES}
    assert {code for code, _ in BROKEN} | elsewhere == set(check.TITLES)


@pytest.mark.parametrize("name", FINE)
def test_what_works_brings_nothing(name: str) -> None:
    assert [f"{each.code} {each.path}: {each.message}" for each in found(FINE[name])] == []


def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command_ = [sys.executable, "-m", "katib", *arguments]
    return subprocess.run(command_, capture_output=True, text=True, cwd=ROOT, check=False, **more)


def test_shipped_experiments_have_nothing_wrong(tmp_path: Path) -> None:
    assert len(SHIPPED) == 18
    done = run("check", *map(str, SHIPPED))
    assert (done.returncode, done.stdout) == (0, ""), done.stdout
    assert done.stderr == "18 Experiments checked, 0 errors, 0 warnings\n"


def test_shipped_experiments_are_what_their_own_commands_make(tmp_path: Path) -> None:
    for path in SHIPPED:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    done = run("new", "--again", *(str(tmp_path / path.name) for path in SHIPPED))
    assert done.returncode == 0, done.stderr
    for path in SHIPPED:
        made = (tmp_path / path.name).read_text(encoding="utf-8").replace(str(tmp_path), "katib")
        assert made == path.read_text(encoding="utf-8"), path.name


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_experiments_load_in_both_sdks(path: Path) -> None:
    from kubeflow.katib import ApiClient, V1beta1Experiment
    from kubeflow_katib_api import models

    value = yaml.safe_load(path.read_text(encoding="utf-8"))
    typed = models.V1beta1Experiment.from_dict(value)
    assert typed is not None
    again = typed.to_dict()
    assert again["spec"]["trialTemplate"]["trialSpec"] == value["spec"]["trialTemplate"]["trialSpec"]
    assert again["spec"]["parameters"] == value["spec"]["parameters"]

    class Response:
        data = json.dumps(value)

    sdk = ApiClient().deserialize(Response(), "V1beta1Experiment")
    assert isinstance(sdk, V1beta1Experiment)
    assert sdk.spec.objective.objective_metric_name == value["spec"]["objective"]["objectiveMetricName"]
    assert ApiClient().sanitize_for_serialization(sdk)["spec"]["algorithm"] == value["spec"]["algorithm"]


def test_what_is_shipped_is_what_was_asked_for() -> None:
    found = [Experiment(documents.read(str(path))[0]) for path in SHIPPED]
    every = {"random", "multivariate-tpe", "bayesianoptimization", "cmaes", "hyperband"}
    for task, metric in (("questions", "val_f1"), ("images", "val_accuracy")):
        mine = [each for each in found if each.name.startswith(task)]
        assert every <= {each.algorithm for each in mine}
        assert {each.objective for each in mine} == {metric}
        assert any(each.early_stopping == "medianstop" for each in mine)
    texts = [each for each in found if each.name.startswith("texts")]
    assert {(each.name, each.algorithm, each.objective) for each in texts} == {
        ("texts-random", "random", "val_accuracy"),
        ("texts-tpe", "multivariate-tpe", "val_accuracy"),
    }
    assert {"grid", "pbt"} <= {each.algorithm for each in found}
    assert any((each.collector, each.metrics_format) == ("File", "JSON") for each in found)
    assert any(each.collector == "Push" for each in found)
    assert {each.kind for each in found} == {"Job", "PyTorchJob", "TrainJob"}
    for each in found:
        assert {"val_loss", "train_examples_per_second", "peak_memory_mib"} <= set(each.metrics)
        for place, container_ in each.containers():
            if each.kind != "TrainJob":
                assert container_["lifecycle"]["preStop"]
                assert container_["resources"]["limits"]
                assert container_["securityContext"]["allowPrivilegeEscalation"] is False
                assert each.mapping(*place[:-2])["securityContext"]["runAsNonRoot"] is True


@pytest.mark.parametrize(("metric", "level"), [("val_loss", "error"), ("train_loss", "error"), ("val_f1", "warning")])
def test_filters_are_tried_with_every_form_that_is_printed(metric: str, level: str) -> None:
    def change(value: Value) -> None:
        spec(value)["objective"].update(additionalMetricNames=[metric] if metric != "val_f1" else [])
        spec(value)["objective"]["metricStrategies"] = [{"name": m, "value": "max"} for m in {"val_f1", metric}]
        collector("StdOut", filter={"metricsFormat": [r"([\w|-]+)\s*=\s*((-?\d+)(\.\d+)?)"]})(value)

    (finding,) = [row for row in found(change) if row.code == "K402" and metric in row.message]
    assert finding.level == level
    assert finding.message == f"the filter reads {metric}=1e-05 in train.py's output as '1'"


def test_place_and_mend_are_said(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        SHIPPED[0].read_text(encoding="utf-8").replace("parameterType: double", "parameterType: integer", 1)
    )
    done = run("check", str(path))
    assert done.returncode == 2
    number = path.read_text().splitlines().index("      parameterType: integer") + 1
    assert (
        f"{path}:{number}: error K108 spec.parameters[0].parameterType: 'integer' is not a parameter type"
        in done.stdout
    )
    assert "    fix: use int" in done.stdout


def test_what_hydra_fails_on_is_a_finding() -> None:
    """`optim=[2]` is a TypeError inside of Hydra."""
    message = composition._compose(["optim=[2]", "seed=1"])["message"]
    assert (
        message
        == "optim=[2]: cannot be composed (TypeError: argument of type 'int' is not iterable): check the choices"
    )


def test_a_value_that_does_not_compose_is_reported_at_its_own_parameter() -> None:
    change = algorithm("random", parameter("data.batch_size", "double", min="1", max="64"))
    findings = [finding for finding in found(change) if finding.code == "K401"]
    assert [finding.message.partition(":")[0] for finding in findings] == [
        "data.batch_size=32.5",
        "data.batch_size=1.0",
        "data.batch_size=64.0",
    ]
    assert {finding.path for finding in findings} == {"spec.parameters[1].feasibleSpace"}


def test_machines_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        SHIPPED[0].read_text(encoding="utf-8").replace("parameterType: double", "parameterType: integer", 1)
    )
    told = json.loads(run("check", str(path), "--format", "json").stdout)
    assert told["error"] == sum(each["level"] == "error" for each in told["findings"]) >= 1
    assert set(told["findings"][0]) == {"code", "level", "file", "line", "path", "message", "mend"}
    sarif = json.loads(run("check", str(path), "--format", "sarif").stdout)
    assert sarif["version"] == "2.1.0"
    result = sarif["runs"][0]["results"][0]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == path.as_posix()
    assert place["region"]["startLine"] == told["findings"][0]["line"]
    assert {each["id"] for each in sarif["runs"][0]["tool"]["driver"]["rules"]} >= {result["ruleId"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\n", "not valid YAML"),
        ("", "the file is empty"),
        ("kind: Job\n", "is not an Experiment"),
        ("- a\n- b\n", "is not an Experiment"),
        ("!!python/object/apply:os.system [true]\n", "not valid YAML"),
    ],
)
def test_what_is_no_experiment_is_told_apart(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    done = run("check", str(path))
    assert done.returncode == 2
    assert said in done.stdout
    assert "Traceback" not in done.stderr


def test_missing_files_and_standard_input(tmp_path: Path) -> None:
    done = run("check", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert "no such file" in done.stdout
    assert run("check", "-", input=SHIPPED[0].read_text(encoding="utf-8")).returncode == 0


def test_repeated_keys_are_found() -> None:
    text = SHIPPED[0].read_text(encoding="utf-8").replace("  maxTrialCount:", "  maxTrialCount: 2\n  maxTrialCount:")
    findings = check.check_experiment(Experiment(documents.parse(text, "a.yaml")[0]))
    assert [(each.code, each.path) for each in findings] == [("K201", "spec.maxTrialCount")]


@pytest.mark.parametrize(
    "change",
    [
        lambda v: spec(v)["objective"].update(metricStrategies=[{"name": ["a"], "value": "max"}]),
        lambda v: template(v)["trialSpec"].update(metadata={"labels": {1.5: 2}}),
        lambda v: template(v)["trialSpec"].update(metadata=["a"]),
        lambda v: template(v)["trialSpec"].update(spec=["a"]),
        lambda v: spec(v).update(parameters={"name": "a"}),
        lambda v: spec(v).update(algorithm="random"),
        lambda v: v.update(spec="everything"),
        lambda v: v.update(metadata="search"),
        first(step="1e-320"),
        first(min=[1]),
        line(""),
    ],
)
def test_odd_shapes_are_findings_and_no_crashes(change: Change) -> None:
    assert all(each.line > 0 and each.message for each in found(change))


def test_numbers_are_those_of_go() -> None:
    value = documents.parse("[1e-5, 1E3, .5e-1, 1.5, 10, '1e-5', 2026-01-01, on]", "a")[0].value
    assert value == [1e-5, 1000.0, 0.05, 1.5, 10, "1e-5", "2026-01-01", True]


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    code = "import sys; from katib.__main__ import main; main(['check', 'katib/images-random.yaml']); " + (
        "print([m for m in ('torch', 'lightning', 'transformers', 'timm', 'optuna', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_compositions_are_remembered_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"ISOTRAIN_CACHE": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    path = str(ROOT / "katib" / "images-push.yaml")
    assert run("check", path, env=environment).returncode == 0
    (stored,) = (tmp_path / "compositions").iterdir()
    kept = checked_json.read(stored)
    assert len(kept) > 5
    # What is in the store is believed: the second time nothing is composed.
    checked_json.write(stored, {key: {**value, "message": "from the store"} for key, value in kept.items()})
    done = run("check", path, env=environment)
    assert done.returncode == 2
    assert "from the store" in done.stdout
    stored.write_text("torn {")
    assert run("check", path, env=environment).returncode == 0


# --- the parts


@pytest.mark.parametrize(
    ("settings", "count", "brackets"),
    [
        ({"r_l": "9"}, 9, [[(9, 1), (3, 3), (1, 9)], [(5, 3), (2, 9)], [(3, 9)]]),
        ({"r_l": "4", "eta": "2"}, 4, [[(4, 1), (2, 2), (1, 4)], [(3, 2), (2, 4)], [(3, 4)]]),
        ({"r_l": "1", "eta": "3"}, 1, [[(1, 1)]]),
    ],
)
def test_hyperband_plans_as_katib_does(settings: dict[str, str], count: int, brackets: list[Any]) -> None:
    assert hyperband.initial_trials(settings) == count
    assert list(hyperband.plan_brackets(settings)) == brackets


def test_points_are_ends_middles_and_choices() -> None:
    lr = Parameter("lr", "double", "0.0001", "0.01", "", (), "logUniform", ())
    size = Parameter("size", "discrete", "", "", "", ("8", "16", "32"), "uniform", ())
    epochs = Parameter("epochs", "int", "1", "4", "", (), "uniform", ())
    points = probe_points([lr, size, epochs], "random")
    assert points[0] == {"lr": "0.001", "size": "16", "epochs": "2"}
    assert {point["size"] for point in points} == {"8", "16", "32"}
    assert {point["lr"] for point in points} == {"0.0001", "0.001", "0.01"}
    assert {"lr": "0.0001", "size": "8", "epochs": "1"} in points
    assert {"lr": "0.01", "size": "32", "epochs": "4"} in points
    assert len(points) == len({json.dumps(point) for point in points}) == 9


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20), min_size=1, max_size=5))
@example(["if"])
def test_quoted_words_come_back_as_they_were(words: list[str]) -> None:
    """Behind a program: shlex does not quote keywords, which are keywords as a command's first word."""
    import shlex

    commands = shell_parser.iter_commands(shell_parser.parse(shlex.join(["echo", *words])))
    assert [[word.text for word in command.words] for _, command in commands] == [["echo", *words]]
    assert shell_command.train_overrides(["sh", "-c", shlex.join(["python", "train.py", *words])]) == words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python -u train.py a=1", ["a=1"]),
        ("cd /app && python /app/train.py a=1 2>&1", ["a=1"]),
        ("torchrun --nproc-per-node=2 train.py a=1 'b=[1,2]'", ["a=1", "b=[1,2]"]),
        ("python train.py a=1 || true", ["a=1"]),
        ("python other.py a=1", []),
    ],
)
def test_overrides_are_found_in_shell_lines(text: str, expected: list[str]) -> None:
    assert shell_command.train_overrides(["sh", "-c", text]) == expected


def own_task(folder: Path, monitor: str = "val_error") -> dict[str, str]:
    """The environment of a task that lives in a folder, with a model and data."""
    for group in ("task", "model", "data"):
        (folder / "conf" / group).mkdir(parents=True, exist_ok=True)
    task = {"name": "angles", "module": "angles.task", "monitor": monitor}
    metrics = {name: {"mode": "min", "worst": 1000.0} for name in ("val_loss", "val_error")}
    (folder / "conf" / "task" / "angles.yaml").write_text(yaml.safe_dump(task | {"metrics": metrics}))
    model = (ROOT / "conf" / "model" / "resnet18.yaml").read_text().replace("image_classification", "angles")
    (folder / "conf" / "model" / "angle.yaml").write_text(model)
    data = (ROOT / "conf" / "data" / "shapes.yaml").read_text().replace("task: image_classification", "task: angles")
    (folder / "conf" / "data" / "angles.yaml").write_text(data)
    (folder / "angles").mkdir(exist_ok=True)
    (folder / "angles" / "__init__.py").touch()
    (folder / "angles" / "task.py").write_text("LIBRARY = 'timm'\n")
    path = os.pathsep.join([str(ROOT / "src"), str(folder)])
    return {**os.environ, "ISOTRAIN_CONF": str(folder / "conf"), "PYTHONPATH": path}


def test_an_experiment_of_ones_own_task_is_written_and_checked(tmp_path: Path) -> None:
    """What was composed with one configuration folder is not taken for what another would give."""
    environment = own_task(tmp_path)
    asked = ["model=angle", "data=angles", "optim.lr=uniform(0.001,0.01)", "optim.warmup=choice(1,5)"]
    done = run("new", *asked, env=environment)
    assert done.returncode == 0, done.stderr
    value = yaml.safe_load(done.stdout)
    assert value["metadata"]["name"] == "search-random"  # its task says no EXPERIMENT
    assert value["spec"]["objective"]["objectiveMetricName"] == "val_error"
    (tmp_path / "angles" / "task.py").write_text("LIBRARY = 'timm'\nEXPERIMENT = 'angles'\n")
    path = tmp_path / "search.yaml"
    assert run("new", *asked, "-o", str(path), env=environment).returncode == 0
    assert yaml.safe_load(path.read_text())["metadata"]["name"] == "angles-random"
    assert run("check", str(path), env=environment).returncode == 0
    own_task(tmp_path, monitor="val_loss")
    done = run("check", str(path), env=environment)
    assert "K403" in done.stdout
    assert "best val_loss" in done.stdout
    del environment["ISOTRAIN_CONF"]
    done = run("check", str(path), env=environment)
    assert (done.returncode, "no such choice" in done.stdout) == (2, True), done.stdout + done.stderr
    done = run("check", str(path), env={**environment, "ISOTRAIN_CONF": str(tmp_path / "none")})
    assert (done.returncode, "ISOTRAIN_CONF" in done.stderr) == (2, True), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
