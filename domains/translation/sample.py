"""A parallel English-German corpus written from our own grammar: nothing to download, and one right translation each.

``train``, ``validation`` and ``test`` share one distribution; a hash of the English text says which of the three a
sentence belongs to, so none is in two of them whatever the seed. ``test_unseen`` has word combinations and
``test_deeper`` nesting depths that the three never have.
"""

import hashlib
import random
from collections.abc import Iterator
from functools import cache
from typing import TypeVar

from domains.translation.grammar import (
    Adjunct,
    Clause,
    Group,
    Phrase,
    Predicate,
    Relative,
    Sentence,
    Subordinate,
    clauses,
    english,
    german,
    members,
    phrases,
)
from domains.translation.lexicon import (
    ADJECTIVES,
    BE,
    CONJUNCTIONS,
    DIRECTIONS,
    HABITS,
    MANNERS,
    MODALS,
    NOUNS,
    NUMBERS,
    PLACES,
    TIMES,
    VERBS,
    Adjective,
    Noun,
    Verb,
)
from suite.errors import UsageError

SPLITS = ("train", "validation", "test", "test_unseen", "test_deeper")
SIZES = {"train": 24_000, "validation": 500, "test": 1_000, "test_unseen": 1_000, "test_deeper": 1_000}
LONGEST = {"train": 30, "validation": 30, "test": 30, "test_unseen": 30, "test_deeper": 50}
TRAIN_DEPTH = 2
HELD_OUT_SHARE = 0.1

_T = TypeVar("_T")
_DEPTHS = (0, 0, 0, 0, 0, 1, 1, 1, 1, 2)
_DEEPER = (3, 3, 4)
_PERSONS = tuple(noun for noun in NOUNS.values() if noun.kind == "person")
_ANIMALS = tuple(noun for noun in NOUNS.values() if noun.kind == "animal")
_PORTABLE = tuple(noun for noun in NOUNS.values() if "portable" in noun.uses)
_SCENERY = tuple(noun for noun in NOUNS.values() if noun.kind == "place")
_SITES = {name: tuple(noun for noun in NOUNS.values() if name in noun.uses) for name in (*PLACES, *DIRECTIONS)}
_EVENTS = ("get up", "fall asleep")
_CONJUNCTIONS = tuple(CONJUNCTIONS)
_MANNERS = tuple(MANNERS)
_MODALS = tuple(MODALS)
_TIMES = (*TIMES, *HABITS)
_PAST_TIMES = tuple(time for time in _TIMES if time not in ("now", "at the moment", "every day"))


def generate(split: str, *, size: int | None = None, seed: int = 0) -> list[tuple[str, str]]:
    """``size`` distinct (English, German) pairs of a split; ``SIZES[split]`` where none is given.

    The same call gives the same pairs in every process, and a smaller size the first of a larger one.
    Raises ``UsageError`` for a split that is not in ``SPLITS`` or a negative size.
    """
    return [(english(tree), german(tree)) for tree in trees(split, size=size, seed=seed)]


def trees(split: str, *, size: int | None = None, seed: int = 0) -> Iterator[Sentence]:
    """The sentence trees behind ``generate``, one at a time; same arguments, same errors, raised at once."""
    if split not in SPLITS:
        raise UsageError(f"split: got {split!r}; allowed are {', '.join(SPLITS)}")
    wanted = SIZES[split] if size is None else size
    if wanted < 0:
        raise UsageError(f"size: got {size}; give 0 or more")
    seen: set[str] = set()
    return (_tree(split, f"{seed}/{split}/{index}", seen) for index in range(wanted))


def split_of(sentence: str) -> str:
    """Which of train, validation and test an English sentence of theirs belongs to."""
    value = hashlib.blake2b(sentence.encode(), digest_size=2).digest()
    share = int.from_bytes(value, "big") / 65_536
    return "train" if share < 0.8 else "validation" if share < 0.87 else "test"


def held_out(kind: str, left: str, right: str) -> bool:
    """Whether only ``test_unseen`` may combine two words; ``kind`` is "adjective", "verb" or "number"."""
    value = hashlib.blake2b(f"{kind}/{left}/{right}".encode(), digest_size=2).digest()
    return int.from_bytes(value, "big") / 65_536 < HELD_OUT_SHARE


def combinations(sentence: Sentence) -> Iterator[tuple[str, str, str]]:
    """The (kind, word, noun) combinations of a sentence that ``held_out`` judges, in dictionary forms."""
    for _, head, clause in clauses(sentence):
        for phrase in phrases(clause):
            yield from (("adjective", adjective.english, phrase.noun.english) for adjective in phrase.adjectives)
            if phrase.determiner in NUMBERS:
                yield "number", phrase.determiner, phrase.noun.english
        for predicate in clause.predicates:
            targets = [member.noun for member in members(predicate.object)]
            if not targets and predicate.verb.objects and head is not None:
                targets = [head]
            yield from (("verb", predicate.verb.english, noun.english) for noun in targets)
            if predicate.quality is not None:
                subjects = [member.noun for member in members(clause.subject)] or ([head] if head else [])
                yield from (("adjective", predicate.quality.english, noun.english) for noun in subjects)


