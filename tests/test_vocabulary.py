import copy
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suite import vocabulary
from suite.errors import CheckpointError, DataError, UsageError
from suite.vocabulary import BOS, EOS, LONGEST_LEARNED, PAD, SPECIALS, UNK, Labels, Level, Tokenizer, normalize

LEVELS: tuple[Level, ...] = ("bpe", "unigram", "word", "char")
LINES = [
    "Two men, smiling, sit in the sun.",
    "A man sits in the old town (1984).",
    "The sun is low; two dogs run, run, run!",
    "Größere Hunde laufen über die Straße.",
    "Emoji 👩‍🚀 and 🇩🇪 flags, naïve café.",
]
ROOT = Path(__file__).parents[1]
TRAIN_IN_CHILD = """
import json, random, sys
from suite.vocabulary import Tokenizer
draw = random.Random(3)
lines = [" ".join(draw.choice(["walk", "talk", "ab", "ba"]) + draw.choice(["ed", "ing", "s", ""]) for _ in range(6))
         for _ in range(40)] + json.loads(sys.argv[1])
for level in ("bpe", "unigram", "word", "char"):
    print(json.dumps(Tokenizer.train(lines, level=level, size=90).state()))
"""


def trained(level: Level, lines=LINES, size: int = 400, **settings) -> Tokenizer:
    return Tokenizer.train(lines, level=level, size=size, **settings)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("text", [*LINES, "run, men.", "(1984)", "über 1984; naïve!"])
def test_text_of_known_symbols_comes_back(level: Level, text: str):
    tokenizer = trained(level)
    ids = tokenizer.encode(text)
    if level != "word" or text in LINES:
        assert UNK not in ids
    if UNK not in ids:
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("level", LEVELS)
@settings(deadline=None, max_examples=150)
@given(lines=st.lists(st.text(max_size=25), min_size=1, max_size=4))
def test_any_training_text_comes_back(level: Level, lines: list[str]):
    try:
        tokenizer = trained(level, lines, size=5000)
    except DataError:
        assert not any(normalize(line, level=level) for line in lines)
        return
    for line, ids in zip(lines, tokenizer.encode_batch(lines), strict=True):
        assert UNK not in ids
        assert tokenizer.decode(ids) == tokenizer.normalize(line)


@pytest.mark.parametrize("level", LEVELS)
@settings(deadline=None, max_examples=100)
@given(text=st.text(max_size=40))
def test_any_text_is_encoded_within_the_vocabulary(level: Level, text: str):
    tokenizer = _SHARED[level]
    ids = tokenizer.encode(text)
    assert all(index == UNK or len(SPECIALS) <= index < len(tokenizer) for index in ids)
    if UNK not in ids:
        assert tokenizer.decode(ids) == tokenizer.normalize(text)
    assert tokenizer.encode(tokenizer.normalize(text)) == ids


@pytest.mark.parametrize("level", ["bpe", "unigram", "word"])
@settings(deadline=None, max_examples=150)
@given(texts=st.lists(st.text(max_size=30) | st.text("onetw .,!☃ü12", max_size=30), max_size=4))
def test_word_by_word_is_as_the_library_encodes_whole_texts(level: Level, texts: list[str]):
    tokenizer = _SHARED[level]
    normal = [tokenizer.normalize(text) for text in texts]
    backend = tokenizer._build()
    whole = [backend.encode(f" {text}", add_special_tokens=False).ids if text else [] for text in normal]
    assert tokenizer.encode_batch(texts) == whole


_SHARED: dict[Level, Tokenizer] = {level: trained(level) for level in LEVELS}


def test_golden_word_level():
    tokenizer = trained("word", ["a dog, a cat", "a dog"], size=8)
    assert tokenizer.pieces == ("<pad>", "<unk>", "<s>", "</s>", " a", " dog", " cat", ",")
    ids = tokenizer.encode("a cat, a bird")
    assert ids == [4, 6, 7, 4, UNK]
    assert tokenizer.tokens([BOS, *ids, EOS]) == ["<s>", "▁a", "▁cat", ",", "▁a", "<unk>", "</s>"]
    assert tokenizer.decode([BOS, *ids, EOS, PAD]) == "a cat, a ⁇"


