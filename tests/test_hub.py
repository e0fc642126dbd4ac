"""What comes from the Hugging Face Hub: the stand-in, the one-line errors, and the commands as typed."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import hub_double
from datamodules.sources import hub_errors, hub_requirements

ROOT = Path(__file__).resolve().parents[1]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hub_double.HubDouble]:
    """A Hub that has tiny repositories under the names our configuration uses."""
    folder = tmp_path_factory.mktemp("hub")
    with hub_double.HubDouble() as served:
        served.add("model", "google-bert/bert-base-uncased", hub_double.write_encoder(folder / "bert"))
        served.add(
            "model",
            "distilbert/distilbert-base-uncased",
            hub_double.write_encoder(folder / "distilbert", "distilbert"),
        )
        served.add("model", "timm/resnet18.a1_in1k", hub_double.write_timm(folder / "resnet18"))
        served.add("dataset", "rajpurkar/squad", hub_double.write_squad(folder / "squad"), hub_double.SQUAD_REVISION)
        served.add(
            "dataset",
            "zh-plus/tiny-imagenet",
            hub_double.write_tiny_imagenet(folder / "tiny-imagenet"),
            hub_double.TINY_IMAGENET_REVISION,
        )
        yield served


@pytest.fixture
def python(tmp_path: Path) -> Command:
    """Runs a piece of Python in a process of its own, with an empty HF_HOME."""

    def call(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "HF_HOME": str(tmp_path / "home"),
            **environment,
        }
        return subprocess.run(
            [sys.executable, "-c", code], env=env, text=True, capture_output=True, timeout=120, check=False
        )

    return call


@pytest.fixture(scope="module")
def silent_address() -> Iterator[str]:
    """An address that takes calls and never says anything, as a firewall that drops packets does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(scope="module")
