"""A generated data set of short texts in classes: seeded, no network, thousands of texts in a second.

A text is of two to four sentences. One of them says that something went from one person to another; the class is the
trade of the giver and the trade of the receiver, such as `farm_to_harbour`. What makes it a reading task:

- every text names people of every trade, so that no word, and no set of words, tells the class: it takes the sentence, its
  verb (sold to, bought from) and who stands where in it (active, passive, turned round);
- another sentence may tell of something that did not change hands (promised to, asked of), between any two trades;
- the others name people who neither give nor receive anything;
- sentences come in any order.

The validation split is made of combinations that training never has: of giver and receiver, of goods and wording, of adjective
and person. Which combinations are held out does not depend on the seed.
"""

import itertools
import json
import os
import random
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

HELD_OUT = 5  # one combination in so many is kept for the validation split
ADJECTIVE = 0.4  # share of people who have an adjective
DECOY = 0.4  # share of the texts with room for it in which something else does not change hands
SENTENCES = (2, 4)  # of a text

TRADES = {
    "farm": [
        "farmer",
        "shepherd",
        "miller",
        "beekeeper",
        "gardener",
        "ploughman",
        "cowherd",
        "dairymaid",
        "harvester",
        "thresher",
    ],
    "harbour": [
        "sailor",
        "captain",
        "fisherman",
        "docker",
        "pilot",
        "shipwright",
        "diver",
        "helmsman",
        "boatman",
        "netmaker",
    ],
    "castle": ["king", "queen", "knight", "squire", "herald", "steward", "jester", "chancellor", "duchess", "guard"],
    "school": [
        "teacher",
        "pupil",
        "tutor",
        "librarian",
        "student",
        "lecturer",
        "scholar",
        "examiner",
        "caretaker",
        "professor",
    ],
}

ADJECTIVES = [
    "old",
    "young",
    "tall",
    "quiet",
    "cheerful",
    "famous",
    "clever",
    "tired",
    "patient",
    "friendly",
    "stubborn",
    "new",
]

GOODS = [
    "apples",
    "barrels",
    "baskets",
    "bells",
    "blankets",
    "books",
    "bottles",
    "boxes",
    "bricks",
    "brushes",
    "buckets",
    "candles",
    "carpets",
    "chairs",
    "cheeses",
    "clocks",
    "coats",
    "cups",
    "drums",
    "flags",
    "geese",
    "hats",
    "horses",
    "jars",
    "kettles",
    "keys",
    "ladders",
    "lamps",
    "letters",
    "maps",
    "mirrors",
    "needles",
    "nets",
    "onions",
    "paintings",
    "pears",
    "pigs",
    "plates",
    "ropes",
    "sacks",
    "saddles",
    "shoes",
    "spoons",
    "stools",
    "tables",
    "tents",
    "tools",
    "umbrellas",
    "wheels",
    "whistles",
]

NUMBERS = [
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "twenty",
    "thirty",
    "forty",
    "fifty",
]

# {g} gives {x} to {r}, or {r} gets it from {g}: active, passive and turned round.
TO = (
    "{g} VERB {x} to {r}",
    "{x} were VERB to {r} by {g}",
    "to {r}, {g} VERB {x}",
    "it was {g} who VERB {x} to {r}",
    "it was {r} to whom {g} VERB {x}",
)
FROM = (
    "{r} VERB {x} from {g}",
    "{x} were VERB from {g} by {r}",
    "from {g}, {r} VERB {x}",
    "it was {r} who VERB {x} from {g}",
    "it was {g} from whom {r} VERB {x}",
)


def _wordings(to: str, source: str) -> tuple[str, ...]:
    return tuple(
        pattern.replace("VERB", verb)
        for patterns, verbs in ((TO, to), (FROM, source))
        for verb in verbs.split()
        for pattern in patterns
    )


WORDINGS = _wordings("sold sent lent delivered brought handed", "bought received borrowed collected obtained accepted")
# Nothing changes hands.
DECOYS = _wordings("promised offered denied refused", "demanded expected wanted requested")

TIMES = (
    "", "", "", " on Monday", " on Friday", " last week", " in the morning", " before noon", " after the rain", " at night",
)  # fmt: skip

