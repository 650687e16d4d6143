"""Twenty steps on the Prefect engine."""

from __future__ import annotations

from tailrace import pipeline, step


@step
def start() -> int:
    return 0


@step
def add(x: int) -> int:
    return x + 1


@pipeline
def chain() -> None:
    x = start()
    for _ in range(19):
        x = add(x)


result = chain.run()
assert result.orchestrator == "local", result.orchestrator
