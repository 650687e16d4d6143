"""Three steps, for ``tailrace run`` and for ``three_tailrace``."""

from __future__ import annotations

from tailrace import pipeline, step


@step
def one() -> int:
    return 1


@step
def two(x: int) -> int:
    return x + 1


@step
def three(x: int) -> int:
    return x + 1


@pipeline
def chain() -> None:
    three(two(one()))
