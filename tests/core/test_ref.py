"""``Ref[T]``: what planning says of it, what a handle does, and how little it asks of its source."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import pandas as pd
import pytest

from tailrace import (
    ArtifactNotFound,
    ArtifactRef,
    Dataset,
    FeatureSet,
    MaterializationError,
    Model,
    PipelineError,
    Ref,
    pipeline,
    step,
)
from tailrace.core.annotations import allows_none, asset_type, compatible, conforms, describe, item_type, pointed
from tailrace.core.plan import FromOutput, FromParam, Gather
from tailrace.core.ref import handles
from tailrace.core.refs import FileEntry, Manifest
from tailrace.core.typenames import routing_names

if TYPE_CHECKING:
    import polars as pl

REF = ArtifactRef("id", "file:///a/b", "blake3:1", "blake3:2", "Model", "m")


class Files:
    """A source over a folder that counts what it is asked for."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        self.asked: list[Any] = []
        self.names = names
        for name in names:
            (folder / name).write_text(f"of {name}: ü", encoding="utf-8")

    def manifest(self) -> Manifest:
        self.asked.append("manifest")
        files = tuple(FileEntry(name, 1, "") for name in self.names)
        return Manifest("id", "m", "Model", "plain", 1, "", "", files, "", metadata={"rows": 3})

    def path(self, file: str) -> Path:
        self.asked.append(file)
        return self.folder / file

    def load(self, columns: Sequence[Any] | None) -> Any:
        self.asked.append(columns)
        return object()

    def close(self) -> None:
        self.asked.append("close")


# --- annotations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "target"),
    [
        (Ref, Any),
        (Ref[Any], Any),
        (Ref[Dataset], Dataset),
        (Ref[pd.DataFrame], pd.DataFrame),
        (Ref[Model] | None, Model),
        (Optional[Ref[Model]], Model),  # noqa: UP045  # both ways are written
        (Annotated[Ref[int], "note"], int),
        (Dataset, None),
        (list[Ref[int]], None),
        (None, None),
    ],
)
def test_a_lazy_parameter_is_known_by_its_annotation(annotation: Any, target: Any) -> None:
    assert pointed(annotation) is target


def test_what_is_behind_a_ref_decides_what_fits() -> None:
    assert asset_type(Ref[Dataset]) is Dataset
    assert compatible(Dataset, Ref[Dataset])
    assert compatible(FeatureSet, Ref[Dataset])
    assert compatible(pd.DataFrame, Ref[Dataset])
    assert compatible(Dataset, Ref[pd.DataFrame] | None)
    assert compatible(Ref[Dataset], Dataset)
    assert compatible(int, Ref[float])
    assert not compatible(Model, Ref[Dataset])
    assert not compatible(int, Ref[pd.DataFrame])
    assert item_type(list[Ref[int]] | None) == Ref[int]
    assert routing_names(Ref[pd.DataFrame]) == routing_names(pd.DataFrame)


def test_a_ref_is_shown_as_it_is_written() -> None:
    assert describe(Ref[Dataset]) == "Ref[Dataset]"
    assert describe(list[Ref[Model]] | None) == "list[Ref[Model]] | None"


def test_a_value_that_may_be_none_does_not_make_the_input_optional() -> None:
    assert allows_none(Ref[Model] | None)
    assert not allows_none(Ref[Model | None])


def test_a_parameter_takes_what_names_an_artifact_or_a_value() -> None:
    assert conforms("s3://bucket/key", Ref[int])
    assert conforms(REF.to_dict(), Ref[pd.DataFrame])
    assert conforms(3, Ref[int])
    assert not conforms("three", Ref[int])


@step
def only_for_checkers(frame: Ref[pl.DataFrame] | None, frames: list[Ref[pl.DataFrame]], plain: pl.DataFrame) -> None:
    """Its types are imported for type checkers only."""


