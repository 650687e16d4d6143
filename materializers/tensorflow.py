"""TensorFlow's tensors and variables as npy, and ``tf.data`` datasets as TFRecord: data only, no graph is kept.

A dataset is run once when it is saved; what comes back reads its elements, in that order, from the stored file. A
ragged or sparse tensor is stored as a dataset of this one element.
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
    """``tf.Tensor`` with values, ``tf.Variable``, ``tf.RaggedTensor`` and ``tf.SparseTensor``."""

    name: ClassVar[str] = "tensorflow"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """The files of NumPy. Raises MaterializationError for what has no plain values, and a variable that is more."""
        if isinstance(value, _PARTED):
            if _is_uniform(value):
                raise MaterializationError("it is ragged with rows of one length; return its .to_tensor()")
            return {"element": TfDataMaterializer().save(tf.data.Dataset.from_tensors(value), files)}
        problem = _problem(value)
        if problem:
            raise MaterializationError(problem)
        spec: Spec = {"array": NumpyMaterializer().save(_array(value), files), "dtype": value.dtype.name}
        if isinstance(value, tf.Variable):
            spec["variable"] = {
                "name": value.name.partition(":")[0],
                "trainable": value.trainable,
                "shape": _sizes(value.shape),
            }
        return spec

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The tensor or variable, where TensorFlow puts new ones here."""
        if "element" in spec:
            return TfDataMaterializer().load(files, spec["element"]).get_single_element()
        array = NumpyMaterializer().load(files, spec["array"])
        tensor = tf.constant(array, tf.dtypes.as_dtype(spec["dtype"]))
        if "variable" not in spec:
            return tensor
        about = spec["variable"]
        shape = tf.TensorShape(about["shape"])
        return tf.Variable(tensor, trainable=about["trainable"], name=about["name"], shape=shape)

    def describe(self, value: Any) -> dict[str, Any]:
        """Shape, dtype and device."""
        about = {"shape": _sizes(value.shape), "dtype": value.dtype.name, "device": getattr(value, "device", "")}
        return about | ({"trainable": value.trainable} if isinstance(value, tf.Variable) else {})


_PARTED = (tf.RaggedTensor, tf.SparseTensor)


def _sizes(shape: Any) -> list[int | None] | None:
    sizes: list[int | None] | None = None if shape.rank is None else shape.as_list()
    return sizes


def _is_uniform(value: Any) -> bool:
    """Whether a ragged tensor knows that its rows have one length, which a dataset of it forgets."""
    rows = isinstance(value, tf.RaggedTensor)
    return rows and (value.uniform_row_length is not None or _is_uniform(value.values))


def _problem(value: Any) -> str | None:
    """Why a tensor or variable could not be the same again; ``None`` if it can."""
    known = type(value).__name__ in ("EagerTensor", "ResourceVariable")
    if not known or value.dtype.is_quantized or value.dtype in (tf.resource, tf.variant):
        return f"it is a {type_name(type(value))} of {value.dtype}, which has no plain values; return its .numpy()"
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
    """``tf.data.Dataset`` with an end, whose elements are tensors, also ragged and sparse, in dicts, tuples, lists."""

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
        structure = _structure(spec["form"])
        parts = tf.nest.flatten(structure, expand_composites=True)
        records = tf.data.TFRecordDataset(str(files.path(_RECORDS)))
        if not parts:
            raise MaterializationError("the stored elements have no tensors")

        @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
        def parse(element: Any) -> Any:
            tensors = [
                tf.ensure_shape(tf.io.parse_tensor(element[place], part.dtype), part.shape)
                for place, part in enumerate(parts)
            ]
            return tf.nest.pack_sequence_as(structure, tensors, expand_composites=True)

        elements = records.batch(len(parts), drop_remainder=True).map(parse)
        return elements.apply(tf.data.experimental.assert_cardinality(spec["count"]))

    def describe(self, value: Any) -> dict[str, Any]:
        """The form of its elements, and how many there are where TensorFlow knows."""
        known = int(value.cardinality())
        return {"element_spec": str(value.element_spec), **({"rows": known} if known >= 0 else {})}


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
def _serialized(*element: Any) -> Any:
    return tf.stack([tf.io.serialize_tensor(tensor) for tensor in tf.nest.flatten(element, expand_composites=True)])


def _form(spec: Any) -> Any:
    """The nested form of an element as JSON."""
    if type(spec) is dict and all(type(key) is str for key in spec):
        return {"dict": [[key, _form(item)] for key, item in spec.items()]}
    if type(spec) in (tuple, list):
        return {type(spec).__name__: [_form(item) for item in spec]}
    if type(spec) is tf.RaggedTensorSpec and not spec.ragged_rank:
        raise MaterializationError("its elements are rows of a ragged tensor, which .batch(n) of it would keep")
    if type(spec) is tf.RaggedTensorSpec and spec.flat_values_spec is None:
        more = {"ragged": spec.ragged_rank, "splits": spec.row_splits_dtype.name}
    elif type(spec) in (tf.TensorSpec, tf.SparseTensorSpec):
        more = {"sparse": True} if type(spec) is tf.SparseTensorSpec else {}
    else:
        raise MaterializationError(
            f"its elements hold a {type_name(type(spec))}; tensors in dicts, tuples and lists are kept. Map it to these"
        )
    return {"tensor": {"shape": _sizes(spec.shape), "dtype": spec.dtype.name, **more}}


def _structure(form: Mapping[str, Any]) -> Any:
    """The structure that :func:`_form` was given."""
    if "dict" in form:
        return {key: _structure(item) for key, item in form["dict"]}
    for kind in (tuple, list):
        if kind.__name__ in form:
            return kind(_structure(item) for item in form[kind.__name__])
    about = form["tensor"]
    shape, dtype = about["shape"], tf.dtypes.as_dtype(about["dtype"])
    if "ragged" in about:
        return tf.RaggedTensorSpec(shape, dtype, about["ragged"], tf.dtypes.as_dtype(about["splits"]))
    return (tf.SparseTensorSpec if "sparse" in about else tf.TensorSpec)(shape, dtype)
