from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from xarray.indexes import RangeIndex

from tailrace import Dataset
from tailrace.core.errors import AssetError
from tailrace.materializers.files import FileWriter
from tailrace.materializers.identical import difference
from tailrace.materializers.registry import save
from tailrace.materializers.testing import check_refused, check_round_trip, restored


def weather() -> xr.Dataset:
    made = xr.Dataset(
        {
            "air": (
                ("x", "t"),
                np.asfortranarray(np.arange(6.0).reshape(2, 3)),
                {"units": "K", "range": np.array([1, 2], "i2"), "levels": (1, {2})},
                {"dtype": np.dtype("f4"), "_FillValue": np.float32(-9), "chunksizes": (1, 2), "zlib": True},
            ),
            "scalar": ((), 5),
            "objects": ("x", np.array(["a", None], object), {}, {"dtype": str}),
            "kinds": ("x", pd.Categorical(["a", "b"], categories=["b", "never", "a"], ordered=True)),
            "counts": ("x", pd.array([1, None], dtype="Int64")),
        },
        coords={
            "x": ["p", "q"],
            "t": pd.date_range("2020", periods=3, freq="D"),
            "label": ("x", [1, 2]),
            "where": "here",
        },
        attrs={"source": ("station", None), "n": np.int8(3)},
    )
    made.t.attrs["long_name"] = "time"
    made.t.encoding["units"] = "days since 2000-01-01"
    made.encoding["unlimited_dims"] = {"t"}
    return made


def levels() -> xr.Dataset:
    index = pd.MultiIndex.from_product([["b", "a"], [1, 2]], names=["u", "v"])
    made = xr.Dataset({"a": ("z", np.arange(4))}, coords=xr.Coordinates.from_pandas_multiindex(index, "z"))
    made.u.attrs["unit"] = "m"
    return made


WEATHER, LEVELS = weather(), levels()
PLAIN = WEATHER.drop_vars(["kinds", "counts"])
INDEXES = {
    "text of pandas": pd.Index(["a", "b"]),
    "text of NumPy": np.array(["a", "bc"]),
    "categories": pd.CategoricalIndex(["a", "b"], categories=["b", "a"]),
    "a range": pd.RangeIndex(3),
    "moments of a zone": pd.date_range("2020", periods=2, tz="Europe/Paris"),
    "moments in seconds": np.array(["2020", "NaT"], "M8[s]"),
    "moments in nanoseconds": np.array(["2020"], "M8[ns]"),
    "durations": np.array([1], "m8[us]"),
    "periods": pd.period_range("2020", periods=2, freq="M"),
    "intervals": pd.interval_range(0, 2),
    "small floats": np.array([1, 2], "f4"),
    "truths": np.array([True, False]),
    "objects": np.array([1, "a"], object),
    "integers with missing": pd.Index([1, None], dtype="Int64"),
    "big-endian": np.array([1, 2], ">i4"),
}
DATASETS: dict[str, Any] = {
    "everything": WEATHER,
    "levels": LEVELS,
    "nothing": xr.Dataset(),
    "attributes only": xr.Dataset(attrs={"a": 1}),
    "another order": WEATHER[["where", "counts", "label", "air", "x", "t"]],
    "an index of another name": WEATHER.set_xindex("label"),
    "an index reset": WEATHER.reset_index("x"),
    "an index dropped": WEATHER.drop_indexes("x"),
    "a variable named as its dimension": WEATHER.drop_indexes("x").reset_coords("x"),
    "dimensions swapped": WEATHER.swap_dims(x="label"),
    "transposed": WEATHER.transpose("t", "x"),
    "every second": WEATHER.isel(t=slice(None, None, 2)),
    "stacked": PLAIN.stack(both=("x", "t")),
    "one level chosen": LEVELS.sel(u="a"),
    "names that are numbers": xr.Dataset({0: ((1, 2), np.zeros((1, 2)))}),
    "names for one folder": xr.Dataset({name: ("u", [1]) for name in ("T", "t", "a/b", "..", "")}),
    "big-endian": xr.Dataset({"a": ("x", np.array([1, 2], ">f4"))}),
    "moments in seconds": xr.Dataset({"a": ("x", np.array(["2020", "NaT"], "M8[s]"))}),
    "dates as objects": xr.Dataset({"a": ("x", np.array([dt.date(2020, 1, 1)], object))}),
    "text and bytes": xr.Dataset({"a": ("x", np.array(["a", "bc"])), "b": ("x", np.array([b"a", b"bc"]))}),
}
ARRAYS: dict[str, Any] = {
    "with coordinates": WEATHER["air"],
    "without a name": xr.DataArray(np.zeros((2, 2))),
    "a name that is a tuple": xr.DataArray(5, name=("a", 1)),
    "a coordinate": WEATHER["t"],
    "with levels": LEVELS["a"],
    "categories": WEATHER["kinds"],
}


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS)
def test_a_dataset_comes_back_exactly(dataset: xr.Dataset) -> None:
    assert check_round_trip(dataset).identical(dataset)


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_an_array_comes_back_exactly(array: xr.DataArray) -> None:
    assert check_round_trip(array).identical(array)


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_an_index_comes_back_exactly_with_the_dtype_that_its_coordinate_shows(index: Any) -> None:
    check_round_trip(xr.Dataset(coords={"x": index}))


