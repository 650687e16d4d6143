"""A pipeline as a Prefect flow: real tasks that load, call and route through the shared runtime.

    from tailrace.adapters.prefect import to_flow

    flow = to_flow(pipeline)

What crosses Prefect are references of a few hundred bytes. The tasks' results are not persisted by Prefect, since the
artifacts are already where they belong when a task returns. Prefect is imported when it is needed, not with this.
"""

from typing import TYPE_CHECKING, Any

from .deferred import to_flow

if TYPE_CHECKING:
    from .here import run_here

__all__ = ["run_here", "to_flow"]


def __getattr__(name: str) -> Any:
    if name != "run_here":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .here import run_here

    return run_here
