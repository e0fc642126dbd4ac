"""A saved model: a run's folder, or a plain transformers or timm one."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.errors import Refused
from runs import folder as folders


@dataclass(frozen=True)
class Saved:
    """Where a model is and what it is for.

    Attributes:
        folder: with config.json and model.safetensors.
        task: question_answering or image_classification.
        config: its config.json.
        record: run.json of the run it belongs to; empty for a plain folder.
    """

    folder: Path
    task: str
    config: dict[str, Any]
    record: dict[str, Any]

    @property
    def small_stem(self) -> bool:
        """Whether it is one of ours with a small stem, exported for images of twice the size (see trainers.stem)."""
        about = self.config.get("pretrained_cfg", {})
        return self.task == "image_classification" and about.get("interpolation") == "nearest"


def find(name: str) -> Saved:
    """Looks at a folder.

    Raises:
        Refused: it holds neither a run with a model nor a model.
    """
    folder = Path(name)
    record: dict[str, Any] = {}
    if (folder / folders.RECORD).exists():
        record = folders.read_record(folder)
        folder = folder / folders.MODEL
        if not folder.is_dir():
            raise Refused(f"run={name}: this run has no model yet (it is {record['status']})")
    if (folder / "baseline.json").exists():
        raise Refused(f"run={name} is a baseline, which has no weights to load; train.py scores it")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refused(f"run={name}: neither a run nor a model folder (there is no config.json)") from None
    except ValueError as error:
        raise Refused(f"{folder / 'config.json'} is damaged: {error}") from None
    if "model_type" in config:
        return Saved(folder, "question_answering", config, record)
    if "architecture" in config:
        return Saved(folder, "image_classification", config, record)
    raise Refused(f"{folder / 'config.json'} is neither transformers' (model_type) nor timm's (architecture)")
