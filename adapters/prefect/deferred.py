"""``to_flow``: a flow in a file that much else than Prefect imports.

Airflow's DAG processor and ``tailrace explain`` read such a file too, and Prefect takes a second or two to import. So
the flow is made at once where Prefect is there already, as when it loads the file, and elsewhere when it is used.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...core.pipeline import Pipeline

if TYPE_CHECKING:
    from prefect import Flow

__all__ = ["to_flow"]


def to_flow(
    pipeline: Pipeline, *, variable: str = "flow", name: str | None = None, pages: bool = True, **options: Any
) -> Flow[..., Any]:
    """A Prefect flow that runs the pipeline: call it, serve it, deploy it.

    Assign it to ``variable`` in a module, since a deployment finds the flow by that name. Its parameters are the
    pipeline's, with their annotations and defaults, and two more: ``run_id`` (the logical run id; the flow run's own
    unless given) and ``stack``. ``options`` are those of ``prefect.Flow``. Nothing is looked up before it runs.

    What its steps stored is shown on Prefect's pages, unless ``pages`` is false or the server lives only for the run.
    Where Prefect is not imported yet, it is when the flow is first used; what is wrong with the pipeline or the options
    (:class:`~tailrace.PipelineError`) shows then.
    """
    module = sys._getframe(1).f_globals.get("__name__", __name__)

    def make() -> Flow[..., Any]:
        from .flow import deployable_flow

        return deployable_flow(
            pipeline, variable=variable, module=module, name=name or pipeline.name, options=options, pages=pages
        )

    return make() if _prefect_is_here() else _Deferred(make)  # type: ignore[return-value]  # as good as one


def _prefect_is_here() -> bool:
    return "prefect.flows" in sys.modules


class _Deferred:
    """Stands where the flow is wanted, makes it when it is used, and passes everything on to it.

    It says that it is a flow as soon as Prefect is imported; before, nobody can ask.
    """

    def __init__(self, make: Callable[[], Flow[..., Any]]) -> None:
        vars(self)["_flow"] = functools.cache(make)

    @property  # type: ignore[misc]  # nobody sets it
    def __class__(self) -> type:  # what isinstance asks for
        return type(vars(self)["_flow"]()) if _prefect_is_here() else _Deferred

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and not _prefect_is_here():  # by those who look at all that a module has
            raise AttributeError(name)
        return getattr(vars(self)["_flow"](), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(vars(self)["_flow"](), name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return vars(self)["_flow"]()(*args, **kwargs)
