"""Whether two objects are the same in every way that a program can tell, and if not, where they first differ.

``==`` is not enough to prove a round trip: it takes ``1`` for ``True``, an integer frame for a float one, and NaN for
nothing. Not compared: identity; what materializers leave out on purpose (strides, the read-only flag, how a table is
cut into chunks); the order in which an object's attributes were set; which of two C types of one size an integer is,
or whether a structure was laid out by ``align=True``, which changes no value.
"""

from __future__ import annotations

import struct
import types
from collections.abc import Callable, Container, Iterable
from typing import Any

from ..core.typenames import type_name

__all__ = ["difference"]

_FUNCTIONS = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType)


def difference(one: Any, other: Any, *, ignoring: Container[str] = ()) -> str | None:
    """Where two objects first differ, and how (``"['a'][0]: int is float"``); ``None`` when they do not.

    The values of attributes and keys named in ``ignoring`` may differ.
    """
    return _Comparison(ignoring).between(one, other, "")


class _Comparison:
    def __init__(self, ignoring: Container[str]) -> None:
        self._ignoring = ignoring
        self._seen: dict[tuple[int, int], tuple[Any, Any]] = {}  # holds them, so that no id is used twice

    def between(self, one: Any, other: Any, at: str) -> str | None:
        if one is other:
            return None
        if type(one) is not type(other):
            return f"{at or 'value'}: {type_name(type(one))} is {type_name(type(other))}"
        if isinstance(one, (int, str, bytes, bytearray, type(None))) and type(one).__module__ == "builtins":
            return None if one == other else f"{at or 'value'}: {one!r} is {other!r}"
        if type(one) is float:
            same = struct.pack("d", one) == struct.pack("d", other)
            return None if same else f"{at or 'value'}: {one!r} is {other!r}"
        if (id(one), id(other)) in self._seen:
            return None
        self._seen[id(one), id(other)] = (one, other)
        return self._of_kind(one)(one, other, at)

    def _of_kind(self, one: Any) -> Callable[[Any, Any, str], str | None]:
        for base in type(one).__mro__:
            known = _KINDS.get(f"{base.__module__.partition('.')[0]}.{base.__qualname__}")
            if known:
                found: Callable[[Any, Any, str], str | None] = getattr(self, known)
                return found
        return self._objects

    def parts(self, parts: Iterable[tuple[str, Any, Any]]) -> str | None:
        return next(filter(None, (self.between(one, other, at) for at, one, other in parts)), None)

    # ---- Python

    def _sequences(self, one: Any, other: Any, at: str) -> str | None:
        if len(one) != len(other):
            return f"{at or 'value'}: {len(one)} items are {len(other)}"
        pairs = enumerate(zip(one, other, strict=True))
        return self.parts((f"{at}[{place}]", a, b) for place, (a, b) in pairs) or self._attributes(one, other, at)

    def _dicts(self, one: Any, other: Any, at: str) -> str | None:
        keys = self.between(list(one), list(other), f"{at} (keys)")
        if keys:
            return keys
        pairs = zip(one.items(), other.values(), strict=True)
        found = self.parts(
            (f"{at}[{key!r}]", value, again) for (key, value), again in pairs if key not in self._ignoring
        )
        factory = (f"{at} (default)", getattr(one, "default_factory", None), getattr(other, "default_factory", None))
        return found or self.parts([factory]) or self._attributes(one, other, at)

    def _attributes(self, one: Any, other: Any, at: str) -> str | None:
        mine, its = getattr(one, "__dict__", None), getattr(other, "__dict__", None)
        return self.between(mine, its, f"{at}.__dict__") if mine or its else None

    def _sets(self, one: Any, other: Any, at: str) -> str | None:
        def order(item: Any) -> tuple[str, str]:
            return type(item).__name__, repr(item)

        return self._sequences(sorted(one, key=order), sorted(other, key=order), f"{at} (set)")

    def _objects(self, one: Any, other: Any, at: str) -> str | None:
        """By what an object would give to pickle: its class, arguments, state, items. Nothing is pickled."""
        if isinstance(one, _FUNCTIONS):
            return None if one == other else f"{at or 'value'}: {one!r} is {other!r}"
        try:
            reduced, again = one.__reduce_ex__(4), other.__reduce_ex__(4)
        except Exception as error:  # an object's own method can raise anything
            return f"{at or 'value'}: cannot be compared ({error})"
        if isinstance(reduced, str) or isinstance(again, str):
            return None if reduced == again else f"{at or 'value'}: {reduced} is {again}"
        wholes = [
            [
                list(part or ()) if index > 2 else _in_order(part) if index == 2 else part
                for index, part in enumerate(whole)
            ]
            for whole in (reduced, again)
        ]
        return self._sequences(wholes[0], wholes[1], f"{at}.state")

    # ---- NumPy

    def _arrays(self, one: Any, other: Any, at: str) -> str | None:
        import numpy as np

        from .numpy_scalars import has_gaps, without_gaps

        if self._dtypes(one.dtype, other.dtype, at) or one.shape != other.shape:
            return f"{at or 'value'}: an array {one.dtype}{one.shape} is {other.dtype}{other.shape}"
        contiguous = one.flags.c_contiguous or one.flags.f_contiguous
        if contiguous and one.flags.f_contiguous != other.flags.f_contiguous:
            return f"{at or 'value'}: an array's C or Fortran order"
        if isinstance(one, np.ma.MaskedArray):
            names = ("data", "mask", "_fill_value", "hardmask")
            return self.parts((f"{at}.{name}", getattr(one, name), getattr(other, name)) for name in names)
        if one.dtype.hasobject and one.dtype.names is None:
            return self._sequences(list(np.asarray(one).flat), list(np.asarray(other).flat), f"{at}.flat")
        one, other = (without_gaps(np.asarray(array)) if has_gaps(array.dtype) else array for array in (one, other))
        return None if one.tobytes() == other.tobytes() else f"{at or 'value'}: the values of an array"

    def _numbers(self, one: Any, other: Any, at: str) -> str | None:
        import numpy as np

        return self._arrays(np.asarray(one), np.asarray(other), at)

    def _random_states(self, one: Any, other: Any, at: str) -> str | None:
        return self.between(one.get_state(legacy=False), other.get_state(legacy=False), f"{at}.state")

    def _dtypes(self, one: Any, other: Any, at: str) -> str | None:
        same = one == other and (one.type.__name__ == other.type.__name__ or one.names is None)
        same = same and dict(one.metadata or {}) == dict(other.metadata or {})
        return None if same else f"{at or 'value'}: {one!r} is {other!r}"

    def _sparse_matrices(self, one: Any, other: Any, at: str) -> str | None:
        """Without what SciPy has found out and remembers about their order, and the classes of numbers in lists."""
        return self.between(_sparse_state(one), _sparse_state(other), at)

    # ---- pandas

    def _frames(self, one: Any, other: Any, at: str) -> str | None:
        places = range(len(one.columns)) if one.shape == other.shape else ()
        columns = ((f"{at}[{one.columns[place]!r}]", one.iloc[:, place], other.iloc[:, place]) for place in places)
        return self._labels(one, other, at, "index", "columns") or self.parts(
            (name, a.array, b.array) for name, a, b in columns
        )

    def _columns(self, one: Any, other: Any, at: str) -> str | None:
        return self._labels(one, other, at, "index", "name", "array")

    def _labels(self, one: Any, other: Any, at: str, *names: str) -> str | None:
        names = (*names, "attrs")
        parts = [(f"{at}.{name}", getattr(one, name), getattr(other, name)) for name in names]
        flags = (f"{at}.flags", one.flags.allows_duplicate_labels, other.flags.allows_duplicate_labels)
        return self.parts([*parts, flags])

    def _indexes(self, one: Any, other: Any, at: str) -> str | None:
        if type(one).__name__ == "MultiIndex":
            names = ("names", "levels", "codes")
            return self.parts((f"{at}.{name}", list(getattr(one, name)), list(getattr(other, name))) for name in names)
        parts = ["start", "stop", "step", "name"] if type(one).__name__ == "RangeIndex" else ["name", "freq", "array"]
        return self.parts((f"{at}.{name}", getattr(one, name, None), getattr(other, name, None)) for name in parts)

    def _extension_arrays(self, one: Any, other: Any, at: str) -> str | None:
        import numpy as np

        if isinstance(one.dtype, np.dtype):
            return self._arrays(one.to_numpy(), other.to_numpy(), at)
        zones = getattr(one.dtype, "tz", None), getattr(other.dtype, "tz", None)
        if one.dtype != other.dtype or repr(one.dtype) != repr(other.dtype) or type(zones[0]) is not type(zones[1]):
            return f"{at}.dtype: {one.dtype!r} is {other.dtype!r}"
        if hasattr(one, "categories"):
            names = ("categories", "codes", "ordered")
            return self.parts((f"{at}.{name}", getattr(one, name), getattr(other, name)) for name in names)
        if hasattr(one, "asi8"):
            return self._arrays(one.asi8, other.asi8, at)
        return self._sequences(list(one), list(other), at)

    # ---- polars

    def _polars_frames(self, one: Any, other: Any, at: str) -> str | None:
        compare = self.between
        if hasattr(one, "collect"):  # lazy
            one, other, compare = one.collect(), other.collect(), self._polars_values
        if one.columns != other.columns or one.height != other.height:
            return f"{at or 'value'}: columns {one.columns} of {one.height} rows are {other.columns} of {other.height}"
        found = (compare(one[name], other[name], f"{at}[{name!r}]") for name in one.columns)
        return next(filter(None, found), None)

    def _polars_series(self, one: Any, other: Any, at: str) -> str | None:
        """With the flags of being sorted. polars' other flag says that no list is empty, which it finds out again."""
        found = self._polars_values(one, other, at)
        names = ("SORTED_ASC", "SORTED_DESC")
        return found or self.parts((f"{at}.flags[{name!r}]", one.flags[name], other.flags[name]) for name in names)

    def _polars_values(self, one: Any, other: Any, at: str) -> str | None:
        """By the numbers below dates and categories, which say more than Python's objects for them."""
        if one.dtype != other.dtype:
            return f"{at}.dtype: {one.dtype} is {other.dtype}"
        found = self.parts([(f"{at}.name", one.name, other.name)])
        return found or self.between(one.to_physical().to_list(), other.to_physical().to_list(), at)

    # ---- xarray

    def _datasets(self, one: Any, other: Any, at: str) -> str | None:
        order = (f"{at}.variables", list(one.variables), list(other.variables))
        coords = (f"{at}.coords", list(one.coords), list(other.coords))
        found = self.parts([order, coords]) or self._labeled(one, other, at)
        pairs = zip(one.variables.items(), other.variables.values(), strict=True)
        return found or self.parts((f"{at}[{name!r}]", variable, again) for (name, variable), again in pairs)

    def _data_arrays(self, one: Any, other: Any, at: str) -> str | None:
        variables = (f"{at}.variable", one.variable.to_base_variable(), other.variable.to_base_variable())
        found = self.parts([(f"{at}.name", one.name, other.name), variables])
        return found or self._datasets(one.coords.to_dataset(), other.coords.to_dataset(), f"{at}.coords")

    def _labeled(self, one: Any, other: Any, at: str) -> str | None:
        found = self.parts((f"{at}.{name}", getattr(one, name), getattr(other, name)) for name in ("attrs", "encoding"))
        mine, its = (dict(sorted(each.xindexes.items(), key=repr)) for each in (one, other))
        return found or self.between(mine, its, f"{at}.xindexes")

    def _variables(self, one: Any, other: Any, at: str) -> str | None:
        names = ("dims", "dtype", "chunks", "attrs", "encoding")
        found = self.parts((f"{at}.{name}", getattr(one, name), getattr(other, name)) for name in names)
        return found or self.between(one.compute().data, other.compute().data, f"{at}.data")

    def _xarray_indexes(self, one: Any, other: Any, at: str) -> str | None:
        names = ("dim", "index", "coord_dtype", "level_coords_dtype")
        return self.parts((f"{at}.{name}", getattr(one, name, None), getattr(other, name, None)) for name in names)

    # ---- Arrow

    def _arrow(self, one: Any, other: Any, at: str) -> str | None:
        schema, kind = getattr(one, "schema", None), getattr(one, "type", None)
        if schema is not None and not schema.equals(other.schema, check_metadata=True):
            return f"{at or 'value'}: the schema"
        if kind is not None and not kind.equals(other.type):
            return f"{at or 'value'}: {kind} is {other.type}"
        if hasattr(one, "as_py"):
            return None if repr(one.as_py()) == repr(other.as_py()) else f"{at or 'value'}: {one!r} is {other!r}"
        one, other = ((part.combine_chunks() if hasattr(part, "combine_chunks") else part) for part in (one, other))
        return None if repr(one.to_pylist()) == repr(other.to_pylist()) else f"{at or 'value'}: the values"

    def _arrow_types(self, one: Any, other: Any, at: str) -> str | None:
        more = {"check_metadata": True} if hasattr(one, "metadata") else {}
        return None if one.equals(other, **more) else f"{at or 'value'}: {one} is {other}"


