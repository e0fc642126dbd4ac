"""Run folders and model folders of others: nothing in them is called, interpolated or run, and no question is asked."""

import builtins
import functools
import json
import string
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tests.conftest import Run
from tests.test_weights import VOCABULARY, config, declare
from transformers import BertForQuestionAnswering, BertForSequenceClassification, BertTokenizerFast

from config.check import check_trust
from config.compose import compose
from config.errors import InputError
from datamodules import factory
from datamodules.text import tokenizer
from trainers import encoders, evaluate, saved_model, weights
from trainers.image_preprocessing import read_arguments
from trainers.saved_model import SavedModel

TOKEN = "token-of-this-machine"
# Changes of run.json's `config`, by what they try.
HOSTILE: dict[str, tuple[str, Any]] = {
    "an environment variable in a URL": ("data.path", "https://127.0.0.1:9/${oc.env:HF_TOKEN}/"),
    "an environment variable in a list": ("data.train_file", ["${oc.env:HF_TOKEN}"]),
    "an environment variable of a model": ("model.revision", "${oc.env:HF_TOKEN}"),
    "an environment variable of the trainer": ("trainer.precision", "${oc.env:HF_TOKEN}"),
    "a nested environment variable": ("data.sample", {"seed": {"value": "${oc.decode:${oc.env:HF_TOKEN}}"}}),
    "a missing value": ("data.path", "???"),
    "a nested class": ("data.sample", {"_target_": "hostile.call", "seed": 0}),
    "a nested class in a list": ("data.hub", [{"_target_": "hostile.call"}]),
    "a class of a model": ("model.architecture", {"model_type": "bert", "_target_": "hostile.call"}),
    "an unknown setting": ("data.callback", "hostile.call"),
    "a deep value": ("data.hub", functools.reduce(lambda value, _: [value], range(200), "x")),
    "no mapping": ("data", "${oc.env:HF_TOKEN}"),
}


def record_with(key: str, value: Any) -> dict[str, Any]:
    """A record of a run of bert_tiny, with one changed value."""
    config: dict[str, Any] = {
        "task": {"name": "question_answering"}, "data": {"_target_": "hostile.call", "max_val": 7},
        "model": {"_target_": "hostile.call", "n_best": 3}, "trainer": {"precision": "32-true", "deterministic": True},
    }  # fmt: skip
    node = config
    *heads, last = key.split(".")
    for head in heads:
        node = node[head]
    node[last] = value
    return {
        "status": "finished",
        "choices": {"data": "squad_sample", "model": "bert_tiny"},
        "config": config,
        "metrics": {"val_f1": 50.0},
    }


