"""``format=`` and ``compression=``: tables in the file format that was chosen, exact or refused."""

from __future__ import annotations

import csv
import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tailrace import Dataset, FeatureSet, LocalArtifactStore, MaterializationError, pipeline, step
from tailrace.core.errors import AssetError, ConfigError
from tailrace.core.forms import COMPRESSIONS, Form
from tailrace.materializers.identical import difference
from tailrace.routing.stacks import resolve_stack

FRAME = pd.DataFrame(
    {
        "n": np.array([1, -(2**63), 2**63 - 1]),
        "f": [0.1, float("nan"), float("-inf")],
        "s": pd.Series(['a,"b"\nc', "", None], dtype="str"),
        "o": [None, "x", " y "],
        "b": [True, False, True],
        "day": [dt.date(2026, 1, 31), None, dt.date(1, 1, 1)],
        "t": pd.to_datetime(["2026-01-31T12:00:00.000001", "NaT", "2020-02-29"], format="ISO8601"),
        "zoned": pd.to_datetime(["2026-01-31T12:00", "2020-02-29", "NaT"], format="ISO8601").tz_localize("Asia/Tokyo"),
        "small": np.array([0.1, -0.0, 1e-45], "f4"),
        "masked": pd.array([1, None, 3], "Int8"),
        "c": pd.Categorical(["x", None, "y"], categories=["y", "x", "never"], ordered=True),
    }
).set_index(pd.Index(["p", "q", "r"], name="where"))
TABLE = pa.table({"n": [1, None], "s": ["", None], "f": [float("nan"), None], "t": np.array([5, None], "M8[ms]")})
FINITE = FRAME.assign(f=[0.1, float("nan"), -0.0])
POLARS = pl.DataFrame({"n": [1, None], "s": ["", None], "f": [float("nan"), -0.0], "d": [dt.date(2026, 1, 31), None]})
VALUES = {"pandas": FRAME, "arrow": TABLE, "polars": POLARS}
LINES = {"pandas": FINITE, "arrow": TABLE.drop_columns("f"), "polars": POLARS}
FORMS = [(name, compression) for name, known in COMPRESSIONS.items() for compression in (None, *known)]


@pytest.fixture
def store(tmp_path: Path) -> LocalArtifactStore:
    return LocalArtifactStore(tmp_path / "store", durable=False)


@pytest.mark.parametrize("library", VALUES)
@pytest.mark.parametrize(("format", "compression"), FORMS)
def test_a_table_comes_back_from_every_format_as_it_was(
    store: LocalArtifactStore, library: str, format: str, compression: str | None
) -> None:
    value = (LINES if format == "jsonl" else VALUES)[library]
    manifest = store.manifest(store.save(Dataset(value, format=format, compression=compression), "d"))
    assert f"data.{format}" in [entry.path for entry in manifest.files]
    assert manifest.spec.get("compression") == compression
    again = store.load("d")
    assert difference(again.data, value) is None
    names = list(value.columns if library != "arrow" else value.column_names)[2::-2]
    some = store.load_with_manifest("d", names)[0].data
    expected = value.select(names) if library != "pandas" else value[names]
    assert difference(some, expected) is None
    assert store.manifest(store.save(again, "e")).digest == manifest.digest, "and is stored so again"


def test_the_digest_is_of_the_format_and_without_one_it_is_what_it_was(store: LocalArtifactStore) -> None:
    found = [store.manifest(store.save(Dataset(FINITE, format=form), "d")).digest for form in (None, *COMPRESSIONS)]
    assert store.manifest(store.save(FINITE, "d")).digest == found[0]
    assert len(set(found)) == 4, "parquet is the one that is chosen for this frame anyway"


def test_other_tools_read_the_csv(store: LocalArtifactStore, tmp_path: Path) -> None:
    store.save(FeatureSet(FRAME, entities="n", format="csv"), "d")
    (file,) = tmp_path.rglob("data.csv")
    with file.open(newline="") as lines:
        first, *_ = csv.DictReader(lines)
    assert (first["n"], first["f"], first["s"], first["where"]) == ("1", "0.1", 'a,"b"\nc', "p")
    assert list(pd.read_csv(file)["c"].dropna()) == ["x", "y"]
    (schema,) = tmp_path.rglob("schema.json")
    assert json.loads(schema.read_bytes())["columns"]["small"] == "float"


def test_other_tools_read_the_lines(store: LocalArtifactStore, tmp_path: Path) -> None:
    store.save(Dataset(FINITE, format="jsonl"), "d")
    (file,) = tmp_path.rglob("data.jsonl")
    first, second, _ = map(json.loads, file.read_text().splitlines())
    assert (first["n"], first["f"], first["s"], first["where"], first["day"]) == (1, 0.1, 'a,"b"\nc', "p", "2026-01-31")
    assert second["f"] is None, "NaN, of which JSON has none"
    assert list(pd.read_json(file, lines=True)["f"].isna()) == [False, True, False]
    assert pl.read_ndjson(file)["c"].to_list() == ["x", None, "y"]


