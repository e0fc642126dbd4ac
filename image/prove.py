"""Proves an image from inside, without a network: `docker run --rm --network none IMAGE python image/prove.py`.

Runs what the image is for, as its own user: a training, a search's check, both gates on what they must refuse, and a
step of Kubeflow Pipelines. Exit code 0 if all of it is as it should be, 1 otherwise; every line says what was proved.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("config", "datamodules", "trainers", "quality", "explain", "reports", "runs", "serving", "katib", "pipelines")
# One package of those that only a client of Kubeflow Pipelines needs: the step's runtime must do without.
CLIENT = "kfp_server_api"


class Broken(Exception):
    """Something that is not as it should be."""


def main() -> int:
    """Proves one thing after another; what fails does not keep the next from being tried."""
    parser = argparse.ArgumentParser(prog="python image/prove.py", description="Proves an image from inside.")
    parser.add_argument("only", nargs="*", metavar="NAME", help=f"of {', '.join(PROOFS)}; all if none is named")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="for what is made (default: a new one in /runs)")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.only) - set(PROOFS)):
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(PROOFS)}")
    folder = (asked.folder or Path(tempfile.mkdtemp(prefix="prove-", dir="/runs"))).resolve()
    failed = []
    try:
        for name in asked.only or PROOFS:
            begun = time.monotonic()
            try:
                said = PROOFS[name](folder)
            except Exception as error:  # a bug in here must not pass for a proof
                failed.append(name)
                said = f"{type(error).__name__}: {error}"
            verdict = "BROKEN" if name in failed else "ok"
            print(f"{verdict:6} {name:9} {time.monotonic() - begun:6.1f} s  {said}", flush=True)
    finally:
        if asked.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(failed)} broken: {', '.join(failed)}" if failed else "the image is what it should be")
    return 1 if failed else 0


def user(folder: Path) -> str:
    """Nobody's rights but the image's user's: its code cannot be changed, its volumes can, and it holds no secrets."""
    expect(os.getuid() != 0, "runs as root")
    expect(Path.cwd() == ROOT, f"starts in {Path.cwd()}, not in {ROOT}")
    for place in ("train.py", "src/runs/provenance.py", "conf/train.yaml"):
        expect(os.access(ROOT / place, os.R_OK), f"cannot read {place}")
        expect(not os.access(ROOT / place, os.W_OK), f"could change {place}")
    places = ["/runs", os.environ["ISOTRAIN_CACHE"], os.environ.get("HOME", ""), str(ROOT), str(ROOT / "outputs")]
    for place in places:
        expect(os.access(place, os.W_OK), f"cannot write to {place!r}")
    secret = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
    expect(not (found := [name for name in os.environ if secret.search(name)]), f"variables that look secret: {found}")
    for place in ("/etc/pip.conf", "/root/.netrc", str(ROOT / ".git"), str(ROOT / ".env")):
        expect(not os.access(place, os.F_OK), f"{place} is in the image")
    return f"uid {os.getuid()}; {', '.join(places)} can be written, the code cannot"


def packages(folder: Path) -> str:
    """What is installed is the lock, no more and no less."""
    from packaging.requirements import Requirement

    wanted = {}
    for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines():
        if line[:1].isalnum():
            each = Requirement(line.removesuffix("\\"))
            if each.marker is None or each.marker.evaluate():
                wanted[normal(each.name)] = str(each.specifier).removeprefix("==")
    installed = {normal(each.name): each.version for each in importlib.metadata.distributions() if each.name}
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" and "triton" not in installed:  # an image for CPUs
        wanted.pop("triton", None)
    wrong = [
        f"{name} {installed.get(name)}, not {version}"
        for name, version in wanted.items()
        if installed.get(name) != version
    ]
    expect(not wrong, "; ".join(wrong))
    more = sorted(set(installed) - set(wanted) - {"pip", "isotrain"})
    expect(not more, f"not in the lock: {', '.join(more)}")
    return f"{len(wanted)} packages on Python {sys.version.split()[0]}, all of the lock's versions"


def commands(folder: Path) -> str:
    """Every command answers, and the shipped Experiments are what a cluster takes."""
    called = [name for name in ROOMS if (ROOT / "src" / name / "__main__.py").exists()]
    for name in called:
        run("-m", name, "--help")
    run("train.py", "--help")
    experiments = sorted(str(path) for path in (ROOT / "katib").glob("*.yaml") if path.stem != "kustomization")
    expect(bool(experiments), "there are no Experiments")
    run("-m", "katib", "check", *experiments)
    return f"train.py, {', '.join(called)}; {len(experiments)} Experiments checked"


