"""Whether two objects are the same in every way that a program can tell, and if not, where they first differ.

``==`` is not enough to prove a round trip: it takes ``1`` for ``True``, an integer frame for a float one, and NaN for
nothing. Not compared: identity; what NumPy's materializer leaves out on purpose (strides, the read-only flag); and
which of two C types of one size an integer is, or whether a structure was laid out by ``align=True``, which changes no
value.
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
            return f"{at or 'value'}: {one!r} is {other!r}"
        try:
            reduced, again = one.__reduce_ex__(4), other.__reduce_ex__(4)
        except Exception as error:  # an object's own method can raise anything
            return f"{at or 'value'}: cannot be compared ({error})"
        if isinstance(reduced, str) or isinstance(again, str):
            return None if reduced == again else f"{at or 'value'}: {reduced} is {again}"
        wholes = [
            [part if index < 3 else list(part or ()) for index, part in enumerate(whole)] for whole in (reduced, again)
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
        """Without what SciPy has found out and remembers about their order."""
        states = [{k: v for k, v in vars(matrix).items() if not k.startswith("_has_")} for matrix in (one, other)]
        return self.between(states[0], states[1], at)

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

    # ---- Arrow

    def _arrow(self, one: Any, other: Any, at: str) -> str | None:
        schema = getattr(one, "schema", None)
        if schema is not None and not schema.equals(other.schema, check_metadata=True):
            return f"{at or 'value'}: the schema"
        one, other = ((part.combine_chunks() if hasattr(part, "combine_chunks") else part) for part in (one, other))
        return None if repr(one.to_pylist()) == repr(other.to_pylist()) else f"{at or 'value'}: the values"

    def _arrow_types(self, one: Any, other: Any, at: str) -> str | None:
        return None if one.equals(other) else f"{at or 'value'}: {one} is {other}"


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
    "pyarrow.DataType": "_arrow_types",
}
