"""python -m katib run --warm: a trial that is forked is the trial that a new process would be."""

import ast
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from tests.test_katib_run import experiment as toy_experiment

from katib.warm_start import ColdStartError, read_command
from trainers import fork_server

ROOT = Path(__file__).resolve().parents[1]
# A model whose check writes what the process is.
PROBE = """
import json, os, random, resource, signal, sys
from pathlib import Path
import numpy, psutil, torch
from trainers.question_answering import QuestionAnswering

class Probe(QuestionAnswering):
    @classmethod
    def check_config(cls, config):
        process, parent = psutil.Process(), psutil.Process().parent()
        unset = ("argv", "orig_argv", "path", "flags", "executable")
        same = {name: str(getattr(sys, name)) for name in unset}
        same |= {"environment": dict(os.environ), "folder": os.getcwd(), "main": sys.modules["__main__"].__file__}
        same |= {"command": [word for word in process.cmdline() if word], "shell": parent.cmdline()[:2], "line": parent.cmdline()[2].split()[:3]}
        same |= {"leads": os.getsid(0) == os.getpgid(0) == parent.pid, "cores": sorted(os.sched_getaffinity(0))}
        same |= {"nice": os.nice(0), "umask": os.umask(0o22), "files": resource.getrlimit(resource.RLIMIT_NOFILE)}
        same |= {"signals": [str(signal.getsignal(n)) for n in (signal.SIGPIPE, signal.SIGHUP, signal.SIGCHLD)]}
        same |= {"descriptors": sorted(os.readlink(f"/proc/self/fd/{n}").split("/")[-1] for n in (0, 1, 2))}
        same |= {"encodings": [(f.encoding, f.errors, f.line_buffering) for f in (sys.__stdin__, sys.__stdout__, sys.__stderr__)]}
        same |= {"torch": [torch.initial_seed(), torch.get_num_threads()], "hash": hash("text")}
        same |= {"shown": process.environ().get("KATIB_TRIAL_NAME")}
        draws = [random.random(), numpy.random.random()]
        row = {"same": same, "draws": draws}
        Path(os.environ["PROBES"], os.environ["KATIB_TRIAL_NAME"]).write_text(json.dumps(row))
"""
SMALL = [
    *("data=squad_sample", "data.sample.train=64", "data.sample.val=16", "data.batch_size=16", "trainer.threads=1"),
    *("model.architecture.num_hidden_layers=1", "model.architecture.layer_types=[full_attention]", "explain=off"),
]


def write_experiment(folder: Path, words: list[str], **spec: Any) -> Path:
    """An Experiment over seeds, one trial at a time, whose trials call train.py."""
    path = toy_experiment(
        folder, parallelTrialCount=1, parameters=[("seed", "discrete", {"list": ["1", "2"]})],
        algorithm={"algorithmName": "grid"}, **spec,
    )  # fmt: skip
    value = yaml.safe_load(path.read_text())
    template = value["spec"]["trialTemplate"]
    container = template["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    line = " ".join(["python train.py", *words, "seed=${trialParameters.seed}"])
    container["command"] = ["sh", "-c", f"{line} hydra.run.dir=/runs/${{trialParameters.trialName}}"]
    value["spec"]["objective"] = {"type": "minimize", "objectiveMetricName": "val_loss"}
    path.write_text(yaml.safe_dump(value, sort_keys=False, width=10_000))
    return path


def search(path: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "katib", "run", str(path), "--folder", str(path.parent / "search"), "--no-check", *options],
        env=_environment(**environment), capture_output=True, text=True, cwd=ROOT, check=False, timeout=800,
    )  # fmt: skip


