"""What the step cache costs and saves: a key, a miss beside the same step uncached, a hit beside computing."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from measure import Bench, Row, alternate, row, working_in

from tailrace import Pipeline, step
from tailrace.routing.cache.code import code_digest

__all__ = ["rows"]

_STEPS = 50
_HELPERS = 50
_CONFIG = """\
active_stack: here
stacks:
  here:
    artifact_store: {type: local, path: .tailrace/artifacts, durable: false}
"""
_NUMBERS = itertools.count()


@step(outputs=["number"])
def add(x: int, y: int) -> int:
    return x + y


def rows(bench: Bench) -> Iterator[Row]:
    """The cache is cold for the code's digest once per process, and warm from then on."""
    yield from _keys(bench.folder / "helpers")
    plain, cached = add, add.with_options(cache=True)
    with working_in(bench.folder / "cache", _CONFIG):
        misses, floors = alternate(11, partial(_per_step, cached), partial(_per_step, plain))
        hits, computed = alternate(11, partial(_per_step, cached, 0), partial(_per_step, plain, 0))
    yield row(f"a miss, of {_STEPS}", misses, "ms", floors, "the same step, not cached")
    yield row(f"a hit, of {_STEPS}", hits, "ms", computed, "the same step, not cached")
    with working_in(bench.folder / "large", _CONFIG):
        yield from _large()


def _keys(folder: Path) -> Iterator[Row]:
    """Fifty functions of twenty lines, each calling the next, in a module of their own."""
    lines = "".join(f"    x = x + {number}\n" for number in range(20))
    text = "".join(f"def f{number}(x):\n{lines}    return f{number + 1}(x)\n\n\n" for number in range(_HELPERS))
    space: dict[str, Callable[[int], int]] = {}

    def cold() -> float:
        space.clear()
        exec(compile(f"{text}def f{_HELPERS}(x):\n    return x\n", str(folder / "mill.py"), "exec"), space)
        return _ms(lambda: code_digest(space["f0"]))

    def warm() -> float:
        return _ms(lambda: code_digest(space["f0"]))

    yield row(
        f"code digest of a step that uses {_HELPERS} functions, first time in a process", alternate(11, cold)[0], "ms"
    )
    yield row("the same again", alternate(11, warm)[0], "ms")


def _per_step(used: object, start: int | None = None) -> float:
    """Milliseconds for each of so many steps; all new to the cache, unless they start from the same number."""
    first = next(_NUMBERS) * 1000 if start is None else start

    def wire() -> None:
        for place in range(_STEPS):
            used.with_options(name=f"s{place}")(first + place, -1)  # type: ignore[attr-defined]  # a Step

    chain = Pipeline("chain", function=wire)
    return _ms(lambda: chain.run(orchestrator="inline")) / _STEPS


def _large() -> Iterator[Row]:
    """An array of 200 MB: a hit copies its file, digested twice, and loads nothing."""
    import numpy as np

    @step(cache=True, outputs=["array"])
    def ones(size: int) -> object:
        return np.ones(size)

    def run(size: int) -> float:
        return _ms(lambda: Pipeline("large", function=lambda: ones(size)).run(orchestrator="inline"))

    size = 25_000_000
    run(size)
    hits, floors = alternate(3, partial(run, size), lambda: run(size + 1 + next(_NUMBERS)), warm_up=0)
    yield row("a hit on an array of 200 MB", hits, "ms", floors, "np.ones and storing it")


def _ms(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begin)
