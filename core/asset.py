"""The base of the artifact types: a value with a name, and everything that is known about it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

from .errors import AssetError

__all__ = ["Asset", "jsonable", "kind_of", "scalar"]


class Asset:
    """A value that a step returns under a type, so that its type can decide where it goes.

    ``version`` stays ``None`` unless it is given: the catalog counts versions up per name, from what is stored, when
    the artifact is committed. ``metadata`` is anything that JSON can hold, ``tags`` are text to text. ``parents`` are
    assets, references or ids of what this was made from; the inputs of the step are recorded without being named.

    Assets are equal only to themselves (:class:`Metrics` and :class:`Parameters` compare as mappings).
    """

    fields: ClassVar[tuple[str, ...]] = ()
    """The attributes that a type adds; they are keyword arguments of its constructor, and stored in the header."""

    def __init__(
        self,
        data: Any = None,
        name: str | None = None,
        version: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        tags: Mapping[str, object] | None = None,
        parents: Iterable[Any] | None = None,
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise AssetError(f"The name of the {type(self).__name__} is {name!r}; give it as text: name='...'.")
        self.name = name
        self.version = None if version is None else str(version)
        self.metadata = dict(metadata or {})
        self.tags = {str(key): str(value) for key, value in (tags or {}).items()}
        self.parents = tuple(parents or ())
        self.data = self._accept(data)

    def _accept(self, data: Any) -> Any:
        """The data as this type holds it; raises :meth:`_refuse` for data of the wrong kind."""
        return data

    def _refuse(self, data: Any, wanted: str) -> AssetError:
        name = f" {self.name!r}" if self.name else ""
        return AssetError(
            f"The {type(self).__name__}{name} was given a value of type {kind_of(data)!r}; it holds {wanted}."
        )

    @classmethod
    def create(
        cls,
        data: Any = None,
        name: str | None = None,
        version: str | None = None,
        parents: Iterable[Any] | None = None,
        tags: Mapping[str, object] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Self:
        """A new asset, by the same call for every type; ``fields`` are the type's own (``framework=``, ``epoch=``)."""
        return cls(data, name=name, version=version, parents=parents, tags=tags, metadata=metadata, **fields)

    @classmethod
    def wrap(cls, data: Any, name: str | None = None) -> Self:
        """A bare value, returned where this type was declared, as this type. An asset of this type stays what it is.

        Raises :class:`AssetError`, a ``TypeError``, for a value that this type cannot hold.
        """
        if isinstance(data, cls):
            return data
        if data is None or isinstance(data, Asset):
            given = type(data).__name__
            raise AssetError(f"{cls.__name__} was declared, but {given} was given. Correct the one or the other.")
        return cls(data, name=name)

    def with_metadata(self, **metadata: Any) -> Self:
        """A copy with these metadata added; the data are shared."""
        return self._copy(metadata={**self.metadata, **metadata})

    def describe(self) -> dict[str, Any]:
        """What can be said of the data for people and the catalog: JSON-able, in under 10 ms per 100 MB."""
        return {}

    def to_parts(self) -> tuple[Any, dict[str, Any]]:
        """What is stored, and the JSON-able header that :meth:`from_parts` needs beside it.

        The header holds every attribute that is set, but for the parents, which are lineage and stand in the manifest.
        Raises :class:`AssetError` for metadata that JSON would change or cannot hold; tuples become lists.
        """
        names = ("name", "version", "metadata", "tags", *self.fields)
        header = {name: value for name in names if (value := getattr(self, name)) is not None and value != {}}
        kind = type(self).__name__
        return self.data, jsonable(header, f"{kind} {self.name!r}" if self.name else kind)

    @classmethod
    def from_parts(cls, data: Any, header: Mapping[str, Any]) -> Self:
        """The asset that :meth:`to_parts` took apart. Keys of the header that are not known here are ignored."""
        known = {"name", "version", "metadata", "tags", *cls.fields}
        return cls(data, **{key: value for key, value in header.items() if key in known})

    @classmethod
    def narrowed(cls, header: Mapping[str, Any], columns: Sequence[Any]) -> dict[str, Any]:
        """The header for data of which only these columns are there."""
        return dict(header)

    def _copy(self, **changes: Any) -> Self:
        twin = copy.copy(self)
        twin.__dict__.update({"metadata": dict(self.metadata), "tags": dict(self.tags), **changes})
        return twin

    def __repr__(self) -> str:
        named = {name: getattr(self, name) for name in ("name", "version") if getattr(self, name) is not None}
        parts = [*(f"{name}={value!r}" for name, value in named.items()), f"data=<{kind_of(self.data)}>"]
        return f"{type(self).__name__}({', '.join(parts)})"


def kind_of(value: Any) -> str:
    """The name of a value's type, with its module unless that is built in."""
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def jsonable(value: Any, place: str, *, finite: bool = True) -> Any:
    """The value as plain JSON data, numpy's scalars as Python's; raises :class:`AssetError` that names the place.

    JSON has no NaN and no infinity: only with ``finite=False`` do they pass.
    """
    value = scalar(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and (math.isfinite(value) or not finite):
        return value
    if isinstance(value, Mapping):
        odd = next((key for key in value if not isinstance(key, str)), None)
        if odd is not None:
            raise AssetError(f"{place} has the key {odd!r} of type {kind_of(odd)!r}; JSON has only text keys.")
        return {key: jsonable(item, f"{place}[{key!r}]", finite=finite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item, f"{place}[{index}]", finite=finite) for index, item in enumerate(value)]
    raise AssetError(
        f"{place} is {value!r:.80} of type {kind_of(value)!r}, which JSON cannot hold. "
        "Give it as text, or return it as data."
    )


def scalar(value: Any) -> Any:
    """The Python number behind a zero-dimensional one of numpy, torch and their like; anything else as it is."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value
