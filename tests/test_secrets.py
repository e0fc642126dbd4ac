"""Secrets: masked in all that is written or printed, and taken from Kubernetes secrets in pipelines."""

import html
import http.server
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.conftest import ROOT

from config import files, masking
from config.check import check_config
from config.compose import compose
from config.error_handling import report_errors
from config.errors import InputError
from katib import __main__ as katib_command
from katib import check, composition, documents, report, run, trials
from katib.experiment import Experiment
from pipelines import arguments, artifacts, commands, compilation, steps
from quality import notify
from runs import folder as folders
from test_katib_check import LINE, base, container, line
from test_quality_gate import questions

HOOK = "http://127.0.0.1:9/services/T0/B0/canary-hook"


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets that a test registers are forgotten after it."""
    monkeypatch.setattr(masking, "_values", set())


# Names, addresses, values


@pytest.mark.parametrize(
    "key",
    [
        *("pwd", "db_pwd", "auth", "basic_auth", "authorization", "Authorization", "bearer", "cookie", "cookies"),
        *("connection_string", "connectionString", "sig", "X-Amz-Signature", "X-Amz-Security-Token", "accountKey"),
        *("apiKey", "authToken", "quality.webhook", "webhook_url", "SLACK_WEBHOOK"),
    ],
)
def test_names_of_secrets(key: str) -> None:
    assert masking.mask_secrets({key: "canary", "a": [{key: ["canary"]}]}) == {key: "***", "a": [{key: ["***"]}]}
    assert masking.mask_command([f"{key}=canary", f"--{key}", "canary"]) == [f"{key}=***", f"--{key}", "***"]
    assert "canary" not in masking.mask_text(f"x: 1\n{key}: canary\nd: {{{key}:canary,y: 1}}\n- a.{key}=canary\n")


@pytest.mark.parametrize("key", ["author", "authors", "design", "password_file", "path", "summary", "secrets.HF_TOKEN"])
def test_names_of_no_secrets(key: str) -> None:
    assert masking.mask_secrets({key: "open"}) == {key: "open"}
    assert masking.mask_override(f"{key}=open") == f"{key}=open"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://canary@host/x", "https://***@host/x"),
        ("https://me:canary@host/x", "https://***@host/x"),
        ("https://me:can@ary@host", "https://***@host"),
        ("postgresql://me:canary@db:5432/a", "postgresql://***@db:5432/a"),
        ("git+https://canary@host/x", "git+https://***@host/x"),
        ("https://h/a?x=1&sig=canary&y=2#z", "https://h/a?x=1&sig=***&y=2#z"),
        ("https://h/a?X-Amz-Credential=canary&amp;X-Amz-Signature=canary", "https://h/a?X-Amz-Credential=***&amp;X-Amz-Signature=***"),
        ("(https://h/a?access_token=canary), and", "(https://h/a?access_token=***), and"),
        ("https://maps/?key=canary", "https://maps/?key=***"),
        ("https://hooks.slack.com/services/T/B/canary", "https://hooks.slack.com/***"),
        ("Authorization: Bearer canary0123456789abcdef", "Authorization: Bearer ***"),
        ("AccountName=a;AccountKey=canary==;Suffix=b", "AccountName=a;AccountKey=***;Suffix=b"),
        *((text, text) for text in (
            "ssh://git@github.com/a/b", "https://medium.com/@me/a", "https://h:80/a@b?x=1", "a://b", "x=1&sig", "s3://bucket/key",
            "bearer of good news", "https://h/?page=2&sort=key",
        )),
    ],
)  # fmt: skip
def test_secrets_in_texts(text: str, masked: str) -> None:
    assert masking.mask(text) == masked
    assert masking.mask(masked) == masked


@pytest.mark.parametrize(
    "value",
    ["${oc.env:SLACK}", "'${oc.env:SLACK}'", "${oc.env:SLACK,null}", "${logger.name}", "null", "$HOOK", "$(HOOK)"],
)
def test_references_are_no_secrets(value: str) -> None:
    assert masking.mask_override(f"quality.webhook={value}") == f"quality.webhook={value}"
    assert masking.mask_secrets({"webhook": value})["webhook"] in (value, "***" if value == "null" else value)
    assert masking.mask_override("quality.webhook=${oc.env:SLACK,canary}") == "quality.webhook=***"


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp", "Zs")), min_size=8, max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_a_registered_value_is_masked_however_it_is_escaped(secret: str) -> None:
    assume(not re.search(r"[\d.,+\-eE*$\s'\"]{2,}|^['\"*$]|['\"*$]$", secret) and re.search(r"[^\W\d]", secret))
    assume(not secret.isalpha() or len(secret) >= masking.LONG_WORD)
    masking._values.clear()
    masking.register_secrets({"logger": {"api_key": secret}})
    for text in (
        secret,
        json.dumps({"a": secret}),
        json.dumps({"a": secret}, ensure_ascii=False),
        html.escape(secret, quote=False).replace('"', "&#34;").replace("'", "&#39;"),
        quote(secret, safe=""),
        repr(secret),
        f"python train.py {shlex.quote('logger.api_key=' + secret)}",
    ):
        assert secret not in masking.mask(text)
        assert "***" in masking.mask(text)


def test_numbers_and_short_words_are_not_looked_for() -> None:
    masking.register_secrets({"password": "12345678", "token": "bert", "secret": "1.5e-3000000", "auth": "Succeeded"})
    text = "12345678 bert 1.5e-3000000 Succeeded"
    assert masking.mask(text) == text


@pytest.mark.parametrize(
    "text",
    ["x" * 300_000, "a:" * 150_000, "{" + "x" * 300_000, "a={" + "token:" * 50_000, "\\" * 300_000, "'\"" * 100_000],
)
def test_long_texts_take_no_quadratic_time(text: str) -> None:
    """Each would take minutes; the test's time-out is that of all tests."""
    masking.register_secrets({"command": f"a={text}"})
    masking.mask_text(text)
    masking.mask_secrets([f"={text}"])
    masking.mask(f"://{text}")


