"""`python -m pipelines compile` and `check`: the same file every time, and what is wrong with a broken one."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import Run

from pipelines import check, compilation

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "pipelines").glob("*.yaml"))
Spec = dict[str, Any]


@pytest.fixture(scope="module")
def spec() -> Spec:
    return compilation.read_documents(str(ROOT / "pipelines" / "train.yaml"))[0]


@pytest.mark.parametrize("file", FILES, ids=lambda each: each.name)
def test_the_files_are_what_the_code_compiles(file: Path) -> None:
    """The whole text, the steps' commands included: `python -m pipelines compile --again pipelines/*.yaml`."""
    assert compilation.recompile(file) == file.read_text()
    assert check.check_pipeline(str(file)) == []


def test_hash_seeds_change_nothing() -> None:
    texts = {
        subprocess.run(
            [sys.executable, "-m", "pipelines", "compile"],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"), "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(texts) == 1


def test_settings_reach_the_pods(run: Run, tmp_path: Path) -> None:
    asked = [
        "large.gpus=3", "volume=my-runs", "cache_volume=null", "+node_selector.pool=a", "secrets=null", "config_map=null",
        "tolerations=[{key: gpu, operator: Exists}]", "image=me/isotrain:7", "retries=0", "root=/data",
        "queue=team", "priority_class=high",
    ]  # fmt: skip
    done = run("-m", "pipelines", "compile", *asked, "-o", "mine.yaml")
    assert done.returncode == 0, done.stderr
    spec, platform = compilation.read_documents(str(tmp_path / "mine.yaml"))
    executors = spec["deploymentSpec"]["executors"]
    wanted = {name for name, each in executors.items() if "accelerator" in each["container"]["resources"]}
    assert wanted == {"exec-train", "exec-evaluate", "exec-explain"}
    assert executors["exec-train"]["container"]["resources"]["accelerator"]["resourceCount"] == "3"
    assert not [each for each in _tasks(spec) if "retryPolicy" in each]
    pod = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train"]
    assert [(each["constant"], each["mountPath"]) for each in pod["pvcMount"]] == [("my-runs", "/data")]
    assert pod["nodeSelector"]["labels"] == {"pool": "a"}
    assert pod["tolerations"][0]["key"] == "gpu"
    assert not pod.get("secretAsEnv")
    for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        labels = {"kueue.x-k8s.io/queue-name": "team", "kueue.x-k8s.io/priority-class": "high"}
        assert executor["podMetadata"]["labels"] == labels
    defaults = {name: each.get("defaultValue") for name, each in compilation.spec_parameters(spec).items()}
    assert (defaults["image"], defaults["root"]) == ("me/isotrain:7", "/data")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["larg.gpus=1"], "larg.gpus"),
        (["+larg=1"], "unknown setting larg"),
        (["large.cpu=x"], "Invalid cpu"),
        (["large.gpus=-1"], "0 or more"),
        (["large.gpu=1"], "large.gpu=1: must be the name of the GPU's resource, such as nvidia.com/gpu; large.gpus is"),
        (["name=My_Pipeline"], "lower-case letters"),
        (["root=runs"], "must be an absolute path"),
        (["-o", "nowhere/x.yaml"], "cannot write nowhere/x.yaml"),
        (["--again", "other.yaml"], "does not say which command compiled it"),
    ],
)
def test_what_cannot_be_compiled_is_refused(asked: list[str], said: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("a: 1\n")
    done = run("-m", "pipelines", "compile", *asked)
    assert (done.returncode, done.stderr.count("Traceback")) == (2, 0), done.stderr
    assert said in done.stderr


def test_what_is_cached_and_retried(spec: Spec) -> None:
    """Cached: what its parameters determine, the image and the data's fingerprint among them."""
    tasks = {each["taskInfo"]["name"]: each for each in _tasks(spec)}
    cached = {name for name, each in tasks.items() if each.get("cachingOptions", {}).get("enableCache")}
    assert cached - {"exit-handler-1", "condition-2", "steps", "worth-training"} == {"quality", "train", "explain"}
    for name in ("quality", "train"):
        assert {"image", "fingerprint"} <= set(tasks[name]["inputs"]["parameters"])
    assert {name for name, each in tasks.items() if "retryPolicy" in each} == {"data", "tune", "train"}


def _tasks(spec: Spec) -> list[dict[str, Any]]:
    return [task for _, _, task in check._iter_tasks(spec)]


def _dag(spec: Spec) -> dict[str, Any]:
    """The graph with most steps."""
    return max((each["dag"]["tasks"] for each in spec["components"].values() if "dag" in each), key=len)


def _gone(spec: Spec, *place: str) -> None:
    target = spec
    for part in place[:-1]:
        target = target[part]
    del target[place[-1]]


# The twelve that KFP's own loaders take, and what they find, too.
def _component(spec: Spec) -> None:
    _dag(spec)["train"]["componentRef"]["name"] = "comp-trian"


def _executor(spec: Spec) -> None:
    spec["components"]["comp-train"]["executorLabel"] = "exec-trian"


def _producer(spec: Spec) -> None:
    _dag(spec)["train"]["inputs"]["parameters"]["best"]["taskOutputParameter"]["producerTask"] = "tuen"


def _output(spec: Spec) -> None:
    _dag(spec)["train"]["inputs"]["parameters"]["best"]["taskOutputParameter"]["outputParameterKey"] = "best"


def _dependency(spec: Spec) -> None:
    _dag(spec)["tune"]["dependentTasks"].append("gate-9")


def _cycle(spec: Spec) -> None:
    _dag(spec)["quality"]["dependentTasks"] = ["register"]


def _required(spec: Spec) -> None:
    _gone(_dag(spec), "train", "inputs", "parameters", "overrides")


def _constant(spec: Spec) -> None:
    _dag(spec)["gate"]["inputs"]["parameters"]["subject"]["runtimeValue"]["constant"] = 7


def _condition(spec: Spec) -> None:
    of = next(each for each in _tasks(spec) if each.get("triggerPolicy", {}).get("condition"))
    of["triggerPolicy"]["condition"] = of["triggerPolicy"]["condition"].replace("==", "=")


def _condition_name(spec: Spec) -> None:
    of = next(each for each in _tasks(spec) if each.get("triggerPolicy", {}).get("condition"))
    of["triggerPolicy"]["condition"] = of["triggerPolicy"]["condition"].replace("plan-Output", "plan-Outptu")


def _schema(spec: Spec) -> None:
    spec["schemaVersion"] = "2.1"


def _name(spec: Spec) -> None:
    spec["pipelineInfo"]["name"] = "My Pipeline"


def _deployment(spec: Spec) -> None:
    container = spec["deploymentSpec"]["executors"]["exec-train"]["container"]
    container["imagee"] = container["image"]


def _field(spec: Spec) -> None:
    _dag(spec)["train"]["cachingOption"] = {}


def _unwaited(spec: Spec) -> None:
    _dag(spec)["train"]["dependentTasks"] = []


def _type(spec: Spec) -> None:
    spec["components"]["comp-tune"]["outputDefinitions"]["parameters"]["Output"]["parameterType"] = "STRING"


def _images(spec: Spec) -> None:
    spec["deploymentSpec"]["executors"]["exec-train"]["container"]["image"] = "other:1"


def _cached_gate(spec: Spec) -> None:
    _dag(spec)["gate"]["cachingOptions"] = {"enableCache": True}


def _gpu(spec: Spec) -> None:
    spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]["accelerator"] = {"resourceType": "g"}


