"""What a person sees when it goes wrong: one message on stderr, no traceback, the exit code, and nothing lost."""

import errno
import io
import json
import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.conftest import ROOT, Run

from config.error_handling import report_errors
from config.errors import ContractError, InputError, ResourceError
from trainers import checkpoints

TINY = [
    "~model.architecture",
    "+model.architecture={model_type:bert,hidden_size:16,num_hidden_layers:1,num_attention_heads:2,intermediate_size:32}",
    "model.vocab_size=300",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "quality=off",  # toy data: what breaks a contract is in test_quality_gate.py
    "logger=none",
]


def squad(answer: str = "blue", start: int = 7, **more: object) -> dict[str, object]:
    """A data set of a few questions; the answer may be broken."""
    paragraphs = [
        {
            "context": f"Bo has blue eyes and number {i}.",
            "qas": [{"id": f"q{i}", "question": "What colour?", "answers": [{"text": answer, "answer_start": start}]}],
        }
        for i in range(8)
    ]
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}], **more}


def write(folder: Path, train: object, val: object | None = None) -> Path:
    """Both splits in the official names."""
    folder.mkdir(exist_ok=True)
    for name, content in (("train-v1.1.json", train), ("dev-v1.1.json", train if val is None else val)):
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def questions(tmp: Path) -> list[str]:
    return [f"data.path={write(tmp / 'data', squad())}", *TINY]


def broken_json(tmp: Path) -> list[str]:
    return [f"data.path={write(tmp / 'data', json.dumps(squad())[:-30])}", *TINY]


def no_questions(tmp: Path) -> list[str]:
    return [f"data.path={write(tmp / 'data', squad(), {'data': []})}", *TINY]


def missing_file(tmp: Path) -> list[str]:
    return [f"data.path={tmp / 'nowhere'}", *TINY]


def one_id_twice(tmp: Path) -> list[str]:
    content = squad()
    content["data"] = content["data"] * 2  # type: ignore[operator]
    return [f"data.path={write(tmp / 'data', content)}", *TINY]


def answers_elsewhere(tmp: Path) -> list[str]:
    return [f"data.path={write(tmp / 'data', squad(start=0))}", *TINY]


def images(tmp: Path, classes: int = 2, spoil: str | None = None) -> list[str]:
    for split in ("train", "val"):
        for k in range(classes):
            folder = tmp / "images" / split / f"class{k}"
            folder.mkdir(parents=True)
            for i in range(6):
                Image.new("RGB", (16, 16), (40 * k, 20 * i, 0)).save(folder / f"{i}.jpeg")
    if spoil == "jpeg":
        path = tmp / "images" / "train" / "class1" / "3.jpeg"
        path.write_bytes(path.read_bytes()[:200])
    if spoil == "class":
        (tmp / "images" / "val" / "class1").rename(tmp / "images" / "val" / "other")
    if spoil == "empty":
        shutil.rmtree(tmp / "images" / "val")
        (tmp / "images" / "val" / "class0").mkdir(parents=True)
    return [
        "model=resnet18",
        "model.name=test_resnet",
        "model.stem=standard",
        "model.pretrained=false",
        "data=image_folder",
        "data.image_size=16",
        f"data.path={tmp / 'images'}",
        "data.augment.crop_padding=0",
        "trainer.accelerator=cpu",
        "quality=off",
        "logger=none",
    ]


