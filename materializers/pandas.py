"""DataFrame, Series and Index as Parquet that other tools read, restored exactly from what stands in its metadata.

Columns keep their names where these are unique strings. The file's key-value metadata under ``tailrace`` says what
Parquet forgets: dtypes, index and its frequency, labels that are not strings, names, attrs, flags. A type that Parquet
changes makes the file Arrow IPC instead. What neither can hold (sparse, other packages' extension types) is refused,
with the column named.

Large label sets other than rows (categories, levels of a MultiIndex, column labels) are files of their own in
sub-folders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..core.errors import MaterializationError
from ..core.forms import TEXTS, Form
from ..core.typenames import type_name
from .arrow import ipc_schema, read_ipc_columns, write_ipc
from .base import Spec, check_columns
from .files import FileReader, FileWriter
from .limits import by_column, is_quick, limits
from .numpy_scalars import cell
from .pandas_columns import decode_column, encode_column
from .pandas_scalars import encode_freq
from .table_file import read_table, write_table
from .tagged import decode, dumps, encode, is_plain, loads

__all__ = ["PandasMaterializer"]

_KEY = b"tailrace"
_INLINE_LABELS = 1000
_SHOWN_COLUMNS = 1000
_INDEXES = (
    *(pd.Index, pd.RangeIndex, pd.MultiIndex, pd.DatetimeIndex, pd.TimedeltaIndex),
    *(pd.PeriodIndex, pd.IntervalIndex, pd.CategoricalIndex),
)


class PandasMaterializer:
    """pandas' own containers; a sub-class (geopandas) needs a materializer of its own."""

    name: ClassVar[str] = "pandas"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """``data.parquet`` or ``data.arrow``; the spec names which."""
        sheet = _SheetWriter(files)
        if type(value) is pd.DataFrame:
            return sheet.frame(value)
        if type(value) is pd.Series:
            return sheet.series(value)
        if type(value) in _INDEXES:
            return sheet.index(value)
        raise MaterializationError(f"it is a {type_name(type(value))}, a sub-class with more than pandas' own state")

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The object, over verified bytes."""
        return _SheetReader.whole(files, spec["format"]).value()

    def load_columns(self, files: FileReader, spec: Mapping[str, Any], columns: Sequence[Any]) -> Any:
        """These columns of a DataFrame, with its index; of one label that several columns have, all."""
        return _SheetReader.narrowed(files, spec["format"], columns).value()

    def describe(self, value: Any) -> dict[str, Any]:
        """Rows, dtypes, nulls, bytes (of objects the pointers), and of NumPy's numbers and of moments the limits."""
        if isinstance(value, pd.DataFrame):
            columns = value.iloc[:, :_SHOWN_COLUMNS]
            return {
                "rows": len(value),
                "columns": value.shape[1],
                "nbytes": int(value.memory_usage(index=False).sum()),
                "schema": {str(name): str(dtype) for name, dtype in columns.dtypes.items()},
                **by_column({str(name): _limits(column) for name, column in columns.items()}),
            }
        about = {"rows": len(value), "dtype": str(value.dtype), "nbytes": int(value.nbytes)}
        if isinstance(value, (pd.MultiIndex, pd.RangeIndex)):  # the one has no missing rows, the other no values
            return about
        missing, ends = _limits(value)
        return {**about, "nulls": missing, **ends}


def _limits(values: Any) -> tuple[int, dict[str, Any]]:
    """The missing values of a column, and of NumPy's numbers and of moments the limits."""
    dtype = values.dtype
    if isinstance(dtype, pd.DatetimeTZDtype):
        missing, ends = limits(values.array.asi8.view(f"M8[{dtype.unit}]"))
        return missing, {end: f"{moment}+00:00" for end, moment in ends.items()}
    if isinstance(dtype, np.dtype) and is_quick(dtype):
        return limits(values.to_numpy())
    return int(values.isna().sum()), {}


# ---- writing


