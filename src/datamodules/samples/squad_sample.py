"""A generated question answering data set in SQuAD's official layout: seeded, no network, thousands of questions in seconds.

A paragraph states six facts about one invented building or site (an entity), or three about each of two. Every
question asks for one fact. Three properties make it a reading task:

- the facts are of two types only, so that every answer has distractors of its type: besides the person who founded the
  entity, the paragraph names those who manage it and visited it; a paragraph about two entities states the same
  attributes of both;
- questions use other words for an attribute than the text, and every sentence names the entity, so that word overlap
  does not find the sentence;
- sentences are shuffled, and most of them hold two facts.

The development split consists of combinations that never occur in training: of name parts, of question and statement
wordings, of attributes in one paragraph. Which combinations are held out does not depend on the seed.
"""

import itertools
import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Part of the fingerprints of generated data. Replace it, by any new value, with every change of what is generated
# (tests/test_samples.py pins the output), and never otherwise: caches and comparable runs depend on it.
FINGERPRINT = "cf6b312df49ffe2c3f10c37dc13787acbf706a12c6c81f27ce54e15f1ffbdc56"

FACTS = 6  # in a paragraph
TWO_ENTITIES = 0.2  # share of paragraphs about two entities
QUESTIONS = 4  # at most, about one paragraph
PARAGRAPHS = 20  # in an article
HELD_OUT = 5  # one combination in HELD_OUT is reserved for the development split


@dataclass(frozen=True)
class Attribute:
    """A property of an entity.

    Attributes:
        name: identifies the attribute.
        type: of its values, a key of `OPENINGS`.
        statements: sentences with {e} for the entity and {v} for the value; those that begin with {e} can share
            their subject with another.
        questions: with {e}, to follow any of the type's openings; they share no content word with the statements.
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

ATTRIBUTES = tuple(
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

# Sentences that name an entity and state no fact: they share as many words with a question as the answer's sentence.
DISTRACTORS = (
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
GIVEN_NAMES = _words("""
    Ada Alma Anton Bella Boris Carl Clara David Edith Elsa Emil Eva Felix Frida Greta Hanna Hugo Ida Igor Ivan Jonas
    Julia Karl Laura Leo Lena Lukas Maria Max Nina Oskar Otto Paula Peter Rosa Rudolf Simon Stella Tom Vera
""")
FAMILY_NAMES = _words("""
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


def write(folder: Path, seed: int, train: int, val: int, unanswerable: float = 0.0) -> None:
    """Write `train-v1.1.json` and `dev-v1.1.json`, or `-v2.0` with unanswerable questions, into a folder.

    Args:
        folder: created if it does not exist.
        seed: equal seeds, counts and shares give equal bytes.
        train: number of training questions.
        val: number of questions in the development split.
        unanswerable: share of questions, in [0, 1), that the paragraph does not answer; above 0 the layout is 2.0's.

    Raises:
        ValueError: a count below 1 or a share outside [0, 1).
    """
    if train < 1 or val < 1 or not 0 <= unanswerable < 1:
        raise ValueError(f"train={train} and val={val} must be at least 1, unanswerable={unanswerable} in [0, 1)")
    folder.mkdir(parents=True, exist_ok=True)
    version, suffix = ("v2.0", "v2.0") if unanswerable else ("1.1", "v1.1")
    for split, count in (("train", train), ("dev", val)):
        data = list(_articles(split, random.Random(f"{seed} {split}"), count, unanswerable))
        content = json.dumps({"data": data, "version": version})
        (folder / f"{split}-{suffix}.json").write_text(content, encoding="utf-8")


