"""The entries of a step cache: the form in which they are written, and that the first of a key stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tailrace import ArtifactRef, IntegrityError, LocalArtifactStore
from tailrace.routing.cache.entries import Entry, Kept, Tier

GOLDEN = Path(__file__).parent / "golden" / "cache-entry-1.json"
REF = ArtifactRef("0123456789abcdef", "artifacts/ab/cdef", "blake3:00", "blake3:11", "Metrics", "scores")
KEY = "ab" * 32
ENTRY = Entry(
    key=KEY,
    project="mill",
    pipeline="grinding",
    step="fit",
    run_id="run-1",
    map_index=2,
    created="2026-01-31T05:06:07.089012+00:00",
    seconds=1.5,
    bytes=42,
    kept=(
        Kept("scores", ("Metrics", "tailrace.core.metrics.Metrics"), REF),
        Kept("note", ("dict", "builtins.dict"), REF, extra=True),
    ),
)


@pytest.fixture
def tier(tmp_path: Path) -> Tier:
    return Tier(LocalArtifactStore(tmp_path / "cache"))


def place(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "entries" / "ab" / f"{KEY}.json"


def test_an_entry_of_format_1_is_read_and_written_as_it_was(tier: Tier, tmp_path: Path) -> None:
    tier.put(ENTRY)
    assert place(tmp_path).read_bytes() == GOLDEN.read_bytes()
    assert tier.get(KEY) == ENTRY


def test_the_first_entry_of_a_key_stays_unless_it_is_replaced(tier: Tier) -> None:
    other = replace(ENTRY, run_id="run-2")
    assert tier.get(KEY) is None
    assert tier.put(ENTRY)
    assert not tier.put(other)
    assert tier.get(KEY) == ENTRY
    assert tier.put(other, replacing=True)
    assert tier.get(KEY) == other


def test_every_changed_byte_of_an_entry_is_noticed(tier: Tier, tmp_path: Path) -> None:
    data = GOLDEN.read_bytes().strip()
    tier.put(ENTRY)
    for position in range(len(data)):
        changed = bytes([data[position] ^ 1])
        place(tmp_path).write_bytes(data[:position] + changed + data[position + 1 :])
        with pytest.raises(IntegrityError, match=KEY):
            tier.get(KEY)


def test_an_entry_under_the_key_of_another_is_refused(tier: Tier, tmp_path: Path) -> None:
    tier.put(replace(ENTRY, key="cd" * 32))
    place(tmp_path).parent.mkdir()
    (tmp_path / "cache" / "entries" / "cd" / f"{'cd' * 32}.json").rename(place(tmp_path))
    with pytest.raises(IntegrityError):
        tier.get(KEY)
    assert list(tier.entries()) == []
    assert tier.clear() == []
    assert not place(tmp_path).exists()