@pytest.mark.parametrize("records", [[], [{}], [{"a": 1, "b": [None, {"c": "\u2028\n"}]}, {"b": -0.0}]], ids=str)
def test_records_are_a_line_each(store: LocalArtifactStore, tmp_path: Path, records: list[Any]) -> None:
    manifest = store.manifest(store.save(Dataset(records, format="jsonl"), "d"))
    assert [entry.path for entry in manifest.files] == ["data.jsonl"]
    (file,) = tmp_path.rglob("data.jsonl")
    assert file.read_bytes().count(b"\n") == len(records)
    assert difference(store.load("d").data, records) is None


@pytest.mark.parametrize("value", [FRAME, TABLE, POLARS], ids=["pandas", "arrow", "polars"])
@pytest.mark.parametrize("format", [None, "parquet", "arrow"])
def test_a_level_is_the_codec_s_and_changes_no_value(store: LocalArtifactStore, value: Any, format: str | None) -> None:
    if format == "arrow" and value is POLARS:
        with pytest.raises(MaterializationError, match="polars writes arrow without levels"):
            store.save(Dataset(value, format=format, compression="zstd:9"), "d")
        return
    manifest = store.manifest(store.save(Dataset(value, format=format, compression="zstd:9"), "d"))
    assert manifest.spec["compression"] == "zstd:9"
    assert difference(store.load("d").data, value) is None


@pytest.mark.parametrize("library", ["pandas", "arrow", "polars"])
def test_a_higher_level_makes_a_smaller_file(store: LocalArtifactStore, library: str) -> None:
    frame = pd.DataFrame({"t": [f"{n * n % 9973} of {n * n * n % 997}" for n in range(20_000)]})
    value = {"pandas": frame, "arrow": pa.Table.from_pandas(frame), "polars": pl.from_pandas(frame)}[library]
    first, last = (
        store.manifest(store.save(Dataset(value, compression=f"zstd:{level}"), "d")).files[0].size for level in (1, 19)
    )
    assert last < first


def test_the_compression_is_that_of_the_file(store: LocalArtifactStore, tmp_path: Path) -> None:
    store.save(Dataset(FRAME, compression="zstd"), "d")
    (file,) = tmp_path.rglob("data.parquet")
    assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize(
    ("value", "format", "mentions"),
    [
        (pd.DataFrame({"z": [1 + 2j]}), "csv", ("'z'", "parquet")),
        (pd.DataFrame({"l": [b"x"]}), "csv", ("'l'", "parquet")),
        (pd.DataFrame({"p": pd.period_range("2026", periods=1).astype(object)}), "csv", ()),
        (
            pd.DataFrame({"a": pd.Series([["x"]], dtype=pd.ArrowDtype(pa.list_(pa.string())))}),
            "parquet",
            ("'a'", "arrow"),
        ),
        (pa.table({"t": pa.array([1], pa.timestamp("s"))}), "parquet", ("t", "arrow")),
        (pa.table({"d": pa.array(["x"]).dictionary_encode()}), "csv", ("csv", "parquet")),
        (pa.table([[1], [2]], names=["a", "a"]), "csv", ("different names", "parquet")),
        (pa.table({"a": [1]}).replace_schema_metadata({"k": "v"}), "csv", ("metadata", "parquet")),
        (pa.table({"n": np.array([0x7FF8000000000001], "u8").view("f8")}), "csv", ("'n'", "arrow")),
        (pl.DataFrame({"l": [[1]]}), "csv", ("'l'", "parquet")),
        (pl.DataFrame({"c": ["x"]}, schema={"c": pl.Categorical}), "csv", ("'c'", "parquet")),
        (pl.LazyFrame({"c": ["x"]}), "csv", ("LazyFrame", "collect()")),
        (pd.DataFrame({"f": [float("inf")]}), "jsonl", ("'f'", "infinite", "parquet")),
        (pa.table({"f": [float("nan"), None]}), "jsonl", ("'f'", "NaN", "parquet")),
        (pa.table({"n": np.array([0xFFF8000000000000], "u8").view("f8")}), "jsonl", ("'n'", "arrow")),
        (pl.DataFrame({"l": [[1]]}), "jsonl", ("'l'", "parquet")),
        (pa.table([[1], [2]], names=["a", "a"]), "jsonl", ("different names", "parquet")),
        (pl.LazyFrame({"c": ["x"]}), "jsonl", ("LazyFrame", "collect()")),
        ([{"a": (1,)}], "jsonl", ("list", "holds exactly", "leave it out")),
        ([{"a": float("nan")}], "jsonl", ("list", "holds exactly")),
        ([1, 2], "jsonl", ("list", "no table")),
        ([{"a": 1}], "csv", ("list", "no table", "leave it out")),
        (pd.Series([1]), "parquet", ("Series", "no table")),
        (np.ones(3), "arrow", ("ndarray", "no table")),
    ],
)
def test_what_a_format_would_change_is_refused_with_the_way_out(
    store: LocalArtifactStore, value: Any, format: str, mentions: tuple[str, ...]
) -> None:
    if not mentions:  # a form in text is exact, too
        store.save(Dataset(value, format=format), "d")
        assert difference(store.load("d").data, value) is None
        return
    with pytest.raises(MaterializationError) as refusal:
        store.save(Dataset(value, format=format), "d")
    for word in mentions:
        assert word in str(refusal.value)
    assert store.list_artifacts() == []


