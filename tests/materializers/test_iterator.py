"""Iterators are stored while they run, and come back as generators, in bounded memory at both ends."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace import (
    ArtifactNotFound,
    IntegrityError,
    LocalArtifactStore,
    MaterializationError,
    StepFailed,
    pipeline,
    step,
)
from tailrace.materializers.testing import check_refused, restored


@pytest.fixture
def store(project: Path) -> LocalArtifactStore:
    return LocalArtifactStore(project / "store", durable=False)


def counted(stop: int) -> Iterator[int]:
    yield from range(stop)


ITERATORS: dict[str, Callable[[], Iterator[Any]]] = {
    "a generator": lambda: counted(25_000),
    "nothing": lambda: counted(0),
    "a map": lambda: map(str, range(3)),
    "a filter": lambda: filter(None, [0, 1, 2]),
    "a zip": lambda: zip("ab", [1, 2], strict=True),
    "an enumeration": lambda: enumerate("ab"),
    "a reversed list": lambda: reversed([1, 2]),
    "the iterator of a list": lambda: iter([(1,), {2}]),
    "the items of a dict": lambda: iter({"a": 1}.items()),
    "a chain": lambda: itertools.chain([1], ["a", None]),
    "a product": lambda: itertools.product([1, 2], "ab"),
    "texts": lambda: (letter * 1000 for letter in "abc" * 5000),
    "records": lambda: ({"row": row, "x": [row / 2]} for row in range(30_000)),
}


@pytest.mark.parametrize("case", ITERATORS)
def test_every_item_comes_back_in_order(case: str, store: LocalArtifactStore) -> None:
    store.save(ITERATORS[case](), "items")
    loaded = store.load("items")
    assert type(loaded).__name__ == "generator"
    assert list(loaded) == list(ITERATORS[case]())


@given(st.lists(st.none() | st.integers() | st.text() | st.binary() | st.tuples(st.floats(allow_nan=False))))
def test_any_items_come_back(items: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tailrace.materializers.iterator._ITEMS", 2)
        assert list(_kept(iter(items))) == items


def _kept(value: Iterator[Any]) -> list[Any]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = LocalArtifactStore(folder, durable=False)
        store.save(value, "items")
        return list(store.load("items"))


def test_frames_and_arrays_come_back_each_in_its_format(store: LocalArtifactStore) -> None:
    store.save((pd.DataFrame({"a": [number]}) for number in range(3)), "frames")
    store.save((np.full(3, number) for number in range(3)), "arrays")
    assert [frame["a"].tolist() for frame in store.load("frames")] == [[0], [1], [2]]
    assert [array.tolist() for array in store.load("arrays")] == [[0] * 3, [1] * 3, [2] * 3]
    names = [entry.path for entry in store.manifest("frames").files]
    assert sum(name.endswith(".parquet") for name in names) == 3


def test_the_same_items_have_the_same_digest(store: LocalArtifactStore) -> None:
    refs = []
    for name in ("one", "two"):
        store.save(counted(10), name)
        refs.append(store.ref(name).digest)
    assert refs[0] == refs[1]


def test_neither_end_holds_more_than_a_chunk(store: LocalArtifactStore) -> None:
    megabytes = 60

    def arrays() -> Iterator[Any]:
        for number in range(megabytes):
            yield np.full(125_000, number, "f8")

    for act in (lambda: store.save(arrays(), "items"), lambda: sum(int(one[0]) for one in store.load("items"))):
        tracemalloc.start()
        act()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 30_000_000


def test_an_error_of_the_iterator_is_its_own_and_nothing_is_stored(store: LocalArtifactStore) -> None:
    def broken() -> Iterator[int]:
        yield from range(20_000)
        raise ZeroDivisionError("after many items")

    with pytest.raises(ZeroDivisionError, match="after many items"):
        store.save(broken(), "items")
    assert store.list_artifacts() == []
    with pytest.raises(ArtifactNotFound):
        store.load("items")


def test_an_item_that_cannot_be_stored_is_named(store: LocalArtifactStore) -> None:
    with pytest.raises(MaterializationError, match=r"value at \[1:2\] at \[0\]"):
        store.save(iter([1, print]), "items")


def test_a_damaged_chunk_is_found_when_the_iteration_comes_to_it(store: LocalArtifactStore) -> None:
    store.save(counted(25_000), "items")
    files = sorted((store.base_path / "items").rglob("*.json"))
    last = next(file for file in files if "/000002/" in str(file))
    last.chmod(0o644)
    last.write_bytes(b"[7" + last.read_bytes()[2:])
    loaded = store.load("items")
    assert list(itertools.islice(loaded, 20_000)) == list(range(20_000))
    with pytest.raises(IntegrityError, match="000002"):
        next(loaded)


def test_it_may_be_inside_a_container() -> None:
    back = restored({"numbers": counted(3), "name": "n"})
    assert back["name"] == "n"
    assert type(back["numbers"]).__name__ == "generator"


async def arriving() -> AsyncIterator[int]:
    yield 1


def test_what_only_a_loop_can_run_is_refused() -> None:
    check_refused(arriving(), "async_generator", "exist only once")


def test_a_step_may_return_a_generator_and_another_take_it(project: Path) -> None:
    @step
    def rows(count: int) -> Iterator[dict[str, int]]:
        for row in range(count):
            yield {"row": row}

    @step
    def total(rows: Iterator[dict[str, int]]) -> int:
        return sum(row["row"] for row in rows)

    @pipeline
    def streams(count: int = 12_000) -> None:
        total(rows(count))

    assert streams.run(orchestrator="inline").outputs["total"] == sum(range(12_000))

    @step
    def each(row: Any) -> Any:
        return row

    @pipeline
    def fans() -> None:
        each.map(rows(2))

    with pytest.raises(StepFailed, match="is not a list or tuple; return one"):
        fans.run(orchestrator="inline")
