"""A generated question answering data set in SQuAD's official layout: seeded, no network, thousands of questions in seconds.

A paragraph tells six facts about one invented place, or three about each of two. Every question asks for one fact.
What makes it a reading task:

- the facts are of two types only, so that the answer has rivals of its own type: two persons beside the one who
  founded the place ran it and visited it; in a paragraph about two places the same is told of both;
- the question words an attribute otherwise than the text does, and every sentence names the place, so that counting
  common words does not find the sentence;
- sentences come in any order, and most of them hold two facts.

The development split is made of combinations that training never has: of name pieces, of question and statement
wordings, of attributes in one paragraph. Which combinations are held out does not depend on the seed.
"""

import itertools
import json
import os
import random
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from config.ranges import Range

FACTS = 6  # told in one paragraph
TWO_PLACES = 0.2  # share of paragraphs about two places
QUESTIONS = 4  # asked at most about one paragraph
PARAGRAPHS = 20  # in one article
HELD_OUT = 5  # one combination in so many is kept for the development split


@dataclass(frozen=True)
class Attribute:
    """One thing that can be told of a place.

    `statements` have {e} for the place and {v} for the value; one that begins with {e} can share its subject
    with another. `questions` have {e}, and follow any of their type's openings. The two share no content word.
    """

    name: str
    type: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]


OPENINGS = {
    "person": ("Who", "Which person", "Do you know who", "Can you say who"),
    "year": ("When", "In which year", "In what year", "Do you know when"),
    "number": ("How many", "What number of", "Do you know how many", "Can you say how many"),
    "town": ("Which town", "What town", "Do you know which town", "Can you say what town"),
    "colour": ("What colour", "Which colour", "What shade", "Which shade"),
    "thing": ("What", "Do you know what", "Can you say what", "What sort of thing"),
}

ATTRIBUTES_OF = tuple(
    Attribute(*row)
    for row in (
        ("founder", "person", ("{e} was founded by {v}", "{e} owes its start to {v}", "{v} founded {e}"),
         ("established {e}?", "set up {e}?")),
        ("keeper", "person", ("{e} is run by {v}", "{e} is in the care of {v}", "{v} runs {e}"),
         ("looks after {e}?", "manages {e}?")),
        ("designer", "person", ("{e} was designed by {v}", "{e} was drawn up by {v}", "{v} designed {e}"),
         ("planned {e}?", "was the architect of {e}?")),
        ("guest", "person", ("{e} was visited by {v}", "{e} once welcomed {v}", "{v} visited {e}"),
         ("came to see {e}?", "was a guest at {e}?")),
        ("opened", "year", ("{e} opened in {v}", "{e} has been open since {v}", "in {v} the doors of {e} opened"),
         ("did {e} begin its work?", "did work start at {e}?")),
        ("fire", "year", ("{e} burned down in {v}", "{e} was lost to fire in {v}", "in {v} fire ruined {e}"),
         ("did flames destroy {e}?", "was {e} in flames?")),
        ("repair", "year", ("{e} was repaired in {v}", "{e} was made new in {v}", "in {v} builders repaired {e}"),
         ("did they restore {e}?", "was {e} mended?")),
        ("sale", "year", ("{e} was sold in {v}", "{e} changed hands in {v}", "in {v} a bank bought {e}"),
         ("did {e} get another owner?", "was a different owner found for {e}?")),
        ("rooms", "number", ("{e} has {v} rooms", "{e} is divided into {v} rooms", "there are {v} rooms in {e}"),
         ("chambers does {e} have?", "chambers would you find at {e}?")),
        ("windows", "number", ("{e} has {v} windows", "{e} is lit by {v} windows", "there are {v} windows in {e}"),
         ("panes of glass does {e} have?", "panes of glass would you find at {e}?")),
        ("staff", "number", ("{e} employs {v} people", "{e} gives work to {v} people", "{v} people work at {e}"),
         ("workers does {e} have?", "workers would you find at {e}?")),
        ("horses", "number", ("{e} keeps {v} horses", "{e} feeds {v} horses", "{v} horses live at {e}"),
         ("riding animals does {e} have?", "riding animals would you find at {e}?")),
        ("partner", "town", ("{e} sends its goods to {v}", "{e} sells to {v}", "goods from {e} go to {v}"),
         ("buys the products of {e}?", "is the customer of {e}?")),
        ("supplier", "town", ("{e} gets its wood from {v}", "{e} orders wood in {v}", "wood for {e} comes from {v}"),
         ("delivers timber to {e}?", "is the source of timber for {e}?")),
        ("near", "town", ("{e} lies near {v}", "{e} stands close to {v}", "not far from {v} lies {e}"),
         ("is the neighbour of {e}?", "is next to {e}?")),
        ("rival", "town", ("{e} has a quarrel with {v}", "{e} fights against {v}", "{v} fights with {e}"),
         ("is the enemy of {e}?", "is hostile to {e}?")),
        ("roof", "colour", ("{e} has a {v} roof", "{e} lies under a {v} roof", "the roof of {e} is {v}"),
         ("are the tiles on top of {e}?", "do the tiles of {e} have?")),
        ("door", "colour", ("{e} has a {v} door", "{e} is closed by a {v} door", "the door of {e} is {v}"),
         ("is the entrance to {e}?", "does the entrance to {e} have?")),
        ("walls", "colour", ("{e} has {v} walls", "{e} stands behind {v} walls", "the walls of {e} are {v}"),
         ("is the outside of {e}?", "does the outside of {e} have?")),
        ("flag", "colour", ("{e} flies a {v} flag", "{e} puts up a {v} flag", "the flag of {e} is {v}"),
         ("is the banner over {e}?", "does the banner over {e} have?")),
        ("shop", "thing", ("{e} sells {v}", "{e} deals in {v}", "{v} is for sale at {e}"),
         ("can people buy at {e}?", "does a customer take home from {e}?")),
        ("field", "thing", ("{e} grows {v}", "{e} plants {v}", "{v} grows in the fields of {e}"),
         ("is the crop of {e}?", "do farmers harvest at {e}?")),
        ("kitchen", "thing", ("{e} cooks {v}", "{e} serves {v}", "{v} is served at {e}"),
         ("do guests eat at {e}?", "is the usual meal at {e}?")),
        ("gift", "thing", ("{e} collects {v}", "{e} stores {v}", "{v} is stored in {e}"),
         ("is kept at {e}?", "does the cellar of {e} hold?")),
    )
)  # fmt: skip

