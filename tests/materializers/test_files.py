"""Large files, which are read and digested part by part."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace import IntegrityError
from tailrace.core.refs import FileEntry
from tailrace.materializers.files import FileReader, digest_bytes, digest_file

PART = 8 << 20
SIZES = [0, 1, PART - 1, PART, PART + 1, 3 * PART + 7]


def reader(folder: Path, content: bytes) -> FileReader:
    (folder / "data").write_bytes(content)
    return FileReader(folder, {"data": FileEntry("data", len(content), digest_bytes(content))})


@pytest.mark.parametrize("size", SIZES)
def test_what_is_read_is_what_was_written(size: int, tmp_path: Path) -> None:
    content = (bytes(range(251)) * (size // 251 + 1))[:size]
    files = reader(tmp_path, content)
    assert digest_file(tmp_path / "data") == (size, digest_bytes(content))
    found = files.read("data")
    assert found == content
    assert not found.readonly


@pytest.mark.parametrize("at", [0, PART - 1, PART, 2 * PART, 3 * PART + 6])
def test_one_changed_byte_in_any_part_is_found(at: int, tmp_path: Path) -> None:
    files = reader(tmp_path, bytes(3 * PART + 7))
    with (tmp_path / "data").open("r+b") as file:
        file.seek(at)
        file.write(b"\x01")
    with pytest.raises(IntegrityError, match="its digest differs"):
        files.read("data")


def test_two_parts_that_changed_places_are_found(tmp_path: Path) -> None:
    one, other = b"a" * PART, b"b" * PART
    files = reader(tmp_path, one + other)
    (tmp_path / "data").write_bytes(other + one)
    with pytest.raises(IntegrityError, match="its digest differs"):
        files.read("data")
