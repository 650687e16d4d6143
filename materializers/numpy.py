"""NumPy arrays as ``.npy``, readable by everything that reads NumPy, with a spec for what that format forgets.

Exact: values, dtype, shape, C or Fortran order, masks, matrix and recarray. On purpose not kept: strides (an
array that is contiguous in neither order comes back in C order), the read-only flag, and that a memmap was one. Object
arrays, of cells that are plain Python or NumPy scalars and arrays, go into a JSON file; see ``tagged``.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ..core.errors import IntegrityError, MaterializationError
from .base import Spec
from .files import FileReader, FileWriter
from .limits import limits
from .numpy_scalars import cell, decode_dtype, encode_dtype, has_gaps, same_dtype, without_gaps
from .tagged import decode, dumps, encode, loads

__all__ = ["NumpyMaterializer", "clean_npy", "read_npy", "write_npy"]

Array = np.ndarray[Any, Any]

_VIEWS: dict[type, str] = {np.matrix: "matrix", np.recarray: "recarray"}
_OF_MEMMAP = {"_mmap", "filename", "offset", "mode"}
_MAX_HEADER = 1 << 20


class NumpyMaterializer:
    """``ndarray`` and NumPy's own sub-classes of it."""

    name: ClassVar[str] = "numpy"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """``data.npy`` (and ``mask.npy``), or ``data.json`` for objects."""
        if value is np.ma.masked:
            return {"kind": "masked constant"}
        if type(value) is np.ma.MaskedArray:
            return self._save_masked(value, files)
        if type(value) in _VIEWS:
            spec = {"view": _VIEWS[type(value)], **self._save_array(np.asarray(value), files, "data")}
            _check_view(value, spec["view"])
            return spec
        if type(value) not in (np.ndarray, np.memmap):
            raise MaterializationError(
                f"it is a {type(value).__qualname__}, a sub-class of ndarray with more than an array's data"
            )
        return self._save_array(np.asarray(value), files, "data")

    def _save_masked(self, value: Any, files: FileWriter) -> Spec:
        mapped = value.baseclass is np.memmap
        if set(value._optinfo) - (_OF_MEMMAP if mapped else set()) or not (mapped or value.baseclass is np.ndarray):
            raise MaterializationError("it is a masked array with information of its own, or of another array class")
        spec: Spec = {"kind": "masked", "hard": value.hardmask, "data": self._save_array(value.data, files, "data")}
        if value._fill_value is not None:  # asking fill_value would set it
            spec["fill"] = encode(np.asarray(value._fill_value)[()], cell)
        if value.mask is not np.ma.nomask:
            spec["mask"] = self._save_array(np.asarray(value.mask), files, "mask")
        return spec

    def _save_array(self, array: Array, files: FileWriter, name: str) -> Spec:
        dtype = array.dtype
        if dtype.kind in "OT" and dtype.names is None:
            return _save_cells(array, files, name)
        if dtype.hasobject:
            raise MaterializationError(f"its dtype {dtype} holds Python objects inside a structure")
        node = encode_dtype(dtype)
        array = _as_npy(array, node)
        write_npy(files, f"{name}.npy", array)
        back = np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(array.dtype))
        return {} if same_dtype(back, dtype) else {"dtype": node}

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """A writable array over the verified bytes, without a further copy."""
        kind = spec.get("kind")
        if kind == "masked constant":
            return np.ma.masked
        if kind == "masked":
            return self._load_masked(files, spec)
        array = self._load_array(files, spec, "data")
        if "view" in spec:
            view = next(cls for cls, name in _VIEWS.items() if name == spec["view"])
            return array.view(view)
        return array

    def _load_masked(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        mask = self._load_array(files, spec["mask"], "mask") if "mask" in spec else np.ma.nomask
        data = self._load_array(files, spec["data"], "data")
        array: Any = np.ma.MaskedArray(data, mask, hard_mask=spec["hard"])
        if "fill" in spec:
            array.fill_value = decode(spec["fill"])
        return array

    def _load_array(self, files: FileReader, spec: Mapping[str, Any], name: str) -> Array:
        if spec.get("kind") == "cells":
            return _load_cells(files, spec, name)
        array = read_npy(files, f"{name}.npy")
        return array.view(decode_dtype(spec["dtype"])) if "dtype" in spec else array

    def describe(self, value: Any) -> dict[str, Any]:
        """Shape, dtype and bytes; of numbers and moments :func:`~.limits.limits`; how many a masked array masks."""
        about = {"shape": list(value.shape), "dtype": str(value.dtype), "nbytes": value.nbytes}
        if isinstance(value, np.ma.MaskedArray):
            about["masked"] = int(np.count_nonzero(value.mask)) if value.dtype.names is None else None
            return about
        missing, ends = limits(np.asarray(value))
        return {**about, **({"nulls": missing} if missing else {}), **ends}


def _as_npy(array: Array, node: Any) -> Array:
    """The same memory under a dtype that npy can name: it drops metadata, and would call bfloat16 raw bytes."""
    if isinstance(node, dict) and "ml_dtypes" in node:
        return array.view(f"u{array.dtype.itemsize}")
    if isinstance(node, dict) and "metadata" in node:
        return array.view(decode_dtype(node["of"]))
    return array


def _check_view(value: Any, name: str) -> None:
    again = np.empty(0, np.asarray(value).dtype).view(type(value))
    if not same_dtype(again.dtype, value.dtype):
        raise MaterializationError(f"it is a {name} of the unusual dtype {value.dtype!r}")


# ---- npy: header and memory written as they are, so that the digest is made beside the write and nothing is copied


def write_npy(files: FileWriter, name: str, array: Array) -> None:
    """Write an array as an npy file. Padding between fields is written as zeros."""
    if has_gaps(array.dtype):
        array = without_gaps(array)
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    header = io.BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": fortran, "shape": array.shape}
    try:
        np.lib.format.write_array_header_1_0(header, about)
    except (
        ValueError,
        UnicodeEncodeError,
    ):  # too long, or names beyond Latin-1: the later formats, by NumPy's own writer
        with files.open(name) as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the format's version
            np.lib.format.write_array(stream, array, allow_pickle=False)
        return
    flat: Any = (array.T if fortran else array).ravel()
    files.write(name, header.getvalue(), memoryview(flat.view(np.uint8)) if flat.nbytes else b"")


def read_npy(files: FileReader, name: str) -> Array:
    """The array of an npy file, over the memory that was verified. Refuses object arrays and a header that lies."""
    return _over(files.read(name), name)


def _over(data: bytes | memoryview, name: str) -> Array:
    size = int.from_bytes(data[8:10] if data[6] == 1 else data[8:12], "little")
    stream = io.BytesIO(bytes(data[: 12 + size]))
    version = np.lib.format.read_magic(stream)
    if version == (3, 0):
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False, max_header_size=_MAX_HEADER)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream, max_header_size=_MAX_HEADER)
    if dtype.hasobject:
        raise MaterializationError(f"{name} holds pickled Python objects: not opened")
    array: Array = np.ndarray(shape, dtype, data, offset=stream.tell(), order="F" if fortran else "C")
    if stream.tell() + array.nbytes != len(data):
        raise IntegrityError(f"{name} has {len(data)} bytes, its header says {stream.tell() + array.nbytes}.")
    return array


