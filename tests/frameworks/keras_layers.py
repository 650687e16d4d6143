"""A Keras layer of a user, registered."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable("tests")
class Twice(keras.layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x * 2


class Unregistered(keras.layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x * 2
