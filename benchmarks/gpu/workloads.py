"""What is trained, and by which methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["questions", "texts", "images"]


@dataclass(frozen=True)
class Workload:
    """A network and its data.

    Attributes:
        name: on the command line and in results.json.
        title: in the table.
        kind: questions, texts or images.
        network: a key of `ENCODERS`, or the name of a timm model.
        size: longest input in tokens, or side of an image in pixels.
        batch: examples of a step.
        full: whether contexts are so long that nearly all windows have `size` tokens.
    """

    name: str
    title: str
    kind: Kind
    network: str
    size: int
    batch: int
    full: bool = False


# Settings of transformers' BertConfig: BERT-base's are its defaults.
ENCODERS = {
    "bert-base": {},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "smoke": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64},
}
METHODS = {
    "isotrain": "isotrain",
    "isotrain-compiled": "isotrain, `trainer.compile=true`",
    "isotrain-graphs": "isotrain, `trainer.compile=reduce-overhead`",
    "trainer-padded": "Trainer, padded to the longest possible input",
    "trainer-grouped": "Trainer, dynamic padding, grouped by length",
    "trainer-grouped-flash": "Trainer, grouped by length, without cuDNN's attention",
    "trainer-compiled": "Trainer, grouped by length, `torch_compile`",
    "timm": "timm's recipe, `--amp --amp-dtype bfloat16 --channels-last`",
    "timm-compiled": "timm's recipe, also `--torchcompile`",
}
COMPILED = tuple(name for name in METHODS if name.endswith(("-compiled", "-graphs")))
# In the order in which they are measured: what is left out for lack of time is at the end.
WORKLOADS = (
    Workload("questions-bert-full", "BERT-base, questions, full windows", "questions", "bert-base", 384, 64, full=True),
    Workload("images-resnet50-64", "ResNet-50, 64 pixels", "images", "resnet50", 64, 128),
    Workload("questions-bert", "BERT-base, questions", "questions", "bert-base", 384, 32),
    Workload("images-resnet50-224", "ResNet-50, 224 pixels", "images", "resnet50", 224, 128),
    Workload("questions-minilm", "MiniLM, questions", "questions", "minilm", 384, 32),
    Workload("images-vit_small-64", "ViT-S/16, 64 pixels", "images", "vit_small_patch16_224", 64, 128),
    Workload("texts-bert", "BERT-base, classification of paragraphs", "texts", "bert-base", 256, 32),
    Workload("images-vit_small-224", "ViT-S/16, 224 pixels", "images", "vit_small_patch16_224", 224, 128),
)
SMOKE = (
    Workload("questions", "smoke test, questions", "questions", "smoke", 64, 4),
    Workload("texts", "smoke test, texts", "texts", "smoke", 32, 4),
    Workload("images", "smoke test, images", "images", "test_resnet", 32, 8),
)


def methods(workload: Workload) -> list[str]:
    """Names of the methods that can train a workload. Where all inputs have one length, grouping changes nothing."""
    prefixes = ("isotrain", "timm" if workload.kind == "images" else "trainer")
    return [name for name in METHODS if name.startswith(prefixes) and not (workload.full and name == "trainer-grouped")]
