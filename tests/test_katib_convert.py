"""python -m katib convert: an Experiment as an OptimizationJob, and back."""

import copy
import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import optimization_job_cases as table
from tests.conftest import ROOT, Run
from tests.optimization_job_cases import Value
from tests.test_katib_check import base as experiment_base
from tests.test_optimization_job import document, errors

from katib import (
    documents,
    experiment_from_job,
    job_from_experiment,
    optimization_job,
    optimization_schema,
    shell_command,
)
from katib.experiment import Experiment, substitute, trial_view
from katib.train_job_template import runtime_pod


def convert_to_job(value: Value) -> tuple[Value, list[Any]]:
    (parsed,) = documents.parse(optimization_job.format_yaml(value), "e.yaml")
    return job_from_experiment.build_job(Experiment(parsed))


def trial_words(experiment: Experiment, point: dict[str, str]) -> list[str]:
    """What runs in a trial, after Kubernetes has expanded variables: argv, or the shell's words."""
    view = trial_view(experiment, substitute(experiment, "t", point, "n"))
    variables = {**shell_command.environment(view.primary[1] if view.primary else {}), "KATIB_TRIAL_NAME": "t"}
    return [shell_command.expand(word, variables) for word in view.command]


def job_words(job: Value, point: dict[str, str]) -> list[str]:
    """The same of a trial of an OptimizationJob, as its controller makes it."""
    trainer = job["spec"]["trainJobTemplate"]["spec"]["trainer"]
    variables = {f"{optimization_job.VARIABLE}{name}": value for name, value in point.items()}
    variables |= {
        row["name"]: row.get("value", "t") for row in trainer.get("env", []) if isinstance(row.get("value", "t"), str)
    }
    return [shell_command.expand(word, variables) for word in [*trainer["command"], *trainer.get("args", [])]]


def test_a_job_becomes_the_same_train_job() -> None:
    value = experiment_base()
    job, differences = convert_to_job(value)
    assert not [row for row in differences if row[0] == "error"]
    assert errors(job) == []
    spec = job["spec"]
    assert spec["objectives"] == [{"metric": "val_f1", "direction": "Maximize"}]
    assert spec["searchAlgorithm"] == {"random": {"seed": 1}}
    assert (spec["numTrials"], spec["parallelTrials"]) == (4, 2)
    assert spec["parameters"] == [
        {"name": "optim_lr", "searchSpace": {"uniform": {"min": "0.0001", "max": "0.01", "type": "Float"}}}
    ]
    assert job_words(job, {"optim_lr": "0.5"}) == ["sh", "-c", "python train.py optim.lr=0.5 hydra.run.dir=/runs/t"]
    said = " ".join(message for _, _, message, _ in differences)
    assert "optim.lr is optim_lr" in said
    assert "val_loss need not be named" in said
    assert "failed trials do not end an OptimizationJob" in said


def space(**value: Any) -> Any:
    return lambda e: e["spec"]["parameters"][0].update(value)