# Sentences that name a place and tell nothing: they share as many words with a question as the answer's sentence.
LURES = (
    "Many people have heard of {a}.",
    "Maps of the area show {a}.",
    "It takes a day to get to {a}.",
    "Letters about {a} still turn up.",
)

JOINS = (" and ", ", while ", ", but ")


def _words(text: str) -> list[str]:
    return text.split()


FIRST = _words("""
    bar bel bor cal cor dal dor dun fal fen gal gor gren hal hol jar kal kel kor lan lor mar mel mon nor pel ral ren
    ros sal sel sor tal tar tor val ven vor wel zan
""")
SECOND = _words("""
    bach beck bury dale fell ford gate grim ham hurst keth lund mere mond moor nock path quil rath rick rock seth
    shaw stead tash thorpe vik ville ward wick wold worth yard zeck
""")
TOWN_FIRST = _words("""
    ab ash bex bram cud dray esk flax glen hex ib jux kip lud mox nub oke pem rux sib tham ulv vex wix
""")
TOWN_SECOND = _words("""
    ano ara edo elia emi ena ia iko ima ira isa oka ola oma ona oria uma una ura uta
""")
GIVEN = _words("""
    Ada Alma Anton Bella Boris Carl Clara David Edith Elsa Emil Eva Felix Frida Greta Hanna Hugo Ida Igor Ivan Jonas
    Julia Karl Laura Leo Lena Lukas Maria Max Nina Oskar Otto Paula Peter Rosa Rudolf Simon Stella Tom Vera
""")
FAMILY = _words("""
    Adler Bauer Becker Berger Braun Fischer Fuchs Graf Gruber Haas Hahn Hofer Huber Kaiser Keller Klein Koch Kraus
    Lang Lehner Maier Moser Neumann Pichler Pohl Reiter Richter Roth Sauer Schmid Stein Vogel Wagner Weber Winkler
    Wolf
""")
COLOURS = _words("""
    red blue green white black yellow brown grey orange purple pink golden silver violet
""")
THINGS = _words("""
    apples barley beans beets bread butter cabbage carrots cheese cherries corn dates eggs figs flax garlic grapes
    hay honey hops leeks lemons lentils melons millet mint mushrooms mustard nuts oats olives onions pears peas
    peppers plums potatoes pumpkins rice rye salt seeds soup spinach sugar tea tomatoes turnips walnuts wheat
""")


