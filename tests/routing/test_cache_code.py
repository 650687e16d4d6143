"""The digest of a step's code: it changes with the project's code that the step uses, and with nothing else."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tailrace.routing.cache.code import code_digest, code_of

Write = Callable[..., ModuleType]


@pytest.fixture
def write(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module of the project and import it anew, with all that it imports."""
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def forget() -> None:
        for name in ("mill", "helpers"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()

    def make(text: str) -> ModuleType:
        (project / "mill.py").write_text(textwrap.dedent(text), encoding="utf-8")
        forget()
        return importlib.import_module("mill")

    yield make
    forget()


BEFORE = """
    import functools, dataclasses, math
    import helpers
    from helpers import indirect

    RATE = 2
    TABLE = {"a": [1, 2], "f": len}

    def deep(x):
        return x + 1

    def middle(x):
        return [deep(y) for y in range(x)]

    def unused(x):
        return x

    def logged(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args)
        return wrapper

    @logged
    def decorated(x):
        return x

    @dataclasses.dataclass
    class Wheel:
        size: int = 3
        def turn(self):
            return self.size

    class Big(Wheel):
        pass

    @functools.cache
    def kept(x):
        return x

    def default(x, y=RATE):
        return y

    def outer(power):
        def inner(x):
            return x ** power
        return inner

    square = outer(2)
    choose = {"one": lambda x: x, "two": functools.partial(deep, 1)}

    def f(x):
        from helpers import late
        return (middle(x), RATE, TABLE, decorated(x), Big().turn(), kept(x), default(x), square(x), choose["one"](x),
                helpers.direct(x), indirect(x), late(x), math.sqrt(x))
"""
HELPERS = """
    def direct(x):
        return x

    def below(x):
        return x

    def indirect(x):
        return below(x)

    def late(x):
        return x

    def unused(x):
        return x
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return x + 1", "return x + 2"),
        ("RATE = 2", "RATE = 3"),
        ('"a": [1, 2]', '"a": [1, 3]'),
        (
            "wrapper(*args):\n            return function(*args)",
            "wrapper(*args):\n            return function(*args), 1",
        ),
        ("def decorated(x):\n        return x", "def decorated(x):\n        return -x"),
        ("size: int = 3", "size: int = 4"),
        ("return self.size", "return -self.size"),
        ("def kept(x):\n        return x", "def kept(x):\n        return -x"),
        ("y=RATE", "y=7"),
        ("outer(2)", "outer(3)"),
        ("return x ** power", "return x * power"),
        ("lambda x: x", "lambda x: -x"),
        ("partial(deep, 1)", "partial(deep, 2)"),
        ("kept(x), default(x)", "default(x), kept(x)"),
    ],
)
def test_a_change_in_what_the_function_uses_is_seen(write: Write, old: str, new: str) -> None:
    Path("helpers.py").write_text(textwrap.dedent(HELPERS), encoding="utf-8")
    before = code_digest(write(BEFORE).f)
    assert BEFORE.count(old) == 1
    assert code_digest(write(BEFORE.replace(old, new)).f) != before
    assert code_digest(write(BEFORE).f) == before


@pytest.mark.parametrize("name", ["direct", "below", "late"])
def test_a_change_in_another_module_of_the_project_is_seen(write: Write, name: str) -> None:
    Path("helpers.py").write_text(textwrap.dedent(HELPERS), encoding="utf-8")
    before = code_digest(write(BEFORE).f)
    changed = HELPERS.replace(f"def {name}(x):\n        return x", f"def {name}(x):\n        return -x")
    assert changed != HELPERS
    Path("helpers.py").write_text(textwrap.dedent(changed), encoding="utf-8")
    assert code_digest(write(BEFORE).f) != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def unused(x):\n        return x", "def unused(x):\n        return -x"),
        ("RATE = 2", "RATE = 2  # per turn"),
        ("return x + 1", "return (\n            x + 1  # one more\n        )"),
        ("def deep(x):", "def deep(x: int) -> int:"),
        ("    RATE = 2", "    OTHER = 9\n    RATE = 2"),
    ],
)
def test_what_the_function_does_not_use_comments_and_layout_do_not_matter(write: Write, old: str, new: str) -> None:
    Path("helpers.py").write_text(textwrap.dedent(HELPERS), encoding="utf-8")
    before = code_digest(write(BEFORE).f)
    Path("helpers.py").write_text(textwrap.dedent(HELPERS.replace("def unused(x):\n        return x", "")))
    assert BEFORE.count(old) == 1
    assert code_digest(write(BEFORE.replace(old, new)).f) == before


def test_a_name_that_is_bound_anew_is_noticed_in_the_same_process(write: Write) -> None:
    module = write("def helper(x):\n    return x\n\nLIST = [1]\n\ndef f(x):\n    return helper(x), LIST\n")
    first = code_digest(module.f)
    assert code_digest(module.f) == first
    vars(module)["helper"] = lambda x: -x
    second = code_digest(module.f)
    module.LIST.append(2)
    assert len({first, second, code_digest(module.f)}) == 3


def test_functions_that_call_each_other_and_names_that_are_nowhere_end(write: Write) -> None:
    text = (
        "def even(n):\n    return n == 0 or odd(n - 1)\n\ndef odd(n):\n    return n != 0 and even(n - 1) and nowhere\n"
    )
    module = write(text)
    assert code_digest(module.even) != code_digest(module.odd)
    assert code_digest(write(text.replace("!= 0", "!= 1")).even) != code_digest(module.even)


def test_steps_methods_and_singledispatch_are_followed(write: Write) -> None:
    text = """
    import enum
    import functools
    from typing import NamedTuple
    from tailrace import step

    @functools.singledispatch
    def shown(x):
        return "any"

    @shown.register
    def _(x: int):
        return "int"

    @step
    def inner(x):
        return x

    class Tool:
        def __init__(self, size):
            self.size = size
        def use(self):
            return self.size

    TOOL = Tool(1)

    class Color(enum.Enum):
        RED = 1
        @property
        def shade(self):
            return "dark"

    class Pair(NamedTuple):
        left: int
        def both(self):
            return self.left, 2

    def by_type(x):
        return "of type"

    KINDS = {int: by_type, ("p", 1): [Pair(5)]}
    LOOP = [KINDS]
    LOOP.append(LOOP)

    def f(x):
        return shown(x), inner(x), TOOL.use(), Color.RED.shade, KINDS[type(x)](x), LOOP
    """
    before = code_digest(write(text).f)
    assert code_digest(write(text).f) == before
    changes = {
        '"int"': '"whole"',
        "return x\n\n    class": "return -x\n\n    class",
        "Tool(1)": "Tool(2)",
        "return self.size": "return 2 * self.size",
        "RED = 1": "RED = 2",
        '"dark"': '"light"',
        "self.left, 2": "self.left, 3",
        "Pair(5)": "Pair(6)",
        '"of type"': '"of a type"',
    }
    for old, new in changes.items():
        assert text.count(old) == 1
        assert code_digest(write(text.replace(old, new)).f) != before, new


def test_the_digest_is_the_same_in_every_process_and_as_a_script(project: Path) -> None:
    text = "NAMES = {'b', 'a', 'c'}\ndef f(x):\n    return x in {'p', 'q', 'r'}, NAMES\n"
    Path("mill.py").write_text(text + "if __name__ == '__main__':\n    import show; print(show.digest(f))\n")
    Path("show.py").write_text("from tailrace.routing.cache.code import code_digest as digest\n")
    asked = "import show, mill; print(show.digest(mill.f))"
    found = {
        subprocess.run([sys.executable, *how], capture_output=True, text=True, check=True, timeout=60).stdout
        for how in (["-c", asked], ["-c", asked], ["mill.py"])
    }
    assert len(found) == 1


def test_installed_packages_are_known_by_name_only() -> None:
    import json

    assert code_of(json.dumps) == [["json.dumps"], []]
    assert code_of(len) != code_of(max)


def test_an_array_of_the_module_counts_with_its_content(write: Write) -> None:
    pytest.importorskip("numpy")
    text = "import numpy as np\nWEIGHTS = np.array([1, 2])\ndef f(x):\n    return WEIGHTS\n"
    before = code_digest(write(text).f)
    assert code_digest(write(text).f) == before
    assert code_digest(write(text.replace("2]", "3]")).f) != before


def test_a_thousand_functions_that_call_one_another_are_followed(write: Write) -> None:
    text = "".join(f"def f{number}():\n    return f{number + 1}()\n" for number in range(1000))
    before = code_digest(write(f"{text}def f1000():\n    return 1\n").f0)
    assert code_digest(write(f"{text}def f1000():\n    return 2\n").f0) != before


def test_a_class_of_a_file_that_was_loaded_by_its_path_is_followed(project: Path) -> None:
    def loaded(size: int) -> str:
        space: dict[str, Any] = {"__name__": "loaded_by_path"}
        text = f"class Wheel:\n    def turn(self):\n        return {size}\n\ndef f():\n    return Wheel().turn()\n"
        exec(compile(text, str(project / "loaded.py"), "exec"), space)
        return code_digest(space["f"])

    assert loaded(1) == loaded(1) != loaded(2)
