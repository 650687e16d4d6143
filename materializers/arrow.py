"""pyarrow's tables, batches, arrays, scalars and schemas as an Arrow IPC file (Feather 2): exact, and widely read.

Not Parquet, which changes seconds to milliseconds, names inside maps and lists, and dictionaries. The spec holds the
schema as text: an extension type that is not registered where the file is loaded is refused, not read as its storage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.errors import MaterializationError
from ..core.forms import TEXTS, Form
from .base import Spec, check_columns
from .files import FileReader, FileWriter
from .limits import by_column, finite, limits

__all__ = ["ArrowMaterializer", "clean", "ipc_schema", "read_ipc", "read_ipc_columns", "write_ipc"]

_SHOWN_COLUMNS = 1000


class ArrowMaterializer:
    """One ``data.arrow``. How a table is cut into chunks, each with its dictionary, is not part of its value."""

    name: ClassVar[str] = "arrow"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """The kind of object and its schema. Raises MaterializationError for what IPC cannot hold."""
        kind = _kind(value)
        table = _as_table(value, kind)
        spec = {"kind": kind, "schema": str(table.schema.remove_metadata())}
        _check_schema(pa.ipc.read_schema(table.schema.serialize()), spec)
        form = files.form_of_table() if kind == "Table" else Form()
        if form.format in (None, "arrow"):
            write_ipc(files, table, compression=form.compressed("arrow"), level=form.level)
            return {**spec, **form.said("arrow")}
        from .table_file import write_table

        if form.format in TEXTS and (table.schema.metadata or any(map(_says_more, table.schema))):
            raise MaterializationError(f"{form.format} has no place for its schema's metadata. Choose format='parquet'")
        write_table(files, table, form)
        return {**spec, "format": form.format, **form.said(form.format)}

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The object, over the verified bytes, without a copy."""
        table = _read(files, spec)
        _check_schema(table.schema, spec)
        if spec["kind"] == "Table":
            return table
        if spec["kind"] == "Schema":
            return table.schema
        if spec["kind"] == "RecordBatch":
            return table.combine_chunks().to_batches()[0] if table.num_rows else _no_rows(table.schema)
        column = table.column(0)
        if spec["kind"] == "Scalar":
            return column[0]
        return column if spec["kind"] == "ChunkedArray" else column.combine_chunks()

    def load_columns(self, files: FileReader, spec: Mapping[str, Any], columns: Sequence[Any]) -> Any:
        """These columns of a Table or RecordBatch; of one name that several columns have, all."""
        if spec["kind"] not in ("Table", "RecordBatch"):
            raise MaterializationError(f"it is a {spec['kind']}, which has no columns to choose from")
        if "format" in spec:
            table = self.load(files, spec)
            check_columns(columns, table.column_names)
            return table.select(columns)
        path = files.path("data.arrow")
        schema = ipc_schema(path)
        _check_schema(schema, spec)
        check_columns(columns, schema.names)
        places = [place for name in columns for place in schema.get_all_field_indices(name)]
        table = read_ipc_columns(path, places)
        if spec["kind"] == "Table":
            return table
        return table.combine_chunks().to_batches()[0] if table.num_rows else _no_rows(table.schema)

    def describe(self, value: Any) -> dict[str, Any]:
        """Rows, types, nulls, bytes, and the limits of numbers; of a scalar its type, of a schema its fields."""
        if isinstance(value, pa.Schema):
            return {"schema": {field.name: str(field.type) for field in value}}
        if isinstance(value, pa.Scalar):
            return {"dtype": str(value.type)}
        about: dict[str, Any] = {"rows": len(value), "nbytes": value.nbytes}
        if not isinstance(value, (pa.Table, pa.RecordBatch)):
            return {**about, "dtype": str(value.type), "nulls": value.null_count, **_limits(value)}
        columns = list(zip(value.schema.names, value.columns, strict=True))
        about["schema"] = {name: str(column.type) for name, column in columns}
        found = {name: (column.null_count, _limits(column)) for name, column in columns[:_SHOWN_COLUMNS]}
        return about | by_column(found)


def write_ipc(
    files: FileWriter,
    table: pa.Table,
    *,
    streamed: bool = False,
    compression: str | None = None,
    level: int | None = None,
) -> None:
    """Write ``data.arrow``: the same bytes for equal tables, and nothing of the memory around a slice.

    It is in Arrow's file format, or in the other one, for streams, which Hugging Face reads.
    """
    table = clean(table)
    codec = pa.Codec(compression, compression_level=level) if compression not in (None, "none") else None
    options = pa.ipc.IpcWriteOptions(compression=codec)
    try:
        new = pa.ipc.new_stream if streamed else pa.ipc.new_file
        with files.open("data.arrow") as stream, new(stream, table.schema, options=options) as writer:
            writer.write_table(table)
    except pa.ArrowException as error:
        raise MaterializationError(f"Arrow's file format does not hold it: {error}") from error


