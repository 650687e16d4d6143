"""Servers that ignore or refuse conditions, and whose lists are late: what is committed is right all the same."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tailrace import ArtifactNotFound, Pipeline, S3ArtifactStore, step
from tailrace.catalog.journal import find_run
from tailrace.catalog.testing import check_records, record_cases
from tailrace.stores.testing import Place, check_keys, check_store, store_cases

from .fault_store import Conditions, bad_store
from .servers import Server

pytestmark = pytest.mark.usefixtures("credentials")


@pytest.fixture(params=["honoured", "ignored", "refused"], scope="module")
def conditions(request: pytest.FixtureRequest) -> Conditions:
    found: Conditions = request.param
    return found


@pytest.fixture(scope="module")
def server(conditions: Conditions) -> Iterator[Server]:
    with bad_store(conditions) as server:
        yield server


@pytest.fixture
def place(server: Server, conditions: Conditions) -> Place:
    opened = functools.partial(S3ArtifactStore, bucket_name=server.bucket(), endpoint_url=server.url)
    return Place(opened, one_winner=conditions == "honoured")


@pytest.mark.slow
@pytest.mark.parametrize("case", store_cases())
def test_a_store_on_it_does_what_the_battery_asks(case: str, place: Place) -> None:
    check_store(case, place)


@pytest.mark.slow
@pytest.mark.parametrize("case", record_cases())
def test_it_keeps_the_records_of_runs(case: str, place: Place) -> None:
    check_records(case, place)


@pytest.mark.slow
def test_no_hostile_key_escapes_or_collides(place: Place) -> None:
    check_keys(place, batches=3)


def test_a_file_in_parts_comes_back(place: Place, tmp_path: Path) -> None:
    data = bytes(range(256)) * 60_000
    (tmp_path / "large").write_bytes(data)
    place.store.put(tmp_path / "large", "large")
    assert place.other.get("large", tmp_path / "back").read_bytes() == data


@step(outputs="rows")
def gauge(days: int) -> list[int]:
    return list(range(days))


@step(outputs="total")
def add(rows: list[int]) -> int:
    return sum(rows)


def test_a_pipeline_that_runs_twice_under_one_id_leaves_one_result(server: Server, project: Path) -> None:
    bucket = server.bucket()
    store = S3ArtifactStore(bucket_name=bucket, endpoint_url=server.url)
    (project / "tailrace.yaml").write_text(
        f"plugins: {{orchestrator: {{type: inline}}, artifact_store: {{type: s3, bucket: {bucket}, "
        f'endpoint_url: "{server.url}"}}}}'
    )
    pipeline = Pipeline("bad").add_step(gauge).add_step(add)
    first, again = (pipeline.run(run_id="one", params={"days": 5}) for _ in range(2))
    assert first.outputs["total"] == again.outputs["total"] == 10
    assert first.outputs.ref("total") == again.outputs.ref("total")
    assert len(store.list_artifacts()) == 2
    journal = find_run(store, "default", "one")
    assert journal is not None
    assert [task.state for task in journal.tasks()] == ["completed", "completed"]


def test_lists_that_are_late_keep_nothing_from_being_committed_loaded_and_deleted() -> None:
    with bad_store("honoured", late=2) as server:
        opened = functools.partial(S3ArtifactStore, bucket_name=server.bucket(), endpoint_url=server.url)
        store = opened()
        store.save({"a": 1}, "a/b", {"m": 1})
        assert store.list_artifacts() == [], "the server does not list it yet"
        assert opened().load("a/b") == {"a": 1}
        assert opened().exists("a/b")
        assert opened().get_metadata("a/b") == {"m": 1}
        ref = store.ref("a/b")
        store.save({"a": 1}, "a/b", {"m": 1})
        assert store.ref("a/b") == ref
        while store.list_artifacts() != ["a/b"]:
            pass
        store.delete("a/b")
        assert store.list_artifacts() == ["a/b"], "the server lists it still"
        assert not store.exists("a/b")
        with pytest.raises(ArtifactNotFound):
            store.load("a/b")
        assert store.list_artifacts() + store.list_artifacts() == ["a/b"]


def test_where_conditions_are_ignored_writers_of_one_content_all_succeed_and_readers_see_it_whole() -> None:
    with bad_store("ignored") as server:
        bucket = server.bucket()
        stores = [S3ArtifactStore(bucket_name=bucket, endpoint_url=server.url) for _ in range(4)]
        with ThreadPoolExecutor(8) as pool:
            for turn in range(10):
                values = [{"n": turn, "of": number % 2, "fill": "x" * 50_000} for number in range(8)]
                list(pool.map(lambda item: stores[item[0] % 4].save(item[1], "a"), enumerate(values)))
                assert stores[0].load("a") in values
