"""The MLflow tracker on a SQLite file, as steps use it: several processes, retries, crashes, and bad values."""

from __future__ import annotations

import logging
import math
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailrace.catalog.journal import Journal
from tailrace.core.errors import DestinationError
from tailrace.core.refs import Run
from tailrace.routing import mlflow_backend
from tailrace.routing.trackers.base import Tracker
from tailrace.routing.trackers.mlflow import MlflowTracker
from tailrace.stores.local import LocalArtifactStore

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


pytestmark = pytest.mark.usefixtures("nothing_outside")


def a_run(root: Path, run_id: str = "r1") -> Run:
    return Run(run_id, "train", "churn", NOW, "local", "inline", str(root))


def journal_of(root: Path, run: Run) -> Journal:
    return Journal.of(LocalArtifactStore(root / "artifacts"), run)


def client_of(root: Path) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{root}/.tailrace/mlflow.db")


def runs_in(root: Path, *, deleted: bool = False) -> list[Any]:
    from mlflow.entities import ViewType

    client = client_of(root)
    experiments = [found.experiment_id for found in client.search_experiments()]
    return list(
        client.search_runs(experiments, run_view_type=ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY)
    )


@pytest.fixture
def tracker(root: Path) -> MlflowTracker:
    return MlflowTracker(root=root, project="churn")


@pytest.fixture
def opened(tracker: MlflowTracker, root: Path) -> str:
    run = a_run(root)
    return tracker.open_run(run, journal_of(root, run))


def history(root: Path, tracker_run: str, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client_of(root).get_metric_history(tracker_run, key)]


# --- one run ----------------------------------------------------------------------------------------------------------


def test_it_is_a_tracker(tracker: MlflowTracker) -> None:
    assert isinstance(tracker, Tracker)


