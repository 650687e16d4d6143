from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from polars.testing.parametric import dataframes, series

from tailrace import Dataset, LocalArtifactStore
from tailrace.materializers.files import FileReader, FileWriter
from tailrace.materializers.identical import difference
from tailrace.materializers.registry import load, save
from tailrace.materializers.testing import check_refused, check_round_trip, restored

FRAME = pl.DataFrame({"n": [1, None, 3], "f": [1.5, float("nan"), None], "s": ["a", None, ""]})
DAY = dt.date(2020, 1, 1)

COLUMNS: dict[str, Any] = {
    "integers of 8 bits": pl.Series([1, None], dtype=pl.Int8),
    "integers of 128 bits": pl.Series([1 << 100, None], dtype=pl.Int128),
    "unsigned integers of 128 bits": pl.Series([1 << 127, None], dtype=pl.UInt128),
    "half floats": pl.Series([1.5, float("nan"), None], dtype=pl.Float16),
    "NaN, null and minus zero": pl.Series([float("nan"), None, -0.0]),
    "NaN of other bits": pl.Series(np.array([0x7FF8000000000001, 0xFFF8000000000ABC], "u8").view("f8")),
    "decimals": pl.Series([Decimal("1.10"), None], dtype=pl.Decimal(38, 2)),
    "decimals without places": pl.Series([Decimal(1), None], dtype=pl.Decimal(5, 0)),
    "dates": pl.Series([DAY, None]),
    "times": pl.Series([dt.time(1, 2, 3), None]),
    "moments in nanoseconds": pl.Series([1, None], dtype=pl.Datetime("ns")),
    "moments in milliseconds of a zone": pl.Series([1, None], dtype=pl.Datetime("ms", "Europe/Paris")),
    "durations in milliseconds": pl.Series([1, None], dtype=pl.Duration("ms")),
    "text": pl.Series(["x", None, "", "\0é"]),
    "bytes": pl.Series([b"x", None, b""]),
    "nulls": pl.Series([None, None]),
    "categories": pl.Series(["b", "a", None], dtype=pl.Categorical),
    "categories of a name": pl.Series(["b", "a", None], dtype=pl.Categorical(pl.Categories("mine", "here", pl.UInt8))),
    "an enum with one that never occurs": pl.Series(["b", "a", None], dtype=pl.Enum(["b", "never", "a"])),
    "an enum of nothing": pl.Series([None], dtype=pl.Enum([])),
    "lists": pl.Series([[1, None], None, []]),
    "lists of lists": pl.Series([[[1], None, []], None, []]),
    "lists of an enum": pl.Series([["a"], None], dtype=pl.List(pl.Enum(["b", "a"]))),
    "lists of nulls": pl.Series([[None], None, []], dtype=pl.List(pl.Null)),
    "lists of durations": pl.Series([[dt.timedelta(1)], None], dtype=pl.List(pl.Duration("ms"))),
    "arrays": pl.Series([[[1, None], [3, 4]], None], dtype=pl.Array(pl.Int8, (2, 2))),
    "arrays of nothing": pl.Series([[], None], dtype=pl.Array(pl.Int8, 0)),
    "structs": pl.Series([{"x": 1, "y": None}, None, {"x": None, "y": None}]),
    "structs in lists": pl.Series([[{"x": Decimal("1.1")}, None], None, []]),
    "maps": pl.Series([{"b": 1, "a": None}, None, {}], dtype=pl.Map(pl.String, pl.Int64)),
    "no rows": pl.Series([], dtype=pl.List(pl.Struct({"x": pl.Enum(["q"])}))),
    "a slice": pl.Series(range(100)).slice(7, 9),
    "sorted, as polars knows": pl.Series([1, 2, 3]).set_sorted(),
    "sorted downwards": pl.Series([None, 3, 2]).set_sorted(descending=True),
}
FRAMES: dict[str, Any] = {
    "plain": FRAME,
    "nothing": pl.DataFrame(),
    "rows without columns": pl.DataFrame(height=5),
    "odd names": pl.DataFrame({"": [1], "é\n": [2], "a.b": [3], "__index_level_0__": [4]}),
    "sorted in two columns": FRAME.with_columns(
        pl.col("n").set_sorted(), m=pl.Series([3, 2, 1]).set_sorted(descending=True)
    ),
    "lists of which none is empty": pl.DataFrame({"l": [[1], [2, 3]]}),
    "several chunks": pl.concat([FRAME, FRAME], rechunk=False),
    "more rows than a row group": pl.DataFrame({"a": range(300_000)}),
}


