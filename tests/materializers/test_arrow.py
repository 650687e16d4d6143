from __future__ import annotations

import datetime as dt
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pytest

from tailrace import MaterializationError
from tailrace.materializers.files import FileReader, FileWriter
from tailrace.materializers.identical import difference
from tailrace.materializers.registry import load, save
from tailrace.materializers.testing import check_refused, check_round_trip, restored

TABLE = pa.table({"a": [1, None, 3], "b": ["x", "y", None]})
DATE = dt.date(2020, 1, 1)
ARRAYS: dict[str, Any] = {
    "half floats": pa.array([1.5, float("nan"), None], pa.float16()),
    "bool": pa.array([True, None, False]),
    "text views": pa.array(["a"], pa.string_view()),
    "fixed bytes": pa.array([b"ab"], pa.binary(2)),
    "date64": pa.array([DATE], pa.date64()),
    "seconds": pa.array([1, None], pa.timestamp("s")),
    "seconds of a zone": pa.array([1, None], pa.timestamp("s", "Europe/Paris")),
    "durations": pa.array([1], pa.duration("s")),
    "times in seconds": pa.array([1], pa.time32("s")),
    "decimals": pa.array([decimal.Decimal("1.10")], pa.decimal256(50, 2)),
    "lists": pa.array([[1], None, []]),
    "lists of two": pa.array([[1, 2]], pa.list_(pa.int64(), 2)),
    "structs": pa.array([{"a": 1, "b": None}, None]),
    "maps": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    "a dictionary of integers": pa.array([1, 2, 1]).dictionary_encode(),
    "nulls": pa.nulls(3),
    "an ordered dictionary with an unused label": pa.DictionaryArray.from_arrays(
        pa.array([1, None]), pa.array(["b", "a", "never"]), ordered=True
    ),
    "dictionaries in lists": pa.array([["a"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    "large lists": pa.array([[1]], pa.large_list(pa.int8())),
    "views of lists": pa.array([[1]], pa.list_view(pa.int8())),
    "unions": pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]),
    "months, days and nanoseconds": pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
    "an extension type of Arrow's own": pa.array([b"a" * 16, None], pa.uuid()),
    "an extension type inside a structure": pa.StructArray.from_arrays([pa.array([b"a" * 16], pa.uuid())], ["u"]),
    "tensors": pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(8).reshape(2, 2, 2)),
    "run-end encoded": pa.RunEndEncodedArray.from_arrays([2], [1]),
    "a slice": pa.array([1, None, 3, 4]).slice(1, 2),
    "nothing": pa.array([], pa.int8()),
}
TABLES: dict[str, Any] = {
    "plain": TABLE,
    "with metadata": pa.table({"a": [1]}, pa.schema([pa.field("a", pa.int64(), False, {"k": "v"})], {"z": "1"})),
    "no rows": TABLE.slice(0, 0),
    "no columns": pa.table({}),
    "names that occur twice": pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]),
    "chunks that do not align": pa.table({"a": pa.chunked_array([[1], [2, 3]]), "b": pa.chunked_array([[1, 2], [3]])}),
    "a slice": pa.table({"a": range(100), "s": [str(n) for n in range(100)]}).slice(7, 9),
    "a batch": pa.record_batch({"a": [1, None]}),
    "a batch with metadata": pa.record_batch({"a": [1]}).replace_schema_metadata({"k": "v"}),
    "a batch without rows": pa.record_batch({"a": pa.array([], pa.int32())}),
    "chunks": pa.chunked_array([[1], [2, 3]]),
    "no chunks": pa.chunked_array([], pa.int8()),
    "a schema": pa.schema([pa.field("a", pa.int64(), False, {"k": "v"}), pa.field("a", pa.uuid())], {"z": "1"}),
    "a schema of nothing": pa.schema([]),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_an_array_comes_back_exactly_alone_and_in_a_table(array: Any) -> None:
    check_round_trip(array)
    check_round_trip(pa.table({"c": array}))


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_a_scalar_comes_back_exactly(array: Any) -> None:
    for scalar in array:
        check_round_trip(scalar)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_comes_back_exactly(table: Any) -> None:
    check_round_trip(table)


def test_chunks_with_dictionaries_of_their_own_keep_their_values() -> None:
    chunks = [pa.array(["a"]).dictionary_encode(), pa.array(["b", "a"]).dictionary_encode()]
    table = pa.table({"a": pa.chunked_array(chunks)})
    assert restored(table).to_pylist() == table.to_pylist()


def test_arrays_of_two_types_with_the_same_numbers_are_not_the_same() -> None:
    assert difference(pa.array([1], pa.int8()), pa.array([1], pa.int64())) is not None


def written(value: Any, folder: Path) -> bytes:
    folder.mkdir()
    save(value, FileWriter(folder))
    return (folder / "data.arrow").read_bytes()


def test_equal_tables_have_equal_bytes_whatever_lies_under_nulls_or_around_a_slice(tmp_path: Path) -> None:
    hidden = pa.array(np.array([1, 99, 3]), mask=np.array([False, True, False]))
    assert written(pa.table({"a": hidden}), tmp_path / "1") == written(pa.table({"a": [1, None, 3]}), tmp_path / "2")
    whole = pa.table({"s": [f"secret {n}" for n in range(9)]})
    part = written(whole.slice(3, 2), tmp_path / "3")
    assert part == written(pa.table({"s": ["secret 3", "secret 4"]}), tmp_path / "4")
    assert b"secret 5" not in part


def test_the_file_is_one_that_other_tools_read(tmp_path: Path) -> None:
    written(TABLE, tmp_path / "a")
    assert feather.read_table(tmp_path / "a" / "data.arrow").equals(TABLE)


class Celsius(pa.ExtensionType):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(pa.float64(), "tests.celsius")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> Celsius:
        return cls()


def test_an_extension_type_comes_back_and_where_it_is_unknown_it_is_refused(tmp_path: Path) -> None:
    pa.register_extension_type(Celsius())
    try:
        array = pa.ExtensionArray.from_storage(Celsius(), pa.array([1.5]))
        assert restored(array).type == Celsius()
        writer = FileWriter(tmp_path)
        saved = save(array, writer)
        reader = FileReader(tmp_path, {entry.path: entry for entry in writer.finish()})
    finally:
        pa.unregister_extension_type("tests.celsius")
    with pytest.raises(MaterializationError, match="register its extension types first"):
        load(saved.materializer, 1, reader, saved.spec)


REFUSED = {
    "an extension type that is not registered": (
        pa.ExtensionArray.from_storage(Celsius(), pa.array([1.5])),
        ["register_extension_type", "tests.celsius"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_not_be_loaded_is_refused_when_it_is_saved(case: str) -> None:
    value, mentions = REFUSED[case]
    check_refused(value, *mentions)
    check_refused(pa.table({"a": value}), *mentions)


def test_the_metadata_say_schema_and_nulls(tmp_path: Path) -> None:
    about = save(TABLE, FileWriter(tmp_path)).metadata
    assert about["rows"] == 3
    assert about["schema"] == {"a": "int64", "b": "string"}
    assert about["nulls"] == {"a": 1, "b": 1}


def test_the_metadata_of_a_schema_and_a_scalar_say_their_types(tmp_path: Path) -> None:
    for name, value in (("schema", TABLE.schema), ("scalar", TABLE["a"][0])):
        (tmp_path / name).mkdir()
        about = save(value, FileWriter(tmp_path / name)).metadata
        assert about.get("schema", about.get("dtype")) == (
            {"a": "int64", "b": "string"} if name == "schema" else "int64"
        )