def clean_npy(data: bytes) -> bytes:
    """An npy file with zeros for padding: the bytes that another library wrote, made the same for equal arrays."""
    array = _over(data, "an npy file")
    if not has_gaps(array.dtype):
        return data
    stream = io.BytesIO()
    np.lib.format.write_array(stream, without_gaps(array), allow_pickle=False)
    return stream.getvalue()


# ---- object arrays and variable-width strings


def _save_cells(array: Array, files: FileWriter, name: str) -> Spec:
    spec: Spec = {"kind": "cells", "shape": list(array.shape)}
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        spec["fortran"] = True
    if array.dtype.kind == "T":
        spec["string"] = _describe_string(array.dtype)
    files.write(f"{name}.json", dumps(encode(array.ravel().tolist(), cell)))
    return spec


def _load_cells(files: FileReader, spec: Mapping[str, Any], name: str) -> Array:
    cells = decode(loads(files.read(f"{name}.json")))
    dtype = _make_string(spec["string"]) if "string" in spec else np.dtype(object)
    flat = np.empty(len(cells), dtype)
    for index, item in enumerate(cells):  # flat[:] = cells would spread cells that are sequences
        flat[index] = item
    array = flat.reshape(spec["shape"])
    return np.asfortranarray(array) if spec.get("fortran") else array


def _describe_string(dtype: Any) -> Any:
    node: dict[str, Any] = {"coerce": dtype.coerce}
    if hasattr(dtype, "na_object"):
        node["na"] = encode(dtype.na_object)
    return node


def _make_string(node: Mapping[str, Any]) -> Any:
    more = {"na_object": decode(node["na"])} if "na" in node else {}
    return np.dtypes.StringDType(coerce=node["coerce"], **more)
