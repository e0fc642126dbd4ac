"""Windows: the same as the Hugging Face recipe's, and every answer back out of them as it went in."""

import json
import math
import pickle
import string
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example as with_example
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import InputError
from datamodules.storage import arrays
from datamodules.text import examples, reading, squad, token_arrays, windows
from datamodules.text.squad import Question
from datamodules.text.windows import Limits, PairEncoder, Windows

TEXTS = [
    "The quick brown fox jumps over the lazy dog, twice; nobody counted.",
    "Zürich and São Paulo are cities. 東京 is one too, and 😀 is none.",
    *string.ascii_letters, *string.digits, *string.punctuation,
]  # fmt: skip


def tokenizers() -> dict[str, Any]:
    """Tokenizers of each kind, made here: tiny vocabularies, the real pipelines."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import (
        BertTokenizerFast,
        DistilBertTokenizerFast,
        MPNetTokenizerFast,
        RobertaTokenizerFast,
    )

    from datamodules.text.tokenizer import train

    pieces = train(lambda: TEXTS, 200)
    ordered = sorted(pieces, key=pieces.__getitem__)
    mpnet = [
        "<s>",
        "<pad>",
        "</s>",
        "[UNK]",
        "<mask>",
        *[token for token in ordered if token[0] != "[" or len(token) == 1],
    ]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.post_processor = processors.ByteLevel(trim_offsets=True)
    bpe.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return {
        "bert": BertTokenizerFast(vocab=pieces),
        "cased": BertTokenizerFast(vocab=pieces, do_lower_case=False),
        "distilbert": DistilBertTokenizerFast(vocab=pieces),
        "mpnet": MPNetTokenizerFast(vocab={token: index for index, token in enumerate(mpnet)}),
        "roberta": RobertaTokenizerFast(vocab=model["vocab"], merges=merges),
    }


KINDS = ("bert", "cased", "distilbert", "mpnet", "roberta")
_MADE: dict[str, Any] = {}


@pytest.fixture(scope="session", autouse=True)
def made(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All tokenizers, once; not by fixture arguments, because hypothesis calls a test many times."""
    for kind, tokenizer in tokenizers().items():
        folder = tmp_path_factory.mktemp(kind)
        tokenizer.save_pretrained(folder)
        _MADE[kind] = tokenizer, PairEncoder(folder / "tokenizer.json")


