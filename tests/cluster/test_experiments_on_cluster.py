"""Searches on a real Katib: the shipped Experiments in a small form, lost pods, reasons, overrides, signals, deletion."""

import concurrent.futures
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from real_cluster import IMAGE, KUBECONFIG, NAMESPACE, ROOT, Search, Submit, kubectl, read, run, wait
from tests.command_forms import FORMS, SCRIPT

if not KUBECONFIG:
    pytest.skip("tests on a cluster need ISOTRAIN_CLUSTER=<kubeconfig> (docs/support.md)", allow_module_level=True)

SHIPPED = sorted(path.name for path in (ROOT / "katib").glob("*-*.yaml"))
# Data and a network that need no download, per task.
DATA = {
    "images": ["model=resnet18", "data=shapes", "data.sample.train=64", "data.sample.val=32", "data.batch_size=16"],
    "questions": [
        "model=bert_tiny",
        "data=squad_sample",
        "data.sample.train=32",
        "data.sample.val=16",
        "data.batch_size=8",
    ],
    "texts": ["data.sample.train=64", "data.sample.val=32", "data.batch_size=16"],
}
IMAGES = [*DATA["images"], "optim.lr=1e-3"]
LONG = [*IMAGES, "trainer.max_epochs=20"]  # about a minute of epochs
# Weights that grow a hundredfold with each step.
DIVERGES = [
    "optim.lr=100",
    "optim.weight_decay=1",
    "optim.schedule=constant",
    "optim.warmup=0",
    "trainer.gradient_clip_val=null",
]
ENOUGH = {"images-hyperband": 10, "questions-hyperband": 5, "images-pbt": 10}  # trials; the others need two


def small(name: str) -> list[str]:
    """Overrides for the shipped Experiment of this name."""
    task = name.partition("-")[0]
    epochs = [] if name.endswith("hyperband") else ["trainer.max_epochs=1"]
    return [*DATA[task], *epochs]


def container(experiment: dict[str, Any]) -> dict[str, Any]:
    """The training container of a Job."""
    spec = experiment["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    return dict.__getitem__(spec, "containers")[0]  # type: ignore[no-any-return]


def pod_end(search: Search, pod: str) -> dict[str, Any]:
    """State of the training container of a pod that has ended, with exitCode and reason."""
    for row in search.pods():
        for status in row.get("status", {}).get("containerStatuses", []):
            if row["metadata"]["name"] == pod and "collector" not in status["name"] and "terminated" in status["state"]:
                return dict(status["state"]["terminated"])
    return {}


# --- every kind of Experiment


@pytest.mark.parametrize("file", SHIPPED)
def test_the_api_server_takes_the_shipped_experiments(
    file: str, namespace: str, require: Callable[[str], None]
) -> None:
    require("Katib")
    text = (ROOT / "katib" / file).read_text(encoding="utf-8")
    kubectl("-n", namespace, "create", "--dry-run=server", "--validate=strict", "-f", "-", text=text)


@pytest.mark.parametrize("file", SHIPPED)
def test_shipped_experiment_succeeds(file: str, submit: Submit, require: Callable[[str], None]) -> None:
    require("Katib")
    name = file.removesuffix(".yaml")
    if name.endswith("pytorchjob"):
        require("training operator")
    if name.endswith("trainjob"):
        require("Trainer")
    search = submit(f"katib/{file}", *small(name), trials=ENOUGH.get(name, 2), parallel=9 if "hyperband" in name else 2)
    done = search.watch()
    assert done.returncode == 0, done.stdout + done.stderr
    rows = search.trials()
    assert {row["status"] for row in rows} <= {"Succeeded", "EarlyStopped"}, rows
    best = run("katib", "best", search.name, "-n", NAMESPACE)
    assert best.returncode == 0, best.stderr
    assert "optim.lr=" in best.stdout


# --- 1. lost pods, and real failures


def test_an_evicted_pod_is_replaced_and_the_training_goes_on(submit: Submit) -> None:
    search = submit("katib/images-random.yaml", *LONG)
    (pod,) = search.wait_for_epoch(2)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    kubectl("create", "--raw", path, "-f", "-", text=json.dumps(eviction))
    new = wait(lambda: [p["metadata"]["name"] for p in search.pods() if p["metadata"]["name"] != pod], "a new pod")[-1]
    done = search.watch()
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = search.trials()
    assert row["status"] == "Succeeded"
    epochs = re.findall(r"\bepoch=(\d+) step=\d+ train_loss", search.log(new))
    assert epochs == [str(number) for number in range(1, 21)], epochs  # the earlier ones, too, each once


def test_a_deleted_rank_is_replaced_and_the_training_goes_on(submit: Submit, require: Callable[[str], None]) -> None:
    require("training operator")
    overrides = [*DATA["questions"], "optim.lr=1e-4", "trainer.max_epochs=20"]
    search = submit("katib/questions-pytorchjob.yaml", *overrides)
    pods = search.wait_for_epoch(1, count=2)
    kubectl("-n", NAMESPACE, "delete", "pod", next(pod for pod in pods if "worker" in pod), "--wait=false")
    done = search.watch()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row["status"] for row in search.trials()] == ["Succeeded"]


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        (["model=resnet18", "data=image_folder", "data.path=/runs/absent", "optim.lr=1e-3"], 2),
        ([*LONG, *DIVERGES], 3),
    ],
    ids=["input", "diverged"],
)
def test_a_failed_training_ends_its_trial_at_once(submit: Submit, overrides: list[str], code: int) -> None:
    search = submit("katib/images-random.yaml", *overrides)
    done = search.watch()
    assert done.returncode != 0
    (row,) = search.trials()
    assert row["status"] == "Failed"
    assert f"exit code {code}" in json.dumps(row), row
    assert len(search.pods()) <= 1


