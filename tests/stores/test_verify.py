"""Any byte that changes is found, in a file or the manifest, by a load and by a verification."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tailrace import ArtifactStore, Dataset, IntegrityError, LocalArtifactStore, MemoryArtifactStore
from tailrace.core.names import MANIFEST
from tailrace.materializers import registry
from tailrace.materializers.base import Materializer
from tailrace.stores.manifests import dumped, parsed
from tailrace.stores.verify import verify

from .buckets import CLASSES, new_bucket

_buckets = itertools.count()


@pytest.fixture
def store() -> ArtifactStore:
    """In memory, where a byte is changed thousands of times in a second."""
    return MemoryArtifactStore(f"verify-{next(_buckets)}")


def fill(store: ArtifactStore, folder: Path) -> list[str]:
    """An artifact of four files with metadata, and its keys."""
    source = folder / "source"
    source.mkdir()
    (source / "one").write_bytes(b"1" * 40)
    (source / "two").write_bytes(bytes(range(60)))
    store.save({"tree": source, "rows": Dataset([{"x": 1}], name="rows")}, "a", {"of": "a test"})
    return sorted(store.walk("a/", contents=True))


def flips(data: bytes) -> Iterator[bytes]:
    """The data with one byte changed: each byte in turn, by one bit that changes from byte to byte."""
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << (place % 8)
        yield bytes(changed)


def test_every_byte_of_every_file_that_changes_is_found_before_anything_is_deserialized(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = fill(store, tmp_path)
    assert len(keys) == 5
    assert verify(store, "a").damage == ()
    made: list[str] = []
    real = registry.default_registry.by_name

    def by_name(name: str) -> Materializer:
        made.append(name)
        return real(name)

    monkeypatch.setattr(registry.default_registry, "by_name", by_name)
    for key in keys:
        sound = store.read(key)
        for changed in flips(sound):
            store.replace(key, changed)
            made.clear()
            (damage,) = verify(store, "a").damage
            assert damage.file == key.split("/", 1 if key.endswith(MANIFEST) else 2)[-1]
            with pytest.raises(IntegrityError):
                store.load("a")
            if key.endswith(MANIFEST):
                assert made == []
        store.replace(key, sound)
    store.load("a")
    assert made


def test_every_bit_of_a_manifest_s_first_and_last_lines_is_covered(store: ArtifactStore) -> None:
    store.save(1, "a")
    sound = store.read(f"a/{MANIFEST}")
    places = [*range(30), *range(len(sound) - 110, len(sound))]
    for place, bit in itertools.product(places, range(8)):
        changed = bytearray(sound)
        changed[place] ^= 1 << bit
        with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
            parsed(bytes(changed))
    for data in (sound[:-1], sound + b"\n", sound.replace(b"\n", b""), orjson.dumps(orjson.loads(sound))):
        with pytest.raises(ValueError, match="not those that were written"):
            parsed(data)
    assert dumped(parsed(sound)) == sound


def test_a_manifest_that_has_lost_its_seal_or_its_format_is_none(store: ArtifactStore) -> None:
    store.save(1, "a")
    document = orjson.loads(store.read(f"a/{MANIFEST}"))
    without = {key: value for key, value in document.items() if key != "checksum"}
    for changed in (without, {**document, "format": 1}, {**without, "format": 3}):
        with pytest.raises(ValueError, match="not those that were written"):
            parsed(orjson.dumps(changed))
    assert parsed(orjson.dumps({**without, "format": 1})).name == "a", "which the first version wrote"


@pytest.mark.parametrize("golden", ["v1", "v2"])
def test_what_an_earlier_version_wrote_is_sound(golden: str) -> None:
    store = LocalArtifactStore(Path(__file__).parent / "golden" / golden)
    assert [verify(store, path).damage for path in store.list_artifacts()] == [()] * 3


def test_the_first_version_s_manifest_stays_when_the_same_is_saved_again(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path)
    store.save({"a": 1}, "a")
    place = f"a/{MANIFEST}"
    document = orjson.loads(store.read(place))
    del document["checksum"]
    first = orjson.dumps({**document, "format": 1})
    store.replace(place, first)
    store.save({"a": 1}, "a")
    assert store.read(place) == first


@pytest.mark.parametrize("where", ["local", "memory", *CLASSES])
def test_what_is_missing_longer_or_empty_is_named_with_what_was_expected(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    store: ArtifactStore
    if where in CLASSES:
        store = new_bucket(request, where)()
    else:
        store = LocalArtifactStore(tmp_path / "store") if where == "local" else MemoryArtifactStore("verify-missing")
    keys = fill(store, tmp_path)
    for key in keys[:-1] if keys[-1].endswith(MANIFEST) else keys:
        sound = store.read(key)
        for data in (None, b"", sound + b"\0"):
            store.remove(key) if data is None else store.replace(key, data)
            (damage,) = verify(store, "a").damage
            assert (damage.state, damage.found) == (
                ("missing", "nothing") if data is None else ("damaged", damage.found)
            )
            assert f"{len(sound)} bytes" in damage.expected
        store.replace(key, sound)
    assert verify(store, "a").damage == ()
    assert verify(store, "a").size_bytes == store.size("a")
    store.remove(f"a/{MANIFEST}")
    assert verify(store, "a").absent