def write(
    folder: Path,
    seed: Annotated[int, Range(low=0)],
    train: Annotated[int, Range(low=1)],
    val: Annotated[int, Range(low=1)],
    unanswerable: Annotated[float, Range(low=0, below=1)] = 0.0,
) -> None:
    """Writes `train-v1.1.json` and `dev-v1.1.json` (`-v2.0` with unanswerable questions) into a folder.

    Args:
        folder: Made when it is not there.
        seed: The same seed, counts and share give the same bytes.
        train: Number of questions to train on.
        val: Number of questions in the development split.
        unanswerable: Share of questions, in [0, 1), that the paragraph does not answer; above 0 the layout is 2.0's.

    Raises:
        ValueError: for a count below 1 or a share outside [0, 1).
    """
    if train < 1 or val < 1 or not 0 <= unanswerable < 1:
        raise ValueError(f"train={train} and val={val} must be at least 1, unanswerable={unanswerable} in [0, 1)")
    folder.mkdir(parents=True, exist_ok=True)
    version = "v2.0" if unanswerable else "1.1"
    for split, count in (("train", train), ("dev", val)):
        data = list(_articles(split, random.Random(f"{seed} {split}"), count, unanswerable))
        _write_json(folder / f"{split}-{version if unanswerable else 'v1.1'}.json", {"data": data, "version": version})


