from __future__ import annotations

import collections
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import attr
import attrs
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.materializers.registry import choose
from tailrace.materializers.testing import check_refused, check_round_trip, restored


@attrs.define
class Point:
    x: Any
    y: Any = attrs.field(factory=list)


@attrs.define
class Named(Point):
    name: str = "n"


@attrs.frozen
class Frozen:
    x: int = 1


@attrs.define(slots=False)
class Open:
    x: int = 1


@attr.s
class Old:
    x: Any = attr.ib(default=1)
    _hidden: Any = attr.ib(default=2)


@attr.s(hash=True, cache_hash=True)
class Hashed:
    x: Any = attr.ib(default="text, whose hash is another in every process")


@attrs.frozen(cache_hash=True)
class HashedInSlots:
    x: str = "text"


@attrs.define
class Lazy:
    x: int = 2

    @functools.cached_property
    def square(self) -> int:
        return self.x**2


@attrs.define
class Checked:
    x: int = attrs.field(validator=attrs.validators.gt(0))

    def __attrs_post_init__(self) -> None:
        self.x += 1


class Sub(Point):
    more = "more"


VALUES: dict[str, Callable[[], Any]] = {
    "with slots": lambda: Point(1, [1, (2,), {"a": float("nan")}]),
    "derived": lambda: Named(1, [2], "t"),
    "frozen": lambda: Frozen(2),
    "without slots": lambda: Open(3),
    "of the old kind": lambda: Old(1, 3),
    "derived without attrs": lambda: Sub(1),
    "in containers": lambda: {"a": [Point(Frozen(1))], "b": (Named(None),)},
    "holding frames": lambda: Point(pd.DataFrame({"a": [1]}), np.arange(3)),
}


@pytest.mark.parametrize("case", VALUES)
def test_an_object_comes_back_as_it_was(case: str) -> None:
    check_round_trip(VALUES[case]())


@given(st.recursive(st.none() | st.integers() | st.floats(), lambda inner: st.builds(Point, inner, st.lists(inner))))
def test_any_nesting_of_them_comes_back(value: Any) -> None:
    check_round_trip(value)


def test_attributes_that_were_added_and_what_was_remembered_are_kept() -> None:
    opened, lazy = Open(1), Lazy(3)
    opened.more = (1,)  # type: ignore[attr-defined]
    assert lazy.square == 9
    assert check_round_trip(opened).more == (1,)
    assert check_round_trip(lazy).square == 9


def test_neither_converters_nor_validators_nor_init_run_again() -> None:
    assert restored(Checked(1)).x == 2


def test_a_field_that_was_deleted_stays_deleted() -> None:
    value = Point(1)
    del value.y
    assert not hasattr(restored(value), "y")


@pytest.mark.parametrize("cls", [Hashed, HashedInSlots])
def test_a_remembered_hash_is_not_stored(cls: Any) -> None:
    value = cls("a")
    hash(value)
    loaded = check_round_trip(value, equal=lambda one, other: bool(one == other and hash(one) == hash(other)))
    assert {loaded} == {value}


def test_another_process_writes_the_same_hashed_object() -> None:
    code = (
        "import tempfile, pathlib, attr\n"
        "from tailrace.materializers.registry import save\n"
        "from tailrace.materializers.files import FileWriter\n"
        "@attr.s(hash=True, cache_hash=True)\n"
        "class Hashed: x = attr.ib()\n"
        "value = Hashed('text'); hash(value)\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    writer = FileWriter(pathlib.Path(folder)); save(value, writer); print(writer.finish())"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "12"
    ]
    assert found[0] == found[1]


def test_they_are_chosen_for_json_by_their_class() -> None:
    assert choose(Point).materializer == "plain"


@attrs.define
class Failure(Exception):
    code: int = 1


def test_a_base_class_with_memory_of_its_own_is_refused() -> None:
    check_refused(Failure(2), "Failure", "no exact form")


@pytest.mark.parametrize("factory", [collections.OrderedDict, collections.Counter, collections.deque])
def test_a_default_dict_of_containers_comes_back(factory: Any) -> None:
    value: Any = collections.defaultdict(factory, {"a": factory()})
    assert restored(value)["new"] == factory()
    check_round_trip(value)
