"""Sentence trees of the English-German sample corpus and what each tree is called in the two languages.

A tree leaves no choice open: ``english`` and ``german`` are functions of it. The order of a German clause follows
from the tree alone: verb second in a main clause, verb last in an embedded one, a definite object before and an
indefinite one after manner and place, relative clauses on an object after the closing verb.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from domains.translation.lexicon import (
    ARTICLES,
    BE,
    CONJUNCTIONS,
    CONTRACTIONS,
    HABITS,
    MANNERS,
    MODALS,
    PREPOSITIONS,
    TIMES,
    Adjective,
    Noun,
    Verb,
    declined,
    third_person,
)


@dataclass(frozen=True, slots=True)
class Phrase:
    """A noun phrase. ``determiner`` is "the", "a", "" (bare plural) or a number word; ``attribute`` follows "with"."""

    noun: Noun
    determiner: str = "the"
    plural: bool = False
    adjectives: tuple[Adjective, ...] = ()
    attribute: "Adjunct | None" = None
    relative: "Relative | None" = None


@dataclass(frozen=True, slots=True)
class Group:
    """Two phrases joined by "and"; neither may carry an attribute or a relative clause (its scope would be open)."""

    first: Phrase
    second: Phrase


@dataclass(frozen=True, slots=True)
class Adjunct:
    """An English preposition and its phrase."""

    preposition: str
    phrase: Phrase


@dataclass(frozen=True, slots=True)
class Predicate:
    """A verb and what depends on it; no ``object``: the verb has none, or a relative pronoun stands for it."""

    verb: Verb
    object: Phrase | Group | None = None
    recipient: Phrase | None = None
    goal: Adjunct | None = None
    place: Adjunct | None = None
    manner: str = ""
    quality: Adjective | None = None
    content: "Clause | None" = None


@dataclass(frozen=True, slots=True)
class Subordinate:
    """An adverbial clause; ``fronted`` before its main clause."""

    conjunction: str
    clause: "Clause"
    fronted: bool = False


@dataclass(frozen=True, slots=True)
class Clause:
    """One or two predicates of a subject (None: the relative pronoun). ``front`` is "", "time" or "place".

    ``tense`` is "present", "perfect" or a key of ``MODALS``; two predicates are in the present.
    """

    subject: Phrase | Group | None
    predicates: tuple[Predicate, ...]
    tense: str = "present"
    time: str = ""
    front: str = ""
    adverbial: Subordinate | None = None


@dataclass(frozen=True, slots=True)
class Relative:
    """A relative clause; the pronoun is its "subject", its "object" or the object of the named preposition."""

    role: str
    clause: Clause


@dataclass(frozen=True, slots=True)
class Sentence:
    """One main clause, or two joined by "and" or "but"."""

    clause: Clause
    conjunction: str = ""
    second: Clause | None = None


def english(sentence: Sentence) -> str:
    """The English text: capital first letter, full stop."""
    words = _english_clause(sentence.clause)
    if sentence.second is not None:
        words += ([","] if sentence.conjunction == "but" else []) + [sentence.conjunction]
        words += _english_clause(sentence.second)
    return _text(words)


def german(sentence: Sentence) -> str:
    """The one right German text for ``english(sentence)``."""
    words = _german_clause(sentence.clause, final=False)
    if sentence.second is not None:
        words += ["und"] if sentence.conjunction == "and" else [",", "aber"]
        words += _german_clause(sentence.second, final=False)
    return _text(words)


def clauses(
    part: Sentence | Clause, level: int = 0, head: Noun | None = None
) -> Iterator[tuple[int, Noun | None, Clause]]:
    """Every clause with its embedding level (main: 0) and, in a relative clause, the noun the pronoun stands for."""
    if isinstance(part, Sentence):
        yield from clauses(part.clause)
        if part.second is not None:
            yield from clauses(part.second)
        return
    yield level, head, part
    for predicate in part.predicates:
        if predicate.content is not None:
            yield from clauses(predicate.content, level + 1)
    if part.adverbial is not None:
        yield from clauses(part.adverbial.clause, level + 1)
    for phrase in phrases(part):
        if phrase.relative is not None:
            yield from clauses(phrase.relative.clause, level + 1, phrase.noun)


def phrases(clause: Clause) -> Iterator[Phrase]:
    """The noun phrases of one clause, attributes included, those of embedded clauses not."""
    parts: list[Phrase | Group | Adjunct | None] = [clause.subject]
    for predicate in clause.predicates:
        parts += [predicate.object, predicate.recipient, predicate.goal, predicate.place]
    while parts:
        part = parts.pop(0)
        if isinstance(part, Group):
            parts += [part.first, part.second]
        elif isinstance(part, Adjunct):
            parts.append(part.phrase)
        elif part is not None:
            yield part
            parts.append(part.attribute)


def members(part: Phrase | Group | None) -> tuple[Phrase, ...]:
    """The phrases of a subject or object: none, one or two."""
    if part is None:
        return ()
    return (part.first, part.second) if isinstance(part, Group) else (part,)


def _text(words: list[str]) -> str:
    """Join words; a comma clings to the word before it, and of commas in a row or before the full stop one is kept."""
    text = " ".join(words)
    while ", ," in text:
        text = text.replace(", ,", ",")
    text = text.replace(" ,", ",").strip(" ,") + "."
    return text[0].upper() + text[1:]


# English


def _english_clause(clause: Clause, plural: bool | None = None) -> list[str]:
    """``plural`` is the number of the head noun where the relative pronoun is the subject."""
    plural = _is_plural(clause.subject) if plural is None else plural
    first = clause.predicates[0]
    words: list[str] = []
    if clause.adverbial is not None and clause.adverbial.fronted:
        words += [*_english_adverbial(clause.adverbial), ","]
    if clause.front == "time":
        words.append(clause.time)
    elif clause.front == "place" and first.place is not None:
        words += _english_adjunct(first.place)
    words += _english_nouns(clause.subject)
    for index, predicate in enumerate(clause.predicates):
        words += ["and"] if index else []
        shared = index > 0 and not clause.predicates[0].verb.stative
        words += _english_predicate(predicate, clause, plural=plural, shared=shared)
    if clause.time and clause.front != "time":
        words.append(clause.time)
    if clause.adverbial is not None and not clause.adverbial.fronted:
        words += _english_adverbial(clause.adverbial)
    return words


def _english_adverbial(adverbial: Subordinate) -> list[str]:
    return [adverbial.conjunction, *_english_clause(adverbial.clause)]


def _english_predicate(predicate: Predicate, clause: Clause, *, plural: bool, shared: bool) -> list[str]:
    words = _english_verb(predicate.verb, clause, plural=plural, shared=shared)
    words += _english_nouns(predicate.recipient) + _english_nouns(predicate.object)
    words += [predicate.manner] if predicate.manner else []
    words += _english_adjunct(predicate.goal) if predicate.goal else []
    if predicate.place is not None and not (clause.front == "place" and predicate is clause.predicates[0]):
        words += _english_adjunct(predicate.place)
    words += [predicate.quality.english] if predicate.quality else []
    words += ["that", *_english_clause(predicate.content)] if predicate.content else []
    return words


def _english_verb(verb: Verb, clause: Clause, *, plural: bool, shared: bool) -> list[str]:
    """The verb group; ``shared`` leaves out the auxiliary of a second progressive (is eating and drinking)."""
    if clause.tense == "perfect":
        return ["have" if plural else "has", verb.participle]
    if clause.tense in MODALS:
        return [MODALS[clause.tense][plural], verb.english]
    if verb is BE:
        return ["are" if plural else "is"]
    if verb.stative or clause.time in HABITS:
        return [verb.english if plural else third_person(verb.english)]
    return [verb.ing] if shared else ["are" if plural else "is", verb.ing]


def _english_adjunct(adjunct: Adjunct) -> list[str]:
    return [adjunct.preposition, *_english_nouns(adjunct.phrase)]


def _english_nouns(part: Phrase | Group | None) -> list[str]:
    if part is None:
        return []
    if isinstance(part, Group):
        return [*_english_nouns(part.first), "and", *_english_nouns(part.second)]
    words = list(_english_head(part.noun, part.determiner, part.plural, part.adjectives))
    words += _english_adjunct(part.attribute) if part.attribute else []
    if part.relative is not None:
        words += _english_relative(part.relative, part)
    return words


@lru_cache(maxsize=65_536)
def _english_head(noun: Noun, determiner: str, plural: bool, adjectives: tuple[Adjective, ...]) -> tuple[str, ...]:
    words = (*(adjective.english for adjective in adjectives), noun.english_plural if plural else noun.english)
    if not determiner:
        return words
    return ("an" if determiner == "a" and words[0][0] in "aeiou" else determiner, *words)


def _english_relative(relative: Relative, head: Phrase) -> list[str]:
    person = head.noun.kind == "person"
    if relative.role == "subject":
        return ["who" if person else "that", *_english_clause(relative.clause, head.plural)]
    if relative.role == "object":
        return ["whom" if person else "that", *_english_clause(relative.clause)]
    return [relative.role, "whom" if person else "which", *_english_clause(relative.clause)]


def _is_plural(part: Phrase | Group | None) -> bool:
    return isinstance(part, Group) or (part is not None and part.plural)


# German


def _german_clause(clause: Clause, *, final: bool, plural: bool | None = None) -> list[str]:
    """``final``: the finite verb comes last. ``plural`` as in English: the number of a relative subject pronoun."""
    plural = _is_plural(clause.subject) if plural is None else plural
    words: list[str] = []
    fields = [] if final else _front(clause)
    inner = _german_nouns(clause.subject, "nom") if final or _has_front(clause) else []
    if clause.time and clause.front != "time":
        inner.append(TIMES.get(clause.time) or HABITS[clause.time])
    for index, predicate in enumerate(clause.predicates):
        finite, closing = _german_verb(predicate.verb, clause.tense, plural)
        fronted = index == 0 and clause.front == "place"
        middle = ([] if index else inner) + _middle(predicate, place=None if fronted else predicate.place)
        words += ["und"] if index else []
        if final:
            joined = [closing + finite] if closing == predicate.verb.particle else [closing, finite]
            words += [*middle, *joined]
        else:
            words += [*([] if index else fields), finite, *middle, *([closing] if closing else [])]
        words += _after(predicate)
    if clause.adverbial is not None and not clause.adverbial.fronted:
        words += _german_adverbial(clause.adverbial)
    return words


def _has_front(clause: Clause) -> bool:
    return bool(clause.front) or (clause.adverbial is not None and clause.adverbial.fronted)


def _front(clause: Clause) -> list[str]:
    """What stands before the finite verb of a main clause: one constituent."""
    if clause.adverbial is not None and clause.adverbial.fronted:
        return _german_adverbial(clause.adverbial)
    if clause.front == "time":
        return [TIMES.get(clause.time) or HABITS[clause.time]]
    place = clause.predicates[0].place
    if clause.front == "place" and place is not None:
        return _german_adjunct(place)
    return _german_nouns(clause.subject, "nom")


def _german_adverbial(adverbial: Subordinate) -> list[str]:
    return [",", CONJUNCTIONS[adverbial.conjunction], *_german_clause(adverbial.clause, final=True), ","]


def _middle(predicate: Predicate, *, place: Adjunct | None) -> list[str]:
    """What stands between subject (and time) and the closing verb."""
    verb, target = predicate.verb, predicate.object
    words = _german_nouns(predicate.recipient, "dat")
    early = target is not None and not verb.preposition and all(m.determiner == "the" for m in members(target))
    target_words = [verb.preposition] if verb.preposition and target is not None else []
    target_words += _german_nouns(target, verb.case, relative=False)
    words += target_words if early else []
    words += [MANNERS[predicate.manner]] if predicate.manner else []
    words += _german_adjunct(place) if place else []
    words += [] if early else target_words
    words += _german_adjunct(predicate.goal) if predicate.goal else []
    return words + ([predicate.quality.german] if predicate.quality else [])


def _after(predicate: Predicate) -> list[str]:
    """What follows the closing verb: the object's relative clause and the clause of what is said."""
    words: list[str] = []
    if isinstance(predicate.object, Phrase) and predicate.object.relative is not None:
        words += _german_relative(predicate.object.relative, predicate.object)
    if predicate.content is not None:
        words += [",", "dass", *_german_clause(predicate.content, final=True), ","]
    return words


