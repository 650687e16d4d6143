"""What version 1 of each format wrote is read as it was. A golden is never edited; as a script, this adds new ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import xarray as xr

from tailrace.core.refs import FileEntry
from tailrace.materializers.files import FileReader, FileWriter, digest_file
from tailrace.materializers.identical import difference
from tailrace.materializers.registry import load, save

GOLDEN = Path(__file__).with_name("golden")
FORMATS = ("bsr", "coo", "csr", "dia", "dok", "lil")


def frame() -> pd.DataFrame:
    made = pd.DataFrame(
        {
            "f": [1.5, float("nan"), -0.0],
            "s": pd.array(["a", None, ""], dtype="str"),
            "n": pd.array([1, None, 3], dtype="Int64"),
            "c": pd.Categorical(["b", None, "a"], categories=["b", "a", "never"], ordered=True),
            "t": pd.date_range("2020-10-24", periods=3, tz="Europe/Paris"),
            "o": pd.Series([(1, 2), {"a"}, None], dtype=object),
            5: pd.arrays.IntervalArray.from_breaks([0, 1, 2, 3]),
        }
    )
    made.index = pd.MultiIndex.from_product([["y", "x"], [2, 1]], names=["k", None])[:3]
    made.attrs = {"source": ("here",)}
    return made


def polars_frame() -> pl.DataFrame:
    made = pl.DataFrame(
        {
            "n": [1, None, 3],
            "f": [1.5, float("nan"), None],
            "e": pl.Series(["b", "a", None], dtype=pl.Enum(["b", "never", "a"])),
            "c": pl.Series(["y", None, "x"], dtype=pl.Categorical),
            "d": pl.Series([1, None, 3], dtype=pl.Datetime("ns", "Europe/Paris")),
            "m": pl.Series(["1.10", None, "2.00"]).cast(pl.Decimal(20, 2)),
            "l": [[{"x": 1}], None, []],
        }
    )
    return made.with_columns(pl.col("n").set_sorted())


def dataset() -> xr.Dataset:
    return xr.Dataset(
        {"air": (("x", "t"), np.arange(4.0).reshape(2, 2), {"units": "K"}, {"dtype": np.dtype("f4")})},
        coords={"x": ["p", "q"], "t": pd.date_range("2020", periods=2, freq="D"), "label": ("x", [1, 2])},
        attrs={"source": ("here",)},
    )


VALUES: dict[str, Any] = {
    "plain": {"a": [1, (2, {3})], "b": {"train": np.arange(3)}},
    "bytes": b"\x00\xff",
    "numpy-structure": np.array([(1, 2.5)], np.dtype([("a", "i1"), ("b", ">f8")], align=True)),
    "numpy-masked": np.ma.array([1.0, 2.0], mask=[False, True], fill_value=9, hard_mask=True),
    "numpy-objects": np.array([["a", None], [1, (2,)]], object, order="F"),
    "pandas": frame(),
    "pandas-arrow": pd.Series(pd.arrays.ArrowExtensionArray(pa.array([1, None], pa.timestamp("s")))),
    "arrow": pa.table({"a": [1, None], "d": pa.array(["x", "y"]).dictionary_encode()}),
    "arrow-scalar": pa.scalar([1, None]),
    "arrow-schema": pa.schema([pa.field("a", pa.int64(), False, {"k": "v"})], {"z": "1"}),
    "polars": polars_frame(),
    "polars-series": pl.Series("s", [3, 2, None]).set_sorted(descending=True),
    **{f"scipy-{form}": sp.csr_array(np.array([[0, 1.5, 0], [2, 0, 3]])).asformat(form) for form in FORMATS},
    "xarray": dataset(),
    "xarray-array": dataset()["air"].stack(both=("x", "t")),
}


@pytest.mark.parametrize("name", VALUES)
def test_what_version_one_wrote_is_read_as_it_was(name: str) -> None:
    folder = GOLDEN / name
    about = json.loads((folder / "saved.json").read_text())
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    entries = {path: FileEntry(path, *digest_file(folder / path)) for path in paths if path != "saved.json"}
    loaded = load(about["materializer"], about["version"], FileReader(folder, entries), about["spec"])
    assert difference(VALUES[name], loaded) is None


if __name__ == "__main__":
    for name, value in VALUES.items():
        if not (GOLDEN / name).exists():
            (GOLDEN / name).mkdir(parents=True)
            saved = save(value, FileWriter(GOLDEN / name))
            about = {"materializer": saved.materializer, "version": saved.materializer_version, "spec": saved.spec}
            (GOLDEN / name / "saved.json").write_text(json.dumps(about) + "\n")