def _memory(spec: Spec) -> None:
    spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]["memoryRequest"] = 900.0


def _pip(spec: Spec) -> None:
    spec["deploymentSpec"]["executors"]["exec-train"]["container"]["command"][2] += "\npip install x"


def _function(spec: Spec) -> None:
    args = spec["deploymentSpec"]["executors"]["exec-train"]["container"]["args"]
    args[args.index("train")] = "trian"


def _unused(spec: Spec) -> None:
    spec["components"]["comp-other"] = copy.deepcopy(spec["components"]["comp-train"])


BROKEN: list[tuple[Callable[[Spec], None], str]] = [
    (_component, "there is no component comp-trian"),
    (_executor, "there is no executor exec-trian"),
    (_producer, "there is no task tuen"),
    (_output, "tune has no output best"),
    (_dependency, "there is no task gate-9"),
    (_cycle, "wait for one another: "),
    (_required, "overrides is required"),
    (_constant, "7 is not a STRING"),
    (_condition, "is not a condition"),
    (_condition_name, "no input pipelinechannel--plan-Outptu"),
    (_schema, "must be 2.1.0"),
    (_name, "'My Pipeline' must be at most 128 lower-case letters"),
    (_deployment, "imagee"),
    (_field, "cachingOption"),
    (_unwaited, "does not wait for it"),
    (_type, "the type is STRING but must be LIST"),
    (_images, "several images"),
    (_cached_gate, "gate must not be cached"),
    (_gpu, "a type and a count"),
    (_memory, "the request is above the limit"),
    (_pip, "installs packages"),
    (_function, "no function trian"),
    (_unused, "no task uses this component"),
]


