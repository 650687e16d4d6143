"""polars' DataFrame, Series and LazyFrame as the Parquet that polars itself writes: exact, and read by most tools.

Row groups have one size, so that the bytes do not depend on how a frame is cut into chunks or on the number of threads.
A LazyFrame is run and streamed into the file; it comes back as a scan of the verified file where the store holds it.
"""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import polars as pl

from ..core.errors import MaterializationError
from ..core.forms import TEXTS, Form
from ..core.typenames import type_name
from .base import Spec, check_columns
from .files import FileReader, FileWriter

__all__ = ["PolarsMaterializer"]

_FILE = "data.parquet"
_ROW_GROUP = 1 << 17
_PARQUET = {"zstd": "zstd", "snappy": "snappy", "lz4": "lz4", "none": "uncompressed"}
_SHOWN_COLUMNS = 1000


class PolarsMaterializer:
    """polars' own classes. How columns are cut into chunks, and the plan of a LazyFrame, are not part of the value."""

    name: ClassVar[str] = "polars"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """``data.parquet``; the spec has what that forgets: the kind, and which columns are known to be sorted.

        An error of a LazyFrame's own query is raised as it is.
        """
        kind = type(value)
        if kind not in (pl.DataFrame, pl.Series, pl.LazyFrame):
            raise MaterializationError(f"it is a {type_name(kind)}, a sub-class with more than polars' own state")
        frame = value.to_frame() if kind is pl.Series else value
        _check(frame.collect_schema())
        form = Form() if kind is pl.Series else files.form_of_table()
        options: Any = {
            "compression": _PARQUET[form.compressed("parquet") or "zstd"],
            "compression_level": form.level,
            "row_group_size": _ROW_GROUP,
        }
        if kind is pl.LazyFrame:
            if form.format not in (None, "parquet"):
                raise MaterializationError(f"a LazyFrame is not streamed into {form.format}; collect() it first")
            value.sink_parquet(files.path(_FILE), **options, maintain_order=True)
            return {"kind": "LazyFrame", **form.said("parquet")}
        spec = {"kind": kind.__name__, **_sorted(frame)}
        if form.format not in (None, "parquet"):
            _write_as(files, frame, form)
            return {**spec, "format": form.format, **form.said(form.format)}
        with files.open(_FILE) as stream:
            frame.write_parquet(stream, **options)
        return {**spec, **form.said("parquet")}

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The value. The path is taken as it is: neither a pattern, nor columns from folders like ``key=value``."""
        if "format" in spec:
            return _flagged(_read_as(files, spec["format"]), spec, None)
        file = files.path(_FILE)
        if spec["kind"] == "LazyFrame":
            return pl.scan_parquet(file, glob=False, hive_partitioning=False)
        frame = _flagged(pl.read_parquet(file, glob=False, hive_partitioning=False), spec, None)
        return frame.to_series() if spec["kind"] == "Series" else frame

    def load_columns(self, files: FileReader, spec: Mapping[str, Any], columns: Sequence[Any]) -> Any:
        """These columns of a DataFrame; of a LazyFrame a scan of them."""
        if spec["kind"] == "Series":
            raise MaterializationError("it is a Series, which has no columns to choose from")
        if "format" in spec:
            whole = _read_as(files, spec["format"])
            check_columns(columns, whole.columns)
            return _flagged(whole.select(columns), spec, whole.columns)
        file = files.path(_FILE)
        scan = pl.scan_parquet(file, glob=False, hive_partitioning=False)
        known = scan.collect_schema().names()
        check_columns(columns, known)
        if spec["kind"] == "LazyFrame":
            return scan.select(columns)
        frame = pl.read_parquet(file, columns=list(columns), glob=False, hive_partitioning=False).select(columns)
        return _flagged(frame, spec, known)

    def describe(self, value: Any) -> dict[str, Any]:
        """Rows, bytes, dtypes, nulls, minimum and maximum of numbers and times; of a LazyFrame the dtypes only."""
        if isinstance(value, pl.Series):
            about = {"rows": len(value), "dtype": str(value.dtype), "nbytes": value.estimated_size()}
            return {**about, "nulls": value.null_count(), **_limits(value)}
        schema = value.collect_schema()
        shown = {name: str(dtype) for name, dtype in list(schema.items())[:_SHOWN_COLUMNS]}
        if isinstance(value, pl.LazyFrame):
            return {"columns": len(schema), "schema": shown}
        columns = value.get_columns()[:_SHOWN_COLUMNS]
        limits = {column.name: found for column in columns if (found := _limits(column))}
        return {
            "rows": value.height,
            "columns": value.width,
            "nbytes": value.estimated_size(),
            "schema": shown,
            "nulls": {column.name: count for column in columns if (count := column.null_count())},
            **{end: {name: found[end] for name, found in limits.items()} for end in ("min", "max") if limits},
        }


def _write_as(files: FileWriter, frame: pl.DataFrame, form: Form) -> None:
    """As Arrow or text. Read again first: refused, with the column named, if that is another frame."""
    if form.format in TEXTS:
        from .table_file import without_dictionaries, write_table

        table = without_dictionaries(frame.to_arrow(compat_level=pl.CompatLevel.oldest()))
        back: Any = pl.from_arrow(table)
        _check_same(frame, back, form.format)
        write_table(files, table, form)
        return
    if form.level is not None:
        raise MaterializationError("polars writes arrow without levels. Choose format='parquet', or no level")
    data = io.BytesIO()
    compression: Any = _PARQUET[form.compressed("arrow") or "none"]
    frame.rechunk().write_ipc(data, compression=compression)
    _check_same(frame, pl.read_ipc(data.getvalue()), "arrow")
    files.write("data.arrow", data.getvalue())


def _check_same(frame: pl.DataFrame, back: pl.DataFrame, format: str) -> None:
    for name, dtype in frame.schema.items():
        if back.schema.get(name) != dtype or not back[name].equals(frame[name], null_equal=True):
            raise MaterializationError(f"column {name!r}: {format} would change its {dtype}. Choose format='parquet'")


def _read_as(files: FileReader, format: str) -> pl.DataFrame:
    if format == "arrow":
        return pl.read_ipc(bytes(files.read("data.arrow")))
    from .table_file import read_table

    frame: Any = pl.from_arrow(read_table(files, format)[0])
    return frame  # type: ignore[no-any-return]


def _check(schema: Mapping[str, Any]) -> None:
    """Refuse what Parquet would not give back; asked before the first byte is written."""
    for name, dtype in schema.items():
        problem = next(filter(None, map(_problem, _parts(dtype))), None)
        if problem:
            raise MaterializationError(f"column {name!r}: {problem}")


def _parts(dtype: Any) -> Iterator[Any]:
    """A dtype, and those that it is made of."""
    yield dtype
    inner = [field.dtype for field in dtype.fields] if isinstance(dtype, pl.Struct) else []
    inner += [getattr(dtype, part) for part in ("inner", "key", "value") if hasattr(dtype, part)]
    for part in inner:
        yield from _parts(part)


def _problem(dtype: Any) -> str | None:
    if dtype == pl.Object:
        return "the dtype Object holds Python objects; give it another dtype, or return its items as a list"
    if isinstance(dtype, pl.Struct) and not dtype.fields:
        return "Parquet has no Struct without fields; drop the column, or give it a field"
    if isinstance(dtype, pl.BaseExtension):
        return f"polars has no stable format for the extension type {dtype}; return the column's .ext.storage()"
    return None


def _flagged(frame: pl.DataFrame, spec: Mapping[str, Any], known: list[str] | None) -> pl.DataFrame:
    """The frame with its flags of being sorted; ``known`` are the columns of the file, where these are not all."""
    for flag, descending in (("ascending", False), ("descending", True)):
        names = [(known or frame.columns)[place] for place in spec.get(flag, ())]
        columns = [frame[name] for name in names if name in frame.columns]
        frame = frame.with_columns(column.set_sorted(descending=descending) for column in columns)
    return frame


def _sorted(frame: pl.DataFrame) -> Spec:
    """The places of the columns that carry polars' flag of being sorted, by which it takes other ways."""
    flags = [column.flags for column in frame.get_columns()]
    found = {
        name: [place for place, flag in enumerate(flags) if flag[key]]
        for name, key in (("ascending", "SORTED_ASC"), ("descending", "SORTED_DESC"))
    }
    return {name: places for name, places in found.items() if places}


def _limits(column: pl.Series) -> dict[str, Any]:
    """Minimum and maximum of numbers, dates and times, without nulls and NaN. Empty where there is none."""
    dtype = column.dtype
    moments = isinstance(dtype, (pl.Date, pl.Datetime))
    if not moments and not dtype.is_numeric():
        return {}
    numbers = column.to_physical() if moments else column
    ends = {"min": numbers.min(), "max": numbers.max()}
    if ends["min"] is None:
        return {}
    try:
        return {end: _moment(value, dtype) for end, value in ends.items()} if moments else ends
    except OverflowError:  # beyond the years that Python knows, where polars itself would panic
        return {}


def _moment(count: Any, dtype: Any) -> str:
    if isinstance(dtype, pl.Date):
        return (dt.date(1970, 1, 1) + dt.timedelta(days=count)).isoformat()
    micros = count // 1000 if dtype.time_unit == "ns" else count * {"us": 1, "ms": 1000}[dtype.time_unit]
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC if dtype.time_zone else None)
    return (epoch + dt.timedelta(microseconds=micros)).isoformat()