def test_a_yaml_with_a_cycle_has_an_end() -> None:
    value: dict[str, Any] = {"password": HOOK}
    value["a"] = [value, value]
    masking.register_secrets(value)
    assert masking.mask(HOOK) == "***"


# What is written and printed


def test_all_that_a_command_prints_is_masked(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "orig_argv", ["python", "train.py", f"quality.webhook={HOOK}", "--password", "canary-option"]
    )
    monkeypatch.setenv("SOME_API_KEY", "canary-environment")
    monkeypatch.setenv("PWD", str(ROOT))

    def work() -> None:
        handler = logging.StreamHandler()
        logging.getLogger("canary").addHandler(handler)
        logging.getLogger("canary").error("no answer from %s", HOOK)
        logging.getLogger("canary").removeHandler(handler)
        print(f"{HOOK} canary-option canary-environment {ROOT}")
        sys.stdout.writelines(["canary-option\n"])
        raise RuntimeError(f"cannot open {HOOK}")

    with pytest.raises(SystemExit) as ended, report_errors():
        work()
    out, err = capfd.readouterr()
    assert ended.value.code == 1
    assert "canary-" not in out + err
    assert out == f"*** *** *** {ROOT}\n***\n"
    assert "no answer from ***" in err
    assert "RuntimeError: cannot open ***" in err
    assert not isinstance(sys.stdout, masking.MaskedStream)


def test_a_copy_of_what_is_printed_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    """Weights & Biases replaces `write` of the streams, and calls the one that was there."""
    masking.register_command([f"quality.webhook={HOOK}"])
    stream, copy = masking.MaskedStream(sys.stdout), []
    former = stream.write
    stream.write = lambda text: (copy.append(text), former(text))  # type: ignore[assignment]
    print(f"see {HOOK}", file=stream)
    stream.write = former  # type: ignore[assignment]
    print(HOOK, file=stream)
    assert "".join(copy) == "see ***\n"
    assert capsys.readouterr().out == "see ***\n***\n"
    assert stream.encoding == sys.stdout.encoding