def training(folder: Path) -> str:
    """A training learns its few steps, says so as Katib reads it, keeps its record, and is in MLflow."""
    made = folder / "training"
    sizes = ("data.sample.train=64", "data.sample.val=32", "trainer.max_steps=2")
    done = run(
        "train.py",
        *sizes,
        "logger=mlflow",
        f"hydra.run.dir={made}",
        MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db",
    )
    line = re.search(r"^\d{4}-\d\d-\d\dT\S+Z .*\bval_f1=[\d.]+", done, re.MULTILINE)
    expect(line is not None, "no line that Katib's collector reads")
    record = json.loads((made / "run.json").read_text("utf-8"))
    expect(record["status"] == "finished", f"run.json says {record['status']}")
    revision = os.environ.get("ISOTRAIN_REVISION") or None
    if not (ROOT / ".git").exists():
        expect(
            record["git"]["revision"] == revision, f"run.json says revision {record['git']['revision']}, not {revision}"
        )
    verdict = json.loads((made / "quality" / "verdict.json").read_text("utf-8"))
    expect(verdict["status"] in ("passed", "warned"), f"its data {verdict['status']}")
    expect((made / "model" / "model.safetensors").is_file(), "no model was exported")
    expect((folder / "mlflow.db").is_file(), "MLflow was not told")
    again = run("train.py", *sizes, "logger=mlflow", f"hydra.run.dir={made}")
    expect("val_f1=" in again, "the same command again does not say its result")
    images = ("model=resnet18", "data=shapes", *sizes, f"hydra.run.dir={folder / 'images'}")
    expect("val_accuracy=" in run("train.py", *images), "images: no line that Katib's collector reads")
    return f"both tasks, revision {revision}"


def quality(folder: Path) -> str:
    """The data's gate lets nothing pass whose answers are not where they say."""
    data = folder / "broken"
    data.mkdir()
    for file, title in (("train-v1.1.json", "Rivers"), ("dev-v1.1.json", "Hills")):
        questions = [
            {"id": f"{title}{n}", "question": f"What is {n}?", "answers": [{"text": "nowhere", "answer_start": 3}]}
            for n in range(4)
        ]
        paragraph = {"context": f"{title} are what this is about.", "qas": questions}
        (data / file).write_text(
            json.dumps({"version": "1.1", "data": [{"title": title, "paragraphs": [paragraph]}]}), "utf-8"
        )
    run("-m", "quality", "data=squad", f"data.path={data}", "--folder", str(folder / "contract"), code=4)
    verdict = json.loads((folder / "contract" / "verdict.json").read_text("utf-8"))
    expect(verdict["status"] == "failed", f"its verdict is {verdict['status']}")
    expect((folder / "contract" / "report.html").is_file(), "there is no report")
    return "refuses broken data with exit code 4, and leaves its report"


def explain(folder: Path) -> str:
    """The model's gate does not accept a model that has learned nothing."""
    made = folder / "training"
    if not (made / "model").is_dir():
        training(folder)
    run("-m", "explain", f"run={made}", "explain.examples=16", code=5)
    verdict = json.loads((made / "explain" / "verdict.json").read_text("utf-8"))
    expect(verdict["status"] in ("failed", "inconclusive"), f"its verdict is {verdict['status']}")
    expect((made / "explain" / "report.html").is_file(), "there is no report")
    return "refuses a model of two steps with exit code 5, and leaves its report"