def test_a_name_that_only_type_checkers_know_is_no_reason_to_load() -> None:
    found = only_for_checkers.annotations
    assert repr(pointed(found["frame"])) == "pl.DataFrame"
    assert allows_none(found["frame"])
    assert pointed(item_type(found["frames"])) is not None
    assert describe(found["frames"]) == "list[Ref[pl.DataFrame]]"
    assert found["plain"] == "pl.DataFrame"
    assert compatible(int, found["frame"])


# --- planning ---------------------------------------------------------------------------------------------------------


@step
def rows() -> Dataset:
    return Dataset([{"x": 1}])


@step
def numbers() -> list[int]:
    return [1, 2]


@step
def double(x: int) -> int:
    return 2 * x


@step
def model_of(model: Ref[Model]) -> None:
    """Takes a model."""


@step
def one(x: Ref[int]) -> int:
    return x.load()


@step
def many(xs: list[Ref[int]]) -> int:
    return sum(x.load() for x in xs)


@step
def whole(xs: Ref[list[int]]) -> int:
    return sum(xs.load())


def problems(wire: Any) -> list[str]:
    with pytest.raises(PipelineError) as error:
        pipeline(wire).plan()
    return [problem.message for problem in error.value.problems]


def test_what_fits_is_planned() -> None:
    def wired() -> None:
        found: Any = numbers()
        whole(found)
        doubled = double.map(found)
        one.map(doubled)
        many(doubled)
        many([Ref.of(double(1)), Ref.of(double(2))])

    pipeline(wired).plan()


def test_a_handle_on_an_output_is_the_output() -> None:
    def wired(x: int) -> None:
        many([Ref.of(double(x)), Ref.of(double(2))])
        one(Ref.of(x))

    plan = pipeline(wired).plan({"x": 1})
    assert plan.node("many").bindings == {
        "xs": Gather((FromOutput("double", "double"), FromOutput("double-2", "double-2")))
    }
    assert plan.node("one").bindings == {"x": FromParam("x")}


def test_an_output_of_another_type_is_a_problem_before_the_run() -> None:
    data: Any = rows
    assert problems(lambda: model_of(data())) == [
        "it is annotated Ref[Model], but the output 'rows' of step 'rows' is Dataset"
    ]


def test_parts_of_one_artifact_have_no_handles() -> None:
    shown = "one artifact, list[int], of which no part is an artifact of its own"
    said = "but the output 'numbers' of step 'numbers' is"
    assert problems(lambda: one.map(numbers())) == [f"it is annotated Ref[int], {said} {shown}"]
    made: Any = numbers
    assert problems(lambda: many(made())) == [f"it is annotated list[Ref[int]], {said} {shown}"]


def test_a_list_of_handles_is_made_of_outputs_only() -> None:
    found: Any = many
    said = "it is annotated list[Ref[int]]: a list of handles is made of steps' outputs; "
    said += "take each other artifact by a parameter of its own"
    assert problems(lambda xs: found(xs)) == [said]
    assert problems(lambda: found([REF, REF])) == [said]


def test_several_artifacts_do_not_fit_into_one_handle() -> None:
    (said,) = problems(lambda: whole(double.map(numbers())))
    assert said == "it is annotated Ref[list[int]], but the output 'double' of step 'double' is list[int]"


def test_a_parameter_of_the_pipeline_is_an_artifact() -> None:
    def wired(x: Ref[int]) -> None:
        one(x)

    plan = pipeline(wired).plan()
    assert plan.params["x"].is_artifact
    assert plan.resolve_params({"x": REF}) == {"x": REF.to_dict()}


# --- the handle -------------------------------------------------------------------------------------------------------


def test_nothing_is_asked_of_the_source_before_it_is_needed(tmp_path: Path) -> None:
    source = Files(tmp_path, "data.txt")
    ref: Ref[Any] = Ref(REF, source)
    assert (ref.ref, ref.uri, ref.digest, ref.type, ref.name) == (REF, REF.uri, REF.digest, "Model", "m")
    assert repr(ref) == "Ref(name='m', type='Model', uri='file:///a/b')"
    assert source.asked == []
    assert ref.metadata == {"rows": 3}
    assert ref.files == ("data.txt",)
    assert source.asked == ["manifest"]


