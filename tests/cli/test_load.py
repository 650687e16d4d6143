"""Which file and which pipeline is meant."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from tailrace import ConfigError
from tailrace.cli.load import find_pipeline

from .conftest import Cli, Invoke

ONE = "from tailrace import pipeline, step\n@step\ndef one() -> int: return 1\n@pipeline\ndef {name}() -> None: one()\n"


def _write(path: str, name: str = "job") -> Path:
    file = Path(path)
    file.parent.mkdir(exist_ok=True)
    file.write_text(ONE.format(name=name))
    return file


@pytest.fixture(autouse=True)
def clean(invoke: Invoke) -> None:
    """What is imported here is forgotten afterwards."""


def test_a_bare_name_is_looked_for_in_flows_then_pipelines_then_here() -> None:
    _write("water.py", "here")
    assert find_pipeline("water").name == "here"
    _write("pipelines/water.py", "in_pipelines")
    assert find_pipeline("water").name == "in_pipelines"
    _write("flows/water.py", "in_flows")
    assert find_pipeline("water").name == "in_flows"


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    _write("flows/water.py", "in_flows")
    assert find_pipeline(str(_write("water.py", "here"))).name == "here"
    assert find_pipeline(str(_write(str(tmp_path / "far" / "away.py"), "far"))).name == "far"
    assert find_pipeline("flows/water.py:in_flows").name == "in_flows"


def test_a_name_that_is_nowhere_says_where_it_was_looked_for_and_what_there_is() -> None:
    _write("flows/water.py")
    with pytest.raises(ConfigError, match="Did you mean 'water'") as caught:
        find_pipeline("watre")
    assert "flows/watre.py or pipelines/watre.py or watre.py" in str(caught.value)


def test_of_several_pipelines_one_has_to_be_named() -> None:
    file = _write("water.py", "first")
    file.write_text(file.read_text() + "@pipeline\ndef second() -> None: one()\nalias = second\n")
    with pytest.raises(ConfigError, match="water:first, water:second"):
        find_pipeline("water")
    assert find_pipeline("water:second").name == "second"
    assert find_pipeline("water.py:alias").name == "second"
    with pytest.raises(ConfigError, match=r"no pipeline 'secnd'\. Did you mean 'second'"):
        find_pipeline("water:secnd")


def test_a_pipeline_that_is_imported_to_be_part_of_another_is_not_meant() -> None:
    _write("part.py", "part")
    file = _write("whole.py", "whole")
    file.write_text("from part import part\n" + file.read_text())
    assert find_pipeline("whole").name == "whole"


def test_a_file_without_a_pipeline_says_what_to_write() -> None:
    Path("empty.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match="Write @pipeline above a function"):
        find_pipeline("empty")


def test_what_the_file_defines_is_found_again_by_its_module() -> None:
    find_pipeline(str(_write("flows/rediscovered.py")))
    assert importlib.import_module("rediscovered") is sys.modules["rediscovered"]
    assert sys.modules["rediscovered"].one.fn.__module__ == "rediscovered"


def test_a_file_may_import_its_neighbours_as_under_python() -> None:
    Path("flows").mkdir()
    Path("flows/neighbour_of_it.py").write_text("NAME = 'named next door'\n")
    file = _write("flows/beside.py")
    file.write_text(
        "from neighbour_of_it import NAME\n" + file.read_text().replace("@pipeline\n", "@pipeline(name=NAME)\n")
    )
    assert find_pipeline("beside").name == "named next door"


@pytest.mark.parametrize("stem", ["calendar", "yaml", "pytest", "with-dash"])
def test_a_file_named_like_another_module_does_not_hide_it(stem: str) -> None:
    before = sys.modules.get(stem)
    pipeline = find_pipeline(str(_write(f"flows/{stem}.py")))
    assert sys.modules.get(stem) is before
    assert pipeline.function is not None
    assert sys.modules[pipeline.function.__module__].__file__ == str(Path(f"flows/{stem}.py").resolve())


def test_a_file_that_cannot_be_imported_shows_its_own_traceback(cli: Cli) -> None:
    Path("broken.py").write_text("def helper():\n    return 1 / 0\n\nhelper()\n")
    done = cli("run", "broken")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{Path("broken.py").resolve()}", line 4, in <module>'
    assert lines[-2:] == ["ZeroDivisionError: division by zero", "broken.py cannot be imported."]
