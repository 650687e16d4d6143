"""TensorFlow's tensors and variables as npy, and ``tf.data`` datasets as TFRecord: data only, no graph is kept.

A dataset is run once when it is saved; what comes back reads its elements, in that order, from the stored file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import tensorflow as tf

from ..core.errors import MaterializationError
from ..core.typenames import type_name
from .base import Spec, Unsavable
from .files import FileReader, FileWriter
from .numpy import NumpyMaterializer

__all__ = ["TensorflowMaterializer", "TfDataMaterializer"]

_RECORDS = "elements.tfrecord"


class TensorflowMaterializer:
    """``tf.Tensor`` with values, and ``tf.Variable``."""

    name: ClassVar[str] = "tensorflow"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """The files of NumPy. Raises MaterializationError for what has no plain values, and a variable that is more."""
        problem = _problem(value)
        if problem:
            raise MaterializationError(problem)
        spec: Spec = {"array": NumpyMaterializer().save(_array(value), files), "dtype": value.dtype.name}
        if isinstance(value, tf.Variable):
            spec["variable"] = {
                "name": value.name.partition(":")[0],
                "trainable": value.trainable,
                "shape": None if value.shape.rank is None else value.shape.as_list(),
            }
        return spec

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The tensor or variable, where TensorFlow puts new ones here."""
        array = NumpyMaterializer().load(files, spec["array"])
        tensor = tf.constant(array, tf.dtypes.as_dtype(spec["dtype"]))
        if "variable" not in spec:
            return tensor
        about = spec["variable"]
        shape = tf.TensorShape(about["shape"])
        return tf.Variable(tensor, trainable=about["trainable"], name=about["name"], shape=shape)

    def describe(self, value: Any) -> dict[str, Any]:
        """Shape, dtype and device."""
        about = {"shape": value.shape.as_list(), "dtype": value.dtype.name, "device": value.device}
        return about | ({"trainable": value.trainable} if isinstance(value, tf.Variable) else {})


def _problem(value: Any) -> str | None:
    """Why a tensor or variable could not be the same again; ``None`` if it can."""
    if type(value).__name__ not in ("EagerTensor", "ResourceVariable") or value.dtype.is_quantized:
        return f"it is a {type_name(type(value))} of {value.dtype.name}, which has no plain values"
    if not isinstance(value, tf.Variable):
        return None
    if value.constraint is not None:
        return "it has a constraint, which is code; return .value() of it"
    usual = tf.VariableSynchronization.AUTO, tf.VariableAggregation.NONE
    if (value.synchronization, value.aggregation) != usual:
        return "it is kept in step between devices (synchronization, aggregation); return .value() of it"
    return None


def _array(value: Any) -> Any:
    import numpy as np

    found = value.numpy()
    return np.asarray(found, object if value.dtype == tf.string else None)


class TfDataMaterializer:
    """``tf.data.Dataset`` with an end, whose elements are dense tensors in dicts, tuples and lists."""

    name: ClassVar[str] = "tf.data"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """The form of its elements, and how many there are."""
        form = _form(value.element_spec)
        if value.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise Unsavable("it is a tf.data.Dataset without an end; return .take(n) of it")
        path = str(files.path(_RECORDS))
        with tf.io.TFRecordWriter(path) as writer:
            count = 0
            for batch in value.map(_serialized).batch(256):  # one after the other: more threads were not faster
                for element in batch.numpy():
                    for part in element:
                        writer.write(part)
                    count += 1
        return {"form": form, "count": count}

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """A dataset that reads the verified file."""
        parts: list[Any] = []
        structure = _structure(spec["form"], parts)
        records = tf.data.TFRecordDataset(str(files.path(_RECORDS)))
        if not parts:
            raise MaterializationError("the stored elements have no tensors")

        @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
        def parse(element: Any) -> Any:
            tensors = [
                tf.ensure_shape(tf.io.parse_tensor(element[place], part.dtype), part.shape)
                for place, part in enumerate(parts)
            ]
            return tf.nest.pack_sequence_as(structure, tensors)

        elements = records.batch(len(parts), drop_remainder=True).map(parse)
        return elements.apply(tf.data.experimental.assert_cardinality(spec["count"]))

    def describe(self, value: Any) -> dict[str, Any]:
        """The form of its elements, and how many there are where TensorFlow knows."""
        known = int(value.cardinality())
        return {"element_spec": str(value.element_spec), **({"rows": known} if known >= 0 else {})}


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
def _serialized(*element: Any) -> Any:
    return tf.stack([tf.io.serialize_tensor(tensor) for tensor in tf.nest.flatten(element)])


def _form(spec: Any) -> Any:
    """The nested form of an element as JSON."""
    if type(spec) is dict and all(type(key) is str for key in spec):
        return {"dict": [[key, _form(item)] for key, item in spec.items()]}
    if type(spec) in (tuple, list):
        return {type(spec).__name__: [_form(item) for item in spec]}
    if type(spec) is not tf.TensorSpec:
        raise MaterializationError(
            f"its elements hold a {type_name(type(spec))}; dense tensors in dicts and tuples are kept. Map it to these"
        )
    shape = None if spec.shape.rank is None else spec.shape.as_list()
    return {"tensor": {"shape": shape, "dtype": spec.dtype.name}}


def _structure(form: Mapping[str, Any], parts: list[Any]) -> Any:
    """The structure that :func:`_form` was given; its tensors also in ``parts``, in the order that nest has."""
    if "dict" in form:
        items = dict(form["dict"])
        made = {key: _structure(items[key], parts) for key in sorted(items)}
        return {key: made[key] for key in items}
    for kind in (tuple, list):
        if kind.__name__ in form:
            return kind(_structure(item, parts) for item in form[kind.__name__])
    about = form["tensor"]
    parts.append(tf.TensorSpec(about["shape"], tf.dtypes.as_dtype(about["dtype"])))
    return parts[-1]