# what is done, its exit code, what the message says
TABLE: list[tuple[str, Callable[[Path], list[str]], int, str]] = [
    ("unknown key", lambda _: ["optim.lrr=1"], 2, r"unknown key optim\.lrr; keys of optim: .*did you mean lr\?"),
    (
        "unknown key of another choice",
        lambda _: ["model=resnet18", "data=shapes", "data.augment.mixp=1"],
        2,
        r"unknown key data\.augment\.mixp; keys of data\.augment: random_resized_crop, .*did you mean mixup\?",
    ),
    ("unknown choice", lambda _: ["model=brt"], 2, r"model=brt: no such choice; valid: .*bert"),
    ("key of another section", lambda _: ["lr=1"], 2, r"unknown key lr; .*\(did you mean optim\.lr\?\)"),
    ("name of other tools", lambda _: ["optim.learning_rate=1"], 2, r"optim\.learning_rate; .*did you mean lr\?"),
    (
        "launcher that is not installed",
        lambda _: ["hydra/launcher=joblib"],
        2,
        r"hydra/launcher=joblib: no such choice; valid: .*basic.*pip install hydra-joblib-launcher",
    ),
    ("unknown group", lambda _: ["hydra/launchr=x"], 2, r"no such group; .*did you mean hydra/launcher\?"),
    ("several values without -m", lambda _: ["seed=0,1"], 2, r"seed=0,1: is a list of values: add -m"),
    (
        "path with a blank",
        lambda _: ["data.path=/my", "own", "data"],
        2,
        r"""cannot parse the override 'own': .* write 'data\.path="/my own data"'""",
    ),
    (
        "path with symbols",
        lambda _: ["data.path=/my(data)"],
        2,
        r"""its value needs quotes: write 'data\.path="/my\(data\)"'""",
    ),
    ("home folder", lambda _: ["data.path=~/data"], 2, r"""write data\.path="\$HOME/data"\n"""),
    ("no such accelerator", lambda _: ["trainer.accelerator=gpuu"], 2, r"must be auto or cpu or gpu"),
    ("precision of nobody", lambda _: ["trainer.precision=fp16"], 2, r"precision=fp16: must be auto or 32-true or "),
    (
        "processes without torchrun",
        lambda tmp: [
            *questions(tmp),
            "trainer.accelerator=cpu",
            "trainer.devices=2",
            f"data.cache_dir={tmp}/unread",
        ],
        2,
        r"trainer\.devices=2: torchrun starts the processes: torchrun --nproc-per-node=2 train\.py",
    ),
    (
        "processes of a strategy",
        lambda tmp: [*questions(tmp), "trainer.accelerator=cpu", "trainer.strategy=ddp_spawn"],
        2,
        r"trainer\.strategy=ddp_spawn starts processes from this one, .*; use ddp with torchrun",
    ),
    (
        "run folder in a bucket",
        lambda _: ["hydra.run.dir=s3://bucket/run"],
        2,
        r"dir=s3://…: is a URL; .*mount the bucket",
    ),
    ("cache in a bucket", lambda _: ["data.cache_dir=s3://bucket/cache"], 2, r"data\.cache_dir=s3://…: is a URL"),
    ("metrics in a bucket", lambda _: ["metrics_file=s3://bucket/m.jsonl"], 2, r"s3://…: is a URL"),
    ("wrong type", lambda _: ["optim.lr=fast"], 2, r"optim\.lr=fast: must be a number"),
    ("out of range", lambda _: ["data.batch_size=0"], 2, r"data\.batch_size=0: must be a whole number, at least 1"),
    (
        "sample out of range",
        lambda _: ["data.sample.unanswerable=1.5"],
        2,
        r"data\.sample\.unanswerable=1\.5: must be a number, at least 0",
    ),
    (
        "empty sample",
        lambda _: ["data.sample.train=0"],
        2,
        r"data\.sample\.train=0: must be a whole number, at least 1",
    ),
    (
        "unknown setting of a sample",
        lambda _: ["+data.sample.colour=1"],
        2,
        r"data\.sample has no key colour; valid keys:",
    ),
    (
        "two tasks",
        lambda _: ["model=resnet18"],
        2,
        r"for the task image_classification and the data set for question_answering: .* model=bert or .* or data=image_folder or",
    ),
    ("unknown argument", lambda _: ["+trainer.max_epoch=1"], 2, r"trainer: .*max_epoch"),
    ("ours to give", lambda _: ["+trainer.callbacks=[]"], 2, r"trainer\.callbacks is set by train\.py; remove it"),
    (
        "unknown architecture",
        lambda tmp: [*questions(tmp), "+model.architecture.wings=2"],
        2,
        r"model\.architecture\.wings: .*bert has no such setting",
    ),
    (
        "unknown kind of model",
        lambda tmp: [*questions(tmp), "model.architecture.model_type=bret"],
        2,
        r"model_type=bret: transformers has no such model",
    ),
    ("no such folder", missing_file, 2, r"nowhere"),
    ("broken JSON", broken_json, 2, r"train-v1\.1\.json.*line 1"),
    ("empty split", no_questions, 2, r"dev-v1\.1\.json.*no questions"),
    ("an id twice", one_id_twice, 2, r"the id 'q\d' occurs twice"),
    ("no usable answers", answers_elsewhere, 2, r"no question to train on: none of 8"),
    (
        "no such weights",
        lambda tmp: [*questions(tmp), "model.pretrained=./nowhere"],
        2,
        r"model\.pretrained=\./nowhere",
    ),
    (
        "no such tokenizer",
        lambda tmp: [*questions(tmp), "model.tokenizer=/nowhere/vocab.txt"],
        2,
        r"model\.tokenizer=/nowhere",
    ),
    ("no such parent", lambda tmp: [*questions(tmp), "init_from=nowhere"], 2, r"init_from|nowhere"),
    ("torn image", lambda tmp: images(tmp, spoil="jpeg"), 2, r"class1/3\.jpeg"),
    ("one class", lambda tmp: images(tmp, classes=1), 2, r"class"),
    ("strange class", lambda tmp: images(tmp, spoil="class"), 2, r"other"),
    ("no images", lambda tmp: images(tmp, spoil="empty"), 2, r"val"),
    (
        "no such timm model",
        lambda tmp: [*images(tmp), "model.name=resnet19"],
        2,
        r"model\.name=resnet19: timm has no such model; similar: .*resnet18",
    ),
    (
        "diverges",
        lambda tmp: [
            *questions(tmp),
            "optim.lr=100",
            "optim=sgd",
            "optim.lr=100",
            "trainer.gradient_clip_val=null",
            "trainer.max_epochs=60",
            "optim.schedule=constant",
            "optim.warmup=0",
        ],
        3,
        r"loss|not numbers",
    ),
    (
        "schedule without an end",
        lambda _: ["trainer.max_epochs=-1", "trainer.max_time=00:00:00:01"],
        2,
        r"set optim\.horizon, or optim\.schedule=constant",
    ),
    (
        "no such bounds of explanations",
        lambda tmp: [
            *questions(tmp),
            "explain=warn",
            "explain.thresholds=nowhere.json",
            f"data.cache_dir={tmp}/unread",
        ],
        2,
        r"nowhere\.json",
    ),
    (
        "no such precision",
        lambda tmp: [*questions(tmp), "trainer.precision=transformer-engine", f"data.cache_dir={tmp}/unread"],
        2,
        r"trainer: .*transformer_engine",
    ),
    (
        "betas above 1",
        lambda _: ["optim.optimizer.betas=[2,3]"],
        2,
        r"optim\.optimizer: Invalid beta parameter at index 0: 2",
    ),
    ("a choice that is a number", lambda _: ["optim=[2]"], 2, r"optim=\[2\]: cannot be composed \(TypeError"),
    ("one beta", lambda _: ["optim.optimizer.betas=[0.9]"], 2, r"optim\.optimizer: .*index out of range"),
    (
        "a number that is text",
        lambda _: ["optim.optimizer.eps=small"],
        2,
        r"optim\.optimizer\.eps=small: must be a number",
    ),
    ("run folder is a file", lambda tmp: [f"hydra.run.dir={_file(tmp)}"], 2, r"cannot use .*file: file exists"),
    ("run folder below a file", lambda tmp: [f"hydra.run.dir={_file(tmp)}/run"], 2, r"file/run: not a directory"),
    ("run folder in a file system without it", lambda _: ["hydra.run.dir=/proc/run"], 2, r"cannot use /proc"),
    (
        "metrics file below a file",
        lambda tmp: [*questions(tmp), f"metrics_file={_file(tmp)}/m"],
        2,
        r"cannot be written: .*file is a file",
    ),
    (
        "folder of somebody else",
        lambda tmp: [*questions(tmp), f"hydra.run.dir={_foreign(tmp)}"],
        2,
        r"not a run folder",
    ),
]