# --- 2. and 3. reasons


@pytest.mark.parametrize(
    ("reason", "image", "edit"),
    [
        ("cannot be pulled", "isotrain.invalid/absent:1", None),
        ("no node has room for", IMAGE, lambda e: container(e)["resources"]["requests"].update(cpu="900")),
        (
            "absent-claim does not exist",
            IMAGE,
            lambda e: e["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["volumes"][0].update(
                persistentVolumeClaim={"claimName": "absent-claim"}
            ),
        ),
    ],
    ids=["image", "cpu", "claim"],
)
def test_why_a_trial_does_not_run(submit: Submit, reason: str, image: str, edit: Any) -> None:
    def change(experiment: dict[str, Any]) -> None:
        if edit is not None:
            edit(experiment)
        if reason.startswith("no node"):
            container(experiment)["resources"].pop("limits")

    search = submit("katib/images-random.yaml", *LONG, image=image, edit=change, options=["--no-check"])
    done = search.watch("--wait-for-start", "120s")
    assert done.returncode == 7, done.stdout + done.stderr
    assert reason in done.stdout + done.stderr
    assert reason in json.dumps(search.trials())


def test_a_trial_that_runs_out_of_memory_says_so(submit: Submit) -> None:
    search = submit(
        "katib/images-random.yaml", *LONG, edit=lambda e: container(e)["resources"]["limits"].update(memory="300Mi")
    )
    done = search.watch()
    assert done.returncode == 6
    assert "OOMKilled" in done.stdout + done.stderr


def test_the_server_s_own_words(namespace: str, tmp_path: Path) -> None:
    experiment = yaml.safe_load((ROOT / "katib" / "images-random.yaml").read_text(encoding="utf-8"))
    experiment["spec"]["algorithm"]["algorithmName"] = "absent"
    path = tmp_path / "refused.yaml"
    path.write_text(json.dumps(experiment), encoding="utf-8")
    done = run("katib", "submit", str(path), "-n", namespace, "--name", "refused", "--no-check")
    assert done.returncode == 2, done.stderr
    assert "absent" in done.stderr
    assert "admission webhook" in done.stderr or "denied the request" in done.stderr


# --- 4. TrainJobs