@pytest.fixture
def hostile_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that leaves a file when it is imported; returns that file."""
    mark = tmp_path / "imported"
    (tmp_path / "hostile.py").write_text(f"open({str(mark)!r}, 'w')\ndef call(*args, **kwargs): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield mark
    sys.modules.pop("hostile", None)


@pytest.mark.parametrize("attempt", HOSTILE)
def test_nothing_that_a_record_contains_is_called_or_interpolated(attempt: str, hostile_module: Path) -> None:
    """As `trainers evaluate` and `explain run=` open a run, and `quality drift reference=` its data."""
    key, value = HOSTILE[attempt]
    record = record_with(key, value)
    model = SavedModel(Path("m"), "question_answering", {}, record, {}, (), {}, "32-true")
    with pytest.raises(InputError, match=r"run\.json: ") as refused:
        evaluate.compose_saved(model, [])
    assert f"config.{key}" in str(refused.value)
    assert TOKEN not in str(refused.value)
    if key.startswith("data"):
        with pytest.raises(InputError, match=r"the record does not contain|run\.json: config\.data"):
            factory.compose_recorded(record, "question_answering")
    assert not hostile_module.exists()


def test_settings_of_this_machine_are_not_taken_from_a_record(hostile_module: Path, tmp_path: Path) -> None:
    record = record_with("data.cache_dir", str(tmp_path / "elsewhere"))
    record["config"]["data"] |= {"workers": 4096, "verify": "full", "vocab_size": 1000}
    record["config"]["model"]["trust_remote_code"] = True
    model = SavedModel(Path("m"), "question_answering", {}, record, {}, (), {}, "32-true")
    config = evaluate.compose_saved(model, [])
    data = factory.compose_recorded(record, "question_answering")
    assert config.data == {**data, "pretrained": None, "tokenizer": "m"}
    assert (data.cache_dir, data.workers, data.verify, data.max_val) == (None, 0, "fast", 7)
    assert (config.model.trust_remote_code, config.model.n_best) == (False, 3)
    assert config.model._target_ == "trainers.question_answering.QuestionAnswering"
    assert not hostile_module.exists()


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab {}$.:?", max_size=6),
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.text("abc", min_size=1), child, max_size=3),
    max_leaves=8,
)


@given(_PLAIN, st.sampled_from(["${oc.env:HOME}", "a${b}", "???", {"_target_": "os.getcwd"}, {"_x": 1}]))
@settings(max_examples=150, deadline=None)
def test_plain_values_stay_as_they_are_and_others_are_refused_at_any_depth(value: Any, other: Any) -> None:
    def contains(node: Any) -> bool:
        if isinstance(node, Mapping):
            return any(contains(child) for child in node.values())
        if isinstance(node, list):
            return any(contains(child) for child in node)
        return isinstance(node, str) and ("${" in node or "???" in node)

    if not contains(value):
        assert factory.plain_value(value, "x") == value
        node = OmegaConf.create({"x": factory.plain_value(value, "x")})
        assert OmegaConf.to_container(node, resolve=True) == {"x": value}
    for node in ([value, other], {"a": {"b": other}, "c": value}):
        with pytest.raises(InputError):
            factory.plain_value(node, "x")


@pytest.mark.parametrize(
    "words",
    [
        ("trainers", "evaluate", "run=folder"),
        ("trainers", "predict", "run=folder"),
        ("explain", "run=folder"),
        ("runs", "show", "folder"),
        ("runs", "report", "folder"),
        ("runs", "rerun", "folder"),
        ("runs", "list", "."),
        ("train.py", "hydra.run.dir=folder"),
    ],
    ids=" ".join,
)
def test_commands_read_the_run_of_somebody_else(words: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    mark = tmp_path / "imported"
    (tmp_path / "hostile.py").write_text(f"open({str(mark)!r}, 'w')\ndef call(*args, **kwargs): ...\n")
    folder = tmp_path / "folder"
    (folder / "model").mkdir(parents=True)
    record = record_with("data.path", "https://127.0.0.1:9/${oc.env:SECRET}/")
    record["config"]["data"]["sample"] = {"_target_": "hostile.call"}
    (folder / "run.json").write_text(json.dumps(record))
    config().save_pretrained(folder / "model")
    command = words if words[0] == "train.py" else ("-m", *words)
    path = f"{Path(__file__).resolve().parents[1] / 'src'}:{tmp_path}"
    done = run(*command, PYTHONPATH=path, SECRET=TOKEN)
    said = done.stdout + done.stderr
    assert done.returncode in (0, 2), said
    assert "Traceback" not in said
    assert TOKEN not in said
    assert not mark.exists()
    assert not any(TOKEN in path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["checkpoint_path", "pretrained_cfg_overlay", "pretrained", "cache_dir"])
def test_a_timm_folder_names_no_other_files(name: str) -> None:
    with pytest.raises(InputError, match=f"model_args.{name} is not an argument of the network"):
        read_arguments({"architecture": "resnet18", "model_args": {name: "/etc/hostname"}})
    assert read_arguments({"model_args": {"output_stride": 16, "img_size": 64}}) == {
        "output_stride": 16,
        "img_size": 64,
    }


# -- code of checkpoints ----------------------------------------------------------------------------------------------

CODE = """
import os
from pathlib import Path
from transformers import BertConfig, BertForQuestionAnswering, BertForSequenceClassification
Path({mark!r}).write_text("run")
class OwnConfig(BertConfig):
    model_type = "own_bert"
class OwnForQuestionAnswering(BertForQuestionAnswering):
    config_class = OwnConfig
class OwnForSequenceClassification(BertForSequenceClassification):
    config_class = OwnConfig
"""
HEADS = {"questions": encoders.SPAN_HEAD, "texts": encoders.CLASS_HEAD}


@pytest.fixture
def no_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input would answer "y" to every question; none may be asked."""
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("asked a question on standard input"))


def write_own(folder: Path, mark: Path, kind: str = "questions", known_type: bool = False) -> Path:
    """A model folder with code of its own, which leaves a file when it runs."""
    letters = string.ascii_lowercase + string.digits + string.punctuation  # so that it suits any text
    tokens = dict.fromkeys([*VOCABULARY, *letters, *(f"##{letter}" for letter in letters)])
    sizes = config()
    sizes.vocab_size = len(tokens)
    network = (BertForQuestionAnswering if kind == "questions" else BertForSequenceClassification)(sizes)
    network.save_pretrained(folder)
    BertTokenizerFast(vocab={token: number for number, token in enumerate(tokens)}).save_pretrained(folder)
    (folder / "own_code.py").write_text(CODE.format(mark=str(mark)))
    head = "ForQuestionAnswering" if kind == "questions" else "ForSequenceClassification"
    declare(
        folder,
        model_type="bert" if known_type else "own_bert",
        architectures=[f"Own{head}"],
        auto_map={
            "AutoConfig": "own_code.OwnConfig",
            f"AutoModel{head}": f"own_code.Own{head}",
            "AutoModel": "own_code.X",
        },
    )
    return folder