@pytest.mark.parametrize(
    ("argument", "hidden"),
    [(f"quality.webhok={HOOK}", True), ("logger.api_tokn=s3cret-value", True), ("db.pasword=s3cret-value", True),
     ("model.tokenizer=bert-base-uncased", False), ("data.max_tokens=1000000000", False), ("quality.webhok=null", False),
     ("secrets.HF_TOKENS=isotrain-tokens", False), ("model.pad_token=<|endoftext|>", False), ("data.tokens=a-long-name", False),
     ("data.path=/data/squad-v1", False)],
)  # fmt: skip
def test_the_value_of_a_misspelled_key_is_masked(argument: str, hidden: bool) -> None:
    """ "unknown key quality.webhok" names no value, but what the library says before may do."""
    masking.register_command([argument])
    assert (masking.MASK in masking.mask(f"Could not override {argument}")) is hidden


def test_all_files_of_ours_are_masked(tmp_path: Path) -> None:
    check_config(compose([f"quality.webhook={HOOK}"]))
    files.write_json(tmp_path / "a.json", {"message": f"see {HOOK}", "url": "https://canary@host", "n": 1})
    files.write_text(tmp_path / "a.txt", f"see {HOOK} at https://h?sig=canary\n")
    files.append_lines(tmp_path / "a.jsonl", [json.dumps({"message": f"see {HOOK}"}), "https://canary@host"])
    assert (tmp_path / "a.jsonl").read_text() == '{"message": "see ***"}\nhttps://***@host\n'
    assert json.loads((tmp_path / "a.json").read_text()) == {"message": "see ***", "url": "https://***@host", "n": 1}
    assert (tmp_path / "a.txt").read_text() == "see *** at https://h?sig=***\n"


def test_overrides_in_hydras_files_are_masked_in_every_form(tmp_path: Path) -> None:
    words = ["+logger.tags={api_key:canary,url:'https://canary@h/x?sig=canary'}", "quality.webhook=${oc.env:SLACK}"]
    folders.write_hydra(
        tmp_path,
        config="quality:\n  webhook: ${oc.env:SLACK}\n  auth: canary\n",
        hydra=f"hydra:\n  override_dirname: {','.join(words)}\n",
        overrides=yaml.safe_dump(words),
    )
    texts = [path.read_text() for path in (tmp_path / ".hydra").iterdir()]
    assert not any("canary" in text for text in texts)
    assert sum("webhook: ${oc.env:SLACK}" in text or "webhook=${oc.env:SLACK}" in text for text in texts) == 3


