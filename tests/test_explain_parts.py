"""The parts of explanations: what is hidden and what stays, against closed forms and brute force."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from explain import (
    image_explainer,
    image_gradients,
    image_values,
    image_views,
    judgement,
    measures,
    question_report,
    question_views,
    shapley,
    slices,
    text_report,
    text_values,
    tokens,
)  # fmt: skip
from explain.options import Bound, Options
from runs.questions import question_word

SETTINGS = image_views.Settings(
    grid=4, rounds=1, background="blur", target="logit", explainer="permutation", batch_size=8, seed=0, bfloat16=False
)


class Linear(torch.nn.Module):
    """Logits that are sums over pixels: [w x, 0]."""

    def __init__(self, weights: torch.Tensor, offset: float = 0.0) -> None:
        super().__init__()
        self.weights, self.offset = weights, offset

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        said = (batch * self.weights).sum(dim=(1, 2, 3)) + self.offset
        return torch.stack([said, torch.zeros_like(said)], dim=1)


def view(seed: int = 0, offset: float = 0.0, target: str = "logit") -> image_views.View:
    generator = torch.Generator().manual_seed(seed)
    image, behind, weights = (torch.randn(3, 16, 16, generator=generator) for _ in range(3))
    chosen = image_views.Settings(**{**vars(SETTINGS), "target": target})
    made = image_views.View(Linear(weights, offset), image, behind, 0, chosen)
    said = image_views.logits(made.network, [made.render(np.ones((1, 16), bool))], chosen)
    made.predicted = int(said.argmax())
    return made


def by_cell(made: image_views.View) -> Any:
    """What each cell adds to the logit of a linear model: w (x - b) over its pixels; the other class's logit is 0."""
    behind, image = (each.permute(2, 0, 1) for each in (made.background, made.image))
    sign = 1 if made.predicted == 0 else 0
    return sign * image_gradients.sum_by_cell(made.network.weights * (image - behind), made.cells, 4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_linear_model_has_the_closed_forms_values(seed: int) -> None:
    made = view(seed, offset=500.0)  # so that it predicts the class of its weights
    assert made.predicted == 0
    plan = shapley.draw_permutations(16, 1, seed)
    assert plan.shapley(made.evaluate(plan.masks).target) == pytest.approx(by_cell(made), abs=1e-3)


def test_integrated_gradients_have_them_too() -> None:
    made = view(3)
    made.predicted = 0
    # Of a log-probability: captum's completeness, and for a nearly certain class the logit's own shape.
    whole, behind = (each.permute(2, 0, 1)[None] for each in (made.image, made.background))
    (values,) = image_gradients.integrated_gradients(made.network, whole, behind, [0], made.cells, SETTINGS)
    asked = made.evaluate(np.array([[False] * 16, [True] * 16]))
    assert values.sum() == pytest.approx(np.log(asked.probability[1] / asked.probability[0]), abs=0.5)
    exact = by_cell(made)
    assert np.corrcoef(values, exact)[0, 1] > 0.99


def test_deletion_is_quantus_pixel_flipping() -> None:
    """Cells of one pixel, hidden by 0: the same probabilities, the highest value first; and randomisation's likeness."""
    import quantus
    from quantus.functions.similarity_func import correlation_spearman

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.Parameter(torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(1)))

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            said = (batch * self.weights).sum(dim=(1, 2, 3))
            return torch.stack([said, torch.zeros_like(said)], dim=1)

    network = Net().eval()
    image = torch.randn(
        1, 4, 4, generator=torch.Generator().manual_seed(2)
    )  # of several channels Quantus hides the first
    image = image * torch.sign(network(image[None])[0, 0].detach())  # so that it is of the first class
    made = image_views.View(network, image, torch.zeros(1, 4, 4), 0, SETTINGS)
    plan = shapley.draw_permutations(16, 1, 0)
    asked = made.evaluate(plan.masks)
    values = plan.shapley(asked.target)
    flipping = quantus.PixelFlipping(
        features_in_step=1, perturb_baseline=0.0, abs=False, normalise=False, disable_warnings=True
    )
    theirs = flipping(
        model=network,
        x_batch=image[None].numpy(),
        y_batch=np.array([0]),
        a_batch=values.reshape(1, 1, 4, 4),
        device="cpu",
    )
    counts = image_values.curve_counts(16)
    ours = image_values.curves(made, values, asked, counts)[1]
    assert ours[1:] == pytest.approx(np.array(theirs[0])[counts[1:] - 1], abs=1e-5)
    other = np.random.default_rng(0).normal(size=16)
    assert measures.rank_correlation(values, other) == pytest.approx(correlation_spearman(values, other), abs=1e-12)


