"""What a tokenizer does not give back of its texts is counted, said and, beyond half, refused; own vocabularies give back all."""

import io
import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Run

from config.errors import InputError
from datamodules.question_answering import QuestionAnsweringData
from datamodules.text import tokenizer as tokenizers
from datamodules.text import vocabulary
from datamodules.text.vocabulary import splits_characters, train, wordpiece
from datamodules.text.windows import PairEncoder
from datamodules.text_classification import TextClassificationData
from trainers.predict_answers import predict_answers
from trainers.predict_texts import predict_texts
from trainers.saved_model import open_model

SPECIAL = list(vocabulary.SPECIAL_TOKENS.values())
# Words of scripts without spaces, or with combining marks.
SCRIPTS = {
    "Thai": "กรุงเทพ ที่ นี่ เป็น เมือง ใหญ่ น้ำ อยู่ ผู้ ภูเก็ต",
    "Lao": "ວຽງຈັນ ເປັນ ເມືອງ ໃຫຍ່ ນ້ຳ ຢູ່ ຜູ້ ລາວ",
    "Khmer": "ភ្នំពេញ ជា ទីក្រុង ធំ ទឹក នៅ អ្នក ខ្មែរ",
    "Burmese": "ရန်ကုန် သည် မြို့ ကြီး ရေ ရှိ သူ မြန်မာ",
    "Japanese": "東京 は 大きな まち です ガラス みず トヨタ ぱん",
    "Chinese": "北京 是 城市 很大 水 在 人 中国",
    "Hindi": "किताबें हिन्दी में पाँच लोग हैं पानी दिल्ली",
    "decomposed French": "e\u0301te\u0301 cafe\u0301 pre\u0301s e\u0302tre ou\u0300 a\u0300",
}


def write_questions(folder: Path, words: str, spaces: bool, count: int = 32) -> Path:
    """Questions about words of contexts of more than 100 characters; ids are whole numbers."""
    folder.mkdir()
    draw, rows = random.Random(0), []
    for number in range(count):
        chosen = draw.choices(words.split(), k=40)
        separator = " " if spaces else ""
        context, position = separator.join(chosen), draw.randrange(40)
        start = len(separator.join([*chosen[:position], ""])) if position else 0
        answers = {"text": [chosen[position]], "answer_start": [start]}
        assert context[start:].startswith(chosen[position])
        rows.append({"id": number, "title": "", "context": context, "question": chosen[0], "answers": answers})
    for name in ("train", "dev"):
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return folder


def prepared(folder: Path, root: Path, **settings: Any) -> QuestionAnsweringData:
    limits = {"max_length": 384, "stride": 16, "max_query_length": 24}
    data = QuestionAnsweringData(path=str(folder), cache_dir=str(root), **{**limits, **settings})
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.mark.parametrize("script", SCRIPTS)
def test_own_vocabularies_give_every_answer_back(script: str, tmp_path: Path) -> None:
    spaces = script in ("Hindi", "decomposed French")
    data = prepared(write_questions(tmp_path / "data", SCRIPTS[script], spaces), tmp_path, vocab_size=300)
    assert data.prepared_tokenizer.fingerprint.endswith(":characters")
    for split in ("train", "val"):
        counts = data.describe()[split]
        assert (counts["unrecoverable_answers"], counts["unknown_tokens"]) == (0, 0)
        assert counts["questions"] == 32
    # Also as an exported folder, and as a whole word there is nothing between characters.
    data.tokenizer().save_pretrained(tmp_path / "model")
    again = prepared(tmp_path / "data", tmp_path, tokenizer=str(tmp_path / "model"))
    assert (again.windows.tokens == data.windows.tokens).all()


def test_unaffected_texts_have_the_vocabulary_and_the_entries_that_they_had(tmp_path: Path) -> None:
    assert not splits_characters(["Zürich, São Paulo, Kraków: “quotes”, 100 €. " * 20 + "東京 ที่"])
    data = QuestionAnsweringData(
        sample={"seed": 0, "train": 64, "val": 32, "unanswerable": 0.0}, cache_dir=str(tmp_path), vocab_size=1000
    )
    data.prepare_data()
    # Names of entries are hashes of all that they depend on: those of November 2026.
    assert (data.folder("train").name, data.folder("val").name) == (
        "ef1ff22459b22db7d2690e3b",
        "4f4c81c77ce4c3ef3f798d82",
    )
    data.setup("fit")
    assert data.describe()["val"]["unrecoverable_answers"] == 0


