"""One measurement of benchmarks.explain in a process of its own; prints JSON.

`python -m benchmarks.one_explanation prepare|ours|shap images|questions RUN [float32|bfloat16]`
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

IMAGES, QUESTIONS = 8, 6  # explained in each turn
GRID = 8


def timed(explain: Callable[[int], object], count: int) -> float:
    """Explanations a second; one before is not counted."""
    explain(0)
    began = time.perf_counter()
    for at in range(count):
        explain(at)
    return count / (time.perf_counter() - began)


def prepare_images(run: Path) -> None:
    """The images and what is behind them, as both contestants get them."""
    import torch

    from datamodules.images import augmentation
    from explain import image_views, model

    subject, _ = model.load(str(run), [])
    settings = image_views.Settings(GRID, 1, "blur", "log_probability", "permutation", 64, 0, False)
    batch = augmentation.normalise_batch(
        torch.from_numpy(subject.data.val.gather(np.arange(IMAGES))), subject.data.augment
    )
    predicted = image_views.logits(subject.network, [batch], settings).argmax(dim=1)
    behind = image_views.background(batch, "blur")
    np.savez(run / "bench.npz", batch=batch.numpy(), behind=behind.numpy(), predicted=predicted.numpy())


def prepare_questions(run: Path) -> None:
    """The windows and their groups, as both contestants get them."""
    from explain import model, question_views, tokens

    subject, _ = model.load(str(run), [])
    examples, reader = subject.data.examples, question_views.InputEncoder(subject)
    settings = question_views.Settings(5, 30, 1, 64, 0, False)
    kept: dict[str, Any] = {"hidden": np.array(reader.mask_id)}
    for at in range(QUESTIONS):
        question, context = examples.question(at), examples.context(at)
        window = question_views.find_window(subject, reader, question, context, settings)
        low, high = int(window.chars[window.chars[:, 0] >= 0][0, 0]), int(window.chars[:, 1].max())
        group = np.full(len(window.ids), -1)
        group[window.question_mask] = 0
        parts = tokens.split_sentences(context, low, high, 5)
        for number, (first, last) in enumerate(parts):
            group[(window.chars[:, 0] >= first) & (window.chars[:, 1] <= last)] = number + 1
        kept |= {
            f"{at}/ids": window.ids,
            f"{at}/chars": window.chars,
            f"{at}/asked": window.question_mask,
            f"{at}/group": group,
        }
        kept |= {
            f"{at}/span": np.array([window.start, window.end, len(parts) + 1]),
            f"{at}/text": np.array([question, context]),
        }
        if window.types is not None:
            kept[f"{at}/types"] = window.types
    np.savez(run / "bench.npz", **kept)


def ours_images(run: Path, bfloat16: bool) -> float:
    """`explain.image_explainer`, all coalitions of one pair of orders."""
    import torch

    from explain import image_views, model, shapley

    (subject, _), file = model.load(str(run), []), np.load(run / "bench.npz")
    settings = image_views.Settings(GRID, 1, "blur", "log_probability", "permutation", 64, 0, bfloat16)
    batch, behind = (torch.from_numpy(file[name]) for name in ("batch", "behind"))

    def explain(at: int) -> object:
        view = image_views.View(subject.network, batch[at], behind[at], int(file["predicted"][at]), settings)
        plan = shapley.draw_permutations(GRID**2, 1, 0)
        return plan.shapley(view.evaluate(plan.masks).target)

    return timed(explain, IMAGES)


Function = tuple[Callable[[Any], Any], Callable[[Any, Any], Any], int]  # of inputs; inputs from a mask; players


def shap_images(run: Path, bfloat16: bool) -> float:
    """As a user of shap has it: timm's model as it loads, a masker on the same grid, shap's own batch size."""
    import shap

    function = image_functions(run, bfloat16)

    def explain(at: int) -> object:
        said, masker, players = function(at)
        explainer = shap.explainers.Permutation(said, masker, seed=0)
        return explainer(np.ones((1, players)), max_evals=2 * players + 1, silent=True)

    return timed(explain, IMAGES)


def image_functions(run: Path, bfloat16: bool) -> Callable[[int], Function]:
    """What a user of shap writes to explain images by the cells of a grid, for each image."""
    import timm
    import torch

    file, network = np.load(run / "bench.npz"), timm.create_model(f"local-dir:{run / 'model'}", pretrained=True).eval()
    rows = np.arange(64) * GRID // 64
    cells = rows[:, None] * GRID + rows
    arrays = {name: file[name].transpose(0, 2, 3, 1) for name in ("batch", "behind")}

    def function(at: int) -> Function:
        image, behind, k = arrays["batch"][at], arrays["behind"][at], int(file["predicted"][at])

        def masker(mask: Any, _: Any) -> Any:
            return (np.where(np.asarray(mask, bool)[cells][..., None], image, behind)[None],)

        masker.shape = lambda _: (1, GRID**2)  # type: ignore[attr-defined]

        def said(shown: Any) -> Any:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits = network(torch.from_numpy(np.ascontiguousarray(shown)).permute(0, 3, 1, 2).contiguous())
            return logits.float().log_softmax(1)[:, k].numpy()

        return said, masker, GRID**2

    return function


def ours_questions(run: Path, bfloat16: bool) -> float:
    """`explain.question_explainer`, all coalitions of the question and its sentences."""
    from explain import model, question_views, shapley, tokens

    (subject, _), file = model.load(str(run), []), np.load(run / "bench.npz")
    settings = question_views.Settings(5, 30, 1, 64, 0, bfloat16)

    def explain(at: int) -> object:
        view, players = question_view(subject, file, at, settings)
        return shapley.exact_values(
            view.evaluate(tokens.hide_groups(file[f"{at}/group"], ~shapley.all_coalitions(players))).target
        )

    return timed(explain, QUESTIONS)


def question_view(subject: Any, file: Any, at: int, settings: Any) -> tuple[Any, int]:
    """A question as `explain` views it, and its number of players."""
    from explain import question_views

    start, end, players = file[f"{at}/span"].tolist()
    types = file[f"{at}/types"] if f"{at}/types" in file.files else None
    window = question_views.Window(
        file[f"{at}/ids"], types, file[f"{at}/chars"], file[f"{at}/asked"], start, end, (0, 1), 1.0
    )
    return question_views.View(subject.network, window, int(file["hidden"]), settings, subject.device), players


def shap_questions(run: Path, bfloat16: bool) -> float:
    """As a user of shap has it: its Text masker on token ids, its explainer for it, its own batch size, as many evaluations."""
    import shap
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    file = np.load(run / "bench.npz")
    network = AutoModelForQuestionAnswering.from_pretrained(run / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    masker = shap.maskers.Text(
        tokenizer, mask_token=tokenizer.mask_token or tokenizer.unk_token, output_type="token_ids"
    )

    def explain(at: int) -> object:
        question, context = file[f"{at}/text"].tolist()
        text, players = f"{question}{tokenizer.sep_token}{context}", int(file[f"{at}/span"][2])
        said = answer_function(network, file, at, bfloat16)
        return shap.explainers.Partition(said, masker)([text], max_evals=2**players, silent=True)

    return timed(explain, QUESTIONS)


def question_functions(run: Path, bfloat16: bool) -> Callable[[int], Function]:
    """What a user of shap writes to explain answers by the question and the sentences, for each question."""
    from transformers import AutoModelForQuestionAnswering

    file, network = np.load(run / "bench.npz"), AutoModelForQuestionAnswering.from_pretrained(run / "model").eval()

    def function(at: int) -> Function:
        ids, group, players = file[f"{at}/ids"], file[f"{at}/group"], int(file[f"{at}/span"][2])

        def masker(mask: Any, _: Any) -> Any:
            shown = np.append(np.asarray(mask, bool), True)  # the last for tokens of no group
            return (np.where(shown[group], ids, file["hidden"])[None],)

        masker.shape = lambda _: (1, players)  # type: ignore[attr-defined]
        return answer_function(network, file, at, bfloat16), masker, players

    return function


def answer_function(network: Any, file: Any, at: int, bfloat16: bool) -> Callable[[Any], Any]:
    """The log-probability of an answer for rows of token ids, whose structure tokens are kept."""
    import torch

    (start, end, _), ids = file[f"{at}/span"].tolist(), torch.from_numpy(file[f"{at}/ids"])
    structure = torch.from_numpy(np.flatnonzero((file[f"{at}/chars"][:, 0] < 0) & ~file[f"{at}/asked"]))
    types = torch.from_numpy(file[f"{at}/types"]) if f"{at}/types" in file.files else None

    def said(rows: Any) -> Any:
        batch = torch.from_numpy(np.asarray(rows, np.int64)).clone()
        batch[:, structure] = ids[structure]
        more = {} if types is None else {"token_type_ids": types.expand_as(batch)}
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            out = network(input_ids=batch, attention_mask=torch.ones_like(batch), **more)
        first, last = (each.float().log_softmax(1) for each in (out.start_logits, out.end_logits))
        return (first[:, start] + last[:, end]).numpy()

    return said


if __name__ == "__main__":
    who, what, folder, *precision = sys.argv[1:]
    if who == "prepare":
        {"images": prepare_images, "questions": prepare_questions}[what](Path(folder))
        print(json.dumps({}))
    else:
        chosen = {("ours", "images"): ours_images, ("shap", "images"): shap_images}
        chosen |= {("ours", "questions"): ours_questions, ("shap", "questions"): shap_questions}
        print(json.dumps({"rate": chosen[who, what](Path(folder), precision == ["bfloat16"])}))
