"""The battery finds what is wrong with a store: each of these has one fault, and fails the case that is about it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

from tailrace import ArtifactRef, MemoryArtifactStore, TailraceError
from tailrace.core.names import MANIFEST
from tailrace.core.refs import FileEntry
from tailrace.stores.base import Labels, Staged
from tailrace.stores.testing import Place, check_keys, check_sequences, check_store

_names = itertools.count()


class EveryoneIsFirst(MemoryArtifactStore):
    def create(self, key: str, data: bytes) -> bool:
        self.replace(key, data)
        return True


class LooksBeforeItCreates(MemoryArtifactStore):
    def create(self, key: str, data: bytes) -> bool:
        if key in self._files:
            return False
        time.sleep(0.02)  # the answer of the server
        self._files[key] = data
        return True


class RemovesByPrefix(MemoryArtifactStore):
    def remove(self, key: str) -> None:
        for found in [found for found in self._files if found.startswith(key)]:
            del self._files[found]


class RemovesOneFile(MemoryArtifactStore):
    def delete(self, path: Any) -> None:
        self.remove(f"{self.key(path)}/{MANIFEST}")  # what is below stays


class ListsContents(MemoryArtifactStore):
    def walk(self, prefix: str = "", *, contents: bool = False) -> Iterator[str]:
        return super().walk(prefix, contents=True)


class ListsTheFirstPage(MemoryArtifactStore):
    def walk(self, prefix: str = "", *, contents: bool = False) -> Iterator[str]:
        return itertools.islice(super().walk(prefix, contents=contents), 100)


class SplitsNamesAtDots(MemoryArtifactStore):
    def key(self, path: Any) -> str:
        return super().key(path).partition(".")[0]


class OneCase(MemoryArtifactStore):
    def key(self, path: Any) -> str:
        return super().key(path).lower()


class CommitsFirst(MemoryArtifactStore):
    def put_tree(self, staging: Path, key: str, files: tuple[FileEntry, ...]) -> None:
        self._late = (staging, key, files)

    def publish(self, staged: Staged, key: str, labels: Labels) -> ArtifactRef:
        ref = super().publish(staged, key, labels)
        time.sleep(0.02)
        super().put_tree(*self._late)
        return ref


class KeepsDamage(MemoryArtifactStore):
    def put_tree(self, staging: Path, key: str, files: tuple[FileEntry, ...]) -> None:
        if f"{key}/{files[0].path}" not in self._files:
            super().put_tree(staging, key, files)


class LeavesStaging(MemoryArtifactStore):
    def discard_staging(self, directory: Path) -> None:
        """Leave it."""


class CommitsInTwoWrites(MemoryArtifactStore):
    def replace(self, key: str, data: bytes, *, durable: bool | None = None) -> None:
        if key.endswith(MANIFEST):
            super().replace(key, data[: len(data) // 2])
            time.sleep(0.02)
        super().replace(key, data)


FAULTS: list[tuple[type[MemoryArtifactStore], str]] = [
    (EveryoneIsFirst, "create writes only what is not there"),
    (EveryoneIsFirst, "of many that create at once one is first"),
    (LooksBeforeItCreates, "of many that create at once one is first"),
    (RemovesByPrefix, "remove takes what is below and nothing beside"),
    (RemovesByPrefix, "deleting takes what is below and nothing beside"),
    (ListsContents, "walk goes by string prefix"),
    (ListsTheFirstPage, "many keys are listed"),
    (SplitsNamesAtDots, "metadata belong to one artifact and one save"),
    (CommitsFirst, "a reader never sees half of an artifact"),
    (CommitsFirst, "an interrupted save leaves garbage that is not listed"),
    (KeepsDamage, "saving again mends damaged content"),
    (LeavesStaging, "no staging folder is left"),
    (CommitsInTwoWrites, "a reader never sees half of an artifact"),
]


def _place(kind: type[MemoryArtifactStore]) -> Place:
    name = f"faulty-{next(_names)}"
    return Place(lambda: kind(name), processes=False)


@pytest.mark.parametrize(("kind", "case"), FAULTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_faulty_store_fails_the_case_about_its_fault(kind: type[MemoryArtifactStore], case: str) -> None:
    with pytest.raises((AssertionError, TailraceError)):
        check_store(case, _place(kind))


@pytest.fixture
def unshrunk() -> Iterator[None]:
    """That it fails is enough: the shortest way to fail takes a minute to find."""
    before = settings.get_current_profile_name()
    settings.register_profile("unshrunk", phases=[Phase.generate], derandomize=True)
    settings.load_profile("unshrunk")
    yield
    settings.load_profile(before)


@pytest.mark.usefixtures("unshrunk")
def test_random_calls_find_what_a_dictionary_does_not_do() -> None:
    with pytest.raises(AssertionError):
        check_sequences(_place(RemovesOneFile), sequences=100)


@pytest.mark.usefixtures("unshrunk")
def test_hostile_keys_find_two_that_become_one() -> None:
    with pytest.raises(AssertionError):
        check_keys(_place(OneCase), batches=60)
