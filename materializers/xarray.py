"""xarray's Dataset and DataArray as one ``structure.json`` and a folder for each variable's array.

The JSON has names, dimensions, attributes, encodings and indexes. The arrays are files of the materializers of NumPy
and pandas (coordinates with an index, whose kind and frequency are part of the value), so that these read them alone.
netCDF and Zarr would change the unit of times, the types of attributes and of indexes, and the memory order.

A chunked variable (dask) is computed, one at a time, and comes back in chunks of the same sizes; one that is still in
the file it was opened from is read. On purpose not kept: that file, the graph of a computation,
the order in which dimensions are listed, and that a DataArray was itself an index (a copy of its coordinate).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr
from xarray.indexes import PandasIndex, PandasMultiIndex

from ..core.errors import MaterializationError
from ..core.names import segment
from ..core.typenames import type_name
from .base import LoadMember, SaveMember, Spec
from .files import FileReader, FileWriter
from .numpy_scalars import cell, decode_dtype, encode_dtype
from .tagged import TAG, decode, dumps, encode, loads, tag

__all__ = ["XarrayMaterializer"]

_FILE = "structure.json"


class XarrayMaterializer:
    """xarray's own two classes; a sub-class needs a materializer of its own."""

    name: ClassVar[str] = "xarray"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """Refused: the arrays are members, which need :meth:`save_with`."""
        raise MaterializationError(f"a {type_name(type(value))} is saved with its arrays, by save_with")

    def save_with(self, value: Any, files: FileWriter, save_member: SaveMember) -> Spec:
        """``structure.json``, and ``0-<name>``, ``1-<name>``, ... for the arrays; in the spec the kind."""
        if type(value) not in (xr.Dataset, xr.DataArray):
            raise MaterializationError(f"it is a {type_name(type(value))}, a sub-class with more than xarray's state")
        files.write(_FILE, dumps(_Writer(files, save_member).structure(value)))
        return {"kind": type(value).__name__}

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """Refused, as :meth:`save` is."""
        raise MaterializationError(f"a {spec['kind']} is loaded with its arrays, by load_with")

    def load_with(self, files: FileReader, spec: Mapping[str, Any], load_member: LoadMember) -> Any:
        """The Dataset or DataArray, in memory but for the variables that were in chunks."""
        reader = _Reader(files, load_member, loads(files.read(_FILE)))
        return reader.dataset() if spec["kind"] == "Dataset" else reader.data_array()

    def describe(self, value: Any) -> dict[str, Any]:
        """The size of each dimension, bytes, coordinates, and the dtype and dimensions of each variable."""
        variables = value.variables if isinstance(value, xr.Dataset) else {**value.coords, "": value}
        return {
            "sizes": {str(name): int(size) for name, size in value.sizes.items()},
            "nbytes": int(value.nbytes),
            "coords": [str(name) for name in value.coords],
            "schema": {
                str(name): f"{variable.dtype} ({', '.join(map(str, variable.dims))})"
                for name, variable in variables.items()
            },
        }


# ---- writing


class _Writer:
    """Saves the arrays of one value, and gathers what else there is to say about it."""

    def __init__(self, files: FileWriter, save_member: SaveMember) -> None:
        self._files = files
        self._save_member = save_member
        self._count = 0

    def structure(self, value: Any) -> Spec:
        if isinstance(value, xr.DataArray):
            about = {"name": _encode(value.name, "its name"), "array": self._variable(value.variable, value.name)}
            return {**about, **self._coordinates(value)}
        variables = [
            [_encode(name, "the name of a variable"), self._variable(variable, name)]
            for name, variable in value.variables.items()
            if name not in value.coords
        ]
        order = [_encode(name, "the name of a variable") for name in value.variables]
        return {"order": order, "variables": variables, **self._coordinates(value), **_labels(value, "the dataset")}

    def _coordinates(self, value: Any) -> Spec:
        """In their order; the array of those that have an index is in the index."""
        indexes = [self._index(index, variables) for index, variables in value.xindexes.group_by_index()]
        coords = []
        for name, coord in value.coords.items():
            indexed = name in value.xindexes
            spec = _labels(coord, f"coordinate {name!r}") if indexed else self._variable(coord.variable, name)
            coords.append([_encode(name, "the name of a coordinate"), spec])
        return {"coords": coords, "indexes": indexes}

    def _index(self, index: Any, variables: Mapping[Any, Any]) -> Spec:
        first = next(iter(variables))
        if type(index) not in (PandasIndex, PandasMultiIndex):
            raise MaterializationError(
                f"coordinate {first!r} has a {type_name(type(index))}, which is not one of pandas' indexes; drop it by "
                f".drop_indexes({first!r}) first, and set it again after loading"
            )
        spec: Spec = {
            "dim": _encode(index.dim, "a dimension"),
            "names": [_encode(name, "a name") for name in variables],
        }
        if type(index) is PandasMultiIndex:
            pairs = [(index.level_coords_dtype[level.name], level.dtype) for level in index.index.levels]
        else:
            pairs = [(index.coord_dtype, index.index.dtype)]
        # a coordinate may show another dtype than its index has: <U1 of text
        shown = [None if one == own and type(one) is type(own) else one for one, own in pairs]
        spec["dtypes"] = _encode(shown, f"the dtype of coordinate {first!r}")
        return {**spec, "index": self._save(index.index, first)}

    def _variable(self, variable: Any, name: Any) -> Spec:
        what = f"variable {name!r}"
        spec: Spec = {"dims": [_encode(dim, "a dimension") for dim in variable.dims], **_labels(variable, what)}
        if variable.chunks is not None:
            spec["chunks"] = [list(map(int, sizes)) for sizes in variable.chunks]
            variable = variable.compute()
        data = variable.data
        if isinstance(data, pd.api.extensions.ExtensionArray) and variable.ndim == 1:
            return {**spec, "extension": True, "data": self._save(pd.Series(data), name)}
        if not isinstance(data, np.ndarray) or data.dtype != variable.dtype:
            raise MaterializationError(
                f"{what} holds a {type_name(type(data))} as {variable.ndim} dimensions of {variable.dtype}; "
                "convert it by .astype to a dtype of NumPy first"
            )
        return {**spec, "data": self._save(data, name)}

    def _save(self, array: Any, name: Any) -> Spec:
        folder = f"{self._count}-{segment(str(name))}"
        self._count += 1
        return {"folder": folder, **self._save_member(array, f"[{name!r}]", self._files.within(folder))}