def brute_force(data: QuestionAnsweringData) -> list[int]:
    """Questions whose answer is the text of the target's tokens in no window."""
    lost = []
    for number in range(len(data.train_examples)):
        (answer,), texts = data.train_examples.answers(number), []
        for w in range(len(data.train_windows)):
            if data.train_windows.example[w] == number and data.train_windows.end[w]:
                chars = data.train_windows.chars[data.train_windows.offsets[w] :]
                first, last = chars[data.train_windows.start[w], 0], chars[data.train_windows.end[w], 1]
                texts.append(data.train_examples.context(number)[first:last].strip())
        if answer["text"] not in texts:
            lost.append(number)
    return lost


def test_a_small_share_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An answer that begins inside a word of the vocabulary, and one that no window has as a whole."""
    folder = write_questions(tmp_path / "data", "the fox dogs is red and blue", spaces=True)
    rows = json.loads((folder / "train.json").read_text())
    rows[3]["context"] = "dogs and " * 20
    rows[3]["answers"] = {"text": ["ogs"], "answer_start": [1]}
    rows[5]["answers"] = {"text": [rows[5]["context"]], "answer_start": [0]}
    (folder / "train.json").write_text(json.dumps(rows))
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, *["the", "fox", "dogs", "is", "red", "and", "blue"]]))
    with caplog.at_level(logging.WARNING):
        data = prepared(folder, tmp_path, tokenizer=str(tmp_path / "vocab.txt"), max_length=40, stride=8)
    counts = data.describe()["train"]
    assert counts["unrecoverable_answers"] == 2 == len(brute_force(data))
    assert (
        "train: 2 answers (6.2%) are not given back by their tokens (question 3: the tokens of 'ogs' give 'dogs')"
        in caplog.text
    )
    assert "val:" not in caplog.text
    assert data.describe()["val"]["unrecoverable_answers"] == 0


def test_unknown_tokens_of_questions_are_counted(tmp_path: Path) -> None:
    """Special tokens are not counted among the tokens; those of overlaps are, in each window."""
    folder = write_questions(tmp_path / "data", "the fox dogs is red and blue", spaces=True)
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, *["the", "fox", "dogs", "is", "red"]]))
    data = prepared(folder, tmp_path, tokenizer=str(tmp_path / "vocab.txt"), max_length=40, stride=8)
    names = data.tokenizer().convert_ids_to_tokens(data.train_windows.tokens.tolist())
    unknown, total = names.count("[UNK]"), len(names) - names.count("[CLS]") - names.count("[SEP]")
    counts = data.describe()["train"]
    assert len(data.train_windows) > 32
    assert 0 < unknown < total
    assert (counts["unknown_tokens"], counts["unknown_token_share"]) == (unknown, round(unknown / total, 6))


def test_a_vocabulary_of_words_is_refused_for_a_script_without_spaces(tmp_path: Path, run: Run) -> None:
    """The fault as it was: each paragraph is one unknown token."""
    folder = write_questions(tmp_path / "data", SCRIPTS["Thai"], spaces=False)
    rows = json.loads((folder / "train.json").read_text())
    texts = [row[key] for row in rows for key in ("context", "question")]
    wordpiece(train(lambda: texts, 300), lower=True).save_pretrained(tmp_path / "words")
    done = run(
        "-m", "datamodules", "prepare", "data=squad", f"data.path={folder}", f"model.tokenizer={tmp_path / 'words'}"
    )
    assert done.returncode == 2
    assert "answers (100.0%) are not given back by their tokens" in done.stderr
    assert done.stderr.count("\n") <= 4


def byte_level_tokenizer(path: Path, trim_offsets: bool) -> Path:
    """A pipeline that puts a space before every word; RoBERTa's post-processor takes those for spaces of the text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=True), pre_tokenizers.Punctuation()]
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=trim_offsets)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([DUTCH] * 30, trainer)
    tokenizer.save(str(path))
    return path


DUTCH = "Nederland grenst aan België; José, café-baas, reist van Nederland naar (het) Nederland en “Nederland”."


def write_dutch(folder: Path, first: int) -> Path:
    """32 questions, of which `first` have an answer that begins the context."""
    folder.mkdir()
    others = [start for start in range(1, len(DUTCH)) if DUTCH.startswith("Nederland", start)]
    rows = [
        {
            "id": number,
            "context": DUTCH,
            "question": "Waar?",
            "answers": {"text": ["Nederland"], "answer_start": [0 if number < first else others[number % len(others)]]},
        }
        for number in range(32)
    ]
    for name in ("train", "dev"):
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return folder


