"""The artifact types: what they accept, what they find out by themselves, and that nothing is lost in between."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

from tailrace.core.assets import (
    Artifact,
    Asset,
    Checkpoint,
    Dataset,
    FeatureSet,
    Metrics,
    Model,
    Parameters,
    Prompt,
    Report,
)
from tailrace.core.errors import AssetError, TailraceError

FRAME = pd.DataFrame({"id": [1, 2, 3, 4, 5], "x": [0.5, 1.5, None, 2.5, 3.5], "label": list("abbab")})
COMMON: dict[str, Any] = {
    "name": "é/1",
    "version": "1.2",
    "tags": {"team": "blue"},
    "metadata": {"a": [1, {"b": None}]},
}

EVERY_TYPE = [
    Artifact(object(), **COMMON),
    Asset({"any": "thing"}, **COMMON),
    Checkpoint({"weights": [1.0]}, epoch=3, step=100, **COMMON),
    Dataset(FRAME, statistics=True, **COMMON),
    FeatureSet(FRAME, entities="id", **COMMON),
    Metrics({"loss": math.inf, "accuracy": 0.9}, step=7, **COMMON),
    Model(SimpleImputer(), serving_config={"cpu": 1}, input_schema={"x": "float"}, output_schema=["y"], **COMMON),
    Parameters({"layers": [1, 2], "name": "adam"}, **COMMON),
    Prompt("Hello {name}", **COMMON),
    Report("# Title", **COMMON),
]
BARE = [
    *(Artifact(1), Checkpoint({}), Dataset([1, 2]), FeatureSet({"a": [1]}), Metrics({}), Model(len), Parameters({})),
    *(Prompt([{"role": "user", "content": "{q}"}]), Report({"a": 1})),
]


def _state(asset: Asset) -> dict[str, object]:
    return {**vars(asset), "data": None}


@pytest.mark.parametrize("asset", EVERY_TYPE + BARE, ids=lambda asset: type(asset).__name__)
def test_an_asset_is_restored_from_its_parts_after_json(asset: Asset) -> None:
    data, header = asset.to_parts()
    restored = type(asset).from_parts(data, json.loads(json.dumps(header, allow_nan=False)))
    assert type(restored) is type(asset)
    assert restored.data is asset.data or restored.data == asset.data
    assert _state(restored) == _state(asset)


@pytest.mark.parametrize("asset", EVERY_TYPE, ids=lambda asset: type(asset).__name__)
def test_a_header_of_a_newer_version_is_read_without_what_is_not_known(asset: Asset) -> None:
    data, header = asset.to_parts()
    restored = type(asset).from_parts(data, {**header, "from_the_future": 1})
    assert _state(restored) == _state(asset)


@pytest.mark.parametrize("asset", EVERY_TYPE, ids=lambda asset: type(asset).__name__)
def test_create_takes_the_same_arguments_for_every_type(asset: Asset) -> None:
    made = type(asset).create(data=asset.data, parents=["id-1", asset], **COMMON)
    assert (made.name, made.version, made.tags, made.metadata) == tuple(COMMON.values())
    assert made.parents == ("id-1", asset)


@pytest.mark.parametrize("asset", BARE, ids=lambda asset: type(asset).__name__)
def test_a_bare_value_is_wrapped_and_an_asset_of_the_type_is_left_alone(asset: Asset) -> None:
    kind = type(asset)
    wrapped = kind.wrap(asset.data, name="out")
    assert type(wrapped) is kind
    assert wrapped.name == "out"
    assert kind.wrap(wrapped) is wrapped
    assert Asset.wrap(wrapped) is wrapped


@pytest.mark.parametrize(
    ("kind", "value", "named"),
    [
        (Metrics, 0.9, "float"),
        (Metrics, [("a", 1)], "list"),
        (Parameters, "lr=1", "str"),
        (Dataset, 3, "int"),
        (Model, None, "NoneType"),
        (Artifact, None, "NoneType"),
        (Prompt, [{"text": "x"}], "list"),
        (Report, 5, "int"),
        (Checkpoint, None, "NoneType"),
        (Model, Metrics(a=1), "Metrics"),
        (Metrics, Parameters(a=1), "Parameters"),
    ],
)
def test_wrapping_a_wrong_kind_names_both_types(kind: type[Asset], value: object, named: str) -> None:
    with pytest.raises(TypeError, match=rf"{kind.__name__}.*{named}") as caught:
        kind.wrap(value)
    assert isinstance(caught.value, TailraceError)


def test_metadata_that_json_cannot_hold_is_named_with_its_place() -> None:
    model = Model(len, name="m", metadata={"runs": [{"loss": math.nan}]})
    with pytest.raises(AssetError, match=r"Model 'm'\['metadata'\]\['runs'\]\[0\]\['loss'\] is nan"):
        model.to_parts()
    with pytest.raises(AssetError, match="key 1 of type 'int'"):
        Artifact(0, metadata={"a": {1: 2}}).to_parts()


def test_numpy_scalars_in_metadata_become_numbers() -> None:
    _, header = Artifact(0, metadata={"n": np.int64(3), "x": np.float32(0.5), "b": np.bool_(True)}).to_parts()
    assert json.dumps(header["metadata"]) == '{"n": 3, "x": 0.5, "b": true}'


def test_metadata_are_added_to_a_copy() -> None:
    first = Metrics({"a": 1}, metadata={"x": 1})
    second = first.with_metadata(y=2)
    assert (first.metadata, second.metadata) == ({"x": 1}, {"x": 1, "y": 2})
    assert second == first


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(AssetError, match="name of the Artifact is 3"):
        Artifact(1, 3)  # type: ignore[arg-type]  # the mistake under test


def test_the_text_of_an_asset_names_it_and_leaves_its_data_out() -> None:
    assert repr(Dataset(FRAME, "raw")) == "Dataset(name='raw', data=<pandas.DataFrame>)"


# Metrics and Parameters


@given(st.dictionaries(st.text(), st.floats() | st.integers()))
def test_metrics_are_a_mapping_of_exactly_their_numbers(values: dict[str, float]) -> None:
    metrics = Metrics(values)
    assert metrics == values
    assert list(metrics.items()) == list(values.items())
    assert len(metrics) == len(values)
    assert Metrics.from_parts(*metrics.to_parts()) == values


def test_metrics_take_keywords_and_turn_zero_dimensional_values_into_numbers() -> None:
    metrics = Metrics.create(accuracy=np.float32(0.5), n=np.int64(3), loss=np.array(2.0), name="eval")
    assert metrics == {"accuracy": 0.5, "n": 3, "loss": 2.0}
    assert [type(value) for value in metrics.values()] == [float, int, float]
    assert metrics.name == "eval"


def test_metrics_at_a_step_are_a_copy() -> None:
    metrics = Metrics(loss=1.0)
    assert (metrics.at_step(4).step, metrics.step) == (4, None)


@pytest.mark.parametrize("value", ["0.9", None, [0.9], np.array([1.0, 2.0]), 1j, {"b": 1}])
def test_a_metric_that_is_no_number_is_named(value: object) -> None:
    with pytest.raises(AssetError, match=r"Metrics 'm'\['f1'\] is .* not a number"):
        Metrics({"ok": 1, "f1": value}, name="m")


def test_parameters_hold_json_data_and_name_what_is_not() -> None:
    values = {"lr": math.inf, "betas": (0.9, np.float64(0.99)), "opt": {"name": "adam", "on": True, "x": None}}
    assert Parameters(values) == {**values, "betas": [0.9, 0.99]}
    with pytest.raises(AssetError, match=r"Parameters\['opt'\]\['fn'\] is .* 'builtin_function_or_method'"):
        Parameters({"opt": {"fn": len}})


# Model and Checkpoint


@pytest.mark.parametrize(
    ("bases", "framework"),
    [
        (["sklearn.base"], "sklearn"),
        (["xgboost.sklearn", "sklearn.base"], "xgboost"),
        (["__main__", "torch.nn.modules.module"], "torch"),
        (["transformers.modeling_utils", "torch.nn.modules.module"], "transformers"),
        (["keras.src.models", "tensorflow.python.module"], "keras"),
        (["onnx.onnx_ml_pb2"], "onnx"),
        (["lightgbm.basic"], "lightgbm"),
        (["catboost.core"], "catboost"),
        (["sklearn_extra.base"], "python"),
    ],
)
def test_the_framework_is_that_of_the_nearest_known_base(bases: list[str], framework: str) -> None:
    kind: type = object
    for module in reversed(bases):
        kind = type("Estimator", (kind,), {"__module__": module})
    assert Model(kind()).framework == framework
    assert Model(kind(), framework="mine").framework == "mine"


def test_a_model_describes_its_hyperparameters_and_whether_it_is_fitted() -> None:
    forest = RandomForestClassifier(n_estimators=3, random_state=np.random.RandomState(0))
    found = Model(make_pipeline(SimpleImputer(), forest)).describe()
    assert found["fitted"] is False
    assert found["hyperparameters"]["randomforestclassifier__n_estimators"] == 3
    assert found["hyperparameters"]["simpleimputer__missing_values"] == "nan"
    forest.fit(FRAME[["id", "x"]].fillna(0), FRAME["label"])
    found = Model(forest).describe()
    assert found["fitted"] is True
    assert list(found["feature_importances"]) == ["id", "x"]
    assert "0x" not in json.dumps(found, allow_nan=False)


def test_an_object_that_cannot_be_asked_is_described_by_its_class() -> None:
    class Odd(SimpleImputer):  # type: ignore[misc]  # scikit-learn has no types
        def get_params(self, deep: bool = True) -> dict[str, object]:
            raise RuntimeError("not today")

        def __sklearn_is_fitted__(self) -> bool:
            raise RuntimeError("not today")

    assert set(Model(Odd()).describe()) == {"framework", "class"}


def test_a_checkpoint_knows_where_the_training_was() -> None:
    checkpoint = Checkpoint({"w": 1}, 3, 120, name="last")
    assert (checkpoint.state, checkpoint.epoch, checkpoint.step) == ({"w": 1}, 3, 120)


# Dataset and FeatureSet

TABLES = [
    (FRAME, "pandas", {"id": "int64", "x": "float64", "label": "str"}, 5, 3),
    (pa.table({"a": [1, 2], "b": ["x", None]}), "arrow", {"a": "int64", "b": "string"}, 2, 2),
    (np.zeros((4, 2), "float32"), "numpy", {"shape": [4, 2], "dtype": "float32"}, 4, 2),
    ({"a": [1, 2], "b": np.arange(2)}, "dict", {"a": "list", "b": "int64"}, 2, 2),
    ([{"a": 1}, {"a": 2, "b": "x"}], "records", {"a": "int", "b": "str"}, 2, 2),
    ([1, 2, 3], "list", None, 3, None),
    (pd.Series([1, 2]), "pandas", {"shape": [2], "dtype": "int64"}, 2, None),
    (FRAME.iloc[:0], "pandas", {"id": "int64", "x": "float64", "label": "str"}, 0, 3),
]


@pytest.mark.parametrize(("data", "format", "schema", "rows", "columns"), TABLES)
def test_format_schema_and_size_are_detected(
    data: object, format: str, schema: dict[str, object] | None, rows: int, columns: int | None
) -> None:
    dataset = Dataset(data)
    assert (dataset.format, dataset.schema) == (format, schema)
    assert (len(dataset), dataset.statistics.get("rows"), dataset.statistics.get("columns")) == (rows, rows, columns)
    assert dataset  # also when it is empty


@pytest.mark.parametrize("data", [table[0] for table in TABLES])
def test_the_parts_of_a_split_are_all_rows_once_and_in_order(data: object) -> None:
    dataset = Dataset(data, "raw")
    train, test = dataset.split(0.6, seed=3)
    assert (train.name, test.name) == ("raw-train", "raw-test")
    assert type(train.data) is type(data)
    assert len(train) + len(test) == len(dataset)
    assert (train.statistics["rows"], test.statistics["rows"]) == (len(train), len(test))
    again = dataset.split(0.6, seed=3)
    assert [repr(part.data) for part in again] == [repr(train.data), repr(test.data)]


@given(rows=st.integers(0, 60), train=st.floats(0.01, 0.99), seed=st.integers())
def test_a_split_chooses_the_same_rows_of_any_kind_of_data(rows: int, train: float, seed: int) -> None:
    kinds = [list(range(rows)), np.arange(rows), pd.Series(range(rows), dtype="int64"), pa.array(range(rows), "int64")]
    chosen = [
        [[int(str(row)) for row in part.data] for part in Dataset(data).split(train, seed=seed)] for data in kinds
    ]
    first, rest = chosen[0]
    assert chosen == [[first, rest]] * len(kinds)
    assert sorted(first + rest) == list(range(rows))
    assert first == sorted(first)
    assert len(first) == round(rows * train)


def test_the_rows_that_a_seed_chooses_are_always_the_same() -> None:
    train, test = Dataset(list(range(10))).split(0.7, seed=42)
    assert (train.data, test.data) == ([0, 1, 4, 5, 6, 8, 9], [2, 3, 7])


def test_what_has_no_rows_cannot_be_split() -> None:
    with pytest.raises(AssetError, match="not known"):
        Dataset("data.csv").split()
    with pytest.raises(AssetError, match="between 0 and 1"):
        Dataset([1, 2]).split(1.0)
    with pytest.raises(AssetError, match="cannot be split"):
        Dataset({1, 2, 3}).split()


def test_statistics_of_every_column_are_made_only_when_asked_for() -> None:
    assert "by_column" not in Dataset(FRAME).statistics
    found = Dataset(FRAME, statistics=True).statistics["by_column"]
    assert found == {
        "id": {"missing": 0, "min": 1, "max": 5, "mean": 3.0, "std": pytest.approx(1.5811, abs=1e-4)},
        "x": {"missing": 1, "min": 0.5, "max": 3.5, "mean": 2.0, "std": pytest.approx(1.2910, abs=1e-4)},
        "label": {"missing": 0, "distinct": 2},
    }


@pytest.mark.parametrize(
    "data",
    [
        FRAME,
        FRAME.astype({"id": "Int64", "x": "Float64"}),
        FRAME.convert_dtypes(dtype_backend="pyarrow").astype({"id": "int64[pyarrow]", "x": "double[pyarrow]"}),
        pa.Table.from_pandas(FRAME),
        FRAME.to_dict("list"),
        FRAME.to_dict("records"),
        FRAME.to_records(index=False),
    ],
    ids=["pandas", "nullable", "pyarrow-backed", "arrow", "dict", "records", "structured"],
)
def test_statistics_agree_whatever_library_holds_the_data(data: object) -> None:
    found = Dataset(data, statistics=True).to_parts()[1]["statistics"]["by_column"]
    expected = Dataset(FRAME, statistics=True).statistics["by_column"]
    assert found == {
        name: {key: pytest.approx(value) for key, value in column.items()} for name, column in expected.items()
    }


def test_statistics_without_an_answer_are_left_out() -> None:
    odd = {"empty": [], "nan": [math.nan], "lists": [[1], [2]], "infinite": [math.inf, 1.0], "big": [10**400, 1]}
    found = Dataset(odd, statistics=True).statistics["by_column"]
    assert found["empty"] == {"missing": 0}
    assert found["nan"] == {"missing": 1}
    assert found["lists"] == {"missing": 0, "distinct": None}
    assert found["infinite"] == {"missing": 0, "min": 1.0, "max": None, "mean": None, "std": None}
    assert found["big"] == {"missing": 0, "min": 1, "max": 10**400, "mean": None, "std": None}
    json.dumps(found, allow_nan=False)


def test_a_dataset_of_a_file_is_the_file(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "raw.csv", index=False)
    dataset = Dataset(str(tmp_path / "raw.csv"))
    assert (dataset.format, dataset.data) == ("csv", tmp_path / "raw.csv")
    assert Dataset(tmp_path).format == "directory"
    assert Dataset("s3://bucket/x.parquet").data == "s3://bucket/x.parquet"


def test_files_are_read_and_named_for_themselves(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "raw.csv", index=False)
    FRAME.to_parquet(tmp_path / "raw.parquet")
    csv = Dataset.from_csv(tmp_path / "raw.csv", usecols=["id"])
    assert (csv.name, list(csv.data), csv.format) == ("raw", ["id"], "pandas")
    assert Dataset.from_parquet(tmp_path / "raw.parquet", name="mine").name == "mine"


def test_features_are_the_columns_that_are_neither_entity_nor_timestamp() -> None:
    features = FeatureSet(FRAME, "f", entities="id", timestamp="x")
    assert (features.entities, features.features) == (["id"], ["label"])
    train, _ = features.split()
    assert (type(train), train.entities) == (FeatureSet, ["id"])
    with pytest.raises(AssetError, match="no column 'user'"):
        FeatureSet(FRAME, entities=["user"])


# Report and Prompt


@pytest.mark.parametrize(
    ("content", "format"),
    [
        ("  <!DOCTYPE html><p>x", "html"),
        ("<div>x</div>", "html"),
        ("# Title\n<b>x</b>", "markdown"),
        ("<3 this", "markdown"),
        ("", "markdown"),
        ('{"a": 1}', "json"),
        ("[link](x)", "markdown"),
        ({"a": 1}, "json"),
        ([1], "json"),
        (b"%PDF-1.7", "pdf"),
        (Path("x.HTM"), "html"),
    ],
)
def test_the_format_of_a_report_is_detected(content: object, format: str) -> None:
    report = Report(content)
    assert (report.format, report.content) == (format, content)
    assert Report(content, "markdown").format == "markdown"


def test_a_format_that_is_not_known_is_refused() -> None:
    with pytest.raises(AssetError, match="Did you mean 'html'"):
        Report("x", "htm")
    with pytest.raises(AssetError, match="no PDF"):
        Report(b"\x00")
    with pytest.raises(AssetError, match=r"'\.docx'"):
        Report(Path("x.docx"))


def test_a_prompt_fills_in_its_variables_and_nothing_else() -> None:
    prompt = Prompt('Say {greeting} to {name}, {name}; keep {{name}}, {"json": 1} and {0}.')
    assert prompt.variables == ("greeting", "name")
    assert prompt.render(greeting="{name}", name="Eve", unused=1) == (
        'Say {name} to Eve, Eve; keep {name}, {"json": 1} and {0}.'
    )


def test_chat_messages_are_rendered_one_by_one() -> None:
    messages = [{"role": "system", "content": "Be {tone}."}, {"role": "user", "content": [{"type": "image"}]}]
    prompt = Prompt(messages)
    assert prompt.render(tone="kind") == [{"role": "system", "content": "Be kind."}, messages[1]]
    assert prompt.data == messages


def test_a_variable_without_a_value_is_named() -> None:
    with pytest.raises(AssetError, match=r"prompt 'p' needs a value for 'b', 'c'"):
        Prompt("{a} {b} {c}", name="p").render(a=1)


def test_detection_imports_nothing() -> None:
    code = (
        "import sys; from tailrace.core.assets import Dataset, Model, Metrics; "
        "Dataset({'a': [1]}, statistics=True).split(); Model(len).describe(); Metrics(a=1).to_parts(); "
        "print(sorted({'numpy', 'pandas', 'pyarrow', 'sklearn', 'polars', 'torch'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
