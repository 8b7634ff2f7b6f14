"""Public texts by name, as they lie in ``SUITE_DATA_DIR`` or the cache; docs/text.md says where each is from."""

import re
from pathlib import Path
from typing import Literal, TypeGuard, get_args

from domains.text.overlap import Overlap
from domains.text.remotes import REMOTES
from suite.console import notice
from suite.errors import DataError
from suite.packed import read_gzip
from suite.sources import data_folder, read_csv_rows, read_lines

Row = tuple[str, str]  # text, label
LabelledName = Literal["sst2", "ag_news", "mr", "subj", "cr"]
CorpusName = Literal["tinyshakespeare", "reviews", "news_and_wiki"]
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
    folder = data_folder("sst2", files=list(_SST2.values()), remotes=REMOTES["sst2"])
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


def is_corpus(name: str) -> TypeGuard[CorpusName]:
    """Whether ``documents`` has it."""
    return name in get_args(CorpusName)


def documents(name: CorpusName) -> list[str]:
    """The documents of a corpus for language models.

    Raises:
        DataError: a file that is missing or damaged.
    """
    if name == "tinyshakespeare":
        return [tinyshakespeare()]
    return reviews() if name == "reviews" else news_and_wiki()


def tinyshakespeare() -> str:
    """The one text of char-rnn's tinyshakespeare (Karpathy 2015)."""
    path = _one_file("tinyshakespeare", "input.txt.gz")
    try:
        return read_gzip(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch it again") from None


def reviews() -> list[str]:
    """Sentences to pretrain on for SST-2: its training part and CR.

    MR and Subj (Pang and Lee 2004, 2005), where SST-2's sentences come from, are left out whole; every line of the
    others that shares text with a validation or test sentence of SST-2 is left out too, and counted.
    """
    texts = {name: [text for text, _ in rows] for name, rows in (("sst2", _sst2("train")), ("cr", _sentences("cr")))}
    return _apart_from_sst2("reviews", texts)


def news_and_wiki() -> list[str]:
    """Running English to pretrain on before the reviews: AG News's training subset and WikiText-2's valid part.

    Written as SST-2 is: punctuation and the ends of contractions are words of their own. What shares text with SST-2's
    val or test is left out, as in ``reviews``. WikiText-2's (Merity et al. 2016) unknown words stand as "unk".
    """
    news = [_spaced(text) for text, _ in _ag_news("train")]  # first, as it is not among what can be downloaded
    path = _one_file("wikitext2", "valid.txt.gz")
    wiki = [line.strip() for line in read_lines(path) if line.strip() and not line.startswith(" =")]
    wiki = [re.sub(r" @(\W)@ ", r"\1", line).replace("<unk>", "unk") for line in wiki]
    return _apart_from_sst2("news_and_wiki", {"ag_news": news, "wikitext2": wiki})


def _spaced(text: str) -> str:
    """Spaces around punctuation, and before the ends of contractions (do n't, it 's), as treebanks have it."""
    text = re.sub(r"(?i)(\w)(n't|'(?:s|m|d|re|ve|ll))\b", r"\1 \2", text)
    return " ".join(re.sub(r"""([.,;:!?()"]+)(?=\s|$)|(?<=\s)([("]+)""", r" \1\2 ", text).split())


def _apart_from_sst2(corpus: str, texts: dict[str, list[str]]) -> list[str]:
    """The lines of each set that share no text with SST-2's val or test; how many did is said."""
    held_out = Overlap([text for split in ("val", "test") for text, _ in _sst2(split)])
    kept: list[str] = []
    said = []
    for name, lines in texts.items():
        clean = [line for line in lines if not held_out.shares(line)]
        said.append(f"{name} {len(lines) - len(clean)} of {len(lines)}")
        kept += clean
    notice(f"{corpus}: lines that share text with SST-2's val or test, left out: {', '.join(said)}")
    return kept


def _sentences(name: Literal["mr", "subj", "cr"]) -> list[Row]:
    """MR, Subj (Pang and Lee 2004, 2005) or CR (Hu and Liu 2004): 0 or 1, a space, a sentence; not UTF-8."""
    path = _one_file("sentences", _SENTENCES[name])
    rows = []
    for number, line in enumerate(read_lines(path, encoding="cp1252"), start=1):
        if line[:2] not in ("0 ", "1 "):
            raise DataError(f"{path}, line {number}: 0 or 1, a space and a sentence are needed; fetch the file again")
        rows.append((line[2:].strip(), _CLASSES[name][int(line[0])]))
    return rows


def _one_file(name: str, file: str) -> Path:
    """A file of a set of which no other is needed."""
    return data_folder(name, files=[file], remotes={file: REMOTES[name][file]}) / file
