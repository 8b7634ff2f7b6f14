"""The English-German sample corpus: its grammar against hand-written German, and what its splits promise."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from domains.translation.grammar import (
    Adjunct,
    Clause,
    Group,
    Phrase,
    Predicate,
    Relative,
    Sentence,
    Subordinate,
    english,
    german,
)
from domains.translation.lexicon import ADJECTIVES, BE, NOUNS, NUMBERS, VERBS, declined
from domains.translation.sample import (
    SIZES,
    SPLITS,
    TRAIN_DEPTH,
    combinations,
    depth,
    generate,
    held_out,
    split_of,
    trees,
)
from suite.errors import UsageError

SHARED = ("train", "validation", "test")


def np(text: str, **parts) -> Phrase:
    """Read determiner, adjectives and noun ("a aunt": the grammar writes "an")."""
    *words, last = text.split()
    plurals = {noun.english_plural: noun for noun in NOUNS.values()}
    determiner = words.pop(0) if words and words[0] in ("the", "a", *NUMBERS) else ""
    adjectives = tuple(ADJECTIVES[word] for word in words)
    plural = last in plurals
    return Phrase(plurals[last] if plural else NOUNS[last], determiner, plural, adjectives, **parts)


def at(preposition: str, text: str) -> Adjunct:
    return Adjunct(preposition, np(text))


def do(verb: str, text: str = "", **parts) -> Predicate:
    return Predicate(VERBS[verb], np(text) if text else parts.pop("object", None), **parts)


def say(subject: str | Phrase | Group | None, *predicates: Predicate, **parts) -> Clause:
    return Clause(np(subject) if isinstance(subject, str) else subject, predicates, **parts)


DOG_SLEEPS = say("the dog", do("sleep"))
GOLDEN = [
    # Articles and adjectives: mixed, weak and strong endings in three cases.
    (
        say("a small boy", do("carry", "two red balls")),
        "A small boy is carrying two red balls.",
        "Ein kleiner Junge trägt zwei rote Bälle.",
    ),
    (
        say("the old woman", do("see", "the expensive hat")),
        "The old woman sees the expensive hat.",
        "Die alte Frau sieht den teuren Hut.",
    ),
    (
        say("a happy child", do("draw", "a dark house")),
        "A happy child is drawing a dark house.",
        "Ein glückliches Kind zeichnet ein dunkles Haus.",
    ),
    # The dative: after helfen, as a recipient, with plural -n; weak nouns.
    (
        say("the girls", do("help", "a tired student")),
        "The girls are helping a tired student.",
        "Die Mädchen helfen einem müden Studenten.",
    ),
    (
        say("a aunt", do("give", "a pear", recipient=np("three small children"))),
        "An aunt is giving three small children a pear.",
        "Eine Tante gibt drei kleinen Kindern eine Birne.",
    ),
    (
        say("the queen", do("wait for", "the neighbour", place=at("under", "ten trees"))),
        "The queen is waiting for the neighbour under ten trees.",
        "Die Königin wartet unter zehn Bäumen auf den Nachbarn.",
    ),
    # Separable verbs: split in a main clause, whole when last, as infinitive and as participle.
    (
        say("the man", do("pick up", "the key"), time="today", front="time"),
        "Today the man is picking up the key.",
        "Heute hebt der Mann den Schlüssel auf.",
    ),
    (
        say("the man", do("laugh"), adverbial=Subordinate("because", say("a baby", do("throw away", "a egg")))),
        "The man is laughing because a baby is throwing away an egg.",
        "Der Mann lacht, weil ein Baby ein Ei wegwirft.",
    ),
    (
        say("a sister", do("open", "the windows"), tense="want"),
        "A sister wants to open the windows.",
        "Eine Schwester will die Fenster aufmachen.",
    ),
    (
        say("the bears", do("fall asleep"), tense="perfect"),
        "The bears have fallen asleep.",
        "Die Bären sind eingeschlafen.",
    ),
    (
        say("the boys", do("take off", "shoes"), tense="perfect"),
        "The boys have taken off shoes.",
        "Die Jungen haben Schuhe ausgezogen.",
    ),
    # Word order: a fronted place, a fronted clause, definite object early and indefinite late, habits.
    (
        say("a cat", do("lie", place=at("in", "the garden")), front="place"),
        "In the garden a cat is lying.",
        "Im Garten liegt eine Katze.",
    ),
    (
        say("the king", do("read", "a book"), adverbial=Subordinate("while", DOG_SLEEPS, fronted=True)),
        "While the dog is sleeping, the king is reading a book.",
        "Während der Hund schläft, liest der König ein Buch.",
    ),
    (
        say("the doctor", do("repair", "the clock", manner="carefully", place=at("at", "the table"))),
        "The doctor is repairing the clock carefully at the table.",
        "Der Arzt repariert die Uhr vorsichtig am Tisch.",
    ),
    (
        say("the doctor", do("repair", "a clock", manner="carefully", place=at("at", "the table")), time="in winter"),
        "The doctor repairs a clock carefully at the table in winter.",
        "Der Arzt repariert im Winter vorsichtig am Tisch eine Uhr.",
    ),
    # Government and contraction: dative for a place, accusative for a direction, zum and zur.
    (
        say("the horse", do("run", manner="quickly", goal=at("into", "the house"))),
        "The horse is running quickly into the house.",
        "Das Pferd rennt schnell ins Haus.",
    ),
    (
        say("two monkeys", do("walk", goal=at("to", "the station")), tense="perfect"),
        "Two monkeys have walked to the station.",
        "Zwei Affen sind zum Bahnhof gegangen.",
    ),
    (
        say("the tourists", do("walk", goal=at("to", "the old church"))),
        "The tourists are walking to the old church.",
        "Die Touristen gehen zur alten Kirche.",
    ),
    # Relative pronouns: subject, object, dative, dative plural, after a preposition; after the closing verb.
    (
        say(
            np("the woman", relative=Relative("subject", say(None, do("wear", "a red hat")))),
            do("close", object=np("the box", relative=Relative("object", say("the child", do("see"))))),
        ),
        "The woman who is wearing a red hat is closing the box that the child sees.",
        "Die Frau, die einen roten Hut trägt, macht die Kiste zu, die das Kind sieht.",
    ),
    (
        say("a lion", do("follow", object=np("the man", relative=Relative("object", say("the cows", do("follow")))))),
        "A lion is following the man whom the cows are following.",
        "Ein Löwe folgt dem Mann, dem die Kühe folgen.",
    ),
    (
        say(
            "a friend", do("call", object=np("the teachers", relative=Relative("object", say("the king", do("help")))))
        ),
        "A friend is calling the teachers whom the king is helping.",
        "Ein Freund ruft die Lehrer an, denen der König hilft.",
    ),
    (
        say("the aunt", do("see", object=np("two rooms", relative=Relative("in", say("three mice", do("play")))))),
        "The aunt sees two rooms in which three mice are playing.",
        "Die Tante sieht zwei Zimmer, in denen drei Mäuse spielen.",
    ),
    (
        say("pears", do("lie", place=at("under", "the tree")), time="often", front="time"),
        "Often pears lie under the tree.",
        "Oft liegen Birnen unter dem Baum.",
    ),
    # Clauses of what is said, with the modal last; two predicates; two subjects; attributes.
    (
        say("the students", do("hope", content=say("a girl", do("pick up", "the wet letter"), tense="can"))),
        "The students hope that a girl can pick up the wet letter.",
        "Die Studenten hoffen, dass ein Mädchen den nassen Brief aufheben kann.",
    ),
    (
        say(
            Group(np("a dog"), np("the brown cat")),
            do("eat", "apples"),
            do("pick up", "the ball"),
            adverbial=Subordinate("before", say("the bird", do("get up"))),
        ),
        "A dog and the brown cat are eating apples and picking up the ball before the bird is getting up.",
        "Ein Hund und die braune Katze essen Äpfel und heben den Ball auf, bevor der Vogel aufsteht.",
    ),
    (
        say(np("the man", attribute=at("with", "a red hat")), Predicate(BE, quality=ADJECTIVES["tired"])),
        "The man with a red hat is tired.",
        "Der Mann mit einem roten Hut ist müde.",
    ),
]
JOINED = [
    (
        Sentence(say("the boy", do("sleep")), "but", say("the cow", do("look at", "a apple"))),
        "The boy is sleeping, but the cow is looking at an apple.",
        "Der Junge schläft, aber die Kuh sieht einen Apfel an.",
    ),
    (
        Sentence(say("twelve ducks", do("sleep")), "and", say("the child", do("love", "the wild bear"))),
        "Twelve ducks are sleeping and the child loves the wild bear.",
        "Zwölf Enten schlafen und das Kind liebt den wilden Bären.",
    ),
]
CASES = [(Sentence(clause), source, target) for clause, source, target in GOLDEN] + JOINED


@pytest.fixture(scope="module")
def corpus() -> dict[str, list[tuple[str, str]]]:
    return {split: generate(split) for split in SPLITS}


@pytest.fixture(scope="module")
def parsed() -> dict[str, list[Sentence]]:
    return {split: list(trees(split)) for split in SPLITS}


def words(text: str) -> list[str]:
    return text.replace(",", " ,").replace(".", " .").split()


@pytest.mark.parametrize(("tree", "source", "target"), CASES, ids=[case[1] for case in CASES])
def test_the_grammar_writes_what_a_hand_wrote(tree: Sentence, source: str, target: str) -> None:
    assert (english(tree), german(tree)) == (source, target)


@pytest.mark.parametrize(
    ("phrase", "forms"),
    [
        ("the young boy", ("der junge Junge", "den jungen Jungen", "dem jungen Jungen")),
        ("a young boy", ("ein junger Junge", "einen jungen Jungen", "einem jungen Jungen")),
        ("the new lamp", ("die neue Lampe", "die neue Lampe", "der neuen Lampe")),
        ("a new lamp", ("eine neue Lampe", "eine neue Lampe", "einer neuen Lampe")),
        ("a dark glass", ("ein dunkles Glas", "ein dunkles Glas", "einem dunklen Glas")),
        ("the dark glasses", ("die dunklen Gläser", "die dunklen Gläser", "den dunklen Gläsern")),
        ("three dark glasses", ("drei dunkle Gläser", "drei dunkle Gläser", "drei dunklen Gläsern")),
        ("expensive cars", ("teure Autos", "teure Autos", "teuren Autos")),
        ("the tired friends", ("die müden Freunde", "die müden Freunde", "den müden Freunden")),
        ("two bears", ("zwei Bären", "zwei Bären", "zwei Bären")),
    ],
)
def test_declension(phrase: str, forms: tuple[str, str, str]) -> None:
    parts = np(phrase)
    arguments = (parts.noun, parts.determiner, parts.plural, parts.adjectives)
    assert tuple(" ".join(declined(*arguments, case)) for case in ("nom", "acc", "dat")) == forms


def test_sizes_and_lengths(corpus) -> None:
    assert {split: len(pairs) for split, pairs in corpus.items()} == SIZES
    lengths = [len(source.split()) for source, _ in corpus["test"]]
    assert 12 <= sum(lengths) / len(lengths) <= 15
    assert sum(length > 15 for length in lengths) >= 0.25 * len(lengths)
    assert sum(length <= 8 for length in lengths) >= 0.1 * len(lengths)
    assert max(len(source.split()) for split in SHARED for source, _ in corpus[split]) <= 30


def test_no_source_has_two_targets_and_no_split_shares_a_source(corpus) -> None:
    targets: dict[str, str] = {}
    for pairs in (*corpus.values(), generate("train", size=3000, seed=7)):
        for source, target in pairs:
            assert targets.setdefault(source, target) == target
    sources = [source for pairs in corpus.values() for source, _ in pairs]
    assert len(sources) == len(set(sources))


def test_the_split_of_a_shared_sentence_holds_for_every_seed() -> None:
    for split in SHARED:
        for seed in (0, 1):
            assert {split_of(source) for source, _ in generate(split, size=60, seed=seed)} == {split}


def test_sentences_are_written_like_sentences(corpus) -> None:
    nouns = {form for noun in NOUNS.values() for form in (noun.german, noun.german_plural, noun.german_plural + "n")}
    for source, target in (pair for pairs in corpus.values() for pair in pairs):
        for text in (source, target):
            assert text[0].isupper()
            assert text.endswith(".")
            assert ",," not in text.replace(" ", "")
            assert " ," not in text
            assert ",." not in text
        capitals = {word for word in words(target)[1:] if word[0].isupper()}
        assert capitals <= nouns | {"Tag", "Abend", "Nacht", "Sommer", "Winter", "Moment", "Woche"}


def test_only_test_unseen_has_held_out_combinations(parsed) -> None:
    for split, sentences in parsed.items():
        held = [any(held_out(*combination) for combination in combinations(tree)) for tree in sentences]
        assert all(held) if split == "test_unseen" else not any(held), split


def test_held_out_neighbours_stay_out_of_the_text(corpus) -> None:
    """The same from the words alone: "red ball" and "two balls" where they are held out."""
    names = {form: noun.english for noun in NOUNS.values() for form in (noun.english, noun.english_plural)}

    def neighbours(split: str) -> set[tuple[str, str, str]]:
        pairs = (pair for source, _ in corpus[split] for pair in zip(words(source), words(source)[1:], strict=False))
        found = set()
        for left, right in ((left.lower(), right) for left, right in pairs if right in names):
            kind = "adjective" if left in ADJECTIVES else "number" if left in NUMBERS else ""
            found |= {(kind, left, names[right])} if kind else set()
        return found

    known = neighbours("train")
    assert not any(held_out(*combination) for combination in known)
    assert len({c for c in neighbours("test_unseen") if held_out(*c)} - known) > 50


def test_every_word_is_learnt_in_training(corpus) -> None:
    for side in (0, 1):
        counts = Counter(word for pair in corpus["train"] for word in words(pair[side]))
        for split in SPLITS[1:]:
            used = Counter(word for pair in corpus[split] for word in words(pair[side]))
            rare = {word for word in used if counts[word] < 5}
            assert not {word for word in rare if counts[word] == 0}
            # Sentence-initial adjectives ("Schmutzige Hunde ...") are the rarest forms.
            assert len(rare) <= 3, rare
            assert sum(used[word] for word in rare) <= 0.001 * sum(used.values())


def test_deeper_sentences_nest_deeper_and_are_longer(corpus, parsed) -> None:
    for split in (*SHARED, "test_unseen"):
        assert {depth(tree) for tree in parsed[split]} == set(range(TRAIN_DEPTH + 1))
    assert {depth(tree) for tree in parsed["test_deeper"]} == {3, 4}
    mean = {split: sum(len(source.split()) for source, _ in corpus[split]) / SIZES[split] for split in SPLITS}
    assert mean["test_deeper"] > 1.8 * mean["train"]


def test_depth_counts_embedded_clauses() -> None:
    inner = Relative("subject", say(None, do("sleep"), adverbial=Subordinate("if", DOG_SLEEPS)))
    assert depth(Sentence(DOG_SLEEPS)) == 0
    assert depth(Sentence(say("the man", do("sleep"), adverbial=Subordinate("if", DOG_SLEEPS)))) == 1
    assert depth(Sentence(say(np("the man", relative=inner), do("sleep")))) == 2


def test_combinations_see_through_relative_clauses_and_after_is() -> None:
    bought = Relative("object", say("the man", do("buy")))
    tree = Sentence(say(np("two red balls", relative=bought), Predicate(BE, quality=ADJECTIVES["new"])))
    expected = {("number", "two"), ("adjective", "red"), ("adjective", "new"), ("verb", "buy")}
    assert set(combinations(tree)) == {(*pair, "ball") for pair in expected}


def test_a_smaller_size_is_the_beginning_and_another_seed_differs() -> None:
    for split in SPLITS:
        assert generate(split, size=20) == generate(split, size=40)[:20]
        assert generate(split, size=20, seed=1) != generate(split, size=20)
    assert generate("test", size=0) == []


def test_another_process_writes_the_same() -> None:
    code = "from domains.translation.sample import *; print([generate(split, size=25) for split in SPLITS])"
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str([generate(split, size=25) for split in SPLITS])


def test_an_unknown_split_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"split: got 'dev'; allowed are train, validation, test, test_unseen"):
        generate("dev")
    with pytest.raises(UsageError, match="size: got -1"):
        generate("test", size=-1)