class _SheetWriter:
    """Gathers the columns of one file, and what is to be said about them."""

    def __init__(self, files: FileWriter) -> None:
        self._files = files
        self._data: list[Any] = []
        self._names: list[str] = []
        self._index_names: list[str] = []
        self._folders = 0

    def frame(self, value: Any) -> Spec:
        names = _column_names(value.columns)
        columns = [
            self._add(_values(value.iloc[:, place]), name, f"column {label!r}")
            for place, (name, label) in enumerate(zip(names, value.columns, strict=True))
        ]
        labels = self._apart(value.columns, "its column labels")
        return self._finish("frame", value, columns=columns, labels=labels)

    def series(self, value: Any) -> Spec:
        name = value.name if _can_be_name(value.name) else "values"
        column = self._add(_values(value), name, "its values")
        return self._finish("series", value, columns=[column], name=_encode_name(value.name))

    def index(self, value: Any) -> Spec:
        return self._write({"kind": "index", "index": self._axis(value)})

    def _finish(self, kind: str, value: Any, **about: Any) -> Spec:
        index = self._axis(value.index)
        try:
            attrs = {"attrs": encode(value.attrs, cell)} if value.attrs else {}
        except MaterializationError as error:
            raise MaterializationError(f"its attrs: {error}") from error
        flags = {} if value.flags.allows_duplicate_labels else {"unique_labels": True}
        return self._write({"kind": kind, **about, "index": index, **attrs, **flags})

    def _add(self, values: Any, name: str, what: str) -> Spec:
        try:
            data, spec = encode_column(values, lambda index: self._apart(index, what))
        except MaterializationError as error:
            raise MaterializationError(f"{what}: {error}") from error
        self._data.append(data)
        self._names.append(name)
        return spec

    def _apart(self, index: Any, what: str) -> Spec:
        """Labels that are not the rows': in the metadata where that is small, else a file of their own."""
        if type(index) is pd.RangeIndex or (type(index) is pd.Index and _are_few_texts(index)):
            return self._axis(index, inline=True)
        folder = f"labels-{self._folders}"
        self._folders += 1
        inner = _SheetWriter(self._files.within(folder))
        try:
            return {"folder": folder, **inner.index(index)}
        except MaterializationError as error:
            raise MaterializationError(f"{what}: {error}") from error

    def _axis(self, index: Any, *, inline: bool = False) -> Spec:
        kind = type(index).__name__
        if type(index) not in _INDEXES:
            raise MaterializationError(f"its index is a {type_name(type(index))}, which is not one of pandas' own")
        if isinstance(index, pd.MultiIndex):
            return self._levels(index)
        spec: Spec = {"class": kind, "name": _encode_name(index.name)}
        if isinstance(index, pd.RangeIndex):
            return {**spec, "range": [index.start, index.stop, index.step]}
        freq = index.freq if isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)) else None
        if freq is not None:
            spec["freq"] = encode_freq(freq)
        if inline:
            _, about = encode_column(index.array, self._no_labels)
            return {**spec, "values": about, "labels": list(index)}
        return {**spec, "values": self._add(index.array, self._free_name(index.name), "its index")}

    def _no_labels(self, index: Any) -> Spec:
        raise AssertionError("text has no categories")

    def _levels(self, index: Any) -> Spec:
        """As levels and codes, since the order of the levels and the unused ones are part of a MultiIndex."""
        names = [_encode_name(name) for name in index.names]
        levels = []
        for place, (level, codes, name) in enumerate(zip(index.levels, index.codes, index.names, strict=True)):
            what, column, level = f"level {place} of its index", self._free_name(name), level.rename(None)
            if level.hasnans or isinstance(level, pd.CategoricalIndex):  # which cannot be categories
                levels.append({"level": self._apart(level, what), "codes": self._add(np.asarray(codes), column, what)})
            else:
                values = pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(level))
                levels.append(self._add(values, column, what))
        return {"class": "MultiIndex", "names": names, "levels": levels}

    def _free_name(self, name: Any) -> str:
        free: str = name if _can_be_name(name) else f"__index_level_{len(self._index_names)}__"
        while free in self._names:
            free += "_"
        self._index_names.append(free)
        return free

    def _write(self, about: Spec) -> Spec:
        metadata = {_KEY: dumps(about), b"pandas": dumps(self._for_pandas(about))}
        table = pa.Table.from_arrays([_as_data(data) for data in self._data], names=self._names)
        form = self._files.form_of_table() if about["kind"] == "frame" else Form()
        if form.format in TEXTS:
            write_table(self._files, table, form, about=about)
            return {"format": form.format, **form.said(form.format)}
        table = table.replace_schema_metadata(metadata)
        changed = [field for field in table.schema if not _parquet_is_exact(field.type)]
        if form.format == "parquet" and changed:
            raise MaterializationError(
                f"column {changed[0].name!r}: parquet would change {changed[0].type}. Choose format='arrow'"
            )
        if form.format != "arrow" and not changed:
            compression = form.compressed("parquet") or "snappy"
            options = {"compression": compression, "compression_level": form.level}
            with self._files.open("data.parquet") as stream:
                pq.write_table(table, stream, use_dictionary=_repetitive(table), **options)
            return {"format": "parquet", **form.said("parquet")}
        write_ipc(self._files, table, compression=form.compressed("arrow"), level=form.level)
        return {"format": "arrow", **form.said("arrow")}

    def _for_pandas(self, about: Spec) -> Spec:
        """What pandas' and Arrow's own readers look for: which columns are the index."""
        axis = about["index"]
        rows: list[Any] = list(self._index_names)
        if "range" in axis:
            start, stop, step = axis["range"]
            rows = [{"kind": "range", "name": None, "start": start, "stop": stop, "step": step}]
        about_rows = [
            {"name": name, "field_name": name, "pandas_type": "object", "numpy_type": "object", "metadata": None}
            for name in self._index_names
        ]
        return {"index_columns": rows, "column_indexes": [], "columns": about_rows, "pandas_version": "2.0.0"}


