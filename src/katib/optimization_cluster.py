"""OptimizationJobs and their TrainJobs on a cluster, read as Experiments and trials.

No release of Trainer has a controller yet. What is read of one is what its open design says: TrainJobs are owned by their
OptimizationJob, and have their parameters as variables of the trainer.
"""

from collections.abc import Mapping
from typing import Any

from cluster.api import ForbiddenError
from config.errors import InputError
from config.numbers import format_count
from katib import optimization_job as api
from katib.cluster import Cluster
from katib.documents import Document
from katib.experiment import Experiment
from katib.experiment_from_job import build_experiment, parameter_keys
from katib.optimization_check import NO_CONTROLLER

JOBS = "optimizationjobs.v1alpha1.trainer.kubeflow.org"
TRAIN_JOBS = "trainjobs.v1alpha1.trainer.kubeflow.org"
JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"  # of pods; a JobSet has the name of its TrainJob
# Conditions of an OptimizationJob and of a TrainJob, and those of an Experiment and of a trial that say the same.
_ENDS = {"Complete": "Succeeded", "Failed": "Failed"}


class JobCluster(Cluster):
    """The OptimizationJobs of one namespace; their objects are Experiments and trials to the callers."""

    kind = api.KIND
    resource = JOBS
    trial_label = JOBSET_LABEL
    has_suggestions = False

    def find_experiment(self, name: str) -> dict[str, Any] | None:
        """Return the Experiment of an OptimizationJob, with its status; None if it does not exist."""
        value = self.api.find(JOBS, name)
        if value is None:
            return None
        job = Experiment(Document(name, value, {}))
        experiment = build_experiment(job)[0].value
        metadata = {**experiment["metadata"], "uid": job.text("metadata", "uid")}
        return {**experiment, "metadata": metadata, "status": self._status(job)}

    def create(self, value: dict[str, Any]) -> None:
        """Create an OptimizationJob.

        Raises:
            ApiStatusError: 409 if the name is taken.
            InputError: the cluster refuses it, or has no such API.
        """
        self.api.create(JOBS, value)

    def find_remains(self, name: str) -> tuple[str, str]:
        """Return what is left of a deleted OptimizationJob, as `Cluster.find_remains`."""
        remains = [f"the {self.kind} {name}"] if self.find_object(name) is not None else []
        names = [str(item["metadata"]["name"]) for item in self.list_trials(name)[0]]
        if names:
            remains.append(format_count(len(names), "TrainJob"))
        unknown = ""
        try:
            rows = [pod["metadata"] for pod in self.api.list("pods", labels=JOBSET_LABEL)[0]]
            if pods := [str(row["name"]) for row in rows if row["labels"][JOBSET_LABEL] in names]:
                remains.append(format_count(len(pods), "pod"))
        except ForbiddenError as error:
            unknown = str(error)
        return ", ".join(remains), unknown

    def list_trials(self, name: str) -> tuple[list[dict[str, Any]], str]:
        """Return the TrainJobs that an OptimizationJob owns as trials, by age, and the version of the list."""
        value = self.api.find(JOBS, name)
        keys = parameter_keys(Experiment(Document(name, value, {}))) if value is not None else {}
        items, version = self.api.list(TRAIN_JOBS)
        return [_trial(item, keys) for item in items if _is_owned(item, name)], version

    def wait_for_change(self, name: str, version: str, seconds: int) -> None:
        """Wait until a TrainJob of the namespace changes, or the connection ends."""
        self.api.wait_for_change(TRAIN_JOBS, "", version, seconds)

    def pod_selector(self, name: str) -> str:
        """Return the selector of the pods of TrainJobs; which are an OptimizationJob's, their trial's name says."""
        return JOBSET_LABEL

    def _status(self, job: Experiment) -> dict[str, Any]:
        """Return the status of an Experiment; without conditions nothing has looked at the OptimizationJob yet."""
        rows = [row for row in job.items("status", "conditions") if isinstance(row, dict)]
        conditions = [{**row, "type": _ENDS.get(str(row.get("type")), row.get("type"))} for row in rows]
        if not conditions:
            conditions = [
                {"type": "Created", "status": "True", "message": f"no controller has taken it up: {NO_CONTROLLER}"}
            ]
        status: dict[str, Any] = {"conditions": conditions}
        name = job.text("status", "result", "trainJobName")
        if not name:
            return status
        keys = parameter_keys(job)
        train_job = self.api.find(TRAIN_JOBS, name) or {}
        status["currentOptimalTrial"] = {
            "bestTrialName": name,
            "parameterAssignments": [
                {"name": keys.get(str(row.get("name")), row.get("name")), "value": row.get("value")}
                for row in job.items("status", "result", "parameters")
            ],
            "observation": {"metrics": _metrics(train_job)},
        }
        return status


def connect_to(context: str | None, namespace: str | None, name: str) -> Cluster:
    """Connect to the namespace of an Experiment or, if there is none of this name, of an OptimizationJob.

    Raises:
        InputError: there is no usable kubeconfig or context, or the cluster has neither API.
    """
    cluster = Cluster(context, namespace)
    jobs = JobCluster(context, namespace)
    missing: InputError | None = None
    try:
        if cluster.find_experiment(name) is not None:
            return cluster
    except InputError as error:  # no Katib, or no permission to read its Experiments
        missing = error
    try:
        if jobs.find_object(name) is not None:
            return jobs
    except InputError:
        pass
    if missing is not None:
        raise missing
    return cluster


def _is_owned(item: Mapping[str, Any], name: str) -> bool:
    owners = item["metadata"].get("ownerReferences") or []
    return any(row.get("kind") == api.KIND and row.get("name") == name for row in owners)


def _trial(item: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    """Return a TrainJob as the object of a trial."""
    status = item.get("status") or {}
    rows = [row for row in status.get("conditions") or [] if row.get("type") in _ENDS and row.get("status") == "True"]
    conditions = [{**row, "type": _ENDS[row["type"]]} for row in rows]
    metrics = _metrics(item)
    ended = next((str(row.get("lastTransitionTime") or "") for row in rows), "")
    if not conditions and any(int(row.get("active") or 0) for row in status.get("jobsStatus") or []):
        conditions = [{"type": "Running", "status": "True"}]
    if [row["type"] for row in conditions] == ["Succeeded"] and not metrics:
        message = "the status of the TrainJob has no metrics: is Trainer's feature gate TrainJobStatus on?"
        conditions = [{"type": "MetricsUnavailable", "status": "True", "message": message}]
    variables = ((item.get("spec") or {}).get("trainer") or {}).get("env") or []
    names = {str(row.get("name")).removeprefix(api.VARIABLE): row.get("value") for row in variables}
    return {
        "metadata": {"name": item["metadata"]["name"]},
        "spec": {
            "parameterAssignments": [{"name": key, "value": names[name]} for name, key in keys.items() if name in names]
        },
        "status": {
            "conditions": conditions,
            "observation": {"metrics": metrics},
            "startTime": item["metadata"].get("creationTimestamp"),
            "completionTime": ended,
        },
    }


def _metrics(item: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the metrics in the status of a TrainJob; it keeps the last value of each."""
    rows = (((item.get("status") or {}).get("trainerStatus")) or {}).get("metrics") or []
    return [{"name": str(row["name"]), **dict.fromkeys(("min", "max", "latest"), str(row["value"]))} for row in rows]