def _in_order(state: Any) -> Any:
    """An object's attributes by their names; with slots these are the second of two parts."""
    if isinstance(state, tuple):
        return tuple(map(_in_order, state)) if len(state) == 2 else state
    return dict(sorted(state.items())) if type(state) is dict and set(map(type, state)) <= {str} else state


def _sparse_state(matrix: Any) -> dict[str, Any]:
    state = {name: part for name, part in sorted(vars(matrix).items()) if not name.startswith("_has_")}
    if matrix.format == "lil":
        state["data"] = [[matrix.dtype.type(item) for item in row] for row in matrix.data]
    if matrix.format == "dok":
        state["_dict"] = {
            tuple(map(int, key)) if isinstance(key, tuple) else int(key): matrix.dtype.type(item)
            for key, item in matrix._dict.items()
        }
    return state


_KINDS = {
    "builtins.list": "_sequences",
    "builtins.tuple": "_sequences",
    "collections.deque": "_objects",
    "builtins.dict": "_dicts",
    "builtins.set": "_sets",
    "builtins.frozenset": "_sets",
    "numpy.ndarray": "_arrays",
    "numpy.str_": "_objects",
    "numpy.bytes_": "_objects",
    "numpy.generic": "_numbers",
    "numpy.dtype": "_dtypes",
    "numpy.RandomState": "_random_states",
    "scipy._spbase": "_sparse_matrices",
    "pandas.DataFrame": "_frames",
    "pandas.Series": "_columns",
    "pandas.Index": "_indexes",
    "pandas.ExtensionArray": "_extension_arrays",
    "pyarrow.Table": "_arrow",
    "pyarrow.RecordBatch": "_arrow",
    "pyarrow.Array": "_arrow",
    "pyarrow.ChunkedArray": "_arrow",
    "pyarrow.Scalar": "_arrow",
    "pyarrow.DataType": "_arrow_types",
    "pyarrow.Schema": "_arrow_types",
    "polars.DataFrame": "_polars_frames",
    "polars.LazyFrame": "_polars_frames",
    "polars.Series": "_polars_series",
    "xarray.Dataset": "_datasets",
    "xarray.DataArray": "_data_arrays",
    "xarray.Variable": "_variables",
    "xarray.PandasIndex": "_xarray_indexes",
}