def closed_address() -> str:
    """An address where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


# The stand-in itself, under the real clients.


def test_snapshot_download_takes_the_pinned_revision(
    hub: hub_double.HubDouble, python: Command, tmp_path: Path
) -> None:
    code = (
        "from huggingface_hub import snapshot_download as get\n"
        f"print(get('rajpurkar/squad', repo_type='dataset', revision='{hub_double.SQUAD_REVISION}',"
        " allow_patterns=['plain_text/*']))"
    )
    result = python(code, **hub.environment(tmp_path / "home"))
    assert result.returncode == 0, result.stderr
    snapshot = Path(result.stdout.strip())
    assert snapshot.name == hub_double.SQUAD_REVISION
    served = hub.repositories["dataset", "rajpurkar/squad"]
    names = [n for n in served.files() if n.startswith("plain_text/")]
    assert names
    for name in names:
        assert (snapshot / name).read_bytes() == (served.folder / name).read_bytes()


def test_a_download_goes_on_where_it_stopped(hub: hub_double.HubDouble, tmp_path: Path) -> None:
    served = hub.repositories["model", "timm/resnet18.a1_in1k"]
    content = (served.folder / "model.safetensors").read_bytes()
    import urllib.request

    address = f"{hub.url}/{served.name}/resolve/main/model.safetensors"
    request = urllib.request.Request(address, headers={"Range": f"bytes={len(content) - 7}-"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 206
        assert answer.read() == content[-7:]


def test_transformers_loads_model_and_tokenizer(hub: hub_double.HubDouble, python: Command, tmp_path: Path) -> None:
    code = (
        "from transformers import AutoModelForQuestionAnswering as M, AutoTokenizer as T\n"
        "for name in ('google-bert/bert-base-uncased', 'distilbert/distilbert-base-uncased'):\n"
        "    tokens = T.from_pretrained(name)('The heron, unseen.').tokens()\n"
        "    print(type(M.from_pretrained(name)).__name__, tokens)"
    )
    result = python(code, **hub.environment(tmp_path / "home"))
    assert result.returncode == 0, result.stderr
    bert, distilbert = result.stdout.strip().splitlines()
    tokens = "['[CLS]', 'the', 'heron', ',', 'u', '##n', '##s', '##e', '##e', '##n', '.', '[SEP]']"
    assert bert == f"BertForQuestionAnswering {tokens}"
    assert distilbert == f"DistilBertForQuestionAnswering {tokens}"


def test_timm_loads_pretrained_weights(hub: hub_double.HubDouble, python: Command, tmp_path: Path) -> None:
    code = (
        "import timm\n"
        "print(timm.create_model('resnet18', pretrained=True, num_classes=4).conv1.weight[0, 0, 0, 0].item())"
    )
    result = python(code, **hub.environment(tmp_path / "home"))
    assert result.returncode == 0, result.stderr
    from safetensors import safe_open

    folder = hub.repositories["model", "timm/resnet18.a1_in1k"].folder
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert float(result.stdout) == weights.get_tensor("conv1.weight")[0, 0, 0, 0].item()


def test_a_damaged_download_is_noticed_and_downloaded_again(
    hub: hub_double.HubDouble, python: Command, tmp_path: Path
) -> None:
    code = (
        "import logging; from config.errors import InputError; from datamodules.sources import hub\n"
        "logging.basicConfig()\n"
        "name = 'plain_text/validation-00000-of-00001.parquet'\n"
        f"try: print(*hub.download('rajpurkar/squad', '{hub_double.SQUAD_REVISION}', name))\n"
        "except InputError as error: print(error)"
    )
    environment = hub.environment(tmp_path / "home")
    path = Path(python(code, **environment).stdout.strip())
    expected = path.read_bytes()
    damaged = bytearray(expected)
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    offline = python(code, **{**environment, "HF_HUB_OFFLINE": "1"})
    assert f"{path}, a downloaded file of the data set rajpurkar/squad, is damaged" in offline.stdout
    online = python(code, **environment)
    assert online.stdout.strip() == str(path)
    assert "is damaged, and is downloaded again" in online.stderr
    assert path.read_bytes() == expected


# Errors for people.

DATA = "huggingface_hub.hf_hub_download('rajpurkar/squad', 'x', repo_type='dataset')"
USES = [
    DATA,
    "huggingface_hub.snapshot_download('rajpurkar/squad', repo_type='dataset')",
    "transformers.AutoModelForQuestionAnswering.from_pretrained('google-bert/bert-base-uncased')",
    "transformers.AutoTokenizer.from_pretrained('google-bert/bert-base-uncased')",
    "timm.create_model('resnet18', pretrained=True)",
]


def fetch(*uses: str) -> str:
    """Code that tries each use of the Hub and ends with the message of the last."""
    lines = [
        "from config.error_handling import report_errors",
        "from config.errors import InputError",
        "from datamodules.sources.hub_errors import hub_access",
    ]
    lines += [f"import {module}" for module in sorted({use.split(".")[0] for use in uses})]
    for use in uses[:-1]:
        lines += ["try:", f"    with hub_access('the thing'): {use}; print('got it')"]
        lines += ["except InputError as error: print(error)"]
    return "\n".join([*lines, f"with report_errors(), hub_access('the thing'): {uses[-1]}; print('got it')"])


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """The message of a refused command: exit code 2 and one line on stderr."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("isotrain: ")
    return lines[0]


@pytest.mark.parametrize("network", ["unknown name", "closed", "silent", "forbidden"])
def test_no_network_is_one_line(network: str, python: Command, silent_address: str, closed_address: str) -> None:
    addresses = {"unknown name": "http://hub.invalid", "closed": closed_address, "silent": silent_address}
    if network == "forbidden":
        environment = {"HF_HUB_OFFLINE": "1"}
    else:
        environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": addresses[network], "NO_PROXY": "*"}
    result = python(fetch(DATA), **environment)
    assert result.stdout == ""
    message = one_line(result)
    assert "cannot get the thing" in message
    for way_out in ("data.path=", "data=squad_sample", "model.pretrained=null", "HF_HOME="):
        assert way_out in message
    assert ("HF_HUB_OFFLINE" in message) == (network == "forbidden")


def test_no_network_is_one_line_for_every_client(python: Command, closed_address: str) -> None:
    environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": closed_address, "NO_PROXY": "*"}
    result = python(fetch(*USES), **environment)
    messages = [*result.stdout.splitlines(), one_line(result).removeprefix("isotrain: ")]
    assert len(messages) == len(USES)
    assert len(set(messages)) == 1, messages


