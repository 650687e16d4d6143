from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

datasets = pytest.importorskip("datasets", reason="the extra huggingface is not installed")

from tailrace import Dataset, MaterializationError  # noqa: E402
from tailrace.materializers.testing import check_refused, check_round_trip, restored  # noqa: E402

from . import made  # noqa: E402
from .made import digests, digests_of_another_process, loaded_with, saved_in  # noqa: E402

VALUES = made.datasets()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return (
            type(one) is type(other) and list(one) == list(other) and all(same(one[name], other[name]) for name in one)
        )
    rows = [each.with_format(None)[:] for each in (one, other)]
    about = [(each.features, each.format, each.split, each.info, each.num_rows) for each in (one, other)]
    return bool(rows[0] == rows[1] and about[0] == about[1])


@pytest.mark.parametrize("name", VALUES)
def test_a_dataset_comes_back_with_the_same_bytes(name: str) -> None:
    check_round_trip(VALUES[name](), equal=same)


def test_equal_rows_have_one_fingerprint_and_others_another() -> None:
    rows = restored(VALUES["rows"]())
    assert rows._fingerprint == restored(VALUES["rows"]())._fingerprint
    assert rows._fingerprint != restored(VALUES["chosen"]())._fingerprint


def test_what_is_loaded_can_be_mapped_and_filtered() -> None:
    found = restored(VALUES["rows"]()).map(lambda row: {"d": row["a"] * 2}).filter(lambda row: row["a"] > 1)
    assert found["d"][:] == [4, 6]


def test_the_library_reads_the_folder(tmp_path: Path) -> None:
    saved_in(tmp_path / "splits", VALUES["splits"]())
    assert same(datasets.load_from_disk(str(tmp_path / "splits")), VALUES["splits"]())


def pictures(path: str) -> Any:
    return datasets.Dataset.from_dict({"picture": [path]}, features=datasets.Features(picture=datasets.Image()))


def test_pictures_are_kept_when_their_files_are_gone(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "small.png"
    Image.new("RGB", (3, 2), (1, 2, 3)).save(path)
    found = restored(pictures(str(path)))
    path.unlink()
    assert found[0]["picture"].getpixel((0, 0)) == (1, 2, 3)


def test_names_of_splits_stay_what_they_are() -> None:
    value = datasets.DatasetDict({datasets.Split.TRAIN: VALUES["rows"](), "more": VALUES["chosen"]()})
    assert [type(name) for name in restored(value)] == [datasets.NamedSplit, str]


REFUSED = {
    "a stream": (lambda: VALUES["rows"]().to_iterable_dataset(), "from_generator"),
    "a transform": (lambda: VALUES["rows"]().with_transform(lambda rows: rows), "transform"),
    "a column": (lambda: VALUES["rows"]()["a"], "[:]"),
    "a picture whose file is gone": (lambda: pictures("no such file.png"), "cannot be read"),
    "a split with a name that no folder has": (lambda: datasets.DatasetDict({"a/b": VALUES["rows"]()}), "a/b"),
}


@pytest.mark.parametrize(("make", "mentions"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_data_is_refused(make: Any, mentions: str) -> None:
    check_refused(make(), mentions)


def test_another_process_writes_the_same_bytes() -> None:
    assert digests_of_another_process("datasets") == digests("datasets")


def test_the_metadata_are_those_of_the_dataset(tmp_path: Path) -> None:
    assert saved_in(tmp_path / "rows", VALUES["rows"]())[0].metadata["schema"]["a"] == "Value('int32')"
    assert saved_in(tmp_path / "splits", VALUES["splits"]())[0].metadata["splits"] == {"train": 3, "test": 1}
    about = Dataset(VALUES["rows"]())
    assert (about.format, list(about.schema or {})) == ("datasets", ["a", "b", "c", "l"])


@pytest.mark.parametrize("content", [b"", b"\x80\x04cos\nsystem\n", b"\xff" * 64])
def test_a_file_that_is_no_arrow_is_an_error(content: bytes, tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "rows", VALUES["rows"]())
    with pytest.raises(MaterializationError):
        loaded_with(tmp_path / "rows", saved, {"data.arrow": content})


def test_a_split_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    saved, _ = saved_in(tmp_path / "splits", VALUES["splits"]())
    with pytest.raises(Exception, match="manifest"):
        loaded_with(tmp_path / "splits", saved, {"dataset_dict.json": b'{"splits": ["../../secret"]}'})