def recipe(tokenizer: Any, records: list[Question], limits: Limits) -> list[dict[str, Any]]:
    """Windows by the public question-answering recipe (transformers' run_qa), token by token."""
    out = []
    for number, record in enumerate(records):
        encoded = tokenizer(
            record.question.lstrip(),
            record.context,
            truncation="only_second",
            max_length=limits.max_length,
            stride=limits.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        for w in range(len(encoded["input_ids"])):
            sequence = encoded.sequence_ids(w)
            offsets = encoded["offset_mapping"][w]
            window = {
                "example": number,
                "input_ids": encoded["input_ids"][w],
                "start": 0,
                "end": 0,
                "types": encoded["token_type_ids"][w] if "token_type_ids" in encoded else None,
                "chars": [tuple(o) if s == 1 else (-1, -1) for o, s in zip(offsets, sequence, strict=True)],
            }
            inside = [i for i, s in enumerate(sequence) if s == 1]
            if record.answers and inside:
                text, first = record.answers[0]
                last = first + len(text)
                low, high = inside[0], inside[-1]
                if offsets[low][0] <= first and offsets[high][1] >= last:
                    # The recipe's loop may run past the last context token, into the special ones; this one
                    # stops.
                    while low < inside[-1] + 1 and offsets[low][0] <= first:
                        low += 1
                    while high >= inside[0] and offsets[high][1] >= last:
                        high -= 1
                    window["start"], window["end"] = sorted((low - 1, high + 1))
            out.append(window)
    return out


def ours(encoder: PairEncoder, records: list[Question], limits: Limits) -> dict[str, Any]:
    contexts = list(dict.fromkeys(record.context for record in records))
    spans = [(a[0][1], a[0][1] + len(a[0][0])) if (a := record.answers) else (-1, -1) for record in records]
    return windows.make_windows(
        encoder,
        [record.question for record in records],
        contexts,
        np.array([contexts.index(record.context) for record in records]),
        np.array(spans),
        limits,
    )


def assert_as_recipe(kind: str, records: list[Question], limits: Limits) -> dict[str, Any]:
    tokenizer, encoder = _MADE.get(kind) or _MADE[kind]
    theirs, made = recipe(tokenizer, records, limits), ours(encoder, records, limits)
    assert len(theirs) == len(made["example"])
    for w, window in enumerate(theirs):
        part = slice(made["offsets"][w], made["offsets"][w + 1])
        assert made["example"][w] == window["example"]
        assert made["tokens"][part].tolist() == window["input_ids"]
        assert [tuple(pair) for pair in made["chars"][part].tolist()] == window["chars"]
        if window["types"] is not None:
            assert made["types"][part].tolist() == window["types"]
        assert (made["start"][w], made["end"][w]) == (window["start"], window["end"])
    return made


# Words, marks, accents, combining characters, characters beyond the basic plane, what a tokenizer leaves out.
pieces = st.sampled_from(
    [
        "the",
        "fox",
        "Zürich",
        "東京",
        "😀",
        "👩‍👩‍👧",
        "e\u0301",
        "\u200b",
        "ﬁ",
        "İ",
        "\u00a0",
        "\ufffd",
        "\x00",
        "1996",
        ",",
        ".",
        "[SEP]",
        "</s>",
        "𝒳",
        "a",
    ]
) | st.text(max_size=4)
texts = st.lists(pieces, max_size=25).map(" ".join) | st.lists(pieces, max_size=25).map("".join)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    context = draw(texts)
    low = draw(st.integers(0, max(0, len(context) - 1)))
    high = draw(st.integers(low, min(len(context), low + 12)))
    answers = [(context[low:high], low)] if high > low else []
    return Question("id", "", context, draw(st.lists(pieces, max_size=3).map(" ".join)), answers, "")


@settings(deadline=None, max_examples=80)
@given(
    kind=st.sampled_from(KINDS),
    records=st.lists(questions(), min_size=1, max_size=4),
    stride=st.integers(0, 8),
    room=st.integers(9, 30),
)
@with_example(kind="roberta", records=[Question("", "", " ", "", [], "")], stride=2, room=9)
@with_example(kind="roberta", records=[Question("", "", "", " the", [], "")], stride=0, room=9)
def test_windows_are_the_recipes(kind: str, records: list[Question], stride: int, room: int) -> None:
    # Readers leave no half surrogates; hypothesis may draw them. (The recipe takes an empty context for no
    # context.)
    records = [
        record._replace(
            context=reading.replace_surrogates(record.context) or "a",
            question=reading.replace_surrogates(record.question),
            answers=[(reading.replace_surrogates(text), at) for text, at in record.answers],
        )
        for record in records
    ]
    longest = max(len(_MADE[kind][1].encode([record.question.lstrip()])[0]) for record in records)
    assert_as_recipe(kind, records, Limits(longest + 4 + room, stride, max(1, longest)))


@settings(deadline=None, max_examples=80)
@given(kind=st.sampled_from(KINDS), record=questions(), stride=st.integers(0, 8))
@with_example(kind="roberta", record=Question("", "", "東京", "", [("東", 0)], ""), stride=0)
def test_an_answer_comes_back_from_its_tokens_with_no_more_than_their_rest(
    kind: str, record: Question, stride: int
) -> None:
    record = record._replace(context=reading.replace_surrogates(record.context), question="fox")
    made = ours(_MADE[kind][1], [record], Limits(40, stride, 10))
    for w in np.flatnonzero(made["end"]):
        chars = made["chars"][made["offsets"][w] : made["offsets"][w + 1]]
        (text, at), start, end = record.answers[0], made["start"][w], made["end"][w]
        assert 0 < start <= end
        found = slice(chars[start, 0], chars[end, 1])
        assert found.start <= at
        assert found.stop >= at + len(text)
        assert text in record.context[found]
        # No token begins between, or ends between, what came back and the answer; of a character's several tokens, the last counts.
        assert not np.any((chars[:, 0] > found.start) & (chars[:, 0] <= at))
        following = np.append(chars[1:, 0], -1)
        following[following < 0] = len(record.context)
        whole_characters = following >= at + len(text)
        assert not np.any((chars[:, 1] < found.stop) & (chars[:, 1] >= at + len(text)) & whole_characters)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 7)), max_size=20))
