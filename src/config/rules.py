"""What the keys may be that no class takes: of train.yaml, of optim, trainer, quality and explain.

All others are declared by the class that takes them, in its signature; see `config.ranges`.
"""

from typing import Any

from config.ranges import Range, Rule

# Keys of conf/model and conf/data that others read by interpolation; no argument of what the node names.
NON_ARGUMENT_KEYS = {"model": ("task", "lr", "tokenizer", "vocab_size"), "data": ("epochs", "contract")}
# Arguments that train.py gives beside the node's own.
CALLER_ARGUMENTS = {"model": ("data", "optim"), "optim.optimizer": ("params", "lr", "weight_decay")}


def _whole(low: float | None = None, high: float | None = None, also: tuple[int, ...] = (), **more: Any) -> Rule:
    return Rule(("int",), Range(low=low, high=high, also=also), **more)


def _real(
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    **more: Any,
) -> Rule:
    return Rule(("float",), Range(low=low, high=high, above=above, below=below), **more)


def _text(*choices: str, **more: Any) -> Rule:
    return Rule(("str",), choices=choices, **more)


_YES_NO = Rule(("bool",))
_YES_NO_OR_AUTO = Rule(("bool",), optional=True)
_ANY_TEXT = _text(optional=True)
_LIMIT = Rule(("int", "float"), Range(low=0), optional=True)
_MAP = Rule(("map",), optional=True)

# Keys as in the composed configuration.
RULES: dict[str, Rule] = {
    "seed": _whole(0, 2**32 - 1),
    "monitor": _text(),
    "init_from": _ANY_TEXT,
    "metrics_file": _ANY_TEXT,
    "push_metrics": _ANY_TEXT,
    "population_dir": _ANY_TEXT,
    "optim.lr": _real(above=0, high=100, optional=True),
    "optim.weight_decay": _real(0, 10),
    "optim.layer_decay": _real(above=0, high=1),
    "optim.schedule": _text("linear", "cosine", "constant"),
    "optim.warmup": _real(0),
    "optim.horizon": _whole(1, optional=True),
    "optim.optimizer": Rule(("map",)),
    "model.task": _text(),
    "model.lr": _real(above=0, high=100, optional=True),
    "model.tokenizer": _ANY_TEXT,
    "model.vocab_size": _whole(100, 10_000_000, optional=True),
    "data.epochs": _whole(1),
    "data.contract": _text(),
    "quality.action": _text("enforce", "warn", "off"),
    "quality.contract": _text(),
    "quality.webhook": _ANY_TEXT,
    "quality.summary": _ANY_TEXT,
    "explain.action": _text("enforce", "warn", "off"),
    "explain.examples": _whole(1, optional=True),
    "explain.seed": _whole(0, 2**31 - 2),
    "explain.precision": Rule(("str", "int"), choices=("auto", "32", "bf16", 32)),
    "explain.batch_size": _whole(1, 1_000_000),
    "explain.alpha": _real(above=0, high=0.5),
    "explain.min_agreement": _real(-1, 1),
    "explain.min_correct": _whole(1),
    "explain.thresholds": _ANY_TEXT,
    "explain.slice_gap": _real(0, 1, optional=True),
    "trainer.threads": _whole(1, 4096, optional=True),
    "trainer.on_divergence": _text("fail", "report_worst"),
    "trainer.compile": _YES_NO,
    "trainer.ema_decay": _real(0, below=1, optional=True),
    "trainer.early_stopping": _whole(1, optional=True),
    "trainer.checkpoint_minutes": _real(above=0, optional=True),
    "trainer.checkpoint_steps": _whole(1, optional=True),
    "trainer.accelerator": _text(),
    "trainer.strategy": Rule(("str", "map")),
    "trainer.devices": Rule(("int", "str", "list")),
    "trainer.num_nodes": _whole(1),
    "trainer.precision": Rule(("str", "int")),
    "trainer.fast_dev_run": Rule(("bool", "int")),
    "trainer.max_epochs": _whole(1, also=(-1,), optional=True),
    "trainer.min_epochs": _whole(1, optional=True),
    "trainer.max_steps": _whole(1, also=(-1,)),
    "trainer.min_steps": _whole(1, optional=True),
    "trainer.max_time": Rule(("str", "map"), optional=True),
    "trainer.limit_train_batches": _LIMIT,
    "trainer.limit_val_batches": _LIMIT,
    "trainer.limit_test_batches": _LIMIT,
    "trainer.limit_predict_batches": _LIMIT,
    "trainer.overfit_batches": Rule(("int", "float"), Range(low=0)),
    "trainer.val_check_interval": Rule(("int", "float"), Range(above=0), optional=True),
    "trainer.check_val_every_n_epoch": _whole(1, optional=True),
    "trainer.log_every_n_steps": _whole(1, optional=True),
    "trainer.enable_model_summary": _YES_NO_OR_AUTO,
    "trainer.accumulate_grad_batches": _whole(1),
    "trainer.gradient_clip_val": _real(0, optional=True),
    "trainer.gradient_clip_algorithm": _text("norm", "value", optional=True),
    "trainer.deterministic": Rule(("bool", "str"), optional=True),
    "trainer.benchmark": _YES_NO_OR_AUTO,
    "trainer.inference_mode": _YES_NO,
    "trainer.profiler": Rule(("str", "map"), optional=True),
    "trainer.detect_anomaly": _YES_NO,
    "trainer.plugins": Rule(("str", "list", "map"), optional=True),
    "trainer.sync_batchnorm": _YES_NO_OR_AUTO,
    "logger": _MAP,
    "task": Rule(("map",)),
}
# Old names of keys: refused with a message that gives the new name; in records of old runs they have their old meaning.
RENAMED_KEYS = {
    "explain.level": "explain.alpha",
    "explain.stable": "explain.min_agreement",
    "explain.minimum": "explain.min_correct",
}
# Of each measure of explanations, in the section of each task: explain.<task>.measures.<name>.
MEASURE_RULES = {"block": _YES_NO, "bound": _real(-100, 100)}
