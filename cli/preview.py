"""A look at what an artifact holds, for ``tailrace artifacts show``: the first rows, the beginning of a text, a card.

Read from the stored files, verified first, and from the manifest. No value is made of them and no class is imported, so
that nothing of the artifact is executed, whatever its materializer and the stack's policy on pickle.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.documents import Prompt
from ..core.errors import IntegrityError
from ..materializers.files import FileReader
from ..materializers.tagged import loads
from ..stores.manifests import content_digest

if TYPE_CHECKING:
    from ..core.refs import Manifest
    from ..stores.base import ArtifactStore

__all__ = ["preview", "show"]

Preview = dict[str, Any]

_ROWS, _COLUMNS, _TEXT = 10, 50, 200
_SHOWN_COLUMNS, _SHOWN_TEXT = 12, 40  # of tables for people
_IMPORTANCES = 10
_HEAD = 1 << 16  # bytes of a text that are looked at
_PARSED = 16 << 20  # bytes of JSON that are parsed
_FETCHED = 100 << 20  # bytes that are fetched from a store that is not local
_CARD = (
    *("framework", "class", "model_type", "fitted", "objective", "rounds", "trees", "n_features", "classes"),
    *("parameters", "trainable_parameters", "layers", "device", "devices", "dtype", "dtypes", "optimizer", "loss"),
    "metrics",
)


def preview(store: ArtifactStore, manifest: Manifest, uri: str) -> Preview:
    """What there is to see: ``columns`` and ``rows``, ``lines``, ``facts``, or a model's card; ``{}`` if nothing.

    ``note`` says why there is less than there could be. Raises :class:`~tailrace.IntegrityError` when the file that is
    looked at is not what was committed.
    """
    known = _picture_of(manifest) or _card(manifest)
    if known:
        return known
    found = _LOOKS.get(manifest.materializer)
    name = _file(manifest)
    if found is None or name is None:
        return {}
    size = next(entry.size for entry in manifest.files if entry.path == name)
    if store.scheme not in ("file", "memory") and size > _FETCHED:
        return {"note": f"not shown: {name} has {size} bytes, which would have to be fetched (tailrace artifacts get)"}
    with _verified(store, manifest, uri, name) as files:
        try:
            return found(files, name, manifest)
        except IntegrityError:
            raise
        except ImportError as error:
            return {"note": f"not shown: {error.name or error} is not installed here"}
        except Exception as error:  # whatever a library says of a file that is not one of its own
            return {"note": f"not shown: {type(error).__name__}: {error}"}


@contextmanager
def _verified(store: ArtifactStore, manifest: Manifest, uri: str, name: str) -> Iterator[FileReader]:
    """This one file; no other is fetched."""
    key = store.key(uri)
    made_by = manifest.materializer, manifest.materializer_version, manifest.spec, manifest.files
    if content_digest(*made_by) != manifest.digest:
        raise IntegrityError(f"The manifest of {uri} does not match its own digest.")
    entries = tuple(entry for entry in manifest.files if entry.path == name)
    directory = store.local_tree(f"{key}/{manifest.content}", entries)
    try:
        yield FileReader(directory, {name: entries[0]}, label=uri)
    finally:
        store.release_tree(directory)


def _file(manifest: Manifest) -> str | None:
    """The file to look at: the only one, or the one that is named for the data."""
    paths = [entry.path for entry in manifest.files]
    named = [path for path in paths if Path(path).stem in ("data", "value") and "/" not in path]
    chosen = paths if len(paths) == 1 else named
    return chosen[0] if len(chosen) == 1 else None


# --- tables -----------------------------------------------------------------------------------------------------------


def _table(files: FileReader, name: str, manifest: Manifest) -> Preview:
    """The first rows; of the file no more columns are read, and of Parquet no more pages."""
    path = files.path(name)
    if path.suffix == ".csv":
        return _head(path)
    columns, data = _of_parquet(path) if path.suffix == ".parquet" else _of_arrow(path)
    rows = zip(*([_arrow_cell(item) for item in column] for column in data), strict=True)
    return _rows(columns, rows)


def _of_parquet(path: Path) -> tuple[list[str], list[Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names[:_COLUMNS]
        batch = next(file.iter_batches(_ROWS, columns=names), None)
        return names, [batch.column(name) if batch is not None else [] for name in names]


def _of_arrow(path: Path) -> tuple[list[str], list[Any]]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        names = pa.ipc.open_file(file).schema.names[:_COLUMNS]
        chosen = pa.ipc.IpcReadOptions(included_fields=list(range(len(names))))
        reader = pa.ipc.open_file(file, options=chosen)
        batch = reader.get_batch(0).slice(0, _ROWS) if reader.num_record_batches else None
        return names, [list(column) for column in batch.columns] if batch is not None else [[] for _ in names]


def _arrow_cell(item: Any) -> Any:
    try:
        return _cell(item.as_py())
    except Exception:  # a moment that Python does not reach
        return _cell(item.cast("string").as_py())


def _array(files: FileReader, name: str, manifest: Manifest) -> Preview:
    """The first rows of a matrix or of records, the first numbers of another array, mapped."""
    import numpy as np

    if name != "data.npy" or set(manifest.spec) - {"view"}:
        return {}  # masked, objects, or of a dtype that npy does not know
    array: Any = np.load(files.path(name), mmap_mode="r", allow_pickle=False)
    if array.dtype.names:
        return _rows(array.dtype.names[:_COLUMNS], (row.item() for row in array.ravel()[:_ROWS]))
    if array.ndim == 2:
        head = array[:_ROWS, :_COLUMNS].tolist()
        return _rows(range(min(array.shape[1], _COLUMNS)), head)
    return {"lines": [str(_cell(item)) for item in array.ravel(order="K")[:_ROWS].tolist()]}


def _rows(columns: Iterable[Any], rows: Iterable[Sequence[Any]]) -> Preview:
    names = list(map(str, columns))
    return {"columns": names, "rows": [[_cell(item) for item in row[: len(names)]] for row in rows]}


def _cell(value: Any) -> Any:
    """As JSON has it, else its text."""
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 63):
        return value
    text = value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}..."


# --- text -------------------------------------------------------------------------------------------------------------


def _plain(files: FileReader, name: str, manifest: Manifest) -> Preview:
    """A table of a list of mappings; a prompt's text and variables; else the first lines."""
    import orjson

    if name != "value.json":
        return {}
    data = files.read(name)
    if len(data) > _PARSED:
        return _lines(bytes(data[:_HEAD]).decode(errors="replace"))
    tree = loads(data)
    if manifest.wrapper.rpartition(".")[2] == "Prompt":
        return _prompt(tree)
    if isinstance(tree, str):
        return _lines(tree)
    if isinstance(tree, list) and tree and all(isinstance(item, dict) for item in tree[:_ROWS]):
        names = list(dict.fromkeys(key for item in tree[:_ROWS] for key in item))[:_COLUMNS]
        return _rows(names, ([item.get(key) for key in names] for item in tree[:_ROWS]))
    return _lines(orjson.dumps(tree, option=orjson.OPT_INDENT_2).decode())


