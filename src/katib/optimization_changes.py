"""Changes of an OptimizationJob on the command line, made as those of an Experiment are."""

from collections.abc import Callable

from config.errors import InputError
from katib.documents import Document
from katib.experiment import Experiment
from katib.experiment_from_job import build_experiment, parameter_keys
from katib.job_from_experiment import build_job
from katib.optimization_check import DIRECT


def change_job(job: Experiment, change: Callable[[Experiment], Experiment]) -> Experiment:
    """Return an OptimizationJob after a change of its Experiment.

    Args:
        job: the OptimizationJob; it is not changed.
        change: function that returns the changed Experiment.

    Raises:
        InputError: the change is one that an OptimizationJob cannot express, or `change` refuses it.
    """
    names = {key: name for name, key in parameter_keys(job).items()}
    value, differences = build_job(change(build_experiment(job, DIRECT)[0]), names)
    for level, path, message, fix in differences:
        # The collector, a count and the name of the algorithm are those of the Experiment that stands for the job.
        if level == "error" and path[:2] == ("spec", "trialTemplate"):
            raise InputError(f"{job.document.file}: {message}; {fix}")
    return Experiment(Document(job.document.file, value, job.document.lines))