def test_golden_bpe():
    tokenizer = trained("bpe", ["low low low lower", "low"], size=12)
    # Characters by code point, then merges by count, ties by the ids of their parts.
    assert tokenizer.pieces[4:] == (" ", "e", "l", "o", "r", "w", " l", "ow")
    assert tokenizer.tokens(tokenizer.encode("low lower")) == ["▁l", "ow", "▁l", "ow", "e", "r"]


def test_golden_char_level_keeps_every_character():
    tokenizer = trained("char", ["abba\n", " b\t"], size=100)
    assert tokenizer.pieces[4:] == ("b", "a", "\t", "\n", " ")
    assert tokenizer.encode(" ab\n") == [8, 5, 4, 7]
    assert tokenizer.decode([8, 5, 4, 7]) == " ab\n"
    assert tokenizer.tokens([8, 7]) == ["▁", "\\n"]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("special", SPECIALS)
def test_special_tokens_spelled_out_are_ordinary_text(level: Level, special: str):
    lines = [f"a {special} b{special}c {special}"] * 3
    tokenizer = trained(level, lines)
    ids = tokenizer.encode(f"{special} a b{special}{special}c")
    assert not set(ids) & {PAD, BOS, EOS}
    assert tokenizer.pieces[:4] == SPECIALS
    assert tokenizer.decode(tokenizer.encode(lines[0])) == lines[0]
    unseen = _SHARED[level].encode(special)
    assert unseen
    assert not set(unseen) & {PAD, BOS, EOS}


@pytest.mark.parametrize("level", LEVELS)
def test_unknown_symbols_are_shown(level: Level):
    tokenizer = trained(level, ["one two. three"])
    ids = tokenizer.encode("one ☃.")
    assert ids.count(UNK) == 1
    assert tokenizer.decode(ids) == "one ⁇."


def test_unknown_characters_count_one_each_except_in_unigram_runs():
    counts = {level: trained(level, ["one two"]).encode("one ZZZ").count(UNK) for level in LEVELS}
    assert counts == {"bpe": 3, "unigram": 1, "word": 1, "char": 3}


@pytest.mark.parametrize("level", LEVELS)
def test_empty_text_has_no_ids(level: Level):
    tokenizer = _SHARED[level]
    assert tokenizer.encode("") == []
    assert tokenizer.encode_batch([]) == []
    assert tokenizer.encode_batch(["", "Two"])[0] == []
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode([PAD, BOS, EOS]) == ""


@pytest.mark.parametrize("level", LEVELS)
def test_composed_and_combining_forms_are_one(level: Level):
    tokenizer = _SHARED[level]
    assert tokenizer.encode("cafe\u0301") == tokenizer.encode("café")
    assert tokenizer.normalize("cafe\u0301") == "café"


def test_marks_without_a_composed_form_and_the_visible_marker_come_back():
    line = "x\u0323\u0301 a▁b \u0301c ▁"
    for level in LEVELS:
        tokenizer = trained(level, [line])
        assert tokenizer.decode(tokenizer.encode(line)) == tokenizer.normalize(line)


def test_white_space_is_normalised_except_for_characters():
    assert normalize(" a\u00a0\tb\n\n c ", level="bpe") == "a b c"
    assert normalize(" a\tb ", level="char") == " a\tb "
    assert normalize("x\ud800", level="word") == "x\ufffd"


@pytest.mark.parametrize("level", LEVELS)
def test_lowercase(level: Level):
    tokenizer = trained(level, lowercase=True)
    assert tokenizer.encode("TWO MEN, SMILING") == tokenizer.encode("two men, smiling")
    assert tokenizer.decode(tokenizer.encode(LINES[3])) == LINES[3].lower()


def test_words_never_share_a_piece_with_punctuation_or_digits():
    for level in ("bpe", "unigram"):
        tokenizer = trained(level, ["a1b2, 22 22 22!! 22!!"] * 50)
        for piece in tokenizer.pieces[4:]:
            body = piece.strip()
            assert len(body) <= 1 or body.isalpha(), piece


