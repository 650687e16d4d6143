from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="the extra keras is not installed")

from keras import layers  # noqa: E402

from tailrace import MaterializationError, Model  # noqa: E402
from tailrace.materializers.testing import check_refused, check_round_trip, restored  # noqa: E402

from . import made  # noqa: E402
from .made import digests, digests_of_another_process, loaded_with, saved_in  # noqa: E402

VALUES = made.keras()
own = __import__("keras_layers")


def arrays(variables: Any) -> list[bytes]:
    return [np.asarray(keras.ops.convert_to_numpy(part)).tobytes() for part in variables]


def without_addresses(config: Any) -> str:
    return re.sub(r', "shared_object_id": \d+', "", json.dumps(config, default=str))


def same(one: Any, other: Any) -> bool:
    facts = []
    for each in (one, other):
        optimizer = getattr(each, "optimizer", None)
        facts.append(
            (
                arrays(each.variables),
                [layer.trainable for layer in each.layers],
                optimizer and arrays(optimizer.variables),
                optimizer and without_addresses(each.get_compile_config()),
                [(type(layer), layer.name, layer.dtype_policy.name) for layer in each.layers],
            )
        )
    return bool(facts[0] == facts[1])


@pytest.mark.parametrize("name", VALUES)
def test_a_model_comes_back_with_the_same_bytes(name: str) -> None:
    check_round_trip(VALUES[name](), equal=same if name != "words" else lambda one, other: True)


def test_training_goes_on_as_if_nothing_had_happened() -> None:
    one = VALUES["fitted"]()
    other = restored(one)
    for model in (one, other):
        model.fit(np.ones((8, 4)), np.ones((8, 1)), shuffle=False, verbose=0)
    assert arrays(one.variables) == arrays(other.variables)


def test_a_layer_that_is_used_twice_stays_one() -> None:
    found = restored(VALUES["shared"]())
    assert [type(layer).__name__ for layer in found.layers] == ["InputLayer", "Dense", "Dropout"]


def test_a_vocabulary_is_kept() -> None:
    assert restored(VALUES["words"]()).layers[0].get_vocabulary() == ["[UNK]", "a", "b"]


def unregistered() -> Any:
    return keras.Sequential([keras.Input((4,)), own.Unregistered(), layers.Dense(2)])


def with_own_loss() -> Any:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    model.compile("sgd", lambda truth, found: keras.ops.mean(truth - found))
    return model


def refrozen() -> Any:
    model = VALUES["fitted"]()
    model.layers[0].trainable = False
    return model


def of_layers(*given: Any) -> Any:
    return keras.Sequential([keras.Input((4,)), *given])


def with_lora() -> Any:
    model = of_layers(layers.Dense(2, name="adapted"))
    model.layers[0].enable_lora(1)
    return model


def with_an_object() -> Any:
    model = VALUES["fitted"]()
    model.helper = Path("x")
    return model


def test_attributes_that_were_set_on_a_model_are_kept() -> None:
    model = VALUES["fitted"]()
    model.classes, model.limits, model.threshold = ["no", "yes"], np.ones(2), 0.3
    found = check_round_trip(model, equal=same)
    assert (list(found.classes), found.limits.tolist(), found.threshold) == (["no", "yes"], [1, 1], 0.3)


def test_what_changed_in_a_layer_after_it_was_made_is_kept() -> None:
    model = of_layers(own.Factor(name="own"))
    model.layers[0].factor = 9
    assert restored(model)(np.ones((1, 4), "f4")).numpy().tolist() == [[9] * 4]


def test_a_model_of_the_user_keeps_names_and_weights() -> None:
    model = own.Net()
    model(np.ones((1, 4), "f4"))
    found = check_round_trip(model, equal=same)
    assert (type(found), found.name, found.inner.name) == (own.Net, model.name, model.inner.name)


REFUSED = {
    "a Lambda layer": (
        lambda: keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x, name="odd")]),
        ["'odd'", "a lambda"],
    ),
    "a layer that is not registered": (unregistered, ["'Unregistered'", "register_keras_serializable"]),
    "a loss that is a lambda": (with_own_loss, ["code"]),
    "an optimizer of other variables": (refrozen, ["Compile the model again"]),
    "a layer alone": (lambda: layers.Dense(2), ["keras.Sequential"]),
    "an activation that is a lambda": (
        lambda: of_layers(layers.Dense(2, activation=lambda x: x, name="odd")),
        ["'odd'", "get_config()"],
    ),
    "an activation of keras.ops": (
        lambda: of_layers(layers.Dense(2, activation=keras.ops.sin, name="odd")),
        ["'odd'", "register_keras"],
    ),
    "a layer that its configuration does not make": (
        lambda: of_layers(own.Needs(np.ones(2), name="odd")),
        ["'odd'", "get_config"],
    ),
    "LoRA weights": (with_lora, ["'adapted'", "get_weights()"]),
    "an object set on a model": (with_an_object, ["'helper'", "beside the model"]),
}


