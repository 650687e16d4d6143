"""Artifacts that were made to harm, with a manifest in order, loaded from a store: nothing runs, nothing escapes.

What each format can hide in its own files is tested with that format; here it is the way through the whole store.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tailrace import LocalArtifactStore, PickleNotAllowed, TailraceError
from tailrace.cli.preview import preview
from tailrace.materializers.files import FileWriter
from tailrace.materializers.registry import Saved
from tailrace.stores.base import Labels, Staged
from tailrace.stores.manifests import content_digest


class Payload:
    """Makes the folder ``ran`` in the working directory when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


PICKLE = pickle.dumps(Payload(), protocol=0)  # as text, since Parquet wants text where it stands in its metadata


def written(write: Callable[[Any], object]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def table(metadata: bytes = b"{}") -> pa.Table:
    """A column that says of itself that it is of a type, which is a pickle."""
    said = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": PICKLE}
    return pa.table(
        [pa.array([1])], schema=pa.schema([pa.field("a", pa.int64(), metadata=said)], {"tailrace": metadata})
    )


def feather(made: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, made.schema) as writer:
        writer.write_table(made)
    return bytes(sink.getvalue())


def parquet(made: pa.Table) -> bytes:
    return written(lambda stream: pq.write_table(made, stream))


def archive(members: dict[str, bytes]) -> bytes:
    def write(stream: Any) -> None:
        with zipfile.ZipFile(stream, "w") as file:
            for name, data in members.items():
                file.writestr(name, data)

    return written(write)


def npy(shape: tuple[int, ...], kind: str = "<f8") -> bytes:
    about = {"descr": kind, "fortran_order": False, "shape": shape}
    return written(lambda stream: np.lib.format.write_array_header_1_0(stream, about)) + b"\0" * 8


SYSTEM = {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode", "content": "x", "protocol": 2}
SHEET = {"kind": "frame", "columns": [{"numpy": "<i8"}], "labels": {"class": "Index", "name": None}}
ROWS = {"class": "RangeIndex", "name": None, "range": [0, 1, 1]}
LABELS = {"class": "Index", "name": None, "values": {"object": "str", "missing": None}, "labels": ["a"]}
CODE = {"$t": "class", "kind": "enum", "class": "os:mkdir", "v": "ran"}
ABOUT = json.dumps({**SHEET, "labels": LABELS, "index": ROWS, "attrs": {"k": CODE}}).encode()
DEEP = b"[" * 100_000
XGBOOST = {"class": "Booster"}
LARGE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (2**31 - 1).to_bytes(4) * 2 + b"\x08\x02\0\0\0"

Case = tuple[str, dict[str, Any], dict[str, bytes]]
CASES: dict[str, Case] = {
    "a pickle": ("pickle", {}, {"value.pkl": PICKLE}),
    "a pickle as an array": ("numpy", {}, {"data.npy": PICKLE}),
    "objects in an array": (
        "numpy",
        {},
        {"data.npy": written(lambda stream: np.save(stream, np.array([Payload()]), allow_pickle=True))},
    ),
    "an array of petabytes": ("numpy", {}, {"data.npy": npy((1 << 48,))}),
    "an array whose size overflows": ("numpy", {}, {"data.npy": npy((1 << 62, 1 << 62))}),
    "a joblib file as a model": ("sklearn", {}, {"model.skops": written(lambda s: joblib.dump(Payload(), s))}),
    "a function as a model": ("sklearn", {}, {"model.skops": archive({"schema.json": json.dumps(SYSTEM).encode()})}),
    "members outside": ("sklearn", {}, {"model.skops": archive({"schema.json": b"{}", "../../escaped": b"x"})}),
    "a type that is a pickle, in Arrow": (
        "arrow",
        {"kind": "Table", "schema": "a: int8"},
        {"data.arrow": feather(table())},
    ),
    "a type that is a pickle, in pandas' file": (
        "pandas",
        {"format": "parquet"},
        {"data.parquet": parquet(table(b"{"))},
    ),
    "code in a frame's attributes": ("pandas", {"format": "parquet"}, {"data.parquet": parquet(table(ABOUT))}),
    "a format that there is not": ("pandas", {"format": "../../x"}, {"data.parquet": parquet(table(ABOUT))}),
    "types that there are not": (
        "pandas",
        {"format": "csv"},
        {"data.csv": b"a\n1\n", "schema.json": b'{"columns": {"a": "os.system"}, "about": {}}'},
    ),
    "a pickle as polars' frame": ("polars", {"kind": "DataFrame"}, {"data.parquet": PICKLE}),
    "a pickle as polars' other file": ("polars", {"kind": "DataFrame", "format": "arrow"}, {"data.arrow": PICKLE}),
    "deep JSON": ("plain", {}, {"value.json": DEEP}),
    "deep JSON with tags": (
        "plain",
        {"tagged": True},
        {"value.json": b'{"$t":"tuple","v":[' * 1500 + b"1" + b"]}" * 1500},
    ),
    "a function as an enum": ("plain", {"tagged": True}, {"value.json": json.dumps(CODE).encode()}),
    "a document outside": ("document", {"suffix": "/../../../../x", "text": True}, {"document.md": b"x"}),
    "folders outside": (
        "path",
        {"kind": "directory", "name": "d", "files": ["a"], "folders": ["../../../../escaped"]},
        {"d/a": b"x"},
    ),
    "links outside": (
        "path",
        {"kind": "directory", "name": "d", "files": ["a"], "links": {"b": "../../../../.."}},
        {"d/a": b"x"},
    ),
    "a pickle as a picture": ("pillow", {"mode": "RGB", "size": [1, 1], "info": {}}, {"image.png": PICKLE}),
    "a picture of exabytes": ("pillow", {"mode": "RGB", "size": [2**31, 2**31], "info": {}}, {"image.png": LARGE}),
    "a pickle as XGBoost's": ("xgboost", XGBOOST, {"model.ubj": PICKLE, "config.json": b"{}", "state.json": b"{}"}),
    "a pickle as LightGBM's": ("lightgbm", {"class": "Booster"}, {"model.txt": PICKLE, "state.json": b"{}"}),
    "a function as LightGBM's": (
        "lightgbm",
        {"class": "LGBMClassifier"},
        {"model.skops": archive({"schema.json": json.dumps(SYSTEM).encode()})},
    ),
    "a pickle as CatBoost's": (
        "catboost",
        {"class": "CatBoostClassifier", "fitted": True},
        {"model.cbm": PICKLE, "state.json": b"{}"},
    ),
    "a pickle as ONNX": ("onnx", {}, {"model.onnx": PICKLE}),
    "a member that is a pickle": (
        "asset",
        {"asset": "Dataset", "header": {}, "data": {"materializer": "pickle", "version": 1, "spec": {}}},
        {"data/value.pkl": PICKLE},
    ),
    "an artifact type that there is not": (
        "asset",
        {"asset": "os.system", "header": {}, "data": {"materializer": "plain", "version": 1, "spec": {}}},
        {"data/value.json": b'"touch ran"'},
    ),
    "a materializer that is a function": ("os:system", {}, {"value.json": b'"touch ran"'}),
    "a materializer of another format": ("numpy", {}, {"data.npy": parquet(pa.table({"a": [1]}))}),
}


def plant(store: LocalArtifactStore, case: Case) -> str:
    """Commit files as what they are not, and return the URI."""
    materializer, spec, contents = case
    folder = store.new_staging()
    writer = FileWriter(folder)
    for name, data in contents.items():
        writer.write(name, data)
    files = writer.finish()
    digest = content_digest(materializer, 1, spec, files)
    staged = Staged(folder, "list", digest, files, Saved(materializer, 1, spec), "", {}, {}, 0.0, 0.0)
    return store.publish(staged, "deep/in/the/store", Labels("0" * 16, "it")).uri


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_and_named_and_neither_runs_nor_escapes(case: str, project: Path) -> None:
    outside = project.parent
    store = LocalArtifactStore(project / "store", durable=False)
    uri = plant(store, CASES[case])
    before = sorted(outside.rglob("*"))
    with pytest.raises(TailraceError) as refusal:
        store.load(uri)
    assert len(str(refusal.value)) > 20, "it says what is wrong"
    preview(store, store.manifest(uri), uri)
    left = [path for path in outside.rglob("*") if path not in before and ".tmp-" not in str(path)]
    assert left == []


def test_the_payload_would_run_if_it_were_unpickled(project: Path) -> None:
    store = LocalArtifactStore(project / "store", allow_pickle="always", durable=False)
    store.load(plant(store, CASES["a pickle"]))
    assert (project / "ran").is_dir()


def test_a_pickle_is_refused_as_one(project: Path) -> None:
    store = LocalArtifactStore(project / "store", durable=False)
    for case in ("a pickle", "a member that is a pickle"):
        with pytest.raises(PickleNotAllowed):
            store.load(plant(store, CASES[case]))


def test_a_type_that_is_a_pickle_comes_back_as_what_it_stands_on(project: Path) -> None:
    store = LocalArtifactStore(project / "store", durable=False)
    kind = {"kind": "Table", "schema": str(table().schema.remove_metadata())}
    contents = {"data.arrow": feather(table())}
    with_it = store.load(plant(store, ("arrow", kind, contents)))
    assert with_it.column("a").to_pylist() == [1]
    loaded = store.load(plant(store, ("polars", {"kind": "DataFrame"}, {"data.parquet": parquet(table())})))
    assert loaded.equals(pl.DataFrame({"a": [1]}))
    assert not (project / "ran").exists()
