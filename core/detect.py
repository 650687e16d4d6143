"""What a value says about itself, read off its type's name and attributes: no library is imported for it.

Everything here is cheap (no pass over the data) but for :func:`column_statistics`, which reads all of them.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .asset import kind_of, scalar

__all__ = [
    "column_statistics",
    "dataset_columns",
    "dataset_format",
    "dataset_rows",
    "dataset_schema",
    "model_framework",
]

_FRAMEWORKS = {
    "sklearn": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
    "transformers": "transformers",
    "torch": "torch",
    "keras": "keras",
    "tf_keras": "keras",
    "tensorflow": "tensorflow",
    "onnx": "onnx",
    "onnxruntime": "onnx",
}
_TABLES = {
    "pandas": "pandas",
    "polars": "polars",
    "pyarrow": "arrow",
    "numpy": "numpy",
    "scipy": "scipy",
    "xarray": "xarray",
    "torch": "torch",
    "tensorflow": "tf.data",
    "datasets": "datasets",
}
_FILES = {
    ".parquet",
    ".csv",
    ".tsv",
    ".json",
    ".jsonl",
    ".feather",
    ".arrow",
    ".npy",
    ".npz",
    ".xlsx",
    ".txt",
    ".h5",
    ".zarr",
}
_NUMERIC = re.compile(r"(u?int|float)\d+(\[pyarrow\])?|double\[pyarrow\]", re.IGNORECASE)
_SAMPLE = 100  # records whose keys make the schema of a list of mappings


def _libraries(value: Any) -> Iterator[str]:
    """The top-level packages that the value's classes come from, nearest first."""
    for cls in type(value).__mro__:
        yield cls.__module__.partition(".")[0]


def model_framework(model: Any) -> str:
    """The library that a model is of (``"sklearn"``, ``"torch"``, ...), from its class's bases; else ``"python"``."""
    return next((_FRAMEWORKS[name] for name in _libraries(model) if name in _FRAMEWORKS), "python")


def dataset_format(data: Any) -> str:
    """How data are held, in a word.

    A library (``pandas``, ``polars``, ``arrow``, ``numpy``, ``scipy``, ``xarray``, ``torch``, ``tf.data``, and
    ``datasets`` of Hugging Face), a Python container (``dict``, ``list``, ``records`` for a list of mappings), a file's
    kind (``csv``, ``parquet``, ..., ``directory``, ``file``), or the name of the type.
    """
    if isinstance(data, Path | str):
        suffix = os.path.splitext(data)[1].lower()
        if suffix in _FILES:
            return suffix[1:]
        return "directory" if os.path.isdir(data) else "file"
    table = next((_TABLES[name] for name in _libraries(data) if name in _TABLES), None)
    if table:
        return table
    if isinstance(data, Mapping):
        return "dict"
    if isinstance(data, list | tuple):
        return "records" if data and all(isinstance(item, Mapping) for item in data[:_SAMPLE]) else "list"
    return kind_of(data)


def dataset_rows(data: Any) -> int | None:
    """The number of rows, where it is known without reading: ``None`` for files, streams and lazy frames."""
    if isinstance(data, Path | str) or hasattr(data, "collect_schema"):
        # polars frames of both kinds have `collect_schema`; only the eager ones a height
        return getattr(data, "height", None)
    if isinstance(data, Mapping):
        lengths = {_length(column) for column in data.values() if not isinstance(column, str)} - {None}
        return lengths.pop() if len(lengths) == 1 else None
    return _length(data)


def _length(value: Any) -> int | None:
    try:
        return len(value)
    except TypeError:  # also of arrays without dimensions, and of sparse matrices
        return None


def dataset_columns(data: Any) -> int | None:
    """The number of columns of a table, a matrix, a mapping or records; ``None`` of anything else."""
    shape = getattr(data, "shape", None)
    if isinstance(shape, tuple):
        return shape[1] if len(shape) == 2 else None
    schema = dataset_schema(data)
    return len(schema) if schema and not hasattr(data, "element_spec") else None