@pytest.mark.parametrize("level", LEVELS)
def test_batch_equals_singles(level: Level):
    tokenizer = _SHARED[level]
    batch = tokenizer.encode_batch(LINES)
    assert batch == [tokenizer.encode(line) for line in LINES]
    assert tokenizer.decode_batch(batch) == LINES


@pytest.mark.parametrize("level", LEVELS)
def test_state_is_plain_json_and_gives_the_same_ids(level: Level, tmp_path: Path):
    tokenizer = trained(level, lowercase=True)
    text = "über " + " ".join(LINES)
    torch.save(tokenizer.state(), tmp_path / "state.pt")
    copies = [
        Tokenizer.from_state(json.loads(json.dumps(tokenizer.state()))),
        Tokenizer.from_state(torch.load(tmp_path / "state.pt", weights_only=True)),
        pickle.loads(pickle.dumps(tokenizer)),  # noqa: S301
        copy.deepcopy(tokenizer),
    ]
    for other in copies:
        assert other.encode(text) == tokenizer.encode(text)
        assert other.state() == tokenizer.state()
        assert len(other) == len(tokenizer)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "other"}, "not the state of one"),
        ({"level": "byte"}, "level 'byte'"),
        ({"pieces": ["a", "b"]}, "special tokens followed by different texts"),
        ({"pieces": [*SPECIALS, "a", "a"]}, "special tokens followed by different texts"),
        ({"pieces": None}, "special tokens followed by different texts"),
        ({"merges": [["q"]]}, "merges are not pairs"),
        ({"merges": [["q", "zz"]]}, "cannot be used"),
    ],
)
def test_damaged_state_is_refused(change: dict, reason: str):
    with pytest.raises(CheckpointError, match=reason) as caught:
        Tokenizer.from_state({**_SHARED["bpe"].state(), **change})
    assert "\n" not in str(caught.value)


def test_foreign_and_incomplete_states_are_refused():
    with pytest.raises(CheckpointError, match="not the state of one"):
        Tokenizer.from_state([1, 2])  # type: ignore[arg-type]
    state = _SHARED["word"].state()
    with pytest.raises(CheckpointError, match="lacks merges, scores"):
        Tokenizer.from_state({name: state[name] for name in ("kind", "level", "lowercase", "pieces")})
    with pytest.raises(CheckpointError, match="one score for each piece"):
        Tokenizer.from_state({**_SHARED["unigram"].state(), "scores": [0.0]})


