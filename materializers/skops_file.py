"""skops files: made the same for equal models, and audited by what each name in them is used for.

skops names entries and objects after memory addresses, stamps entries with the time, and keeps sets in the order of the
process's hash seed. Its own list of trusted names does not say how a name is used, and a prefix is no protection:
``numpy`` has a function that executes text, ``scipy.stats`` has classes that execute part of their state. So each name
is judged with its node.
"""

from __future__ import annotations

import importlib
import io
import json
import types
import zipfile
from collections import Counter
from typing import Any

from ..core.errors import MaterializationError
from .numpy import clean_npy
from .zip_file import entry

__all__ = ["MEMORY_ADDRESSES", "canonical", "trusted_names"]

Node = dict[str, Any]

MEMORY_ADDRESSES = {"_stop_words_id"}
"""Attributes in which scikit-learn keeps the ``id`` of something that it has checked; they are written as None."""

_SCHEMA = "schema.json"
_IDENTITY_FREE = {"JsonNode", "TypeNode", "FunctionNode"}  # nothing depends on two of these being one object


def _nodes(schema: Node) -> list[Node]:
    """Every node of a schema, in its order, the inner ones after the outer."""
    found: list[Node] = []
    rest: list[Any] = [schema]
    while rest:
        part = rest.pop()
        if isinstance(part, dict) and "__loader__" in part:
            found.append(part)
        inner = part.values() if isinstance(part, dict) else part
        rest.extend(item for item in reversed(inner) if isinstance(item, (dict, list)))
    return found


# ---- the same bytes for equal models


def canonical(data: bytes) -> bytes:
    """The same model with names in order of appearance, no times, sets sorted and padding zero; still a skops file."""
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        schema = json.loads(source.read(_SCHEMA))
        for node in reversed(_nodes(schema)):
            _sort_sets(node)
            _forget_addresses(node)
        _renumber(schema)
        names: dict[str, str] = {}
        for node in _nodes(schema):
            if "file" in node:
                old = node["file"]
                node["file"] = names.setdefault(old, f"{len(names)}.{old.rpartition('.')[2]}")
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
            for old, new in names.items():
                content = source.read(old)
                out.writestr(entry(new), clean_npy(content) if new.endswith(".npy") else content)
            out.writestr(entry(_SCHEMA), json.dumps(schema))
    return target.getvalue()


def _sort_sets(node: Node) -> None:
    if node["__loader__"] == "SetNode":
        items: list[Node] = node["content"]
    elif node["__loader__"] == "ConstructorFromReduceNode" and node["__class__"] == "frozenset":
        items = node["content"]["content"][0]["content"]
    else:
        return
    items.sort(key=lambda item: json.dumps({key: part for key, part in item.items() if key != "__id__"}))


def _forget_addresses(node: Node) -> None:
    content = node.get("content")
    if isinstance(content, dict):
        for name in MEMORY_ADDRESSES & set(content):
            content[name]["content"] = "null"


def _renumber(schema: Node) -> None:
    """Keep ids only where an object occurs more than once: equal models differ in which constants they share."""
    nodes = _nodes(schema)
    for node in nodes:
        if node["__loader__"] in _IDENTITY_FREE:
            node.pop("__id__", None)
    counts = Counter(node["__id__"] for node in nodes if "__id__" in node)
    numbers: dict[int, int] = {}
    for node in nodes:
        old = node.pop("__id__", None)
        if counts[old] > 1:
            node["__id__"] = numbers.setdefault(old, len(numbers) + 1)


# ---- what may be loaded

_NO_CODE_FROM = {"externals", "datasets", "tests", "_testing", "conftest", "_build_utils"}
_MADE_WITHOUT_ARGUMENTS = {"ObjectNode", "TreeNode", "DictNode"}  # so that no constructor is given what the file says
_BOOSTERS = {  # their __setstate__ gives the stored model to the library's own parser; nothing else is made of it
    "xgboost.core.Booster",
    *(f"xgboost.sklearn.XGB{name}" for name in ("Classifier", "Regressor", "Ranker", "RFClassifier", "RFRegressor")),
    "lightgbm.basic.Booster",
    *(f"lightgbm.sklearn.LGBM{name}" for name in ("Model", "Classifier", "Regressor", "Ranker")),
}
_EXACTLY = {
    ("DTypeNode", "numpy.dtype"),
    ("TypeNode", "collections.OrderedDict"),
    ("DictNode", "collections.OrderedDict"),
    *(("ObjectNode", name) for name in _BOOSTERS),
    ("ConstructorFromReduceNode", "builtins.frozenset"),
    ("ObjectNode", "scipy.interpolate._bsplines.BSpline"),
    ("FunctionNode", "scipy._lib.array_api_compat.numpy._aliases.asarray"),
    *(("FunctionNode", f"numpy.{name}") for name in ("mean", "median", "sum", "min", "max", "std", "var", "average")),
    *(
        ("FunctionNode", f"numpy.{name}")
        for name in ("amin", "amax", "nanmean", "nanmedian", "ravel", "asarray", "clip")
    ),
}


def trusted_names(data: bytes) -> list[str]:
    """The names in a skops file that skops does not trust by itself and Tailrace does, to be passed as ``trusted``.

    Raises MaterializationError, naming them, when there are others.
    """
    import skops.io

    names: list[str] = skops.io.get_untrusted_types(data=data)
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        schema = json.loads(source.read(_SCHEMA))
    uses: dict[str, set[str]] = {name: set() for name in names}
    for node in _nodes(schema):
        name = f"{node['__module__']}.{node['__class__']}"
        if name in uses:
            uses[name].add(node["__loader__"])
    refused = [name for name in names if not uses[name] or not all(_is_safe(loader, name) for loader in uses[name])]
    if refused:
        raise MaterializationError(
            f"it holds {', '.join(refused)}, not known to be safe to load; scikit-learn's own classes and functions are"
        )
    return names


def _is_safe(loader: str, name: str) -> bool:
    if (loader, name) in _EXACTLY:
        return True
    if loader == "SparseMatrixNode":
        return name.startswith("scipy.sparse.")
    module, _, attribute = name.rpartition(".")
    parts = module.split(".")
    if parts[0] != "sklearn" or _NO_CODE_FROM & set(parts):
        return False
    if loader in _MADE_WITHOUT_ARGUMENTS:
        return isinstance(_find(module, attribute), type)
    return (
        loader == "FunctionNode" and "utils" not in parts and isinstance(_find(module, attribute), types.FunctionType)
    )


def _find(module: str, attribute: str) -> Any:
    try:
        return getattr(importlib.import_module(module), attribute, None)  # of sklearn only
    except ImportError:
        return None
