"""One column of pandas as Arrow data that other tools read, and a JSON spec of what Arrow would forget.

Each dtype has its own way there and back; a dtype without one is refused. An object column of one simple type becomes a
column of that type; any other becomes text, the tagged JSON of each cell.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ..core.errors import MaterializationError
from ..core.typenames import type_name
from .numpy_scalars import cell
from .pandas_scalars import encode_period
from .tagged import decode, dumps, encode, loads

__all__ = ["SaveIndex", "decode_column", "encode_column"]

Spec = dict[str, Any]
Data = Any  # pa.Array | pa.ChunkedArray, of a library without types
SaveIndex = Callable[[Any], Spec]
LoadIndex = Callable[[Mapping[str, Any]], Any]


def encode_column(values: Any, save_index: SaveIndex) -> tuple[Data, Spec]:
    """Arrow data and spec of a column's ``ndarray`` or extension array; ``save_index`` takes the categories.

    Raises MaterializationError, without a name for the column, for what would not come back exactly.
    """
    if type(values) is pd.arrays.NumpyExtensionArray:  # string arrays are sub-classes of it
        values = values.to_numpy()
    dtype = values.dtype
    if isinstance(dtype, np.dtype):
        return _encode_numpy(np.asarray(values))  # pandas' own arrays of moments convert in other ways
    for kind, encoder in _EXTENSIONS:
        if isinstance(dtype, kind):
            return encoder(values, save_index)
    raise MaterializationError(f"the dtype {dtype} ({type_name(type(dtype))}) has no exact form in Arrow")


def decode_column(data: pa.ChunkedArray, spec: Mapping[str, Any], load_index: LoadIndex) -> Any:
    """The array that :func:`encode_column` was given: an ``ndarray``, writable, or an extension array."""
    kind = next(iter(spec))
    return _DECODERS[kind](data, spec, load_index)


def _to_numpy(data: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    values: np.ndarray[Any, Any] = data.to_numpy()
    return values if values.flags.writeable else values.copy()


# ---- NumPy dtypes


def _encode_numpy(values: np.ndarray[Any, Any]) -> tuple[Data, Spec]:
    dtype = values.dtype
    spec = {"numpy": dtype.str}
    if dtype.kind == "O":
        return _encode_object(values)
    native = values.astype(dtype.newbyteorder("="), copy=False)
    if dtype.kind == "c" and dtype.itemsize <= 16:
        parts = [pa.array(native.real.copy()), pa.array(native.imag.copy())]
        return pa.StructArray.from_arrays(parts, ["real", "imag"]), {"complex": dtype.str}
    if dtype.kind in "biufmM" and dtype.itemsize <= 8:
        return pa.array(_storable(native)), spec
    raise MaterializationError(f"the dtype {dtype} has no exact form in Arrow")


def _storable(moments: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Parquet has no timestamps in seconds: milliseconds, where these reach that far."""
    if moments.dtype.kind != "M" or np.datetime_data(moments.dtype)[0] != "s":
        return moments
    finer = moments.astype("M8[ms]")
    if not np.array_equal(finer.astype("M8[s]").view("i8"), moments.view("i8")):
        raise MaterializationError("it has dates beyond the reach of milliseconds")
    return finer


def _decode_numpy(data: pa.ChunkedArray, spec: Mapping[str, Any], load_index: LoadIndex) -> Any:
    return _to_numpy(data).astype(spec["numpy"], copy=False)


def _decode_complex(data: pa.ChunkedArray, spec: Mapping[str, Any], load_index: LoadIndex) -> Any:
    values: Any = np.empty(len(data), spec["complex"])
    values.real, values.imag = (pc.struct_field(data, [part]).to_numpy() for part in (0, 1))
    return values


# ---- object columns

_CELLS: dict[type, Any] = {
    str: pa.large_string(),
    bytes: pa.large_binary(),
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    dt.date: pa.date32(),
}
_MISSING: dict[type, tuple[str, Any]] = {
    type(None): ("None", None),
    float: ("nan", np.nan),
    type(pd.NA): ("NA", pd.NA),
    type(pd.NaT): ("NaT", pd.NaT),
}
_MISSING_BY_NAME = dict(_MISSING.values())


