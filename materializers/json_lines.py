"""Tables and lists of records as JSON lines: an object in each line.

JSON has no NaN. Where a column has NaN and no nulls, its nulls in the file are NaN, as other tools read them, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from ..core.errors import MaterializationError

__all__ = ["lines_of", "table_of_lines"]


def lines_of(table: pa.Table) -> tuple[bytes, list[str]]:
    """A table of numbers, truths, text and moments as lines, and the columns in which a null is NaN.

    Raises MaterializationError, naming the column, for infinite numbers, and for NaN beside nulls.
    """
    import orjson

    columns, nan = [], []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_floating(column.type) and _has_nan(name, column):
            nan.append(name)
        values = column.cast(pa.large_string()) if pa.types.is_temporal(column.type) else column
        columns.append(values.to_pylist())
    rows = (dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True))
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows), nan


def _has_nan(name: str, column: pa.ChunkedArray) -> bool:
    if pc.any(pc.is_inf(column)).as_py():
        raise MaterializationError(f"column {name!r}: JSON has no infinite numbers. Choose format='parquet'")
    found = bool(pc.any(pc.is_nan(column)).as_py())
    if found and column.null_count:
        raise MaterializationError(f"column {name!r}: JSON has null for NaN and for null. Choose format='parquet'")
    return found


def table_of_lines(data: pa.Buffer, types: Mapping[str, pa.DataType], nan: Collection[str]) -> pa.Table:
    """The table of :func:`lines_of`, with columns of these types."""
    schema = pa.schema(
        {name: pa.large_string() if pa.types.is_temporal(kind) else kind for name, kind in types.items()}
    )
    if not data.size:
        return pa.schema(types).empty_table()
    parse = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    whole = pj.ReadOptions(block_size=min(data.size, (1 << 31) - 1))  # a line may not be longer than a block
    table = pj.read_json(pa.BufferReader(data), read_options=whole, parse_options=parse)
    return pa.table({name: _column(table[name], kind, name in nan) for name, kind in types.items()})


def _column(column: pa.ChunkedArray, kind: pa.DataType, nan: bool) -> Any:
    return pc.fill_null(column, pa.scalar(float("nan"), kind)) if nan else column.cast(kind)
