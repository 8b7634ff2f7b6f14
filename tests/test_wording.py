"""Values of the wrong type: one line that says what was given and what is allowed, without names of Python's types."""

import pytest

from suite.wording import plain_words
from tests.commands import assert_one_line, fit_toy


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--samples", "-1"), "samples is -1, allowed is a whole number of at least 0"),
        (("--samples", "x"), "samples is x, allowed is a whole number of at least 0"),
        (("--patience", "many"), "patience is many, allowed is a whole number of at least 0 or null"),
        (("--threads", "0"), "threads is 0, allowed is a whole number of at least 1 or auto"),
        (("--seed", "1.5"), "seed is 1.5, allowed is a whole number"),
        (("--optim.lr", "fast"), "optim.lr is fast, allowed is a number"),
        (("--optim.nesterov", "3"), "optim.nesterov is 3, allowed is true or false"),
        (("--tracking.mode", "on"), "tracking.mode is on, allowed is online, offline, disabled or null"),
        (("--model", "3"), "model is 3, allowed is a group of settings (model.NAME)"),
        (("--threads", "null"), "threads is null, allowed is a whole number of at least 1 or auto"),
        (("--tracking.tags", "3"), "tracking.tags is 3, allowed is a list"),
    ],
)
def test_a_value_of_the_wrong_type(flags: tuple[str, ...], line: str) -> None:
    assert_one_line(fit_toy(*flags), 2, f"fit: {line}\n")


@pytest.mark.parametrize(
    "message",
    [
        "unrecognized arguments: --data.x 3",
        "Parser key \"trainer.callbacks\": Expected one of list[a.Callback], <class 'a.Callback'>. Got value: 3",
        'Parser key "name": Not of type Odd: 3 does not conform to restriction v%2',
    ],
)
def test_what_has_no_plain_words_stays_as_it_is(message: str) -> None:
    assert plain_words(message) == message
