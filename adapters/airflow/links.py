"""The links on a task's page: each output's artifact and manifest, and the run in the experiment tracker."""

from __future__ import annotations

from typing import Any

import attrs
from airflow.sdk import BaseOperatorLink

__all__ = ["ArtifactLink", "links_of"]

RUN = "experiment run"


@attrs.define
class ArtifactLink(BaseOperatorLink):
    """One link. Airflow asks for its address in the process that ran the task, and keeps it."""

    title: str

    @property
    def name(self) -> str:
        """The text on the button."""
        return self.title

    @property
    def xcom_key(self) -> str:
        """Where Airflow keeps the address."""
        return f"_link_{self.title}"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address; empty when the task stored no such thing."""
        found: str = (operator.links or {}).get(self.title, "")
        return found


def links_of(outputs: tuple[str, ...]) -> list[ArtifactLink]:
    """The links of a task with these outputs."""
    titles = [title for output in outputs for title in (output, f"{output} manifest")]
    return [ArtifactLink(title) for title in [*titles, RUN]]