@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS)
def test_a_column_comes_back_exactly_alone_and_in_a_frame(column: pl.Series) -> None:
    check_round_trip(column.alias("c"))
    check_round_trip(pl.DataFrame({"c": column}))


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_frame_comes_back_exactly_eager_and_lazy(frame: pl.DataFrame) -> None:
    check_round_trip(frame)
    check_round_trip(frame.lazy(), equal=lambda one, other: one.collect().equals(other.collect()))


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(dataframes(max_cols=4, max_size=6, excluded_dtypes=[pl.Extension]))
def test_any_frame_comes_back_exactly(frame: pl.DataFrame) -> None:
    check_round_trip(frame)


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(series(max_size=6, allowed_dtypes=[pl.List, pl.Array, pl.Struct]))
def test_any_nested_series_comes_back_exactly(column: pl.Series) -> None:
    check_round_trip(column)


def test_frames_in_a_dict_come_back_each_in_its_own_file() -> None:
    value = {"train": FRAME, "y": FRAME["n"], "both": [FRAME, pd.DataFrame({"a": [1]})]}
    assert difference(value, restored(value)) is None


# ---- bytes


def written(value: Any, folder: Path) -> bytes:
    folder.mkdir()
    save(value, FileWriter(folder))
    return (folder / "data.parquet").read_bytes()


def test_equal_frames_have_equal_bytes_however_they_are_cut_made_or_run(tmp_path: Path) -> None:
    whole = pl.DataFrame({"a": range(300_000), "s": [f"k{n % 99}" for n in range(300_000)]})
    pieces = pl.concat([whole[:1000], whole[1000:222_222], whole[222_222:]], rechunk=False)
    first = written(whole, tmp_path / "1")
    assert pieces.n_chunks() == 3
    assert written(pieces, tmp_path / "2") == first
    assert written(whole.lazy(), tmp_path / "3") == first
    hidden = pl.DataFrame({"a": [1, 99, 3]}).select(pl.when(pl.col("a") < 50).then("a"))
    assert written(hidden, tmp_path / "4") == written(pl.DataFrame({"a": [1, None, 3]}), tmp_path / "5")


def test_the_bytes_have_nothing_of_the_rows_around_a_slice_or_of_other_categories(tmp_path: Path) -> None:
    pl.Series(["a secret"], dtype=pl.Categorical)
    frame = pl.DataFrame({"s": [f"secret {n}" for n in range(9)], "c": ["x"] * 9}).cast({"c": pl.Categorical})
    part = written(frame[3:5], tmp_path / "1")
    assert b"secret 4" in part
    assert b"secret 5" not in part
    assert b"a secret" not in part


PROCESS = """
import sys
from pathlib import Path
import polars as pl
from tailrace.materializers.files import FileWriter
from tailrace.materializers.registry import save

pl.Series(sys.argv[2].split(), dtype=pl.Categorical)
frame = pl.DataFrame({"n": range(300_000), "c": ["b", "a", None] * 100_000}).cast({"c": pl.Categorical})
writer = FileWriter(Path(sys.argv[1]))
saved = save(frame, writer)
print(saved.spec, [entry.digest for entry in writer.finish()])
"""


def test_two_processes_with_other_threads_and_categories_write_the_same_bytes(tmp_path: Path) -> None:
    printed = []
    for threads, others in (("1", "z a"), ("3", "b")):
        folder = tmp_path / threads
        folder.mkdir()
        environment = {**os.environ, "POLARS_MAX_THREADS": threads, "PYTHONHASHSEED": threads}
        command = [sys.executable, "-c", PROCESS, str(folder), others]
        printed.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert "blake3" in printed[0]
    assert printed[0] == printed[1]


def test_pandas_and_arrow_read_the_file_with_its_real_names(tmp_path: Path) -> None:
    written(FRAME, tmp_path / "a")
    assert pq.read_table(tmp_path / "a" / "data.parquet").to_pylist()[0] == {"n": 1, "f": 1.5, "s": "a"}
    assert list(pd.read_parquet(tmp_path / "a" / "data.parquet")) == FRAME.columns


# ---- lazy frames


def test_a_lazy_frame_is_run_once_on_saving_and_comes_back_as_a_scan(tmp_path: Path) -> None:
    runs = []

    def look(frame: pl.DataFrame) -> pl.DataFrame:
        runs.append(frame.height)
        return frame

    lazy = FRAME.lazy().map_batches(look, streamable=False).filter(pl.col("n") > 1)
    store = LocalArtifactStore(tmp_path / "year=2026" / "odd [name]*")
    store.save(lazy, "a")
    assert sum(runs) == FRAME.height
    loaded = store.load("a")
    assert isinstance(loaded, pl.LazyFrame)
    assert loaded.select("s").collect().to_dict(as_series=False) == {"s": [""]}
    assert loaded.collect_schema() == FRAME.schema


