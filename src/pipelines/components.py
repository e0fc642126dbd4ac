"""The steps as KFP components. Each body is one call of `pipelines.steps`, which runs the commands of isotrain.

KFP copies the source of a body into the compiled pipeline: it must be self-contained, its types must be names that the runtime
of a step imports (`kfp.dsl`, `typing`), and no annotation may be a string.

The cached steps (`definition.CACHED`) have parameters and no input artifacts: KFP's key has the id of an artifact, which is new
whenever the step that made it was executed.
"""

from functools import partial
from typing import List  # noqa: UP035 - the runtime of a step imports this one

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output

# The image is a parameter of the pipeline, which replaces this base image.
_step = partial(dsl.component, base_image="python", install_kfp_package=False)


@_step
def data(
    model: str,
    data: str,
    overrides: List[str],  # noqa: UP006
    baseline: str,
    tune: str,
    tune_backend: str,
    registered: str,
    server: str,
    image: str,
    root: str,
    dataset: Output[Dataset],
    summary: Output[Markdown],
) -> str:
    """Check what later steps need, fetch or generate the data, prepare it, and return its fingerprint."""
    from pipelines import steps

    later = {"baseline": baseline, "tune": tune, "tune_backend": tune_backend, "registered": registered}
    later |= {"server": server, "image": image}
    return steps.data([f"model={model}", f"data={data}", *overrides], root, dataset, summary, later)


@_step
def plan(
    when: str,
    registered: str,
    server: str,
    data: str,
    fingerprint: str,
    root: str,
    summary: Output[Markdown],
) -> str:
    """Return whether to train: yes or no."""
    from pipelines import steps

    return steps.plan(when, registered, server, data, fingerprint, root, summary)


@_step
def quality(
    policy: str,
    model: str,
    data: str,
    overrides: List[str],  # noqa: UP006
    fingerprint: str,
    image: str,
    refresh: str,
    root: str,
    report: Output[HTML],
    summary: Output[Markdown],
    metrics: Output[Metrics],
) -> str:
    """Verify the data contract, write the report, and return the verdict."""
    from pipelines import steps

    return steps.quality(policy, [f"model={model}", f"data={data}", *overrides], root, report, summary, metrics)


@_step
def drift(
    policy: str,
    registered: str,
    server: str,
    model: str,
    data: str,
    overrides: List[str],  # noqa: UP006
    root: str,
    report: Output[HTML],
    summary: Output[Markdown],
) -> str:
    """Compare the data with the training data of the champion, and return the verdict."""
    from pipelines import steps

    words = [f"model={model}", f"data={data}", *overrides]
    return steps.drift(policy, registered, server, words, root, report, summary)


@_step
def gate(subject: str, policy: str, verdict: str, root: str) -> None:
    """Fail if the verdict of an earlier step, whose report is published, does not pass under the policy."""
    from pipelines import steps

    steps.gate(subject, policy, verdict, root)


@_step
def tune(
    file: str,
    backend: str,
    trials: int,
    cpu: str,
    memory: str,
    gpus: str,
    model: str,
    data: str,
    overrides: List[str],  # noqa: UP006
    fingerprint: str,
    image: str,
    root: str,
    report: Output[HTML],
    summary: Output[Markdown],
) -> List[str]:  # noqa: UP006
    """Search on this machine or with Katib, and return the best overrides; none without a file."""
    from pipelines import steps

    words = [f"model={model}", f"data={data}", *overrides]
    resources = {"cpu": cpu, "memory": memory, "gpus": gpus}
    return steps.tune(file, backend, trials, words, fingerprint, image, root, report, summary, resources)


@_step
def train(
    model: str,
    data: str,
    overrides: List[str],  # noqa: UP006
    best: List[str],  # noqa: UP006
    fingerprint: str,
    quality: str,
    image: str,
    refresh: str,
    root: str,
    trained: Output[Model],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    report: Output[HTML],
    summary: Output[Markdown],
) -> str:
    """Train, and return the run folder."""
    from pipelines import steps

    words = [f"model={model}", f"data={data}", *overrides]
    return steps.train(
        words, best, fingerprint, quality, image, root, trained, metrics, confusion, report, summary, refresh
    )


@_step
def evaluate(
    run: str,
    baseline: str,
    margin: float,
    minimum: int,
    registered: str,
    server: str,
    data: str,
    overrides: List[str],  # noqa: UP006
    root: str,
    floor: str,
    trained: Input[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> str:
    """Compare the model with the baseline on the same examples, or with its floor, and return the verdict."""
    from pipelines import steps

    words = [f"data={data}", *overrides]
    return steps.evaluate(run, baseline, margin, minimum, registered, server, words, root, metrics, summary, floor)


@_step
def explain(
    policy: str,
    run: str,
    overrides: List[str],  # noqa: UP006
    fingerprint: str,
    image: str,
    refresh: str,
    root: str,
    report: Output[HTML],
    summary: Output[Markdown],
    metrics: Output[Metrics],
) -> str:
    """Explain the model, write the report, and return the verdict."""
    from pipelines import steps

    return steps.explain(policy, run, overrides, root, report, summary, metrics)


@_step
def benchmark(policy: str, run: str, root: str, trained: Input[Model], summary: Output[Markdown]) -> str:
    """Compare the run with published results of its model and data, and return the verdict."""
    from pipelines import steps

    return steps.benchmark(policy, run, root, summary)


@_step
def register(
    run: str,
    evaluation: str,
    promote: bool,
    policies: str,
    registered: str,
    server: str,
    root: str,
    trained: Input[Model],
    summary: Output[Markdown],
) -> str:
    """Register the model as a candidate, or as the champion if it is non-inferior to it, or the first one above its floor."""
    from pipelines import steps

    return steps.register(run, evaluation, promote, policies, registered, server, root, summary)


@_step
def command(
    name: str,
    words: List[str],  # noqa: UP006
    after: List[str],  # noqa: UP006
    root: str,
    outputs: Output[Artifact],
    report: Output[HTML],
    summary: Output[Markdown],
    metrics: Output[Metrics],
    fingerprint: str = "",
    run: str = "",
    quality: str = "",
    drift: str = "",
    evaluation: str = "",
    explanation: str = "",
    benchmark: str = "",
) -> str:
    """Run a command of the user's own, and return the folder of its outputs."""
    from pipelines import further_steps

    results = {"fingerprint": fingerprint, "run": run, "quality": quality, "drift": drift}
    results |= {"evaluation": evaluation, "explanation": explanation, "benchmark": benchmark}
    values = {key: results[parameter] for key, (_, parameter) in further_steps.INPUTS.items()}
    return further_steps.run_step(name, words, after, values, root, outputs, report, summary, metrics)


@_step
def finish(
    status: dsl.PipelineTaskFinalStatus, backend: str, root: str, report: Output[HTML], summary: Output[Markdown]
) -> None:
    """Publish the record of the pipeline run, however it ended, and delete an unfinished search."""
    from pipelines import steps

    steps.finish(status.state, status.error_message, backend, root, report, summary)
