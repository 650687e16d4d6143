"""SciPy's sparse arrays and matrices of all formats as the ``.npy`` files of their parts, which NumPy reads alone.

``csr``, ``csc``, ``bsr``: ``data``, ``indices``, ``indptr``. ``coo`` and ``dok``: ``data``, and ``coords-0``, ... per
dimension, of a ``dok`` in the order of its keys. ``dia``: ``data``, ``offsets``. ``lil``: ``data`` and ``columns`` of
all rows one after the other, and how many are in each (``lengths``).

Exact: class, shape, dtypes, the order of entries, duplicates, stored zeros. On purpose not kept: room beyond the last
entry, and whether the lists of a ``lil`` hold Python's or NumPy's numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain, pairwise
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from ..core.errors import MaterializationError
from .base import Spec
from .files import FileReader, FileWriter
from .numpy import read_npy, write_npy

__all__ = ["ScipyMaterializer"]

Parts = dict[str, np.ndarray[Any, Any]]

_CLASSES = {
    f"{form}_{kind}": getattr(sp, f"{form}_{kind}")
    for form in ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
    for kind in ("array", "matrix")
}
_STATE = {
    *("_shape", "maxprint", "dtype", "data", "indices", "indptr", "coords", "offsets", "rows", "_dict"),
    *("has_canonical_format", "_has_canonical_format", "_has_sorted_indices"),
}


class ScipyMaterializer:
    """The fourteen classes of ``scipy.sparse``."""

    name: ClassVar[str] = "scipy"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """One file for each part. Raises MaterializationError for indices that point outside, and attributes added."""
        name = type(value).__name__
        if type(value) is not _CLASSES.get(name):
            raise MaterializationError(f"it is a {type(value).__qualname__}, a sub-class with more than SciPy's state")
        if vars(value).keys() - _STATE:
            added = sorted(vars(value).keys() - _STATE)
            raise MaterializationError(f"it has the attributes {added}, which would be lost; return them beside it")
        if value.dtype.kind not in "biufc" or value.dtype.metadata:
            raise MaterializationError(f"its dtype {value.dtype!r} has no exact form; convert it by astype first")
        parts = _FORMATS[value.format][0](value)
        spec: Spec = {"class": name, "shape": list(map(int, value.shape)), "maxprint": value.maxprint}
        if value.format == "coo":
            spec["canonical"] = bool(value.has_canonical_format)
        _make(spec, parts)  # refuses what could not be loaded
        for part, array in parts.items():
            write_npy(files, f"{part}.npy", array)
        return spec

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The array or matrix, over the verified bytes. Indices are checked, since SciPy reads memory by them."""
        return _make(spec, {name.removesuffix(".npy"): read_npy(files, name) for name in files.names()})

    def describe(self, value: Any) -> dict[str, Any]:
        """Shape, dtype, how many entries are stored and their share, and the format."""
        size = np.prod(value.shape, dtype=float)
        about = {"shape": list(map(int, value.shape)), "dtype": str(value.dtype), "format": value.format}
        return {**about, "stored": int(value.nnz), "density": float(value.nnz / size) if size else 0.0}


def _make(spec: Mapping[str, Any], parts: Parts) -> Any:
    """An array or matrix of its parts, or MaterializationError where they do not fit each other."""
    cls = _CLASSES[spec["class"]]
    value = cls(tuple(spec["shape"]), dtype=parts["data"].dtype)
    _FORMATS[value.format][1](value, parts)
    value.maxprint = spec["maxprint"]
    if value.format == "coo":
        value.has_canonical_format = spec["canonical"]
    return value


def _need(what: bool, message: str) -> None:
    if not what:
        raise MaterializationError(f"its parts do not fit each other: {message}")


def _check_indices(indices: Any, length: int, size: int, what: str) -> None:
    _need(indices.dtype.kind == "i" and indices.shape == (length,), f"{what} should be {length} integers")
    if length:
        _need(bool(indices.min() >= 0 and indices.max() < size), f"{what} should lie between 0 and {size - 1}")


# ---- compressed: csr, csc, bsr


def _split_compressed(value: Any) -> Parts:
    stored = int(value.indptr[-1])
    return {"data": value.data[:stored], "indices": value.indices[:stored], "indptr": value.indptr}