@pytest.mark.parametrize(("trim_offsets", "lost"), [(False, 0), (True, 2)])
def test_offsets_that_a_tokenizer_shifts_are_a_warning(
    trim_offsets: bool, lost: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = byte_level_tokenizer(tmp_path / "tokenizer.json", trim_offsets)
    with caplog.at_level(logging.WARNING):
        data = prepared(write_dutch(tmp_path / "data", 30), tmp_path, tokenizer=str(path))
    for split in ("train", "val"):
        counts = data.describe()[split]
        assert (counts["unrecoverable_answers"], counts["unrecoverable_answer_share"]) == (lost, lost / 32)
        message = (
            f"{split}: 2 answers (6.2%) are not given back by their tokens (question 30: the tokens of 'Nederland' give"
        )
        assert (message in caplog.text) == bool(lost)
    assert len(brute_force(data)) == lost


def test_offsets_that_a_tokenizer_shifts_are_refused(tmp_path: Path, run: Run) -> None:
    """The fault as it was: each word loses its first letter, so that an answer takes the rest of "van" too."""
    folder, path = write_dutch(tmp_path / "data", 0), byte_level_tokenizer(tmp_path / "tokenizer.json", True)
    done = run("-m", "datamodules", "prepare", "data=squad", f"data.path={folder}", f"model.tokenizer={path}")
    assert done.returncode == 2
    assert "train: 22 answers (68.8%) are not given back by their tokens (question 0: the tokens of" in done.stderr
    assert "'Nederland' give 'an Nederland')" in done.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "text", "tokens"),
    [
        (["über", "##e", "uber"], "Über übere", ["über", "über", "##e"]),
        (["서", "##울"], "서울", ["서", "##울"]),
        (["e\u0301t", "##e"], "e\u0301te", ["e\u0301t", "##e"]),
        (["uber", "##e"], "Über", ["uber"]),  # no accents, as BERT's
        (["Über", "uber"], "Über", ["Über"]),  # cased
    ],
)
def test_a_bare_vocabulary_with_accents_keeps_them(
    words: list[str], text: str, tokens: list[str], tmp_path: Path
) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, *words]))
    loaded = tokenizers.prepare(tmp_path, tokenizer=str(tmp_path / "vocab.txt"))
    assert loaded.load().tokenize(text) == tokens
    accents = words[0] != words[0].lower() or not words[0].isascii()
    assert loaded.fingerprint.endswith(":accents") == (accents and words[0] == words[0].lower())


def test_a_stray_accent_of_a_large_vocabulary_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "é", *(f"word{number}" for number in range(2000))]))
    loaded = tokenizers.prepare(tmp_path, tokenizer=str(tmp_path / "vocab.txt"))
    assert ":" not in loaded.fingerprint


def write_texts(folder: Path, words: str, count: int = 40) -> Path:
    folder.mkdir()
    rows = [{"text": " ".join(words.split()[: 3 + number % 3]), "label": "ab"[number % 2]} for number in range(count)]
    for name in ("train", "val"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize(
    ("words", "share", "outcome"),
    [("fox dog red cat hen", 0.0, ""), ("fox dog red cat owl", 0.0, "warned"), ("ox og ed at owl", 1.0, "refused")],
)
def test_unknown_tokens_of_texts_are_counted(
    words: str, share: float, outcome: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, *["fox", "dog", "red", "cat", "hen"]]))
    folder = write_texts(tmp_path / "data", words)
    data = TextClassificationData(path=str(folder), cache_dir=str(tmp_path), tokenizer=str(tmp_path / "vocab.txt"))
    if outcome == "refused":
        with pytest.raises(
            InputError, match=r"100\.0% of the tokens are unknown, and 40 texts \(100\.0%\) have unknown"
        ):
            data.prepare_data()
        return
    data.prepare_data()
    data.setup("fit")
    counts = data.describe()["train"]
    # Texts of three, four and five words; the fifth is unknown.
    unknown = 13 if outcome else 0
    assert (counts["unknown_tokens"], counts["unknown_texts"], counts["unknown_text_share"]) == (unknown, 0, share)
    assert counts["unknown_token_share"] == round(unknown / (14 * 3 + 13 * 4 + 13 * 5), 6)
    assert ("of the tokens are unknown" in caplog.text) == bool(outcome)


def test_texts_that_a_tokenizer_drops_are_counted(tmp_path: Path) -> None:
    """A tokenizer without an unknown token gives no token at all."""
    folder = write_texts(tmp_path / "data", "fox dog red cat hen")
    path = cjk_tokenizer(tmp_path / "tokenizer.json")
    data = TextClassificationData(path=str(folder), cache_dir=str(tmp_path), tokenizer=str(path))
    with pytest.raises(InputError, match=r"train: 40 texts \(100\.0%\) have unknown tokens only"):
        data.prepare_data()


