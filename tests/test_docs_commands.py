"""Every command of README.md and docs/ is run, in a small form, or is listed in `NOT_RUN` with the reason.

The commands of a page run one after another, as they stand there, in a folder with the repository's entries and what the
page names (tests/docs_files.py). `SMALL` makes them end soon; the Hub, Katib's and Kubeflow Pipelines' servers are doubles.
"""

import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests import docs_files, katib_api_double, kfp_api_double
from tests.conftest import ROOT, serve_warm
from tests.hub_double import HubDouble
from tests.test_readme import ALL, NETWORKS

RunPage = Callable[[str, bool], None]
TRAIN = r"(?:\btrain\.py(?: -m)?|\bkatib run +\S+|\bpipelines run)"
# What is changed in a command: (pattern, replacement), one after another.
SMALL = [
    (rf"({TRAIN})(?!.*(max_steps|shell-completion))", r"\1 trainer.max_steps=2"),
    (r"trainer.max_steps=\d+", "trainer.max_steps=2"),
    (rf"({TRAIN})(?!.*(data=(?!\w+_sample|shapes)|shell-completion|data.sample))", r"\1 data.sample.train=96 data.sample.val=48"),
    (r"data.sample.train=2000", "data.sample.train=96 data.sample.val=48"),
    # The Hub's doubles are too small for the contracts.
    (r"(train\.py)(?=.*data=(squad|imdb|ag_news|tiny_imagenet)(?!\w))(?!.*data\.(path|train_file))", r"\1 quality=warn"),
    (rf"({TRAIN})(?=.*model=resnet)", r"\1 model.name=resnet10t model.stem=standard data.image_size=32 data.batch_size=16"),
    (r"(katib run .*)--max-trials \d+", r"\1--max-trials 2"),
    (r"(katib run +katib/questions-tpe.yaml)(?!.*max-trials)", r"\1 model=bert_tiny data=squad_sample --max-trials 2"),
    (r"hydra.sweeper.max_trials=\d+", "hydra.sweeper.max_trials=2"),
    (r"(pipelines run)(?!.*-p explain)", r"\1 -p explain=warn"),
    (r"explain.examples=64", "explain.examples=8"),
    (r"-m explain run=(?!.*explain.examples)", "-m explain explain.examples=8 run="),
    (r"explain=(enforce|warn)", r"explain=\1 explain.examples=8"),
    # What a reader fills in.
    (r"outputs/…", "outputs/images"),
    (r"…", "0" * 64),
    (r"ADDRESS|<repository>", str(ROOT)),
    (r"\bRUN\b(?= --host)", "runs-1"),
    (r"<yours>", "counter"),
    (r"data=counter", "data=dots"),
    (r"(?<=ISOTRAIN_CONF=)/home/me/mine/conf PYTHONPATH=/home/me/mine", f"{NETWORKS}/conf PYTHONPATH={NETWORKS}:$PYTHONPATH"),
    (r'python, -m, mine.publish, "{train.run}", "{folder}"', r'cp, "{train.run}/run.json", "{folder}/link.txt"'),
    (r"bash, /opt/mine/announce.sh", "cat"),
    (r"/home/me/mine", str(ROOT / "tests" / "own_task")),
    # Packages are there already.
    (r"make train(?!.*ARGS)", "make train ARGS=quality=warn"),
    (r"make train ARGS=(\S+)", r"make train -o .venv/.installed BIN=$TOOLS ARGS='\1 trainer.max_steps=2 data.sample.train=96 data.sample.val=48'"),
    # A container is a folder.
    (r"(compose run --rm train)", r"\1 trainer.max_steps=2 data.sample.train=96 data.sample.val=48"),
    (r"=/runs/a", "=runs/a"),
    # A cluster is not.
    (r"kubectl apply -k (\S+).*", r"kubectl kustomize \1"),
    (r"kubectl (annotate|label) namespace NAMESPACE", r"kubectl \1 --local -o yaml -f deploy/namespace/namespace.yaml"),
    (r"kubectl -n kubeflow patch configmap \S+", "kubectl patch --local -o yaml -f deploy/base/settings.yaml"),
    (r"kubectl create", "kubectl create --dry-run=client"),
    (r"--host http://localhost:8888", ""),
    (r"pytest tests/cluster", "pytest --collect-only -q tests/cluster"),
]  # fmt: skip
# Commands that are not run, by their beginnings.
NOT_RUN = {
    "make test": "runs these tests",
    "source .venv/bin/activate": "the tests' own environment is active",
    "python -m serving serve": "serves until it is ended; tests/test_serving.py",
    "python -m serving export": "refuses what has learned nothing; tests/test_serving_export.py",
    "curl -s localhost:8080/predict": "needs that server",
    "python -m serving replay http": "needs that server",
    "python -m serving bench http": "needs that server; tests/test_serving_bench.py",
    "kubectl apply -f questions.yaml": "needs a cluster with KServe",
    "python -m pipelines deploy": "needs a cluster with KServe; tests/test_pipelines_deploy.py",
    "mlflow models": "tests/test_pyfunc.py calls MLflow's commands",
    "docker run --rm --network none isotrain:0.1.0 python image/prove.py": "needs the image",
    "docker buildx imagetools inspect": "asks a registry",
    "kubectl port-forward": "needs a cluster",
    "kubectl -n kubeflow set env": "needs a cluster",
}
# Exit codes of what a model fails that has learned nothing.
CODES = {r"-m explain .*run=": 5, r"explain=enforce": 5, r"explain calibrate": 2}
# Only with the other slow tests: pages that take minutes, and such commands of the others.
SLOW_PAGES = {"README.md", "data.md", "image.md", "models.md", "quality.md"}
SLOW = re.compile("torchrun|katib run|hydra/sweeper|pipelines (run|submit|status)|explain|register|champion")
# What a command needs that no command of its page makes: (pattern, command).
BEFORE = {
    "train.py .*quality.contract=my-images.yaml": "sleep 1",  # a run folder is named after the second
    "explain calibrate": "for n in 0 1 2; do python train.py model=resnet18 data=shapes seed=$n explain=warn hydra.run.dir=runs/seed$n; done",
    "explain.thresholds=bounds.json": """echo '{"task": "image_classification", "runs": [], "bounds": {"learned": 0.0}}' > bounds.json""",
    "register --rollback": "for run in b a; do python -m runs register outputs/$run --champion --justification test; done",
    "my-experiment.yaml": "cp katib/questions-json.yaml my-experiment.yaml",
}


