from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tailrace import MaterializationError
from tailrace.materializers.testing import check_refused, check_round_trip, restored

from . import libraries
from .libraries import digests, digests_of_another_process, loaded_with, saved_in


@pytest.fixture
def model() -> Any:
    return libraries.onnx()["model"]()


def test_a_model_comes_back_with_the_same_bytes(model: Any) -> None:
    assert check_round_trip(model) == model


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(st.sampled_from([np.dtype(d) for d in ("f4", "f8", "i8", "?", "u1")]), hnp.array_shapes(min_dims=0)),
    st.text(st.characters(codec="utf-8")),
)
def test_any_weights_and_names_come_back(weights: Any, name: str) -> None:
    from onnx import helper, numpy_helper

    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(weights, "w")], doc_string=name)
    check_round_trip(helper.make_model(graph, producer_name=name))


def test_another_process_writes_the_same_bytes() -> None:
    assert digests_of_another_process("onnx") == digests("onnx")


def test_onnx_and_mlflow_read_the_folder(model: Any, tmp_path: Path) -> None:
    import mlflow.onnx

    model.graph.output[0].type.tensor_type.shape.dim.add(dim_param="rows")
    saved_in(tmp_path / "model", model)
    assert onnx.load(tmp_path / "model" / "model.onnx") == model
    assert mlflow.onnx.load_model(str(tmp_path / "model")) == model


@pytest.mark.filterwarnings("default")
def test_mlflow_runs_it(model: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="it runs models, which Tailrace does not need")
    import mlflow.pyfunc

    saved_in(tmp_path / "model", model)
    found = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(np.ones((1, 4), "f4"))
    assert found["y"].tolist() == [[12.0, 16.0]]


def test_the_metadata_are_those_of_the_model(model: Any, tmp_path: Path) -> None:
    about = saved_in(tmp_path / "model", model)[0].metadata
    assert about["producer"] == "tests"
    assert about["opsets"] == {"ai.onnx": 17}
    assert about["inputs"] == {"x": "float[rows, 4]"}
    assert about["outputs"] == {"y": "float"}
    assert (about["nodes"], about["parameters"]) == (2, 8)


def outside(tensor: Any, place: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)


def test_weights_in_another_file_are_refused_when_saved_and_when_loaded(model: Any, tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "model", model)
    outside(model.graph.initializer[0], "../../secret")
    check_refused(model, "its tensor 'w' is in another file", "Path")
    with pytest.raises(MaterializationError, match="another file"):
        loaded_with(tmp_path / "model", saved, {"model.onnx": model.SerializeToString()})


def test_weights_in_another_file_are_found_in_attributes_of_inner_graphs(model: Any) -> None:
    node = model.graph.node.add(op_type="If")
    inner = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g
    constant = inner.node.add(op_type="Constant").attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    constant.t.name = "deep"
    outside(constant.t, "weights.bin")
    check_refused(model, "'deep'")


@pytest.mark.parametrize("content", [b"\x80\x04cos\nsystem\n", b"\xff" * 50])
def test_a_file_that_is_no_model_is_an_error(content: bytes, model: Any, tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "model", model)
    with pytest.raises(MaterializationError):
        loaded_with(tmp_path / "model", saved, {"model.onnx": content})


def test_fields_of_a_newer_onnx_are_kept(model: Any) -> None:
    newer = onnx.ModelProto.FromString(model.SerializeToString() + b"\xfa\x7d\x03new")
    assert restored(newer).SerializeToString().endswith(b"new")
