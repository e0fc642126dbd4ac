"""`hydra/sweeper=katib`: the Experiment of a sweep, on this machine and on a cluster, through train.py."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from tests.conftest import ROOT, Run
from tests.katib_api_double import Api

from config.compose import hydra_loader
from config.errors import InputError
from config.tasks import CONF
from katib.sweep_overrides import translate

SMALL = ["model=bert_tiny", "data=squad_sample", "data.sample.train=64", "data.sample.val=16", "trainer.max_steps=2"]
SMALL += ["quality=off", "logger=none", "trainer.threads=1"]
KATIB = ["hydra/sweeper=katib", "hydra.sweep.dir=sweep"]
SEARCH = ["optim.lr=tag(log,interval(1e-5,1e-4))", "data.batch_size=choice(8,16,32)"]


@pytest.fixture(scope="module")
def loader() -> Iterator[Any]:
    """Hydra's loader, which knows the choices of groups."""
    with hydra_loader() as loader:
        yield loader


@pytest.fixture
def api() -> Iterator[Api]:
    double = Api()
    yield double
    double.close()


@pytest.fixture
def cluster(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
    return api


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rows(folder: Path) -> list[dict[str, Any]]:
    """The last row of each trial."""
    path = folder / "trials.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return list({row["name"]: row for line in lines if line.endswith("\n") and (row := json.loads(line))}.values())


# --- overrides


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a=interval(0,1)", "a=uniform(0,1)"),
        ("a=tag(log,interval(1e-5,1e-4))", "a=loguniform(1e-05,0.0001)"),
        ("a=int(interval(1,8))", "a=int(1,8)"),
        ("a=tag(int,interval(1,8))", "a=int(1,8)"),
        ("a=tag(log,int(interval(1,8)))", "a=logint(1,8)"),
        ("a=tag(log,int,interval(1,8))", "a=logint(1,8)"),
        ("a=range(1,5)", "a=int(1,4)"),
        ("a=range(5)", "a=int(0,4)"),
        ("a=range(4,0,-1)", "a=int(1,4)"),
        ("a=tag(log,range(1,1025))", "a=logint(1,1024)"),
        ("a=range(1,2)", "a=choice(1)"),
        ("a=range(8,65,8)", "a=choice(8,16,24,32,40,48,56,64)"),
        ("a=range(0.5,1.5,0.5)", "a=choice(0.5,1.0)"),
        ("a=choice(8,16,32)", "a=choice(8,16,32)"),
        ("a=0.5,1.0,1", "a=choice(0.5,1.0,1)"),
        ("a=sort(3,1,2)", "a=choice(1,2,3)"),
        ("a=true,False,null", "a=choice(true,false,null)"),
        ("a=str(choice(x,y))", "a=choice(x,y)"),
        ("a=float(choice(1,2))", "a=choice(1.0,2.0)"),
        ("a='my/folder','s3://b/c'", "a=choice(my/folder,s3://b/c)"),
        ("+a.b=1,2", "+a.b=choice(1,2)"),
        ("model=glob(bert*,exclude=*classifier)", "model=choice(bert,bert_tiny)"),
        # Fixed values.
        ("b=int(3.0)", "b=3"),
        ("b=[1,2]", "b=[1,2]"),
        ("b='choice(1,2)'", "b='choice(1,2)'"),
        ("b=${a}", "b=${a}"),
        ("~b", "~b"),
    ],
)
def test_overrides_are_those_of_new(override: str, expected: str, loader: Any) -> None:
    assert translate([override, "z=1,2"], loader) == [expected, "z=choice(1,2)"]


