"""Names of classes, conditions, groups and columns: which spellings mean the same name."""

import unicodedata


def clean_name(text: str) -> str:
    """A name without white space at its ends and in Unicode's composed form (NFC).

    Spreadsheets and file systems produce names that look the same and differ in these two respects.
    """
    return unicodedata.normalize("NFC", text.strip())