def change(command: str) -> str:
    """The small form of a command, without its comment."""
    command = plain(command)
    for pattern, replacement in SMALL:
        command = re.sub(pattern, replacement, command)
    return command


def plain(command: str) -> str:
    return re.sub(r"\s+# .*", "", command)


def is_slow(command: str) -> bool:
    return SLOW.search(plain(command)) is not None


def left_out(command: str) -> bool:
    return any(command.startswith(beginning) for beginning in NOT_RUN)


def script(page: str, slow: bool) -> str:
    """The commands of a page as a bash script that ends at the first one that ends otherwise than it should."""
    lines = []
    for line in ALL:
        if line.page != page or left_out(line.command) or (not slow and is_slow(line.command)):
            continue
        if line.command.startswith("kubectl") and not shutil.which("kubectl"):
            warnings.warn("kubectl is not there: its commands are not run", stacklevel=2)
            continue
        lines += [change(command) for pattern, command in BEFORE.items() if re.search(pattern, line.command)]
        code = next((code for pattern, code in CODES.items() if re.search(pattern, line.command)), 0)
        command = change(line.command)
        quoted = "'" + command.replace("'", "'\\''") + "'"
        check = f'code=$?; [ $code = {code} ] || {{ echo "exit code $code, not {code}: "{quoted} >&2; exit 9; }}'
        lines += [f"echo '+' {quoted}", command, check]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of the commands: programs, a warm process, and a Hub."""
    folder = tmp_path_factory.mktemp("tools")
    with HubDouble() as hub:
        docs_files.serve_repositories(hub, folder)
        settings = hub.environment(folder / "hub")
        for warm in serve_warm(folder / "socket", "hydra", "torch", "lightning.pytorch", **settings):
            programs = docs_files.write_tools(folder / "bin", warm, ROOT)
            path = f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            yield {
                **os.environ,
                **settings,
                "PATH": path,
                "TOOLS": str(programs),
                "PYTHONPATH": str(ROOT / "src"),
                "HOME": str(folder),
            }


@pytest.fixture(scope="module")
def files(tools: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pages name."""
    folder = tmp_path_factory.mktemp("files")
    docs_files.write_files(folder)
    (folder / "train.py").symlink_to(ROOT / "train.py")
    questions = (
        "model=bert trainer.max_steps=2 data=squad data.path=$PWD/my/questions.csv data.split=0.2 data.test_split=0.2"
    )
    images = "model=resnet18 data=image_folder data.path=$PWD/my/images quality=warn"
    commands = [
        *(f"python train.py {questions} seed={seed} hydra.run.dir={run}" for seed, run in enumerate(docs_files.RUNS)),
        change(f"python train.py {images} hydra.run.dir=outputs/images"),
    ]
    done = bash("set -e\n" + "\n".join(commands), folder, tools)
    assert done.returncode == 0, done.stderr
    return folder


def bash(text: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", text], cwd=folder, env=environment, text=True, capture_output=True, timeout=880, check=False
    )


@pytest.fixture
def run_page(tools: dict[str, str], files: Path, tmp_path: Path) -> Iterator[RunPage]:
    katib, pipelines = katib_api_double.Api(), kfp_api_double.Api()
    servers = {"KUBECONFIG": str(katib.kubeconfig(tmp_path / "kubeconfig")), "KFP_HOST": pipelines.host}
    servers |= {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"), "SLACK_WEBHOOK": pipelines.host}

    def run(page: str, slow: bool) -> None:
        text, folder = script(page, slow), tmp_path / "checkout"
        folder.mkdir()
        for entry in ROOT.iterdir():
            if entry.name not in (".git", "outputs", "multirun", "runs", "site"):
                (folder / entry.name).symlink_to(entry)
        for path in (*docs_files.PATHS, "outputs/images"):
            if path in text:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if (files / path).is_dir() else shutil.copy)(files / path, folder / path)
        done = bash(text, folder, {**tools, **servers})
        assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"

    yield run
    katib.close()
    pipelines.close()


@pytest.mark.parametrize("page", sorted({line.page for line in ALL if not is_slow(line.command)} - SLOW_PAGES))
def test_the_commands_of_a_page_run(page: str, run_page: RunPage) -> None:
    run_page(page, False)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({line.page for line in ALL if is_slow(line.command)} | SLOW_PAGES))
def test_all_commands_of_a_page_run(page: str, run_page: RunPage) -> None:
    run_page(page, True)


def test_the_tables_have_nothing_else() -> None:
    """A change, an exit code or an exception that no command has any more."""
    commands = [plain(line.command) for line in ALL]
    assert [start for start in NOT_RUN if not any(command.startswith(start) for command in commands)] == []
    assert [pattern for pattern in (*CODES, *BEFORE) if not any(re.search(pattern, each) for each in commands)] == []
    for pattern, replacement in SMALL:
        changed = [re.sub(pattern, replacement, command) for command in commands]
        assert changed != commands, pattern
        commands = changed
