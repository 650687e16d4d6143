"""Some columns of a table: as the whole table's, index and all, and read without the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailrace import Dataset, LocalArtifactStore, MaterializationError
from tailrace.materializers.base import Tabular
from tailrace.materializers.identical import difference
from tailrace.materializers.registry import default_registry

EACH = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def store(tmp_path: Path) -> LocalArtifactStore:
    return LocalArtifactStore(tmp_path / "store", durable=False)


def part(store: LocalArtifactStore, value: Any, columns: Sequence[Any]) -> Any:
    store.save(value, "table")
    return store.load_with_manifest("table", columns)[0]


# --- pandas -----------------------------------------------------------------------------------------------------------

ROWS = 5
PANDAS: list[Callable[[], Any]] = [
    lambda: np.arange(ROWS),
    lambda: np.arange(ROWS) * (1 + 2j),
    lambda: np.arange(ROWS).astype("M8[s]"),
    lambda: pd.array(["a", None, "ü", "", "a"], dtype="str"),
    lambda: np.array([None, {"x": 1}, [2], "three", 4.0], dtype=object),
    lambda: pd.Categorical(list("xyxxy"), categories=["y", "x", "never"], ordered=True),
    lambda: pd.Categorical([f"{place}" * 40 for place in range(ROWS)], categories=[f"{n}" * 40 for n in range(1500)]),
    lambda: pd.Categorical([0.5, 1.5, 0.5, 2.5, 1.5]),
    lambda: pd.array([1, None, 3, 4, 5], dtype="Int64"),
    lambda: pd.date_range("2026", periods=ROWS, tz="Europe/Paris").array,
    lambda: pd.period_range("2026", periods=ROWS, freq="M").array,
    lambda: pd.interval_range(0, ROWS).array,
    lambda: pd.Series([[1], [], None, [2, 3], [4]], dtype=pd.ArrowDtype(pa.list_(pa.int8()))).array,
]
INDEXES: list[Callable[[], Any]] = [
    lambda: pd.RangeIndex(3, 3 + 2 * ROWS, 2, name="r"),
    lambda: pd.Index(list("abcde"), name="a"),
    lambda: pd.date_range("2026", periods=ROWS, freq="D"),
    lambda: pd.CategoricalIndex(list("xyxxy")),
    lambda: pd.MultiIndex.from_product([["p"], range(ROWS)], names=["k", "a.b"]),
    lambda: pd.MultiIndex.from_arrays([pd.Categorical(list("xyxxy")), np.arange(ROWS) / 2]),
]
NAMES = st.one_of(st.sampled_from(["a", "a.b", "a.b.c", "b", "list", "", "1", "a "]), st.integers(-2, 2), st.none())


@st.composite
def frames(draw: st.DrawFn) -> tuple[Any, list[Any]]:
    """A frame, and some of its labels in any order."""
    columns = draw(st.lists(st.sampled_from(PANDAS), max_size=6))
    index = draw(st.sampled_from(INDEXES))()
    labels: Any = draw(st.lists(NAMES, min_size=len(columns), max_size=len(columns)))
    kind = draw(st.sampled_from(["plain", "plain", "range", "pairs"]))
    if kind == "range":
        labels = pd.RangeIndex(len(columns))
    elif kind == "pairs" and columns:
        labels = pd.MultiIndex.from_arrays([["top"] * len(columns), list(range(len(columns)))], names=["u", None])
    frame = pd.DataFrame({place: make() for place, make in enumerate(columns)}, index=index)
    frame.columns = labels if isinstance(labels, pd.Index) else pd.Index(labels, dtype=object, name="label")
    frame.attrs = {"unit": "m"}
    return frame, draw(st.permutations(list(dict.fromkeys(frame.columns))))[: draw(st.integers(0, 4))]


@EACH
@given(case=frames())
def test_columns_of_a_frame_are_those_of_the_whole(case: tuple[Any, list[Any]], store: LocalArtifactStore) -> None:
    frame, columns = case
    places = [place for label in columns for place, other in enumerate(frame.columns) if _same(label, other)]
    assert difference(frame.iloc[:, places], part(store, frame, columns)) is None


def _same(one: Any, other: Any) -> bool:
    return one is other or bool(one == other)


def test_only_the_columns_that_are_asked_for_are_read(store: LocalArtifactStore) -> None:
    frame = pd.DataFrame({f"c{place}": np.random.default_rng(place).random(200_000) for place in range(20)})
    table = pa.table({name: frame[name].array for name in frame})
    for value in (frame, table):
        store.save(value, "table")
        before = pa.total_allocated_bytes()
        found = store.load_with_manifest("table", ["c7"])[0]
        assert pa.total_allocated_bytes() - before < 3 * 8 * 200_000
        assert len(found) == 200_000


# --- Arrow ------------------------------------------------------------------------------------------------------------

ARROW: list[Callable[[], Any]] = [
    lambda: pa.array([1, None, 3]),
    lambda: pa.array([{"q": 1, "r": [None]}, None, {"q": 2, "r": []}]),
    lambda: pa.array(["x", "y", "x"]).dictionary_encode(),
    lambda: pa.array(["y", "y", None]).dictionary_encode(),
    lambda: pa.array([b"", None, b"z"]),
    lambda: pa.nulls(3),
    lambda: pa.chunked_array([[1], [2, 3]]),
]


@EACH
@given(
    columns=st.lists(st.sampled_from(ARROW), max_size=6),
    names=st.lists(st.sampled_from(["a", "a.b", "b", ""]), min_size=6, max_size=6),
    chosen=st.permutations(["a", "a.b", "b", ""]),
    count=st.integers(0, 4),
    batch=st.booleans(),
)
def test_columns_of_an_arrow_table_are_those_of_the_whole(
    columns: Any, names: list[str], chosen: list[str], count: int, batch: bool, store: LocalArtifactStore
) -> None:
    table = pa.Table.from_arrays([make() for make in columns], names=names[: len(columns)])
    table = table.replace_schema_metadata({"of": "table"})
    wanted = [name for name in chosen if name in table.column_names][:count]
    value = table.combine_chunks().to_batches()[0] if batch and columns else table
    places = [place for name in wanted for place in table.schema.get_all_field_indices(name)]
    assert difference(value.select(places), part(store, value, wanted)) is None


# --- polars -----------------------------------------------------------------------------------------------------------


def test_columns_of_a_polars_frame_are_those_of_the_whole(store: LocalArtifactStore) -> None:
    pl = pytest.importorskip("polars")
    from polars.testing.parametric import dataframes

    excluded = [pl.Extension]

    @EACH
    @given(
        frame=dataframes(max_cols=5, max_size=5, excluded_dtypes=excluded),
        data=st.data(),
        lazy=st.booleans(),
        rising=st.booleans(),
    )
    def check(frame: Any, data: st.DataObject, lazy: bool, rising: bool) -> None:
        frame = frame.with_columns(pl.Series("col.0", range(frame.height), dtype=pl.Int32))
        if rising:
            frame = frame.with_columns(pl.col("col.0").set_sorted())
        columns = data.draw(st.permutations(frame.columns))[: data.draw(st.integers(0, 4))]
        value = frame.lazy() if lazy else frame
        found = part(store, value, columns)
        assert difference(store.load("table").select(columns), found) is None

    check()


# --- a Dataset --------------------------------------------------------------------------------------------------------


def test_a_dataset_of_fewer_columns_says_so(store: LocalArtifactStore) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, None], "c": ["x", "y"]}, index=pd.Index([5, 6], name="id"))
    made = Dataset(frame, name="rows", version="3", statistics=True, metadata={"source": "here"}, tags={"k": "v"})
    found = part(store, made, ["c", "a"])
    again = Dataset(frame[["c", "a"]], name="rows", statistics=True)
    assert difference(frame[["c", "a"]], found.data) is None
    assert (found.name, found.version, found.metadata, found.tags) == ("rows", "3", {"source": "here"}, {"k": "v"})
    assert list(found.schema) == ["c", "a"]
    assert (found.schema, found.statistics) == (again.schema, again.statistics)


# --- what has none ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (pd.Series([1]), "it is a series, which has no columns"),
        (pd.RangeIndex(3), "it is a index, which has no columns"),
        (pa.array([1]), "it is a Array, which has no columns"),
        (np.ones(3), "values of the materializer 'numpy' have no columns"),
        ([1, 2], "values of the materializer 'plain' have no columns"),
        (Dataset([{"a": 1}]), "values of the materializer 'plain' have no columns"),
        (pd.DataFrame({"b": [1], 7: [2]}), "it has no column 'a'. It has: 'b', 7"),
        (pd.DataFrame(), "it has no column 'a'. It has: none"),
        (pa.table({"b": [1]}), "it has no column 'a'. It has: 'b'"),
        (pa.table({f"c{place}": [1] for place in range(30)}), "'c19' and 10 more"),
    ],
)
def test_columns_that_cannot_be_had_are_refused(value: Any, said: str, store: LocalArtifactStore) -> None:
    with pytest.raises(MaterializationError) as error:
        part(store, value, ["a"])
    assert said in str(error.value)
    assert store.uri("table") in str(error.value)


def test_the_materializers_that_can_say_so() -> None:
    pytest.importorskip("polars")
    names = [
        name for name in ("pandas", "arrow", "polars", "numpy") if isinstance(default_registry.by_name(name), Tabular)
    ]
    assert names == ["pandas", "arrow", "polars"]
