"""Data to learn from: frames, arrays, records and files, with what is known of their columns."""

from __future__ import annotations

import importlib
import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from operator import not_
from pathlib import Path
from typing import Any, ClassVar, Self

from .asset import Asset
from .detect import column_statistics, dataset_columns, dataset_format, dataset_rows, dataset_schema
from .errors import AssetError, MissingExtra
from .forms import FORMATS, Form

__all__ = ["Dataset", "FeatureSet"]


class Dataset(Asset):
    """Data of any library, or the path of a file or folder (which is then what is stored).

    ``format="parquet"``, ``"arrow"``, ``"csv"`` or ``"jsonl"`` (also for a list of dicts) says in which file format a
    frame or table is stored, and ``compression`` (``zstd``, or with a level ``zstd:9``; ``snappy``, ``lz4``, ``none``)
    how; one that would change a value is refused when it is stored. Otherwise ``format`` (see
    :func:`~tailrace.core.detect.dataset_format`), ``schema`` (columns and their types) and ``statistics`` (``rows``,
    ``columns``) are detected when they are not given, without reading the data.
    ``statistics=True`` reads all data and adds per column missing values, minimum, maximum, mean, deviation, distinct.
    """

    fields: ClassVar[tuple[str, ...]] = ("format", "schema", "statistics", "compression")

    def __init__(
        self,
        data: Any = None,
        name: str | None = None,
        format: str | None = None,
        schema: Mapping[str, Any] | None = None,
        statistics: Mapping[str, Any] | bool | None = None,
        *,
        compression: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(data, name, **common)
        self.compression = compression
        self.format = format or dataset_format(self.data)
        problem = self.form.problem()
        if problem:
            raise AssetError(f"{self!r}: {problem}")
        self.schema = dataset_schema(self.data) if schema is None else dict(schema)
        if isinstance(statistics, Mapping):
            self.statistics = dict(statistics)
        else:
            self.statistics = self._count()
            if statistics and (details := column_statistics(self.data)):
                self.statistics["by_column"] = details

    @property
    def form(self) -> Form:
        """The file format and compression that were chosen for the data, not those that were detected."""
        chosen = self.format in FORMATS and not isinstance(self.data, Path) and self.format != dataset_format(self.data)
        return Form(self.format if chosen else None, self.compression)

    def _accept(self, data: Any) -> Any:
        if data is None or isinstance(data, bool | int | float | complex | bytes):
            raise self._refuse(data, "a frame, an array, records or the path of a file")
        if isinstance(data, os.PathLike) or (isinstance(data, str) and "://" not in data):
            return Path(data)
        return data

    def _count(self) -> dict[str, Any]:
        found = {"rows": dataset_rows(self.data), "columns": dataset_columns(self.data)}
        return {key: value for key, value in found.items() if value is not None}

    def describe(self) -> dict[str, Any]:
        """Format, schema and statistics, as far as they are known."""
        return {name: value for name in Dataset.fields if (value := getattr(self, name))}

    def __len__(self) -> int:
        rows = dataset_rows(self.data)
        if rows is None:
            raise AssetError(f"The number of rows of {self!r} is not known without reading it.")
        return rows

    def __bool__(self) -> bool:
        return True  # also when it is empty, or its length unknown

    @classmethod
    def narrowed(cls, header: Mapping[str, Any], columns: Sequence[Any]) -> dict[str, Any]:
        """The header with the schema and the statistics of these columns."""
        found = super().narrowed(header, columns)
        names = list(map(str, columns))
        if found.get("schema"):
            found["schema"] = {name: found["schema"][name] for name in names if name in found["schema"]}
        if found.get("statistics"):
            known = found["statistics"] = dict(found["statistics"])
            known |= {"columns": len(names)} if "columns" in known else {}
            if "by_column" in known:
                known["by_column"] = {name: known["by_column"][name] for name in names if name in known["by_column"]}
        return found

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str], *, name: str | None = None, **options: Any) -> Self:
        """The frame that ``pandas.read_csv(path, **options)`` reads, named for the file unless a name is given."""
        return cls._read("read_csv", path, name, options)

    @classmethod
    def from_parquet(cls, path: str | os.PathLike[str], *, name: str | None = None, **options: Any) -> Self:
        """The frame that ``pandas.read_parquet(path, **options)`` reads, named for the file unless a name is given."""
        return cls._read("read_parquet", path, name, options)

    @classmethod
    def _read(cls, reader: str, path: str | os.PathLike[str], name: str | None, options: Mapping[str, Any]) -> Self:
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise MissingExtra(f"Reading {os.fspath(path)!r} as a Dataset", "pandas", "pandas") from error
        data = getattr(pandas, reader)(path, **options)
        return cls(data, name or Path(path).stem, metadata={"source": os.fspath(path)})

    def split(self, train: float = 0.8, *, seed: int = 0) -> tuple[Self, Self]:
        """Two datasets: a random share ``train`` of the rows, and the rest; in each the rows keep their order.

        The same seed and number of rows choose the same rows, on every machine. Named ``<name>-train`` and
        ``<name>-test``, with everything else as it is here. Frames, arrays, lists and mappings of columns can be split,
        and xarray's along the dimension that comes first in each variable. Anything else, and a share outside 0 to 1,
        is an :class:`AssetError`.
        """
        if not 0 < train < 1:
            raise AssetError(f"The share train={train!r} of {self!r} must lie between 0 and 1.")
        import random  # with its OpenSSL as long to import as all of this package

        rows = len(self)
        chosen = bytearray(rows)
        for row in random.Random(seed).sample(range(rows), round(rows * train)):  # noqa: S311  # no secret
            chosen[row] = 1
        first = array("q", compress(range(rows), chosen))
        rest = array("q", compress(range(rows), map(not_, chosen)))
        return self._part("train", first), self._part("test", rest)

    def _part(self, suffix: str, rows: array[int]) -> Self:
        data = _take(self.data, rows)
        if data is None:
            raise AssetError(f"{self!r} cannot be split by rows; load it as a frame, an array or a list first.")
        part = self._copy(data=data, name=f"{self.name or 'data'}-{suffix}")
        part.schema = dataset_schema(data)
        part.statistics = part._count()
        return part


