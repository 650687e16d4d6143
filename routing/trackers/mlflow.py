"""MLflow as the experiment tracker."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...core.errors import DestinationError
from ...core.names import segment
from ...core.refs import Run
from ..mlflow_backend import MlflowBackend
from .base import Claims

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

__all__ = ["MlflowTracker"]

_STATUS = {"completed": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}
_KEY = "tailrace.key"  # the tag by which a run is found again: one word that needs no quoting in a filter
_environment = threading.Lock()


class MlflowTracker:
    """One MLflow run for each pipeline run, in an experiment named for the project.

    ``tracking_uri`` is a SQLAlchemy URI or a server's; ``None`` is ``sqlite:///.tailrace/mlflow.db`` below ``root``.
    ``experiment_name`` replaces the project's name. Deviations of MLflow: a database stores an infinity as the largest
    float; names of parameters and metrics have ASCII and other letters, digits and ``_-./: ``, up to 250 of them.
    """

    name: ClassVar[str] = "mlflow"

    def __init__(
        self, *, tracking_uri: str | None = None, experiment_name: str | None = None, root: Path, project: str
    ) -> None:
        self._backend = MlflowBackend(tracking_uri, None, root)
        self._experiment_name = experiment_name or project
        self._claim = f"mlflow-{hashlib.sha256(self._backend.configured.encode()).hexdigest()[:12]}"
        self._lock = threading.Lock()

    # --- the run ------------------------------------------------------------------------------------------------------

    def open_run(self, run: Run, claims: Claims) -> str:
        """The id of the MLflow run, found or made, with the status RUNNING.

        The claim decides between processes that make one at the same time; the others delete theirs. A run that was
        made by a process which died before its claim is found by its tags.
        """
        with self._lock, self._backend.client(f"opening the run {run.run_id!r} of {run.pipeline!r}") as client:
            won = claims.peek(self._claim)
            if won is None:
                mine = self._find_or_create(client, run)
                won = claims.claim(self._claim, mine)
                if won != mine:
                    client.delete_run(mine)
            self._reopen(client, won, run)
            return won

    def close_run(self, tracker_run: str, state: str) -> None:
        """Set the status FINISHED (``completed``), FAILED or KILLED (``cancelled``); the same again is a no-op."""
        with self._backend.client(f"closing the run {tracker_run}") as client:
            found = client.get_run(tracker_run)
            if found.info.status != _STATUS[state]:
                with _unprinted_url():
                    client.set_terminated(tracker_run, _STATUS[state])
            for other in _runs_of(client, found.info.experiment_id, found.data.tags.get(_KEY, "")):
                if other != tracker_run:  # made by a process that was killed between making it and losing the claim
                    client.delete_run(other)

    def describe(self, tracker_run: str) -> str:
        """The run's page on the server; for a database, the command that shows it, and the run's id."""
        uri = self._backend.tracking_uri
        with self._backend.client(f"looking up the run {tracker_run}") as client:
            experiment = client.get_run(tracker_run).info.experiment_id
        if uri.startswith("http"):
            server = re.sub("//[^/]*@", "//", uri).rstrip("/")
            return f"{server}/#/experiments/{experiment}/runs/{tracker_run}"
        return f"run {tracker_run}: mlflow ui --backend-store-uri '{self._backend.shown}'"

    def _find_or_create(self, client: MlflowClient, run: Run) -> str:
        experiment = self._experiment(client)
        found = _runs_of(client, experiment, _key_of(run))
        if found:
            return min(found)
        started = int(run.started.timestamp() * 1000)
        made = client.create_run(experiment, started, _tags_of(run), run_name=f"{run.pipeline}/{run.run_id}")
        return str(made.info.run_id)

    def _reopen(self, client: MlflowClient, tracker_run: str, run: Run) -> None:
        from mlflow.exceptions import MlflowException

        try:
            info = client.get_run(tracker_run).info
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise self._gone(tracker_run, run, "is no longer there", "Run") from error
        if info.lifecycle_stage == "deleted":
            remedy = f"Restore it (mlflow runs restore --run-id {tracker_run}), or run"
            raise self._gone(tracker_run, run, "was deleted", remedy)
        if info.status not in {"RUNNING", "SCHEDULED"}:
            client.update_run(tracker_run, status="RUNNING")

    def _gone(self, tracker_run: str, run: Run, what: str, remedy: str) -> DestinationError:
        return DestinationError(
            f"The MLflow run {tracker_run} of the run {run.run_id!r} of {run.pipeline!r} {what} at "
            f"{self._backend.shown}. {remedy} the pipeline under another run id."
        )

    def _experiment(self, client: MlflowClient) -> str:
        """The id of the experiment, made if it is not there."""
        from mlflow.exceptions import MlflowException

        name = self._experiment_name
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(client.create_experiment(name, artifact_location=self._artifact_location()))
            except MlflowException:
                found = client.get_experiment_by_name(name)  # another process was first
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise DestinationError(
                f"The MLflow experiment {name!r} was deleted at {self._backend.shown}. Restore it (mlflow experiments "
                f"restore --experiment-id {found.experiment_id}), or set another experiment_name in the stack."
            )
        return str(found.experiment_id)

    def _artifact_location(self) -> str | None:
        if self._backend.is_database:
            return (self._backend.artifacts / segment(self._experiment_name)).as_uri()
        return None  # the server knows

    # --- what is logged -----------------------------------------------------------------------------------------------

    def log_params(self, tracker_run: str, params: Mapping[str, Any]) -> None:
        """Log the values as text. Refused: another value than before under a key, and one too long for MLflow."""
        from mlflow.entities import Param
        from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

        values = {key: str(value) for key, value in params.items()}
        refused = _too_long(values, MAX_PARAM_VAL_LENGTH)
        entries = [Param(key, value) for key, value in values.items() if key not in refused]
        self._log(tracker_run, "params", entries, refused)

    def log_metrics(
        self, tracker_run: str, metrics: Mapping[str, float], *, step: int | None, timestamp: datetime
    ) -> None:
        """Log the numbers; NaN stays NaN. The same number at the same step and time again is not logged again."""
        from mlflow.entities import Metric

        refused: dict[str, str] = {}
        entries = []
        at = int(timestamp.timestamp() * 1000)
        for key, value in metrics.items():
            try:
                if isinstance(value, str | bytes):
                    raise TypeError("it is text")
                entries.append(Metric(key, float(value), at, step or 0))
            except (TypeError, ValueError, OverflowError) as error:
                refused[key] = f"{value!r:.80} is not a number that fits a float ({error})"
        self._log(tracker_run, "metrics", entries, refused)

    def set_tags(self, tracker_run: str, tags: Mapping[str, str]) -> None:
        """Set tags. Refused: one too long for MLflow."""
        from mlflow.entities import RunTag
        from mlflow.utils.validation import MAX_TAG_VAL_LENGTH

        refused = _too_long(tags, MAX_TAG_VAL_LENGTH)
        entries = [RunTag(key, value) for key, value in tags.items() if key not in refused]
        self._log(tracker_run, "tags", entries, refused)

    def _log(
        self, tracker_run: str, kind: str, entries: Sequence[Metric | Param | RunTag], refused: dict[str, str]
    ) -> None:
        """Log the entries; raise one error for all that are refused, here or by MLflow, when the others are logged."""
        if not entries and not refused:
            return
        with self._backend.client(f"logging {kind} to the run {tracker_run}") as client:
            refused = refused | _log_batch(client, tracker_run, kind, entries)
        if refused:
            lines = "\n".join(f"  - {key!r}: {why}" for key, why in refused.items())
            raise DestinationError(
                f"MLflow at {self._backend.shown} refuses {len(refused)} of the {kind} for the run {tracker_run}; the "
                f"others are logged. Correct these in the step, or choose another run id:\n{lines}"
            )


def _log_batch(client: MlflowClient, tracker_run: str, kind: str, entries: Sequence[Any]) -> dict[str, str]:
    """Why MLflow refuses entries, by key.

    It refuses whole batches, so a refused one is halved until the culprit stands alone.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.log_batch(tracker_run, **{kind: entries}, synchronous=True)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        if len(entries) == 1:
            return {entries[0].key: str(error.message).removeprefix("INVALID_PARAMETER_VALUE: ")}
        half = len(entries) // 2
        first, second = entries[:half], entries[half:]
        return _log_batch(client, tracker_run, kind, first) | _log_batch(client, tracker_run, kind, second)
    return {}


