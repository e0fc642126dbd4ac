"""Rules of the keys that no class takes: those of train.yaml, optim, trainer, quality and explain.

The class that takes any other key declares its values in the signature; see `config.ranges`.
"""

from typing import Any

from config.ranges import Range, Rule

# Keys of conf/model and conf/data that are read by interpolation; they are not arguments of the target.
NON_ARGUMENT_KEYS = {"model": ("task", "lr", "tokenizer", "vocab_size"), "data": ("epochs", "contract", "suitable")}
# Arguments of a target that train.py passes in addition to those in the node.
CALLER_ARGUMENTS = {"model": ("data", "optim"), "optim.optimizer": ("params", "lr", "weight_decay")}


def _integer(low: float | None = None, high: float | None = None, also: tuple[int, ...] = (), **kwargs: Any) -> Rule:
    return Rule(("int",), Range(low=low, high=high, also=also), **kwargs)


def _number(low: float | None = None, high: float | None = None, optional: bool = False, **bounds: Any) -> Rule:
    return Rule(("float",), Range(low=low, high=high, **bounds), optional=optional)


def _text(*choices: str, **kwargs: Any) -> Rule:
    return Rule(("str",), choices=choices, **kwargs)


_FLAG = Rule(("bool",))
_OPTIONAL_FLAG = Rule(("bool",), optional=True)
_OPTIONAL_TEXT = _text(optional=True)
_LIMIT = Rule(("int", "float"), Range(low=0), optional=True)
_MAP = Rule(("map",), optional=True)
# Lightning's, and ours. YAML reads 32 as a number, a quoted "32" as text.
_PRECISIONS = (
    *("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true", "32", "bf16", "16", "64"),
    *("transformer-engine", "transformer-engine-float16", 32, 16, 64),
)

# By the dotted keys of the composed configuration.
RULES: dict[str, Rule] = {
    "seed": _integer(0, 2**32 - 1),
    "monitor": _text(),
    "init_from": _OPTIONAL_TEXT,
    "metrics_file": _OPTIONAL_TEXT,
    "push_metrics": _OPTIONAL_TEXT,
    "population_dir": _OPTIONAL_TEXT,
    "population_parent": _OPTIONAL_TEXT,
    "optim.lr": _number(above=0, high=100, optional=True),
    "optim.weight_decay": _number(0, 10),
    "optim.layer_decay": _number(above=0, high=1),
    "optim.schedule": _text("linear", "cosine", "constant"),
    "optim.warmup": _number(0),
    "optim.horizon": _integer(1, optional=True),
    "optim.optimizer": Rule(("map",)),
    "model.task": _text(),
    "model.lr": _number(above=0, high=100, optional=True),
    "model.tokenizer": _OPTIONAL_TEXT,
    "model.vocab_size": _integer(100, 10_000_000, optional=True),
    "data.epochs": _integer(1),
    "data.contract": _text(),
    "data.suitable": _MAP,
    "quality.action": _text("enforce", "warn", "off"),
    "quality.contract": _text(),
    "quality.time_limit": _number(above=0, high=86_400),
    "quality.webhook": _OPTIONAL_TEXT,
    "quality.summary": _OPTIONAL_TEXT,
    "explain.action": _text("enforce", "warn", "off"),
    "explain.examples": _integer(1, optional=True),
    "explain.seed": _integer(0, 2**31 - 2),
    "explain.precision": Rule(("str", "int"), choices=("auto", "32", "bf16", 32)),
    "explain.batch_size": _integer(1, 1_000_000),
    "explain.alpha": _number(above=0, high=0.5),
    "explain.looks": _integer(1, 10),
    "explain.min_agreement": _number(-1, 1),
    "explain.min_correct": _integer(1),
    "explain.thresholds": _OPTIONAL_TEXT,
    "explain.slice_gap": _number(0, 1, optional=True),
    "trainer.threads": _integer(1, 4096, optional=True),
    "trainer.on_divergence": _text("fail", "report_worst"),
    "trainer.compile": Rule(("bool", "str"), choices=(True, False, "reduce-overhead")),
    "trainer.ema_decay": _number(0, below=1, optional=True),
    "trainer.early_stopping": _integer(1, optional=True),
    "trainer.checkpoint_minutes": _number(above=0, optional=True),
    "trainer.checkpoint_steps": _integer(1, optional=True),
    "trainer.accelerator": _text("auto", "cpu", "gpu", "cuda", "mps", "tpu"),
    "trainer.strategy": Rule(("str", "map")),
    "trainer.devices": Rule(("int", "str", "list")),
    "trainer.num_nodes": _integer(1),
    "trainer.precision": Rule(("str", "int"), choices=_PRECISIONS),
    "trainer.fast_dev_run": Rule(("bool", "int")),
    "trainer.max_epochs": _integer(1, also=(-1,), optional=True),
    "trainer.min_epochs": _integer(1, optional=True),
    "trainer.max_steps": _integer(1, also=(-1,)),
    "trainer.min_steps": _integer(1, optional=True),
    "trainer.max_time": Rule(("str", "map"), optional=True),
    "trainer.limit_train_batches": _LIMIT,
    "trainer.limit_val_batches": _LIMIT,
    "trainer.limit_test_batches": _LIMIT,
    "trainer.limit_predict_batches": _LIMIT,
    "trainer.overfit_batches": Rule(("int", "float"), Range(low=0)),
    "trainer.val_check_interval": Rule(("int", "float"), Range(above=0), optional=True),
    "trainer.check_val_every_n_epoch": _integer(1, optional=True),
    "trainer.log_every_n_steps": _integer(1, optional=True),
    "trainer.enable_model_summary": _OPTIONAL_FLAG,
    "trainer.accumulate_grad_batches": _integer(1),
    "trainer.gradient_clip_val": _number(0, optional=True),
    "trainer.gradient_clip_algorithm": _text("norm", "value", optional=True),
    "trainer.deterministic": Rule(("bool", "str"), optional=True),
    "trainer.benchmark": _OPTIONAL_FLAG,
    "trainer.inference_mode": _FLAG,
    "trainer.profiler": Rule(("str", "map"), optional=True),
    "trainer.detect_anomaly": _FLAG,
    "trainer.plugins": Rule(("str", "list", "map"), optional=True),
    "trainer.sync_batchnorm": _OPTIONAL_FLAG,
    "logger": _MAP,
    "task": Rule(("map",)),
}
# Old names of keys: refused with a message that gives the new name; in records of old runs they have their old meaning.
RENAMED_KEYS = {
    "explain.level": "explain.alpha",
    "explain.stable": "explain.min_agreement",
    "explain.minimum": "explain.min_correct",
}
# Rules of explain.<task>.measures.<name>.
MEASURE_RULES = {"block": _FLAG, "bound": _number(-100, 100)}