def test_a_value_is_loaded_once_until_it_is_released(tmp_path: Path) -> None:
    source = Files(tmp_path)
    ref: Ref[Any] = Ref(REF, source)
    first = ref.load()
    assert ref.load() is first
    ref.release()
    ref.release()
    assert ref.load() is not first
    assert ref.load(columns=["a", 1]) is not ref.load(columns=["a", 1])
    assert source.asked == [None, None, ["a", 1], ["a", 1]]
    ref.close()
    assert source.asked[-1] == "close"
    assert list(handles([[ref], [ref]])) == [ref, ref]
    assert list(handles([1, ref])) == list(handles({"a": ref})) == []


def test_one_file_is_the_path_and_several_are_a_folder(tmp_path: Path) -> None:
    assert Ref(REF, Files(tmp_path, "data.txt")).path == tmp_path / "data.txt"
    assert Ref(REF, Files(tmp_path, "data.txt", "other.txt")).path == tmp_path


def test_a_file_is_opened_to_be_read(tmp_path: Path) -> None:
    ref: Ref[Any] = Ref(REF, Files(tmp_path, "data.txt"))
    with ref.open() as raw, ref.open("data.txt", "r") as text:
        assert raw.read().decode() == text.read() == "of data.txt: ü"
    with pytest.raises(ValueError, match="'wb' cannot be used"):
        ref.open(mode="wb")
    with pytest.raises(ArtifactNotFound, match=r"has no file '\.\./data\.txt'\. It has: data\.txt"):
        ref.open("../data.txt")
    several: Ref[Any] = Ref(REF, Files(tmp_path, "a", "b"))
    with pytest.raises(ArtifactNotFound, match=r"must be named\. It has: a, b"):
        several.open()


@pytest.mark.parametrize(
    ("columns", "said"), [("ab", r"give a list: columns=\['ab'\]"), (["a", "a"], "asked for twice")]
)
def test_columns_are_a_list_of_different_names(columns: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(MaterializationError, match=said):
        Ref(REF, Files(tmp_path)).load(columns=columns)


def test_a_step_is_called_by_hand_with_a_handle_on_a_value() -> None:
    frame = pd.DataFrame({"a": [1], "b": [2]})
    assert many([Ref.of(1), Ref.of(2)]) == 3
    ref = Ref.of(frame, "rows")
    assert ref.name == "rows"
    assert ref.load() is frame
    assert list(ref.load(columns=["b"]).columns) == ["b"]
    narrow = Ref.of(Dataset(frame, name="rows", statistics=True)).load(columns=["b"])
    assert (narrow.name, list(narrow.schema or ()), narrow.statistics["columns"]) == ("rows", ["b"], 1)
    assert list(narrow.statistics["by_column"]) == ["b"]
    with pytest.raises(MaterializationError, match="cannot be taken"):
        ref.load(columns=["c"])
    with pytest.raises(MaterializationError, match="A int has no columns"):
        Ref.of(1).load(columns=["c"])
    with pytest.raises(ArtifactNotFound, match="a value in memory"):
        _ = ref.path


def test_a_part_of_the_features_keeps_the_entities_that_it_has() -> None:
    frame = pd.DataFrame({"id": [1], "at": [2], "x": [3]})
    features = Ref.of(FeatureSet(frame, entities=["id"], timestamp="at"))
    assert features.load(columns=["id", "x"]).entities == ["id"]
    assert features.load(columns=["id", "x"]).timestamp is None
    assert features.load(columns=["at"]).timestamp == "at"
    assert features.load(columns=["x"]).features == ["x"]


def test_the_handle_costs_no_library() -> None:
    program = "import sys, tailrace.core.ref; print(*{'pandas', 'numpy', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
