"""NumPy's dtypes and scalars as JSON, for values, specs, dictionary keys and the cells of object columns."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.errors import MaterializationError
from .tagged import TAG, Decoder, Encoder, decode, encode, tag

__all__ = ["cell", "decode_dtype", "encode_dtype", "encode_scalar", "has_gaps", "make", "same_dtype", "without_gaps"]

_INLINE = "biuf"  # kinds whose finite values JSON holds exactly


def same_dtype(one: np.dtype[Any], other: np.dtype[Any]) -> bool:
    """Whether two dtypes are equal also in what ``==`` overlooks: scalar type, alignment, metadata, at any depth."""
    if one != other or one.type is not other.type or one.isalignedstruct != other.isalignedstruct:
        return False
    if dict(one.metadata or {}) != dict(other.metadata or {}):
        return False
    if one.subdtype is not None and other.subdtype is not None:
        return same_dtype(one.subdtype[0], other.subdtype[0])
    fields, others = _fields(one), _fields(other)
    return all(
        field[1:] == others[name][1:] and same_dtype(field[0], others[name][0]) for name, field in fields.items()
    )


def _fields(dtype: np.dtype[Any]) -> Mapping[str, Any]:
    return dtype.fields or {}


def encode_dtype(dtype: np.dtype[Any]) -> Any:
    """A dtype as JSON. Raises MaterializationError for one that cannot be made again exactly."""
    try:
        node = _describe(dtype)
        exact = same_dtype(decode_dtype(node), dtype)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise MaterializationError(f"the dtype {dtype!r} has no exact description: {error}") from error
    if not exact:
        raise MaterializationError(f"the dtype {dtype!r} has no exact description")
    return node


def _describe(dtype: np.dtype[Any]) -> Any:
    if dtype.metadata:
        plain = np.dtype(dtype.str) if dtype.names is None else np.dtype(dtype.descr)
        return {"of": _describe(plain), "metadata": encode(dict(dtype.metadata))}
    if dtype.type.__module__.partition(".")[0] == "ml_dtypes":
        return {"ml_dtypes": dtype.name}
    if dtype.names is None:
        same = np.dtype(dtype.str).type is dtype.type
        return dtype.str if same else f"{dtype.str[0]}{dtype.char}"  # two C types of one size
    more = {key: True for key, on in (("aligned", dtype.isalignedstruct), ("record", dtype.type is np.record)) if on}
    return {"fields": _lists(dtype.descr), **more}


def decode_dtype(node: Any) -> np.dtype[Any]:
    """The dtype that :func:`encode_dtype` was given. Refuses one of Python objects: stored bytes are no pointers."""
    dtype: np.dtype[Any] = np.dtype(node) if isinstance(node, str) else _make_dtype(node)
    if dtype.hasobject:
        raise MaterializationError(f"the stored dtype {dtype} is one of Python objects: refused")
    return dtype


def _make_dtype(node: Mapping[str, Any]) -> Any:
    if "metadata" in node:
        return np.dtype(decode_dtype(node["of"]), metadata=decode(node["metadata"]))
    if "ml_dtypes" in node:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, node["ml_dtypes"]))
    dtype: Any = np.lib.format.descr_to_dtype(_tuples(node["fields"]))
    if node.get("aligned"):
        fields = [_fields(dtype)[name] for name in dtype.names]
        formats, offsets = [field[0] for field in fields], [field[1] for field in fields]
        layout: Any = {"names": dtype.names, "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize}
        dtype = np.dtype(layout, align=True)
    return np.dtype((np.record, dtype)) if node.get("record") else dtype


def _lists(descr: Any) -> Any:
    return [_lists(part) for part in descr] if isinstance(descr, (list, tuple)) else descr


def _tuples(descr: Any) -> Any:
    """A ``dtype.descr`` with its tuples again: of each field, and in it of (title, name) and of the shape."""
    if isinstance(descr, str):
        return descr
    fields = []
    for name, form, *shape in descr:
        fields.append((tuple(name) if isinstance(name, list) else name, _tuples(form), *map(tuple, shape)))
    return fields


# ---- padding: bytes that belong to no value, and hold whatever was in memory


def has_gaps(dtype: np.dtype[Any]) -> bool:
    """Whether items of the dtype have bytes that belong to no value."""
    if dtype.subdtype is not None:
        return has_gaps(dtype.subdtype[0])
    if dtype.names is None:
        return dtype.char in "gG" and np.finfo(np.longdouble).nmant == 63  # the 80-bit float in 16 bytes
    fields = [_fields(dtype)[name][0] for name in dtype.names]
    return sum(field.itemsize for field in fields) != dtype.itemsize or any(map(has_gaps, fields))


def without_gaps(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy of an array with zeros where no value is, so that equal arrays have equal bytes."""
    clean = np.zeros(array.shape, array.dtype)
    _copy(array, clean)
    return clean