@settings(deadline=None, max_examples=30)
@given(st.data(), npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
def test_any_array_with_any_coordinates_comes_back_exactly(data: st.DataObject, shape: tuple[int, ...]) -> None:
    dims = [f"d{axis}" for axis in range(len(shape))]
    dtypes = npst.scalar_dtypes().filter(lambda dtype: dtype.kind not in "mM") | st.sampled_from(["M8[s]", "m8[ns]"])
    values = data.draw(npst.arrays(dtypes, shape))
    named = [(dim, size) for dim, size in zip(dims, shape, strict=True) if data.draw(st.booleans())]
    coords = {dim: data.draw(npst.arrays(st.sampled_from(["i8", "f4", "U2", "M8[ns]"]), size)) for dim, size in named}
    array = xr.DataArray(values, dims=dims, coords=coords, name=data.draw(st.none() | st.text()))
    check_round_trip(array)


def test_chunks_are_computed_and_come_back_in_the_same_sizes() -> None:
    chunked = PLAIN.chunk({"x": 1, "t": (1, 2)})
    loaded = check_round_trip(chunked)
    assert loaded.air.chunks == ((1, 1), (1, 2))
    assert check_round_trip(chunked["air"]).identical(PLAIN["air"])


def test_the_frequency_of_a_time_axis_is_kept() -> None:
    assert restored(WEATHER).indexes["t"].freq == "D"


def test_datasets_in_a_dict_come_back_as_what_they_were() -> None:
    value = {"weather": WEATHER, "air": [WEATHER["air"]]}
    assert difference(value, restored(value)) is None


def test_numpy_reads_the_arrays_alone(tmp_path: Path) -> None:
    save(WEATHER, FileWriter(tmp_path))
    assert (np.load(tmp_path / "0-air" / "data.npy") == WEATHER["air"].to_numpy()).all()


class Own(xr.Dataset):  # type: ignore[no-untyped-call]  # of its __init_subclass__
    __slots__ = ()


def with_encoding(**encoding: Any) -> xr.Dataset:
    made = weather()
    made["air"].encoding.update(encoding)
    return made


REFUSED: dict[str, tuple[Any, tuple[str, ...]]] = {
    "a sub-class": (Own(), ("Own",)),
    "an index that is not of pandas": (
        xr.Dataset(coords=xr.Coordinates.from_xindex(RangeIndex.arange(0.0, 1.0, 0.1, dim="x"))),
        ("'x'", "RangeIndex", ".drop_indexes('x')"),
    ),
    "an attribute without a form": (weather().assign_attrs(f=object()), ("attrs of the dataset", "'f'")),
    "an encoding without a form": (with_encoding(codec=object()), ("encoding", "'air'", "'codec'", ".drop_encoding()")),
    "objects without a form": (xr.Dataset({"bad": ("x", np.array([object()]))}), ("['bad']", "[0]")),
    "categories in two dimensions": (weather()[["kinds"]].expand_dims("e"), ("'kinds'", "category", ".astype")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_change_is_refused_with_the_variable_and_the_way_out(case: str) -> None:
    value, mentions = REFUSED[case]
    check_refused(value, *mentions)


def test_the_metadata_say_sizes_and_variables(tmp_path: Path) -> None:
    about = save(WEATHER, FileWriter(tmp_path)).metadata
    assert about["sizes"] == {"x": 2, "t": 3}
    assert about["schema"]["air"] == "float64 (x, t)"
    assert about["coords"] == ["x", "t", "label", "where"]
    assert about["nbytes"] == WEATHER.nbytes


def test_a_dataset_of_ours_knows_one_of_xarrays() -> None:
    dataset = Dataset(PLAIN, "weather")
    assert dataset.format == "xarray"
    assert dataset.schema == {"air": "float64", "scalar": "int64", "objects": "object"}


def test_a_dataset_is_split_along_the_dimension_that_comes_first() -> None:
    data = xr.Dataset({"a": ("x", np.arange(10)), "b": (("x", "y"), np.ones((10, 3)))}, {"x": list("abcdefghij")})
    train, test = Dataset(data, "grid").split(0.7)
    assert (len(train), len(test), train.name) == (7, 3, "grid-train")
    assert xr.concat([train.data, test.data], "x").sortby("x").identical(data)
    assert [len(part) for part in Dataset(data["b"]).split()] == [8, 2]
    assert [len(part) for part in Dataset(data.isel(x=[0])).split(0.3)] == [0, 1]
    with pytest.raises(AssetError, match="cannot be split"):
        Dataset(xr.Dataset({"a": ("x", [1]), "b": ("y", [2])})).split()