def _take(data: Any, rows: array[int]) -> Any:
    """The chosen rows of the data, of the same type; None where that cannot be done."""
    if hasattr(data, "isel"):  # xarray, whose datasets are mappings
        first = {part.dims[0] for part in (data.values() if isinstance(data, Mapping) else [data]) if part.dims}
        return data.isel({first.pop(): slice(0) if not rows else rows.tolist()}) if len(first) == 1 else None
    if isinstance(data, Mapping):
        return {key: _take(column, rows) for key, column in data.items()}
    if isinstance(data, list | tuple):
        return type(data)(data[row] for row in rows)
    if hasattr(data, "iloc"):  # pandas
        return data.iloc[rows]
    if hasattr(data, "ndim") and hasattr(data, "take"):  # numpy
        return data.take(rows, axis=0)
    if hasattr(data, "take"):  # Arrow
        return data.take(rows.tolist()) if rows else data[:0]  # an empty list has no type to take by
    if hasattr(data, "gather_every") and not hasattr(data, "collect"):  # polars, but its lazy frames
        return data[rows.tolist()]
    return None


class FeatureSet(Dataset):
    """A dataset of features: ``entities`` are the columns that say what a row is about, ``timestamp`` says when."""

    fields = (*Dataset.fields, "entities", "timestamp")

    def __init__(
        self,
        data: Any = None,
        name: str | None = None,
        *,
        entities: Iterable[str] | str = (),
        timestamp: str | None = None,
        **known: Any,
    ) -> None:
        super().__init__(data, name, **known)
        self.entities = [entities] if isinstance(entities, str) else list(entities)
        self.timestamp = timestamp
        missing = [
            column for column in (*self.entities, timestamp) if column and column not in (self.schema or {column})
        ]
        if missing:
            raise AssetError(f"{self!r} has no column {missing[0]!r}. It has: {', '.join(self.schema or ())}.")

    @classmethod
    def narrowed(cls, header: Mapping[str, Any], columns: Sequence[Any]) -> dict[str, Any]:
        """The header without the entities and the timestamp that are not among these columns."""
        found = super().narrowed(header, columns)
        found["entities"] = [name for name in found.get("entities", ()) if name in columns]
        return found if found.get("timestamp") in columns else {**found, "timestamp": None}

    @property
    def features(self) -> list[str]:
        """The names of the columns that are neither entity nor timestamp."""
        return [name for name in self.schema or () if name not in {*self.entities, self.timestamp}]