def _values(series: Any) -> Any:
    return series.to_numpy() if isinstance(series.dtype, np.dtype) else series.array


def _as_data(data: Any) -> Any:
    return data.combine_chunks() if isinstance(data, pa.ChunkedArray) and data.num_chunks != 1 else data


def _encode_name(name: Any) -> Any:
    try:
        return encode(name)
    except MaterializationError as error:
        raise MaterializationError(f"the name {name!r}: {error}") from error


def _are_few_texts(index: Any) -> bool:
    return len(index) <= _INLINE_LABELS and set(map(type, index)) <= {str} and is_plain(list(index))


def _can_be_name(label: Any) -> bool:
    return type(label) is str and label.isprintable() and label != ""


def _column_names(labels: Any) -> list[str]:
    """The labels themselves where they can be names; their text where that is unique; else their places."""
    names = [str(label) for label in labels]
    clean = len(set(names)) == len(names) and all(map(_can_be_name, names))
    return names if clean else [str(place) for place in range(len(names))]


_EXACT = [
    getattr(pa.types, f"is_{kind}")
    for kind in (
        *("null", "boolean", "integer", "floating", "decimal128", "date32", "time64", "duration"),
        *("string", "large_string", "binary", "large_binary"),
    )
]


def _parquet_is_exact(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        return bool(types.is_large_string(kind.value_type))
    if types.is_struct(kind):
        return all(_parquet_is_exact(field.type) for field in kind)
    if types.is_timestamp(kind) or types.is_time32(kind):
        return bool(kind.unit != "s")
    return any(is_kind(kind) for is_kind in _EXACT)


def _repetitive(table: pa.Table) -> list[str]:
    """The columns worth a dictionary, by their first rows: it costs time and space where values do not repeat."""
    chosen = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        first = column.slice(0, 4096)
        if pa.types.is_dictionary(column.type) or (
            column.null_count < len(column)
            and not pa.types.is_nested(column.type)
            and 2 * pc.count_distinct(first).as_py() < len(first)
        ):
            chosen.append(name)
    return chosen


# ---- reading


class _SheetReader:
    """Makes the object of one file again."""

    def __init__(self, files: FileReader, about: Spec) -> None:
        self._files = files
        self._about = about
        self._columns: Iterator[Any] = iter(())
        self._labels: Any = None

    @classmethod
    def whole(cls, files: FileReader, form: str) -> _SheetReader:
        table, about = read_table(files, form)
        reader = cls(files, loads(table.schema.metadata[_KEY]) if about is None else about)
        reader._columns = iter(table.columns)
        return reader

    @classmethod
    def narrowed(cls, files: FileReader, form: str, columns: Sequence[Any]) -> _SheetReader:
        """Of a frame, the columns with these labels; of the file no others are read, but for the index."""
        path = files.path(f"data.{form}")
        if form in TEXTS:  # read as a whole
            whole, about = read_table(files, form)
            schema = whole.schema
        else:
            schema = pq.read_schema(path) if form == "parquet" else ipc_schema(path)
            about = loads(schema.metadata[_KEY])
        reader = cls(files, about)
        if about["kind"] != "frame":
            raise MaterializationError(f"it is a {about['kind']}, which has no columns to choose from")
        labels = reader._apart(about["labels"])
        places: dict[Any, list[int]] = {}
        for place, label in enumerate(labels):
            places.setdefault(label, []).append(place)
        check_columns(columns, places)
        chosen = [place for label in columns for place in places[label]]
        needed = [*chosen, *range(len(labels), len(schema))]
        reader._about = {**about, "columns": [about["columns"][place] for place in chosen]}
        reader._labels = labels.take(chosen)
        if form == "parquet":
            names = [schema.names[place] for place in needed]
            table = pq.ParquetFile(path).read(columns=names).select(names)  # "a" would bring "a.b" along
        elif form in TEXTS:
            table = whole.select(needed)
        else:
            table = read_ipc_columns(path, needed)
        reader._columns = iter(table.columns)
        return reader

    def value(self) -> Any:
        about = self._about
        arrays = [self._next(spec) for spec in about.get("columns", ())]
        index = self._axis(about["index"])
        if about["kind"] == "index":
            return index
        if about["kind"] == "series":
            value: Any = _series(arrays[0], index).rename(decode(about["name"]))
        else:
            value = pd.DataFrame(
                {place: _column(array, index) for place, array in enumerate(arrays)}, index=index, copy=False
            )
            value.columns = self._apart(about["labels"]) if self._labels is None else self._labels
        value.attrs = decode(about.get("attrs", {}))
        return value.set_flags(allows_duplicate_labels=False) if "unique_labels" in about else value

    def _next(self, spec: Mapping[str, Any]) -> Any:
        return decode_column(next(self._columns), spec, self._apart)

    def _apart(self, spec: Mapping[str, Any]) -> Any:
        if "folder" in spec:
            return _SheetReader.whole(self._files.within(spec["folder"]), spec["format"]).value()
        return self._axis(spec)

    def _axis(self, spec: Mapping[str, Any]) -> Any:
        if spec["class"] == "MultiIndex":
            levels, codes = zip(*map(self._level, spec["levels"]), strict=True)
            names = [decode(name) for name in spec["names"]]
            return pd.MultiIndex(levels=levels, codes=codes, names=names, verify_integrity=False)
        name = decode(spec["name"])
        if "range" in spec:
            start, stop, step = spec["range"]
            return pd.RangeIndex(start, stop, step, name=name)
        if "labels" in spec:
            array = decode_column(
                pa.chunked_array([pa.array(spec["labels"], pa.large_string())]), spec["values"], self._apart
            )
        else:
            array = self._next(spec["values"])
        return _index(spec["class"], array, name, spec.get("freq"))

    def _level(self, spec: Mapping[str, Any]) -> tuple[Any, Any]:
        if "level" in spec:
            return self._apart(spec["level"]), self._next(spec["codes"])
        values = self._next(spec)
        return values.categories, values.codes


def _series(array: Any, index: Any) -> Any:
    return pd.Series(array, index=index, dtype=array.dtype, copy=False)  # the dtype, or pandas infers one for objects


def _column(array: Any, index: Any) -> Any:
    return _series(array, index) if array.dtype == object else array


def _index(kind: str, array: Any, name: Any, freq: str | None) -> Any:
    cls: Any = next(cls for cls in _INDEXES if cls.__name__ == kind)
    if cls is pd.Index:
        return pd.Index(array, dtype=array.dtype, name=name, copy=False)
    return cls(array, name=name) if freq is None else cls(array, name=name, freq=freq)