def container(value: Value) -> Value:
    row: Value = value["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    return row


def pod(value: Value) -> Value:
    row: Value = value["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    return row


def collector(kind: str, **source: Any) -> Any:
    return lambda e: e["spec"].update(metricsCollectorSpec={"collector": {"kind": kind}, **source})


FILE = {"source": {"fileSystemPath": {"path": "/tmp/m.json", "kind": "File", "format": "JSON"}}}
# What an OptimizationJob cannot express: (change of an Experiment, path of the error).
LOST: dict[str, tuple[Any, str]] = {
    "algorithm": (lambda e: e["spec"].update(algorithm={"algorithmName": "multivariate-tpe"}), "spec.algorithm.algorithmName"),
    "early stopping": (lambda e: e["spec"].update(earlyStopping={"algorithmName": "medianstop"}), "spec.earlyStopping"),
    "resume policy": (lambda e: e["spec"].update(resumePolicy="LongRunning"), "spec.resumePolicy"),
    "goal": (lambda e: e["spec"]["objective"].update(goal=90), "spec.objective.goal"),
    "trials": (lambda e: e["spec"].update(maxTrialCount=101), "spec.maxTrialCount"),
    "no limit of trials": (lambda e: e["spec"].pop("maxTrialCount"), "spec.maxTrialCount"),
    "strategy": (
        lambda e: e["spec"]["objective"]["metricStrategies"][0].update(value="min"),
        "spec.objective.metricStrategies",
    ),
    "collector": (collector("File", **FILE), "spec.metricsCollectorSpec.collector.kind"),
    "push": (collector("Push"), "spec.metricsCollectorSpec.collector.kind"),
    "condition": (
        lambda e: e["spec"]["trialTemplate"].update(successCondition="status.succeeded"),
        "spec.trialTemplate.successCondition",
    ),
    "step": (space(feasibleSpace={"min": "0", "max": "1", "step": "0.5"}), "spec.parameters[0].feasibleSpace.step"),
    "normal": (
        space(feasibleSpace={"min": "0", "max": "1", "distribution": "normal"}),
        "spec.parameters[0].feasibleSpace.distribution",
    ),
    "choices": (
        space(parameterType="discrete", feasibleSpace={"list": [str(i) for i in range(101)]}),
        "spec.parameters[0].feasibleSpace",
    ),
    "long choice": (space(parameterType="categorical", feasibleSpace={"list": ["x" * 65]}), "spec.parameters[0].feasibleSpace"),
    "long name": (
        lambda e: (
            e["spec"]["parameters"][0].update(name="n" * 65),
            e["spec"]["trialTemplate"]["trialParameters"][0].update(reference="n" * 65),
        ),
        "spec.parameters[0].name",
    ),
    "namespace": (
        lambda e: (
            e["spec"]["trialTemplate"]["trialParameters"].append({"name": "ns", "reference": "${trialSpec.Namespace}"}),
            container(e)["command"].__setitem__(2, container(e)["command"][2] + "/${trialParameters.ns}"),
        ),
        "spec.trialTemplate.trialParameters[2].reference",
    ),
    "parameter in a variable": (
        lambda e: container(e).update(env=[{"name": "LR", "value": "${trialParameters.lr}"}]),
        "spec.trialTemplate.trialSpec",
    ),
    "parameter in the image": (lambda e: container(e).update(image="i:${trialParameters.lr}"), "spec.trialTemplate.trialSpec"),
    "parameter after a dollar": (
        lambda e: container(e)["command"].__setitem__(2, container(e)["command"][2] + " '+a=$${trialParameters.lr}'"),
        "spec.trialTemplate.trialSpec",
    ),
    "second container": (
        lambda e: pod(e)["containers"].append({"name": "b", "image": "b"}),
        "spec.trialTemplate.trialSpec.spec.template.spec.containers",
    ),
    "host network": (
        lambda e: pod(e).update(hostNetwork=True),
        "spec.trialTemplate.trialSpec.spec.template.spec.hostNetwork",
    ),
    "init containers": (
        lambda e: pod(e).update(initContainers=[{"name": "i", "image": "i"}]),
        "spec.trialTemplate.trialSpec.spec.template.spec.initContainers",
    ),
    "probe": (
        lambda e: container(e).update(livenessProbe={"exec": {"command": ["true"]}}),
        "spec.trialTemplate.trialSpec.spec.template.spec.containers[0].livenessProbe",
    ),
    "restarts": (
        lambda e: pod(e).update(restartPolicy="OnFailure"),
        "spec.trialTemplate.trialSpec.spec.template.spec.restartPolicy",
    ),
    "backoff": (
        lambda e: e["spec"]["trialTemplate"]["trialSpec"]["spec"].update(backoffLimit=2),
        "spec.trialTemplate.trialSpec.spec.backoffLimit",
    ),
    "completions": (
        lambda e: e["spec"]["trialTemplate"]["trialSpec"]["spec"].update(completions=2),
        "spec.trialTemplate.trialSpec.spec.completions",
    ),
    "kind": (
        lambda e: (
            e["spec"]["trialTemplate"].update(successCondition="status.a", failureCondition="status.b"),
            e["spec"]["trialTemplate"]["trialSpec"].update(apiVersion="batch/v1", kind="CronJob"),
        ),
        "spec.trialTemplate.trialSpec",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOST)
def test_what_an_optimization_job_cannot_express_is_an_error(name: str) -> None:
    value = experiment_base()
    LOST[name][0](value)
    _, differences = convert_to_job(value)
    assert LOST[name][1] in [documents.format_path(path) for level, path, _, _ in differences if level == "error"]
    assert all(fix for level, _, _, fix in differences if level == "error")


def test_nothing_is_written_if_something_would_be_lost(run: Run, tmp_path: Path) -> None:
    done = run("-m", "katib", "convert", str(ROOT / "katib/images-tpe.yaml"), "--to", "OptimizationJob", "-o", "a.yaml")
    assert done.returncode == 2
    assert "error spec.earlyStopping: an OptimizationJob has no early stopping\n    fix: remove it" in done.stderr
    assert "cannot be an OptimizationJob: 2 settings above have no counterpart" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "a.yaml").exists()


def test_lists_and_numbers_are_written_as_the_crd_takes_them() -> None:
    value = experiment_base()
    value["spec"]["algorithm"] = {"algorithmName": "grid"}
    value["spec"]["parameters"] = [
        {"name": "optim.lr", "parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "0.3", "step": "0.1"}}
    ]
    job, differences = convert_to_job(value)
    assert job["spec"]["searchAlgorithm"] == {"grid": {}}
    choices = job["spec"]["parameters"][0]["searchSpace"]["categorical"]["choices"]
    assert [float(choice) for choice in choices] == pytest.approx([0.1, 0.2, 0.3])
    assert any("3 values of optim.lr are written out" in message for _, _, message, _ in differences)
    value = experiment_base()
    for low, high, new in ((".5", "1.", ("0.5", "1.0")), ("+1", "02", ("1.0", "2.0")), ("1e-5", "1", ("1e-5", "1"))):
        value["spec"]["parameters"][0]["feasibleSpace"] = {"min": low, "max": high}
        uniform = convert_to_job(value)[0]["spec"]["parameters"][0]["searchSpace"]["uniform"]
        assert (uniform["min"], uniform["max"]) == new
    value["spec"]["parameters"][0]["feasibleSpace"] = {"min": "1", "max": "1"}
    assert convert_to_job(value)[0]["spec"]["parameters"][0]["searchSpace"] == {"categorical": {"choices": ["1"]}}


def test_names_that_are_alike_as_variables_stay_apart() -> None:
    names = job_from_experiment.variable_names(["a.b", "a_b", "a-b", "1a", "+x"])
    assert names == {"a.b": "a_b", "a_b": "a_b_2", "a-b": "a_b_3", "1a": "_1a", "+x": "_x"}


def test_pods_of_a_job_are_patches_of_the_runtime() -> None:
    value = experiment_base()
    runtime = copy.deepcopy(runtime_pod())
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    mount = {"name": "data", "mountPath": "/data"}
    inner = runtime["spec"]["containers"][0]
    pod(value).update({key: row for key, row in runtime["spec"].items() if key != "containers"})
    pod(value)["volumes"] = [*pod(value)["volumes"], claim]
    pod(value)["nodeSelector"] = {"pool": "gpu"}
    container(value).update({key: row for key, row in inner.items() if key not in ("name", "image")})
    container(value)["volumeMounts"] = [*inner["volumeMounts"], mount]
    container(value)["env"] = [*inner["env"], {"name": "A", "value": "1"}]
    value["spec"]["trialTemplate"]["trialSpec"]["spec"]["activeDeadlineSeconds"] = 60
    job, differences = convert_to_job(value)
    assert not [row for row in differences if row[0] == "error"]
    train_job = job["spec"]["trainJobTemplate"]["spec"]
    (patch,) = train_job["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["template"]["spec"]["template"]["spec"] == {
        "volumes": [claim],
        "nodeSelector": {"pool": "gpu"},
        "containers": [{"name": "node", "volumeMounts": [mount]}],
    }
    assert train_job["activeDeadlineSeconds"] == 60
    assert train_job["trainer"]["env"] == [table.TRIAL_NAME, {"name": "A", "value": "1"}]
    assert errors(job) == []


def test_processes_of_a_pytorchjob_are_nodes() -> None:
    value = yaml.safe_load((ROOT / "katib" / "questions-pytorchjob.yaml").read_text(encoding="utf-8"))
    value["spec"]["algorithm"] = {"algorithmName": "random"}
    job, differences = convert_to_job(value)
    assert not [row for row in differences if row[0] == "error"]
    trainer = job["spec"]["trainJobTemplate"]["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 1)
    assert [row["name"] for row in trainer["env"]] == ["KATIB_TRIAL_NAME", "ISOTRAIN_RETRIES"]
    assert "runtimePatches" not in job["spec"]["trainJobTemplate"]["spec"]
    workers = value["spec"]["trialTemplate"]["trialSpec"]["spec"]["pytorchReplicaSpecs"]["Worker"]
    workers["template"]["spec"]["containers"][0]["image"] = "other"
    assert any("Master and Worker differ" in row[2] for row in convert_to_job(value)[1] if row[0] == "error")


def test_a_job_that_katib_cannot_search_is_refused(run: Run, tmp_path: Path) -> None:
    value = table.base()
    value["spec"]["searchAlgorithm"]["random"]["seed"] = -1
    (tmp_path / "a.yaml").write_text(optimization_job.format_yaml(value))
    done = run("-m", "katib", "convert", "a.yaml", "--to", "Experiment")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Katib's random search takes seeds from 0" in done.stderr
    done = run("-m", "katib", "convert", "a.yaml", "--to", "OptimizationJob")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, "isotrain: a.yaml is an OptimizationJob already")


def test_files_go_there_and_back(run: Run, tmp_path: Path) -> None:
    source = ROOT / "katib" / "images-random.yaml"
    assert run("-m", "katib", "convert", str(source), "--to", "OptimizationJob", "-o", "job.yaml").returncode == 0
    assert run("-m", "katib", "convert", "job.yaml", "--to", "Experiment", "-o", "back.yaml").returncode == 0
    before, after = (yaml.safe_load(path.read_text()) for path in (source, tmp_path / "back.yaml"))
    assert after["spec"]["parameters"] == before["spec"]["parameters"]
    assert after["spec"]["algorithm"] == before["spec"]["algorithm"]
    assert after["spec"]["trialTemplate"]["trialParameters"] == before["spec"]["trialTemplate"]["trialParameters"]
    done = run("-m", "katib", "convert", str(source), "--to", "OptimizationJob", "-o", "other.txt")
    assert done.returncode == 0
    (tmp_path / "mine.txt").write_text("mine")
    done = run("-m", "katib", "convert", str(source), "--to", "OptimizationJob", "-o", "mine.txt")
    assert done.returncode == 2
    assert (tmp_path / "mine.txt").read_text() == "mine"


# --- there and back, of any search

NAME = st.from_regex(r"\A[a-z][a-z0-9_.]{0,8}[a-z0-9]\Z")
NUMBERS = st.tuples(st.integers(1, 50), st.integers(51, 99))
VALUE = st.from_regex(r"\A[A-Za-z0-9_.]{1,8}\Z")
SPACE = st.one_of(
    NUMBERS.map(lambda n: {"parameterType": "int", "feasibleSpace": {"min": str(n[0]), "max": str(n[1])}}),
    NUMBERS.map(lambda n: {"parameterType": "double", "feasibleSpace": {"min": f"{n[0]}e-3", "max": f"{n[1]}e-3"}}),
    NUMBERS.map(
        lambda n: {
            "parameterType": "double",
            "feasibleSpace": {"min": f"0.{n[0]}", "max": str(n[1]), "distribution": "logUniform"},
        }
    ),
    st.lists(st.integers(1, 99).map(str), min_size=1, max_size=4, unique=True).map(
        lambda row: {"parameterType": "discrete", "feasibleSpace": {"list": row}}
    ),
    st.lists(VALUE, min_size=1, max_size=4, unique=True).map(
        lambda row: {"parameterType": "categorical", "feasibleSpace": {"list": ["x-y", *row]}}
    ),
)


@settings(max_examples=30, deadline=None)
@given(
    spaces=st.dictionaries(NAME, SPACE, min_size=1, max_size=4),
    counts=st.tuples(st.integers(1, 100), st.integers(1, 100)).map(sorted),
    seed=st.none() | st.integers(0, 2**32 - 1),
    maximize=st.booleans(),
    argv=st.booleans(),
)
def test_an_experiment_comes_back_as_it_went(
    spaces: dict[str, Value], counts: list[int], seed: int | None, maximize: bool, argv: bool
) -> None:
    value = experiment_base()
    spec = value["spec"]
    spec["parameters"] = [{"name": name, **space} for name, space in spaces.items()]
    placeholders = experiment_from_job.placeholder_names(spaces)
    spec["trialTemplate"]["trialParameters"] = [
        {"name": "trialName", "reference": "${trialSpec.Name}"},
        *({"name": placeholders[name], "reference": name} for name in spaces),
    ]
    words = ["python", "train.py", *(f"{name}=${{trialParameters.{placeholders[name]}}}" for name in spaces)]
    words.append("hydra.run.dir=/runs/${trialParameters.trialName}")
    container(value)["command"] = words if argv else ["sh", "-c", " ".join(words)]
    spec["parallelTrialCount"], spec["maxTrialCount"] = counts
    spec["algorithm"] = {"algorithmName": "random"}
    if seed is not None:
        spec["algorithm"]["algorithmSettings"] = [{"name": "random_state", "value": str(seed)}]
    spec["objective"] = {
        "type": "maximize" if maximize else "minimize",
        "objectiveMetricName": "val_f1",
        "metricStrategies": [{"name": "val_f1", "value": "max" if maximize else "min"}],
    }
    before = document(value)
    job, differences = job_from_experiment.build_job(before)
    assert not [row for row in differences if row[0] == "error"]
    problems = (optimization_schema.field_problems(job), optimization_schema.limit_problems(job))
    assert [*itertools.chain(*problems, optimization_schema.rule_problems(job))] == []
    after, differences = experiment_from_job.build_experiment(document(job))
    assert not [row for row in differences if row[0] == "error"]
    back = after.value["spec"]
    for key in ("objective", "algorithm", "parallelTrialCount", "maxTrialCount", "parameters"):
        assert back[key] == spec[key], key
    names = job_from_experiment.variable_names(list(spaces))
    point = {
        name: space["feasibleSpace"].get("min") or space["feasibleSpace"]["list"][-1] for name, space in spaces.items()
    }
    expected = trial_words(before, point)
    assert job_words(job, {names[name]: text for name, text in point.items()}) == expected
    line = trial_words(after, point)[2]
    assert shlex.split(line) == expected if argv else line == expected[2]
    job_again, _ = job_from_experiment.build_job(document(after.value))
    assert job_again["spec"]["parameters"] == job["spec"]["parameters"]


def test_the_first_lines_of_a_result_say_that_nothing_runs_it(run: Run) -> None:
    done = run("-m", "katib", "convert", str(ROOT / "katib" / "images-random.yaml"), "--to", "OptimizationJob")
    assert re.search(r"^# No release of Kubeflow Trainer has a controller", done.stdout, re.MULTILINE)