def _write_json(path: Path, content: Any) -> None:
    """A file is whole or not there."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(content))
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise


def _held_out(*parts: str) -> bool:
    return zlib.crc32("|".join(parts).encode()) % HELD_OUT == 0


class _Split:
    """What one split may put together."""

    def __init__(self, split: str) -> None:
        def mine(*parts: str) -> bool:
            return _held_out(*parts) == (split == "dev")

        self.names = {a: [(a + b).capitalize() for b in SECOND if mine("name", a, b)] for a in FIRST}
        self.towns = [(a + b).capitalize() for a in TOWN_FIRST for b in TOWN_SECOND if mine("town", a, b)]
        self.people = [f"{a} {b}" for a in GIVEN for b in FAMILY if mine("person", a, b)]
        self.years = [str(y) for y in range(1500, 1980)]
        self.numbers = [str(n) for n in range(10, 100)]
        # (attribute, statement) -> whole questions
        self.questions: dict[tuple[str, str], list[str]] = {}
        for attribute in ATTRIBUTES_OF:
            for statement in attribute.statements:
                self.questions[attribute.name, statement] = [
                    f"{opening} {question}"
                    for opening in OPENINGS[attribute.type]
                    for question in attribute.questions
                    if mine("wording", statement, opening, question)
                ]
        # Statements that this split has questions about.
        self.statements = {
            attribute.name: [each for each in attribute.statements if self.questions[attribute.name, each]]
            for attribute in ATTRIBUTES_OF
        }
        told = [attribute for attribute in ATTRIBUTES_OF if self.statements[attribute.name]]
        # By the number of places: what one paragraph tells of each of them, always of two types.
        self.sets = {
            1: [
                a + b
                for a, b in itertools.combinations(_threes(told), 2)
                if a[0].type != b[0].type and mine("attributes", *(each.name for each in a + b))
            ],
            2: [
                three
                for three in itertools.combinations(told, FACTS // 2)
                if len({each.type for each in three}) == 2 and mine("attributes", *(each.name for each in three))
            ],
        }

    def untold(self, facts: list["_Fact"]) -> list[Attribute]:
        """Attributes that a paragraph does not tell, of the types that it does."""
        types, told = {fact.attribute.type for fact in facts}, {fact.attribute.name for fact in facts}
        return [a for a in ATTRIBUTES_OF if a.type in types and a.name not in told and self.statements[a.name]]

    def values(self, kind: str) -> list[str]:
        return {"person": self.people, "year": self.years, "number": self.numbers, "town": self.towns,
                "colour": COLOURS, "thing": THINGS}[kind]  # fmt: skip


def _threes(attributes: list[Attribute]) -> list[tuple[Attribute, ...]]:
    """Three attributes of one type, in all ways."""
    threes = itertools.combinations(attributes, FACTS // 2)
    return [three for three in threes if len({each.type for each in three}) == 1]


@dataclass
class _Fact:
    place: str
    attribute: Attribute
    value: str
    statement: str
    start: int = -1  # of the value in the paragraph


def _facts(words: _Split, rng: random.Random, names: list[str], attributes: tuple[Attribute, ...]) -> list[_Fact]:
    values = {
        kind: iter(rng.sample(words.values(kind), FACTS))
        for kind in dict.fromkeys(attribute.type for attribute in attributes)
    }
    return [
        _Fact(name, attribute, next(values[attribute.type]), rng.choice(words.statements[attribute.name]))
        for attribute in attributes
        for name in names
    ]


def _sentences(facts: list[_Fact], rng: random.Random) -> list[list[_Fact]]:
    """Puts facts together in ones and twos, in any order."""
    left = facts[:]
    rng.shuffle(left)
    sentences = []
    while left:
        fact = left.pop()
        if left and rng.random() < 0.75:
            sentences.append([fact, left.pop()])
        else:
            sentences.append([fact])
    rng.shuffle(sentences)
    return sentences


def _tell(sentences: list[list[_Fact]], lure: str, rng: random.Random) -> str:
    """The paragraph; notes in every fact where its value stands."""
    at = rng.randrange(len(sentences) + 1)
    text = ""
    for index, sentence in enumerate(sentences):
        if index == at:
            text += lure + " "
        previous: _Fact | None = None
        for fact in sentence:
            clause = fact.statement.replace("{e}", fact.place)
            if previous is not None:
                if previous.place == fact.place and previous.statement[:3] == fact.statement[:3] == "{e}":
                    clause = " and" + clause[len(fact.place) :]
                else:
                    clause = rng.choice(JOINS) + clause
            else:
                clause = clause[0].upper() + clause[1:]
            fact.start = len(text) + clause.index("{v}")
            text += clause.replace("{v}", fact.value)
            previous = fact
        text += ". "
    return text + lure if at == len(sentences) else text[:-1]


def _paragraph(words: _Split, rng: random.Random) -> tuple[str, list[_Fact]]:
    places = 2 if rng.random() < TWO_PLACES else 1
    names = [rng.choice(words.names[first]) for first in rng.sample(FIRST, places)]
    facts = _facts(words, rng, names, rng.choice(words.sets[places]))
    lure = rng.choice(LURES).format(a=rng.choice(names))
    return _tell(_sentences(facts, rng), lure, rng), facts


def _articles(split: str, rng: random.Random, count: int, unanswerable: float) -> Iterator[dict[str, Any]]:
    words = _Split(split)
    made = 0
    for number in itertools.count():
        paragraphs: list[dict[str, object]] = []
        while made < count and len(paragraphs) < PARAGRAPHS:
            context, facts = _paragraph(words, rng)
            qas: list[dict[str, object]] = []
            for fact in rng.sample(facts, min(QUESTIONS, count - made)):
                asked, statement = fact.attribute, fact.statement
                answers = [{"text": fact.value, "answer_start": fact.start}]
                if unanswerable and rng.random() < unanswerable:
                    # What is not told, of a type that is.
                    asked, answers = rng.choice(words.untold(facts)), []
                    statement = rng.choice(words.statements[asked.name])
                question = rng.choice(words.questions[asked.name, statement]).replace("{e}", fact.place)
                row: dict[str, object] = {"id": f"{split}-{made:07d}", "question": question, "answers": answers}
                qas.append(row | {"is_impossible": not answers} if unanswerable else row)
                made += 1
            paragraphs.append({"context": context, "qas": qas})
        yield {"title": f"Region_{number}", "paragraphs": paragraphs}
        if made >= count:
            return
