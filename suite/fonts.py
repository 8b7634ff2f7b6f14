"""Fonts for the words in plots: those of the system that cover the characters, one after the other.

matplotlib warns once for each missing character and each time it measures a text; here the figure takes further fonts
first, and one line says how many characters none of them has.
"""

import warnings
from functools import cache
from typing import cast

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from suite.console import notice

# Families that cover what DejaVu Sans lacks, those with most characters first; whatever else is installed comes after.
_USUAL = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Source Han Sans", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Droid Sans Fallback", "Arial Unicode MS", "Hiragino Sans", "PingFang SC",
    "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "SimHei", "IPAGothic", "Noto Sans",
    "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Arabic", "Noto Sans Hebrew", "Unifont", "Noto Emoji",
    "Segoe UI Emoji", "Segoe UI Symbol", "Symbola",
)  # fmt: skip
_FIRST = "DejaVu Sans"
_FORMULAS = ("cm", "STIX", "DejaVu Math", "DejaVu Sans Display", "DejaVu Serif Display", "Last Resort")
_reported: set[str] = set()


def cover(figure: Figure) -> Figure:
    """Give each text of ``figure`` the fonts that its characters need; characters that none has are drawn as boxes.

    The first time a character is missing everywhere, one line says so.
    """
    missing: set[str] = set()
    for text in _texts(figure):
        needed = {character for character in text.get_text() if not character.isspace()}
        families, lacking = _families(frozenset(needed - _characters(_FIRST)))
        missing |= lacking
        if families:
            text.set_fontfamily([_FIRST, *families])
    if new := missing - _reported:
        _reported.update(new)
        shown = " ".join(sorted(new)[:5])
        notice(
            f"plots: {len(new)} character(s) have no glyph in any installed font and are drawn as boxes ({shown}); "
            "install a font that has them, such as Noto Sans CJK or Noto Emoji"
        )
    # The boxes were reported above.
    warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from font", category=UserWarning)
    return figure


def _texts(figure: Figure) -> list[Text]:
    """All texts; labels of ticks are made when they are asked for."""
    found = cast(list[Text], figure.findobj(Text))
    for axes in figure.axes:
        found += [*axes.get_xticklabels(), *axes.get_yticklabels()]
    return found


@cache
def _families(needed: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Further families for the characters ``needed``, and those that none has."""
    found: list[str] = []
    left = set(needed)
    for family in _candidates() if left else ():
        if covered := left & _characters(family):
            found.append(family)
            left -= covered
        if not left:
            break
    return tuple(found), frozenset(left)


@cache
def _candidates() -> tuple[str, ...]:
    """Installed families: the usual ones, then others. matplotlib's own further fonts are for formulas."""
    usual = [name for name in _USUAL if name in _files()]
    return tuple(dict.fromkeys([*usual, *sorted(_files())]))


@cache
def _files() -> dict[str, str]:
    """The file of each family, that of its normal weight if there is one."""
    found: dict[str, tuple[float, str]] = {}
    for entry in font_manager.fontManager.ttflist:
        if entry.name.startswith(_FORMULAS):
            continue
        weight = entry.weight if isinstance(entry.weight, int) else 400
        distance = abs(weight - 400) + (entry.style != "normal") * 1000
        if entry.name not in found or distance < found[entry.name][0]:
            found[entry.name] = (distance, entry.fname)
    return {name: file for name, (_, file) in found.items()}


@cache
def _characters(family: str) -> frozenset[str]:
    """The characters that a family has; none if matplotlib cannot draw with its file (bitmaps in colour, say)."""
    try:
        font = FT2Font(_files()[family])
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (KeyError, ValueError, RuntimeError, OSError):
        return frozenset()