def test_making_one_imports_no_heavy_library() -> None:
    code = (
        "import sys; from pathlib import Path; from tailrace.routing.trackers.mlflow import MlflowTracker\n"
        "from tailrace.routing.registries.mlflow import MlflowRegistry\n"
        "MlflowTracker(root=Path('.'), project='p'), MlflowRegistry(root=Path('.'))\n"
        "print([name for name in ('mlflow', 'sqlalchemy', 'requests') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_is_named_and_tagged_with_what_it_is(root: Path, opened: str) -> None:
    found = client_of(root).get_run(opened)
    assert found.info.run_name == "train/r1"
    assert found.info.status == "RUNNING"
    assert found.info.start_time == NOW.timestamp() * 1000
    ours = {key: value for key, value in found.data.tags.items() if key.startswith("tailrace.")}
    assert ours == {
        "tailrace.key": "churn/train/r1",
        "tailrace.project": "churn",
        "tailrace.pipeline": "train",
        "tailrace.run_id": "r1",
        "tailrace.stack": "local",
        "tailrace.orchestrator": "inline",
    }
    assert found.data.tags["mlflow.user"]
    assert found.data.tags["mlflow.source.name"] == "train"


def test_the_experiment_is_the_projects_and_keeps_its_files_beside_the_database(root: Path, opened: str) -> None:
    client = client_of(root)
    experiment = client.get_experiment(client.get_run(opened).info.experiment_id)
    assert experiment.name == "churn"
    assert experiment.artifact_location == (root / ".tailrace/mlartifacts/churn").as_uri()
    client.log_text(opened, "mine", "note.txt")
    assert len(list((root / ".tailrace/mlartifacts/churn").rglob("note.txt"))) == 1


def test_an_experiment_name_with_any_characters_gets_a_safe_folder(root: Path) -> None:
    name = "../über: all/of it"
    run = a_run(root)
    opened = MlflowTracker(root=root, project="churn", experiment_name=name).open_run(run, journal_of(root, run))
    client = client_of(root)
    experiment = client.get_experiment(client.get_run(opened).info.experiment_id)
    assert experiment.name == name
    assert Path(experiment.artifact_location.removeprefix("file://")).parent == root / ".tailrace/mlartifacts"


def test_opening_again_finds_the_run(tracker: MlflowTracker, root: Path, opened: str) -> None:
    run = a_run(root)
    assert tracker.open_run(run, journal_of(root, run)) == opened
    assert MlflowTracker(root=root, project="churn").open_run(run, journal_of(root, run)) == opened
    assert len(runs_in(root)) == 1


def test_another_run_id_is_another_run(tracker: MlflowTracker, root: Path, opened: str) -> None:
    for run_id in ["r2", 'it\'s "quoted"', "a/b", "a-b", "ü" * 300]:
        run = a_run(root, run_id)
        assert tracker.open_run(run, journal_of(root, run)) != opened
    assert len(runs_in(root)) == 6


def test_threads_of_one_process_open_one_run(tracker: MlflowTracker, root: Path) -> None:
    run, found = a_run(root), []
    threads = [
        threading.Thread(target=lambda: found.append(tracker.open_run(run, journal_of(root, run)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert (len(runs_in(root)), len(runs_in(root, deleted=True))) == (1, 0)


class DiesAtTheClaim(Journal):
    def claim(self, name: str, value: str) -> str:
        raise KeyboardInterrupt


def test_a_run_made_by_a_process_that_died_before_its_claim_is_adopted(tracker: MlflowTracker, root: Path) -> None:
    run = a_run(root)
    with pytest.raises(KeyboardInterrupt):
        tracker.open_run(run, DiesAtTheClaim.of(LocalArtifactStore(root / "artifacts"), run))
    [orphan] = runs_in(root)
    assert tracker.open_run(run, journal_of(root, run)) == orphan.info.run_id
    assert len(runs_in(root)) == 1


class LosesTheClaim(Journal):
    """Another process makes a run and claims it, at the last moment."""

    first: Callable[[], str]

    def claim(self, name: str, value: str) -> str:
        return super().claim(name, self.first())


def rival(root: Path) -> str:
    client = client_of(root)
    experiment = client.get_experiment_by_name("churn")
    assert experiment
    return str(client.create_run(experiment.experiment_id, tags={"tailrace.key": "churn/train/r1"}).info.run_id)


def test_who_loses_the_claim_deletes_its_own_run_and_uses_the_winners(tracker: MlflowTracker, root: Path) -> None:
    run = a_run(root)
    claims = LosesTheClaim(LocalArtifactStore(root / "artifacts"), run.project, run.run_id, run.started)
    winners: list[str] = []

    def first() -> str:
        winners.append(rival(root))
        return winners[0]

    claims.first = first
    assert [tracker.open_run(run, claims)] == winners
    assert [found.info.run_id for found in runs_in(root)] == winners


def test_closing_deletes_what_a_killed_loser_left_behind(tracker: MlflowTracker, root: Path, opened: str) -> None:
    left = rival(root)
    other = a_run(root, "r2")
    kept = tracker.open_run(other, journal_of(root, other))
    tracker.close_run(opened, "completed")
    assert {found.info.run_id for found in runs_in(root)} == {opened, kept}
    assert [found.info.run_id for found in runs_in(root, deleted=True)] == [left]


@pytest.mark.parametrize(
    ("state", "status"), [("completed", "FINISHED"), ("failed", "FAILED"), ("cancelled", "KILLED")]
)
def test_a_run_ends_as_the_pipeline_did(
    tracker: MlflowTracker, root: Path, opened: str, state: str, status: str
) -> None:
    tracker.close_run(opened, state)
    first = client_of(root).get_run(opened).info
    tracker.close_run(opened, state)
    assert first.status == status
    assert client_of(root).get_run(opened).info.end_time == first.end_time > NOW.timestamp() * 1000


def test_running_again_under_the_same_id_reopens_the_run(tracker: MlflowTracker, root: Path, opened: str) -> None:
    tracker.close_run(opened, "failed")
    run = replace(a_run(root), attempt=2)
    assert tracker.open_run(run, journal_of(root, run)) == opened
    assert client_of(root).get_run(opened).info.status == "RUNNING"
    tracker.close_run(opened, "completed")
    assert client_of(root).get_run(opened).info.status == "FINISHED"


def test_a_deleted_run_is_an_error_that_says_how_to_restore_it(tracker: MlflowTracker, root: Path, opened: str) -> None:
    client_of(root).delete_run(opened)
    run = a_run(root)
    with pytest.raises(DestinationError, match=f"'r1' of 'train' was deleted .*mlflow runs restore --run-id {opened}"):
        tracker.open_run(run, journal_of(root, run))
    client_of(root).restore_run(opened)
    assert tracker.open_run(run, journal_of(root, run)) == opened


def test_a_run_that_is_gone_for_good_is_an_error(tracker: MlflowTracker, root: Path) -> None:
    run = a_run(root)
    journal_of(root, run).claim(tracker._claim, "0" * 32)
    with pytest.raises(DestinationError, match=r"is no longer there at sqlite.* under another run id"):
        tracker.open_run(run, journal_of(root, run))


def test_a_deleted_experiment_is_an_error_that_says_how_to_restore_it(
    tracker: MlflowTracker, root: Path, opened: str
) -> None:
    client = client_of(root)
    client.delete_experiment(client.get_run(opened).info.experiment_id)
    run = a_run(root, "r2")
    with pytest.raises(DestinationError, match=r"experiment 'churn' was deleted .*mlflow experiments restore"):
        tracker.open_run(run, journal_of(root, run))


def test_people_are_told_how_to_look_at_the_run(tracker: MlflowTracker, root: Path, opened: str) -> None:
    assert tracker.describe(opened) == (
        f"run {opened}: mlflow ui --backend-store-uri 'sqlite:///{root}/.tailrace/mlflow.db'"
    )


def test_the_users_own_mlflow_is_not_touched(
    tracker: MlflowTracker, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    before = dict(os.environ)
    run = a_run(root)
    tracker.close_run(tracker.open_run(run, journal_of(root, run)), "completed")
    assert dict(os.environ) == before
    assert mlflow.get_tracking_uri() == "sqlite:///elsewhere.db"
    assert mlflow.active_run() is None
    assert not Path("elsewhere.db").exists()


# --- metrics, parameters, tags ----------------------------------------------------------------------------------------


def test_a_metric_logged_twice_is_there_once(tracker: MlflowTracker, root: Path, opened: str) -> None:
    for _ in range(3):
        tracker.log_metrics(opened, {"acc": 0.5, "nan": math.nan, "inf": -math.inf}, step=None, timestamp=NOW)
    assert history(root, opened, "acc") == [(0, 0.5)]
    [(_, nan)] = history(root, opened, "nan")
    assert math.isnan(nan)
    assert history(root, opened, "inf") == [(0, -sys.float_info.max)]  # as MLflow's databases store it


def test_steps_of_the_training_make_a_curve(tracker: MlflowTracker, root: Path, opened: str) -> None:
    for step in range(3):
        tracker.log_metrics(opened, {"loss": 1 / (step + 1)}, step=step, timestamp=NOW)
    assert history(root, opened, "loss") == [(0, 1.0), (1, 0.5), (2, 1 / 3)]


def test_a_later_measurement_of_the_same_value_is_another(tracker: MlflowTracker, root: Path, opened: str) -> None:
    for seconds in (0, 1):
        tracker.log_metrics(opened, {"acc": 0.5}, step=None, timestamp=NOW + timedelta(seconds=seconds))
    assert history(root, opened, "acc") == [(0, 0.5), (0, 0.5)]


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.dictionaries(st.text("abcäß_0. -", min_size=1, max_size=20), st.floats(allow_infinity=False), max_size=20))
def test_every_finite_number_comes_back_as_it_was(
    tracker: MlflowTracker, root: Path, opened: str, metrics: dict[str, float]
) -> None:
    named = {f"{len(metrics)}x{key}x": value for key, value in metrics.items()}
    tracker.log_metrics(opened, named, step=7, timestamp=NOW)
    logged = client_of(root).get_run(opened).data.metrics
    for key, value in named.items():
        points = history(root, opened, key)
        assert any(step == 7 and (point == value or (point != point and value != value)) for step, point in points)
        assert key in logged


def test_bad_metrics_are_named_and_the_others_are_logged(tracker: MlflowTracker, root: Path, opened: str) -> None:
    good = {f"m{index}": float(index) for index in range(50)}
    bad = {"acc!": 1.0, "what?": 2.0, "huge": 10**400, "text": "0.5", "none": None, "k" * 251: 3.0, "../up": 4.0}
    with pytest.raises(DestinationError, match=f"refuses 7 of the metrics for the run {opened}") as caught:
        tracker.log_metrics(opened, {**bad, **good}, step=None, timestamp=NOW)  # type: ignore[dict-item]
    assert all(f"  - {key!r}: " in str(caught.value) for key in bad)
    assert "alphanumerics" in str(caught.value)
    assert client_of(root).get_run(opened).data.metrics == good


def test_numbers_of_other_kinds_are_metrics_too(tracker: MlflowTracker, root: Path, opened: str) -> None:
    from decimal import Decimal

    import numpy as np

    values: dict[str, Any] = {"np": np.float32(0.5), "int": 3, "flag": True, "dec": Decimal("0.25")}
    tracker.log_metrics(opened, values, step=None, timestamp=NOW)
    assert client_of(root).get_run(opened).data.metrics == {"np": 0.5, "int": 3.0, "flag": 1.0, "dec": 0.25}


def test_nothing_to_log_is_no_error(tracker: MlflowTracker, opened: str) -> None:
    tracker.log_metrics(opened, {}, step=None, timestamp=NOW)
    tracker.log_params(opened, {})
    tracker.set_tags(opened, {})


def test_more_parameters_than_a_batch_holds_are_logged_as_text(tracker: MlflowTracker, root: Path, opened: str) -> None:
    params = {f"train.p{index}": index for index in range(250)} | {"none": None, "empty": "", "list": [1, "a"]}
    tracker.log_params(opened, params)
    tracker.log_params(opened, params)
    assert client_of(root).get_run(opened).data.params == {key: str(value) for key, value in params.items()}


def test_a_changed_parameter_is_named_with_both_values(tracker: MlflowTracker, root: Path, opened: str) -> None:
    tracker.log_params(opened, {"train.lr": 0.1})
    with pytest.raises(DestinationError, match=r"(?s)refuses 1 of the params.*'train.lr'.*'0.1'.*'0.2'"):
        tracker.log_params(opened, {"train.depth": 3, "train.lr": 0.2, "train.seed": 7})
    assert client_of(root).get_run(opened).data.params == {"train.lr": "0.1", "train.depth": "3", "train.seed": "7"}


def test_values_that_mlflow_would_cut_off_are_refused(tracker: MlflowTracker, root: Path, opened: str) -> None:
    with pytest.raises(DestinationError, match="'long': it has 6001 characters, and MLflow keeps 6000"):
        tracker.log_params(opened, {"long": "x" * 6001, "short": 1})
    with pytest.raises(DestinationError, match="'long': it has 8001 characters, and MLflow keeps 8000"):
        tracker.set_tags(opened, {"long": "x" * 8001, "short": "y"})
    data = client_of(root).get_run(opened).data
    assert data.params == {"short": "1"}
    assert (data.tags["short"], "long" in data.tags) == ("y", False)


def test_tags_replace_those_of_the_same_key(tracker: MlflowTracker, root: Path, opened: str) -> None:
    tracker.set_tags(opened, {"stage": "a"})
    tracker.set_tags(opened, {"stage": "b"})
    assert client_of(root).get_run(opened).data.tags["stage"] == "b"


# --- several processes ------------------------------------------------------------------------------------------------

WORKER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from tailrace.catalog.journal import Journal
from tailrace.core.refs import Run
from tailrace.routing.trackers.mlflow import MlflowTracker
from tailrace.stores.local import LocalArtifactStore
import mlflow

root, name, dies = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "dies"
now = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
run = Run("r1", "train", "churn", now, "local", "inline", str(root))
tracker = MlflowTracker(root=root, project="churn")
print("ready", flush=True)
sys.stdin.readline()
opened = tracker.open_run(run, Journal.of(LocalArtifactStore(root / "artifacts"), run))
tracker.log_params(opened, {f"{name}.p{i}": i for i in range(20)})
for step in range(20):
    if dies and step == 10:
        print("half", flush=True)
        sys.stdin.readline()  # for ever: it is killed here
    tracker.log_metrics(opened, {f"{name}.loss": step / 7}, step=step, timestamp=now)
print(opened, flush=True)
"""


def worker(root: Path, name: str, *, dies: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(root), name, "dies" if dies else "lives"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def expect(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout
    assert process.stdout.readline().strip() == line


def test_four_processes_on_a_new_database_share_one_run_though_one_is_killed(tmp_path: Path) -> None:
    root = tmp_path / "project"
    names = ["a", "b", "c", "killed"]
    workers = [worker(root, name, dies=name == "killed") for name in names]
    for process in workers:
        expect(process, "ready")
    for process in workers:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    expect(workers[3], "half")
    workers[3].kill()
    workers[3].communicate()
    ended = [process.communicate() for process in workers[:3]]
    assert [errors for _, errors in ended] == ["", "", ""]
    [opened] = {output.strip() for output, _ in ended}

    assert [found.info.run_id for found in runs_in(root)] == [opened]
    assert client_of(root).get_run(opened).info.status == "RUNNING"
    for name, count in zip(names, [20, 20, 20, 10], strict=True):
        assert history(root, opened, f"{name}.loss") == [(step, step / 7) for step in range(count)]
    assert client_of(root).get_run(opened).data.params == {f"{name}.p{i}": str(i) for name in names for i in range(20)}

    MlflowTracker(root=root, project="churn").close_run(opened, "failed")
    assert client_of(root).get_run(opened).info.status == "FAILED"
    assert sorted(path.name for path in (root / ".tailrace").iterdir()) == ["mlflow.db"]


# --- places -----------------------------------------------------------------------------------------------------------


def test_a_new_database_is_made_quietly_and_whole(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "with space, ü and #"
    run = a_run(root)
    with caplog.at_level(logging.INFO):
        opened = MlflowTracker(root=root, project="churn").open_run(run, journal_of(root, run))
    assert capfd.readouterr() == ("", "")
    assert [record.name for record in caplog.records if record.name.startswith(("mlflow", "alembic"))] == []
    assert [path.name for path in (root / ".tailrace").iterdir()] == ["mlflow.db"]
    with closing(sqlite3.connect(root / ".tailrace" / "mlflow.db")) as database:
        assert database.execute("SELECT run_uuid FROM runs").fetchall() == [(opened,)]
        locations = database.execute("SELECT artifact_location FROM experiments").fetchall()
    assert all(location.startswith((root / ".tailrace/mlartifacts").as_uri()) for (location,) in locations)


def test_a_path_that_looks_percent_encoded_is_taken_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "50%41"
    run = a_run(root)
    MlflowTracker(root=root, project="churn").open_run(run, journal_of(root, run))
    assert (root / ".tailrace" / "mlflow.db").exists()


def test_a_relative_database_is_relative_to_the_root(root: Path) -> None:
    run = a_run(root)
    (root / ".tailrace" / "mlflow.db").rename(root / "here.db")
    MlflowTracker(tracking_uri="sqlite:///here.db", root=root, project="churn").open_run(run, journal_of(root, run))
    with closing(sqlite3.connect(root / "here.db")) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (1,)


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns"])
def test_a_folder_is_refused_with_what_to_use_instead(tmp_path: Path, uri: str) -> None:
    run = a_run(tmp_path)
    tracker = MlflowTracker(tracking_uri=uri, root=tmp_path, project="churn")
    with pytest.raises(DestinationError, match=r"Use a server or a database \(sqlite:///.tailrace/mlflow.db\)"):
        tracker.open_run(run, journal_of(tmp_path, run))


def refused(uri: str, root: Path) -> tuple[DestinationError, float]:
    run = a_run(root)
    begin = time.monotonic()
    with pytest.raises(DestinationError) as caught:
        MlflowTracker(tracking_uri=uri, root=root, project="churn").open_run(run, journal_of(root, run))
    return caught.value, time.monotonic() - begin


def test_a_database_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    error, seconds = refused("sqlite:///folder.db", tmp_path)
    assert f"MLflow at sqlite:///{tmp_path}/folder.db failed while opening the run 'r1' of 'train'" in str(error)
    assert seconds < 10


def test_a_file_that_is_no_database_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.db").write_bytes(b"something else" * 100)
    error, seconds = refused("sqlite:///mine.db", tmp_path)
    assert "file is not a database" in str(error)
    assert seconds < 10
    assert (tmp_path / "mine.db").read_bytes() == b"something else" * 100


def test_a_server_that_is_down_is_an_error_soon_and_hides_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_backend, "_PATIENCE", 1.0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    error, seconds = refused(f"http://me:s3cret@127.0.0.1:{port}", tmp_path)
    assert f"The MLflow server at http://me:***@127.0.0.1:{port} has not answered" in str(error)
    assert "s3cret" not in "".join(traceback.format_exception(error))
    assert seconds < 10


def test_a_server_that_accepts_and_never_answers_is_an_error_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_backend, "_PATIENCE", 1.0)
    monkeypatch.setattr(mlflow_backend, "_ANSWER", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        error, seconds = refused(f"http://127.0.0.1:{server.getsockname()[1]}", tmp_path)
    assert "has not answered" in str(error)
    assert seconds < 10
