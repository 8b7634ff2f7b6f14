"""Public texts by name, as they lie in ``SUITE_DATA_DIR``; where to get each is said in docs/text.md."""

import gzip
import zlib
from typing import Literal

from domains.text.overlap import Overlap
from suite.console import notice
from suite.errors import DataError
from suite.sources import data_folder, read_csv_rows, read_lines

Row = tuple[str, str]  # text, label
LabelledName = Literal["sst2", "ag_news", "mr", "subj", "cr"]
CorpusName = Literal["tinyshakespeare", "reviews"]
_SST2 = {"train": "train.tsv", "val": "dev.tsv", "test": "test.tsv"}
_SENTIMENT = {"0": "negative", "1": "positive"}
_AG_NEWS = {"train": "train_subset_raw.csv.gz", "test": "test.csv.gz"}
_SENTENCES = {"mr": "rt-polarity.all.txt.gz", "subj": "subj.all.txt.gz", "cr": "custrev.all.txt.gz"}
_CLASSES = {"mr": ("negative", "positive"), "subj": ("subjective", "objective"), "cr": ("negative", "positive")}


def labelled(name: LabelledName, split: str) -> list[Row] | None:
    """Texts and labels of a split; ``None`` where the set has no such split of its own.

    Raises:
        DataError: a file that is missing or damaged.
    """
    if name == "sst2":
        return _sst2(split)
    if name == "ag_news":
        return _ag_news(split) if split in _AG_NEWS else None
    return _sentences(name) if split == "train" else None


def _sst2(split: str) -> list[Row]:
    """SST-2 (Socher et al. 2013): a sentence, a tab, 0 or 1."""
    folder = data_folder("sst2", files=list(_SST2.values()))
    path = folder / _SST2[split]
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        text, tab, label = line.rpartition("\t")
        if not tab or label not in _SENTIMENT:
            raise DataError(f"{path}, line {number}: a sentence, a tab and 0 or 1 are needed; fetch the file again")
        rows.append((text, _SENTIMENT[label]))
    return rows


def _ag_news(split: str) -> list[Row]:
    """AG News (Zhang et al. 2015): class, title, description; in the subset for training the two are one."""
    folder = data_folder("ag_news", files=["classes.txt", *_AG_NEWS.values()])
    names, path = read_lines(folder / "classes.txt"), folder / _AG_NEWS[split]
    rows = []
    for number, fields in read_csv_rows(path, "\n".join(read_lines(path))):
        if len(fields) != 3 or fields[0] not in [str(place) for place in range(1, len(names) + 1)]:
            raise DataError(f"{path}, line {number}: a class (1 to {len(names)}) and two texts are needed")
        parts = fields[1:] if split == "test" else fields[1:2]  # the subset's third column says where a row is from
        rows.append((_unescape(" ".join(parts)), names[int(fields[0]) - 1]))
    return rows


def _unescape(text: str) -> str:
    """News text without what is left of its mark-up: " #39;" is an apostrophe, a backslash a line end."""
    text = text.replace(" #39;", "'").replace("#39;", "'").replace(" quot;", '"').replace("\\", " ")
    return text.replace("&lt;", "<").replace("&gt;", ">").replace(" #36;", " $").replace(" amp;", " & ")


def documents(name: CorpusName) -> list[str]:
    """The documents of a corpus for language models.

    Raises:
        DataError: a file that is missing or damaged.
    """
    return [tinyshakespeare()] if name == "tinyshakespeare" else reviews()


def tinyshakespeare() -> str:
    """The one text of char-rnn's tinyshakespeare (Karpathy 2015)."""
    path = data_folder("tinyshakespeare", files=["input.txt.gz"]) / "input.txt.gz"
    try:
        return gzip.decompress(path.read_bytes()).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch it again") from None


def reviews() -> list[str]:
    """Sentences to pretrain on for SST-2: its training part and CR.

    MR and Subj (Pang and Lee 2004, 2005), where SST-2's sentences come from, are left out whole; every line of the
    others that shares text with a validation or test sentence of SST-2 is left out too, and counted.
    """
    held_out = Overlap([text for split in ("val", "test") for text, _ in _sst2(split)])
    kept: list[str] = []
    said = []
    for name, rows in (("sst2", _sst2("train")), ("cr", _sentences("cr"))):
        clean = [text for text, _ in rows if not held_out.shares(text)]
        said.append(f"{name} {len(rows) - len(clean)} of {len(rows)}")
        kept += clean
    notice(f"reviews: lines that share text with SST-2's val or test, left out: {', '.join(said)}")
    return kept


def _sentences(name: Literal["mr", "subj", "cr"]) -> list[Row]:
    """MR, Subj (Pang and Lee 2004, 2005) or CR (Hu and Liu 2004): 0 or 1, a space, a sentence; not UTF-8."""
    folder = data_folder("sentences", files=[_SENTENCES[name]])
    path = folder / _SENTENCES[name]
    rows = []
    for number, line in enumerate(read_lines(path, encoding="cp1252"), start=1):
        if line[:2] not in ("0 ", "1 "):
            raise DataError(f"{path}, line {number}: 0 or 1, a space and a sentence are needed; fetch the file again")
        rows.append((line[2:].strip(), _CLASSES[name][int(line[0])]))
    return rows
