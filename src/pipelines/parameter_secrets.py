"""Secrets among the parameters of a run."""

from collections.abc import Mapping
from typing import Any

from config.errors import InputError
from config.masking import mask_command


def refuse_secrets(values: Mapping[str, Any]) -> None:
    """Refuse secrets among the parameters of a run: KFP stores and shows them, and passes them to each step.

    Raises:
        InputError: A parameter has a secret.
    """
    for name, value in values.items():
        words = list(map(str, value)) if isinstance(value, list | tuple) else [f"{name}={value}"]
        if masked := next((text for word, text in zip(words, mask_command(words), strict=True) if word != text), None):
            raise InputError(
                f"{masked}: a pipeline takes no secrets as parameters: keep it in a Kubernetes secret that conf/pipeline.yaml "
                "names under `secrets`, and write '${oc.env:NAME}' as the value; for quality.webhook the variable "
                "ISOTRAIN_WEBHOOK is enough, and for a server MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
