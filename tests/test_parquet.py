"""Parquet files: checksums of pages, and a limit to how far they expand."""

from pathlib import Path

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from suite import records
from suite.errors import DataError
from suite.sources import read_table
from tests.corruption.samples import COLUMNS, MAKERS


def test_checksums_of_pages_are_compared(tmp_path: Path) -> None:
    data = bytearray(MAKERS["parquet-checked"](0))
    place = data.rindex(b"fish", 0, 1500)
    data[place : place + 4] = b"wish"
    path = tmp_path / "a.parquet"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.parquet: not a Parquet file that can be read \(.*CRC checksum"):
        read_table(path, columns=COLUMNS)


def test_expansion_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    column = pa.DictionaryArray.from_arrays(pa.array(numpy.zeros(20_000, numpy.int8)), pa.array(["a" * 1000]))
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": column, "label": column}), path)
    assert len(read_table(path, columns=COLUMNS)) == 20_000
    monkeypatch.setattr(records, "_FREE", 1 << 20)
    with pytest.raises(DataError, match=r"a\.parquet: [\d,]+ bytes of it expand to more than [\d,]+, over 100 times"):
        read_table(path, columns=COLUMNS)