@pytest.mark.parametrize(("make", "mentions"), REFUSED.values(), ids=REFUSED)
def test_what_could_not_be_the_same_is_refused_with_the_way_out(make: Any, mentions: list[str]) -> None:
    check_refused(make(), *mentions)


def test_another_process_writes_the_same_bytes() -> None:
    assert digests_of_another_process("keras") == digests("keras")


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_each_backend_writes_the_same_bytes_again(backend: str) -> None:
    pytest.importorskip(backend, reason=f"the backend {backend} is not installed")
    found = [digests_of_another_process("keras", KERAS_BACKEND=backend)["shared"] for _ in range(2)]
    assert found[0] == found[1]


def test_keras_and_mlflow_read_the_folder(tmp_path: Path) -> None:
    import mlflow.keras
    import mlflow.pyfunc

    model = VALUES["fitted"]()
    saved_in(tmp_path / "model", model)
    assert same(keras.saving.load_model(tmp_path / "model" / "model.keras"), model)
    assert same(mlflow.keras.load_model(str(tmp_path / "model")), model)
    data = np.ones((2, 4), "f4")
    found = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(data)
    assert np.allclose(found, model.predict(data, verbose=0))


def test_the_metadata_are_those_of_the_model(tmp_path: Path) -> None:
    model = VALUES["fitted"]()
    about = saved_in(tmp_path / "model", model)[0].metadata
    assert (about["parameters"], about["trainable_parameters"], about["layers"]) == (19, 19, {"Dense": 2})
    assert (about["optimizer"], about["loss"], about["dtype"]) == ("Adam", "mse", "float32")
    card = Model(model).describe()
    assert (card["framework"], card["parameters"], card["optimizer"], card["loss"]) == ("keras", 19, "Adam", "mse")


# ---- files of others


def edited(folder: Path, config: Any = None, **members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(folder / "model.keras") as source, zipfile.ZipFile(stream, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json" and config:
                content = json.dumps(config(json.loads(content))).encode()
            target.writestr(name, content)
        for name, content in members.items():
            target.writestr(name, content)
    return stream.getvalue()


LAMBDA = {"class_name": "__lambda__", "config": {"value": ["4wAAAA==", None, None]}}


def with_lambda(config: Any) -> Any:
    config["config"]["layers"][1]["config"]["activation"] = LAMBDA
    return config


def of_class(module: str, name: str, registered: str | None = None) -> Any:
    def change(config: Any) -> Any:
        config["config"]["layers"][1] |= {"module": module, "class_name": name, "registered_name": registered}
        return config

    return change


@pytest.mark.parametrize(
    "change",
    [
        with_lambda,
        of_class("os", "system"),
        of_class("subprocess", "Popen", "Popen"),
        of_class("keras.utils", "get_file"),
        of_class("keras.src.utils.file_utils", "get_file"),
        of_class("keras.layers", "Lambda"),
        of_class("keras_layers", "Unregistered", "Unregistered"),
    ],
)
def test_code_in_a_model_file_is_not_run(change: Any, tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "model", VALUES["fitted"]())
    with pytest.raises(MaterializationError):
        loaded_with(tmp_path / "model", saved, {"model.keras": edited(tmp_path / "model", change)})


@pytest.mark.parametrize("name", ["../outside", "assets/../../outside", "/outside", "assets/..\\outside", "more.json"])
def test_a_member_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "model", VALUES["fitted"]())
    with pytest.raises(MaterializationError, match="which Keras does not write"):
        loaded_with(tmp_path / "model", saved, {"model.keras": edited(tmp_path / "model", **{name: b"x"})})
    assert not list(tmp_path.rglob("outside"))


def test_a_file_that_is_no_archive_is_an_error(tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "model", VALUES["fitted"]())
    for content in (b"", b"\x89HDF\r\n\x1a\n" + bytes(100), b"\x80\x04cos\nsystem\n"):
        with pytest.raises(MaterializationError):
            loaded_with(tmp_path / "model", saved, {"model.keras": content})