@pytest.mark.parametrize("value", ["canary-value", "-3"])
def test_messages_name_variables_not_their_values(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNKNOWN", value)
    with pytest.raises(InputError, match=r"data\.max_train=\$\{oc\.env:UNKNOWN\}: must be") as error:
        check_config(compose(["data.max_train=${oc.env:UNKNOWN}", "monitor=val_${oc.env:UNKNOWN}"]))
    assert value not in str(error.value)


# Searches


def experiment(command: str, **changes: Any) -> Experiment:
    value = base()
    line(command)(value)
    container(value).update(changes)
    (document,) = documents.parse(yaml.safe_dump(value, width=10**6), "search.yaml")
    return Experiment(document)


def test_check_never_shows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNKNOWN", "canary-value")
    monkeypatch.setattr(composition, "_cache_file", lambda: tmp_path / "cache.json")
    composition._cache.cache_clear()
    reference = "'${oc.env:UNKNOWN}'"
    for words in (
        f"data.max_train={reference}",
        f"monitor={reference}",
        f"metrics_file={reference}",
        f"model={reference}",
    ):
        rows = check.check_experiment(experiment(f"{LINE} {words}"))
        assert not [row for row in rows if "canary" in row.message + row.fix], words
    rows = check.check_experiment(experiment(f"{LINE} quality.webhook={HOOK}"))
    composition.save_cache()
    assert "canary" not in (tmp_path / "cache.json").read_text()
    composition._cache.cache_clear()


def test_check_warns_of_secrets_in_an_experiment() -> None:
    def codes(command: str = LINE, **changes: Any) -> list[tuple[str, str]]:
        rows = check.check_experiment(experiment(command, **changes))
        return [(row.code, row.path.rpartition("containers[0].")[2]) for row in rows if row.code == "K315"]

    assert codes(f"{LINE} quality.webhook={HOOK}") == [("K315", "command")]
    assert codes(f"{LINE} 'quality.webhook=x y'") == [("K315", "command")]
    assert codes(env=[{"name": "A", "value": "b"}, {"name": "WANDB_API_KEY", "value": "x"}]) == [("K315", "env[1]")]
    reference = {"name": "HOOK", "valueFrom": {"secretKeyRef": {"name": "isotrain-tokens", "key": "HOOK"}}}
    assert codes(f"{LINE} 'quality.webhook=${{oc.env:HOOK}}'", env=[reference]) == []
    assert codes(f"{LINE} --token abc") == []  # not a trial that runs: K401


def test_new_refuses_secrets(tmp_path: Path) -> None:
    def new(*words: str) -> None:
        args = katib_command._parser().parse_args(["new", *words])
        args.function(args)

    words = ["optim.lr=choice(1e-4,1e-3)", f"quality.webhook={HOOK}", "-o", str(tmp_path / "a.yaml")]
    with pytest.raises(InputError, match=r"quality\.webhook: a secret, .*oc\.env:NAME"):
        new(*words)
    assert not list(tmp_path.iterdir())


def test_a_search_stores_no_secrets_and_still_knows_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = experiment(f"{LINE} quality.webhook={HOOK} a.pwd=x1", env=[{"name": "DB_PASSWORD", "value": "y2"}])
    words = [f"quality.webhook={HOOK}", "data.path=https://canary@host/x"]
    for turn in range(3):
        trials.Store(tmp_path / "search", secret, words).close()
        path = tmp_path / "search" / "experiment.json"
        text = path.read_text()
        assert not re.search("canary|pwd=x1|y2", text)
        if turn == 0:  # as versions before December 2026 wrote it
            spec = {key: value for key, value in secret.mapping("spec").items() if key not in trials.COUNTS}
            spec["objective"] = {**secret.mapping("spec", "objective"), "goal": None}
            path.write_text(json.dumps({"name": secret.name, "spec": spec, "overrides": words}))
    with pytest.raises(InputError, match=r"overrides differ"):
        trials.Store(tmp_path / "search", secret, [*words, "optim.warmup=0"])
    trial = trials.Trial("search-a", 0, "Succeeded", {"optim.lr": "0.001"}, value=1.0)
    run.print_command(command := run.train_command(secret, trial, words))
    report.write(tmp_path / "a.html", secret, [trial], "x", command)
    out, err = capsys.readouterr()
    assert "canary" not in out + (tmp_path / "a.html").read_text()
    assert "quality.webhook=***" in out
    assert "replace ***" in err


# Pipelines


SPEC = compilation.read_documents(str(ROOT / "pipelines" / "train.yaml"))[0]


@pytest.mark.parametrize(
    ("overrides", "assignments"),
    [
        ([f"quality.webhook={HOOK}"], []),
        (["data.path=https://canary@host/data"], []),
        ([], [f"overrides=['quality.webhook={HOOK}']"]),
        ([], ["server=https://me:canary@mlflow"]),
        ([], ["server=https://mlflow/?sig=canary"]),
    ],
)
def test_pipelines_take_no_secrets_as_parameters(overrides: list[str], assignments: list[str]) -> None:
    with pytest.raises(InputError, match=r"\*\*\*.*Kubernetes secret.*ISOTRAIN_WEBHOOK") as error:
        arguments.bind_parameters(SPEC, overrides, assignments)
    assert "canary" not in str(error.value)


def test_pipelines_take_secrets_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK", HOOK)
    word = "quality.webhook=${oc.env:SLACK}"
    assert arguments.bind_parameters(SPEC, [word], [])["overrides"] == [word]


def test_pipelines_tune_no_experiment_with_a_secret(tmp_path: Path) -> None:
    text = (ROOT / "katib" / "questions-random.yaml").read_text()
    file = tmp_path / "search.yaml"
    file.write_text(text.replace("python train.py", f"python train.py quality.webhook={HOOK}"))
    assert file.read_text() != text
    with pytest.raises(InputError, match=r"warning K315.*from Kubernetes secrets only") as error:
        arguments._check_experiment(str(file))
    assert "canary" not in masking.mask(str(error.value))


def test_the_first_step_refuses_secrets_of_other_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """KFP's pages and its API take parameters without our checks."""
    monkeypatch.setenv("KFP_RUN_ID", "one")
    with pytest.raises(SystemExit) as ended:
        steps.data([f"quality.webhook={HOOK}"], str(tmp_path), None, None)
    assert ended.value.code == 2
    out, err = capfd.readouterr()
    everything = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert everything
    assert "canary" not in out + err + "".join(everything)


def test_commands_of_steps_are_recorded_without_secrets(capfd: pytest.CaptureFixture[str]) -> None:
    step: dict[str, Any] = {"commands": []}
    commands.run_command(
        step, "-c", "pass", f"quality.webhook={HOOK}", "--server", "https://me:canary@h", "--token", "canary"
    )
    assert "canary" not in capfd.readouterr().out + json.dumps(step)


def test_compiled_pipelines_have_the_webhook_of_a_secret() -> None:
    platform = compilation.read_documents(str(ROOT / "pipelines" / "train.yaml"))[1]
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for executor in executors.values():
        variables = {
            (row["secretName"], pair["envVar"]): row["optional"]
            for row in executor["secretAsEnv"]
            for pair in row["keyToEnv"]
        }
        assert variables[("isotrain-tokens", "ISOTRAIN_WEBHOOK")] is True
        assert variables[("isotrain-tokens", "HF_TOKEN")] is True


def test_artifacts_are_masked(tmp_path: Path) -> None:
    masking.register_command([f"quality.webhook={HOOK}"])

    class Artifact:
        path = str(tmp_path / "a" / "summary")

    artifacts.markdown(Artifact, f"see {HOOK}")
    assert Path(Artifact.path).read_text() == "see ***"


def test_the_webhook_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    addresses: list[str] = []
    monkeypatch.setattr(notify, "_post", lambda address, text: addresses.append(address))
    notify.send_notification("broken", tmp_path, None, None)
    monkeypatch.setenv(notify.WEBHOOK_VARIABLE, HOOK)
    notify.send_notification("broken", tmp_path, None, None)
    notify.send_notification("broken", tmp_path, "http://127.0.0.1:9/other", None)
    assert addresses == [HOOK, "http://127.0.0.1:9/other"]
    assert masking.is_secret(notify.WEBHOOK_VARIABLE)


# Every command, with a secret in every place that takes one


TRAIN = ("model=bert_tiny", "data=squad_sample", "data.max_train=16", "data.max_val=8", "trainer.max_steps=2")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


TAGS = "logger.tags={api_key:canary-tag,url:'https://canary-user@host/x?sig=canary-sig'}"


@pytest.mark.slow
def test_no_command_writes_or_prints_a_secret(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "ISOTRAIN_CACHE": str(tmp_path / "cache"),
        "HF_TOKEN": "canary-token",
        "SLACK": "http://127.0.0.1:9/services/canary-slack",
        "ISOTRAIN_WEBHOOK": "http://127.0.0.1:9/services/canary-variable",
        "UNKNOWN": "canary-unknown",
        "WANDB_MODE": "offline",
        "WANDB_API_KEY": "canary" * 7,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "ISOTRAIN_DEBUG": "1",
    }
    outputs: list[str] = []

    def call(*words: str | Path, codes: tuple[int, ...] = (0,)) -> None:
        done = subprocess.run(
            [sys.executable, *map(str, words)], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600
        )
        assert done.returncode in codes, (words, done.returncode, done.stderr[-3000:])
        outputs.append(f"{words[:3]}\n{done.stdout}{done.stderr}")

    first, second, search = (tmp_path / name for name in ("mlflow", "wandb", "search"))
    store = f"logger.tracking_uri=sqlite:///{tmp_path / 'mlflow.db'}"
    call("train.py", *TRAIN, f"quality.webhook={HOOK}", "logger=mlflow", store, TAGS, f"hydra.run.dir={first}")
    call("train.py", *TRAIN, f"quality.webhook={HOOK}", "logger=wandb", f"hydra.run.dir={second}")
    call("train.py", *TRAIN, f"quality.webhook={HOOK}", "logger=tensorboard", f"hydra.run.dir={tmp_path / 'board'}")
    call("train.py", *TRAIN, "quality.webhook=${oc.env:SLACK}", f"hydra.run.dir={second}")  # resumed: finished
    # Data from an address with a password and a signature, through to all later commands.
    questions(tmp_path / "data")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "data")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://canary-user:canary-pass@127.0.0.1:{server.server_address[1]}"
    names = {split: next((tmp_path / "data").glob(f"{split}*")).name for split in ("train", "dev")}
    remote = (
        "model=bert_tiny",
        "data=squad",
        f"data.train_file='{address}/{names['train']}?sig=canary-sig'",
        f"data.val_file='{address}/{names['dev']}?sig=canary-sig'",
    )
    call("train.py", *remote, "trainer.max_steps=2", f"hydra.run.dir={tmp_path / 'remote'}")
    call("-m", "quality", *remote, "--folder", tmp_path / "remote-quality")
    call("-m", "datamodules", "prepare", *remote)
    server.shutdown()
    call("train.py", *TRAIN, f"quality.webhok={HOOK}", codes=(2,))
    call("train.py", *TRAIN, f"quality.webhook={HOOK}{{[", codes=(2,))
    call("train.py", *TRAIN, f"quality.webhook={HOOK}", "data.max_train=${oc.env:UNKNOWN}", codes=(2,))
    call(
        "train.py",
        *TRAIN,
        f"quality.webhook={HOOK}",
        "logger=mlflow",
        "logger.tracking_uri=https://me:canary-pass@127.0.0.1:9",
        codes=(2,),
    )
    call("train.py", *TRAIN, "data=squad", "data.path='https://canary-user@127.0.0.1:9/x?sig=canary-sig'", codes=(2, 7))
    call("-m", "trainers", "evaluate", f"run={first}", f"quality.webhook={HOOK}", "--output", tmp_path / "evaluated")
    call("-m", "explain", f"run={first}", "explain.examples=4", f"quality.webhook={HOOK}", codes=(0, 2, 5))
    call("-m", "quality", *TRAIN[1:4], f"quality.webhook={HOOK}", "--folder", tmp_path / "quality")
    call(
        "-m",
        "quality",
        "drift",
        f"reference={first}",
        *TRAIN[1:3],
        f"quality.webhook={HOOK}",
        "--folder",
        tmp_path / "drift",
    )
    call("-m", "runs", "show", first)
    call("-m", "runs", "report", first)
    call("-m", "runs", "list", tmp_path)
    file = tmp_path / "search.yaml"
    call("-m", "katib", "new", *TRAIN, "optim.lr=choice(1e-4,1e-3)", "--max-trials", "1", "--parallel", "1", "-o", file)
    text = file.read_text()
    file.write_text(text.replace("python train.py", f"python train.py quality.webhook={HOOK}"))
    call("-m", "katib", "check", file)
    call("-m", "katib", "run", file, f"quality.webhook={HOOK}", "--folder", search)
    call("-m", "katib", "best", search, "--json")
    file.write_text(text.replace("trainer.max_steps=2", "'trainer.max_steps=${oc.env:UNKNOWN}'"))
    call("-m", "katib", "check", file, codes=(2,))
    root = tmp_path / "pipeline"
    parameters = ("-p", "explain=off", "-p", "benchmark=off")
    call("-m", "pipelines", "run", "--root", root, *parameters, *TRAIN, f"quality.webhook={HOOK}", codes=(2,))
    call("-m", "pipelines", "run", "--root", root, *parameters, *TRAIN, "quality.webhook=${oc.env:SLACK}")
    file.unlink()

    leaks = [output for output in outputs if "canary" in output]
    leaks += [str(path) for path in tmp_path.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]
    assert not leaks