def test_a_choice_is_what_hydra_makes_of_it() -> None:
    """Each value of a list is read in a trial as the basic sweeper's job would read it."""
    for text in ("1,2.0,1e-3", "true,null,x", "range(0.1,0.5,0.1)", "a/b,c.d", "1.0,1"):
        (sweep,) = OverridesParser.create().parse_overrides([f"a={text}"])
        values = list(sweep.sweep_iterator())
        (word,) = translate([f"a={text}"], None)
        words = word.removeprefix("a=choice(").removesuffix(")").split(",")
        read = [override.value() for override in OverridesParser.create().parse_overrides([f"a={w}" for w in words])]
        assert [(value, type(value)) for value in read] == [(value, type(value)) for value in values]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a=1", "there is nothing to search; give a key several values: a,b, choice(a,b)"),
        ("a=shuffle(1,2)", "leave out shuffle()"),
        ("a=shuffle(range(1,5))", "leave out shuffle()"),
        ("a=tag(quadratic,interval(0,1))", "the tag quadratic has no meaning"),
        ("a=tag(log,choice(1,2))", "a list of values has no scale; use tag(log,interval(low,high))"),
        ("a=tag(log,range(2,9,2))", "a list of values has no scale"),
        ("a=tag(log,interval(0,1))", "a logarithmic interval begins above 0"),
        ("a=interval(1,1)", "1 is not below 1"),
        ("a=interval(0,inf)", "finite ends"),
        ("a=tag(int,interval(0.5,2))", "whole numbers as ends"),
        ("a=range(5,1)", "the range is empty"),
        ("a=range(1,5,0)", "a step that is not 0"),
        ("a=range(0,1,0.0001)", "more than 1,000 values; use interval(low,high)"),
        ("a=[1,2],[3]", "a list or mapping cannot be a value"),
        ("a={b:1},{b:2}", "a list or mapping cannot be a value"),
        ("a='x y',z", "'x y' cannot be a value of a parameter, because the shell"),
        ("a='$HOME',z", "'$HOME' cannot be a value"),
        ("a='1',z", "'1' would be read as no text"),
        ("model=glob(x*)", "no choice matches"),
    ],
)
def test_what_no_experiment_has_is_refused(override: str, message: str, loader: Any) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        translate([override], loader)
    if "nothing" not in message:
        assert str(error.value).startswith(f"{override}: ")


def test_the_last_override_of_a_key_counts() -> None:
    assert translate(["a=1,2", "b=1", "a=interval(0,1)", "b=2"], None) == ["a=uniform(0,1)", "b=2"]


# --- settings


