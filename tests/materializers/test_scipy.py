from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tailrace import Dataset, MaterializationError
from tailrace.materializers.files import FileReader, FileWriter
from tailrace.materializers.identical import difference
from tailrace.materializers.registry import load, save
from tailrace.materializers.testing import check_refused, check_round_trip, restored

GRID = np.array([[0, 1.5, 0], [2, 0, 3]])
CLASSES = [
    f"{form}_{kind}" for form in ("bsr", "coo", "csc", "csr", "dia", "dok", "lil") for kind in ("array", "matrix")
]
DTYPES = ["?", "i1", "u8", "f4", "f8", "g", "c8", "G"]


def with_a_cell(matrix: Any) -> Any:
    matrix[1, 1] = 7
    return matrix


CASES: dict[str, Any] = {
    "one dimension": sp.csr_array(np.array([0, 1.0, 2])),
    "one dimension by coordinates": sp.coo_array(np.array([0, 1.0])),
    "one dimension by keys": sp.dok_array(np.array([0, 1.0, 2])),
    "three dimensions": sp.coo_array(np.arange(8).reshape(2, 2, 2)),
    "duplicates": sp.coo_array((np.ones(3), ([0, 0, 1], [1, 1, 0])), shape=(2, 2)),
    "stored zeros": sp.csr_array((np.zeros(1), [1], [0, 1]), shape=(1, 3)),
    "indices that are not sorted": sp.csr_array((np.array([1.0, 2]), [2, 0], [0, 2]), shape=(1, 3)),
    "indices of 64 bits": sp.csr_array((1, 3_000_000_000)),
    "blocks": sp.bsr_array(np.kron(np.eye(3), np.ones((2, 4))), blocksize=(2, 4)),
    "lists with a number of NumPy's": with_a_cell(sp.lil_array(GRID)),
    "keys out of order": with_a_cell(sp.dok_matrix(GRID)),
    "transposed": sp.csr_matrix(GRID).T,
    "a longer print": sp.csr_array(GRID, maxprint=7),
}


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_comes_back_exactly_in_every_dtype_and_empty(name: str) -> None:
    for dtype in DTYPES:
        for grid in (GRID, np.zeros((2, 2)), np.zeros((0, 3)), np.zeros((3, 0))):
            check_round_trip(getattr(sp, name)(grid.astype(dtype)))


@pytest.mark.parametrize("matrix", CASES.values(), ids=CASES)
def test_a_matrix_comes_back_exactly(matrix: Any) -> None:
    check_round_trip(matrix)


@settings(deadline=None, max_examples=50)
@given(
    npst.arrays(
        st.sampled_from(["f8", "i4", "c16"]),
        npst.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=5),
        elements=st.sampled_from([0, 0, 0, 1, -2]),
    ),
    st.sampled_from(CLASSES),
)
def test_any_matrix_comes_back_exactly(grid: Any, name: str) -> None:
    check_round_trip(getattr(sp, name)(grid))


def test_the_dtype_of_the_indices_stays_as_it_was() -> None:
    matrix = sp.csr_array((np.ones(1), np.zeros(1, "i8"), np.array([0, 1], "i8")), shape=(1, 3))
    assert (restored(matrix).indices.dtype, restored(matrix).indptr.dtype) == ("i8", "i8")
    assert restored(sp.csr_array(GRID)).indices.dtype == "i4"


def test_room_beyond_the_last_entry_is_not_written(tmp_path: Path) -> None:
    roomy = sp.csr_array(GRID)
    roomy.data, roomy.indices = np.append(roomy.data, 99.0), np.append(roomy.indices, 0)
    save(roomy, FileWriter(tmp_path))
    assert np.load(tmp_path / "data.npy").tolist() == [1.5, 2, 3]


def test_matrices_in_a_dict_come_back_as_what_they_were() -> None:
    value = {"keys": sp.dok_array(GRID), "rows": [sp.csr_matrix(GRID)]}
    assert difference(value, restored(value)) is None


def test_numpy_reads_the_parts_alone(tmp_path: Path) -> None:
    save(sp.csc_array(GRID), FileWriter(tmp_path))
    parts = [np.load(tmp_path / f"{part}.npy") for part in ("data", "indices", "indptr")]
    assert (sp.csc_array(tuple(parts), shape=(2, 3)).toarray() == GRID).all()


class Own(sp.csr_array):  # type: ignore[misc]
    pass


def changed(name: str, **state: Any) -> Any:
    matrix = getattr(sp, name)(GRID)
    vars(matrix).update(state)
    return matrix


REFUSED = {
    "a sub-class": (Own(GRID), "Own"),
    "an attribute of its own": (changed("csr_array", units="m"), "units"),
    "an index outside": (changed("csr_array", indices=np.array([1, 0, 77])), "between 0 and 2"),
    "a coordinate outside": (changed("coo_array", coords=(np.array([0, 1, -1]), np.array([0, 0, 0]))), "axis 0"),
    "a pointer beyond the end": (changed("csr_array", indptr=np.array([0, 9, 3])), "indptr"),
    "pointers that go back": (changed("csr_array", indptr=np.array([0, 3, 1])), "indptr"),
    "Python objects": (changed("csr_array", data=np.array([1, 2, 3], object)), "dtype"),
    "a dtype with metadata": (changed("csr_array", data=np.ones(3, np.dtype("f8", metadata={"unit": "m"}))), "dtype"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_change_is_refused(case: str) -> None:
    matrix, mention = REFUSED[case]
    check_refused(matrix, mention)


@pytest.mark.parametrize("name", CLASSES)
def test_stored_indices_that_point_outside_are_refused_and_not_followed(name: str, tmp_path: Path) -> None:
    writer = FileWriter(tmp_path)
    saved = save(getattr(sp, name)(GRID), writer)
    lie = next(part for part in ("indices", "coords-0", "columns", "offsets") if (tmp_path / f"{part}.npy").exists())
    parts = {path.stem: np.load(path) for path in tmp_path.glob("*.npy")}
    writer.discard()
    for part, array in parts.items():
        stream = writer.path(f"{part}.npy")
        np.save(stream, np.full_like(array, 1 << 20) if part == lie else array)
    reader = FileReader(tmp_path, {entry.path: entry for entry in writer.finish()})
    with pytest.raises(MaterializationError, match=r"should (lie between|be different)"):
        load("scipy", 1, reader, saved.spec)


def test_the_metadata_say_shape_format_and_density(tmp_path: Path) -> None:
    about = save(sp.csr_matrix(GRID), FileWriter(tmp_path)).metadata
    assert about["shape"] == [2, 3]
    assert (about["dtype"], about["format"], about["stored"], about["density"]) == ("float64", "csr", 3, 0.5)


def test_a_dataset_knows_a_sparse_matrix() -> None:
    dataset = Dataset(sp.csr_array(GRID), "counts")
    assert dataset.format == "scipy"
    assert dataset.schema == {"shape": [2, 3], "dtype": "float64"}
