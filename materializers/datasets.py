"""Hugging Face's datasets as the Arrow folder that ``datasets.load_from_disk`` opens: the same bytes for equal rows.

A fingerprint, by which the library finds what it has computed before, is made of how a dataset came about, and of
random numbers where it does not know. Here it is made of the content: what is loaded has that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import datasets
import pyarrow as pa
from datasets.features.features import require_storage_embed
from datasets.table import InMemoryTable, embed_table_storage, table_iter
from datasets.utils.py_utils import asdict

from ..core.errors import MaterializationError
from ..core.names import segment
from ..core.typenames import type_name
from .arrow import write_ipc
from .base import Spec, Unsavable
from .files import FileReader, FileWriter, digest_bytes
from .tagged import dumps, is_plain, loads

__all__ = ["DatasetsMaterializer"]

_STATE, _INFO, _SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"


class DatasetsMaterializer:
    """``Dataset`` and ``DatasetDict``, with features, split, format and what is known of where they are from."""

    name: ClassVar[str] = "datasets"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """Whether it has splits. Raises MaterializationError for an index, a transform, or a stream."""
        if type(value) is datasets.Column:
            raise Unsavable("it is a column of a dataset, which is read when it is used; return its [:], a list")
        if type(value) is datasets.Dataset:
            _save(value, files)
            return {"splits": False}
        if type(value) is not datasets.DatasetDict:
            raise Unsavable(
                f"it is a {type_name(type(value))}, whose rows exist only while they are read. Return "
                "datasets.Dataset.from_generator(...) of it, or a list of the rows"
            )
        for name, split in value.items():
            if segment(str(name)) != name or type(split) is not datasets.Dataset:
                raise MaterializationError(f"its split {name!r} has a name that no folder can have, or is no Dataset")
            _save(split, files.within(str(name)))
        files.write(_SPLITS, dumps({"splits": list(map(str, value))}))
        return {"splits": True, "named": [str(name) for name in value if isinstance(name, datasets.NamedSplit)]}

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The dataset, in memory, over the verified bytes."""
        if not spec["splits"]:
            return _load(files)
        names, named = loads(files.read(_SPLITS))["splits"], spec.get("named", ())
        return datasets.DatasetDict(
            {datasets.Split(name) if name in named else name: _load(files.within(segment(name))) for name in names}
        )

    def describe(self, value: Any) -> dict[str, Any]:
        """Rows, features and bytes; of splits the rows of each."""
        if isinstance(value, dict):
            return {"splits": {str(name): split.num_rows for name, split in value.items()}}
        features = {name: str(feature) for name, feature in value.features.items()}
        return {"rows": value.num_rows, "schema": features, "nbytes": value.data.nbytes}


def _save(dataset: Any, files: FileWriter) -> None:
    info = dumps(asdict(dataset.info))
    if datasets.DatasetInfo.from_dict(loads(info)) != dataset.info:
        raise MaterializationError("its info has parts that JSON does not hold")
    if dataset.list_indexes():
        raise MaterializationError(
            f"it has indexes ({', '.join(dataset.list_indexes())}); drop_index() them, or save them"
        )
    about = {
        "_format_columns": dataset._format_columns,
        "_format_kwargs": dataset._format_kwargs,
        "_format_type": dataset._format_type,
        "_output_all_columns": dataset._output_all_columns,
        "_split": str(dataset.split) if dataset.split is not None else None,
    }
    if not is_plain(about):
        raise MaterializationError(
            f"its format {dataset.format['type']!r} holds what JSON does not (a transform, a dtype); reset_format() it"
        )
    table = dataset.data.table
    if dataset._indices is not None:  # it is a selection of rows
        table = table.take(dataset._indices.column(0))
    table = _with_files(table, dataset.features)
    write_ipc(files, table, streamed=True)
    files.write(_INFO, info)
    identity = dumps([files.digest("data.arrow"), files.digest(_INFO), about])
    fingerprint = digest_bytes(identity).partition(":")[2][:16]
    files.write(_STATE, dumps({**about, "_data_files": [{"filename": "data.arrow"}], "_fingerprint": fingerprint}))


def _with_files(table: Any, features: Any) -> Any:
    """The table with the bytes of pictures and sounds of which it has only paths, as ``save_to_disk`` keeps them."""
    if not any(require_storage_embed(feature) for feature in features.values()):
        return table
    try:
        return pa.concat_tables(embed_table_storage(part) for part in table_iter(table, 1000))
    except OSError as error:
        raise MaterializationError(f"it names files that cannot be read: {error}") from error


def _load(files: FileReader) -> Any:
    state = loads(files.read(_STATE))
    table = pa.ipc.open_stream(pa.BufferReader(pa.py_buffer(files.read("data.arrow")))).read_all()
    dataset = datasets.Dataset(
        InMemoryTable(table),
        info=datasets.DatasetInfo.from_dict(loads(files.read(_INFO))),
        split=datasets.Split(state["_split"]) if state["_split"] is not None else None,
        fingerprint=state["_fingerprint"],
    )
    for name in ("_format_columns", "_format_kwargs", "_format_type", "_output_all_columns"):
        setattr(dataset, name, state[name])
    return dataset
