from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tailrace import IntegrityError, MaterializationError
from tailrace.materializers.files import FileReader, FileWriter
from tailrace.materializers.numpy_scalars import same_dtype
from tailrace.materializers.registry import load, save
from tailrace.materializers.testing import check_refused, check_round_trip, restored

GRID = np.arange(12.0).reshape(3, 4)
GAPS = np.dtype([("a", "i1"), ("b", "f8")], align=True)


def filled(dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """An array over memory that was not zero, so that padding shows."""
    return np.frombuffer(bytearray(b"\xaa" * 4 * dtype.itemsize), dtype)


def one_object(item: Any) -> np.ndarray[Any, Any]:
    array = np.empty((), object)
    array[()] = item
    return array


CASES = {
    "zero-dimensional": np.array(3.0),
    "empty": np.zeros((0, 3)),
    "Fortran order": np.asfortranarray(GRID),
    "empty in Fortran order": np.zeros((3, 0), order="F"),
    "every second column": GRID[:, ::2],
    "backwards": GRID[::-1],
    "broadcast": np.broadcast_to(np.array([1, 2]), (3, 2)),
    "big-endian": np.array([1, 2], ">i4"),
    "bool": np.array([True, False]),
    "half floats": np.array([1.5, -0.0, np.nan], "f2"),
    "long doubles": np.array([1.1, 2], "g"),
    "complex long doubles": np.array([1.1 + 2j], "G"),
    "long longs": np.array([1, 2], "q"),
    "text": np.array(["a", "bcd"]),
    "bytes": np.array([b"x", b"yz"]),
    "void": np.array([b"abc"], "V3"),
    "no long doubles": np.zeros((0, 3), "g"),
    "no complex long doubles": np.zeros((3, 0), "G"),
    "NaN of other bits": np.array([0x7FF8000000000001, 0xFFF8000000000ABC], "u8").view("f8"),
    "no bytes at all": np.zeros(3, "V0"),
    "dates": np.array(["2020-01-01", "NaT"], "M8[D]"),
    "times by 25 seconds": np.array([1, 2], "m8[25s]"),
    "times without a unit": np.array([1, "NaT"], "m8"),
    "a structure in Fortran order": np.zeros((3, 2), [("a", "<i2"), ("b", ">f8")], order="F"),
    "one structure": np.zeros((), [("a", "i1"), ("n", [("x", "M8[s]"), ("y", "?")])]),
    "a structure": np.zeros(2, [("a", "i1"), ("b", "f8", (2,))]),
    "a structure with padding": filled(GAPS),
    "a structure inside another, with padding": filled(
        np.dtype([("n", {"names": ["x"], "formats": ["i1"], "itemsize": 5})])
    ),
    "field names beyond Latin-1": np.zeros(2, [("é", "i1"), ("日本", "f8")]),
    "titles": np.zeros(2, [(("title", "name"), "i4")]),
    "dtype metadata": np.arange(3).astype(np.dtype("f8", metadata={"unit": "m"})),
    "a recarray": np.rec.array([(1, 2.0)], dtype=[("a", "i1"), ("b", "f8")]),
    "masked": np.ma.array([1, 2, 3], mask=[False, True, False]),
    "masked nowhere": np.ma.array([1, 2, 3]),
    "masked with a fill value and a hard mask": np.ma.array([1.0, 2.0], fill_value=5, hard_mask=True),
    "a masked structure": np.ma.array([(1, 2.0)], mask=[(True, False)], dtype=[("a", "i1"), ("b", "f8")]),
    "one masked value": np.ma.array(5, mask=True),
    "masked in Fortran order": np.ma.array(np.asfortranarray(GRID), mask=np.asfortranarray(GRID > 3)),
    "masked in Fortran order, the mask in C order": np.ma.array(np.asfortranarray(GRID), mask=GRID > 3),
    "masked dates": np.ma.array(np.array(["2020"], "M8[Y]"), mask=[True]),
    "masked objects": np.ma.array(np.array(["a", None], object), mask=[True, False]),
    "objects": np.array([1, "a", None, (1, 2), [3], {4}, np.nan, np.float32(1), 10**30], object),
    "objects in Fortran order": np.array([[1, "b"], [None, 4]], object, order="F"),
    "one object": np.array(None, object),
    "one object that is a sequence": one_object((1, [2])),
    "no objects": np.empty((2, 0), object),
    "arrays of different lengths": np.array([np.arange(3), np.arange(2.0)], object),
    "text of any length": np.array(["a", "b" * 99], np.dtypes.StringDType()),
    "text with missing": np.array(["a", None], np.dtypes.StringDType(na_object=None)),
}


@pytest.mark.parametrize("array", CASES.values(), ids=CASES)
def test_an_array_comes_back_exactly_writable_and_with_the_same_bytes(array: Any) -> None:
    loaded = check_round_trip(array)
    assert same_dtype(loaded.dtype, array.dtype)
    assert loaded.flags.writeable


@settings(deadline=None)
@given(npst.arrays(npst.scalar_dtypes() | npst.array_dtypes(), npst.array_shapes(min_dims=0, min_side=0)))
def test_any_array_comes_back_exactly(array: Any) -> None:
    check_round_trip(array)


@settings(deadline=None)
@given(npst.arrays(object, npst.array_shapes(max_side=3), elements=st.none() | st.integers() | st.text() | st.floats()))
def test_any_array_of_plain_objects_comes_back_exactly(array: Any) -> None:
    check_round_trip(array)


def test_a_matrix_comes_back_as_one() -> None:
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix([[1, 2]])
    assert type(restored(matrix)) is np.matrix


def test_the_masked_constant_is_itself() -> None:
    assert restored(np.ma.masked) is np.ma.masked


def test_a_mask_over_nothing_stays_absent() -> None:
    assert restored(np.ma.array([1])).mask is np.ma.nomask


def test_a_memmap_comes_back_as_the_array_it_holds(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "map", dtype="f8", mode="w+", shape=(2, 3))
    mapped[:] = GRID[:2, :3]
    loaded = restored(mapped)
    assert type(loaded) is np.ndarray
    assert (loaded == mapped).all()


def test_a_memmap_keeps_its_fortran_order_and_may_lie_under_a_mask(tmp_path: Path) -> None:
    np.asfortranarray(GRID).T.tofile(tmp_path / "map")
    mapped = np.memmap(tmp_path / "map", dtype="f8", mode="r", shape=GRID.shape, order="F")
    loaded = restored(mapped)
    assert loaded.flags.f_contiguous
    assert not loaded.flags.c_contiguous
    assert (loaded == GRID).all()
    masked = restored(np.ma.array(mapped, mask=GRID > 3))
    assert type(masked) is np.ma.MaskedArray
    assert masked.sum() == GRID[GRID <= 3].sum()


def test_the_file_is_an_npy_that_numpy_reads_alone(tmp_path: Path) -> None:
    save(np.asfortranarray(GRID), FileWriter(tmp_path))
    assert (np.load(tmp_path / "data.npy") == GRID).all()


def test_padding_and_the_free_bytes_of_long_doubles_do_not_show_in_the_file(tmp_path: Path) -> None:
    values = np.array([1.1, 2.2], "g")
    dirty = np.frombuffer(bytearray(b"\xff" * 32), "g").copy()
    dirty[:] = values
    dirty.view(np.uint8).reshape(2, 16)[:, 10:] = 0x77
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder, array in (("a", values), ("b", dirty)):
        save(array, FileWriter(tmp_path / folder))
    assert (tmp_path / "a" / "data.npy").read_bytes() == (tmp_path / "b" / "data.npy").read_bytes()


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "int4"])
def test_the_small_floats_of_ml_dtypes_keep_their_dtype(name: str) -> None:
    array = np.array([[1, 2, 3]], dtype=getattr(ml_dtypes, name))
    assert check_round_trip(array).dtype == array.dtype
    check_round_trip(np.asfortranarray(np.repeat(array, 2, axis=0)))
    check_round_trip(np.ma.array(array, mask=[[True, False, True]]))
    check_round_trip(array[0, 0:1].reshape(()))
    assert type(restored([array[0, 0]])[0]) is type(array[0, 0])


