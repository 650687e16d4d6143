"""``artifacts show``: a look at what an artifact holds, from verified files, and nothing of it is executed."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tailrace import Dataset, LocalArtifactStore, Model, Prompt, Report
from tailrace.cli.preview import preview
from tailrace.core.errors import IntegrityError

from .conftest import Invoke

RECORDS = [{"x": place, "y": [place], "z": None} for place in range(12)]


@pytest.fixture
def store(tmp_path: Path) -> LocalArtifactStore:
    return LocalArtifactStore(tmp_path / "store", allow_pickle="always", durable=False)


def look(store: LocalArtifactStore, value: Any) -> dict[str, Any]:
    uri = store.save(value, "it")
    found = preview(store, store.manifest(uri), uri)
    assert json.loads(json.dumps(found)) == found, "as it is, JSON"
    return found


@pytest.mark.parametrize("library", ["pandas", "polars", "arrow"])
def test_of_a_table_the_first_ten_rows_are_shown(store: LocalArtifactStore, library: str) -> None:
    frame = pd.DataFrame({"n": range(100), "word": ["north", None] * 50, "day": [dt.date(2026, 1, 31)] * 100})
    table = pa.Table.from_pandas(frame)
    pl = pytest.importorskip("polars")
    value = {"pandas": frame, "polars": pl.from_arrow(table), "arrow": table}[library]
    found = look(store, value)
    assert found["columns"] == ["n", "word", "day"]
    assert [row[0] for row in found["rows"]] == list(range(10))
    assert found["rows"][1] == [1, None, "2026-01-31"]


def test_a_table_without_rows_shows_its_columns(store: LocalArtifactStore) -> None:
    for value in (pd.DataFrame({"n": np.empty(0)}), pa.table({"n": pa.array([], "int8")})):
        assert look(store, value) == {"columns": ["n"], "rows": []}


def test_odd_columns_are_shown_as_they_can_be(store: LocalArtifactStore) -> None:
    far = pa.array([2**62], pa.timestamp("us"))  # in a year that Python does not know
    found = look(store, pa.table([far, pa.array(["a" * 300]), pa.array([2.0])], names=["t", "t", "n"]))
    assert found["columns"] == ["t", "t", "n"]
    assert "out of range" in found["rows"][0][0]
    assert (len(found["rows"][0][1]), found["rows"][0][2]) == (203, 2.0)
    wide = look(store, pd.DataFrame({f"c{place}": [place] for place in range(200)}))
    assert len(wide["columns"]) == len(wide["rows"][0]) == 50


def test_of_an_array_the_first_rows_or_numbers_are_shown(store: LocalArtifactStore) -> None:
    assert look(store, np.arange(6).reshape(3, 2)) == {"columns": ["0", "1"], "rows": [[0, 1], [2, 3], [4, 5]]}
    assert look(store, np.arange(99))["lines"][-2:] == ["8", "9"]
    assert look(store, np.float32(1) * np.ones((2, 2, 2)))["lines"] == ["1.0"] * 8
    assert look(store, np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")]))["rows"] == [[1, 2.5]]
    assert look(store, np.ma.masked_equal([1, 2], 2)) == {}, "what is masked is not shown"


def test_records_are_a_table_and_other_data_text(store: LocalArtifactStore) -> None:
    found = look(store, Dataset(RECORDS))
    assert (found["columns"], len(found["rows"]), found["rows"][3]) == (["x", "y", "z"], 10, [3, "[3]", None])
    assert look(store, {"a": 1})["lines"] == ["{", '  "a": 1', "}"]
    assert look(store, "one\ntwo \x1b[31m")["lines"] == ["one", "two  [31m"], "nothing that a terminal obeys"
    assert look(store, Report("# Mill\n\n" + "word\n" * 100))["lines"][:2] == ["# Mill", ""]
    assert look(store, Report(b"%PDF-1.7 ...")) == {}


def test_a_prompt_shows_its_variables(store: LocalArtifactStore) -> None:
    assert look(store, Prompt("Hello {name} of {town}"))["facts"] == {"variables": ["name", "town"]}
    chat = look(store, Prompt([{"role": "user", "content": "Hello {name}"}]))
    assert chat == {"facts": {"variables": ["name"]}, "lines": ["user: Hello {name}"]}


def test_a_file_is_shown_by_what_it_is(store: LocalArtifactStore, tmp_path: Path) -> None:
    csv, parquet, binary = (tmp_path / name for name in ("a.csv", "a.parquet", "a.bin"))
    csv.write_text("x,y\n1,2\n")
    pd.DataFrame({"x": [1]}).to_parquet(parquet)
    binary.write_bytes(bytes(range(256)))
    assert look(store, csv)["lines"] == ["x,y", "1,2"]
    assert look(store, parquet) == {"columns": ["x"], "rows": [[1]]}
    assert look(store, binary) == {}
    csv.rename(parquet)
    assert look(store, parquet)["note"].startswith("not shown: ArrowInvalid")


def test_a_picture_shows_its_size_and_mode(store: LocalArtifactStore, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image").new("RGB", (40, 30))
    image.save(tmp_path / "a.png")
    expected = {"facts": {"width": 40, "height": 30, "mode": "RGB"}}
    assert look(store, image) == look(store, tmp_path / "a.png") == expected


def test_a_model_shows_its_card_with_the_ten_features_that_matter_most(store: LocalArtifactStore) -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    data = np.random.default_rng(0).standard_normal((60, 12))
    fitted = ensemble.RandomForestClassifier(3, random_state=0).fit(data, data[:, 7] > 0)
    found = look(store, Model(fitted))
    assert (found["facts"]["framework"], found["facts"]["fitted"]) == ("sklearn", True)
    assert found["hyperparameters"]["n_estimators"] == 3
    assert (len(found["importances"]), found["importances"][0][0]) == (10, "7")


def test_what_executes_code_is_not_opened(store: LocalArtifactStore) -> None:
    assert look(store, opaque()) == {}


class Opaque:
    """Has no safe form."""

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("it was opened")


def opaque() -> Opaque:
    made = Opaque()
    made.__dict__["a"] = 1
    return made


def test_damaged_bytes_are_told_of_and_not_shown(store: LocalArtifactStore, tmp_path: Path) -> None:
    uri = store.save({"a": 1}, "it")
    (file,) = tmp_path.rglob("value.json")
    file.write_bytes(b'{"a":2}')
    with pytest.raises(IntegrityError, match="damaged"):
        preview(store, store.manifest(uri), uri)


def test_the_command_shows_it_unless_told_not_to(invoke: Invoke, mill: Path) -> None:
    invoke("run", "mill", "--run-id", "r1")
    told = invoke("artifacts", "show", "r1/harvest/grain")
    assert "field  kilos" in told
    assert "field  kilos" not in invoke("artifacts", "show", "r1/harvest/grain", "--no-preview")
    seen = json.loads(invoke("artifacts", "show", "r1/harvest/grain", "--json"))["preview"]
    assert seen == {"columns": ["field", "kilos"], "rows": [[0, 0.0], [1, 100.5], [2, 201.0]]}
    assert "preview" not in json.loads(invoke("artifacts", "show", "r1/harvest/grain", "--json", "--no-preview"))


def test_of_a_damaged_artifact_the_command_shows_the_manifest_and_fails(invoke: Invoke, mill: Path) -> None:
    invoke("run", "mill", "--run-id", "r1")
    (file,) = Path(".tailrace").rglob("harvest/weight/content-*/value.json")
    file.write_bytes(b"{}")
    assert "damaged" in invoke("artifacts", "show", "r1/harvest/weight", code=1)
    assert "value.json" in invoke("artifacts", "show", "r1/harvest/weight", "--no-preview")


def test_from_a_store_that_is_not_local_a_large_file_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Remote(LocalArtifactStore):
        scheme = "s3"
        fetched: list[str] = []  # noqa: RUF012

        def local_tree(self, key: str, files: Any) -> Path:
            self.fetched += [entry.path for entry in files]
            return super().local_tree(key, files)

    store = Remote(tmp_path, durable=False)
    assert "columns" in look(store, Dataset(pd.DataFrame({"n": [1]}), format="arrow"))
    assert look(store, Dataset(pd.DataFrame({"n": [1]}), format="csv"))["lines"] == ['"n"', "1"]
    assert store.fetched == ["data.arrow", "data.csv"], "and not the schema beside it"
    monkeypatch.setattr("tailrace.cli.preview._FETCHED", 10)
    assert "artifacts get" in look(store, pd.DataFrame({"n": [1]}))["note"]
    assert len(store.fetched) == 2