def _labels(value: Any, what: str) -> Spec:
    labels = (("attrs", value.attrs), ("encoding", value.encoding))
    return {key: _encode(dict(found), f"the {key} of {what}") for key, found in labels if found}


def _encode(value: Any, what: str) -> Any:
    try:
        return encode(value, _leaf)
    except MaterializationError as error:
        more = "; drop it by .drop_encoding()" if what.startswith("the encoding") else ""
        raise MaterializationError(f"{what}: {error}{more}") from error


def _leaf(value: Any, where: str) -> Any:
    """Arrays and dtypes, which attributes and encodings are full of."""
    if isinstance(value, np.dtype):
        return tag("dtype", "object" if value.kind == "O" else encode_dtype(value))
    if value is str:  # what xarray says of text that it read from netCDF
        return tag("dtype", "str")
    return cell(value, where)


# ---- reading


class _Reader:
    """Makes the value again."""

    def __init__(self, files: FileReader, load_member: LoadMember, structure: Spec) -> None:
        self._files = files
        self._load_member = load_member
        self._structure = structure

    def dataset(self) -> Any:
        about = self._structure
        variables = {_decode(name): self._variable(spec) for name, spec in about["variables"]}
        made = xr.Dataset(variables, coords=self._coordinates(), attrs=_decode(about.get("attrs", {})))
        made.encoding = _decode(about.get("encoding", {}))
        named_as_dimensions = [name for name in variables if name in made.coords]
        if named_as_dimensions:  # xarray makes coordinates of them
            made = made.drop_indexes(named_as_dimensions).reset_coords(named_as_dimensions)
        return made[[_decode(name) for name in about["order"]]]

    def data_array(self) -> Any:
        variable = self._variable(self._structure["array"])
        made = xr.DataArray(variable, coords=self._coordinates(), name=_decode(self._structure["name"]))
        made.encoding = variable.encoding
        return made

    def _coordinates(self) -> Any:
        about = {_decode(name): spec for name, spec in self._structure["coords"]}
        found: dict[Any, Any] = {}
        indexes: dict[Any, Any] = {}
        for spec in self._structure["indexes"]:
            index = self._index(spec)
            names = [_decode(name) for name in spec["names"]]
            indexes.update(dict.fromkeys(names, index))
            found.update(index.create_variables())
        for name, spec in about.items():
            if name in indexes:
                found[name].attrs, found[name].encoding = (_decode(spec.get(key, {})) for key in ("attrs", "encoding"))
            else:
                found[name] = self._variable(spec)
        return xr.Coordinates({name: found[name] for name in about}, indexes)

    def _index(self, spec: Mapping[str, Any]) -> Any:
        index, dim, shown = self._load(spec["index"]), _decode(spec["dim"]), _decode(spec["dtypes"])
        if isinstance(index, pd.MultiIndex):
            levels = zip(index.levels, shown, strict=True)
            return PandasMultiIndex(index, dim, {level.name: _or(dtype, level) for level, dtype in levels})
        return PandasIndex(index, dim, _or(shown[0], index))

    def _variable(self, spec: Mapping[str, Any]) -> Any:
        data = self._load(spec["data"])
        dims = [_decode(dim) for dim in spec["dims"]]
        attrs, encoding = (_decode(spec.get(key, {})) for key in ("attrs", "encoding"))
        if "extension" in spec:
            return xr.Variable(dims, data.array, attrs, encoding)
        variable = xr.Variable(dims, data, attrs, encoding, fastpath=True)  # the other way makes dates of objects
        if "chunks" in spec:
            return variable.chunk(dict(zip(dims, map(tuple, spec["chunks"]), strict=True)))
        return variable

    def _load(self, member: Mapping[str, Any]) -> Any:
        return self._load_member(member, self._files.within(member["folder"]))


def _or(dtype: Any, index: Any) -> Any:
    return index.dtype if dtype is None else dtype


def _decode(node: Any) -> Any:
    return decode(node, _from_leaf)


def _from_leaf(node: Any) -> Any:
    if node[TAG] == "dtype":
        known: dict[Any, Any] = {"object": np.dtype(object), "str": str}
        return known[node["v"]] if node["v"] in ("object", "str") else decode_dtype(node["v"])
    raise MaterializationError(f"the stored JSON has a value of the unknown kind {node[TAG]!r}")
