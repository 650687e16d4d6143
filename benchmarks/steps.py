"""What one more step costs: a chain of small integers, each stored, digested and recorded."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial

from measure import Bench, Row, alternate, row, working_in

from tailrace import Pipeline, pipeline, step

__all__ = ["rows"]

_STEPS = 50
_CONFIG = """\
active_stack: here
stacks:
  here:
    artifact_store: {{type: local, path: .tailrace/artifacts, durable: {durable}}}
"""


@step
def start() -> int:
    return 0


@step
def add(x: int) -> int:
    return x + 1


def chain(length: int) -> Pipeline:
    """A pipeline of so many steps, one after the other."""

    @pipeline(name=f"chain-{length}")
    def made() -> None:
        x = start()
        for _ in range(length - 1):
            x = add(x)

    return made


def rows(bench: Bench) -> Iterator[Row]:
    """The slope between 1 step and 51, beside the writes that publishing needs."""
    for durable, most in (False, 1.0), (True, 3.0):
        word = "durable" if durable else "not durable"
        with working_in(bench.folder / f"steps-{durable}", _CONFIG.format(durable=str(durable).lower())):
            short, long = chain(1), chain(1 + _STEPS)
            values, floors = alternate(11, partial(_slope, short, long), partial(_bare, durable))
        floor = "3 files, 3 folders, written aside and renamed" + (", flushed" if durable else "")
        yield row(f"one more step of {_STEPS}, {word}", values, "ms", floors, floor, most=most)


def _slope(short: Pipeline, long: Pipeline) -> float:
    return (_ms(partial(long.run, orchestrator="inline")) - _ms(partial(short.run, orchestrator="inline"))) / _STEPS


def _bare(durable: bool) -> float:
    folder = f"bare/{time.time_ns()}"
    os.makedirs(f"{folder}/steps")

    def work() -> None:
        for index in range(_STEPS):
            _publish(folder, index, durable)

    return _ms(work) / _STEPS


def _publish(folder: str, index: int, durable: bool) -> None:
    """The content (a folder with a file), the manifest and the task's record, in the order that a crash survives."""
    place = f"{folder}/step-{index}"
    os.mkdir(f"{folder}/aside")
    _write(f"{folder}/aside/value.json", b"1", durable)
    os.mkdir(place)
    os.mkdir(f"{place}/artifact")
    os.rename(f"{folder}/aside", f"{place}/artifact/content")
    _write(f"{place}/artifact/.manifest", b"m" * 1000, durable)
    if durable:
        for name in (f"{place}/artifact/content", f"{place}/artifact", place, folder):
            _flush(name)
    os.rename(f"{place}/artifact/.manifest", f"{place}/artifact/manifest.json")
    if durable:
        _flush(f"{place}/artifact")
    _write(f"{folder}/steps/.{index}", b"r" * 1000, False)
    os.rename(f"{folder}/steps/.{index}", f"{folder}/steps/{index}.json")


def _write(name: str, data: bytes, durable: bool) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(fd, data)
    if durable:
        os.fsync(fd)
    os.close(fd)


def _flush(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def _ms(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begin)
