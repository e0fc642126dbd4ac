"""The steps as KFP components: each body is one call of `pipelines.steps`, and that calls one of our commands.

KFP copies the source of a body into the compiled pipeline, so that everything in it must stand by itself; names of types
are those that the step's runtime knows (`kfp.dsl`, `typing`), and no annotation may be a string.
"""

from functools import partial
from typing import List  # noqa: UP035 - the step's runtime knows this one

from kfp import dsl
from kfp.dsl import HTML, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output

# The image is a parameter of the pipeline: what stands here is only what a step is compiled with.
_step = partial(dsl.component, base_image="python", install_kfp_package=False)


@_step
def data(
    model: str,
    data: str,
    overrides: List[str],  # noqa: UP006
    root: str,
    dataset: Output[Dataset],
    summary: Output[Markdown],
) -> str:
    """Fetches or generates the data, prepares what can be prepared, and returns its fingerprint."""
    from pipelines import steps

    return steps.data([f"model={model}", f"data={data}", *overrides], root, dataset, summary)


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
    """Whether to train: yes or no."""
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
    again: str,
    root: str,
    dataset: Input[Dataset],
    report: Output[HTML],
    summary: Output[Markdown],
    metrics: Output[Metrics],
) -> str:
    """Verifies the data's contract and writes the report, whatever it says; returns the verdict."""
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
    """Compares the data with what the champion was trained on; returns the verdict."""
    from pipelines import steps

    given = [f"model={model}", f"data={data}", *overrides]
    return steps.drift(policy, registered, server, given, root, report, summary)


@_step
def gate(what: str, policy: str, verdict: str, root: str) -> str:
    """Ends the pipeline where a verdict is not good; its report is there by then."""
    from pipelines import steps

    return steps.gate(what, policy, verdict, root)


@_step
def tune(
    file: str,
    backend: str,
    trials: int,
    model: str,
    data: str,
    overrides: List[str],  # noqa: UP006
    fingerprint: str,
    image: str,
    root: str,
    report: Output[HTML],
    summary: Output[Markdown],
) -> List[str]:  # noqa: UP006
    """Searches, here or with Katib; returns the best overrides, none where no file is given."""
    from pipelines import steps

    given = [f"model={model}", f"data={data}", *overrides]
    return steps.tune(file, backend, trials, given, fingerprint, image, root, report, summary)


@_step
def train(
    model: str,
    data: str,
    overrides: List[str],  # noqa: UP006
    best: List[str],  # noqa: UP006
    fingerprint: str,
    quality: str,
    image: str,
    again: str,
    root: str,
    dataset: Input[Dataset],
    trained: Output[Model],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    report: Output[HTML],
    summary: Output[Markdown],
) -> str:
    """Trains; returns the run's folder."""
    from pipelines import steps

    given = [f"model={model}", f"data={data}", *overrides]
    return steps.train(
        given, best, fingerprint, quality, image, root, trained, metrics, confusion, report, summary, again
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
    trained: Input[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> str:
    """Compares the model with the baseline on the same examples; returns the verdict."""
    from pipelines import steps

    given = [f"data={data}", *overrides]
    return steps.evaluate(run, baseline, margin, minimum, registered, server, given, root, metrics, summary)


@_step
def explain(
    policy: str,
    run: str,
    overrides: List[str],  # noqa: UP006
    fingerprint: str,
    image: str,
    again: str,
    root: str,
    trained: Input[Model],
    report: Output[HTML],
    summary: Output[Markdown],
    metrics: Output[Metrics],
) -> str:
    """Explains what the model looks at and writes the report, whatever it says; returns the verdict."""
    from pipelines import steps

    return steps.explain(policy, run, overrides, root, report, summary, metrics)


@_step
def benchmark(policy: str, run: str, root: str, trained: Input[Model], summary: Output[Markdown]) -> str:
    """Compares the run with what is known of its model and data; returns the verdict."""
    from pipelines import steps

    return steps.benchmark(policy, run, root, summary)


@_step
def register(
    run: str,
    compared: str,
    promote: bool,
    despite: str,
    registered: str,
    server: str,
    root: str,
    trained: Input[Model],
    summary: Output[Markdown],
) -> str:
    """Registers the model as a candidate, or as the champion if it is no worse than the one there is."""
    from pipelines import steps

    return steps.register(run, compared, promote, despite, registered, server, root, summary)


@_step
def finish(
    status: dsl.PipelineTaskFinalStatus, backend: str, root: str, report: Output[HTML], summary: Output[Markdown]
) -> None:
    """Publishes the record of the pipeline's run, however it ended, and removes a search that is not finished."""
    from pipelines import steps

    steps.finish(status.state, status.error_message, backend, root, report, summary)
