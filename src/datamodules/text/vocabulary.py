"""WordPiece vocabularies trained on the data, with the normaliser, splitting and special tokens of BERT's uncased one.

BERT's splitting takes everything between two spaces for a word, and WordPiece replaces a word of more than 100 characters
by the unknown token. Its normaliser removes combining marks, so that an answer may end after its last token. Texts in
scripts without spaces, or with many combining marks, are therefore split into characters with their marks, as BERT does
with Chinese characters, and keep all marks.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Any

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
INPUTS = ["input_ids", "token_type_ids", "attention_mask"]
# Scripts without spaces between words: blocks of Unicode 16.
CONTINUOUS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19FF),  # Tai Le, New Tai Lue, Khmer symbols
    (0x1A20, 0x1B7F),  # Tai Tham, Balinese
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),  # Katakana extensions
    (0x3400, 0x9FFF),  # Chinese characters
    (0xA980, 0xA9FF),  # Javanese, Myanmar
    (0xAA60, 0xAADF),  # Myanmar, Tai Viet
    (0xF900, 0xFAFF),  # Chinese compatibility characters
    (0xFF66, 0xFF9F),  # Katakana of half width
    (0x1AFF0, 0x1B16F),  # Kana
    (0x20000, 0x3FFFF),  # Chinese characters
)
# Characters of a word that is trained on: the trainer's time grows with the square, and the tokenizer replaces longer
# words than 100 characters by the unknown token.
MAX_WORD = 1_000
MIN_SHARE = 0.01  # of such characters and combining marks, from which texts are split into characters


def splits_characters(texts: Iterable[str]) -> bool:
    """Whether a vocabulary of these texts is one of characters: enough of them have no spaces, or are combining marks."""
    total, characters = 0, Counter[str]()
    for text in texts:
        total += len(text)
        if not text.isascii():
            characters.update(text)
    count = sum(count for character, count in characters.items() if _is_continuous(character) or _is_mark(character))
    return count > MIN_SHARE * total


def _is_continuous(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in CONTINUOUS)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) == "Mn"


def train(texts: Callable[[], Iterable[str]], vocab_size: int, by_character: bool = False) -> dict[str, int]:
    """Train a WordPiece vocabulary.

    Equal texts give equal vocabularies, token by token, in every process. By default the trainer numbers the characters
    inside words in the order of a hash table that differs between processes, and breaks ties by these numbers.
    Therefore they are passed in a fixed order, as special tokens.

    Args:
        texts: yields the texts; called twice. Words of more than `MAX_WORD` characters are left out.
        vocab_size: maximum number of tokens; fewer if the texts do not contain as many.
        by_character: see `splits_characters`.

    Returns:
        Token ids by token.
    """
    from tokenizers import Tokenizer, models, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = _normalizer(by_character), _splitter(by_character)
    characters: Counter[str] = Counter()
    inside: Counter[str] = Counter()

    # Not those of the tokenizer, which it locks while it trains.
    normalizer, splitter = _normalizer(by_character), _splitter(by_character)

    def split_words(text: str) -> list[str]:
        pieces = splitter.pre_tokenize_str(normalizer.normalize_str(text))
        return [word for word, _ in pieces if len(word) <= MAX_WORD]

    def short_words() -> Iterator[str]:
        for text in texts():
            has_long = len(text) > MAX_WORD and max(map(len, text.split()), default=0) > MAX_WORD
            yield " ".join(split_words(text)) if has_long else text

    for text in texts():
        for word in split_words(text):
            characters.update(word)
            inside.update(word[1:])
    # The most common characters; a word with any other is unknown.
    common = sorted(characters, key=lambda character: (-characters[character], character))
    if by_character:
        # They are the words: as many as leave a quarter of the vocabulary for longer tokens.
        sizes = (1 + (inside[character] > 0) for character in common)
        limit = max(1, sum(total <= vocab_size * 3 // 4 for total in accumulate(sizes)))
    else:
        limit = max(1, min(1000, vocab_size // 4))
    alphabet = sorted(common[:limit])
    fixed_tokens = [
        *SPECIAL_TOKENS.values(),
        *alphabet,
        *("##" + character for character in alphabet if inside[character]),
    ]
    tokenizer.train_from_iterator(
        short_words(),
        trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            special_tokens=fixed_tokens[:vocab_size],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        ),
    )
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary


def wordpiece(vocabulary: dict[str, int], lower: bool, strip_accents: bool | None = None) -> Any:
    """Return BERT's tokenizer with a vocabulary.

    Args:
        vocabulary: token ids by token.
        lower: whether texts become lower case.
        strip_accents: whether their accents are removed; None: with `lower`, as BERT does.
    """
    from transformers import BertTokenizerFast

    # transformers 5 ignores `vocab_file=`.
    return BertTokenizerFast(vocab=_ordered(vocabulary), do_lower_case=lower, strip_accents=strip_accents)


def character_wordpiece(vocabulary: dict[str, int]) -> Any:
    """Return the tokenizer of a vocabulary that `train` made `by_character`."""
    from transformers import PreTrainedTokenizerFast

    backend = wordpiece(vocabulary, lower=True).backend_tokenizer
    backend.normalizer, backend.pre_tokenizer = _normalizer(True), _splitter(True)
    # Not of BERT's class, which transformers 5 rebuilds from the vocabulary alone when it loads it.
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=INPUTS, **SPECIAL_TOKENS)


def _ordered(vocabulary: dict[str, int]) -> dict[str, int]:
    return dict(sorted(vocabulary.items(), key=lambda item: item[1]))


def _normalizer(by_character: bool) -> Any:
    from tokenizers import normalizers

    return normalizers.BertNormalizer(lowercase=True, strip_accents=False if by_character else None)


def _splitter(by_character: bool) -> Any:
    from tokenizers import Regex, pre_tokenizers

    words = pre_tokenizers.BertPreTokenizer()
    if not by_character:
        return words
    ranges = "".join(f"{chr(first)}-{chr(last)}" for first, last in CONTINUOUS)
    return pre_tokenizers.Sequence([words, pre_tokenizers.Split(Regex(rf"[{ranges}]\p{{M}}*"), "isolated")])
