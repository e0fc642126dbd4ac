"""Errors of Shapley values, and their seconds: one contestant of benchmarks.explain in a process of its own; prints JSON.

`python -m benchmarks.explanation_error reference images|questions RUN ORDERS EXAMPLES`, then
`python -m benchmarks.explanation_error ours|permutation|kernel|exact images|questions RUN BUDGET EXAMPLES`

A budget is what the contestant calls it: rounds, orders, nsamples; 0 is its default.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import one_explanation

Explain = Callable[[int], tuple[Any, int]]  # of an example: values and evaluated coalitions
SEED = 7


def reference(what: str, run: Path, orders: int, examples: int) -> dict[str, Any]:
    """Write exact values of questions, and of images those of many random orders, both ways."""
    from explain import image_views, model, shapley

    if what == "questions":
        explain = ours_questions(run, 0)
        np.savez(run / "reference.npz", **{str(at): explain(at)[0] for at in range(examples)})
        return {"error": 0.0}
    import torch

    (subject, _), file = model.load(str(run), []), np.load(run / "bench.npz")
    settings = image_views.Settings(
        one_explanation.GRID, orders, "blur", "log_probability", "permutation", 64, 0, False
    )
    values, squares = [], []
    for at in range(examples):
        batch, behind = (torch.from_numpy(file[name][at]) for name in ("batch", "behind"))
        view = image_views.View(subject.network, batch, behind, int(file["predicted"][at]), settings)
        single = []
        for order in range(orders):
            plan = shapley.draw_permutations(one_explanation.GRID**2, 1, 10_000 + order)
            single.append(plan.shapley(view.evaluate(plan.masks).target))
        values.append(np.mean(single, axis=0))
        squares.append(np.var(single, axis=0, ddof=1).mean() / orders if orders > 1 else 0.0)
    np.savez(run / "reference.npz", **{str(at): row for at, row in enumerate(values)})
    return {"error": float(np.sqrt(np.mean(squares)))}


def ours_images(run: Path, rounds: int) -> Explain:
    """`explain.image_values`, with both seeds."""
    import torch

    from explain import image_values, image_views, model

    (subject, options), file = model.load(str(run), []), np.load(run / "bench.npz")
    rounds = rounds or int(options.section["rounds"])
    settings = image_views.Settings(
        one_explanation.GRID, rounds, "blur", "log_probability", "regression", options.batch_size, 0, False
    )

    def explain(at: int) -> tuple[Any, int]:
        batch, behind = (torch.from_numpy(file[name][at]) for name in ("batch", "behind"))
        view = image_views.View(subject.network, batch, behind, int(file["predicted"][at]), settings)
        responses, values, _ = image_values.estimate_values(view, (SEED + 2 * at, SEED + 2 * at + 1))
        return values, sum(len(response.target) for response in responses)

    return explain


def ours_questions(run: Path, _: int) -> Explain:
    """`explain.question_values`: all coalitions."""
    from explain import model, question_views, shapley, tokens

    (subject, _options), file = model.load(str(run), []), np.load(run / "bench.npz")
    settings = question_views.Settings(5, 30, 1, 64, 0, False)

    def explain(at: int) -> tuple[Any, int]:
        view, players = one_explanation.question_view(subject, file, at, settings)
        coalitions = shapley.all_coalitions(players)
        response = view.evaluate(tokens.hide_groups(file[f"{at}/group"], ~coalitions))
        return shapley.exact_values(response.target), len(coalitions)

    return explain


def shap_explainer(who: str, functions: Callable[[int], one_explanation.Function], budget: int) -> Explain:
    """One of shap's explainers, with its own batch size; Kernel without its selection of ten players."""
    import shap

    def explain(at: int) -> tuple[Any, int]:
        predict, masker, players = functions(at)
        evaluations = 0

        def counted(rows: Any) -> Any:
            nonlocal evaluations
            evaluations += len(rows)
            return predict(rows)

        def of_masks(masks: Any) -> Any:
            parts = np.array_split(masks, -(-len(masks) // 64))
            return np.concatenate([counted(np.concatenate([masker(m, None)[0] for m in part])) for part in parts])

        everything = np.ones((1, players))
        if who == "kernel":
            explainer = shap.KernelExplainer(of_masks, np.zeros((1, players)))
            values = explainer.shap_values(everything, nsamples=budget or "auto", l1_reg=False, silent=True)[0]
        elif who == "exact":
            values = shap.explainers.Exact(counted, masker)(everything, silent=True).values[0]
        else:
            explainer = shap.explainers.Permutation(counted, masker, seed=SEED + at)
            most = budget * (2 * players + 1) if budget else 500
            values = explainer(everything, max_evals=most, silent=True).values[0]
        return np.asarray(values, np.float64).ravel(), evaluations

    return explain


def measure_errors(explain: Explain, run: Path, examples: int) -> dict[str, float]:
    """Root mean square error, evaluated coalitions and seconds of an explanation; one before is not counted."""
    exact = np.load(run / "reference.npz")
    explain(0)
    began = time.perf_counter()
    results = [explain(at) for at in range(examples)]
    seconds = (time.perf_counter() - began) / examples
    squares = [np.mean((values - exact[str(at)]) ** 2) for at, (values, _) in enumerate(results)]
    return {
        "error": float(np.sqrt(np.mean(squares))),
        "coalitions": float(np.mean([count for _, count in results])),
        "seconds": seconds,
    }


def contestant(who: str, what: str, run: Path, budget: int) -> Explain:
    """Return what explains an example."""
    if who == "ours":
        return {"images": ours_images, "questions": ours_questions}[what](run, budget)
    functions = {"images": one_explanation.image_functions, "questions": one_explanation.question_functions}[what]
    return shap_explainer(who, functions(run, False), budget)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    who, what, folder, budget, examples = sys.argv[1:]
    if who == "reference":
        print(json.dumps(reference(what, Path(folder), int(budget), int(examples))))
    else:
        explain = contestant(who, what, Path(folder), int(budget))
        print(json.dumps(measure_errors(explain, Path(folder), int(examples))))
