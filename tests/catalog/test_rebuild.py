"""The index is only an index: it can be deleted, damaged or left behind, and says the same again."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailrace import LocalArtifactStore, StoreError
from tailrace.catalog.index import Catalog
from tailrace.core.refs import ArtifactRef

if TYPE_CHECKING:
    from .conftest import Lab


def answers(catalog: Catalog) -> dict[str, Any]:
    """Everything that a catalog says."""
    artifacts = catalog.artifacts()
    runs = catalog.runs()
    return {
        "artifacts": [row.to_dict() for row in artifacts],
        "runs": [row.to_dict() for row in runs],
        "details": [catalog.run(row.run_id, row.project).to_dict() for row in runs],
        "lineages": [catalog.lineage(row.id).to_dict() for row in artifacts],
        "parents": [[near.id for near in catalog.parents(row.id)] for row in artifacts],
        "children": [[near.id for near in catalog.children(row.id)] for row in artifacts],
        "consumers": [[near.to_dict() for near in catalog.consumers(row.id)] for row in artifacts],
        "stats": catalog.stats().to_dict(),
    }


def test_a_deleted_index_gives_the_same_answers_when_it_is_made_again(lab: Lab) -> None:
    lab.training("a1")
    lab.training("a2", lr=0.2)
    lab.commit("models/churn", "weights")
    before = answers(lab.synced())
    picture = lab.catalog().lineage("a2/report/page").to_mermaid()
    lab.forget()
    assert answers(lab.catalog()) == before
    report = lab.catalog().rebuild()
    assert (report.runs, report.artifacts) == (2, 17)
    assert answers(lab.catalog()) == before
    assert lab.catalog().lineage("a2/report/page").to_mermaid() == picture


Step = tuple[str, int, int]
moves = st.lists(
    st.tuples(
        st.sampled_from(["run", "task", "map", "end", "hand", "delete", "sync"]), st.integers(0, 5), st.integers(0, 3)
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=moves, seed=st.integers(0, 2**16))
def test_an_index_that_followed_says_what_one_made_at_the_end_says(
    new_lab: Callable[[], Lab], moves: list[Step], seed: int
) -> None:
    lab, chance = new_lab(), random.Random(seed)
    catalog = lab.catalog()
    run, ended = lab.run("r0"), False
    made: list[ArtifactRef] = []
    for move, which, what in moves:
        if ended and move in ("task", "map"):
            run, ended = lab.run(run.journal.run_id), False
        inputs = {f"input{index}": ref for index, ref in enumerate(chance.sample(made, min(len(made), what)))}
        if move == "run":
            run, ended = lab.run(f"r{which}"), False  # an id that there was is run again
        elif move == "task":
            made += run.task(f"step{which}", {"out": what, "log": which}, inputs).values()
        elif move == "map":
            made += run.task("mapped", {"item": what}, inputs, map_index=which).values()
        elif move == "end":
            run.end(chance.choice(["completed", "failed", "cancelled"]))
            ended = True
        elif move == "hand":
            made.append(lab.commit(f"by-hand/{which}", what, name=f"thing{what}"))
        elif move == "delete" and made:
            lab.store.delete(chance.choice(made).uri)
        elif move == "sync":
            catalog.sync()
    catalog.sync()
    followed = answers(catalog)
    catalog.rebuild()
    assert answers(catalog) == followed
    lab.forget()
    assert answers(lab.catalog()) == followed
    lab.close()


# --- damage -----------------------------------------------------------------------------------------------------------


def overwrite(file: Path) -> None:
    file.write_bytes(b"this is no database" * 500)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def tear(file: Path) -> None:
    """Zeros over everything but the first page."""
    data = file.read_bytes()
    file.write_bytes(data[:4096] + bytes(len(data) - 4096))


def drop(file: Path) -> None:
    change(file, "DROP TABLE tailrace_parent")


def age(file: Path) -> None:
    change(file, "UPDATE tailrace_meta SET value = '0'")


def change(file: Path, statement: str) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.mark.parametrize("damage", [overwrite, truncate, tear, drop, age])
@pytest.mark.parametrize("sync", [False, True])
def test_a_damaged_or_old_index_is_made_anew_with_a_warning(
    lab: Lab, damage: Callable[[Path], None], sync: bool, caplog: pytest.LogCaptureFixture
) -> None:
    lab.training("a1")
    before = answers(lab.synced())
    lab.close()
    damage(lab.database)
    catalog = lab.catalog()
    if sync:
        catalog.sync()
    assert answers(catalog) == before
    assert "made anew" in caplog.text
    assert {record.name for record in caplog.records} == {"tailrace.catalog"}


def test_an_empty_file_is_a_new_index(lab: Lab) -> None:
    lab.training("a1")
    before = answers(lab.synced())
    lab.close()
    empty(lab.database)
    assert answers(lab.catalog()) == before


def test_a_sync_that_breaks_off_leaves_an_index_that_the_next_one_completes(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailrace.catalog.sync._BATCH", 5)
    for number in range(5):
        lab.training(f"a{number}")
    read, left = lab.store.read, iter(range(60))

    def failing(key: str) -> bytes:
        if next(left, None) is None:
            raise OSError("The store is gone.")
        return read(key)

    monkeypatch.setattr(lab.store, "read", failing)
    with pytest.raises(OSError, match="gone"):
        lab.catalog().sync()
    monkeypatch.setattr(lab.store, "read", read)
    completed = answers(lab.catalog())
    lab.forget()
    assert answers(lab.catalog()) == completed
    assert len(completed["artifacts"]) == 40


# --- several processes ------------------------------------------------------------------------------------------------

FOLLOW = """
import sys
from tailrace import LocalArtifactStore, StoreError
from tailrace.catalog.index import Catalog
from tailrace.stores.local import LocalArtifactStore

url, folder = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
for look in range(6):
    with Catalog(url, {"default": LocalArtifactStore(folder, durable=False)}) as catalog:
        report = catalog.rebuild() if look % 3 == 2 else catalog.sync()
        assert report.problems == ()
        assert len(catalog.artifacts()) >= 80
"""


def test_processes_that_sync_and_rebuild_at_once_see_everything_all_the_time(lab: Lab) -> None:
    for number in range(10):
        lab.training(f"a{number}")
    command = [sys.executable, "-c", FOLLOW, lab.url, str(lab.folder / "store")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [subprocess.Popen(command, text=True, **pipes) for _ in range(4)]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    lab.training("b1")  # while they look
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
    followed = answers(lab.synced())
    lab.forget()
    assert answers(lab.catalog()) == followed
    assert len(followed["artifacts"]) == 88


def test_an_index_in_a_place_that_cannot_be_used_says_that_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").mkdir()
    store = LocalArtifactStore(tmp_path / "store")
    with pytest.raises(StoreError, match=r"The index sqlite:.* cannot be used: .*Nothing is lost"):
        Catalog(f"sqlite:///{tmp_path}/catalog.db", {"default": store}).runs()
