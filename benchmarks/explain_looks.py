"""Early stops of the explanation gate in a simulation: errors at the bound, power above it, and share of the sample explained.

`python -m benchmarks.explain_looks [--seeds 1000]`: one measure of 128 examples that come in chunks of 8, with a standard deviation
of 0.3. A thousand seeds take some minutes; models above the bound get a quarter of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from studies.common import wilson

from benchmarks import measure
from explain import image_explainer, judgement, looks
from explain.options import Bound, Options

EXAMPLES, CHUNK, SPREAD = 128, 8, 0.3
OPTIONS = Options(
    action="enforce", examples=None, seed=0, precision="32", batch_size=8, alpha=0.05, looks=3, min_agreement=0.8,
    min_correct=1, slice_gap=None, section={}, measures={"pointing": Bound(True, 0.0)},
)  # fmt: skip

TASK = "image_classification"
Draw = Callable[[np.random.Generator], Any]
INDICES = np.arange(EXAMPLES)


def _normal(mean: float) -> Draw:
    return lambda generator: SPREAD * (mean + generator.normal(size=EXAMPLES))


def _documents(generator: np.random.Generator) -> Any:
    """Four examples of each of 32 documents, half of the variance between documents."""
    shared = generator.normal(size=EXAMPLES // 4)[INDICES % (EXAMPLES // 4)]
    return SPREAD * np.sqrt(0.5) * (shared + generator.normal(size=EXAMPLES))


def _rare(generator: np.random.Generator) -> Any:
    """Nineteen in twenty are a little above the bound, and one is far below."""
    return np.where(generator.random(EXAMPLES) < 0.05, -0.95, 0.05) + 0.01 * generator.normal(size=EXAMPLES)


MODELS: dict[str, tuple[Draw, Any]] = {
    "at the bound": (_normal(0), INDICES),
    "at the bound, exponential with the tail below": (
        lambda generator: SPREAD * (1 - generator.exponential(size=EXAMPLES)),
        INDICES,
    ),
    "at the bound, 5 % far below": (_rare, INDICES),
    "at the bound, 32 documents": (_documents, INDICES % (EXAMPLES // 4)),
    "0.2 standard deviations above": (_normal(0.2), INDICES),
    "0.5 standard deviations above": (_normal(0.5), INDICES),
    "1 standard deviation above": (_normal(1), INDICES),
    "1.5 standard deviations above": (_normal(1.5), INDICES),
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000)
    options = parser.parse_args()
    rows = []
    for name, (draw, clusters) in MODELS.items():
        seeds = options.seeds if name.startswith("at the bound") else -(-options.seeds // 4)
        runs = [_run(draw(np.random.default_rng([seed, 7])), clusters) for seed in range(seeds)]
        rates = []
        for way in range(3):
            passed = sum(run[way] for run in runs)
            low, high = wilson(passed, len(runs))
            rates.append(f"{100 * passed / len(runs):.1f} ({100 * low:.1f} to {100 * high:.1f})")
        explained = float(np.mean([run[3] for run in runs])) / EXAMPLES
        rows.append([name, *rates, f"{100 * explained:.0f}"])
        measure.progress(", ".join(rows[-1]))
    head = ["model", "passed with looks=1, %", "looks=3", "looks=3, each at alpha", "explained, %"]
    measure.report(
        "Explanations: early stops", head, rows, "Required: looks=3 errs as looks=1 does. 95 % intervals (Wilson)."
    )


def _run(values: Any, clusters: Any) -> tuple[bool, bool, bool, int]:
    """Whether a model passes with the whole sample, with looks, and with looks that are not corrected; examples explained."""
    ones = np.ones(EXAMPLES)
    table = dict.fromkeys(("correct", "confidence", "stability", "finite"), ones)
    table |= {"pointing": values, "cluster": clusters, "additivity": 0 * ones}
    plan = looks.plan_looks(EXAMPLES, CHUNK, OPTIONS)
    parts = [{name: column[: look.examples] for name, column in table.items()} for look in plan]
    p = [_p_value(part) for part in parts]
    # The second judgement, with one more example, is made only where the first one passes.
    stop = next(
        (
            look.examples
            for look, part, value in zip(plan[:-1], parts, p, strict=False)
            if value <= look.alpha and looks.is_certain(TASK, part, OPTIONS, image_explainer, look)
        ),
        None,
    )
    return p[-1] <= OPTIONS.alpha, bool(stop) or p[-1] <= plan[-1].alpha, min(p) <= OPTIONS.alpha, stop or EXAMPLES


def _p_value(table: Any) -> float:
    """Of the bootstrap; 1 without it for means that are far from significant."""
    values = table["pointing"]
    if values.mean() * np.sqrt(len(values)) < values.std():
        return 1.0
    return judgement.judge_sample(TASK, table, OPTIONS, image_explainer).measures[0].mean.p


if __name__ == "__main__":
    main()