def _file(tmp: Path) -> Path:
    (tmp / "file").write_text("")
    return tmp / "file"


def _foreign(tmp: Path) -> Path:
    (tmp / "foreign").mkdir()
    (tmp / "foreign" / "thesis.txt").write_text("mine")
    return tmp / "foreign"


@pytest.mark.parametrize(("name", "make", "code", "message"), TABLE, ids=[row[0] for row in TABLE])
def test_one_message_and_its_exit_code(
    name: str, make: Callable[[Path], list[str]], code: int, message: str, run: Run, tmp_path: Path
) -> None:
    done = run("train.py", *make(tmp_path))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("isotrain: ")]
    assert len(said) == 1, done.stderr
    assert re.search(message, done.stderr[done.stderr.index("isotrain: ") :], re.DOTALL), done.stderr
    assert done.stdout == "" or code == 3
    assert not (tmp_path / "unread").exists()  # refused before data is prepared
    if (tmp_path / "foreign").exists():
        assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["thesis.txt"]


def test_a_file_for_predict_is_refused_before_the_model_is_loaded(run: Run) -> None:
    done = run("-m", "trainers", "predict", "run=nowhere", "missing.jsonl")
    assert (done.returncode, done.stderr) == (2, "isotrain: missing.jsonl: no such file\n")