def test_a_failed_trainjob_ends_at_once(submit: Submit, require: Callable[[str], None]) -> None:
    require("Trainer")

    def raise_rate(experiment: dict[str, Any]) -> None:
        """Overrides would fix all parameters that the file searches."""
        (parameter,) = (row for row in experiment["spec"]["parameters"] if row["name"] == "optim.lr")
        parameter["feasibleSpace"] = {"min": "99", "max": "100"}

    others = [word for word in [*LONG, *DIVERGES] if not word.startswith("optim.lr=")]
    search = submit("katib/images-trainjob.yaml", *others, edit=raise_rate)
    begin = time.monotonic()
    assert search.watch().returncode == 6
    assert [row["status"] for row in search.trials()] == ["Failed"]
    assert time.monotonic() - begin < 400  # Trainer's own runtime trains it six times again


def test_a_deleted_pod_of_a_trainjob_leaves_a_checkpoint(submit: Submit, require: Callable[[str], None]) -> None:
    require("Trainer")
    search = submit("katib/images-trainjob.yaml", *LONG)
    pods = search.wait_for_epoch(1, count=2)
    kubectl("-n", NAMESPACE, "delete", "pod", pods[-1], "--wait=false")
    done = search.watch()
    assert done.returncode == 0, done.stdout + done.stderr


# --- 5. and 6. several ranks


def test_overrides_reach_every_replica(submit: Submit, require: Callable[[str], None]) -> None:
    require("training operator")
    search = submit("katib/questions-pytorchjob.yaml", *DATA["questions"], "trainer.max_epochs=1")
    pods = wait(lambda: search.pods() if len(search.pods()) == 2 else [], "two pods")
    for pod in pods:
        assert "data=squad_sample" in json.dumps(pod["spec"]["containers"]), pod["metadata"]["name"]


@pytest.mark.parametrize("rank", ["worker", "master"])
def test_a_signal_to_one_rank_ends_all(submit: Submit, require: Callable[[str], None], rank: str) -> None:
    require("training operator")

    def never(experiment: dict[str, Any]) -> None:
        for replica in experiment["spec"]["trialTemplate"]["trialSpec"]["spec"]["pytorchReplicaSpecs"].values():
            replica["restartPolicy"] = "Never"

    overrides = [*DATA["questions"], "optim.lr=1e-4", "trainer.max_epochs=50"]
    search = submit("katib/questions-pytorchjob.yaml", *overrides, edit=never)
    pods = search.wait_for_epoch(1, count=2)
    target = next(pod for pod in pods if rank in pod)
    script = "import psutil; [p.terminate() for p in psutil.process_iter() if 'train.py' in p.cmdline()]"
    kubectl("-n", NAMESPACE, "exec", target, "-c", "pytorch", "--", "python", "-c", script)
    codes: dict[str, int] = {}
    logs: dict[str, str] = {}

    def have_ended() -> bool:
        """The operator deletes the other pod as soon as it sees the first one fail."""
        for pod in pods:
            logs[pod] = search.log(pod) or logs.get(pod, "")
            codes.update({pod: end["exitCode"]} if (end := pod_end(search, pod)) else {})
        present = [row["metadata"]["name"] for row in search.pods()]
        return all(pod in codes or pod not in present for pod in pods)

    wait(have_ended, "the end of both ranks")
    assert set(codes.values()) == {143}, (codes, logs)
    assert "a bug in isotrain" not in "".join(logs.values())


# --- 7. deleting


@pytest.mark.parametrize("file", ["images-random.yaml", "questions-pytorchjob.yaml", "images-trainjob.yaml"])
def test_delete_leaves_no_pods(submit: Submit, require: Callable[[str], None], file: str) -> None:
    require({"questions-pytorchjob.yaml": "training operator", "images-trainjob.yaml": "Trainer"}.get(file, "Katib"))
    search = submit(f"katib/{file}", *DATA[file.partition("-")[0]], "trainer.max_epochs=60")
    names = [pod["metadata"]["name"] for pod in wait(search.pods, "a pod")]
    done = run("katib", "delete", search.name, "-n", NAMESPACE)
    assert done.returncode == 0, done.stderr
    remaining = {pod["metadata"]["name"] for pod in read("pods")["items"]}
    assert not {pod for pod in remaining if pod.startswith((search.name, *names))}


# --- 9. resources


