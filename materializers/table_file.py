"""A table in the file format that somebody chose: Parquet, Arrow, CSV or JSON lines. Read again before it is written.

Beside the last two stands ``schema.json``, without which text would have no types. In CSV text is quoted, and a null is
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from ..core.errors import MaterializationError
from ..core.forms import TEXTS, Form
from .arrow import clean, read_ipc, write_ipc
from .files import FileReader, FileWriter
from .json_lines import lines_of, table_of_lines
from .tagged import dumps, loads

__all__ = ["read_table", "without_dictionaries", "write_exact", "write_table"]

_TYPES = {
    str(kind): kind
    for kind in (
        *(pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.float32(), pa.float64(), pa.string(), pa.large_string(), pa.date32()),
        *(pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC")),
    )
}


def write_table(files: FileWriter, table: pa.Table, form: Form, *, about: Any = None) -> None:
    """``data.parquet``, ``data.arrow``, or text with ``schema.json``, which has ``about`` too.

    Raises MaterializationError, naming the column, for what the format would change; nothing has been written then.
    """
    if form.format == "arrow":
        write_ipc(files, table, compression=form.compressed("arrow"), level=form.level)
    elif form.format in TEXTS:
        _write_text(files, table, form.format, about)
    else:
        files.write("data.parquet", write_exact(table, form))


def write_exact(table: pa.Table, form: Form) -> Any:
    """The table as Parquet that gives it back."""
    sink = pa.BufferOutputStream()
    try:
        compression = form.compressed("parquet") or "zstd"
        pq.write_table(table, sink, compression=compression, compression_level=form.level)
    except pa.ArrowException as error:
        raise MaterializationError(f"Parquet does not hold it: {error}. Choose format='arrow'") from error
    data = sink.getvalue()
    _check(table, pq.ParquetFile(pa.BufferReader(data)).read(), "parquet")
    return data


def read_table(files: FileReader, format: str) -> tuple[pa.Table, Any]:
    """What :func:`write_table` wrote: the table, of text with what was said about it."""
    if format == "arrow":
        return read_ipc(files), None
    if format == "parquet":
        return pq.ParquetFile(pa.BufferReader(pa.py_buffer(files.read("data.parquet")))).read(), None
    said = loads(files.read("schema.json"))
    return _of_text(pa.py_buffer(files.read(f"data.{format}")), format, said), said.get("about")


def _write_text(files: FileWriter, table: pa.Table, format: str, about: Any) -> None:
    plain = without_dictionaries(table)
    columns = {name: str(kind) for name, kind in zip(plain.column_names, plain.schema.types, strict=True)}
    for name, kind in columns.items():
        if kind not in _TYPES:
            raise MaterializationError(f"column {name!r}: {format} has no text for {kind}. Choose format='parquet'")
    if len(columns) < len(plain.column_names):
        raise MaterializationError(f"{format} needs columns with different names. Choose format='parquet'")
    said: dict[str, Any] = {"columns": columns}
    if format == "csv":
        sink = pa.BufferOutputStream()
        pc.write_csv(plain, sink)
        data = sink.getvalue()
    else:
        lines, nan = lines_of(plain)
        data, said = pa.py_buffer(lines), said | ({"nan": nan} if nan else {})
    _check(plain, _of_text(data, format, said), format)
    files.write(f"data.{format}", data)
    files.write("schema.json", dumps({**said, **({} if about is None else {"about": about})}))


def without_dictionaries(table: pa.Table) -> pa.Table:
    """The table as text has it: values in place of codes."""
    columns = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column for column in table
    ]
    return pa.table(columns, names=table.column_names)


def _of_text(data: pa.Buffer, format: str, said: Mapping[str, Any]) -> pa.Table:
    types = {name: _TYPES[kind] for name, kind in said["columns"].items()}
    return _of_csv(data, types) if format == "csv" else table_of_lines(data, types, said.get("nan", ()))


def _of_csv(data: pa.Buffer, types: Mapping[str, pa.DataType]) -> pa.Table:
    whole = pc.ReadOptions(block_size=max(1, min(data.size, (1 << 31) - 1)))  # a line may not be longer than a block
    parse = pc.ParseOptions(newlines_in_values=True, ignore_empty_lines=False)
    convert = pc.ConvertOptions(
        column_types=types,
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        true_values=["true"],
        false_values=["false"],
    )
    return pc.read_csv(pa.BufferReader(data), read_options=whole, parse_options=parse, convert_options=convert)


def _check(table: pa.Table, back: pa.Table, format: str) -> None:
    """That what is read is what there was, by the bits of every value."""
    if back.column_names != table.column_names or back.num_rows != table.num_rows:
        raise MaterializationError(f"{format} would change its rows or the names of its columns. Choose format='arrow'")
    if format == "parquet" and not back.schema.equals(table.schema, check_metadata=True):
        old = next(
            (a for a, b in zip(table.schema, back.schema, strict=True) if not a.equals(b, check_metadata=True)), ""
        )
        raise MaterializationError(f"column {old}: parquet would change its type. Choose format='arrow'")
    for place, name in enumerate(table.column_names):
        if _bytes(table.select([place])) != _bytes(back.select([place])):
            raise MaterializationError(f"column {name!r}: {format} would change its values. Choose format='arrow'")


def _bytes(table: pa.Table) -> pa.Buffer:
    sink, made = pa.BufferOutputStream(), clean(table)
    with pa.ipc.new_stream(sink, made.schema) as writer:
        writer.write_table(made)
    return sink.getvalue()
