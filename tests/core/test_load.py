"""Which file and which pipeline is meant, and by which name the file is imported."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailrace import ConfigError, LoadError, TailraceError, load_pipeline
from tailrace.core.typenames import type_name

ONE = "from tailrace import pipeline, step\n@step\ndef one() -> int: return 1\n@pipeline\ndef {name}() -> None: one()\n"


def _write(path: str | Path, name: str = "job") -> Path:
    file = Path(path)
    file.parent.mkdir(exist_ok=True)
    file.write_text(ONE.format(name=name))
    return file


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is imported here is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


# --- which file, which pipeline ---------------------------------------------------------------------------------------


def test_a_bare_name_is_looked_for_in_flows_then_pipelines_then_here() -> None:
    _write("water.py", "here")
    assert load_pipeline("water").name == "here"
    _write("pipelines/water.py", "in_pipelines")
    assert load_pipeline("water").name == "in_pipelines"
    _write("flows/water.py", "in_flows")
    assert load_pipeline("water").name == "in_flows"


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    _write("flows/water.py", "in_flows")
    assert load_pipeline(_write("water.py", "here")).name == "here"
    assert load_pipeline(str(_write(tmp_path / "far" / "away.py", "far"))).name == "far"
    assert load_pipeline("flows/water.py:in_flows").name == "in_flows"
    assert load_pipeline(Path("flows/../flows/water.py:in_flows")).name == "in_flows"


def test_a_name_that_is_nowhere_says_where_it_was_looked_for_and_what_there_is() -> None:
    _write("flows/water.py")
    with pytest.raises(ConfigError, match="Did you mean 'water'") as caught:
        load_pipeline("watre")
    assert "flows/watre.py or pipelines/watre.py or watre.py" in str(caught.value)


def test_of_several_pipelines_one_has_to_be_named() -> None:
    file = _write("water.py", "first")
    file.write_text(file.read_text() + "@pipeline\ndef second() -> None: one()\nalias = second\n")
    with pytest.raises(ConfigError, match="water:first, water:second"):
        load_pipeline("water")
    assert load_pipeline("water:second").name == "second"
    assert load_pipeline("water.py:alias").name == "second"
    with pytest.raises(ConfigError, match=r"no pipeline 'secnd'\. Did you mean 'second'"):
        load_pipeline("water:secnd")


def test_a_pipeline_that_is_imported_to_be_part_of_another_is_not_meant() -> None:
    _write("part.py", "part")
    file = _write("whole.py", "whole")
    file.write_text("from part import part\n" + file.read_text())
    assert load_pipeline("whole").name == "whole"


def test_a_file_without_a_pipeline_says_what_to_write() -> None:
    Path("empty.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match="Write @pipeline above a function"):
        load_pipeline("empty")


@pytest.mark.parametrize("raised", ["1 / 0", "raise SystemExit"])
def test_a_file_that_cannot_be_imported_is_not_half_imported(raised: str) -> None:
    file = _write("broken.py")
    file.write_text(file.read_text() + raised)
    for _ in range(2):
        with pytest.raises((LoadError, SystemExit)) as caught:
            load_pipeline("broken")
        assert "broken" not in sys.modules
    if raised == "1 / 0":
        assert str(caught.value) == "broken.py cannot be imported."
        assert isinstance(caught.value, TailraceError)
        assert isinstance(caught.value, ImportError)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


# --- by which name ----------------------------------------------------------------------------------------------------


def test_what_the_file_defines_is_found_again_by_its_module() -> None:
    load_pipeline(_write("flows/rediscovered.py"))
    assert importlib.import_module("rediscovered") is sys.modules["rediscovered"]
    assert sys.modules["rediscovered"].one.fn.__module__ == "rediscovered"


def test_a_file_may_import_its_neighbours_as_under_python() -> None:
    Path("flows").mkdir()
    Path("flows/neighbour_of_it.py").write_text("NAME = 'named next door'\n")
    file = _write("flows/beside.py")
    file.write_text(
        "from neighbour_of_it import NAME\n" + file.read_text().replace("@pipeline\n", "@pipeline(name=NAME)\n")
    )
    assert load_pipeline("beside").name == "named next door"


def test_a_file_is_imported_once_so_that_its_classes_are_one() -> None:
    first = load_pipeline(_write("flows/twice.py"))
    assert load_pipeline("twice") is first


def test_what_a_neighbour_has_imported_is_not_imported_again() -> None:
    _write("flows/lender.py", "lender")
    file = _write("flows/borrower.py", "borrower")
    file.write_text("from lender import lender\n" + file.read_text())
    load_pipeline("borrower")
    assert load_pipeline("lender") is sys.modules["borrower"].lender


def test_a_file_that_has_changed_is_imported_again() -> None:
    load_pipeline(_write("edited.py", "before"))
    assert load_pipeline(_write("edited.py", "afterwards")).name == "afterwards"


@pytest.mark.parametrize("stem", ["calendar", "yaml", "pytest", "with-dash"])
def test_a_file_named_like_another_module_does_not_hide_it(stem: str) -> None:
    before = sys.modules.get(stem)
    pipeline = load_pipeline(_write(f"flows/{stem}.py"))
    assert sys.modules.get(stem) is before
    assert pipeline.function is not None
    assert sys.modules[pipeline.function.__module__].__file__ == str(Path(f"flows/{stem}.py").resolve())


def test_a_library_that_is_not_imported_yet_is_not_hidden_either() -> None:
    code = "import sys; from tailrace import load_pipeline; load_pipeline('yaml'); print('yaml' in sys.modules)"
    _write("flows/yaml.py")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


SACK = "from dataclasses import dataclass\n@dataclass\nclass Sack:\n    kilos: float\n"


@pytest.mark.parametrize("dag", ["dags/mill.py", "dags/other.py"])
def test_a_class_has_one_name_also_where_a_dag_file_is_named_like_the_pipelines(dag: str) -> None:
    file = _write("flows/mill.py", "mill")
    file.write_text(SACK + file.read_text())
    Path("dags").mkdir()
    Path("dags/mill.py").touch()
    text = "import sys; from pathlib import Path\nfrom tailrace import load_pipeline\n"
    text += "load_pipeline(Path(__file__).parent / '../flows/mill.py')\nprint(sys.modules['mill'].Sack.__module__)\n"
    Path(dag).write_text(text)
    command = [sys.executable, dag]  # its folder is on the path, as Airflow's DAG folder is
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "mill\n"


def test_two_files_of_one_name_are_two_modules() -> None:
    first, second = _write("one/mill.py", "first"), _write("two/mill.py", "second")
    for file in (first, second):
        file.write_text(SACK + file.read_text())
    functions = [load_pipeline(file).function for file in (first, second, first)]
    modules = [sys.modules[function.__module__] for function in functions if function]
    assert [type_name(modules[0].Sack), modules[2]] == ["mill.Sack", modules[0]]
    assert modules[1].Sack is not modules[0].Sack


def test_the_pipeline_of_a_file_is_found_without_any_library() -> None:
    _write("light.py")
    heavy = "airflow numpy orjson pandas prefect pydantic rich sqlalchemy typer yaml"
    code = (
        "import sys; from tailrace import load_pipeline; load_pipeline('light').plan();"
        f"print(sorted(set({heavy!r}.split()) & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