def test_resources_are_settings_and_are_recorded(submit: Submit) -> None:
    options = ["--cpu", "200m", "--memory", "1500Mi"]
    search = submit("katib/images-random.yaml", *IMAGES, "trainer.max_epochs=30", options=options)
    (pod,) = search.wait_for_epoch(1)
    (row,) = (row for row in search.pods() if row["metadata"]["name"] == pod)
    resources = next(c["resources"] for c in row["spec"]["containers"] if "collector" not in c["name"])
    assert resources["limits"]["memory"] == "1500Mi", resources
    script = f"import pathlib; print(max(pathlib.Path('/runs').glob('{search.name}*/run.json')).read_text())"
    record = kubectl("-n", NAMESPACE, "exec", pod, "-c", "training", "--", "python", "-c", script)
    assert re.search(r'"memory_mib": 1500\b', record), record


# --- 10. forms of commands


def test_verdicts_on_commands_are_katib_s(submit: Submit, namespace: str) -> None:
    """A few at a time: what a trial ends as, and whether `katib check` warns of its command."""
    overrides = " ".join([*DATA["images"], "trainer.max_epochs=1", "trainer.threads=1"])
    script = f"python train.py {overrides} optim.lr=$1 hydra.run.dir=/runs/$2\n"
    values = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "isotrain-forms"}}
    values["data"] = {Path(SCRIPT).name: script}
    kubectl("-n", namespace, "apply", "-f", "-", text=json.dumps(values))

    def outcome(form: str) -> tuple[str, bool]:
        def change(experiment: dict[str, Any]) -> None:
            training = container(experiment)
            joined = "\0".join(FORMS[form][0]).replace("trialParameters.lr}", "trialParameters.optimLr}")
            separator = " " if "sh" in FORMS[form][0][0] else "\0"
            given = separator.join(overrides.split())
            joined = joined.replace(f"train.py{separator}", f"train.py{separator}{given}{separator}")
            training["command"] = joined.split("\0")
            training.setdefault("volumeMounts", []).append({"name": "forms", "mountPath": str(Path(SCRIPT).parent)})
            pod = experiment["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
            pod.setdefault("volumes", []).append({"name": "forms", "configMap": {"name": "isotrain-forms"}})
            keep_lr(experiment)

        search = submit("katib/images-random.yaml", edit=change, options=["--no-check"])
        search.watch()
        (row,) = search.trials()
        has_value = bool(row["metrics"].get("val_accuracy"))
        print(f"{form}: {row['status']}, {row['metrics'].get('val_accuracy')}")
        return row["status"], has_value

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        outcomes = dict(zip(FORMS, pool.map(outcome, FORMS), strict=True))
    kubectl("-n", namespace, "delete", "configmap", "isotrain-forms")
    succeeded = {form: status == "Succeeded" and value for form, (status, value) in outcomes.items()}
    assert succeeded == {form: verdict for form, (_, verdict) in FORMS.items()}, outcomes


def keep_lr(experiment: dict[str, Any]) -> None:
    """Searches the learning rate alone."""
    spec = experiment["spec"]
    spec["parameters"] = [row for row in spec["parameters"] if row["name"] == "optim.lr"]
    rows = spec["trialTemplate"]["trialParameters"]
    spec["trialTemplate"]["trialParameters"] = [row for row in rows if row["name"] in ("trialName", "optimLr")]


def test_trial_and_local_training_agree(submit: Submit, tmp_path: Path) -> None:
    """The same overrides give the same metric lines in a trial and on this machine."""
    search = submit("katib/images-random.yaml", *IMAGES, "trainer.max_epochs=1", "trainer.threads=1")
    assert search.watch().returncode == 0
    (row,) = search.trials()
    (best,) = [run("katib", "best", search.name, "-n", NAMESPACE).stdout.split()]
    command = [sys.executable, str(ROOT / "train.py"), *IMAGES, "trainer.max_epochs=1", "trainer.threads=1", *best]
    done = subprocess.run([*command, f"hydra.run.dir={tmp_path}/run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    values = re.findall(r"val_accuracy=(\S+)", done.stdout)
    assert any(float(value) == pytest.approx(float(row["metrics"]["val_accuracy"]["latest"])) for value in values), row
