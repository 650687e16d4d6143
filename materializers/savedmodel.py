"""``tf.Module`` as a TensorFlow SavedModel, which is a program: its operations can read and write files.

So it is treated like pickle: the stack's ``allow_pickle`` decides, both ways. What comes back is TensorFlow's own
object with the saved functions and variables, not of the class that was saved; no two files are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import tensorflow as tf

from ..core.errors import MaterializationError
from .base import Spec
from .files import FileReader, FileWriter
from .mlmodel import check_all, write_mlmodel

__all__ = ["SavedModelMaterializer"]


class SavedModelMaterializer:
    """Modules with ``tf.function`` methods."""

    name: ClassVar[str] = "savedmodel"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = True
    instead: ClassVar[str] = ": a SavedModel is a program. Return a Keras model, or the variables in a dict"

    def save(self, value: Any, files: FileWriter) -> Spec:
        """The folder ``model``, as ``tf.saved_model.save`` writes it."""
        try:
            tf.saved_model.save(value, str(files.path("model")))
        except Exception as error:  # tracing runs the module's own functions
            raise MaterializationError(f"TensorFlow does not save it: {error}") from error
        about = {"model_type": "tf2-module", "saved_model_dir": "model", "code": None}
        size = sum(int(tf.size(part)) * part.dtype.size for part in getattr(value, "variables", ()))
        packages = ("tensorflow", "tensorflow-cpu", "numpy")
        write_mlmodel(files, "tensorflow", about, data=None, size=size, packages=packages, predicts=True)
        return {}

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The functions and variables."""
        check_all(files)
        return tf.saved_model.load(str(files.path("model")))

    def describe(self, value: Any) -> dict[str, Any]:
        """Numbers of parameters, and the shapes of variables."""
        variables = list(getattr(value, "variables", ()))
        return {"parameters": sum(int(tf.size(part)) for part in variables), "variables": len(variables)}
