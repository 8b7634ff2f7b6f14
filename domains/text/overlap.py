"""Text that two collections share, found whatever their spacing, punctuation and accents."""

from collections import defaultdict
from collections.abc import Iterable

RUN = 24  # letters in a row that make two lines share text: five words or so
SHORT = 12  # a shorter line has to be equal


def letters_of(text: str) -> str:
    """The letters a to z and digits of a text, in lower case, without the names that SST-2 gives brackets."""
    spaced = f" {text.lower()} ".replace(" lrb ", " ").replace(" rrb ", " ")
    return "".join(letter for letter in spaced if letter.isascii() and letter.isalnum())


class Overlap:
    """Lines that other lines must not share text with: by a run of ``RUN`` letters, or by a whole shorter line.

    Args:
        lines: those that are kept apart.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.runs: set[str] = set()
        self.equal: set[str] = set()
        self.begins: dict[str, list[str]] = defaultdict(list)
        keys = [letters_of(line) for line in lines]
        self.text = "\n".join(keys)
        for key in keys:
            if len(key) >= RUN:
                self.runs.update(key[start : start + RUN] for start in range(len(key) - RUN + 1))
            elif len(key) >= SHORT:
                self.begins[key[:SHORT]].append(key)
            else:
                self.equal.add(key)
        self.equal.discard("")

    def shares(self, line: str) -> bool:
        """Whether ``line`` shares text with one of the lines."""
        key = letters_of(line)
        if len(key) < RUN and (key in self.equal or (len(key) >= SHORT and key in self.text)):
            return True
        if any(key[start : start + RUN] in self.runs for start in range(len(key) - RUN + 1)):
            return True
        return any(
            key.startswith(tuple(self.begins[begin]), start)
            for start in range(len(key) - SHORT + 1)
            if (begin := key[start : start + SHORT]) in self.begins
        )