@pytest.mark.usefixtures("no_questions")
@pytest.mark.parametrize("kind", HEADS)
def test_code_of_a_checkpoint_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    folder, mark = write_own(tmp_path / "model", tmp_path / "mark", kind), tmp_path / "mark"
    data: Any = type("Data", (), {"vocab_size": 11, "pad_id": 0, "max_length": 64, "cache_dir": None})
    model = OmegaConf.create({"pretrained": str(folder), "revision": None})
    attempts: list[Any] = [
        lambda: encoders.load_encoder(HEADS[kind], folder),
        lambda: encoders.build_encoder(HEADS[kind], data, str(folder), None, None, None, None),
        lambda: encoders.check_max_length(
            HEADS[kind], OmegaConf.create({"model": model, "data": {"max_length": 64}}), None
        ),
    ]
    for attempt in attempts:
        with pytest.raises(InputError, match=r"needs code of its own.*model\.trust_remote_code=true") as refused:
            attempt()
        assert "\n" not in str(refused.value)
    assert not mark.exists()
    saved = saved_model.open_model(str(folder))
    assert saved.trust_remote_code is False


@pytest.mark.usefixtures("no_questions")
def test_code_beside_a_known_type_is_not_run(tmp_path: Path) -> None:
    """transformers prefers its own class then."""
    folder = write_own(tmp_path / "model", tmp_path / "mark", known_type=True)
    network = encoders.load_encoder(encoders.SPAN_HEAD, folder)
    assert type(network) is BertForQuestionAnswering
    assert weights._base_children(network, False)
    assert not (tmp_path / "mark").exists()


@pytest.mark.usefixtures("no_questions")
def test_code_of_a_tokenizer_is_never_run(tmp_path: Path) -> None:
    folder = write_own(tmp_path / "model", tmp_path / "mark")
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text()) | {
        "tokenizer_class": "Own",
        "auto_map": {"AutoTokenizer": ["own_code.A", None]},
    }
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"it needs code of its own.*which is never run"):
        tokenizer.prepare(tmp_path / "cache", tokenizer=str(folder))
    assert not (tmp_path / "mark").exists()


@pytest.mark.usefixtures("no_questions")
def test_trusted_code_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = write_own(tmp_path / "model", tmp_path / "mark")
    network = encoders.load_encoder(encoders.SPAN_HEAD, folder, trust_remote_code=True)
    assert type(network).__name__ == "OwnForQuestionAnswering"
    assert (tmp_path / "mark").exists()


def test_code_is_trusted_on_the_command_line_only() -> None:
    word = "model.trust_remote_code=true"
    trusting = compose([word])
    check_trust(trusting, [word])
    check_trust(trusting, [f"++{word}"])
    check_trust(compose(), [])
    with pytest.raises(InputError, match=r"is set by a file.*only if the command line has"):
        check_trust(trusting, ["experiment=of_somebody_else"])


def test_every_class_of_transformers_is_told_whether_to_run_code() -> None:
    """A scan of the source: calls of Auto classes that could ask say trust_remote_code themselves."""
    import ast

    source, found = Path(__file__).resolve().parents[1] / "src", 0
    for path in source.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            name = ast.unparse(call.func)
            if call.func.attr not in ("from_pretrained", "from_config") or name.startswith("type("):
                continue
            found += 1
            keywords = {keyword.arg for keyword in call.keywords}
            assert "trust_remote_code" in keywords or None in keywords, (path, call.lineno)  # None: **options
    assert found >= 6


@pytest.mark.slow
def test_a_model_with_its_own_code_trains_and_predicts_if_it_is_trusted(run: Run, tmp_path: Path) -> None:
    folder, trust = write_own(tmp_path / "model", tmp_path / "mark"), "model.trust_remote_code=true"
    place = {"HF_MODULES_CACHE": str(tmp_path / "modules")}
    overrides = [
        "train.py", "model=bert", f"model.pretrained={folder}", "data=squad_sample", "data.sample.train=24",
        "data.sample.val=8", "data.batch_size=8", "trainer.max_steps=1", "quality=off", "logger=none", "data.max_length=64", "data.max_query_length=32",
        "data.stride=16", "hydra.run.dir=run",
    ]  # fmt: skip
    refused = run(*overrides, cold=True, **place)
    assert (refused.returncode, "needs code of its own" in refused.stderr) == (2, True), refused.stderr
    done = run(*overrides, trust, cold=True, **place)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["model"]["trust_remote_code"] is True
    (tmp_path / "q.jsonl").write_text('{"question": "who?", "context": "ada"}\n')
    for words, option in (
        (("-m", "trainers", "predict", "run=run", "q.jsonl"), "--trust-remote-code"),
        (("-m", "trainers", "evaluate", "run=run"), trust),
    ):
        refused = run(*words, cold=True, **place)  # what run.json recorded counts for nothing
        assert (refused.returncode, "needs code of its own" in refused.stderr) == (2, True), refused.stderr
        done = run(*words, option, cold=True, **place)
        assert done.returncode == 0, done.stderr
