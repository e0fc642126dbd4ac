"""What each key of the configuration may be: its type and its range, as data."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """One key's values.

    Attributes:
        types: what it may be ("int", "float", "bool", "str", "list", "map"); an int passes as a float.
        low, high: bounds, inclusive unless `above` excludes the lower one.
        above: exclusive lower bound.
        choices: the only values allowed, if any.
        optional: whether null is allowed.
        also: single values allowed beside all this (e.g. -1 for "no limit").
    """

    types: tuple[str, ...]
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[Any, ...] = ()
    optional: bool = False
    also: tuple[Any, ...] = ()


def _whole(low: float | None = None, high: float | None = None, **more: Any) -> Rule:
    return Rule(("int",), low=low, high=high, **more)


def _real(low: float | None = None, high: float | None = None, **more: Any) -> Rule:
    return Rule(("float",), low=low, high=high, **more)


def _text(*choices: str, **more: Any) -> Rule:
    return Rule(("str",), choices=choices, **more)


_YES_NO = Rule(("bool",))
_YES_NO_OR_AUTO = Rule(("bool",), optional=True)
_ANY_TEXT = _text(optional=True)
_LIMIT = Rule(("int", "float"), low=0, optional=True)
_SHARE = _real(0, 1)
_BELOW_ONE = _real(0, 0.999999)
_MAP = Rule(("map",), optional=True)

_BOTH = ("comprehensiveness", "sufficiency", "unlike_random", "agreement")
_MEASURES = {  # of explanations, see explain.judge
    "question_answering": ("question_share", "question_permutation", *_BOTH),
    "image_classification": ("pointing", "faithfulness", "learned", "mass", *_BOTH),
    "text_classification": ("text_permutation", "learned", *_BOTH),
}

# Keys as in the composed configuration. A test holds that every key of every shipped YAML has a rule.
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
    "model.pretrained": Rule(("str", "bool"), optional=True),
    "model.revision": _ANY_TEXT,
    "model.tokenizer": _ANY_TEXT,
    "model.vocab_size": _whole(100, 10_000_000, optional=True),
    "model.architecture": _MAP,
    "model.dropout": _real(0, 0.999999, optional=True),
    "model.attention_dropout": _real(0, 0.999999, optional=True),
    "model.name": _text(),
    "model.stem": _text("standard", "small"),
    "model.drop_path": _BELOW_ONE,
    "model.arguments": _MAP,
    "model.max_answer_tokens": _whole(1),
    "model.n_best": _whole(1),
    "data.path": _ANY_TEXT,
    "data.train_file": _ANY_TEXT,
    "data.val_file": _ANY_TEXT,
    "data.hub": _MAP,
    "data.sample": _MAP,
    "data.sample.seed": _whole(0),
    "data.sample.train": _whole(1),
    "data.sample.val": _whole(1),
    "data.sample.unanswerable": _BELOW_ONE,
    "data.sample.classes": _whole(2),
    "data.sample.size": _whole(16),
    "data.max_train": _whole(1, optional=True),
    "data.max_val": _whole(1, optional=True),
    "data.batch_size": _whole(1, 1_000_000),
    "data.eval_batch_size": _whole(1, 1_000_000),
    "data.workers": _whole(0, 1024),
    "data.cache_dir": _ANY_TEXT,
    "data.verify": _text("fast", "full"),
    "data.seed": _whole(0),
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
    "explain.level": _real(above=0, high=0.5),
    "explain.stable": _real(-1, 1),
    "explain.minimum": _whole(1),
    "explain.thresholds": _ANY_TEXT,
    "explain.slice_gap": _real(0, 1, optional=True),
    "explain.question_answering.sentences": _whole(1, 10),
    "explain.question_answering.other_questions": _whole(1, 100),
    "explain.question_answering.words": _whole(0, 10**6),
    "explain.image_classification.grid": _whole(2, 32),
    "explain.image_classification.rounds": _whole(1, 1000),
    "explain.image_classification.background": _text("blur", "mean", "grey"),
    "explain.image_classification.target": _text("log_probability", "probability", "logit"),
    "explain.image_classification.explainer": _text("permutation", "gradient"),
    "explain.image_classification.pictures": _whole(0, 100),
    "explain.text_classification.sentences": _whole(1, 10),
    "explain.text_classification.other_texts": _whole(1, 100),
    "explain.text_classification.words": _whole(0, 10**6),
    **{f"explain.{task}.measures.{name}.block": _YES_NO for task, names in _MEASURES.items() for name in names},
    **{
        f"explain.{task}.measures.{name}.bound": _real(-100, 100) for task, names in _MEASURES.items() for name in names
    },
    "data.max_length": _whole(8, 1_000_000),
    "data.stride": _whole(0),
    "data.max_query_length": _whole(1),
    "data.version_2": _YES_NO_OR_AUTO,
    "data.pretrained": _ANY_TEXT,
    "data.revision": _ANY_TEXT,
    "data.tokenizer": _ANY_TEXT,
    "data.vocab_size": _whole(100, 10_000_000, optional=True),
    "data.image_size": _whole(8, 4096),
    "data.augment": Rule(("map",)),
    "data.columns": Rule(("map",)),
    "data.mean": Rule(("list",)),
    "data.std": Rule(("list",)),
    "trainer.threads": _whole(1, 4096, optional=True),
    "trainer.on_divergence": _text("fail", "report_worst"),
    "trainer.compile": _YES_NO,
    "trainer.ema_decay": _real(0, 0.999999999, optional=True),
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
    "trainer.overfit_batches": Rule(("int", "float"), low=0),
    "trainer.val_check_interval": Rule(("int", "float"), above=0, optional=True),
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