class Quantity(np.ndarray[Any, Any]):
    pass


REFUSED = {
    "objects without a form": (np.array([1, object()]), "[1]"),
    "a structure of objects": (np.zeros(2, [("a", "O")]), "dtype"),
    "small floats inside a structure": (np.zeros(2, [("a", ml_dtypes.bfloat16)]), "bfloat16"),
    "a sub-class": (np.zeros(2).view(Quantity), "Quantity"),
    "fields that overlap": (np.zeros(2, {"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [0, 2]}), "dtype"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_change_is_refused(case: str) -> None:
    array, mention = REFUSED[case]
    check_refused(array, mention)


def load_npy(data: bytes, tmp_path: Path, spec: Any = None) -> Any:
    writer = FileWriter(tmp_path)
    writer.write("data.npy", data)
    return load("numpy", 1, FileReader(tmp_path, {entry.path: entry for entry in writer.finish()}), spec or {})


def npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


class Trap:
    def __reduce__(self) -> Any:
        raise_if_called: Any = exec
        return raise_if_called, ("raise SystemExit('code ran')",)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_an_npy_with_pickled_objects_is_not_opened(version: tuple[int, int], tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.array([Trap()]), version=version)
    with pytest.raises(MaterializationError, match=r"object|pickle"):
        load_npy(stream.getvalue(), tmp_path)


def test_a_header_that_promises_more_than_there_is_is_damage(tmp_path: Path) -> None:
    with pytest.raises((IntegrityError, MaterializationError)):
        load_npy(npy(np.arange(4.0))[:-8], tmp_path)


def test_bytes_after_the_array_are_damage(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="header says"):
        load_npy(npy(np.arange(4.0)) + b"more", tmp_path)


def test_a_spec_cannot_turn_numbers_into_objects(tmp_path: Path) -> None:
    with pytest.raises(MaterializationError):
        load_npy(npy(np.arange(4)), tmp_path, {"dtype": "|O"})


def test_the_metadata_say_shape_and_dtype(tmp_path: Path) -> None:
    saved = save(np.ma.array(np.zeros((2, 3)), mask=np.eye(2, 3, dtype=bool)), FileWriter(tmp_path))
    assert saved.metadata == {
        "type": "numpy.ma.MaskedArray",
        "shape": [2, 3],
        "dtype": "float64",
        "nbytes": 48,
        "masked": 2,
    }