def test_expected_gradients_are_shaps() -> None:
    made = view(3)
    made.predicted = 0
    assert np.corrcoef(image_gradients.expected_gradients(made, 0), by_cell(made))[0, 1] > 0.9
    assert (image_gradients.expected_gradients(made, 0) == image_gradients.expected_gradients(made, 0)).all()


@given(st.integers(5, 40), st.integers(5, 40), st.integers(2, 5), st.data())
@settings(max_examples=60)
def test_the_box_covers_what_it_covers(height: int, width: int, grid: int, data: Any) -> None:
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0, width - 1)), data.draw(st.integers(y0, height - 1))
    found = image_views.box_coverage(np.array([x0, y0, x1, y1], np.float32), height, width, grid)
    of = image_views.cell_map(height, width, grid).numpy()
    mask = np.zeros((height, width))
    mask[y0 : y1 + 1, x0 : x1 + 1] = 1
    assert found == pytest.approx([mask[of == cell].mean() for cell in range(grid**2)])
    assert sorted(np.unique(of).tolist()) == list(range(grid**2))


def test_no_box_is_not_a_number() -> None:
    assert np.isnan(image_views.box_coverage(np.full(4, np.nan, np.float32), 8, 8, 2)).all()


def test_hidden_cells_are_their_own_background_whatever_came_before() -> None:
    """shap's blurred masker kept another image's background now and then."""
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(5, 3, 16, 16, generator=generator)
    behind = image_views.background(batch, "blur")
    masks = np.random.default_rng(0).integers(0, 2, (9, 16)).astype(bool)
    for image, other in zip(batch, behind, strict=True):
        made = image_views.View(None, image, other, 0, SETTINGS)
        shown = made.render(masks)
        there = torch.from_numpy(masks)[:, made.cells][:, None].expand_as(shown)
        assert torch.equal(shown, torch.where(there, image, other))
        assert torch.equal(other, image_views.background(image[None], "blur")[0])
    assert torch.equal(image_views.background(batch, "mean")[0, :, 0, 0], batch[0].mean(dim=(1, 2)))
    assert not image_views.background(batch, "grey").any()


@pytest.mark.parametrize("seed", range(6))
def test_the_smallest_set_changes_the_class_and_spares_nothing(seed: int) -> None:
    made = view(seed)
    order = np.argsort(-by_cell(made))
    [hidden] = image_values.smallest_sets([made], [order])

    def changed(mask: Any) -> bool:
        return int(image_views.logits(made.network, [made.render(~mask[None])], SETTINGS).argmax()) != made.predicted

    if not hidden.any():
        assert not any(changed(np.isin(np.arange(16), order[:count])) for count in image_values.curve_counts(16)[1:])
        return
    assert changed(hidden)
    for cell in np.flatnonzero(hidden):
        less = hidden.copy()
        less[cell] = False
        assert not changed(less)


# --- questions

TEXT = st.text(alphabet="aB cD. !?\"')1", max_size=80)


@given(TEXT, st.integers(1, 5), st.data())
def test_sentences_cover_their_part(text: str, most: int, data: Any) -> None:
    low = data.draw(st.integers(0, max(0, len(text) - 1)))
    high = data.draw(st.integers(low + 1, len(text) + 1))
    found = tokens.split_sentences(text, low, high, most)
    assert 1 <= len(found) <= most
    assert (found[0][0], found[-1][1]) == (low, high)
    assert all(left[1] == right[0] for left, right in pairwise(found))
    assert all(first < last for first, last in found)


def test_sentences_end_where_a_reader_ends_them() -> None:
    text = 'He came in 1.5 days. "Did he?" She left (at 3 p.m. sharp). Then nothing! And so on'
    found = [text[a:b].strip() for a, b in tokens.split_sentences(text, 0, len(text), 9)]
    assert found == ["He came in 1.5 days.", '"Did he?"', "She left (at 3 p.m. sharp).", "Then nothing!", "And so on"]
    assert len(tokens.split_sentences(text, 0, len(text), 3)) == 3