def _too_long(values: Mapping[str, str], limit: int) -> dict[str, str]:
    """What MLflow would cut off with no more than a line in the log."""
    return {
        key: f"it has {len(value)} characters, and MLflow keeps {limit}"
        for key, value in values.items()
        if len(value) > limit
    }


@contextmanager
def _unprinted_url() -> Iterator[None]:
    """Without the URL, password and all, that MLflow prints when a run ends; it asks only this variable."""
    name = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"
    with _environment:
        before = os.environ.get(name)
        os.environ[name] = "true"
        try:
            yield
        finally:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before


def _runs_of(client: MlflowClient, experiment: str, key: str) -> list[str]:
    found = client.search_runs([experiment], f"tags.`{_KEY}` = '{key}'")
    return [run.info.run_id for run in found if run.data.tags[_KEY] == key]  # some databases compare without case


def _key_of(run: Run) -> str:
    return "/".join(segment(part) for part in (run.project, run.pipeline, run.run_id))


def _tags_of(run: Run) -> dict[str, str]:
    tags = {
        _KEY: _key_of(run),
        "tailrace.project": run.project,
        "tailrace.pipeline": run.pipeline,
        "tailrace.run_id": run.run_id,
        "tailrace.stack": run.stack,
        "tailrace.orchestrator": run.orchestrator,
        "mlflow.source.name": run.pipeline,
        "mlflow.source.type": "LOCAL",
    }
    with suppress(OSError, KeyError):  # in a container, the user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags
