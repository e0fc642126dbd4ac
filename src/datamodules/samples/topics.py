"""A generated data set of short texts in classes: seeded, no network, thousands of texts in a second.

A text has two to four sentences. One of them states that goods passed from one person to another; the class is the trade
of the giver and the trade of the receiver, such as `farm_to_harbour`. Four properties make it a reading task:

- every text names people of every trade, so that neither a word nor a set of words determines the class: it takes the
  sentence, its verb (sold to, bought from) and the roles in it (active, passive, inverted);
- another sentence may state a transfer that did not happen (promised to, requested from), between any two trades;
- the remaining sentences name people who neither give nor receive anything;
- sentences are shuffled.

The validation split consists of combinations that never occur in training: of giver and receiver, of goods and wording,
of adjective and person. Which combinations are held out does not depend on the seed.
"""

import itertools
import json
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

# Part of the fingerprints of generated data. Replace it, by any new value, with every change of what is generated
# (tests/test_samples.py pins the output), and never otherwise: caches and comparable runs depend on it.
FINGERPRINT = "4e2c48676f2fce48157754cc93a079da2777d7de58e8738f4dbe3df34a6a1db8"

HELD_OUT = 5  # one combination in HELD_OUT is reserved for the validation split
ADJECTIVE = 0.4  # share of people who have an adjective
DECOY = 0.4  # share of the texts with room for it that state a transfer that did not happen
SENTENCES = (2, 4)  # of a text


def _words(text: str) -> list[str]:
    return text.split()


TRADES = {
    "farm": _words("farmer shepherd miller beekeeper gardener ploughman cowherd dairymaid harvester thresher"),
    "harbour": _words("sailor captain fisherman docker pilot shipwright diver helmsman boatman netmaker"),
    "castle": _words("king queen knight squire herald steward jester chancellor duchess guard"),
    "school": _words("teacher pupil tutor librarian student lecturer scholar examiner caretaker professor"),
}

ADJECTIVES = _words("""
    old young tall quiet cheerful famous clever tired patient friendly stubborn new
""")

GOODS = _words("""
    apples barrels baskets bells blankets books bottles boxes bricks brushes buckets candles carpets chairs cheeses
    clocks coats cups drums flags geese hats horses jars kettles keys ladders lamps letters maps mirrors needles nets
    onions paintings pears pigs plates ropes sacks saddles shoes spoons stools tables tents tools umbrellas wheels
    whistles
""")

NUMBERS = _words("""
    two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty
""")

# {g} gives {x} to {r}, or {r} gets it from {g}: active, passive and inverted.
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


def _wordings(to_verbs: str, from_verbs: str) -> tuple[str, ...]:
    return tuple(
        pattern.replace("VERB", verb)
        for patterns, verbs in ((TO, to_verbs), (FROM, from_verbs))
        for verb in verbs.split()
        for pattern in patterns
    )


WORDINGS = _wordings("sold sent lent delivered brought handed", "bought received borrowed collected obtained accepted")
# Transfers that do not happen.
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


def class_pairs(classes: int) -> list[tuple[str, str]]:
    """Return the classes: (trade of the giver, trade of the receiver).

    Args:
        classes: number of classes, 2 to 12; of the smallest number of trades that has enough pairs.

    Raises:
        ValueError: another number.
    """
    for count in range(2, len(TRADES) + 1):
        pairs = list(itertools.permutations(list(TRADES)[:count], 2))
        if 2 <= classes <= len(pairs):
            return pairs[:classes]
    raise ValueError(f"classes={classes} must be from 2 to {len(TRADES) * (len(TRADES) - 1)}")


def write(folder: Path, seed: int, train: int, val: int, classes: int = 6) -> None:
    """Write `train.jsonl` and `val.jsonl`: one {"id", "text", "label"} per line, classes as even as possible.

    Args:
        folder: created if it does not exist.
        seed: equal seeds and counts give equal bytes.
        train: number of training texts.
        val: number of texts in the validation split.
        classes: number of classes, 2 to 12.

    Raises:
        ValueError: a count below 1, or another number of classes.
    """
    if train < 1 or val < 1:
        raise ValueError(f"train={train} and val={val} must be at least 1")
    pairs = class_pairs(classes)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("val", val)):
        rows = _rows(split, random.Random(f"{seed} {split}"), count, pairs)
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def _allowed(split: str, *parts: str) -> bool:
    """Whether a split may have a combination."""
    return (zlib.crc32("|".join(parts).encode()) % HELD_OUT == 0) == (split == "val")


def _rows(split: str, rng: random.Random, count: int, pairs: list[tuple[str, str]]) -> Iterator[dict[str, str]]:
    trades = sorted({trade for pair in pairs for trade in pair})
    adjectives = {
        person: [adjective for adjective in ADJECTIVES if _allowed(split, "adjective", adjective, person)]
        for person in itertools.chain.from_iterable(TRADES.values())
    }
    exchanges = {
        pair: [
            people
            for people in itertools.product(*(TRADES[trade] for trade in pair))
            if _allowed(split, "pair", *people)
        ]
        for pair in pairs
    }
    wordings = {
        kind: {goods: [wording for wording in patterns if _allowed(split, "goods", goods, wording)] for goods in GOODS}
        for kind, patterns in (("event", WORDINGS), ("decoy", DECOYS))
    }
    order = [index % len(pairs) for index in range(count)]
    rng.shuffle(order)

    def describe(person: str) -> str:
        choices = adjectives[person]
        adjective = f"{rng.choice(choices)} " if choices and rng.random() < ADJECTIVE else ""
        return f"the {adjective}{person}"

    def transfer(kind: str, giver: str, receiver: str) -> str:
        goods = rng.choice(GOODS)
        wording = rng.choice(wordings[kind][goods])
        sentence = wording.format(g=describe(giver), r=describe(receiver), x=f"{rng.choice(NUMBERS)} {goods}")
        return sentence + rng.choice(TIMES)

    for number, index in enumerate(order):
        giver, receiver = rng.choice(exchanges[pairs[index]])
        sentences = [transfer("event", giver, receiver)]
        unused = {trade: [person for person in TRADES[trade] if person not in (giver, receiver)] for trade in trades}
        # Every remaining trade is named, so that the set of trades does not identify the class.
        aside_trades = [trade for trade in trades if trade not in pairs[index]]
        length = rng.randint(*SENTENCES)
        if length > 1 + len(aside_trades) and rng.random() < DECOY:
            sentences.append(transfer("decoy", *(rng.choice(unused[trade]) for trade in rng.choice(pairs))))
        aside_trades += rng.choices(trades, k=max(0, length - len(sentences) - len(aside_trades)))
        for trade, aside in zip(aside_trades, rng.sample(ASIDES, len(aside_trades)), strict=True):
            person = unused[trade].pop(rng.randrange(len(unused[trade])))
            sentences.append(aside.format(p=describe(person)))
        rng.shuffle(sentences)
        text = " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)
        yield {"id": f"{split}-{number}", "text": text, "label": "_to_".join(pairs[index])}
