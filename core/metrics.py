"""Numbers that were measured, and values that were chosen: mappings from names, which trackers log one by one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from .asset import Asset, jsonable, kind_of, scalar
from .errors import AssetError

__all__ = ["Metrics", "Parameters"]


class _Named(Asset, Mapping[str, Any]):
    """A read-only mapping that is an asset. ``.data`` is a plain dict."""

    def __init__(
        self,
        data: Any = None,
        name: str | None = None,
        version: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        tags: Mapping[str, object] | None = None,
        parents: Iterable[Any] | None = None,
        **values: Any,
    ) -> None:
        items = {**(data or {}), **values} if data is None or isinstance(data, Mapping) else data
        super().__init__(items, name, version, metadata=metadata, tags=tags, parents=parents)

    def _accept(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            raise self._refuse(data, "a mapping from names to values")
        return {self._key(key): self._value(key, scalar(value)) for key, value in data.items()}

    def _key(self, key: Any) -> str:
        if not isinstance(key, str):
            raise AssetError(f"{self._label()} has the key {key!r} of type {kind_of(key)!r}; names are text.")
        return key

    @abstractmethod
    def _value(self, key: str, value: Any) -> Any:
        """The value of this key as it is held."""

    def _label(self) -> str:
        kind = type(self).__name__
        return f"{kind} {self.name!r}" if self.name else kind

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.data!r})"


class Metrics(_Named):
    """Measurements by name: ``Metrics({"accuracy": 0.9})`` or ``Metrics(accuracy=0.9)``.

    Values are numbers; NaN and the infinities are kept. Zero-dimensional values of numpy and its like become Python
    numbers. A value that is none is an :class:`AssetError` that names the key. Metrics called as one of the
    constructor's own (``name``, ``version``, ``step``, ``tags``, ...) go in the mapping. Equal to any mapping with the
    same items.
    """

    fields = ("step",)

    def __init__(self, data: Mapping[str, Any] | None = None, name: str | None = None, **values: Any) -> None:
        self.step: int | None = values.pop("step", None)
        super().__init__(data, name, **values)

    def at_step(self, step: int) -> Self:
        """A copy that was measured at this step of the training; trackers draw a curve from several."""
        return self._copy(step=int(step))

    def _value(self, key: str, value: Any) -> int | float:
        if isinstance(value, int | float):
            return value
        raise AssetError(
            f"{self._label()}[{key!r}] is {value!r:.80} of type {kind_of(value)!r}, not a number. "
            "Put text and structure in Parameters or in with_metadata()."
        )


class Parameters(_Named):
    """Settings by name: ``Parameters({"lr": 0.01})`` or ``Parameters(lr=0.01)``.

    Values are numbers (also NaN), text, booleans, ``None``, and lists and mappings of these; tuples become lists.
    Anything else is an :class:`AssetError` that names the key. Equal to any mapping with the same items.
    """

    def _value(self, key: str, value: Any) -> Any:
        return jsonable(value, f"{self._label()}[{key!r}]", finite=False)