# Sentences about a person who neither gives nor receives.
ASIDES = (
    "{p} knew nothing about it",
    "{p} was asleep all day",
    "{p} heard of it much later",
    "{p} had to stay at home",
    "nobody asked {p}",
    "{p} was looking out of the window",
    "people were talking about {p}",
    "there was a letter about {p} in the paper",
    "{p} had come from far away",
    "{p} went for a walk",
    "one could hear {p} singing",
    "{p} did not like the weather",
)


def labels(classes: int) -> list[tuple[str, str]]:
    """The classes: (trade of the giver, trade of the receiver).

    Args:
        classes: how many, 2 to 12; of so few trades as have so many pairs.

    Raises:
        ValueError: another number.
    """
    for count in range(2, len(TRADES) + 1):
        pairs = list(itertools.permutations(list(TRADES)[:count], 2))
        if 2 <= classes <= len(pairs):
            return pairs[:classes]
    raise ValueError(f"classes={classes} must be from 2 to {len(TRADES) * (len(TRADES) - 1)}")


def write(folder: Path, seed: int, train: int, val: int, classes: int = 6) -> None:
    """Writes `train.jsonl` and `val.jsonl`: {"id", "text", "label"} a line, as many of every class as can be.

    Args:
        folder: Made when it is not there.
        seed: The same seed and counts give the same bytes.
        train: Number of texts to train on.
        val: Number of texts in the validation split.
        classes: Number of classes, 2 to 12.

    Raises:
        ValueError: for a count below 1, or another number of classes.
    """
    if train < 1 or val < 1:
        raise ValueError(f"train={train} and val={val} must be at least 1")
    pairs = labels(classes)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("val", val)):
        rows = _rows(split, random.Random(f"{seed} {split}"), count, pairs)
        _write_lines(folder / f"{split}.jsonl", rows)


def _write_lines(path: Path, rows: Iterator[Mapping[str, str]]) -> None:
    """A file is whole or not there."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise


def _belongs(split: str, *parts: str) -> bool:
    """Whether a split may have a combination."""
    return (zlib.crc32("|".join(parts).encode()) % HELD_OUT == 0) == (split == "val")


def _rows(split: str, rng: random.Random, count: int, pairs: list[tuple[str, str]]) -> Iterator[dict[str, str]]:
    trades = sorted({trade for pair in pairs for trade in pair})
    adjectives = {
        person: [adjective for adjective in ADJECTIVES if _belongs(split, "adjective", adjective, person)]
        for person in itertools.chain.from_iterable(TRADES.values())
    }
    people = {
        (giver, receiver): [
            (one, other) for one in TRADES[giver] for other in TRADES[receiver] if _belongs(split, "pair", one, other)
        ]
        for giver, receiver in pairs
    }
    wordings = {
        kind: {goods: [wording for wording in known if _belongs(split, "goods", goods, wording)] for goods in GOODS}
        for kind, known in (("event", WORDINGS), ("decoy", DECOYS))
    }
    order = [index % len(pairs) for index in range(count)]
    rng.shuffle(order)

    def named(person: str) -> str:
        own = adjectives[person]
        adjective = f"{rng.choice(own)} " if own and rng.random() < ADJECTIVE else ""
        return f"the {adjective}{person}"

    def transfer(kind: str, giver: str, receiver: str) -> str:
        goods = rng.choice(GOODS)
        wording = rng.choice(wordings[kind][goods])
        sentence = wording.format(g=named(giver), r=named(receiver), x=f"{rng.choice(NUMBERS)} {goods}")
        return sentence + rng.choice(TIMES)

    for number, index in enumerate(order):
        giver, receiver = rng.choice(people[pairs[index]])
        sentences = [transfer("event", giver, receiver)]
        left = {trade: [person for person in TRADES[trade] if person not in (giver, receiver)] for trade in trades}
        # Every other trade is named, so that which ones are names no class.
        others = [trade for trade in trades if trade not in pairs[index]]
        count = rng.randint(*SENTENCES)
        if count > 1 + len(others) and rng.random() < DECOY:
            sentences.append(transfer("decoy", *(rng.choice(left[trade]) for trade in rng.choice(pairs))))
        others += rng.choices(trades, k=max(0, count - len(sentences) - len(others)))
        for trade, aside in zip(others, rng.sample(ASIDES, len(others)), strict=True):
            person = left[trade].pop(rng.randrange(len(left[trade])))
            sentences.append(aside.format(p=named(person)))
        rng.shuffle(sentences)
        text = " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)
        yield {"id": f"{split}-{number}", "text": text, "label": "_to_".join(pairs[index])}
