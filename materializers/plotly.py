"""plotly's figures as the JSON that plotly itself reads, with a spec for what JSON forgets.

``from_json`` alone gives arrays back as mappings of base64 text, tuples as lists and dates as text. The spec says where
in the figure such values are, and how they are made again from what the JSON holds.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import plotly.graph_objects as go
import plotly.io

from ..core.errors import MaterializationError
from .base import Spec
from .files import FileReader, FileWriter
from .identical import difference
from .numpy_scalars import cell, decode_dtype, encode_dtype
from .tagged import decode, dumps, encode, is_plain, loads

__all__ = ["PlotlyMaterializer"]


class PlotlyMaterializer:
    """``plotly.graph_objects.Figure``, the ones of plotly express among them; no widgets."""

    name: ClassVar[str] = "plotly"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """``figure.json``. Raises MaterializationError for what plotly would not take back as it is."""
        if type(value) is not go.Figure:
            raise MaterializationError(f"it is a {type(value).__name__}; return a Figure of it: go.Figure(figure)")
        try:
            text, node = _json(value, "orjson")
        except MaterializationError:  # of dates that are missing it makes something that is no JSON
            text, node = _json(value, "json")
        tree = _tree(value)
        spec: Spec = {"changes": [change for part in node for change in _changes(tree[part], node[part], [part])]}
        if value._grid_ref is not None:
            spec["grid"] = encode(tree["grid"])
        changed = difference(tree, _tree(_restored(node, spec)))
        if changed:
            raise MaterializationError(f"plotly would change it at {changed}")
        files.write("figure.json", text)
        return spec

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The figure."""
        return _restored(loads(files.read("figure.json")), spec)

    def describe(self, value: Any) -> dict[str, Any]:
        """Its title, and the kinds and names of its traces."""
        return {
            "title": value.layout.title.text,
            "traces": [{"type": trace.type, "name": trace.name} for trace in value.data[:100]],
        }


def _json(figure: Any, engine: str) -> tuple[bytes, Any]:
    """The JSON that plotly makes of a figure, and what it says."""
    try:
        text = plotly.io.to_json(figure, validate=False, remove_uids=False, engine=engine).encode()
        return text, loads(text)
    except (TypeError, ValueError) as error:
        raise MaterializationError(f"plotly does not write it as JSON: {error}") from error


def _tree(figure: Any) -> dict[str, Any]:
    """Everything that was set in a figure, with the arrays that it holds."""
    return {
        "data": figure._data,
        "layout": figure._layout,
        "frames": [frame._props for frame in figure._frame_objs],
        "grid": [figure._grid_str, figure._grid_ref],
    }


def _restored(node: dict[str, Any], spec: Mapping[str, Any]) -> Any:
    for path, how in spec["changes"]:
        *outer, last = path
        place: Any = node
        for step in outer:
            place = place[step]
        place[last] = _made(place[last], how)
    text, reference = decode(spec["grid"]) if "grid" in spec else (None, None)
    figure = go.Figure(
        copy.deepcopy({**node, "_grid_str": text, "_grid_ref": reference})
    )  # it changes what it is given
    if "template" not in node["layout"]:
        figure.layout.template = None  # plotly's default, which it adds
    frames = [frame._props for frame in figure._frame_objs]
    _order([figure._data, figure._layout, frames], [node["data"], node["layout"], node.get("frames", [])])
    return figure


def _order(props: Any, like: Any) -> None:
    """Put the properties of a figure in the order in which they were saved; plotly sorts them."""
    if isinstance(props, dict) and isinstance(like, dict):
        for name in like:
            if name in props:
                props[name] = props.pop(name)
                _order(props[name], like[name])
    elif isinstance(props, list) and isinstance(like, list):
        for part, other in zip(props, like, strict=False):
            _order(part, other)


# ---- what JSON forgets


def _changes(value: Any, node: Any, path: list[Any]) -> Iterator[list[Any]]:
    """Where a figure's values are not what JSON gives back, and how they are made of that."""
    if type(value) is dict and type(node) is dict and set(value) == set(node):
        for name, part in value.items():
            yield from _changes(part, node[name], [*path, name])
    elif is_plain(value):
        if dumps(value) != dumps(node):
            yield [path, {"value": value}]
    elif type(value) is list and type(node) is list and len(value) == len(node):
        for place, part in enumerate(value):
            yield from _changes(part, node[place], [*path, place])
    else:
        yield [path, _how(value, node)]


def _how(value: Any, node: Any) -> dict[str, Any]:
    if type(value) is not np.ndarray:
        return {"value": encode(value, cell)}
    if value.dtype.hasobject:
        cells = value.ravel().tolist()
        plain = value.ndim == 1 and is_plain(cells) and dumps(cells) == dumps(node)
        return {"objects": list(value.shape), **({} if plain else {"cells": encode(cells, cell)})}
    how = {"dtype": encode_dtype(value.dtype)}
    try:
        same = difference(value, _made(node, how)) is None
    except (ValueError, TypeError):
        same = False
    return how if same else {"value": encode(value, cell)}


def _made(node: Any, how: Mapping[str, Any]) -> Any:
    if "value" in how:
        return decode(how["value"])
    if "objects" in how:
        cells = decode(how["cells"]) if "cells" in how else node
        array = np.empty(len(cells), object)
        for place, item in enumerate(cells):  # array[:] = cells would spread cells that are sequences
            array[place] = item
        return array.reshape(how["objects"])
    dtype = decode_dtype(how["dtype"])
    if isinstance(node, dict):  # plotly's own way to write an array, in the smallest type that holds its numbers
        flat = np.frombuffer(base64.b64decode(node["bdata"]), decode_dtype(node["dtype"]))
        shape = [int(size) for size in str(node.get("shape", flat.size)).split(",")]
        return flat.reshape(shape).astype(dtype)
    return np.array(node, dtype)