def _fill_compressed(value: Any, parts: Parts) -> None:
    data, indices, indptr = parts["data"], parts["indices"], parts["indptr"]
    rows, columns = (1, *value.shape)[-2:]
    block = data.shape[1:]
    if value.format == "bsr":
        _need(len(block) == 2 and min(block) > 0, "data should be blocks")
        _need(rows % block[0] == columns % block[1] == 0, f"blocks of {block} should fit into {value.shape}")
        rows, columns = rows // block[0], columns // block[1]
    else:
        _need(not block, "data should have one dimension")
    major, minor = (columns, rows) if value.format == "csc" else (rows, columns)
    _check_indices(indices, len(data), minor, "indices")
    _check_indices(indptr, major + 1, len(data) + 1, "indptr")
    _need(indptr[0] == 0 and indptr[-1] == len(data), f"indptr should go from 0 to {len(data)}")
    _need(bool((indptr[1:] >= indptr[:-1]).all()), "indptr should not decrease")
    value.data, value.indices, value.indptr = data, indices, indptr


# ---- by coordinates: coo, dok


def _split_coo(value: Any) -> Parts:
    return {"data": value.data, **{f"coords-{axis}": part for axis, part in enumerate(value.coords)}}


def _coords(parts: Parts, shape: tuple[int, ...]) -> tuple[Any, ...]:
    coords = tuple(parts[f"coords-{axis}"] for axis in range(len(shape)))
    _need(parts["data"].ndim == 1, "data should have one dimension")
    for axis, (part, size) in enumerate(zip(coords, shape, strict=True)):
        _check_indices(part, len(parts["data"]), size, f"coordinates of axis {axis}")
    return coords


def _fill_coo(value: Any, parts: Parts) -> None:
    value.coords, value.data = _coords(parts, value.shape), parts["data"]


def _split_dok(value: Any) -> Parts:
    keys = np.array(list(value.keys()), dtype=np.int64).reshape(-1, value.ndim)
    data = np.fromiter(value.values(), value.dtype, len(keys))
    return {"data": data, **{f"coords-{axis}": keys[:, axis].copy() for axis in range(value.ndim)}}


def _fill_dok(value: Any, parts: Parts) -> None:
    lists = [part.tolist() for part in _coords(parts, value.shape)]
    value._dict = dict(zip(zip(*lists, strict=True) if len(lists) > 1 else lists[0], parts["data"], strict=True))


# ---- by diagonals and by lists


def _split_dia(value: Any) -> Parts:
    return {"data": value.data, "offsets": value.offsets}


def _fill_dia(value: Any, parts: Parts) -> None:
    data, offsets = parts["data"], parts["offsets"]
    _need(data.ndim == 2 and offsets.shape == data.shape[:1], "data should have a row for each offset")
    _need(offsets.dtype.kind == "i" and len(np.unique(offsets)) == len(offsets), "offsets should be different integers")
    value.data, value.offsets = data, offsets


def _split_lil(value: Any) -> Parts:
    lengths = np.fromiter(map(len, value.rows), np.int64, len(value.rows))
    _need(list(map(len, value.data)) == lengths.tolist(), "its rows and data should have the same lengths")
    stored = int(lengths.sum())
    return {
        "data": np.fromiter(chain.from_iterable(value.data), value.dtype, stored),
        "columns": np.fromiter(chain.from_iterable(value.rows), np.int64, stored),
        "lengths": lengths,
    }


def _fill_lil(value: Any, parts: Parts) -> None:
    data, columns, lengths = parts["data"], parts["columns"], parts["lengths"]
    _check_indices(columns, len(data), value.shape[1], "columns")
    _check_indices(lengths, value.shape[0], len(data) + 1, "lengths")
    _need(int(lengths.sum()) == len(data), f"the lengths should add up to {len(data)}")
    ends = [0, *np.cumsum(lengths).tolist()]
    for row, (start, end) in enumerate(pairwise(ends)):
        value.rows[row], value.data[row] = columns[start:end].tolist(), data[start:end].tolist()


_COMPRESSED = (_split_compressed, _fill_compressed)
_FORMATS: dict[str, tuple[Callable[[Any], Parts], Callable[[Any, Parts], None]]] = {
    "csr": _COMPRESSED,
    "csc": _COMPRESSED,
    "bsr": _COMPRESSED,
    "coo": (_split_coo, _fill_coo),
    "dok": (_split_dok, _fill_dok),
    "dia": (_split_dia, _fill_dia),
    "lil": (_split_lil, _fill_lil),
}