def _prompt(data: Any) -> Preview:
    text = data if isinstance(data, str) else "\n".join(f"{item['role']}: {item['content']}" for item in data)
    return {"facts": {"variables": list(Prompt(data).variables)}, **_lines(text)}


def _document(files: FileReader, name: str, manifest: Manifest) -> Preview:
    """The head of a text; nothing of bytes."""
    return _head(files.path(name)) if manifest.spec["text"] else {}


def _path(files: FileReader, name: str, manifest: Manifest) -> Preview:
    """A stored file, by its suffix and its first bytes."""
    if manifest.spec["kind"] != "file":
        return {}
    suffix = Path(name).suffix.lower()
    if suffix in (".parquet", ".arrow", ".feather"):
        return _table(files, name, manifest)
    if suffix in (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"):
        return _picture(files, name)
    return _head(files.path(name))


def _picture(files: FileReader, name: str) -> Preview:
    from PIL import Image

    with Image.open(files.path(name)) as image:  # the header only
        return {"facts": {"width": image.width, "height": image.height, "mode": image.mode}}


def _head(path: Path) -> Preview:
    with path.open("rb") as file:
        data = file.read(_HEAD)
    if b"\0" in data:
        return {}
    try:
        return _lines(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        return _lines(data[: error.start].decode("utf-8")) if len(data) - error.start < 4 else {}


def _lines(text: str) -> Preview:
    return {
        "lines": [_cell("".join(c if c.isprintable() else " " for c in line)) for line in text.splitlines()[:_ROWS]]
    }


# --- what the manifest knows ------------------------------------------------------------------------------------------


def _picture_of(manifest: Manifest) -> Preview:
    found = {key: manifest.metadata[key] for key in ("width", "height", "mode") if key in manifest.metadata}
    return {"facts": found} if manifest.materializer == "pillow" else {}


def _card(manifest: Manifest) -> Preview:
    """A model's: what it is, its hyperparameters, and the features that matter most."""
    known = {**manifest.metadata, **manifest.metadata.get("described", {})}
    if "hyperparameters" not in known and not ("framework" in known and "class" in known):
        return {}
    found: Preview = {"facts": {key: known[key] for key in _CARD if known.get(key) is not None}}
    if isinstance(known.get("hyperparameters"), Mapping):
        found["hyperparameters"] = dict(known["hyperparameters"])
    importances = known.get("feature_importances")
    if isinstance(importances, list):
        importances = {str(place): number for place, number in enumerate(importances)}
    if isinstance(importances, Mapping):
        largest = sorted(importances.items(), key=lambda item: item[1], reverse=True)[:_IMPORTANCES]
        found["importances"] = [[str(name), number] for name, number in largest]
    return found


_LOOKS: Mapping[str, Callable[[FileReader, str, Manifest], Preview]] = {
    "pandas": _table,
    "polars": _table,
    "arrow": _table,
    "numpy": _array,
    "plain": _plain,
    "document": _document,
    "path": _path,
}


# --- for people -------------------------------------------------------------------------------------------------------


def show(out: Any, found: Preview, told: Iterable[str] = ()) -> None:
    """Print what there is to see, without the facts that have been told already."""
    from .show import lines

    facts = {name: value for name, value in found.get("facts", {}).items() if name not in told}
    if facts:
        out.print()
        out.print(lines((name, _short(value)) for name, value in facts.items()))
    for heading in ("hyperparameters", "importances"):
        if found.get(heading):
            out.print(f"\n{heading.capitalize()}", style="dim")
            out.print(lines((str(name), _short(value)) for name, value in dict(found[heading]).items()))
    if "columns" in found:
        _show_rows(out, found["columns"], found["rows"])
    if found.get("lines") or "note" in found:
        out.print()
        out.print("\n".join(found.get("lines", [found.get("note")])), soft_wrap=True)


def _show_rows(out: Any, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from .show import table

    made = table(*(name.lstrip(">") or " " for name in columns[:_SHOWN_COLUMNS]))
    for row in rows:
        made.add_row(*("" if item is None else _short(item) for item in row[:_SHOWN_COLUMNS]))
    out.print()
    out.print(made)
    if len(columns) > _SHOWN_COLUMNS:
        out.print(f"... and more columns: {', '.join(columns[_SHOWN_COLUMNS:])}"[:_TEXT])


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= _SHOWN_TEXT else f"{text[:_SHOWN_TEXT]}..."