def cjk_tokenizer(path: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokens = ["<s>", "</s>", "<pad>", *"東京はどこ日本の首都です"]
    tokenizer = Tokenizer(
        models.BPE(vocab={token: number for number, token in enumerate(dict.fromkeys(tokens))}, merges=[])
    )
    tokenizer.add_special_tokens(tokens[:3])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer.save(str(path))
    return path


def test_a_tokenizer_without_latin_letters_is_taken(tmp_path: Path) -> None:
    folder = write_questions(tmp_path / "data", "東京 は 日本 の 首都 です", spaces=False)
    data = prepared(folder, tmp_path, tokenizer=str(cjk_tokenizer(tmp_path / "tokenizer.json")))
    encoder = PairEncoder(data.prepared_tokenizer.folder / "tokenizer.json")
    assert [part.tolist() for part in (encoder.before, encoder.between, encoder.after)] == [[0], [1], [1]]
    assert (encoder.question_type, encoder.context_type, data.type_count) == (0, 1, 2)
    assert data.describe()["train"]["unrecoverable_answers"] == 0


def test_a_tokenizer_that_cannot_say_unknown_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, processors

    tokens = {token: number for number, token in enumerate(["[PAD]", "[CLS]", "[SEP]", "東"])}
    tokenizer = Tokenizer(models.WordPiece(tokens, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    folder = write_questions(tmp_path / "data", "the fox is red", spaces=True)
    with pytest.raises(InputError, match="no tokens for some text, and no unknown token either"):
        prepared(folder, tmp_path, tokenizer=str(tmp_path / "tokenizer.json"))


def test_leading_space_of_questions_is_removed_for_byte_level_tokenizers(tmp_path: Path) -> None:
    """As transformers' run_qa.py does; tokenizers that never noticed it have the cache entries that they had."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    alphabet = ["<s>", "<pad>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.save(str(tmp_path / "bytes.json"))
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "fox", "red"]))
    for name, spaces in (("plain", ""), ("spaced", " \n\u00a0 ")):
        folder = write_questions(tmp_path / name, "fox red", spaces=True)
        for split in ("train", "dev"):
            rows = json.loads((folder / f"{split}.json").read_text())
            changed = [{**row, "question": spaces + row["question"]} for row in rows]
            (folder / f"{split}.json").write_text(json.dumps(changed))
    for path, notices in (("bytes.json", True), ("vocab.txt", False)):
        options = {"tokenizer": str(tmp_path / path), "max_length": 384}
        plain, spaced = (prepared(tmp_path / name, tmp_path, **options) for name in ("plain", "spaced"))
        assert plain.prepared_tokenizer.leading_space is notices
        assert (plain.windows.tokens == spaced.windows.tokens).all()
        assert spaced.examples.question(0).startswith(" \n")
        key = json.loads((spaced.folder("val") / "key.json").read_text())
        assert ("questions" in key) is notices


def saved(task: str, folder: Path) -> Path:
    """A transformers folder with random weights."""
    from transformers import BertConfig, BertForQuestionAnswering, BertForSequenceClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=20, max_position_embeddings=80, **sizes)
    kind = BertForQuestionAnswering if task == "answers" else BertForSequenceClassification
    kind(config).save_pretrained(folder)
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, "fox", "red"])}
    wordpiece(vocabulary, lower=True).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("words", "share"),
    [
        ("fox " * 20, ""),
        ("fox owl " * 10, "50.0%"),
        ("owl " * 4 + "fox " * 16, ""),
        ("owl " * 5 + "fox " * 15, "25.0%"),
    ],
)
@pytest.mark.parametrize("task", ["answers", "texts", "pairs"])
def test_predict_warns_of_unknown_tokens(
    task: str, words: str, share: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the tokens of texts alone; fewer than five say nothing of a tokenizer."""
    model = open_model(str(saved(task, tmp_path / "model")))
    first, *rest = words.split()
    if task == "answers":
        lines, call = [{"question": first, "context": " ".join(rest)}], predict_answers
    elif task == "texts":
        lines, call = [{"text": " ".join(rest[:9])}, {"text": " ".join([first, *rest[9:]])}], predict_texts
    else:
        model.settings["data"]["columns"] = {"text": "text", "label": "label", "text_pair": "pair"}
        lines, call = [{"text": first, "pair": " ".join(rest)}], predict_texts
    with caplog.at_level(logging.WARNING):
        rows = list(call(model, [], io.StringIO("\n".join(map(json.dumps, lines))), 2))
    assert len(rows) == len(lines)
    messages = [record.message for record in caplog.records if "are unknown" in record.message]
    assert messages == ([f"the inputs: {share} of the tokens are unknown (tokenizer: the model's)"] if share else [])


def test_the_command_warns_of_unknown_tokens(tmp_path: Path, run: Run) -> None:
    model, inputs = saved("texts", tmp_path / "model"), tmp_path / "texts.jsonl"
    inputs.write_text(json.dumps({"text": "owl " * 9}))
    done = run("-m", "trainers", "predict", f"run={model}", str(inputs))
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert "the inputs: 100.0% of the tokens are unknown (tokenizer: the model's)" in done.stderr.replace("\n", " ")