def test_what_the_hub_does_not_have_is_one_line(hub: hub_double.HubDouble, python: Command, tmp_path: Path) -> None:
    bert = "'google-bert/bert-base-uncased'"
    cases = [
        ("huggingface_hub.hf_hub_download('nobody/nothing', 'x')", "no repository of that name"),
        ("transformers.AutoConfig.from_pretrained('nobody/nothing')", "no repository of that name"),
        ("timm.create_model('hf-hub:nobody/nothing', pretrained=True)", "no repository of that name"),
        (
            f"huggingface_hub.hf_hub_download({bert}, 'config.json', revision='v9')",
            "does not have this revision",
        ),
        (f"huggingface_hub.hf_hub_download({bert}, 'absent.json')", "absent.json"),
        ("transformers.AutoModel.from_pretrained('./no/such/folder')", "neither an existing folder"),
        (f"transformers.AutoModel.from_pretrained({bert}, subfolder='absent')", "model_type"),
        (f"transformers.AutoModel.from_pretrained({bert}, variant='absent')", "does not appear to have"),
    ]
    result = python(fetch(*[use for use, _ in cases]), **hub.environment(tmp_path / "home"))
    messages = [*result.stdout.splitlines(), one_line(result)]
    assert len(messages) == len(cases), messages
    for message, (use, expected) in zip(messages, cases, strict=True):
        assert expected in message, use
        assert "the thing" in message


def test_what_is_in_the_cache_needs_no_network(
    hub: hub_double.HubDouble, python: Command, tmp_path: Path, silent_address: str
) -> None:
    code = fetch(USES[2])
    online = python(code, **hub.environment(tmp_path / "home"))
    assert online.stdout == "got it\n", online.stderr
    offline = python(code, **{**hub.environment(tmp_path / "home"), "HF_ENDPOINT": silent_address})
    assert offline.stdout == "got it\n", offline.stderr


def test_errors_of_another_kind_pass_through() -> None:
    assert hub_errors.explain_hub_error(RuntimeError("size mismatch"), "the model") is None
    assert hub_errors.explain_hub_error(FileNotFoundError(2, "no such file", "x.json"), "the model") is None


def test_a_full_disk_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    from config.errors import ResourceError

    monkeypatch.setattr(hub_errors, "work_offline_if_unreachable", lambda: False)
    with pytest.raises(ResourceError, match="no space left"), hub_errors.hub_access("the model"):
        raise OSError("could not load") from OSError(28, "No space left on device")


SQUAD = {"path": None, "hub": {"repo": "rajpurkar/squad", "revision": "main", "train": "a", "val": "b"}}
BERT = {"pretrained": "google-bert/bert-base-uncased", "revision": None}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The Hub's client offline, with an empty cache, and a data cache that holds nothing."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("ISOTRAIN_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("no_network")
def test_a_run_that_lacks_data_or_model_is_refused_before_imports() -> None:
    from config.errors import InputError

    with pytest.raises(InputError, match="data set rajpurkar/squad and the model google-bert/bert-base-uncased"):
        hub_requirements.check_hub_requirements(SQUAD, BERT)
    with pytest.raises(InputError, match="cannot get the data set rajpurkar/squad: "):
        hub_requirements.check_hub_requirements(SQUAD, {"pretrained": None})
    with pytest.raises(InputError, match="cannot get the model google-bert/bert-base-uncased: "):
        hub_requirements.check_hub_requirements({**SQUAD, "path": "some/folder"}, BERT)


@pytest.mark.usefixtures("no_network")
def test_a_run_that_may_do_without_the_hub_is_not_refused(tmp_path: Path) -> None:
    local = {**SQUAD, "path": "some/folder"}
    for pretrained in (None, False, True, str(tmp_path), "./no/such/folder", "not a name"):
        hub_requirements.check_hub_requirements(local, {"pretrained": pretrained})
    hub_requirements.check_hub_requirements({"sample": {}, "hub": None}, {})
    (tmp_path / "cache" / "windows" / "prepared").mkdir(parents=True)
    hub_requirements.check_hub_requirements(SQUAD, {"pretrained": None})


