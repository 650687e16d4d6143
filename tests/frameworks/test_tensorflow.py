from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="the extra tensorflow is not installed")

from tailrace import Dataset, MaterializationError, PickleNotAllowed  # noqa: E402
from tailrace.materializers.testing import check_refused, check_round_trip, restored  # noqa: E402

from . import made  # noqa: E402
from .made import digests, digests_of_another_process, loaded_with, saved_in  # noqa: E402

VALUES = made.tensorflow()
STREAMS = ["range", "batches", "nested", "filtered"]


def same(one: Any, other: Any) -> bool:
    facts = [(type(each), each.dtype, each.shape.as_list(), np.asarray(each.numpy()).tolist()) for each in (one, other)]
    return repr(facts[0]) == repr(facts[1])


def elements(stream: Any) -> Any:
    return [tf.nest.map_structure(lambda part: np.asarray(part).tolist(), item) for item in stream.as_numpy_iterator()]


def same_stream(one: Any, other: Any) -> bool:
    return bool(one.element_spec == other.element_spec) and bool(elements(one) == elements(other))


@pytest.mark.parametrize("name", [name for name in VALUES if name not in STREAMS])
def test_a_tensor_comes_back_with_the_same_bytes(name: str) -> None:
    check_round_trip(VALUES[name](), equal=same)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"constraint": tf.nn.relu}, "a constraint, which is code"),
        ({"synchronization": tf.VariableSynchronization.ON_READ}, "between devices"),
        ({"aggregation": tf.VariableAggregation.SUM}, "between devices"),
    ],
)
def test_a_variable_that_would_lose_something_is_refused(given: dict[str, Any], told: str) -> None:
    check_refused(tf.Variable([1.0], **given), told, ".value()")


def test_a_variable_keeps_its_name_shape_and_flag() -> None:
    found = restored(VALUES["variable"]())
    assert (found.name, found.trainable, found.shape.as_list()) == ("w:0", False, [None, 2])


def parts(value: Any) -> Any:
    return [(part.dtype, part.numpy().tolist()) for part in tf.nest.flatten(value, expand_composites=True)]


PARTED = {
    "ragged": lambda: tf.ragged.constant([[1, 2], [3]]),
    "ragged twice": lambda: tf.ragged.constant([[[1.0], [2.0, 3.0]], [[3.0]]], row_splits_dtype=tf.int32),
    "ragged text": lambda: tf.strings.split(["a b", "c"]),
    "sparse": lambda: tf.sparse.from_dense([[0, 1], [2, 0]]),
}


@pytest.mark.parametrize("name", PARTED)
def test_a_ragged_or_sparse_tensor_comes_back_in_its_parts(name: str) -> None:
    value = PARTED[name]()
    found = check_round_trip(value, equal=lambda one, other: parts(one) == parts(other))
    assert tf.type_spec_from_value(found) == tf.type_spec_from_value(value)


def test_a_stream_of_ragged_and_sparse_tensors_comes_back() -> None:
    rows = {"ragged": PARTED["ragged"](), "a": tf.constant([1, 2]), "sparse": PARTED["sparse"]()}
    value = tf.data.Dataset.from_tensor_slices(rows).batch(2)
    found = check_round_trip(value, equal=lambda one, other: [*map(parts, one)] == [*map(parts, other)])
    assert found.element_spec == value.element_spec


def test_a_variable_of_any_rank_stays_one() -> None:
    assert restored(tf.Variable([1.0], shape=tf.TensorShape(None))).shape.rank is None


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_comes_back_with_its_elements_and_their_form(name: str) -> None:
    check_round_trip(VALUES[name](), equal=same_stream)


def test_the_number_of_elements_is_known_afterwards() -> None:
    assert int(restored(VALUES["filtered"]()).cardinality()) == 2


REFUSED = {
    "a dataset without an end": (lambda: tf.data.Dataset.range(3).repeat(), "take(n)"),
    "a dataset of rows of a ragged tensor": (
        lambda: tf.data.Dataset.from_tensor_slices(tf.ragged.constant([[1], [2, 3]])),
        ".batch(n)",
    ),
    "a dataset of datasets": (lambda: tf.data.Dataset.range(4).window(2), "DatasetSpec"),
    "a ragged tensor with rows of one length": (
        lambda: tf.RaggedTensor.from_uniform_row_length(tf.range(4), 2),
        ".to_tensor()",
    ),
    "a handle": (lambda: tf.Variable(1.0).handle, "no plain values"),
    "a variant": (lambda: tf.data.experimental.to_variant(tf.data.Dataset.range(2)), "no plain values"),
    "a quantized tensor": (
        lambda: tf.quantization.quantize(tf.constant([1.0]), 0.0, 1.0, tf.qint8).output,
        "no plain values",
    ),
}


@pytest.mark.parametrize(("make", "mentions"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_exact_form_is_refused(make: Any, mentions: str) -> None:
    check_refused(make(), mentions)


def test_another_process_writes_the_same_bytes() -> None:
    assert digests_of_another_process("tensorflow") == digests("tensorflow")


def test_the_metadata_are_those_of_the_stream(tmp_path: Path) -> None:
    assert saved_in(tmp_path / "stream", VALUES["range"]())[0].metadata["rows"] == 5
    assert Dataset(VALUES["range"]()).format == "tf.data"


def test_a_stream_is_saved_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved_in(tmp_path / "stream", VALUES["range"]())


@pytest.mark.parametrize("content", [b"\xff" * 64, b"\x80\x04cos\nsystem\n"])
def test_records_that_are_none_are_an_error(content: bytes, tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "stream", VALUES["range"]())
    with pytest.raises((MaterializationError, tf.errors.OpError)):
        elements(loaded_with(tmp_path / "stream", saved, {"elements.tfrecord": content}))


class Scaled(tf.Module):  # type: ignore[misc, name-defined]  # its library may be missing
    def __init__(self) -> None:
        super().__init__()
        self.factor = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32)])  # type: ignore[untyped-decorator]
    def __call__(self, x: Any) -> Any:
        return x * self.factor


def test_a_saved_model_is_a_program_and_needs_permission(tmp_path: Path) -> None:
    data = tf.ones([1, 3])
    check_refused(Scaled(), "allow_pickle", "Keras")
    found = check_round_trip(
        Scaled(),
        equal=lambda one, other: bool(tf.reduce_all(one(data) == other(data))),
        allow_pickle="fallback",
        deterministic=False,
    )
    assert found.factor.numpy() == 2.0
    saved, _ = saved_in(tmp_path / "model", Scaled(), allow_pickle="always")
    with pytest.raises(PickleNotAllowed):
        loaded_with(tmp_path / "model", saved, {})


def test_mlflow_runs_a_saved_model(tmp_path: Path) -> None:
    import mlflow.pyfunc

    saved_in(tmp_path / "model", Scaled(), allow_pickle="always")
    found = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(np.ones((1, 3), "f4"))
    assert np.asarray(found).tolist() == [[2.0, 2.0, 2.0]]
