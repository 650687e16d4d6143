"""The declared fallback: cloudpickle. Loading it executes code, so the stack's ``allow_pickle`` decides, both ways."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, ClassVar

from ..core.errors import MaterializationError
from .base import Spec
from .files import FileReader, FileWriter

__all__ = ["PickleMaterializer"]


class PickleMaterializer:
    """Any value that cloudpickle takes. Not portable between versions of Python and of the libraries involved.

    The bytes of equal values may differ between processes (sets, classes pickled by value).
    """

    name: ClassVar[str] = "pickle"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = True

    def save(self, value: Any, files: FileWriter) -> Spec:
        """One file, ``value.pkl``; raises MaterializationError, with nothing written, when the value has no pickle."""
        import cloudpickle

        try:
            data = cloudpickle.dumps(value, protocol=5)
        except Exception as error:  # a value's own __reduce__ can raise anything
            raise MaterializationError(f"it cannot be pickled: {error}") from error
        files.write("value.pkl", data)
        return {}

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """Unpickle the verified bytes."""
        return pickle.loads(files.read("value.pkl"))  # noqa: S301 - the registry has asked the policy

    def describe(self, value: Any) -> dict[str, Any]:
        """Nothing can be said of an unknown object."""
        return {}
