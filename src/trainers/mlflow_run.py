"""The MLflow run that a training logs into, where its environment names one (MLFLOW_RUN_ID).

Kubeflow Pipelines makes a run for each step and names it so. The trials of a search all have the variable of their search,
whose run is their parent. `python -m pipelines run` hands the run of its own variable to the steps as their parent.
"""

import os
from collections.abc import Mapping
from typing import Any

VARIABLE = "MLFLOW_RUN_ID"
PARENT_VARIABLE = "ISOTRAIN_MLFLOW_PARENT"  # set by `python -m pipelines run`
_PARENT_TAG = "mlflow.parentRunId"  # of MLflow: its pages show such a run below the parent


def run_arguments(
    record: Mapping[str, Any], tracking_uri: str | None, tags: Mapping[str, str] | None
) -> dict[str, Any]:
    """Return arguments of Lightning's MLFlowLogger for a new run of train.py.

    Args:
        record: content of run.json so far; with a `trial`, or in a local pipeline, the run is a child.
        tracking_uri: MLflow's server or store; None for MLflow's own default.
        tags: tags that the configuration sets.

    Returns:
        `run_id` of the run that the environment names; for a child, name of its experiment, and `tags` with the parent.

    Raises:
        mlflow.exceptions.MlflowException: There is no such run.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    name = parent or os.environ.get(VARIABLE)
    if not name:
        return {}
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri)
    run = client.get_run(name)
    if not parent and not record.get("trial"):
        return {"run_id": name}
    experiment = client.get_experiment(run.info.experiment_id)
    return {"experiment_name": experiment.name, "tags": {**(tags or {}), _PARENT_TAG: name}}