def _environment(**environment: str) -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "src"), **environment}


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The last row of each trial, in the order of their start."""
    rows = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / "search" / "trials.jsonl").read_text().splitlines():
            rows[json.loads(line)["name"]] = json.loads(line)
    return list(rows.values())


@pytest.mark.slow
def test_a_forked_trial_is_what_a_new_process_is(tmp_path: Path) -> None:
    """Its process is the same in all that a program can ask for; its metrics, output and weights to the last bit."""
    results: dict[str, Any] = {}
    for mode in ("cold", "warm"):
        folder = tmp_path / mode
        (folder / "probes").mkdir(parents=True)
        (tmp_path / "probe.py").write_text(PROBE)
        words = ["model=bert_tiny", "model._target_=probe.Probe", *SMALL, "trainer.max_steps=2"]
        done = search(
            write_experiment(folder, words, maxTrialCount=2), *(["--warm"] if mode == "warm" else []),
            PYTHONPATH=f"{ROOT / 'src'}:{tmp_path}", PROBES=str(folder / "probes"), PYTHONHASHSEED="7",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "--warm" not in done.stderr
        rows = read_rows(folder)
        assert [row["status"] for row in rows] == ["Succeeded", "Succeeded"]
        names = [row["name"] for row in rows]
        text = json.dumps([json.loads((folder / "probes" / name).read_text())["same"] for name in names])
        for place, name in (("A", names[0]), ("B", names[1]), ("FOLDER", str(folder))):
            text = text.replace(name, place)
        probes = [json.loads((folder / "probes" / name).read_text()) for name in names]
        records = [json.loads((folder / "search" / "runs" / name / "run.json").read_text()) for name in names]
        results[mode] = {
            "process": json.loads(text),
            "draws": [draw for probe in probes for draw in probe["draws"]],
            "weights": [
                (folder / "search" / "runs" / name / "model" / "model.safetensors").read_bytes() for name in names
            ],
            "values": [row["curve"][0][1] for row in rows],
            "metrics": [record["metrics"] for record in records],
            "exits": [row["exit_code"] for row in rows],
        }
    cold, warm = results["cold"], results["warm"]
    for index in range(2):
        assert cold["process"][index] == warm["process"][index]
        assert cold["weights"][index] == warm["weights"][index]
        assert cold["values"][index] == warm["values"][index]
        assert cold["exits"][index] == warm["exits"][index] == 0
    assert warm["weights"][0] != warm["weights"][1]  # other seeds
    assert cold["draws"] == warm["draws"]  # after train.py has set its seeds
    assert (tmp_path / "warm" / "search" / "fork_server.log").read_text() == ""


def wait_for(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 240
    while not (value := condition()):
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.05)
    return value


def training(folder: Path, count: int) -> psutil.Process | None:
    """The training of the count-th trial, once it has made a step."""
    rows = read_rows(folder)
    if len(rows) < count:
        return None
    run = folder / "search" / "runs" / rows[count - 1]["name"]
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        if "val_loss" in (run / "metrics.jsonl").read_text():
            return psutil.Process(json.loads((run / ".lock.json").read_text())["pid"])
    return None


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A search with --warm whose trials do not end by themselves."""
    words = ["model=bert_tiny", *SMALL, "trainer.max_epochs=100000", "trainer.val_check_interval=1.0"]
    path = write_experiment(tmp_path, words, maxTrialCount=2, maxFailedTrialCount=9)
    command = [
        sys.executable,
        "-m",
        "katib",
        "run",
        str(path),
        "--folder",
        str(tmp_path / "search"),
        "--no-check",
        "--warm",
    ]
    running = subprocess.Popen(command, env=_environment(), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    yield running
    for process in [*psutil.Process(running.pid).children(recursive=True)] if running.poll() is None else []:
        with contextlib.suppress(psutil.Error):
            process.kill()
    running.kill()
    running.wait()


@pytest.mark.slow
def test_signals_reach_forked_trials_and_nothing_outlives_the_search(
    tmp_path: Path, endless: subprocess.Popen[str]
) -> None:
    first = wait_for(lambda: training(tmp_path, 1))
    children = psutil.Process(endless.pid).children()
    server = next(child for child in children if any("fork_server.py" in word for word in child.cmdline()))
    assert first.cmdline()[:2] == ["python", "train.py"]
    assert first.parent().ppid() == endless.pid
    first.terminate()
    wait_for(lambda: read_rows(tmp_path)[0]["status"] == "Failed")
    assert read_rows(tmp_path)[0]["exit_code"] == 143
    run = tmp_path / "search" / "runs" / read_rows(tmp_path)[0]["name"]
    assert (run / "checkpoints" / "last.ckpt").exists()
    second = wait_for(lambda: training(tmp_path, 2))
    server.kill()  # the trial goes on
    time.sleep(1)
    assert second.is_running()
    shell = second.parent()
    endless.kill()
    _, text = endless.communicate()
    assert "Traceback" not in text
    for process in (second, shell, server):
        wait_for(lambda process=process: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.slow
def test_a_killed_fork_server_is_started_again(tmp_path: Path, endless: subprocess.Popen[str]) -> None:
    first = wait_for(lambda: training(tmp_path, 1))
    children = psutil.Process(endless.pid).children()
    next(child for child in children if any("fork_server.py" in word for word in child.cmdline())).kill()
    first.kill()
    wait_for(lambda: read_rows(tmp_path)[0]["status"] == "Failed")
    assert read_rows(tmp_path)[0]["exit_code"] == 137
    wait_for(lambda: training(tmp_path, 2))
    endless.send_signal(signal.SIGINT)
    _, text = endless.communicate(timeout=100)
    assert endless.returncode == 130
    assert "--warm: the process that is forked has ended with SIGKILL" in text
    assert "it is started again" in text
    run = tmp_path / "search" / "runs" / read_rows(tmp_path)[1]["name"]
    assert (run / "checkpoints" / "last.ckpt").exists()


def test_another_command_starts_cold_and_a_message_says_so_once(tmp_path: Path) -> None:
    done = search(toy_experiment(tmp_path, maxTrialCount=2), "--warm")
    assert done.returncode == 0, done.stderr
    assert (
        done.stderr.count("isotrain: --warm: trials start cold: the command does not begin with a call of this inst")
        == 1
    )
    assert [row["status"] for row in read_rows(tmp_path)] == ["Succeeded"] * 2
    assert not (tmp_path / "search" / "fork_server.log").exists()


@pytest.mark.parametrize("line", [
    "cd x && python train.py a=b", "A=1 python train.py a=b", "python -u train.py a=b", "torchrun train.py a=b",
    "python other/train.py a=b", "python train.py READM?.md > out", "python train.py a={1,2}", "python train.py a=$(date)", "python train.py a=$UNKNOWN",
    "python train.py a=~", "python train.py a=b | tee log", "python train.py a=b & wait", "! python train.py a=b",
    "python train.py a=b < in", "python train.py a=b >> out", "exec python train.py a=b", "(python train.py a=b)", "echo 'a",
])  # fmt: skip
def test_commands_that_are_not_exactly_ours_are_not_forked(line: str) -> None:
    with pytest.raises(ColdStartError):
        read_command(["sh", "-c", line], {"X": "1 2"}, ROOT)


def test_a_command_is_split_as_the_shell_would() -> None:
    line = "python train.py 'a=[1, 2]' d=[1] b=$X c=\"$Y\" 1>/m/log 2>&1 && echo completed > /m/$$.pid"
    request = read_command(["bash", "-c", line], {"X": "1 2", "Y": "*"}, ROOT)
    assert request["words"] == ["python", "train.py", "a=[1, 2]", "d=[1]", "b=1", "2", "c=*"]
    assert request["redirects"] == [(1, "/m/log"), (2, 1)]
    assert request["rest"] == " && echo completed > /m/$$.pid"
    assert request["shell"] == ["bash", "-c"]


def test_a_process_with_threads_is_not_forked() -> None:
    code = (
        "import sys, threading; sys.path.insert(0, 'src'); from trainers import fork_server as server; print(server.find_obstacle())\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start(); print(server.find_obstacle())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines() == ["", "the imported modules have started threads (python, python)"]


def test_forked_generators_are_seeded_anew() -> None:
    code = (
        "import os, random, sys, numpy.random; sys.path.insert(0, 'src'); from trainers import fork_server as server\n"
        "for _ in range(2):\n"
        "    if (pid := os.fork()) == 0:\n"
        "        server.seed_generators(); print(random.random(), numpy.random.random(), flush=True); os._exit(0)\n"
        "    os.waitpid(pid, 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert len(set(done.stdout.split())) == 4


def test_changed_sources_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "changed_module.py"
    file.write_text("")
    monkeypatch.setattr(fork_server, "_sources", {})
    monkeypatch.syspath_prepend(tmp_path)
    __import__("changed_module")
    fork_server.note_sources()
    assert str(file) in fork_server._sources
    assert fork_server.find_change() == ""
    os.utime(file, (1, 1))
    assert fork_server.find_change() == f"{file} has changed"


def test_what_train_imports_in_its_functions_is_imported_ahead() -> None:
    tree = ast.parse((ROOT / "train.py").read_text())
    names = set()
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        for node in ast.walk(function):
            if isinstance(node, ast.ImportFrom):
                package = node.module or ""
                folder = (ROOT / "src" / package.replace(".", "/")).is_dir()
                names |= {f"{package}.{alias.name}" for alias in node.names} if folder else {package}
    assert "trainers.fit" in names
    assert names - set(fork_server.MODULES) == set()