def test_ragged_is_the_ranges_one_after_the_other(runs: list[tuple[int, int]]) -> None:
    starts, lengths = np.array([r[0] for r in runs], int), np.array([r[1] for r in runs], int)
    assert arrays.ragged_indices(starts, lengths).tolist() == [i for s, n in runs for i in range(s, s + n)]


def question(context: str, asked: str = "what?", answers: tuple[tuple[str, int], ...] = ()) -> Question:
    return Question("q", "", context, asked, list(answers), "here")


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_context_is_one_window_without_an_answer(kind: str) -> None:
    tokenizer, encoder = _MADE[kind]
    made = ours(encoder, [question(""), question("fox")], Limits(30, 5, 10))
    assert made["example"].tolist() == [0, 1]
    assert made["end"].tolist() == [0, 0]
    with_context = tokenizer("what?", "fox")
    outside = [i for i, s in enumerate(with_context.sequence_ids()) if s != 1]
    assert made["tokens"][: made["offsets"][1]].tolist() == [with_context["input_ids"][i] for i in outside]
    if kind != "roberta":  # whose tokenizer keeps white space
        assert_as_recipe(kind, [question("  \n")], Limits(30, 5, 10))


def test_an_answer_outside_a_window_points_at_its_first_token() -> None:
    context = "the fox " * 40 + "dog"
    made = assert_as_recipe("bert", [question(context, answers=(("dog", context.index("dog")),))], Limits(30, 5, 10))
    assert made["end"][-1] > 0
    assert not made["end"][:-1].any()
    assert len(made["end"]) > 3


def test_an_answer_that_is_a_windows_last_token() -> None:
    """Where the recipe's own loop runs on into the special tokens."""
    context = "the lazy dog"
    made = ours(_MADE["bert"][1], [question(context, answers=(("dog", 9),))], Limits(60, 5, 10))
    chars = made["chars"][made["start"][0] : made["end"][0] + 1]
    assert context[chars[0, 0] : chars[-1, 1]] == "dog"


def store(folder: Path, records: list[Question]) -> examples.Examples:
    folder.mkdir()
    examples.write(folder, [record._replace(id=str(i)) for i, record in enumerate(records)], None, "test")
    return examples.Examples(folder)


def written(folder: Path, of: examples.Examples, limits: Limits, training: bool = True, kind: str = "bert") -> Windows:
    tokenizer = folder / "tokenizer.json"
    folder.mkdir()
    _MADE[kind][1].tokenizer.save(str(tokenizer))
    windows.write(folder, of, tokenizer, 200, limits, training)
    return Windows.open(folder, 0, True)


def test_long_questions_are_cut_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = "fox " * 50
    opened = written(tmp_path / "w", store(tmp_path / "e", [question("the dog", asked)]), Limits(30, 5, 10), False)
    assert opened.counts["cut_questions"] == 1
    # The first tokens stay, as in the original BERT code.
    assert opened.tokens[: opened.lengths[0]].tolist() == (
        _MADE["bert"][0]("fox " * 10, "the dog")["input_ids"] if opened.lengths[0] < 30 else []
    )
    encoder = _MADE["bert"][1]
    assert Windows.of_records(encoder, [(asked, "the dog")], Limits(30, 5, 10), 0, True).lengths[0] == opened.lengths[0]
    assert "longer than 10 tokens" in caplog.text