def dataset_schema(data: Any) -> dict[str, Any] | None:
    """Column names with their types; of an array its shape and dtype; ``None`` where nothing is known."""
    if isinstance(data, Path | str):
        return None
    if hasattr(data, "element_spec"):  # tf.data
        return {"element_spec": str(data.element_spec)}
    if isinstance(data, Mapping):
        return {str(key): _type(column) for key, column in data.items()}
    if isinstance(data, list | tuple):
        keys = [item.items() for item in data[:_SAMPLE] if isinstance(item, Mapping)]
        return {str(key): _type(value) for items in keys for key, value in items} or None
    if hasattr(data, "collect_schema"):  # polars
        return {name: str(dtype) for name, dtype in data.collect_schema().items()}
    if hasattr(data, "features") and hasattr(data, "column_names"):  # datasets of Hugging Face
        return {name: str(feature) for name, feature in data.features.items()} if data.features else None
    if hasattr(data, "dtypes") and hasattr(data, "columns"):  # pandas
        return {str(name): str(dtype) for name, dtype in zip(data.columns, data.dtypes, strict=True)}
    if hasattr(data, "schema"):  # Arrow
        return {field.name: str(field.type) for field in data.schema}
    if hasattr(data, "dtype"):
        return {"shape": [int(size) for size in getattr(data, "shape", ())], "dtype": str(data.dtype)}
    return None


def _type(value: Any) -> str:
    return str(value.dtype) if hasattr(value, "dtype") else type(value).__name__


def column_statistics(data: Any) -> dict[str, dict[str, Any]]:
    """Per column the missing values; of numbers minimum, maximum, mean and standard deviation, else how many differ.

    Reads all the data. An array is one column named ``values``. Empty for what has no columns in memory.
    """
    return {name: _summary(column) for name, column in _columns(data)}


def _columns(data: Any) -> Iterator[tuple[str, Any]]:
    kind = dataset_format(data)
    if kind == "records":
        names = dict.fromkeys(key for item in data for key in item)
        yield from ((str(name), [item.get(name) for item in data]) for name in names)
    elif kind == "dict":
        columns = ((str(name), column) for name, column in data.items())
        yield from ((name, column) for name, column in columns if isinstance(column, list) or hasattr(column, "dtype"))
    elif kind == "list" or (kind == "numpy" and data.dtype.names is None):
        yield "values", data
    elif kind == "numpy":
        yield from ((name, data[name]) for name in data.dtype.names)
    elif kind == "arrow" and hasattr(data, "column_names"):
        yield from ((name, data.column(name).to_numpy()) for name in data.column_names)
    elif kind == "pandas" and hasattr(data, "columns"):
        yield from ((str(name), column) for name, column in data.items())
    elif kind == "polars" and hasattr(data, "get_columns"):
        yield from ((column.name, column) for column in data.get_columns())


def _summary(column: Any) -> dict[str, Any]:
    dtype = str(getattr(column, "dtype", "object"))
    if dtype == "object":
        column = list(column)
    size = math.prod(getattr(column, "shape", None) or (len(column),))
    values = _present(column)
    found: dict[str, Any] = {"missing": size - len(values)}
    if len(values) and (
        all(type(v) in (int, float) for v in values) if dtype == "object" else _NUMERIC.fullmatch(dtype)
    ):
        numbers = (_of_list if isinstance(values, list) else _of_array)(values)
        found |= zip(("min", "max", "mean", "std"), map(_finite, numbers), strict=True)
    elif len(values):
        found["distinct"] = _distinct(values)
    return found


def _present(column: Any) -> Any:
    """The values that are not missing: neither None, NaN nor NaT."""
    if hasattr(column, "dropna"):  # pandas
        return column.dropna()
    if hasattr(column, "drop_nulls"):  # polars
        return column.drop_nulls().drop_nans() if str(column.dtype).startswith("Float") else column.drop_nulls()
    if hasattr(column, "dtype"):  # numpy: NaN and NaT differ from themselves
        return column[column == column]
    return [value for value in column if value is not None and value == value]


def _of_list(values: list[Any]) -> tuple[Any, ...]:
    import statistics  # slow to import, and for lists only

    low, high = min(values), max(values)
    try:
        return low, high, statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
    except (ArithmeticError, AttributeError, ValueError):  # of infinities, and of integers beyond a float
        return low, high, None, None


def _of_array(values: Any) -> tuple[Any, ...]:
    return values.min(), values.max(), values.mean(), values.std(ddof=1) if len(values) > 1 else None


def _distinct(values: Any) -> int | None:
    try:
        return len(set(values))
    except TypeError:  # lists and the like in cells
        return None


def _finite(value: Any) -> Any:
    plain = scalar(value)
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
