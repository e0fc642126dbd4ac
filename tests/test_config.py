"""Configuration: every shipped choice composes and passes both checks; what is wrong is said in one message."""

import contextlib
import copy
import itertools
import math
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf, open_dict

from config.check import check_config, iter_rules, iter_targets
from config.compose import compose, compose_cached, group_choices
from config.errors import InputError
from config.messages import explain_error
from config.tasks import CONF


def pairs() -> list[tuple[str, str]]:
    """Every model with every data set of its task."""
    texts = {
        group: {name: (CONF / group / f"{name}.yaml").read_text() for name in group_choices(group)}
        for group in ("model", "data")
    }
    tasks = {
        group: {name: re.search(r"\btask: (\w+)", text)[1] for name, text in files.items()}  # type: ignore[index]
        for group, files in texts.items()
    }
    return [
        (model, data)
        for (model, made_for), (data, task) in itertools.product(tasks["model"].items(), tasks["data"].items())
        if made_for in (task, "any")
    ]


@pytest.mark.parametrize(("model", "data"), pairs())
def test_every_model_fits_every_data_set_of_its_task(model: str, data: str) -> None:
    from trainers.build import check_targets

    config = compose_cached([f"model={model}", f"data={data}"])
    check_config(config)
    check_targets(config)


@pytest.mark.parametrize("group", ["optim", "trainer", "logger", "experiment"])
def test_every_other_choice_passes_both_checks(group: str) -> None:
    from trainers.build import check_targets

    assert group_choices(group)
    for name in group_choices(group):
        config = compose([f"{group}={name}"])
        check_config(config)
        check_targets(config)


def test_every_key_of_every_choice_has_a_rule() -> None:
    """So that no shipped key passes unchecked."""
    unruled, seen = set(), set()
    for model, data in pairs():
        if {model, data} <= seen:
            continue
        seen |= {model, data}
        config = compose_cached([f"model={model}", f"data={data}"])
        OmegaConf.resolve(config)
        plain: Any = OmegaConf.to_container(config)
        ruled = {key: rule for key, _, rule in iter_rules(plain) if rule is not None}
        free = tuple(f"{key}." for key, rule in ruled.items() if "map" in rule.types and rule.keys is None)
        known = {*ruled, *(f"{path}._target_" for path, _ in iter_targets(plain))}
        unruled |= {key for key in _leaves(plain, "") if key not in known and not key.startswith(free)}
    assert unruled == set()