def test_only_groups_are_hidden() -> None:
    group = np.array([-1, 0, 0, -1, 1, 2, -1])
    missing = np.array([[False, False, False], [True, False, True], [True, True, True]])
    found = tokens.hide_groups(group, missing)
    assert found.tolist() == [
        [False] * 7,
        [False, True, True, False, False, True, False],
        [False, True, True, False, True, True, False],
    ]


def test_inputs_never_change_their_length_or_structure() -> None:
    """Every row has the window's tokens, but for masks where parts are hidden."""
    fed = []

    class Network(torch.nn.Module):
        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            fed.append(input_ids.clone())
            logits = torch.nn.functional.one_hot(input_ids, 100).float()[..., 7]
            return SimpleNamespace(start_logits=logits, end_logits=logits)

    ids = np.array([1, 5, 6, 2, 7, 8, 9, 2])
    chars = np.array([[-1, -1]] * 4 + [[0, 1], [2, 3], [4, 5]] + [[-1, -1]])
    window = question_views.Window(ids, None, chars, (ids == 5) | (ids == 6), 4, 4, (0, 1), 1.0)
    chosen = question_views.Settings(
        sentences=2, max_answer_tokens=3, other_questions=1, batch_size=3, seed=0, bfloat16=False
    )
    made = question_views.View(Network(), window, 99, chosen, torch.device("cpu"))
    group = np.array([-1, 0, 0, -1, 1, 1, 2, -1])
    hidden = tokens.hide_groups(group, ~shapley.all_coalitions(3))
    asked = made.evaluate(hidden)
    rows = torch.cat(fed).numpy()
    assert rows.shape == (8, 8)
    assert (rows[:, [0, 3, 7]] == [1, 2, 2]).all()
    assert ((rows == 99) == hidden).all()
    assert (rows[~hidden] == np.broadcast_to(ids, rows.shape)[~hidden]).all()
    # This network reads the token 7 alone: all of what it says is the group's that has it.
    values = shapley.exact_values(asked.target)
    assert values[1] == pytest.approx(values.sum())
    assert abs(values[0]) + abs(values[2]) < 1e-6
    assert asked.unchanged.tolist() == [True] * 8  # of equal scores the predicted one still is a best


@given(st.integers(1, 4), st.data())
def test_the_fewest_parts_are_the_fewest(players: int, data: Any) -> None:
    same = np.array(data.draw(st.lists(st.booleans(), min_size=2**players, max_size=2**players)))
    target = np.array(data.draw(st.lists(st.integers(-9, 0), min_size=2**players, max_size=2**players)), float)
    names = [f"p{number}" for number in range(players)]
    found = shapley.smallest_set(same, target, names)
    here = shapley.all_coalitions(players)
    if found is None:
        assert same.all()
        return
    sizes = [(~row).sum() for row, unchanged in zip(here, same, strict=True) if not unchanged]
    assert len(found) == min(sizes)


def test_texts_are_marked_where_they_are() -> None:
    line = {
        "id": "1", "question": "Who <is> it?", "prediction": "Ann B", "span": [4, 9], "answers": ["Ann B"], "correct": True,
        "confidence": 0.5, "question_share": 0.2, "question_value": 1.0, "begin": 0, "smallest": None,
        "parts": [{"text": "It's", "value": 1.0, "answer": False}, {"text": "Ann Bo. ", "value": -2.0, "answer": True}],
        "words": [{"text": "is", "of": "question", "begin": 5, "value": 1.0}],
    }  # fmt: skip
    section = question_report.report_sections([line])[0]
    question, first, second = section.cards[0].parts
    assert [piece.text for piece in question.pieces] == ["Who <", "is", "> it?"]
    assert [piece.value for piece in question.pieces] == [None, 1.0, None]
    assert (first.strength, second.strength) == (0.5, -1.0)
    assert [(piece.text, piece.underline) for piece in second.pieces] == [("Ann B", True), ("o. ", False)]


# --- texts