def _german_verb(verb: Verb, tense: str, plural: bool) -> tuple[str, str]:
    """The finite verb and what closes the clause: a particle, an infinitive, a participle or nothing."""
    if tense == "perfect":
        auxiliary = {"haben": ("hat", "haben"), "sein": ("ist", "sind")}[verb.auxiliary][plural]
        return auxiliary, verb.particle + verb.german_participle
    if tense in MODALS:
        return MODALS[tense][2 + plural], verb.particle + verb.infinitive
    if verb is BE:
        return ("sind" if plural else "ist"), ""
    return (verb.infinitive if plural else verb.singular), verb.particle


def _german_adjunct(adjunct: Adjunct) -> list[str]:
    preposition, case = PREPOSITIONS[adjunct.preposition]
    words = _german_nouns(adjunct.phrase, case)
    contraction = CONTRACTIONS.get((preposition, words[0])) if not adjunct.phrase.plural else None
    return [contraction, *words[1:]] if contraction else [preposition, *words]


def _german_nouns(part: Phrase | Group | None, case: str, *, relative: bool = True) -> list[str]:
    if part is None:
        return []
    if isinstance(part, Group):
        return [*_german_nouns(part.first, case), "und", *_german_nouns(part.second, case)]
    words = list(declined(part.noun, part.determiner, part.plural, part.adjectives, case))
    words += _german_adjunct(part.attribute) if part.attribute else []
    if relative and part.relative is not None:
        words += _german_relative(part.relative, part)
    return words


def _german_relative(relative: Relative, head: Phrase) -> list[str]:
    clause = relative.clause
    preposition, case = "", "nom"
    if relative.role == "object":
        case = clause.predicates[0].verb.case
    elif relative.role != "subject":
        preposition, case = PREPOSITIONS[relative.role]
    pronoun = "denen" if head.plural and case == "dat" else ARTICLES[case]["p" if head.plural else head.noun.gender]
    plural = head.plural if relative.role == "subject" else None
    words = [preposition, pronoun] if preposition else [pronoun]
    return [",", *words, *_german_clause(clause, final=True, plural=plural), ","]