def _leaves(node: object, path: str) -> list[str]:
    if isinstance(node, dict) and node:
        return [leaf for key in node for leaf in _leaves(node[key], f"{path}.{key}".lstrip("."))]
    return [path]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.lrr=1"], r"unknown key optim\.lrr.*did you mean lr\?"),
        (["optmi.lr=1"], r"unknown key optmi"),
        (["trainer.max_epoch=1"], r"unknown key trainer\.max_epoch.*did you mean max_epochs\?.*\+trainer\.max_epoch"),
        (["model=brt"], r"model=brt: no such choice; valid: .*did you mean bert\?"),
        (["data=squadd"], r"data=squadd: no such choice.*did you mean squad\?"),
        (["modle=bert"], r"unknown key modle"),
        (
            ["+callbacks.a._target_=mine.A"],
            r"unknown key callbacks, which nothing reads; valid keys: data, .* trainer$",
        ),
        (["optim.lr=fast"], r"optim\.lr=fast: must be a number, above 0"),
        (["optim.lr=0"], r"optim\.lr=0: must be a number, above 0"),
        (["optim.lr=nan"], r"optim\.lr=nan: must be finite"),
        (["data.batch_size=0"], r"data\.batch_size=0: must be a whole number, at least 1"),
        (["data.batch_size=2.5"], r"data\.batch_size=2\.5: must be a whole number"),
        (["trainer.compile=1"], r"trainer\.compile=1: must be true or false or reduce-overhead"),
        (
            ["explain.question_answering.words=-1"],
            r"^explain\.question_answering\.words=-1: must be a whole number, at l",
        ),
        (
            ["explain.question_answering.measures.sufficiency.bound=101"],
            r"^explain\.question_answering\.measures\.sufficiency\.bound=101: must be a number, at least -100 and at most 100$",
        ),
        (["optim.schedule=step"], r"optim\.schedule=step: must be linear or cosine or constant"),
        (["model=resnet18"], r"the model is for the task image_classification and the data set for question_answering"),
        (
            ["model=resnet18"],
            r"choose a model and a data set of one task: model=bert or bert_tiny or .*lexical or majority.*, "
            r"or data=image_folder or shapes or tiny_imagenet$",
        ),
        (
            ["model=resnet18", "data=shapes", "data.augment.mixp=1"],
            r"unknown key data\.augment\.mixp; keys of data\.augment: random_resized_crop, .*\(did you mean mixup\?\)$",
        ),
        (
            ["model=resnet18", "data=shapes", "optmi.lr=1", "data.augment.mixp=1"],
            r"unknown key optmi\.lr; keys of the configuration: .*did you mean optim\?",
        ),
        (
            ["model=resnet18", "data=shapes", "data.augmnt.mixup=1"],
            r"unknown key data\.augmnt\.mixup; keys of data: .*\(did you mean augment\?\)$",
        ),
        (["data=shapes", "model=resnet18", "~data.augment.mixp"], r"unknown key data\.augment\.mixp; .*mean mixup\?"),
        (
            ["data=squad", "data.sample.train=5"],
            r"unknown key data\.sample\.train: data\.sample is null, which has no keys",
        ),
        (
            ["model=resnet18", "data.image_size=32"],  # data=shapes was forgotten
            r"unknown key data\.image_size; .*the model is for the task image_classification .* data=image_folder or shapes",
        ),
        (
            ["monitor=val_accuracy"],
            r"monitor=val_accuracy: the task question_answering has no such metric; valid: .*val_f1",
        ),
        (["data.stride=500"], r"data\.stride=500: must be below data\.max_length"),
        (["trainer.max_epochs=-1"], r"limit one of them"),
        (["optim.warmup=2.5"], r"optim\.warmup=2\.5"),
        (["seed=${oc.env:NO_SUCH_VARIABLE}"], r"environment variable NO_SUCH_VARIABLE"),
        (["seed=${nothing.here}"], r"nothing"),
        (["optim.lr=[1"], r"cannot parse the override 'optim\.lr=\[1'"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(overrides: list[str], message: str) -> None:
    with pytest.raises(Exception) as caught:
        check_config(compose(overrides))
    text = str(caught.value) if isinstance(caught.value, InputError) else explain_error(caught.value)
    assert re.search(message, text), text
    assert "\n" not in text


def test_several_mistakes_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        check_config(compose(["optim.lr=0", "data.batch_size=0"]))
    assert "optim.lr=0" in str(caught.value)
    assert "data.batch_size=0" in str(caught.value)


def test_katibs_numbers_are_read_as_numbers() -> None:
    """Katib hands over 1e-05 and 0.30000000000000004 as text."""
    config = compose(["optim.lr=1e-05", "optim.weight_decay=0.30000000000000004", "data.batch_size=16"])
    check_config(config)
    assert math.isclose(config.optim.lr, 1e-5)
    assert config.data.batch_size == 16


def test_composing_and_checking_imports_no_torch() -> None:
    code = (
        "import sys; sys.path.insert(0, 'src')\n"
        "from config.compose import compose; from config.check import check_config\n"
        "check_config(compose(['model=bert', 'data=squad']))\n"
        "heavy = {'torch', 'lightning', 'transformers', 'timm', 'pyarrow', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(CONF).parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_target_of_ones_own_is_bound_before_it_is_built() -> None:
    from trainers.build import check_targets

    config: DictConfig = compose(["+model.hidden=3"])
    with pytest.raises(
        InputError, match=r"model\.hidden: trainers\.question_answering\.QuestionAnswering has no such argument"
    ):
        check_targets(config)
    config = compose(["model._target_=no.such.Model"])
    with pytest.raises(InputError, match=r"model\._target_=no\.such\.Model: cannot be imported"):
        check_targets(config)
    config = compose(["model=resnet18", "data=shapes", "~model.name"])
    with pytest.raises(InputError, match=r"requires the argument name"):
        check_targets(config)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model=resnet18", "data=shapes", "optim=sgd", "optim.lr=0.2", "data.augment.flip=false"],
        ["experiment=squad_bert", "optim.lr=1e-5", "data.batch_size=8"],
        ["+trainer.enable_autolog_hparams=false", "~trainer.detect_anomaly", "++seed=3"],
        [
            "model.architecture={model_type:bert,hidden_size:16}",
            "data.mean=[0.1,0.2,0.3]",
            "data=shapes",
            "model=resnet18",
        ],
        ["logger=null", "seed=4", "seed=5"],
        ["optim.rl=1"],
        ["model=berta"],
        ["trainer.max_epochs=[1"],
        ["+seed=3"],
        ["~trainer.nothing"],
        ["data.batch_size.x=3"],
        ["monitor=${task.nothing}"],
    ],
)
def test_many_command_lines_compose_as_one_does(overrides: list[str]) -> None:
    def told(how: Callable[[Sequence[str]], DictConfig]) -> Any:
        try:
            return OmegaConf.to_container(how(overrides), resolve=True)
        except Exception as error:
            return explain_error(error)

    assert told(compose_cached) == told(compose)
    assert told(compose_cached) == told(compose)  # what was composed before is not changed by it


