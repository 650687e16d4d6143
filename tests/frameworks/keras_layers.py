"""A Keras layer of a user, registered."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable("tests")
class Twice(keras.layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x * 2


@keras.saving.register_keras_serializable("tests")
class Factor(keras.layers.Layer):  # type: ignore[misc]
    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.factor = 1

    def call(self, x: Any) -> Any:
        return x * self.factor


@keras.saving.register_keras_serializable("tests")
class Needs(keras.layers.Layer):  # type: ignore[misc]
    """What it is made of is no part of its configuration."""

    def __init__(self, weights: Any, **common: Any) -> None:
        super().__init__(**common)
        self.given = weights

    def call(self, x: Any) -> Any:
        return x


@keras.saving.register_keras_serializable("tests")
class Net(keras.Model):  # type: ignore[misc]
    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.inner = keras.layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.inner(x)


class Unregistered(keras.layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x * 2
