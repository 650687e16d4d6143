"""Missing values, minimum and maximum for every array and table, without being asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tailrace.materializers.files import FileWriter
from tailrace.materializers.limits import limits
from tailrace.materializers.registry import save

DTYPES = hnp.integer_dtypes() | hnp.unsigned_integer_dtypes() | hnp.floating_dtypes(sizes=(32, 64))


@given(hnp.arrays(DTYPES, st.integers(0, 20)))
def test_they_are_those_of_numpy(array: Any) -> None:
    missing, ends = limits(array)
    if not array.dtype.isnative:
        assert (missing, ends) == (0, {})
        return
    present = array[~np.isnan(array)]
    assert missing == len(array) - len(present)
    told = {"min": present.min(), "max": present.max()} if len(present) else {}
    assert {end: float(number) for end, number in ends.items()} == {end: float(number) for end, number in told.items()}


def test_they_are_found_beyond_the_first_block_and_in_every_memory_order() -> None:
    array = np.zeros((3, 100_001), "f4")
    array[2, 100_000], array[1, 7], array[0, 3] = 5, -2, np.nan
    for view in (array, np.asfortranarray(array), array.T):
        assert limits(view) == (1, {"min": -2.0, "max": 5.0})
    assert limits(array[:, ::2]) == (0, {}), "a copy would be needed"
    assert limits(array[:, 7]) == (0, {"min": -2.0, "max": 0.0})


def test_moments_are_told_as_text_without_those_that_are_missing() -> None:
    moments = np.array(["2026-01-31T12", "NaT", "2020-02-29T00"], "M8[s]")
    assert limits(moments) == (1, {"min": "2020-02-29T00:00:00", "max": "2026-01-31T12:00:00"})
    assert limits(np.array(["NaT"], "M8[ns]")) == (1, {})


def about(value: Any, folder: Path) -> dict[str, Any]:
    return save(value, FileWriter(folder)).metadata


def test_arrays_frames_and_tables_say_them(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "n": [3, 1],
            "f": [np.nan, np.inf],
            "s": ["a", None],
            "day": pd.to_datetime(["2026-01-31", "NaT"]),
            "zoned": pd.to_datetime(["2026-01-31T12:00", "2026-02-01"], format="ISO8601").tz_localize("Asia/Tokyo"),
        }
    )
    values = {"array": np.array([2.5, np.nan]), "frame": frame, "series": frame["n"], "index": pd.Index([2, 7])}
    values["table"] = pa.table({"n": [3, 1, None], "f": [0.5, -1.5, 2.0], "g": [1.0, None, 2.0], "s": ["a", "b", "c"]})
    values["cut"] = pa.chunked_array([[1.5], [], [-1.0]])
    found = {}
    for name, value in values.items():
        (tmp_path / name).mkdir()
        found[name] = {
            key: part for key, part in about(value, tmp_path / name).items() if key in ("nulls", "min", "max")
        }
    assert found["array"] == {"nulls": 1, "min": 2.5, "max": 2.5}
    assert found["frame"]["nulls"] == {"f": 1, "s": 1, "day": 1}
    ends = found["frame"]["min"], found["frame"]["max"]
    assert [end["n"] for end in ends] == [1, 3]
    assert [end["f"] for end in ends] == ["inf", "inf"], "as JSON can hold it"
    assert [end["day"][:10] for end in ends] == ["2026-01-31", "2026-01-31"]
    assert [end["zoned"][:19] for end in ends] == ["2026-01-31T03:00:00", "2026-01-31T15:00:00"]
    assert found["series"] == {"nulls": 0, "min": 1, "max": 3}
    assert found["index"] == {"nulls": 0, "min": 2, "max": 7}
    assert found["table"] == {"nulls": {"n": 1, "g": 1}, "min": {"n": 1, "f": -1.5}, "max": {"n": 3, "f": 2.0}}
    assert found["cut"] == {"nulls": 0, "min": -1.0, "max": 1.5}


@pytest.mark.parametrize("value", [np.array([]), np.array(5.0), np.array([1 + 2j]), np.array(["a"]), np.empty((0, 3))])
def test_what_has_none_says_none(value: Any, tmp_path: Path) -> None:
    found = about(value, tmp_path)
    assert ("min" in found) == (value.size == 1 and value.dtype.kind == "f")


def test_odd_tables_are_described(tmp_path: Path) -> None:
    levels = pd.MultiIndex.from_product([[1, 2], ["a"]])
    values: list[Any] = [pd.RangeIndex(3), levels, pd.DataFrame(index=[1]), pd.Series(["a"], dtype="category")]
    for place, value in enumerate(values):
        (tmp_path / str(place)).mkdir()
        assert about(value, tmp_path / str(place))["rows"] == len(value)