class Counting(torch.nn.Module):
    """Two classes: the number of tokens 7, and 2."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding.from_pretrained((torch.arange(100) == 7).float()[:, None])

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embedding

    def forward(self, input_ids: Any = None, inputs_embeds: Any = None, attention_mask: Any = None) -> Any:
        count = (self.embedding(input_ids) if inputs_embeds is None else inputs_embeds).sum(dim=(1, 2))
        return SimpleNamespace(logits=torch.stack([count, torch.full_like(count, 2)], dim=1))


TEXT_SETTINGS = text_values.Settings(sentences=2, other_texts=1, batch_size=3, seed=0, bfloat16=False)


def text_input() -> text_values.Input:
    """[CLS] 7 7 5 . 7 . [SEP] 7 8 [SEP], of "a b c. d." and "e f"."""
    ids = np.array([1, 7, 7, 5, 4, 7, 4, 2, 7, 8, 2])
    source = np.array([-1, 0, 0, 0, 0, 0, 0, -1, 1, 1, -1])
    chars = [(0, 0), (0, 1), (2, 3), (4, 5), (5, 6), (7, 8), (8, 9), (0, 0), (0, 1), (2, 3), (0, 0)]
    return text_values.Input(ids, None, source, np.array(chars))


def test_parts_of_a_pair_are_its_sentences_and_the_second_text() -> None:
    text, sources = text_input(), ("a b c. D.", "e f")
    places = text_values.parts(text, sources, 3)
    assert places == [(0, 0, 7), (0, 7, 9), (1, 0, 3)]
    assert text_values.groups(text, places).tolist() == [-1, 0, 0, 0, 0, 1, 1, -1, 2, 2, -1]
    assert text_values.parts(text, sources, 1) == [(0, 0, 9), (1, 0, 3)]


def test_a_text_of_one_sentence_is_cut_between_words() -> None:
    text = "no sentence ends here"
    chars = np.array([(0, 2), (3, 11), (12, 16), (17, 21)])
    read = text_values.Input(np.arange(4), None, np.zeros(4, np.int64), chars)
    cut = [text[first:last] for _, first, last in text_values.parts(read, (text, ""), 3)]
    assert cut == ["no ", "sentence ", "ends here"]
    assert len(text_values.parts(read, (text, ""), 9)) == 4  # no more than words
    nothing = text_values.Input(np.array([1, 2]), None, np.array([-1, -1]), np.zeros((2, 2), np.int64))
    assert text_values.parts(nothing, ("", ""), 4) == [(0, 0, 0)]


def test_values_of_a_text_are_what_its_parts_add() -> None:
    text = text_input()
    made = text_values.View(Counting(), text, 99, TEXT_SETTINGS, torch.device("cpu"))
    assert made.predicted == 0  # four are more than two
    group = text_values.groups(text, text_values.parts(text, ("a b c. D.", "e f"), 3))
    response = made.evaluate(tokens.hide_groups(group, ~shapley.all_coalitions(3)))
    counts = shapley.all_coalitions(3) @ np.array([2, 1, 1])
    assert response.target == pytest.approx(-np.log1p(np.exp(2.0 - counts)), abs=1e-6)
    assert response.unchanged.tolist() == (counts >= 2).tolist()
    values = shapley.exact_values(response.target)
    assert values[0] > values[1] == pytest.approx(values[2])
    gradients = tokens.integrated_gradients(made, group, 3)
    assert gradients.sum() == pytest.approx(values.sum(), abs=0.02)  # completeness, of eight steps
    assert gradients[0] == pytest.approx(2 * gradients[1], rel=1e-5)
    # Words: only those with the token 7 say anything.
    sources = ("a b c. D.", "e f")
    spans = [(source, *span) for source in (0, 1) for span in tokens.split_words(sources[source])]
    words = tokens.word_values(made, text.source, text.chars, spans, 0)
    assert words["word_chars"].tolist() == [list(span) for span in spans]
    assert np.flatnonzero(np.abs(words["words"]) > 1e-6).tolist() == [0, 1, 4, 6]


def test_sections_of_classified_texts() -> None:
    row = {
        "id": "1", "label": "<b>", "prediction": "a", "correct": False, "confidence": 0.5, "smallest": ["part 1"],
        "parts": [{"text": "One. ", "of": "text", "begin": 0, "value": 1.0}, {"text": "Two <i>", "of": "text", "begin": 5, "value": -2.0}],
        "words": [{"text": "Two", "of": "text", "begin": 5, "value": 1.0}, {"text": "One", "of": "text", "begin": 0, "value": 2.0}],
    }  # fmt: skip
    texts, classes, words = text_report.report_sections([row, row, row])
    card = texts.cards[0]
    assert [piece.text for piece in card.parts[1].pieces] == ["Two", " <i>"]
    assert (card.title, card.note) == ("a (50%), true class <b>", "Without part 1, it is another class. 1")
    assert classes.rows == [["<b>", 3, "0%", None]]
    assert [line[:2] for line in words.rows] == [["one", 3], ["two", 3]]


# --- the verdict


def table(count: int = 60, **changes: Any) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    made: dict[str, Any] = {name: 0.3 + 0.2 * generator.normal(size=count) for name in image_explainer.MEASURES}
    ones = np.ones(count)
    made |= {"correct": ones, "confidence": 0.9 * ones, "cluster": np.arange(count), "stability": ones, "finite": ones}
    return {**made, "additivity": 0 * ones, **changes}


BLOCKING = ("pointing", "faithfulness", "learned")
MEASURED = ("pointing", "faithfulness", "learned", "mass", "agreement")
OPTIONS = Options(
    action="enforce", examples=None, seed=0, precision="32", batch_size=8, alpha=0.05, looks=3, min_agreement=0.8, min_correct=20, slice_gap=None,
    section={}, measures={name: Bound(name in BLOCKING, 0.0) for name in MEASURED},
)  # fmt: skip


def judged(made: dict[str, Any], measures_: dict[str, Bound] | None = None) -> judgement.Verdict:
    options = OPTIONS if measures_ is None else replace(OPTIONS, measures=measures_)
    return judgement.judge_sample("image_classification", made, options, image_explainer)


NOISE = np.random.default_rng(1).normal(size=60)
VERDICTS = {
    "all is well": ({}, "passed"),
    "one is chance": ({"pointing": NOISE - NOISE.mean()}, "failed"),
    "one is worse than chance": ({"learned": NOISE - 5}, "failed"),
    "one that does not block": ({"mass": NOISE - NOISE.mean()}, "warned"),
    "boxes are missing": ({"pointing": np.full(60, np.nan), "mass": np.full(60, np.nan)}, "warned"),
    "seeds do not agree": ({"stability": np.full(60, 0.5)}, "inconclusive"),
    "values do not add up": ({"additivity": np.append(np.zeros(59), 0.1)}, "inconclusive"),
    "they are not numbers": ({"additivity": np.append(np.zeros(59), np.nan)}, "inconclusive"),
    "some are infinite": ({"finite": np.append(np.ones(59), 0)}, "inconclusive"),
    "few are right": ({"correct": np.append(np.zeros(50), np.ones(10))}, "inconclusive"),
    "wrong answers are not judged": (
        {"correct": np.append(np.zeros(20), np.ones(40)), "pointing": np.append(np.full(20, -9.0), np.full(40, 0.4))},
        "passed",
    ),
    "nothing can be measured": ({name: np.full(60, np.nan) for name in BLOCKING}, "inconclusive"),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_a_verdict(case: str) -> None:
    changes, status = VERDICTS[case]
    found = judged(table(**changes))
    assert found.status == status, found.reasons
    assert found.accepted == (status in ("passed", "warned"))
    assert bool(found.reasons) == (status in ("failed", "inconclusive"))


def test_a_bound_is_what_a_mean_must_be_above() -> None:
    assert judged(table(), {"pointing": Bound(True, 0.2)}).status == "passed"
    assert judged(table(), {"pointing": Bound(True, 0.35)}).status == "failed"


def test_asking_several_measures_is_corrected_for() -> None:
    """One p-value just under the level passes alone, and not beside others that are no better."""
    generator = np.random.default_rng(4)
    weak = generator.normal(size=60)
    weak += 1.9 / np.sqrt(60) - weak.mean()  # about p = 0.03
    assert judged(table(pointing=weak), {"pointing": Bound(True, 0.0)}).status == "passed"
    assert judged(table(**dict.fromkeys(BLOCKING, weak))).status == "failed"


def test_slices_tell_where_it_is_worse() -> None:
    correct = np.append(np.zeros(20), np.ones(40))
    made = table(correct=correct)
    names = {"class": ["a"] * 20 + ["b"] * 40, "few": ["x"] * 3 + ["y"] * 57}
    rows = slices.compare_slices(made, names, ["pointing"], 0)
    assert (rows[0]["by"], rows[0]["slice"]) == ("class", "a")
    assert rows[0]["gap"][0] == 1.0
    assert not any(row["slice"] == "x" for row in rows)  # three say nothing
    assert "slice class a" in slices.describe_worst(rows, 0.5)
    assert slices.describe_worst(slices.compare_slices(table(), names, [], 0), 0.0) == ""


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Whose is it?", "who"),
        ("In what year?", "what"),
        ('"How" come', "how"),
        ("Name the town.", "other"),
        ("", "other"),
    ],
)
def test_kinds_of_questions(question: str, kind: str) -> None:
    assert question_word(question) == kind