def _read(files: FileReader, spec: Mapping[str, Any]) -> pa.Table:
    if "format" not in spec:
        return read_ipc(files)
    from .table_file import read_table

    return read_table(files, spec["format"])[0]


def _says_more(field: pa.Field) -> bool:
    """Whether a field has more than a name and a type that text can be read as."""
    return bool(field.metadata) or not field.nullable or pa.types.is_dictionary(field.type)


def clean(table: pa.Table) -> pa.Table:
    """The table in one piece, without what lies around slices and under nulls: of equal tables the same memory."""
    table = table.combine_chunks()
    columns = [column if _is_clean(column) else _copied(column) for column in table.columns]
    return pa.Table.from_arrays(columns, schema=table.schema) if columns else table


def read_ipc(files: FileReader) -> pa.Table:
    """The table of :func:`write_ipc`, over the verified bytes."""
    return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(files.read("data.arrow")))).read_all()


def ipc_schema(path: Path) -> pa.Schema:
    """The schema of a file of :func:`write_ipc`, without its data."""
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file).schema


def read_ipc_columns(path: Path, places: Sequence[int]) -> pa.Table:
    """The columns at these places of a verified file of :func:`write_ipc`, in this order; no others are read."""
    sink = pa.BufferOutputStream()
    with pa.memory_map(str(path)) as file:  # Arrow's own selection makes room for all of them
        table = pa.ipc.open_file(file).read_all().select(places)
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        del table
    return pa.ipc.open_file(sink.getvalue()).read_all()


def _limits(values: Any) -> dict[str, Any]:
    """Minimum and maximum of integers, and of floats without nulls, for which Arrow itself takes ten times as long."""
    kind = values.type
    if pa.types.is_integer(kind):
        ends = pc.min_max(values).as_py()
        return ends if ends["min"] is not None else {}
    if not pa.types.is_floating(kind) or values.null_count:
        return {}
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    found = [ends for chunk in chunks if (ends := limits(chunk.to_numpy())[1])]
    numbers = [[float(ends[end]) for ends in found] for end in ("min", "max")]
    return {"min": finite(min(numbers[0])), "max": finite(max(numbers[1]))} if found else {}


def _check_schema(schema: pa.Schema, spec: Mapping[str, Any]) -> None:
    found = str(schema.remove_metadata())
    if found != spec["schema"]:
        raise MaterializationError(
            "it comes back with another schema; register its extension types first, by "
            f"pyarrow.register_extension_type. It is:\n{spec['schema']}\nHere:\n{found}"
        )


def _is_clean(column: pa.ChunkedArray) -> bool:
    """Whether a column's memory holds its values and nothing else: no slice, nothing under nulls."""
    kind, types = column.type, pa.types
    if column.num_chunks != 1 or column.null_count or column.chunk(0).offset:
        return False
    if types.is_integer(kind) or types.is_floating(kind) or types.is_temporal(kind) or types.is_decimal(kind):
        last_offset = 0
    elif types.is_string(kind) or types.is_binary(kind):
        last_offset = 4
    elif types.is_large_string(kind) or types.is_large_binary(kind):
        last_offset = 8
    else:
        return False
    return bool(column.get_total_buffer_size() == column.nbytes + last_offset)


def _copied(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.take(pa.array(np.arange(len(column))))
    except pa.ArrowNotImplementedError:
        return column  # views and run-end encoding: exact, but equal ones may have different bytes


def _kind(value: Any) -> str:
    for cls in (pa.Table, pa.RecordBatch, pa.ChunkedArray, pa.Schema):
        if type(value) is cls:
            return str(cls.__name__)
    for cls in (pa.Array, pa.Scalar):
        if isinstance(value, cls):
            return str(cls.__name__)
    raise MaterializationError(f"it is a {type(value).__qualname__}, which is not one of Arrow's own")


def _as_table(value: Any, kind: str) -> pa.Table:
    if kind == "Table":
        return value
    if kind == "RecordBatch":
        return pa.Table.from_batches([value])
    if kind == "Schema":
        return value.empty_table()
    if kind == "Scalar":
        value = pa.repeat(value, 1)
    return pa.Table.from_arrays([value], names=["values"])


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=schema)