class _Vocabulary:
    """Names, values and wordings that a split may combine."""

    def __init__(self, split: str) -> None:
        def allowed(*parts: str) -> bool:
            held_out = zlib.crc32("|".join(parts).encode()) % HELD_OUT == 0
            return held_out == (split == "dev")

        self.names = {a: [(a + b).capitalize() for b in SECOND if allowed("name", a, b)] for a in FIRST}
        self.values = {
            "person": [f"{a} {b}" for a in GIVEN_NAMES for b in FAMILY_NAMES if allowed("person", a, b)],
            "year": [str(year) for year in range(1500, 1980)],
            "number": [str(number) for number in range(10, 100)],
            "town": [(a + b).capitalize() for a in TOWN_FIRST for b in TOWN_SECOND if allowed("town", a, b)],
            "colour": COLOURS,
            "thing": THINGS,
        }
        # (attribute, statement) -> complete questions
        self.questions: dict[tuple[str, str], list[str]] = {}
        for attribute in ATTRIBUTES:
            for statement in attribute.statements:
                self.questions[attribute.name, statement] = [
                    f"{opening} {question}"
                    for opening in OPENINGS[attribute.type]
                    for question in attribute.questions
                    if allowed("wording", statement, opening, question)
                ]
        # Statements for which the split has questions.
        self.statements = {
            attribute.name: [text for text in attribute.statements if self.questions[attribute.name, text]]
            for attribute in ATTRIBUTES
        }
        self.attributes = [attribute for attribute in ATTRIBUTES if self.statements[attribute.name]]
        triples = list(itertools.combinations(self.attributes, FACTS // 2))
        same_type = [triple for triple in triples if _type_count(triple) == 1]
        # By number of entities: the attributes of each of them in one paragraph, always of two types.
        self.sets = {
            1: [
                a + b
                for a, b in itertools.combinations(same_type, 2)
                if _type_count(a + b) == 2 and allowed("attributes", *(attribute.name for attribute in a + b))
            ],
            2: [
                triple
                for triple in triples
                if _type_count(triple) == 2 and allowed("attributes", *(attribute.name for attribute in triple))
            ],
        }

    def absent_attributes(self, facts: list["_Fact"]) -> list[Attribute]:
        """Return the attributes that a paragraph does not state, of the types that it states."""
        types, names = {fact.attribute.type for fact in facts}, {fact.attribute.name for fact in facts}
        return [attribute for attribute in self.attributes if attribute.type in types and attribute.name not in names]


def _type_count(attributes: tuple[Attribute, ...]) -> int:
    return len({attribute.type for attribute in attributes})


@dataclass
class _Fact:
    entity: str
    attribute: Attribute
    value: str
    statement: str
    start: int = -1  # of the value in the paragraph


def _facts(
    vocabulary: _Vocabulary, rng: random.Random, entities: list[str], attributes: tuple[Attribute, ...]
) -> list[_Fact]:
    values = {
        kind: iter(rng.sample(vocabulary.values[kind], FACTS))
        for kind in dict.fromkeys(attribute.type for attribute in attributes)
    }
    return [
        _Fact(entity, attribute, next(values[attribute.type]), rng.choice(vocabulary.statements[attribute.name]))
        for attribute in attributes
        for entity in entities
    ]


def _sentences(facts: list[_Fact], rng: random.Random) -> list[list[_Fact]]:
    """Group facts into sentences of one or two, shuffled."""
    remaining = facts[:]
    rng.shuffle(remaining)
    sentences = []
    while remaining:
        fact = remaining.pop()
        if remaining and rng.random() < 0.75:
            sentences.append([fact, remaining.pop()])
        else:
            sentences.append([fact])
    rng.shuffle(sentences)
    return sentences


def _compose(sentences: list[list[_Fact]], distractor: str, rng: random.Random) -> str:
    """Return the paragraph, and record in every fact where its value begins."""
    position = rng.randrange(len(sentences) + 1)
    text = ""
    for index, sentence in enumerate(sentences):
        if index == position:
            text += distractor + " "
        previous: _Fact | None = None
        for fact in sentence:
            clause = fact.statement.replace("{e}", fact.entity)
            if previous is None:
                clause = clause[0].upper() + clause[1:]
            elif previous.entity == fact.entity and previous.statement[:3] == fact.statement[:3] == "{e}":
                clause = " and" + clause[len(fact.entity) :]
            else:
                clause = rng.choice(JOINS) + clause
            fact.start = len(text) + clause.index("{v}")
            text += clause.replace("{v}", fact.value)
            previous = fact
        text += ". "
    return text + distractor if position == len(sentences) else text[:-1]


def _paragraph(vocabulary: _Vocabulary, rng: random.Random) -> tuple[str, list[_Fact]]:
    count = 2 if rng.random() < TWO_ENTITIES else 1
    entities = [rng.choice(vocabulary.names[first]) for first in rng.sample(FIRST, count)]
    facts = _facts(vocabulary, rng, entities, rng.choice(vocabulary.sets[count]))
    distractor = rng.choice(DISTRACTORS).format(a=rng.choice(entities))
    return _compose(_sentences(facts, rng), distractor, rng), facts


def _articles(split: str, rng: random.Random, count: int, unanswerable: float) -> Iterator[dict[str, Any]]:
    vocabulary = _Vocabulary(split)
    written = 0
    for number in itertools.count():
        paragraphs: list[dict[str, object]] = []
        while written < count and len(paragraphs) < PARAGRAPHS:
            context, facts = _paragraph(vocabulary, rng)
            qas: list[dict[str, object]] = []
            for fact in rng.sample(facts, min(QUESTIONS, count - written)):
                attribute, statement = fact.attribute, fact.statement
                answers = [{"text": fact.value, "answer_start": fact.start}]
                if unanswerable and rng.random() < unanswerable:
                    attribute, answers = rng.choice(vocabulary.absent_attributes(facts)), []
                    statement = rng.choice(vocabulary.statements[attribute.name])
                question = rng.choice(vocabulary.questions[attribute.name, statement]).replace("{e}", fact.entity)
                row: dict[str, object] = {"id": f"{split}-{written:07d}", "question": question, "answers": answers}
                qas.append(row | {"is_impossible": not answers} if unanswerable else row)
                written += 1
            paragraphs.append({"context": context, "qas": qas})
        yield {"title": f"Region_{number}", "paragraphs": paragraphs}
        if written >= count:
            return
