from __future__ import annotations

import datetime as dt
import decimal
import struct
import uuid
import zoneinfo
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import pandas as pdst

from tailrace.materializers.files import FileWriter
from tailrace.materializers.registry import save
from tailrace.materializers.testing import check_refused, check_round_trip, restored

NAN = float("nan")
MISSING = {"None": None, "NaN": NAN, "NA": pd.NA, "NaT": pd.NaT}


def objects(*cells: Any) -> Any:
    return pd.Series(list(cells), dtype=object, name="cells")


def category(values: Any, categories: Any = None, ordered: bool = False) -> Any:
    return pd.Series(pd.Categorical(values, categories=categories, ordered=ordered))


def arrow(values: Any, kind: Any) -> Any:
    return pd.Series(pd.array(values, dtype=pd.ArrowDtype(kind)))


NUMPY = [
    "?",
    "i1",
    "u8",
    ">i4",
    "f2",
    "f4",
    ">f8",
    "c8",
    "c16",
    "M8[s]",
    "M8[ms]",
    "M8[us]",
    "M8[ns]",
    "m8[s]",
    "m8[ns]",
]
COLUMNS: dict[str, Any] = {
    **{f"numpy {kind}": pd.Series(np.array([0, 1, 2]).astype(kind)) for kind in NUMPY},
    **{
        f"text in {storage}, missing {missing}": pd.Series(
            ["a", None, ""], dtype=pd.StringDtype(storage, na_value=missing)
        )
        for storage in ("python", "pyarrow")
        for missing in (pd.NA, NAN)
    },
    **{
        kind: pd.Series([1, None, 0], dtype=kind)
        for kind in ("Int8", "Int64", "UInt64", "Float32", "Float64", "boolean")
    },
    "Float64 with NaN and NA apart": pd.Series(
        pd.arrays.FloatingArray(np.array([1, NAN, 0]), np.array([False, False, True]))
    ),
    "categories in their order, one unused": category(["b", "a", None, "b"], ["c", "b", "a"]),
    "ordered categories of integers": category([3, 1, 3], [3, 2, 1], ordered=True),
    "categories that are dates": category(pd.DatetimeIndex(["2021", "2020"]).as_unit("s")),
    "categories that are floats": category([1.5, None, 2.5]),
    "categories of mixed type": category(["a", 1, True]),
    "categories that are intervals": pd.cut(pd.Series([1.0, 2, 3]), 2),
    "text categories of dtype object": category(["a", "b"], pd.Index(["b", "a"], dtype=object)),
    "categories with a name": pd.Series(
        pd.Categorical.from_codes([0], dtype=pd.CategoricalDtype(pd.Index(["x"], name="n")))
    ),
    "no categories at all": category([None, None]),
    "three thousand categories": category([f"k{n}" for n in range(3000)]),
    "categories with an odd character": category(["a\0b"]),
    **{
        f"times of {zone!r}": pd.Series(pd.date_range("2020-10-25", periods=3, freq="h", tz=zone))
        for zone in (
            "UTC",
            "Europe/Paris",
            "+03:00",
            dt.UTC,
            dt.timezone(dt.timedelta(hours=2)),
            zoneinfo.ZoneInfo("UTC"),
        )
    },
    "seconds of a zone, long ago": pd.Series(pd.DatetimeIndex(["1500-01-01", "NaT"]).as_unit("s").tz_localize("UTC")),
    "periods": pd.Series(pd.PeriodIndex(["2020Q1", None], freq="Q")),
    "intervals closed on both sides": pd.Series(pd.arrays.IntervalArray.from_breaks([1, 2, 3], closed="both")),
    "intervals with a missing one": pd.Series(pd.array([pd.Interval(1.0, 2.0), None])),
    "intervals of times": pd.Series(pd.interval_range(pd.Timestamp("2020", tz="UTC"), periods=2)),
    "Arrow text": arrow(["a", None], pa.string()),
    "Arrow decimals": arrow([decimal.Decimal("1.10")], pa.decimal128(5, 2)),
    "Arrow nulls": arrow([None, None], pa.null()),
    "Arrow seconds": arrow([1, None], pa.timestamp("s")),
    "Arrow date64": arrow([dt.date(2020, 1, 1)], pa.date64()),
    "Arrow lists": arrow([[1], None], pa.list_(pa.int64())),
    "Arrow maps": arrow([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    "Arrow dictionary": arrow(pa.array(["a", "b"]).dictionary_encode(), pa.dictionary(pa.int32(), pa.string())),
    "objects: text": objects("a", "b"),
    **{f"objects: text and {name}": objects("a", missing, "") for name, missing in MISSING.items()},
    **{f"objects: floats and {name}": objects(1.5, NAN, missing) for name, missing in MISSING.items()},
    **{f"objects: {name} alone": objects(missing) for name, missing in MISSING.items()},
    "objects: None, NaN and NA": objects("a", None, NAN, pd.NA),
    "objects: integers and None": objects(1, None),
    "objects: big integers": objects(2**70, 1),
    "objects: booleans and NaN": objects(True, NAN),
    "objects: bytes and None": objects(b"a", None),
    "objects: dates": objects(dt.date(2020, 1, 1), None),
    "objects: datetimes": objects(dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=dt.UTC)),  # noqa: DTZ001 - naive on purpose
    "objects: decimals of equal value": objects(decimal.Decimal("1.10"), decimal.Decimal("1.1")),
    "objects: lists": objects([1], [2, 3]),
    "objects: tuples": objects((1, 2), ()),
    "objects: sets": objects({1}, {2}),
    "objects: dicts": objects({"a": 1}, {"b": 1.5}),
    "objects: arrays": objects(np.arange(3), np.ones((2, 2), order="F")),
    "objects: UUIDs": objects(uuid.UUID(int=5)),
    "objects: mixed": objects("a", 1, 1.5, None, True),
    "objects: timestamps": objects(pd.Timestamp("2020", tz="Europe/Paris"), pd.NaT, pd.Timedelta(1, "ns")),
    "objects: numpy's scalars": objects(np.float32(1), np.str_("x"), 2),
    "objects: a lone surrogate": objects("\ud800", "x"),
}


@pytest.mark.parametrize("series", COLUMNS.values(), ids=COLUMNS)
def test_a_column_comes_back_exactly(series: Any) -> None:
    check_round_trip(series)
    check_round_trip(pd.DataFrame({"first": range(len(series)), "x": series}))


INDEXES: dict[str, Any] = {
    "a range": pd.RangeIndex(2, 8, 3, name="r"),
    "a range backwards": pd.RangeIndex(5, 0, -1),
    "integers": pd.Index([3, 1]),
    "floats": pd.Index([1.5, NAN]),
    "small floats": pd.Index([1.5], dtype="f4"),
    "booleans": pd.Index([True, False]),
    "text": pd.Index(["a", "b"], name="k"),
    "text of dtype object": pd.Index(["a", "b"], dtype=object),
    "mixed": pd.Index(["a", 1, (1, 2)], dtype=object),
    "labels that occur twice": pd.Index([1, 1]),
    "days": pd.date_range("2020", periods=3, freq="D", name="d"),
    "business days": pd.date_range("2020", periods=3, freq="B"),
    "every other week": pd.date_range("2020", periods=3, freq="2W-TUE"),
    "days backwards": pd.date_range("2020", periods=3, freq="-1D"),
    "days of a zone over a change of time": pd.date_range("2020-10-24", periods=3, freq="D", tz="Europe/Paris"),
    "dates without frequency": pd.DatetimeIndex(["2020", "2022"]),
    "seconds": pd.DatetimeIndex(["2020"]).as_unit("s"),
    "durations": pd.timedelta_range(0, periods=3, freq="h"),
    "periods": pd.period_range("2020", periods=2, freq="M"),
    "intervals": pd.interval_range(0, 3),
    "categories": pd.CategoricalIndex(["b", "a"], categories=["b", "a", "z"], ordered=True),
    "nullable integers": pd.Index([1, None], dtype="Int64"),
    "Arrow integers": pd.Index([1], dtype=pd.ArrowDtype(pa.int64())),
    "two levels": pd.MultiIndex.from_product([["x", "y"], [1, 2]], names=["l", ("t", 1)]),
    "levels out of order and one unused": pd.MultiIndex.from_product([["y", "x"], [2, 1]])[1:3],
    "levels with missing labels": pd.MultiIndex.from_arrays([["a", None], [1.5, NAN]]),
    "a level of dates with a frequency": pd.MultiIndex.from_product([pd.date_range("2020", periods=2), ["a"]]),
    "a level of categories": pd.MultiIndex.from_arrays(
        [pd.Categorical(["a", "b"], categories=["b", "a", "c"]), [1, 2]]
    ),
    "one level": pd.MultiIndex.from_arrays([[1, 2]], names=["one"]),
    "a level whose labels have a missing one": pd.MultiIndex(levels=[[1.5, NAN], ["a"]], codes=[[0, 1, -1], [0, 0, 0]]),
    "empty levels": pd.MultiIndex.from_arrays([[], []], names=["a", "b"]),
    "nothing": pd.Index([]),
    "no dates": pd.DatetimeIndex([]),
    "a name that is a tuple": pd.Index([1], name=(1, "a")),
    "a name that is a time": pd.Index([1], name=pd.Timestamp("2020")),
    "a name that a column has": pd.Index([5], name="a"),
    "a name that no file can have": pd.Index([5], name="\ud800"),
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_an_index_comes_back_exactly_alone_and_as_rows(index: Any) -> None:
    check_round_trip(index)
    check_round_trip(pd.DataFrame({"a": range(len(index))}, index=index))
    check_round_trip(pd.Series(range(len(index)), index=index, dtype="i2"))


LABELS: dict[str, Any] = {
    "a range": pd.RangeIndex(2),
    "integers": [1, 5],
    "mixed": ["a", 1],
    "1 and its text": ["1", 1],
    "the same twice": ["a", "a"],
    "tuples": pd.Index([("a", 1), ("b", 2)], tupleize_cols=False),
    "two levels": pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["u", "v"]),
    "days": pd.date_range("2020", periods=2, freq="D"),
    "floats": [1.5, 2.5],
    "booleans": [True, False],
    "None": [None, "a"],
    "categories": pd.CategoricalIndex(["a", "b"]),
    "text of dtype object": pd.Index(["a", "b"], dtype=object),
    "text with a name": pd.Index(["a", "b"], name="columns"),
    "an empty text": ["", "b"],
    "dots and slashes": ["a.b", "c/d"],
    "beyond ASCII": ["é", "日本"],
    "a NUL": ["a\0b", "a\0c"],
    "line breaks": ["a\nb", "c"],
    "a lone surrogate": pd.Index(["\ud800", "b"], dtype=object),
    "a name that Parquet's index has": ["__index_level_0__", "b"],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_column_labels_come_back_exactly(labels: Any) -> None:
    check_round_trip(pd.DataFrame([[1, 2.5]], columns=labels, index=["row"]))


@pytest.mark.parametrize("bits", ["7ff8000000000000", "fff8000000000000", "7ff8000000001234"])
@pytest.mark.parametrize("other", ["text", 1, None], ids=str)
def test_a_nan_among_other_objects_keeps_its_bits(bits: str, other: Any) -> None:
    nan = struct.unpack(">d", bytes.fromhex(bits))[0]
    check_round_trip(pd.Series([other, nan], dtype=object))


def with_attrs() -> pd.DataFrame:
    frame = pd.DataFrame({"a": [1]})
    frame.attrs = {"source": ("a", 1), "when": dt.date(2020, 1, 1)}
    return frame


FRAMES: dict[str, Any] = {
    "nothing": pd.DataFrame(),
    "rows without columns": pd.DataFrame(index=pd.RangeIndex(5)),
    "dated rows without columns": pd.DataFrame(index=pd.date_range("2020", periods=3)),
    "columns without rows": pd.DataFrame(
        {"f": np.array([], "f8"), "s": pd.array([], "str"), "o": np.array([], object)}
    ),
    "attrs": with_attrs(),
    "labels that must be unique": pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=False),
    "a pivot": pd.DataFrame({"a": ["x", "y"], "b": ["u", "v"], "v": [1, 2]}).pivot_table(
        index="a", columns="b", values=["v"]
    ),
    "two thousand columns": pd.DataFrame(np.arange(4000.0).reshape(2, 2000)),
    "a series named by a number": pd.Series([1], name=5),
    "a series without a name": pd.Series([1]),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_frame_comes_back_exactly(frame: Any) -> None:
    check_round_trip(frame)


@settings(deadline=None, max_examples=50)
@given(
    pdst.data_frames(
        [
            pdst.column("i", dtype=int),
            pdst.column("f", dtype=float),
            pdst.column("t", dtype="M8[ns]"),
            pdst.column("o", dtype=object, elements=st.none() | st.text() | st.integers() | st.floats()),
        ],
        index=pdst.indexes(dtype=int) | pdst.range_indexes(),
    )
)
def test_any_frame_comes_back_exactly(frame: pd.DataFrame) -> None:
    check_round_trip(frame)


def test_many_rows_in_several_row_groups_come_back_exactly() -> None:
    count = 1_200_000
    frame = pd.DataFrame(
        {
            "n": np.arange(count),
            "c": pd.Categorical.from_codes([0, 1, 2] * (count // 3), categories=pd.Index(["z", "y", "x", "never"])),
            "s": pd.Series(["q", "r", None] * (count // 3), dtype="str"),
        }
    )
    check_round_trip(frame)


def test_what_is_loaded_can_be_changed() -> None:
    frame = restored(pd.DataFrame({"i": [1], "f": [1.5], "o": objects("a"), "s": ["x"], "c": category(["a"])}))
    frame.loc[0, ["i", "f", "o", "s", "c"]] = [2, 2.5, "b", "y", "a"]
    frame["new"] = frame["i"] + 1
    frame.index = pd.Index(["row"])
    assert frame.loc["row", "new"] == 3


class Special(pd.DataFrame):
    pass


REFUSED: dict[str, tuple[Any, list[str]]] = {
    "sparse": (pd.DataFrame({"ok": [1], "bad": pd.arrays.SparseArray([0])}), ["column 'bad'", "Sparse"]),
    "long doubles": (pd.DataFrame({"bad": np.array([1.5], "g")}), ["column 'bad'", "float128"]),
    "functions": (pd.DataFrame({"bad": objects("a", print)}), ["column 'bad'", "row 1"]),
    "dates beyond milliseconds": (pd.Series(np.array([2**62], "M8[s]")), ["milliseconds"]),
    "labels beyond milliseconds": (
        pd.DatetimeIndex(np.array(["-292275055-05-16T16:47:05"], "M8[s]")),
        ["milliseconds"],
    ),
    "business days with holidays": (
        pd.Series(
            range(3), index=pd.date_range("2020", periods=3, freq=pd.offsets.CustomBusinessDay(holidays=["2020-01-02"]))
        ),
        ["frequency"],
    ),
    "months and days": (pd.date_range("2020", periods=2, freq=pd.DateOffset(months=1, days=2)), ["frequency", "None"]),
    "frames in cells": (pd.Series([pd.DataFrame({"a": [1]})], dtype=object), ["row 0: it is a DataFrame"]),
    "a zone of another library": (pd.Series(pd.DatetimeIndex(["2020"], tz="dateutil/Europe/Paris")), ["tzfile"]),
    "a sub-class": (Special({"a": [1]}), ["Special"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_change_is_refused_with_its_place(case: str) -> None:
    value, mentions = REFUSED[case]
    check_refused(value, *mentions)


def test_attrs_that_cannot_be_kept_are_refused() -> None:
    frame = pd.DataFrame({"a": [1]})
    frame.attrs = {"model": object()}
    check_refused(frame, "attrs", "['model']")


def test_other_tools_read_the_columns_by_name_and_the_index(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"x": [1.5, 2.5], "c": pd.Categorical(["b", "a"], categories=["b", "a"]), "s": ["u", "v"]},
        index=pd.MultiIndex.from_tuples([("g", 1), ("h", 2)], names=["group", "n"]),
    )
    save(frame, FileWriter(tmp_path))
    table = pq.read_table(tmp_path / "data.parquet")
    assert table.column_names == ["x", "c", "s", "group", "n"]
    assert table.drop(["c"]).to_pylist()[1] == {"x": 2.5, "s": "v", "group": "h", "n": 2}
    again = pd.read_parquet(tmp_path / "data.parquet")
    assert list(again.index) == [("g", 1), ("h", 2)]
    assert list(again["c"]) == ["b", "a"]


def test_equal_frames_have_equal_bytes_however_they_were_cut(tmp_path: Path) -> None:
    whole = pd.DataFrame({"s": pd.Series(["a", None, "c", "d"], dtype="str"), "n": [1, 2, 3, 4]})
    joined = pd.concat([whole.iloc[:1], whole.iloc[1:]])
    joined.index = pd.RangeIndex(4)
    contents = []
    for place, frame in enumerate((whole, joined, whole.copy())):
        (tmp_path / str(place)).mkdir()
        save(frame, FileWriter(tmp_path / str(place)))
        contents.append((tmp_path / str(place) / "data.parquet").read_bytes())
    assert contents[0] == contents[1] == contents[2]


def test_the_metadata_say_rows_schema_and_nulls(tmp_path: Path) -> None:
    saved = save(pd.DataFrame({"a": [1.5, NAN], "b": ["x", "y"]}), FileWriter(tmp_path))
    assert saved.metadata["rows"] == 2
    assert saved.metadata["columns"] == 2
    assert saved.metadata["schema"] == {"a": "float64", "b": "str"}
    assert saved.metadata["nulls"] == {"a": 1}