def test_a_traceback_for_those_who_ask(run: Run) -> None:
    done = run("train.py", "optim.lrr=1", ISOTRAIN_DEBUG="1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_a_diverged_run_may_report_the_worst(run: Run, tmp_path: Path) -> None:
    """For searches that stall on a failed trial: finite values, exit code 0, and the record says why."""
    overrides = TABLE[[row[0] for row in TABLE].index("diverges")][1](tmp_path)
    done = run("train.py", *overrides, "trainer.on_divergence=report_worst", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("val_loss=1000.0 val_exact_match=0.0 val_f1=0.0")
    assert "nan" not in done.stdout
    assert "inf" not in done.stdout
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "diverged" in record
    assert record["metrics"]["val_f1"] == 0.0


def test_a_report_that_fails_leaves_a_finished_run(tmp_path: Path, cache: Path) -> None:
    """Neither the pictures of mistakes nor the page are the training: it has ended well, and says what is missing."""
    overrides = [*images(tmp_path), "trainer.threads=1", "hydra.run.dir=run", "trainer.max_epochs=1"]
    code = (
        "import runpy, sys\n"
        "from runs import report\n"
        "from trainers import mistake_pictures\n"
        "def broken(*_):\n"
        "    raise ValueError('of no shape')\n"
        "report.write = mistake_pictures.save_pictures = broken\n"
        f"sys.argv = ['train.py', *{overrides!r}]\n"
        f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
    )
    environment = {**os.environ, "ISOTRAIN_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "report.html could not be written: of no shape; python -m runs report " in done.stderr
    assert "texts or pictures of mistakes could not be saved for the report: of no shape" in done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], (tmp_path / "run" / "report.html").exists()) == ("finished", False)
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_full_disk_loses_nothing_that_was_written(tmp_path: Path, cache: Path) -> None:
    """The second checkpoint meets a full disk: the first is still there, whole, and the run goes on from it."""
    overrides = [*questions(tmp_path), "hydra.run.dir=run", "trainer.max_epochs=4", "data.batch_size=4"]
    code = (
        "import errno, runpy, sys\n"
        "import torch\n"
        "save, count = torch.save, []\n"
        "def full(checkpoint, stream):\n"
        "    count.append(1)\n"
        "    if len(count) > 3:\n"
        "        stream.write(b'x' * 1000)\n"
        "        raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "    save(checkpoint, stream)\n"
        "torch.save = full\n"
        f"sys.argv = ['train.py', *{overrides!r}]\n"
        f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
    )
    environment = {**os.environ, "ISOTRAIN_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    full = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert full.returncode == 8, full.stderr
    assert "best.ckpt: no space left on the disk; the previous checkpoint is unchanged" in full.stderr
    assert "Traceback" not in full.stderr
    assert list((tmp_path / "run").rglob("*.tmp")) == []
    assert json.loads((tmp_path / "run" / "run.json").read_text())["exit_code"] == 8
    from trainers.checkpoints import read

    assert read(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] > 0
    again = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *overrides],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert "resuming from" in again.stderr


FULL = OSError(errno.ENOSPC, "No space left on device")


def raise_from(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def raise_while(error: BaseException, context: BaseException) -> BaseException:
    error.__context__ = context
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        *((OSError(number, os.strerror(number)), 8) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)),
        *(
            (OSError(number, os.strerror(number)), 8)
            for number in (errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOMEM)
        ),
        *(
            (OSError(number, os.strerror(number), "name"), 2)
            for number in (
                errno.EACCES,
                errno.EROFS,
                errno.ENOENT,
                errno.EEXIST,
                errno.ENOTDIR,
                errno.EISDIR,
                errno.ELOOP,
            )
        ),
        (OSError(errno.EROFS, "Read-only file system"), 2),
        (PermissionError(errno.EACCES, "Permission denied"), 2),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), 7),
        (ConnectionResetError(errno.ECONNRESET, "reset"), 7),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 7),
        (TimeoutError("timed out"), 7),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), 7),
        (MemoryError("16 GiB"), 8),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 8),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"), 8),
        (RuntimeError("DataLoader worker (pid 12) is killed by signal: Bus error."), 8),
        (RuntimeError("can't start new thread"), 8),
        # The error is that of a library, and the one of the system its context, its cause or its text.
        (raise_while(RuntimeError("unexpected pos 704 vs 598"), FULL), 8),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), 8),
        *(
            (raise_while(RuntimeError(text), PermissionError(errno.EACCES, "Permission denied")), 2)
            for text in (
                "[enforce fail at inline_container.cc:672] . unexpected pos 76608 vs 76500",
                "PytorchStreamWriter failed writing file data/0: file write failed",
            )
        ),
        (raise_from(RuntimeError("cannot save"), FULL), 8),
        (raise_from(InputError("cannot write x"), FULL), 8),
        *(
            (raise_from(InputError("cannot write y"), OSError(number, os.strerror(number))), 8)
            for number in (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.EDQUOT)
        ),
        (raise_from(InputError("cannot read z"), OSError(errno.ENXIO, "No such device or address")), 2),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), 8),
        (OSError("64 requested and 0 written"), 8),
        (sqlite3.OperationalError("database or disk is full"), 8),
        (sqlite3.OperationalError("unable to open database file"), 2),
        (sqlite3.OperationalError("attempt to write a readonly database"), 2),
        (raise_from(RuntimeError("Error in call to target"), FileNotFoundError(errno.ENOENT, "No such file", "x")), 2),
        (raise_from(RuntimeError("in target"), ContractError("violated")), 4),
        # Bugs: also if a missing file was handled before.
        (KeyError("x"), 1),
        (OSError("no errno"), 1),
        (OSError(errno.EBADF, "Bad file descriptor"), 1),
        (raise_while(KeyError("x"), FileNotFoundError(errno.ENOENT, "No such file", "x")), 1),
        (raise_from(first := ValueError("a"), first), 1),
    ],
    ids=str,
)
def test_what_the_system_refuses_is_no_bug(error: BaseException, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, report_errors():
        raise error
    assert ended.value.code == code
    stderr = capfd.readouterr().err
    assert ("a bug in isotrain" in stderr) == ("Traceback" in stderr) == (code == 1)


@pytest.mark.parametrize("limit", [0, 64, 600, 30_000])
def test_a_file_that_may_not_grow_is_no_bug(limit: int, tmp_path: Path) -> None:
    """Written by torch, which raises an error of its own, at every part of a checkpoint."""
    path = tmp_path / "last.ckpt"
    checkpoints.write({"old": 1}, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(ResourceError, match=r"last\.ckpt: no space left .*the previous checkpoint is unchanged"):
            checkpoints.write({"weights": torch.rand(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoints.read(path) == {"old": 1}
    assert [name.name for name in tmp_path.iterdir()] == ["last.ckpt"]


class FaultyFile(io.BytesIO):
    """A file of which one write fails."""

    def __init__(self, call: int, number: int) -> None:
        super().__init__()
        self.calls, self.number = call, number

    def write(self, data: Any) -> int:
        self.calls -= 1
        if self.calls == 0:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(data)


@pytest.mark.parametrize("call", [1, 2, 5, 9])
@pytest.mark.parametrize(
    ("number", "code"), [(errno.EACCES, 2), (errno.EROFS, 2), (errno.EIO, 8), (errno.EDQUOT, 8), (errno.EMFILE, 8)]
)
def test_a_write_that_fails_inside_torch_is_no_bug(call: int, number: int, code: int) -> None:
    with pytest.raises(SystemExit) as ended, report_errors():
        torch.save({"weights": torch.rand(100), "biases": torch.rand(10)}, FaultyFile(call, number))
    assert ended.value.code == code


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["runs", "list", "."], ["runs", "list", ".", "--json"]])
def test_output_that_cannot_be_written_is_told(arguments: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 8, done.stderr
    assert done.stderr == "isotrain: no space left on the disk\n"