def _in_child(hash_seed: str, parallel: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "TOKENIZERS_PARALLELISM": parallel}
    command = [sys.executable, "-c", TRAIN_IN_CHILD, json.dumps(LINES)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def test_training_is_the_same_in_another_process():
    first, *others = [_in_child(seed, parallel) for seed, parallel in (("1", "false"), ("2", "true"), ("3", "false"))]
    assert first.count("\n") == 4  # No progress bar among the four states either.
    assert all(other == first for other in others)


@pytest.mark.parametrize("level", LEVELS)
def test_order_of_the_lines_does_not_matter(level: Level):
    assert trained(level, LINES[::-1]).state() == trained(level).state()


def test_forked_workers_are_silent():
    code = (
        "import os\nfrom suite.vocabulary import Tokenizer\n"
        "t = Tokenizer.train(['a b', 'c d'], level='bpe', size=20)\nt.encode_batch(['a b'] * 50)\n"
        "pid = os.fork()\n"
        "if not pid:\n    os._exit(len(t.encode_batch(['a b', 'c'])) - 2)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("level", LEVELS)
def test_size_counts_the_specials_and_is_a_limit(level: Level):
    assert len(trained(level, size=70)) <= 70
    assert len(trained(level, ["ab ab"], size=1000)) < 20


def test_min_frequency_leaves_out_rare_symbols():
    lines = ["aa bb aa", "aa bb zap"]
    assert trained("word", lines, min_frequency=2).pieces[4:] == (" aa", " bb")
    for level in ("bpe", "unigram", "char"):
        tokenizer = trained(level, lines, min_frequency=2)
        assert not any("z" in piece or "p" in piece for piece in tokenizer.pieces[4:])
        assert UNK in tokenizer.encode("zap")
        assert tokenizer.decode(tokenizer.encode(lines[0])) == lines[0]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("lines", [[], ["", ""]])
def test_empty_corpus_is_refused(level: Level, lines: list[str]):
    with pytest.raises(DataError, match="training text holds no"):
        trained(level, lines)


def test_corpus_of_rare_symbols_is_refused():
    for level in LEVELS:
        with pytest.raises(DataError, match="at least 9 time"):
            trained(level, ["ab"], min_frequency=9)


def test_impossible_settings_are_refused():
    with pytest.raises(UsageError, match="size 4 is too small: at least 5"):
        trained("word", size=4)
    for level in ("bpe", "unigram"):
        with pytest.raises(UsageError, match=r"size 6 is too small .* 4 characters, with the special tokens 8"):
            trained(level, ["abc"], size=6)
        assert len(trained(level, ["abc abc"], size=8)) == 8
    with pytest.raises(UsageError, match="allowed are bpe, unigram, word, char"):
        trained("byte")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="min_frequency must be 1 or more"):
        trained("bpe", min_frequency=0)


def test_ids_outside_the_vocabulary_are_refused():
    with pytest.raises(DataError, match=r"token id -100 is not in the vocabulary, which has ids 0 to \d+"):
        _SHARED["bpe"].decode([-100])
    with pytest.raises(DataError, match="token id 100000"):
        _SHARED["char"].tokens([100_000])


@pytest.mark.parametrize("level", LEVELS)
def test_thirty_thousand_lines_are_encoded_in_seconds(level: Level):
    start = time.process_time()
    assert len(_SHARED[level].encode_batch(LINES * 6000)) == 30_000
    assert time.process_time() - start < 10


@pytest.mark.parametrize("level", LEVELS)
def test_a_word_of_300_000_letters_is_learned_from_in_seconds_and_comes_back(level: Level, capsys):
    lines = ["ab" * 150_000, "abc ab", "ab" * 1_000]
    start = time.process_time()
    tokenizer = trained(level, lines)
    ids = tokenizer.encode_batch(lines)
    assert time.process_time() - start < 4
    assert tokenizer.decode_batch(ids) == lines
    assert UNK not in ids[0]
    said = "vocabulary: 2 run(s) of more than 1,000 letters (up to 300,000) without a space"
    assert capsys.readouterr().err.count(said) == (level in ("bpe", "unigram"))


@pytest.mark.parametrize("level", LEVELS)
def test_a_longest_word_and_a_long_text_are_learned_from_as_a_whole(level: Level, monkeypatch, capsys):
    lines = ["ab" * (LONGEST_LEARNED // 2), " ".join(LINES * 9), "one.two," * LONGEST_LEARNED, "x1" * LONGEST_LEARNED]
    learned = trained(level, lines).state()
    assert not capsys.readouterr().err
    monkeypatch.setattr(vocabulary, "LONGEST_LEARNED", 10**9)
    assert trained(level, lines).state() == learned


def test_labels():
    labels = Labels.collect(["pos", "neg", "pos"])
    assert labels.names == ("neg", "pos")
    assert len(labels) == 2
    assert labels.encode("pos") == 1
    assert labels.encode_batch(["pos", "neg"]) == [1, 0]
    assert labels.decode(0) == "neg"
    assert Labels.collect(["10", "9", "-1"]).names == ("-1", "9", "10")
    assert Labels.from_state(json.loads(json.dumps(labels.state()))).names == labels.names


def test_bad_labels_are_refused():
    labels = Labels(["b", "a"])
    with pytest.raises(DataError, match="unknown label 'c'; allowed are 'b', 'a'"):
        labels.encode("c")
    with pytest.raises(DataError, match="'t4' and 3 more; allowed"):
        labels.encode_batch([f"t{i}" for i in range(8)])
    with pytest.raises(DataError, match="label id -1 is not one of 0 to 1"):
        labels.decode(-1)
    with pytest.raises(DataError, match="more than once: x"):
        Labels(["x", "y", "x"])
    with pytest.raises(DataError, match="no labels"):
        Labels.collect([])
    for state in (None, "ab", [1], [], ["a", "a"]):
        with pytest.raises(CheckpointError, match="stored labels"):
            Labels.from_state(state)  # type: ignore[arg-type]