# The commands as a user types them.


def _with_cache_of_its_own(environment: dict[str, str], folder: Path) -> dict[str, str]:
    return {**environment, "ISOTRAIN_CACHE": str(folder / "cache")}


def _final_metrics(folder: Path) -> dict[str, object]:
    records = list(folder.rglob("run.json"))
    assert len(records) == 1, records
    metrics = json.loads(records[0].read_text())["metrics"]
    assert isinstance(metrics, dict)
    return metrics


def test_bert_on_squad_as_typed(hub: hub_double.HubDouble, run: Command, tmp_path: Path) -> None:
    environment = _with_cache_of_its_own(hub.environment(tmp_path / "home"), tmp_path)
    command = ["train.py", "model=bert", "data=squad", "trainer.max_steps=2"]
    result = run(*command, **environment)
    assert result.returncode == 0, result.stderr
    assert {"val_f1", "val_exact_match", "val_loss"} <= _final_metrics(tmp_path).keys()
    files = "downloading .*parquet of the data set rajpurkar/squad from the Hub"
    assert re.search(files, result.stderr), result.stderr
    assert "downloading the model google-bert/bert-base-uncased from the Hub" in result.stderr
    asked = [path for _, path in hub.requests]
    assert any("rajpurkar/squad/resolve/" + hub_double.SQUAD_REVISION in path for path in asked)
    assert any("google-bert/bert-base-uncased/resolve/" in path for path in asked)
    # Nothing but the caches is needed for a second run.
    again = run(*command, "hydra.run.dir=again", **{**environment, "HF_HUB_OFFLINE": "1"})
    assert again.returncode == 0, again.stderr
    assert "downloading" not in again.stderr


def test_pretrained_resnet18_on_tiny_imagenet_as_typed(hub: hub_double.HubDouble, run: Command, tmp_path: Path) -> None:
    environment = _with_cache_of_its_own(hub.environment(tmp_path / "home"), tmp_path)
    command = [
        "train.py",
        "model=resnet18",
        "model.pretrained=true",
        "data=tiny_imagenet",
        "trainer.max_steps=2",
    ]
    result = run(*command, **environment)
    assert result.returncode == 0, result.stderr
    assert {"val_accuracy", "val_top5_accuracy", "val_loss"} <= _final_metrics(tmp_path).keys()
    asked = [path for _, path in hub.requests]
    assert any("zh-plus/tiny-imagenet/resolve/" + hub_double.TINY_IMAGENET_REVISION in path for path in asked)
    assert any("timm/resnet18.a1_in1k/resolve/" in path for path in asked)


@pytest.mark.parametrize("network", ["unknown name", "closed", "silent"])
@pytest.mark.parametrize(
    "choices",
    [("model=bert", "data=squad"), ("model=resnet18", "model.pretrained=true", "data=tiny_imagenet")],
)
def test_train_without_a_network_is_one_line(
    choices: tuple[str, ...],
    network: str,
    run: Command,
    tmp_path: Path,
    silent_address: str,
    closed_address: str,
) -> None:
    address = {"unknown name": "http://hub.invalid", "closed": closed_address, "silent": silent_address}[network]
    environment = {
        "HF_ENDPOINT": address,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "home"),
        "NO_PROXY": "*",
    }
    # Ten seconds is what is promised; twice that is for a machine that is busy with other things.
    result = run("train.py", *choices, timeout=20, **_with_cache_of_its_own(environment, tmp_path))
    message = one_line(result)
    assert "data.path=" in message
    assert "HF_HOME=" in message or "cache" in message


def test_train_with_generated_data_but_no_model_names_the_ways_out(
    run: Command, tmp_path: Path, closed_address: str
) -> None:
    environment = {"HF_ENDPOINT": closed_address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    message = one_line(run("train.py", "model=bert", "data=squad_sample", timeout=60, **environment))
    assert "model.pretrained=null" in message
    assert "google-bert/bert-base-uncased" in message