def test_the_error_of_a_lazy_frames_query_is_its_own(tmp_path: Path) -> None:
    wrong = FRAME.lazy().with_columns(pl.col("s").cast(pl.Int8, strict=True))
    with pytest.raises(pl.exceptions.InvalidOperationError):
        save(wrong, FileWriter(tmp_path))


# ---- refused


class Own(pl.DataFrame):
    pass


class Celsius(pl.BaseExtension):
    def __init__(self) -> None:
        super().__init__("tests.celsius", pl.Float64())


REFUSED: dict[str, tuple[Any, tuple[str, ...]]] = {
    "Python objects": (
        pl.DataFrame({"a": [1], "b": pl.Series([object()], dtype=pl.Object)}),
        ("'b'", "Object", "list"),
    ),
    "a struct of nothing": (pl.DataFrame({"b": [[{}]]}, schema={"b": pl.List(pl.Struct([]))}), ("'b'", "fields")),
    "a sub-class": (Own({"a": [1]}), ("Own",)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_change_is_refused_with_the_column_and_the_way_out(case: str) -> None:
    value, mentions = REFUSED[case]
    check_refused(value, *mentions)
    if type(value) is pl.DataFrame:
        check_refused(value.lazy(), *mentions)


def test_an_extension_type_is_refused_with_the_way_out() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # polars calls these unstable
        frame = pl.DataFrame({"t": [1.5]}).select(pl.col("t").ext.to(Celsius()))
    check_refused(frame, "'t'", ".ext.storage()")


# ---- said about it


def test_the_metadata_say_schema_nulls_and_limits(tmp_path: Path) -> None:
    moments = [dt.datetime(2020, 1, 1, tzinfo=dt.UTC), None, dt.datetime(2021, 1, 1, tzinfo=dt.UTC)]
    about = save(FRAME.with_columns(d=pl.lit(DAY), t=pl.Series(moments)), FileWriter(tmp_path)).metadata
    assert (about["type"], about["rows"], about["columns"]) == ("polars.DataFrame", 3, 5)
    assert about["schema"]["n"] == "Int64"
    assert about["nulls"] == {"n": 1, "f": 1, "s": 1, "t": 1}
    assert about["min"] == {"n": 1, "f": 1.5, "d": "2020-01-01", "t": "2020-01-01T00:00:00+00:00"}
    assert about["max"] == {"n": 3, "f": 1.5, "d": "2020-01-01", "t": "2021-01-01T00:00:00+00:00"}


def test_moments_beyond_pythons_years_are_saved_and_have_no_limits(tmp_path: Path) -> None:
    far = pl.Series("t", [0, 1 << 62], dtype=pl.Int64).cast(pl.Datetime("ms"))
    check_round_trip(far)
    assert "min" not in save(far, FileWriter(tmp_path)).metadata


def test_a_dataset_knows_the_format_the_schema_and_the_rows_of_polars(tmp_path: Path) -> None:
    eager, lazy = Dataset(FRAME, "eager", statistics=True), Dataset(FRAME.lazy(), "lazy")
    assert (eager.format, lazy.format, len(eager)) == ("polars", "polars", 3)
    assert eager.schema == lazy.schema == {"n": "Int64", "f": "Float64", "s": "String"}
    assert eager.statistics["by_column"]["f"] == {"missing": 2, "min": 1.5, "max": 1.5, "mean": 1.5, "std": None}
    assert lazy.statistics == {"columns": 3}
    train, test = eager.split(2 / 3)
    assert (len(train), len(test)) == (2, 1)
    store = LocalArtifactStore(tmp_path)
    store.save(eager, "d")
    assert difference(store.load("d").data, FRAME) is None


def test_a_flag_of_being_sorted_is_restored_and_none_is_made_up(tmp_path: Path) -> None:
    writer = FileWriter(tmp_path)
    saved = save(pl.DataFrame({"a": [1, 2], "b": [1, 2]}).with_columns(pl.col("b").set_sorted()), writer)
    assert saved.spec == {"kind": "DataFrame", "ascending": [1]}
    reader = FileReader(tmp_path, {entry.path: entry for entry in writer.finish()})
    loaded = load("polars", 1, reader, saved.spec)
    assert [column.flags["SORTED_ASC"] for column in loaded] == [False, True]