def test_training_leaves_out_what_has_no_right_answer_and_evaluation_does_not(tmp_path: Path) -> None:
    records = [
        question("the fox", answers=(("fox", 4),)),
        question("the fox", answers=(("dog", 4),)),  # not there
        question("the fox", answers=()),  # unanswerable
        question("the fox", answers=(("cat", 4), ("fox", 4))),  # the second one is
        question("the fox", answers=((" fox ", 3),)),  # with white space
    ]
    stored = store(tmp_path / "e", records)
    assert stored.counts["mismatched_answers"] == 2
    assert stored.counts["questions_without_a_matching_answer"] == 1
    train = written(tmp_path / "train", stored, Limits(30, 5, 10))
    assert train.example.tolist() == [0, 2, 3, 4]
    assert train.counts["left_out"] == 1
    found = [train.chars[train.offsets[w] + train.start[w]].tolist() for w in range(4)]
    assert found == [[4, 7], [-1, -1], [4, 7], [4, 7]]
    val = written(tmp_path / "val", stored, Limits(30, 5, 10), training=False)
    assert val.example.tolist() == [0, 1, 2, 3, 4]


def test_nothing_left_to_train_on_is_refused(tmp_path: Path) -> None:
    stored = store(tmp_path / "e", [question("the fox", answers=(("dog", 4),))])
    with pytest.raises(InputError, match="no question to train on"):
        written(tmp_path / "w", stored, Limits(30, 5, 10))


@pytest.mark.parametrize("limits", [Limits(40, 40, 10), Limits(40, 27, 10), Limits(40, 5, 40), Limits(40, -1, 10)])
def test_limits_that_leave_no_room_are_refused(limits: Limits) -> None:
    with pytest.raises(InputError, match=r"data\.max_length=40 leaves .* data\.stride"):
        _MADE["bert"][1].check(limits)
    _MADE["bert"][1].check(Limits(40, 26, 10))


def test_chunks_on_disk_are_what_one_call_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    records = [question(" ".join(rng.choice(["the", "fox", "dog", "😀"], rng.integers(1, 60)))) for _ in range(40)]
    records = [record._replace(answers=[(record.context[:3], 0)]) for record in records for _ in range(2)]
    stored = store(tmp_path / "e", records)
    whole = ours(_MADE["bert"][1], records, Limits(30, 5, 10))
    monkeypatch.setattr(windows, "CHUNK", 7)
    opened = written(tmp_path / "w", stored, Limits(30, 5, 10))
    for name in Windows.FIELDS:
        assert np.array_equal(getattr(opened, name), whole[name]), name
        assert isinstance(getattr(opened, name), np.memmap), name
    assert opened.tokens.dtype == np.uint16
    assert pickle.loads(pickle.dumps(opened)).tokens.filename == opened.tokens.filename


def test_batches_have_few_widths_and_none_is_wider_than_any_window(tmp_path: Path) -> None:
    records = [question("the fox " * 3), question("the fox " * 12), question("fox")]
    opened = written(tmp_path / "w", store(tmp_path / "e", records), Limits(30, 5, 10))
    longest = int(opened.lengths.max())
    assert longest % token_arrays.WIDTH_MULTIPLE
    widths = [opened.batch([w])["input_ids"].shape[1] for w in range(len(opened))]
    assert widths == [
        min(math.ceil(length / token_arrays.WIDTH_MULTIPLE) * token_arrays.WIDTH_MULTIPLE, longest)
        for length in opened.lengths
    ]
    assert {16, longest} <= set(widths)


def test_batches_are_padded_to_their_longest(tmp_path: Path) -> None:
    records = [question("the fox", answers=(("fox", 4),)), question("the fox and the dog"), question("")]
    stored = store(tmp_path / "e", records)
    opened = written(tmp_path / "w", stored, Limits(30, 5, 10))
    batch = opened.batch([2, 0])
    expected = _MADE["bert"][0].pad(
        {"input_ids": [opened.tokens[opened.offsets[w] : opened.offsets[w + 1]].tolist() for w in (2, 0)]},
        return_tensors="np",
        padding="max_length",
        max_length=batch["input_ids"].shape[1],
    )
    assert np.array_equal(batch["input_ids"], expected["input_ids"])
    assert np.array_equal(batch["attention_mask"], expected["attention_mask"])
    assert batch["window"].tolist() == [2, 0]
    assert batch["start_positions"].tolist() == [0, opened.start[0]]
    assert all(array.dtype == np.int64 for array in batch.values())
    assert batch["token_type_ids"][1, : opened.lengths[0]].tolist() == opened.types[: opened.lengths[0]].tolist()
    opened.uses_types = False
    assert "token_type_ids" not in opened.batch([0])


