"""Parameters of a pipeline run: each is checked before anything starts, on this machine and for a cluster."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from tests.conftest import ROOT, Run

from config.errors import InputError
from pipelines.arguments import bind_parameters
from pipelines.compilation import load_settings, read_documents, spec_parameters

SPEC = read_documents(str(ROOT / "pipelines" / "train.yaml"))[0]
SEARCH = f"tune={ROOT}/katib/questions-random.yaml"
# Values of each parameter that a step would refuse, or misunderstand, after hours.
INVALID = {
    "model": ["", "bret"],
    "data": ["", "sqad"],
    "overrides": ["", "x", "[optim.lr=-1]", "[hydra.run.dir=x]", "[quality=off]", "[optim.lr=]"],
    "quality": ["", "on"],
    "drift": ["", "on"],
    "explain": ["", "on"],
    "benchmark": ["", "on"],
    "tune": ["", "katib/none.yaml", "katib", "docker-compose.yml"],
    "tune_backend": ["", "docker"],
    "trials": ["", "-5", "1.5", "many", "true", "4"],  # 4: of no search
    "trial_cpu": ["", "2"],  # without tune=
    "trial_memory": ["", "4Gi"],
    "trial_gpus": ["", "1"],
    "baseline": ["outputs/a"],
    "margin": ["", "-1", ".nan", ".inf", "true", "x"],
    "minimum": ["", "-1", "0.5", "true"],
    "floor": ["", "x", "true", ".nan", "inf"],
    "promote": ["", "1", "x"],
    "when": ["", "never"],
    "refresh": [""],
    "registered": ["", " ", "a/b", "a:b", 'it\'s a "name"'],
    "server": ["", "localhost:5000", "mlflow.db", "http://a b"],
    "root": ["", "runs"],
    "image": ["", " ", "a b"],
}
VALID = {
    "trials": ["0"], "baseline": ["", "champion", "/runs/a"], "margin": ["0", "0.5", "1e-3", "2"], "minimum": ["0", "100"],
    "registered": ["it's mine"], "server": ["http://mlflow:5000", "sqlite:////runs/mlflow.db", "databricks"],
    "root": ["/runs"], "image": ["registry/isotrain@sha256:1"], "refresh": ["2026-11"], "floor": ["80", "1e-3", "-2.5"], "promote": ["false"],
}  # fmt: skip


def bind(*assignments: str, local: bool = False) -> dict[str, Any]:
    return bind_parameters(SPEC, ["model=majority", "data=squad_sample"], assignments, local)


def test_each_parameter_has_cases() -> None:
    assert set(INVALID) == set(spec_parameters(SPEC))


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in INVALID.items() for value in values])
def test_an_invalid_value_is_refused(name: str, value: str) -> None:
    words = [] if name in ("model", "data") else ["model=majority", "data=squad_sample"]
    with pytest.raises((InputError, HydraException, OmegaConfBaseException)) as caught:
        bind_parameters(SPEC, words, [f"{name}={value}"])
    if value in ("", " "):
        assert f"-p {name}={value}: has no value" in str(caught.value)
    elif name in ("margin", "minimum", "trials", "registered", "server", "root", "baseline", "image"):
        assert str(caught.value).startswith(f"-p {name}=")


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in VALID.items() for value in values])
def test_a_valid_value_is_taken(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.arguments._check_values", lambda *values: None)  # composes: seconds for all
    expected = yaml.safe_load(value) if name in ("trials", "minimum", "promote") else value
    assert bind(f"{name}={value}")[name] == (float(value) if name == "margin" else expected)


def test_on_this_machine_folders_are_checked_too(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert bind(f"baseline={tmp_path / 'run'}", local=True)["baseline"] == str(tmp_path / "run")
    with pytest.raises(InputError, match="there is no such folder"):
        bind(f"baseline={tmp_path / 'none'}", local=True)
    with pytest.raises(InputError, match="use --root /runs"):
        bind("root=/runs", local=True)


def test_overrides_are_those_of_both_ways() -> None:
    values = bind_parameters(SPEC, ["model=majority", "data=squad_sample", "seed=2"], ["overrides=[data.sample.val=9]"])
    assert values["overrides"] == ["data.sample.val=9", "seed=2"]


def test_a_search_is_checked() -> None:
    assert bind(SEARCH, "trials=2", "trial_cpu=500m")["trials"] == 2
    for resource in ("trial_cpu=two", "trial_memory=4 Gi", "trial_gpus=-1"):
        with pytest.raises(InputError, match=f"-p {resource}: must be "):
            bind(SEARCH, resource)


@pytest.mark.parametrize(
    "setting",
    ["retries=-1", "retries=x", "retries=2.5", "retries=true", "image=''", "image='a b'", "large.gpus=true", "large.gpu=''",
     "large.shared_memory=abc", "volume=''", "volume=a_b", "cache=cache", "cache=''", "root='/a b'", "config_map=''",
     "tolerations=x", "tolerations=[x]", "+node_selector.pool=''", "secrets.HF_TOKEN=''",
     "queue=''", "queue=Team", "queue=a b", f"queue={'a' * 64}", "priority_class=high"],
)  # fmt: skip
def test_a_setting_that_the_cluster_would_refuse_is_not_compiled(setting: str) -> None:
    with pytest.raises(InputError, match=setting.lstrip("+").partition("=")[0].partition(".")[0]):
        load_settings([setting])


def test_the_command_refuses_at_once(run: Run, tmp_path: Path) -> None:
    for words in (("run", "--file"), ("submit",)):
        done = run("-m", "pipelines", *words, str(ROOT / "pipelines" / "train.yaml"), "-p", "margin=-1")
        assert (done.returncode, done.stderr.count("Traceback")) == (2, 0), done.stderr
        assert "-p margin=-1.0: must be 0 or more" in done.stderr
    assert list(tmp_path.iterdir()) == []