def depth(sentence: Sentence) -> int:
    """How many clauses deep a sentence is nested; 0 without an embedded clause."""
    return max(level for level, _, _ in clauses(sentence))


def _tree(split: str, key: str, seen: set[str]) -> Sentence:
    """Draw until a sentence fits its split and is new, then note it in ``seen``."""
    rng = random.Random(hashlib.sha256(key.encode()).digest())
    writer = _Writer(rng, unseen=split == "test_unseen")
    while True:
        tree = writer.sentence(rng.choice(_DEEPER if split == "test_deeper" else _DEPTHS))
        if split == "test_unseen" and not any(held_out(*combination) for combination in combinations(tree)):
            continue
        text = english(tree)
        wrong = split in ("train", "validation", "test") and split_of(text) != split
        if wrong or text in seen or text.count(" ") >= LONGEST[split]:
            continue
        seen.add(text)
        return tree


@cache
def _adjectives(noun: Noun, unseen: bool) -> tuple[Adjective, ...]:
    fitting = (adjective for adjective in ADJECTIVES.values() if noun.kind in adjective.kinds)
    return tuple(a for a in fitting if unseen or not held_out("adjective", a.english, noun.english))


@cache
def _numbers(noun: Noun, unseen: bool) -> tuple[str, ...]:
    return tuple(number for number in NUMBERS if unseen or not held_out("number", number, noun.english))


@cache
def _objects(verb: Verb, unseen: bool) -> tuple[Noun, ...]:
    fitting = (noun for noun in NOUNS.values() if noun.uses & verb.objects)
    return tuple(noun for noun in fitting if unseen or not held_out("verb", verb.english, noun.english))


@cache
def _verbs(frame: str, subject: str) -> tuple[Verb, ...]:
    return tuple(verb for verb in VERBS.values() if verb.frame == frame and subject in verb.subjects)


@cache
def _verbs_with(noun: Noun, subject: str, unseen: bool) -> tuple[Verb, ...]:
    """Verbs of which ``noun`` can be the object and a relative pronoun without preposition can stand for it."""
    fitting = (verb for verb in _verbs("object", subject) if not verb.preposition)
    return tuple(verb for verb in fitting if noun in _objects(verb, unseen))