# -- real data
# -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dev(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[examples.Examples, Windows, Any]:
    """All of SQuAD 1.1's dev, with BERT's vocabulary, as training would window it."""
    from datamodules.text import tokenizer

    root = tmp_path_factory.mktemp("dev")
    prepared = tokenizer.prepare(root, tokenizer=str(shared_data / "bert-base-uncased-vocab.txt"))
    examples.write(root, squad.read([str(shared_data / "squad" / "dev-v1.1.json")], False), None, "dev")
    (root / "windows").mkdir()
    read = examples.Examples(root)
    windows.write(root / "windows", read, prepared.folder / "tokenizer.json", prepared.vocab_size, Limits(), False)
    return read, Windows.open(root / "windows", 0, True), prepared.load()


def test_every_dev_answer_survives_text_tokens_window_text(dev: Any) -> None:
    """All 34,726 gold answers, not only the first of each question, through every window that holds them.

    An answer comes back as the text between its first and last token. All do so to the letter but 62 places,
    where the annotator's answer begins or ends inside a token and a little more comes back: 59 times it was
    cut in the middle of a word or number ("1" of "11", "wars" of "towards"), which no tokens can say; 3 times
    a pound sign belongs to the number's token (BERT's splitting takes it for a letter) and not to the answer.
    """
    read, opened, _ = dev
    counts: Counter[str] = Counter()
    more: dict[tuple[int, int, int], str] = {}
    by_example = np.split(np.arange(len(opened)), np.flatnonzero(np.diff(opened.example)) + 1)
    assert [int(opened.example[of[0]]) for of in by_example] == list(range(len(read)))
    for number, of in enumerate(by_example):
        context = read.context(number)
        for answer in read.answers(number):
            counts["answers"] += 1
            low, high = answer["answer_start"], answer["answer_start"] + len(answer["text"])
            assert context[low:high] == answer["text"]
            held = 0
            for w in of:
                chars = opened.chars[opened.offsets[w] : opened.offsets[w + 1]]
                tokens = np.flatnonzero(chars[:, 0] >= 0)
                if chars[tokens[0], 0] > low or chars[tokens[-1], 1] < high:
                    continue
                held += 1
                first = tokens[np.flatnonzero(chars[tokens, 0] <= low)[-1]]
                last = tokens[np.flatnonzero(chars[tokens, 1] >= high)[0]]
                begin, end = int(chars[first, 0]), int(chars[last, 1])
                back = context[begin:end]
                if (opened.start[w], opened.end[w]) == (0, 0):
                    assert answer != read.answers(number)[0]  # the first is a target wherever it is inside
                if back != answer["text"]:
                    assert answer["text"] in back
                    more[number, low, high] = context[begin:low] + context[high:end]
            counts["in no window"] += not held
    counts["pound sign"] = sum(rest == "£" for rest in more.values())
    counts["inside a word"] = sum(rest.isalnum() for rest in more.values())
    print(dict(counts))
    assert counts == {"answers": 34726, "in no window": 0, "pound sign": 3, "inside a word": 59}
    assert len(more) == 62


def test_the_targets_of_dev_are_the_recipes(dev: Any) -> None:
    """On every twentieth paragraph of dev, window for window."""
    read, opened, tokenizer = dev
    chosen = [i for i in range(len(read)) if read.context_of[i] % 20 == 0]
    records = [
        Question(
            "",
            "",
            read.context(i),
            read.question(i),
            [(a["text"], a["answer_start"]) for a in read.answers(i)][:1],
            "",
        )
        for i in chosen
    ]
    theirs = recipe(tokenizer, records, Limits())
    mine = np.flatnonzero(np.isin(opened.example, chosen))
    assert len(theirs) == len(mine) > 500
    for window, w in zip(theirs, mine, strict=True):
        part = slice(opened.offsets[w], opened.offsets[w + 1])
        assert opened.tokens[part].tolist() == window["input_ids"]
        assert opened.types[part].tolist() == window["types"]
        assert [tuple(pair) for pair in opened.chars[part].tolist()] == window["chars"]
        assert (opened.start[w], opened.end[w]) == (window["start"], window["end"])