def _encode_object(values: np.ndarray[Any, Any]) -> tuple[Data, Spec]:
    kinds = set(map(type, values))
    missing = kinds & (set(_MISSING) - {float})
    rest = kinds - missing
    if float in rest and len(rest) > 1 and not missing and _only_nan([item for item in values if type(item) is float]):
        rest, missing = rest - {float}, {float}
    if len(missing) <= 1 and len(rest) <= 1 and rest <= set(_CELLS):
        kind = next(iter(rest), str)
        spec = {"object": kind.__name__, "missing": _MISSING[next(iter(missing))][0] if missing else None}
        try:  # of floats only None is missing: a NaN is a value
            return pa.array(values, type=_CELLS[kind], from_pandas=kind is not float), spec
        except (pa.ArrowException, ValueError, OverflowError):
            pass  # lone surrogates, integers beyond 64 bits, NA among floats: cell by cell
    return _encode_cells(values), {"object": "cells"}


def _only_nan(items: list[float]) -> bool:
    """Whether each is the NaN of NumPy, by its bits: one with another sign or payload is a value of its own."""
    return bool((np.array(items).view("u8") == np.array(np.nan).view("u8")).all())


def _encode_cells(values: np.ndarray[Any, Any]) -> Data:
    texts = []
    for row, item in enumerate(values):
        try:
            texts.append(dumps(encode(item, cell)).decode())
        except MaterializationError as error:
            raise MaterializationError(f"row {row}: {error}") from error
    return pa.array(texts, type=pa.large_string())


def _decode_object(data: pa.ChunkedArray, spec: Mapping[str, Any], load_index: LoadIndex) -> Any:
    kind = spec["object"]
    if kind == "cells":
        return np.fromiter((decode(loads(text.encode())) for text in data.to_pylist()), dtype=object, count=len(data))
    if kind in ("str", "bytes"):
        values = _to_numpy(data)
    else:
        values = np.empty(len(data), dtype=object)
        values[:] = data.to_pylist()
    if spec["missing"] not in (None, "None"):
        values[data.is_null().to_numpy()] = _MISSING_BY_NAME[spec["missing"]]
    return values


# ---- pandas' extension dtypes


def _encode_string(values: Any, save_index: SaveIndex) -> tuple[Data, Spec]:
    dtype = values.dtype
    try:
        data = pa.array(values, type=pa.large_string())
    except UnicodeEncodeError as error:
        raise MaterializationError(f"it has text that is not valid Unicode: {error}") from error
    return data, {"string": dtype.storage, "missing": "NA" if dtype.na_value is pd.NA else "nan"}


def _decode_string(data: pa.ChunkedArray, spec: Mapping[str, Any], load_index: LoadIndex) -> Any:
    dtype: Any = pd.StringDtype(spec["string"], na_value=_MISSING_BY_NAME[spec["missing"]])
    return dtype.__from_arrow__(data)


def _encode_masked(values: Any, save_index: SaveIndex) -> tuple[Data, Spec]:
    dtype = values.dtype
    plain = values.to_numpy(dtype=dtype.numpy_dtype, na_value=0)
    return pa.array(plain, mask=values.isna(), from_pandas=False), {"masked": dtype.name}


def _decode_masked(data: pa.ChunkedArray, spec: Mapping[str, Any], load_index: LoadIndex) -> Any:
    dtype: Any = pd.api.types.pandas_dtype(spec["masked"])
    mask = _to_numpy(data.is_null())
    values = _to_numpy(data.fill_null(False if dtype.kind == "b" else 0))
    return dtype.construct_array_type()(values, mask)


def _encode_zoned(values: Any, save_index: SaveIndex) -> tuple[Data, Spec]:
    moments = values.tz_convert("UTC").tz_localize(None).to_numpy()
    data = pa.array(_storable(moments))
    data = data.cast(pa.timestamp(data.type.unit, tz="UTC"))
    return data, {"zone": encode(values.dtype.tz), "unit": values.dtype.unit}


def _decode_zoned(data: pa.ChunkedArray, spec: Mapping[str, Any], load_index: LoadIndex) -> Any:
    moments = _to_numpy(data.cast(pa.timestamp(data.type.unit))).astype(f"M8[{spec['unit']}]", copy=False)
    return pd.DatetimeIndex(moments).tz_localize("UTC").tz_convert(decode(spec["zone"])).array


def _encode_periods(values: Any, save_index: SaveIndex) -> tuple[Data, Spec]:
    return pa.array(values.asi8), {"period": encode_period(values.dtype)}


def _decode_periods(data: pa.ChunkedArray, spec: Mapping[str, Any], load_index: LoadIndex) -> Any:
    index: Any = pd.PeriodIndex
    return index.from_ordinals(_to_numpy(data), freq=spec["period"]).array