@pytest.mark.parametrize("value", [None, "", [], 10**400, -(2**63), float("nan")], ids=str)
def test_each_key_refuses_what_it_cannot_be(value: object) -> None:
    """A value of the wrong type or size at any key, or section, is an input error or valid."""
    config = compose(["model=bert_tiny", "data=squad_sample"])
    keys: list[str] = []

    def walk(node: object, prefix: str) -> None:
        for key, child in node.items() if isinstance(node, dict) else ():
            keys.append(f"{prefix}{key}")
            walk(child, f"{prefix}{key}.")

    walk(OmegaConf.to_container(config), "")
    assert len(keys) > 150
    for key in keys:
        changed = copy.deepcopy(config)
        with open_dict(changed):
            OmegaConf.update(changed, key, value, merge=False)
        with contextlib.suppress(InputError):
            check_config(changed)


VARIABLE = "${oc.env:VALUE}"


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("0.0021", "optim.lr", 0.0021),
        ("1e-5", "optim.lr", 1e-5),
        ("2.1e-05", "model.lr", 2.1e-5),
        ("null", "model.lr", None),
        ("8", "data.batch_size", 8),
        ("3", "seed", 3),
        ("true", "trainer.deterministic", True),
        ("16-mixed", "trainer.precision", "16-mixed"),
        ("32", "data.path", "32"),  # only text is valid
    ],
)
def test_values_of_the_environment_have_the_types_of_overrides(
    text: str, key: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VALUE", text)
    config = compose([f"{key}={VARIABLE}", *(["optim.lr=1"] if key == "model.lr" else [])])
    check_config(config)
    value = OmegaConf.select(config, key)
    assert (value, type(value)) == (expected, type(expected))
    if key == "seed":
        assert config.data.seed == 3  # refers to the key


@pytest.mark.parametrize("text", ["fast", "-1", "[1, 2]", "nan", ""])
def test_a_wrong_value_of_the_environment_is_refused_with_the_variable(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VALUE", text)
    with pytest.raises(InputError, match=r"^optim\.lr=(\$\{oc\.env:VALUE\})?: must be (a number, above 0|finite)"):
        check_config(compose([f"optim.lr={VARIABLE}"]))


def test_a_default_of_a_variable_is_typed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VALUE", raising=False)
    config = compose(["optim.lr=${oc.env:VALUE,3e-5}"])
    check_config(config)
    assert config.optim.lr == 3e-5