def serving(folder: Path) -> str:
    """A server of a trained model answers as the training's validation did."""
    made = folder / "served"
    sizes = ("data.sample.train=64", "data.sample.val=32", "trainer.max_steps=2")
    # In bf16, answers of nearly the same score change places with the size of a batch.
    run("train.py", *sizes, "trainer.precision=32-true", f"hydra.run.dir={made}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    whole = {"PYTHONPATH": str(ROOT / "src"), **os.environ}
    with (folder / "serving.log").open("w+") as log:
        command = [sys.executable, "-m", "serving", "serve", f"run={made}", "--port", port]
        server = subprocess.Popen(command, cwd=ROOT, env=whole, stdout=log, stderr=log)
        try:
            said = run("-m", "serving", "replay", f"http://127.0.0.1:{port}", f"run={made}", "--wait=120")
        except Broken as error:
            log.seek(0)
            raise Broken(f"{error}; the server: {log.read()[-500:]}") from None
        finally:
            server.terminate()
            code = server.wait(60)
    expect(code == 0, f"the server ended with exit code {code}")
    return said.strip().partition(": ")[2]


STEP = """
import kfp
from kfp import dsl
from kfp.dsl import *
from typing import *

def step(overrides: List[str], limit: float, page: Output[HTML], numbers: Output[Metrics]) -> List[str]:
    from pathlib import Path
    from config.compose import compose

    learning_rate = compose(overrides).optim.lr
    if learning_rate > limit:
        raise ValueError("more than the limit")
    numbers.log_metric("lr", learning_rate)
    Path(page.path).write_text("<p>done</p>")
    return [*overrides, f"optim.lr={learning_rate}"]
"""


def kfp(folder: Path) -> str:
    """A step of Kubeflow Pipelines runs as its launcher runs it: parameters in, parameters, metrics and a page out."""
    for program in ("sh", "mktemp", "python3"):  # what the command of a compiled component calls
        expect(shutil.which(program) is not None, f"there is no {program}")
    made = executed(folder / "kfp-step", limit=1.0)
    expect(
        made["parameterValues"] == {"Output": ["model=bert", "optim.lr=3e-05"]},
        f"it returned {made['parameterValues']}",
    )
    (numbers,) = made["artifacts"]["numbers"]["artifacts"]
    expect(numbers["metadata"] == {"lr": 3e-05}, f"its metrics are {numbers['metadata']}")
    expect((folder / "kfp-step" / "page").read_text("utf-8") == "<p>done</p>", "its page is not there")
    try:
        executed(folder / "kfp-fails", limit=0.0)
    except Broken as error:
        expect("more than the limit" in str(error), f"it failed otherwise: {error}")
    else:
        raise Broken("a step that raises ends well")
    client = importlib.util.find_spec(CLIENT) is not None
    return f"kfp {importlib.metadata.version('kfp')}, {'beside' if client else 'without'} its client"


def executed(folder: Path, limit: float) -> dict[str, Any]:
    """Runs `STEP` by kfp's own executor, from elsewhere, and returns what it hands to the launcher.

    Args:
        folder: where the launcher would put the outputs.
        limit: the learning rate above which the step raises.
    """
    folder.mkdir()
    (folder / "component.py").write_text(STEP, "utf-8")

    def artifact(name: str, schema: str) -> dict[str, Any]:
        return {
            "artifacts": [{"name": name, "type": {"schemaTitle": schema}, "uri": str(folder / name), "metadata": {}}]
        }

    given = {
        "inputs": {"parameterValues": {"overrides": ["model=bert"], "limit": limit}},
        "outputs": {
            "parameters": {"Output": {"outputFile": str(folder / "Output")}},
            "artifacts": {"page": artifact("page", "system.HTML"), "numbers": artifact("numbers", "system.Metrics")},
            "outputFile": str(folder / "executor_output.json"),
        },
    }
    module = ("--component_module_path", str(folder / "component.py"), "--function_to_execute", "step")
    run("-m", "kfp.dsl.executor_main", *module, "--executor_input", json.dumps(given), cwd=folder, _KFP_RUNTIME="true")
    made: dict[str, Any] = json.loads((folder / "executor_output.json").read_text("utf-8"))
    return made


def run(*arguments: str, code: int = 0, cwd: Path = ROOT, **environment: str) -> str:
    """Runs Python with arguments, and returns its stdout.

    Raises:
        Broken: its exit code is not the one that was expected.
    """
    # As in the image, whose PYTHONPATH it is: a checkout is proved in the same way.
    whole = {"PYTHONPATH": str(ROOT / "src"), **os.environ, "HF_HUB_OFFLINE": "1", **environment}
    python = shutil.which("python3") if environment.get("_KFP_RUNTIME") else sys.executable
    done = subprocess.run(
        [python or "python3", *arguments], cwd=cwd, env=whole, text=True, capture_output=True, timeout=900, check=False
    )
    if done.returncode != code:
        last = (done.stderr.strip() or done.stdout.strip())[-1500:]
        raise Broken(f"{' '.join(arguments[:4])}: exit code {done.returncode}, not {code}: {last}")
    return done.stdout


def expect(true: bool, otherwise: str) -> None:
    """Raises Broken unless it is true."""
    if not true:
        raise Broken(otherwise)


def normal(name: str) -> str:
    """A package's name as indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


PROOFS: Mapping[str, Callable[[Path], str]] = {
    "user": user,
    "packages": packages,
    "commands": commands,
    "kfp": kfp,
    "training": training,
    "quality": quality,
    "explain": explain,
    "serving": serving,
}

if __name__ == "__main__":
    sys.exit(main())