def _encode_intervals(values: Any, save_index: SaveIndex) -> tuple[Data, Spec]:
    left, left_spec = encode_column(values.left.array, save_index)
    right, right_spec = encode_column(values.right.array, save_index)
    data = pa.StructArray.from_arrays([left, right], ["left", "right"])
    return data, {"interval": values.closed, "left": left_spec, "right": right_spec}


def _decode_intervals(data: pa.ChunkedArray, spec: Mapping[str, Any], load_index: LoadIndex) -> Any:
    left, right = (
        decode_column(pc.struct_field(data, [place]), spec[side], load_index)
        for place, side in enumerate(("left", "right"))
    )
    return pd.arrays.IntervalArray.from_arrays(left, right, closed=spec["interval"])


def _encode_categories(values: Any, save_index: SaveIndex) -> tuple[Data, Spec]:
    """The labels of the rows where other tools can read them (text, integers, times); else the codes."""
    codes = pa.array(values.codes, mask=values.codes < 0)
    spec = {"categories": save_index(values.categories), "ordered": bool(values.ordered)}
    labels = _labels(values.categories)
    if labels is None:
        return codes, {**spec, "codes": True}
    if pa.types.is_large_string(labels.type):
        return pa.DictionaryArray.from_arrays(codes, labels), spec
    return labels.take(codes), spec


def _labels(categories: Any) -> pa.Array | None:
    if set(map(type, categories)) <= {str}:
        try:
            return pa.array(list(categories), type=pa.large_string())
        except UnicodeEncodeError:
            return None
    if isinstance(categories.dtype, np.dtype) and categories.dtype.kind in "iuM":
        return pa.array(_storable(categories.to_numpy()))
    return None


def _decode_categories(data: pa.ChunkedArray, spec: Mapping[str, Any], load_index: LoadIndex) -> Any:
    categories = load_index(spec["categories"])
    if "codes" not in spec:
        labels = _labels(categories)
        data = pa.chunked_array([_recode(chunk, labels) for chunk in data.chunks], type=pa.int32())
    codes = data.fill_null(-1).to_numpy()
    return pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(categories, ordered=spec["ordered"]))


def _recode(chunk: Any, labels: pa.Array) -> pa.Array:
    """A chunk's codes in the order of the categories: the file has labels, and may order a dictionary of them anew."""
    if isinstance(chunk, pa.DictionaryArray):
        return pc.index_in(chunk.dictionary.cast(labels.type), value_set=labels).take(chunk.indices)
    return pc.index_in(chunk, value_set=labels, skip_nulls=True)


def _encode_arrow(values: Any, save_index: SaveIndex) -> tuple[Data, Spec]:
    data = pa.chunked_array(values.__arrow_array__())
    return data, {"arrow": str(data.type)}


def _decode_arrow(data: pa.ChunkedArray, spec: Mapping[str, Any], load_index: LoadIndex) -> Any:
    if str(data.type) != spec["arrow"]:
        raise MaterializationError(
            f"a column of {spec['arrow']} came back as {data.type}; is its extension type registered?"
        )
    return pd.arrays.ArrowExtensionArray(data)


_MASKED = (
    *(pd.Int8Dtype, pd.Int16Dtype, pd.Int32Dtype, pd.Int64Dtype),
    *(pd.UInt8Dtype, pd.UInt16Dtype, pd.UInt32Dtype, pd.UInt64Dtype),
    *(pd.Float32Dtype, pd.Float64Dtype, pd.BooleanDtype),
)
_EXTENSIONS: list[tuple[Any, Callable[[Any, SaveIndex], tuple[Data, Spec]]]] = [
    (pd.StringDtype, _encode_string),
    (_MASKED, _encode_masked),
    (pd.DatetimeTZDtype, _encode_zoned),
    (pd.CategoricalDtype, _encode_categories),
    (pd.PeriodDtype, _encode_periods),
    (pd.IntervalDtype, _encode_intervals),
    (pd.ArrowDtype, _encode_arrow),
]
_DECODERS: dict[str, Callable[[pa.ChunkedArray, Mapping[str, Any], LoadIndex], Any]] = {
    "numpy": _decode_numpy,
    "complex": _decode_complex,
    "object": _decode_object,
    "string": _decode_string,
    "masked": _decode_masked,
    "zone": _decode_zoned,
    "period": _decode_periods,
    "interval": _decode_intervals,
    "categories": _decode_categories,
    "arrow": _decode_arrow,
}