def _copy(array: np.ndarray[Any, Any], clean: np.ndarray[Any, Any]) -> None:
    if array.dtype.names is not None:
        for name in array.dtype.names:
            _copy(array[name], clean[name])
        return
    clean[...] = array
    if has_gaps(array.dtype):
        real = clean if array.dtype.char == "g" else np.stack([clean.real, clean.imag], axis=-1)
        octets = np.ascontiguousarray(real).view(np.uint8).reshape(*real.shape, 16).copy()
        octets[..., 10:] = 0
        clean[...] = octets.reshape(*clean.shape, array.dtype.itemsize).view(array.dtype)[..., 0]


# ---- scalars


def encode_scalar(encoder: Encoder, value: np.generic) -> Any:
    """A NumPy scalar: its number where JSON holds it, else its bytes."""
    dtype = value.dtype
    if dtype.hasobject:
        raise encoder.refuse(value, "which holds Python objects")
    if isinstance(value, (np.str_, np.bytes_)):
        plain = str.__str__(value) if isinstance(value, np.str_) else bytes(value)  # str() drops trailing NULs
        return tag("numpy", encoder.encode(plain), dtype=dtype.kind)
    node = encode_dtype(dtype)
    if isinstance(node, str) and dtype.kind in _INLINE and dtype.itemsize <= 8 and math.isfinite(value):
        return tag("numpy", value.item(), dtype=node)
    array = np.asarray(value)
    octets = (without_gaps(array) if has_gaps(dtype) else array).tobytes()
    return tag("numpy", base64.b64encode(octets).decode(), dtype=node, bytes=True)


def make(decoder: Decoder, node: Any) -> Any:
    """The scalar, or the array, of a node."""
    if node[TAG] == "array":
        octets = bytearray(base64.b64decode(node["v"]))
        return np.ndarray(node["shape"], decode_dtype(node["dtype"]), octets, order="F" if node.get("fortran") else "C")
    if node["dtype"] in ("U", "S"):
        return (np.str_ if node["dtype"] == "U" else np.bytes_)(decoder.decode(node["v"]))
    dtype = decode_dtype(node["dtype"])
    if node.get("bytes"):
        return np.frombuffer(bytearray(base64.b64decode(node["v"])), dtype, 1)[0]
    return dtype.type(node["v"])


def cell(value: Any, where: str) -> Any:
    """The leaf for cells of object arrays and columns, which have no files of their own: small arrays, inline."""
    place = f"at {where} " if where else ""
    if type(value) is not np.ndarray:
        raise MaterializationError(f"{place}it is a {type(value).__qualname__}, which has no exact form in JSON")
    if value.dtype.hasobject:
        raise MaterializationError(f"{place}it is an array of Python objects inside another")
    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    octets = (without_gaps(value) if has_gaps(value.dtype) else value).tobytes("F" if fortran else "C")
    more = {"fortran": True} if fortran else {}
    node = encode_dtype(value.dtype)
    return tag("array", base64.b64encode(octets).decode(), dtype=node, shape=list(value.shape), **more)