@pytest.mark.parametrize(("breaks", "said"), BROKEN, ids=lambda each: getattr(each, "__name__", ""))
def test_each_corruption_is_found(breaks: Callable[[Spec], None], said: str, spec: Spec, tmp_path: Path) -> None:
    broken = copy.deepcopy(spec)
    breaks(broken)
    assert broken != spec
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(broken))
    found = check.check_pipeline(str(tmp_path / "broken.yaml"))
    assert any(said in each.message for each in found), found


def test_kfps_own_loaders_take_twelve_of_them(spec: Spec) -> None:
    """Why there is a check at all; should KFP find more one day, ours may shrink."""
    from kfp import components

    taken = []
    for breaks, _ in BROKEN:
        broken = copy.deepcopy(spec)
        breaks(broken)
        try:
            components.load_component_from_text(yaml.safe_dump(broken))
        except Exception:
            continue
        taken.append(breaks.__name__)
    assert len(taken) >= 12, taken


def test_the_platforms_document_is_checked_too(tmp_path: Path) -> None:
    spec, platform = compilation.read_documents(str(ROOT / "pipelines" / "train.yaml"))
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for change, said in (
        (lambda each: each.update({"exec-other": {}}), "there is no such executor"),
        (lambda each: each["exec-train"].update({"pvcMounts": []}), "pvcMounts"),
        (lambda each: each["exec-train"]["pvcMount"].append(dict(each["exec-train"]["pvcMount"][0])), "two volumes"),
    ):
        changed = copy.deepcopy(executors)
        change(changed)
        other = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": changed}}}}
        (tmp_path / "x.yaml").write_text(yaml.safe_dump_all([spec, other]))
        assert any(said in each.message for each in check.check_pipeline(str(tmp_path / "x.yaml"))), said


def test_check_on_the_command_line(run: Run, spec: Spec, tmp_path: Path) -> None:
    files = [str(each) for each in FILES]
    done = run("-m", "pipelines", "check", *files)
    assert (done.returncode, done.stdout) == (0, "")
    pinned = run("-m", "pipelines", "check", "--pinned", *files)
    assert (pinned.returncode, pinned.stdout.count("is not named by its digest")) == (2, len(files))
    digest = f"image=me/isotrain@sha256:{'0' * 64}"
    run("-m", "pipelines", "compile", digest, "-o", "mine.yaml")
    assert run("-m", "pipelines", "check", "--pinned", "mine.yaml").returncode == 0
    broken = copy.deepcopy(spec)
    _cycle(broken)
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(broken))
    done = run("-m", "pipelines", "check", "broken.yaml", "--format", "json")
    assert (done.returncode, json.loads(done.stdout)[0]["file"]) == (2, "broken.yaml")
    for name, text in (("no.yaml", None), ("bad.yaml", "a: [\n"), ("list.yaml", "- 1\n"), ("empty.yaml", "")):
        if text is not None:
            (tmp_path / name).write_text(text)
        done = run("-m", "pipelines", "check", name)
        assert (done.returncode, done.stderr.count("Traceback")) == (2, 0), done.stderr
        assert name in done.stderr


def test_bodies_stand_by_themselves() -> None:
    """KFP copies them into a module of its own, where only its names and typing's are known."""
    spec = compilation.read_documents(str(ROOT / "pipelines" / "train.yaml"))[0]
    for label, executor in spec["deploymentSpec"]["executors"].items():
        source = next(each for each in executor["container"]["command"] if "def " in each)
        names: dict[str, Any] = {}
        exec(source, names)
        wanted = executor["container"]["args"][-1]
        assert callable(names[wanted]), label
        assert re.search(r"steps\.\w+\(", source), label