class _Writer:
    """Draws sentence trees that the grammar renders without ambiguity."""

    def __init__(self, rng: random.Random, *, unseen: bool) -> None:
        self.random = rng.random
        self.unseen = unseen
        self.used: list[str] = []

    def sentence(self, depth: int) -> Sentence:
        """A sentence nested exactly ``depth`` clauses deep, with no conjunction twice and one time at most."""
        self.used.clear()
        if depth <= 1 and self._chance(0.12):
            # The first of two clauses embeds nothing: where its embedded clause ended would be open.
            first = self._clause(0, main=True, single=True)
            return Sentence(first, self._pick(("and", "and", "but")), self._clause(depth, single=True))
        return Sentence(self._clause(depth, main=True))

    def _pick(self, options: tuple[_T, ...]) -> _T:
        return options[int(self.random() * len(options))]

    def _chance(self, probability: float) -> bool:
        return self.random() < probability

    def _clause(self, depth: int, *, main: bool = False, single: bool = False) -> Clause:
        """A clause with a subject of its own; ``main`` allows fronting, ``single`` forbids a second predicate."""
        embedding = self._pick(("adverbial", "adverbial", "subject", "object", "object", "content")) if depth else ""
        if embedding == "subject" and depth > 2:
            # Deeper inside a subject, the predicate comes too late for any reader.
            embedding = "object"
        if embedding in ("", "adverbial") and self._chance(0.14):
            noun = self._pick(_PORTABLE if self._chance(0.75) else _SCENERY)
            subject: Phrase | Group = self._phrase(noun, bare=False, least=int(self._chance(0.6)))
            return self._complete(subject, noun.kind, depth, embedding, main=main, single=True)
        noun = self._pick(_PERSONS if embedding == "content" or self._chance(0.7) else _ANIMALS)
        if embedding == "subject":
            subject = self._phrase(noun, relative_depth=depth - 1)
        elif self._chance(0.1):
            subject = self._group(noun, self._pick(_PERSONS if noun.kind == "person" else _ANIMALS))
        else:
            subject = self._phrase(noun, attribute=0.15)
        return self._complete(subject, noun.kind, depth, embedding, main=main, single=single)

    def _complete(
        self, subject: Phrase | Group | None, kind: str, depth: int, embedding: str, *, main: bool, single: bool,
        head: Phrase | None = None,
    ) -> Clause:  # fmt: skip
        """Add predicates, tense, adverbs and an adverbial clause to a subject of ``kind``."""
        adverbial = self._adverbial(depth, fronted=main and self._chance(0.4)) if embedding == "adverbial" else None
        described = subject if isinstance(subject, Phrase) else head
        first = self._predicate(kind, embedding, depth, described)
        fronting = main and not (adverbial is not None and adverbial.fronted)
        closed = first.content is not None or (isinstance(first.object, Phrase) and first.object.relative is not None)
        front, time = "", ""
        predicates: tuple[Predicate, ...] = (first,)
        pairable = not (closed or single or first.verb.stative or first.verb.frame == "gift")
        if pairable and self._chance(0.1):
            predicates = (first, self._second(kind, first.verb))
        tense = self._tense(first, kind) if len(predicates) == 1 else "present"
        if "time" not in self.used and self._chance(0.3 if main else 0.12):
            front = "time" if fronting and (closed or len(predicates) == 2 or self._chance(0.6)) else ""
            time = self._time(tense) if front or not (closed or len(predicates) == 2) else ""
        elif fronting and first.place is not None and self._chance(0.4):
            front = "place"
        return Clause(subject, predicates, tense, time, front, adverbial)

    def _adverbial(self, depth: int, *, fronted: bool) -> Subordinate:
        conjunction = self._pick(tuple(name for name in _CONJUNCTIONS if name not in self.used))
        self.used.append(conjunction)
        return Subordinate(conjunction, self._clause(depth - 1), fronted)

    def _tense(self, predicate: Predicate, kind: str) -> str:
        if predicate.verb is BE or kind in ("thing", "place") or self._chance(0.74):
            return "present"
        if predicate.content is not None or self._chance(0.45):
            return "perfect"
        return self._pick(_MODALS)

    def _time(self, tense: str) -> str:
        self.used.append("time")
        return self._pick(_PAST_TIMES if tense == "perfect" else _TIMES)

    def _predicate(self, kind: str, embedding: str, depth: int, described: Phrase | None) -> Predicate:
        """``described`` is the subject if it is one phrase; an adjective after "is" must suit it."""
        if embedding == "content":
            return Predicate(self._pick(_verbs("content", kind)), content=self._clause(depth - 1))
        if embedding == "object":
            return self._action(kind, relative_depth=depth - 1)
        if kind in ("thing", "place"):
            lying = kind == "thing" and self._chance(0.7)
            return self._rest(VERBS["lie"]) if lying else self._description(described)
        draw = self.random()
        if draw < 0.07 and described is not None:
            return self._description(described)
        if draw < 0.25:
            return self._rest(self._pick(_verbs("rest", kind)))
        if draw < 0.37:
            return self._motion(kind)
        return self._gift() if draw < 0.46 and kind == "person" else self._action(kind)

    def _second(self, kind: str, first: Verb) -> Predicate:
        """A second predicate of the same subject, with a progressive form and another verb."""
        while True:
            second = self._predicate(kind, "", 0, None)
            if not second.verb.stative and second.verb is not first:
                return second

    def _description(self, phrase: Phrase | None) -> Predicate:
        """An adjective after "is" that says something new about a phrase."""
        assert phrase is not None
        ranks = [adjective.rank for adjective in phrase.adjectives]
        fitting = _adjectives(phrase.noun, self.unseen)
        return Predicate(BE, quality=self._pick(tuple(a for a in fitting if a.rank not in ranks)))

    def _rest(self, verb: Verb) -> Predicate:
        where = verb.english not in _EVENTS and (verb.english in ("sit", "lie") or self._chance(0.5))
        return Predicate(verb, manner=self._manner(verb), place=self._adjunct(PLACES) if where else None)

    def _motion(self, kind: str) -> Predicate:
        verb = self._pick(_verbs("motion", kind))
        return Predicate(verb, manner=self._manner(verb), goal=self._adjunct(DIRECTIONS))

    def _gift(self) -> Predicate:
        verb = self._pick(_verbs("gift", "person"))
        recipient = self._phrase(self._pick(_PERSONS), most=1)
        return Predicate(verb, self._phrase(self._pick(_objects(verb, self.unseen))), recipient)

    def _action(self, kind: str, relative_depth: int = -1) -> Predicate:
        verb = self._pick(_verbs("object", kind))
        nouns = _objects(verb, self.unseen)
        noun = self._pick(nouns)
        if relative_depth >= 0:
            return Predicate(verb, self._phrase(noun, relative_depth=relative_depth))
        if self._chance(0.12):
            target: Phrase | Group = self._group(noun, self._pick(nouns))
        else:
            target = self._phrase(noun, attribute=0.1)
        place = self._adjunct(PLACES) if noun.kind != "place" and self._chance(0.25) else None
        return Predicate(verb, target, manner=self._manner(verb), place=place)

    def _manner(self, verb: Verb) -> str:
        return self._pick(_MANNERS) if verb.manner and self._chance(0.2) else ""

    def _adjunct(self, prepositions: tuple[str, ...]) -> Adjunct:
        preposition = self._pick(prepositions)
        return Adjunct(preposition, self._phrase(self._pick(_SITES[preposition]), most=1, plural=0.2))

    def _group(self, first: Noun, second: Noun) -> Group:
        return Group(self._phrase(first, most=1), self._phrase(second, most=1))

    def _phrase(
        self,
        noun: Noun,
        *,
        least: int = 0,
        most: int = 2,
        plural: float = 0.35,
        attribute: float = 0.0,
        bare: bool = True,
        relative_depth: int = -1,
    ) -> Phrase:
        """A phrase with ``least`` to ``most`` adjectives; ``plural`` and ``attribute`` are probabilities."""
        many = self._chance(plural)
        determiner = self._pick(("the", "the", "#", "#", "" if bare else "the")) if many else self._pick(("the", "a"))
        if determiner == "#":
            determiner = self._pick(_numbers(noun, self.unseen))
        draw = self.random()
        adjectives = self._row(noun, max(least, 0 if draw < 0.63 else 1 if draw < 0.92 else most))
        extra, relative = None, None
        if relative_depth >= 0:
            relative = self._relative(Phrase(noun, adjectives=adjectives), relative_depth)
        elif attribute and noun.kind in ("person", "animal") and self._chance(attribute):
            preposition = self._pick(("with", "with", "without"))
            extra = Adjunct(preposition, self._phrase(self._pick(_PORTABLE), most=1))
        return Phrase(noun, determiner, many, adjectives, extra, relative)

    def _row(self, noun: Noun, count: int) -> tuple[Adjective, ...]:
        """Up to ``count`` adjectives in the order of their ranks, no rank twice."""
        if count == 0:
            return ()
        known = _adjectives(noun, self.unseen)
        first, second = self._pick(known), self._pick(known)
        if count == 1 or first.rank == second.rank:
            return (first,)
        return (first, second) if first.rank < second.rank else (second, first)

    def _relative(self, head: Phrase, depth: int) -> Relative:
        """A relative clause on ``head`` that is itself nested ``depth`` clauses deep."""
        noun = head.noun
        if noun.kind == "place" and not noun.uses.isdisjoint(PLACES) and self._chance(0.6):
            return self._site_relative(noun, depth)
        embedding = self._pick(("adverbial", "object", "content")) if depth else ""
        living = noun.kind in ("person", "animal")
        if living and self._chance(0.6):
            if embedding == "content" and noun.kind == "animal":
                embedding = "object"
            clause = self._complete(None, noun.kind, depth, embedding, main=False, single=False, head=head)
            return Relative("subject", clause)
        if not living and depth == 0 and self._chance(0.4):
            return Relative("subject", Clause(None, (self._predicate(noun.kind, "", 0, head),)))
        return self._object_relative(noun, depth)

    def _object_relative(self, noun: Noun, depth: int) -> Relative:
        """The pronoun is the object; what is nested deeper hangs on an adverbial clause or on the subject."""
        verb = self._pick(_verbs_with(noun, "person", self.unseen))
        nested = depth > 1 or (depth > 0 and self._chance(0.7))
        subject = self._phrase(self._pick(_PERSONS), most=1, relative_depth=-1 if nested else depth - 1)
        adverbial = self._adverbial(depth, fronted=False) if nested else None
        place = self._adjunct(PLACES) if noun.kind != "place" and self._chance(0.25) else None
        predicate = Predicate(verb, manner=self._manner(verb), place=place)
        return Relative("object", Clause(subject, (predicate,), self._tense(predicate, "person"), adverbial=adverbial))

    def _site_relative(self, noun: Noun, depth: int) -> Relative:
        """The pronoun stands after a preposition of place (in which two dogs are sleeping)."""
        preposition = self._pick(tuple(name for name in PLACES if name in noun.uses))
        kind = self._pick(("person", "animal"))
        verb = self._pick(tuple(verb for verb in _verbs("rest", kind) if verb.english not in _EVENTS))
        adverbial = self._adverbial(depth, fronted=False) if depth else None
        subject = self._phrase(self._pick(_PERSONS if kind == "person" else _ANIMALS))
        predicate = Predicate(verb, manner=self._manner(verb))
        return Relative(preposition, Clause(subject, (predicate,), adverbial=adverbial))