def test_a_format_that_says_what_the_data_are_chooses_nothing(store: LocalArtifactStore, tmp_path: Path) -> None:
    path = tmp_path / "water.csv"
    path.write_text("a,b\n1,2\n")
    for data in (Dataset(path), Dataset(path, format="csv"), Dataset(pa.array([1])), Dataset([1], format="mine")):
        assert data.form == Form()
        store.save(data, "d")
    assert Dataset(FRAME).format == "pandas"


def test_a_form_that_there_is_not_is_an_error_at_once() -> None:
    with pytest.raises(AssetError, match="csv has no compression 'zstd'"):
        Dataset(FRAME, format="csv", compression="zstd")
    with pytest.raises(AssetError, match=r"arrow has no compression 'snappy'.*zstd, lz4, none"):
        Dataset(FRAME, format="arrow", compression="snappy")
    for compression, says in {
        "zstd:23": "'zstd' has no level '23'. It has 1 to 22",
        "zstd:": "no level ''",
        "zstd:-1": "no level '-1'",
        "zstd:x": "no level 'x'",
        "lz4:3": "'lz4' has no levels; write compression='lz4'",
        "gzip:3": "parquet has no compression 'gzip'",
    }.items():
        with pytest.raises(AssetError, match=re.escape(says)):
            Dataset(FRAME, compression=compression)
    with pytest.raises(AssetError, match="jsonl has no compression 'zstd'"):
        Dataset(FRAME, format="jsonl", compression="zstd:3")


def test_a_dataset_in_a_list_has_its_own_format_and_the_others_the_store_s(
    store: LocalArtifactStore, tmp_path: Path
) -> None:
    value = {"a": Dataset(FRAME, format="arrow"), "b": FRAME, "c": [1]}
    store.publish(store.stage(value, Form("csv")), "d", _labels())
    names = sorted(file.name for file in tmp_path.rglob("data.*"))
    assert names == ["data.arrow", "data.csv"]
    assert difference(store.load("d")["b"], FRAME) is None
    with pytest.raises(MaterializationError, match="no table"):
        store.save([Dataset([1], format="csv"), FRAME], "e")


def test_a_rule_chooses_for_tables_a_dataset_for_itself_and_other_values_are_as_ever(project: Path) -> None:
    (project / "tailrace.yaml").write_text(
        "plugins:\n  orchestrator: {type: inline}\n  artifact_routing:\n    default: {format: csv}\n"
        "    Dataset: {format: arrow, compression: 'zstd:9'}\n"
    )

    @step(outputs=["bare", "data", "own", "text", "records"])
    def make() -> Any:
        return FRAME, Dataset(FRAME), Dataset(FRAME, format="parquet"), "text", Dataset([{"a": 1}])

    @pipeline
    def forms() -> None:
        make()

    result = forms.run(run_id="r")
    found = {file.parent.parent.name: file.name for file in (project / ".tailrace").rglob("make/*/content-*/*.*")}
    assert found.pop("bare") in ("data.csv", "schema.json")
    assert found == {"data": "data.arrow", "own": "data.parquet", "text": "value.json", "records": "value.json"}
    assert difference(result.outputs["bare"], FRAME) is None
    assert difference(result.outputs["data"].data, FRAME) is None


def test_a_rule_with_a_form_that_there_is_not_is_an_error_of_the_file(project: Path) -> None:
    (project / "tailrace.yaml").write_text(
        "plugins:\n  artifact_routing:\n    Dataset: {format: csv, compression: zstd}\n"
    )
    with pytest.raises(ConfigError, match="csv has no compression 'zstd'"):
        resolve_stack(None)


def _labels() -> Any:
    from tailrace.stores.base import Labels

    return Labels("0" * 16, "d")


CELLS = st.one_of(
    st.lists(st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"])))),
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))),
    st.lists(st.one_of(st.none(), st.floats(allow_nan=False))),
    st.lists(st.one_of(st.none(), st.booleans())),
)


@given(st.lists(CELLS, min_size=1, max_size=4), st.sampled_from(["csv", "jsonl", "parquet"]))
def test_any_table_of_simple_cells_comes_back(
    tmp_path_factory: pytest.TempPathFactory, columns: list[Any], format: str
) -> None:
    store = LocalArtifactStore(tmp_path_factory.mktemp("s"), durable=False)
    rows = min(map(len, columns))
    kinds = [next((type(item) for item in cells if item is not None), str) for cells in columns]
    arrow = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    assume(format != "jsonl" or not any(item in (float("inf"), float("-inf")) for cells in columns for item in cells))
    table = pa.table(
        {
            f"c{i}": pa.array(cells[:rows], arrow[kind])
            for i, (cells, kind) in enumerate(zip(columns, kinds, strict=True))
        }
    )
    store.save(Dataset(table, format=format), "d")
    assert difference(store.load("d").data, table) is None