def test_settings_have_the_defaults_of_new() -> None:
    from katib.__main__ import _parser

    options = vars(_parser().parse_args(["new", "a=choice(1,2)"]))
    settings = read(CONF / "hydra" / "sweeper" / "katib.yaml")
    shared = settings.keys() & options.keys()
    assert {"algorithm", "max_trials", "parallel", "max_failed", "kind", "collector", "retries", "title"} < shared
    assert {name: settings[name] for name in shared} == {name: options[name] for name in shared}
    missing = options.keys() - shared - {"command", "function", "overrides", "output", "again", "setting"}
    missing -= {"to"}  # a sweep is an Experiment; `katib convert` takes its file
    assert not missing, "an option of new that hydra.sweeper does not have"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra.sweeper.max_trials=0"], "hydra.sweeper.max_trials=0: must be a whole number, at least 1"),
        (["hydra.sweeper.where=there"], "hydra.sweeper.where=there: must be local or cluster"),
        (["hydra.sweeper.max_trails=2"], r"unknown key hydra.sweeper.max_trails; keys of hydra.sweeper: .*\(did you mean max_trials\?\)"),
        (["hydra.sweeper.algorithm=tbe"], "K104 .*\n.*use one of random, tpe"),
        (["hydra.sweeper.objective=val_x"], "hydra.sweeper.objective=val_x: question_answering has no such metric"),
        (["hydra.sweeper.processes=2"], "hydra.sweeper.processes=2: a Job has one process; add hydra.sweeper.kind=PyTorchJob"),
        (["hydra.sweeper.cpu=many"], "hydra.sweeper.cpu=many: write an amount"),
        (["hydra.sweeper.wait=false"], "hydra.sweeper.wait=false: has no meaning for a search on this machine"),
        (["hydra.sweeper.where=cluster", "hydra.sweeper.deadline=5"], "hydra.sweeper.deadline=5: has no meaning for a search on a cluster"),
        (["hydra.sweeper.where=cluster", "hydra.sweeper.wait=false", "hydra.sweeper.timeout=5"], "hydra.sweeper.timeout: limits waiting"),
        (["hydra.sweeper.where=cluster", "hydra.sweeper.wait_for_start=soon"], "hydra.sweeper.wait_for_start: 'soon' is not a duration"),
        (["hydra.run.dir=a"], "hydra.run.dir=a: trials have folders of their own"),
        (["hydra.sweep.subdir=a"], "hydra.sweep.subdir=a: the folder of a trial"),
        (["hydra.launcher.foo=1"], "hydra.launcher.foo"),
        (["optim.lr=loguniform(1e-5,1e-4)"], r"loguniform\(\) is for python -m katib new; with -m, write optim.lr=interval"),
        (["data.batch_size=0,8"], "data.batch_size=0: must be a whole number, at least 1"),
        (["hydra.sweep.dir='a b'"], "blanks or symbols in its path.*choose another hydra.sweep.dir"),
        (["hydra.sweeper.algorithm=pbt"], "pbt"),
        (["quality.webhook=https://hooks.example.com/services/secret"], "a secret, which an Experiment would show"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused(words: list[str], message: str, run: Run, tmp_path: Path) -> None:
    done = run("train.py", "-m", *SMALL, *SEARCH, "hydra/sweeper=katib", *words)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert "--" not in done.stderr
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_torchrun_does_not_start_searches(run: Run) -> None:
    done = run("train.py", "-m", *SMALL, *SEARCH, *KATIB, WORLD_SIZE="2", RANK="0", LOCAL_RANK="0")
    assert (done.returncode, "start it without torchrun" in done.stderr) == (2, True), done.stderr


def test_nothing_of_katib_is_imported_without_it(tmp_path: Path) -> None:
    code = "import atexit, runpy, sys; sys.argv = ['train.py', *sys.argv[1:]]; "
    code += "atexit.register(lambda: print(*(name for name in sys.modules if name.partition('.')[0] == 'katib')));"
    code += f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')"
    for words in (["-m", "model=majority", "seed=-1,-2"], ["--cfg", "hydra", "-p", "hydra.sweeper"]):
        done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout.splitlines()[-1:] == [""], done.stdout


# --- a cluster


def test_the_experiment_is_that_of_new(cluster: Api, run: Run, tmp_path: Path) -> None:
    settings = ["hydra.sweeper.algorithm=tpe", "hydra.sweeper.max_trials=5", "hydra.sweeper.stop_early=true"]
    settings += ["hydra.sweeper.goal=90", "hydra.sweeper.settings={gamma: 0.3}", "hydra.sweeper.gpus=1"]
    settings += [
        "hydra.sweeper.max_failed=0",
        "hydra.sweeper.memory=4Gi",
        "hydra.sweeper.cpu=2",
        "hydra.sweeper.image=mine:1",
        "hydra.verbose=true",
    ]
    away = ["hydra.sweeper.where=cluster", "hydra.sweeper.wait=false"]
    done = run("train.py", "-m", *SMALL, *SEARCH, *KATIB, *settings, *away)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "watch it with python -m katib watch questions-tpe -n team" in done.stderr
    file = tmp_path / "sweep" / "experiment.yaml"
    options = ["--algorithm", "tpe", "--max-trials", "5", "--stop-early", "--goal", "90", "--setting", "gamma=0.3"]
    options += ["--max-failed", "0", "--gpus", "1", "--memory", "4Gi", "--cpu", "2", "--image", "mine:1"]
    space = ["optim.lr=loguniform(1e-05,0.0001)", "data.batch_size=choice(8,16,32)"]
    expected = run("-m", "katib", "new", *SMALL, *space, "hydra.verbose=true", *options, "-o", "new.yaml")
    assert expected.returncode == 0, expected.stderr
    assert read(file) == read(tmp_path / "new.yaml")
    assert cluster.objects["experiments", "team", "questions-tpe"]["spec"]["objective"]["goal"] == 90
    # Unchanged on the way to a cluster, and made again by the command in it.
    assert run("-m", "katib", "check", str(file)).returncode == 0
    submitted = run("-m", "katib", "submit", str(file))
    assert "the same Experiment questions-tpe exists already; attached to it" in submitted.stderr
    before = file.read_text()
    assert run("-m", "katib", "new", "--again", "sweep/experiment.yaml").returncode == 0
    assert file.read_text() == before
    assert read(tmp_path / "sweep" / "multirun.yaml")["hydra"]["sweeper"]["algorithm"] == "tpe"
    # The same command attaches; another search needs another folder, and another name.
    again = run("train.py", "-m", *SMALL, *SEARCH, *KATIB, *settings, *away)
    assert (again.returncode, "attached to it" in again.stderr) == (0, True), again.stderr
    other = [*SMALL, "seed=1,2", *settings, *away, "hydra/sweeper=katib"]
    refused = run("train.py", "-m", *other, "hydra.sweep.dir=sweep")
    assert (refused.returncode, "is of another search; choose another hydra.sweep.dir" in refused.stderr) == (2, True)
    refused = run("train.py", "-m", *other, "hydra.sweep.dir=b")
    assert (refused.returncode, "choose another hydra.sweeper.name, or delete it" in refused.stderr) == (2, True)


@pytest.mark.parametrize(("condition", "code"), [("Succeeded", 0), ("Failed", 6)])
def test_a_search_on_a_cluster_is_watched(condition: str, code: int, cluster: Api, run: Run, tmp_path: Path) -> None:
    def end_trials() -> None:
        while ("experiments", "team", "mine") not in cluster.objects:
            time.sleep(0.02)
        point = {"optim.lr": "3e-05", "data.batch_size": "16"}
        cluster.trial("mine", "mine-a", "Succeeded", "81.5", **point)
        cluster.trial("mine", "mine-b", "Succeeded", "84.25", **{**point, "optim.lr": "5e-05"})
        cluster.end("mine", condition, "it ended", "mine-b" if code == 0 else None)

    threading.Thread(target=end_trials, daemon=True).start()
    words = ["hydra.sweeper.where=cluster", "hydra.sweeper.name=mine", "hydra.sweeper.namespace=team"]
    done = run("train.py", "-m", *SMALL, *SEARCH, *KATIB, *words, timeout=120)
    assert done.returncode == code, done.stderr
    results = tmp_path / "sweep" / "optimization_results.yaml"
    if code:
        assert done.stderr.splitlines()[-1] == "isotrain: the Experiment mine failed"
        assert not results.exists()
        return
    *_, best, command = done.stdout.splitlines()
    assert best == "best: val_f1=84.25 mine-b"
    assert command.endswith("optim.lr=5e-05 data.batch_size=16")
    assert read(results) == {
        "name": "katib",
        "best_params": {"optim.lr": 5e-05, "data.batch_size": 16},
        "best_value": 84.25,
    }


def test_a_file_describes_a_search(cluster: Api, run: Run, tmp_path: Path) -> None:
    """Settings of both places are in it; a run of it is a search, and its trials are none."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "my_search.yaml").write_text(
        "# @package _global_\n"
        "defaults: [{override /hydra/sweeper: katib}]\n"
        "hydra:\n"
        "  mode: MULTIRUN\n"
        "  sweep: {dir: searches/mine}\n"
        "  sweeper:\n"
        "    where: cluster\n"
        "    wait: false\n"
        "    mounts: {/cache: /my/cache}\n"
        "    params: {optim.lr: 'tag(log,interval(1e-5,1e-4))', data.batch_size: '8,16', seed: 3}\n"
    )
    conf = str(tmp_path / "conf")
    done = run("train.py", *SMALL, "experiment=my_search", "data.batch_size=32", ISOTRAIN_CONF=conf)
    assert done.returncode == 0, done.stderr
    spec = cluster.objects["experiments", "team", "questions-random"]["spec"]
    assert [parameter["name"] for parameter in spec["parameters"]] == ["optim.lr"]
    line = spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["command"][2]
    assert "seed=3 " in line
    assert "data.batch_size=32 " in line
    trial = re.sub(r"\$\{trialParameters.optimLr\}", "1e-5", line.replace("/runs/", f"{tmp_path}/runs/"))
    words = trial.replace("${trialParameters.trialName}", "a").split()[2:]
    done = run("train.py", *words, ISOTRAIN_CONF=conf)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "runs" / "a" / "run.json").read_text())["config"]["seed"] == 3


# --- this machine


def test_a_search_ends_with_the_best_overrides(run: Run, tmp_path: Path) -> None:
    command = ["train.py", "-m", *SMALL, *SEARCH, *KATIB, "hydra.sweeper.parallel=2"]
    done = run(*command, "hydra.sweeper.max_trials=2")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "sweep"
    trials = rows(folder)
    assert [row["status"] for row in trials] == ["Succeeded", "Succeeded"]
    best = max(trials, key=lambda row: row["value"])
    point = best["assignments"]
    assert done.stdout.splitlines()[-1].endswith(
        f"optim.lr={point['optim.lr']} data.batch_size={point['data.batch_size']}"
    )
    results = read(folder / "optimization_results.yaml")
    values = {"optim.lr": float(point["optim.lr"]), "data.batch_size": int(point["data.batch_size"])}
    assert results == {"name": "katib", "best_params": values, "best_value": best["value"]}
    for row in trials:
        record = json.loads((folder / "runs" / row["name"] / "run.json").read_text())
        assert record["status"] == "finished"
        assert record["config"]["optim"]["lr"] == float(row["assignments"]["optim.lr"])
    # Other counts, as in Katib; other parameters are another search.
    more = run(*command, "hydra.sweeper.max_trials=3")
    assert more.returncode == 0, more.stderr
    assert [row["name"] for row in rows(folder)][:2] == [row["name"] for row in trials]
    assert len(rows(folder)) == read(folder / "experiment.yaml")["spec"]["maxTrialCount"] == 3
    before = (folder / "experiment.yaml").read_bytes()
    refused = run(*command, "optim.lr=interval(1e-5,1e-3)")
    assert refused.returncode == 2
    assert "belongs to another search: spec.parameters differ" in refused.stderr
    assert "choose another hydra.sweep.dir" in refused.stderr
    assert (folder / "experiment.yaml").read_bytes() == before


def test_a_search_that_fails_exits_with_6(run: Run, tmp_path: Path) -> None:
    data = ["data.train_file=none.json", "data.val_file=none.json", "data.path=none"]
    words = [*SMALL[:1], "data=squad", *data, "seed=1,2", *KATIB, "hydra.sweeper.max_failed=1"]
    done = run("train.py", "-m", *words, "hydra.sweeper.parallel=1")
    assert done.returncode == 6, done.stderr
    assert (
        done.stderr.splitlines()[-1]
        == "isotrain: the search questions-random failed; sweep/trials.jsonl has the reasons"
    )
    assert not (tmp_path / "sweep" / "optimization_results.yaml").exists()


def test_killed_and_interrupted_it_goes_on(cache: Path, tmp_path: Path) -> None:
    words = [*SMALL, "seed=1,2,3", "hydra/sweeper=katib", "hydra.sweeper.algorithm=grid", "hydra.sweeper.parallel=1"]
    words += ["hydra.sweeper.max_trials=3", "trainer.max_steps=20"]
    command = [sys.executable, str(ROOT / "train.py"), "-m", *words]
    environment = {**os.environ, "ISOTRAIN_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}

    def start(*more: str) -> subprocess.Popen[str]:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*command, *more], cwd=tmp_path, env=environment, text=True, **streams)

    def wait(process: subprocess.Popen[str], folder: Path, count: int) -> None:
        """Waits until the training of a trial with this number runs."""
        end = time.monotonic() + 200
        while time.monotonic() < end:
            trials = rows(folder) if folder.is_dir() else []
            if len(trials) == count and (folder / "runs" / trials[-1]["name"] / "run.json").exists():
                return
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        raise TimeoutError

    first = start()
    stderr = first.stderr
    assert stderr is not None
    hint = stderr.readline()
    found = re.fullmatch(
        r"isotrain: the search is in (\S+); the same command with hydra.sweep.dir=\1 resumes it\n", hint
    )
    assert found, hint
    folder, named = tmp_path / found[1], f"hydra.sweep.dir={found[1]}"
    wait(first, folder, 2)
    first.kill()
    first.communicate()
    second = start(named)
    wait(second, folder, 3)
    ended = [row for row in rows(folder) if row["status"] == "Succeeded"]
    assert len(ended) == 2
    second.send_signal(signal.SIGTERM)
    _, stderr_text = second.communicate(timeout=100)
    assert second.returncode == 143, stderr_text
    assert stderr_text.splitlines()[-1] == "isotrain: interrupted; the same command resumes 1 trial(s)"
    third = start(named)
    stdout, stderr_text = third.communicate(timeout=200)
    assert third.returncode == 0, stderr_text
    trials = rows(folder)
    assert [row["assignments"]["seed"] for row in trials] == ["1", "2", "3"]
    assert [row for row in trials if row in ended] == ended
    assert "best: val_f1=" in stdout
