"""``doctor`` on buckets: a probe goes through each store, and what is wrong for good is told with what to check."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailrace import LocalArtifactStore, S3ArtifactStore, StoreError
from tailrace.stores.probe import probe

from ..stores.fault_proxy import FaultProxy
from ..stores.fault_store import bad_store
from ..stores.servers import ENVIRONMENT, Server
from .conftest import environment


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with bad_store() as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.url) as proxy:
        yield proxy


def doctor(project: Path, url: str, bucket: str, **changes: str) -> tuple[int, dict[str, str]]:
    """The exit code, and what is said of the store, which has few patience."""
    (project / "tailrace.yaml").write_text(
        "stacks: {far: {orchestrator: {type: inline}, artifact_store: "
        f'{{type: s3, bucket: {bucket}, endpoint_url: "{url}", retries: 1, timeout: 1}}}}}}'
    )
    command = [sys.executable, "-m", "tailrace.cli", "doctor", "--stack", "far", "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(**{**ENVIRONMENT, **changes}), cwd=project, timeout=120
    )
    (check,) = (check for check in json.loads(done.stdout) if check["group"] == "Store")
    return done.returncode, check


def test_a_sound_bucket_is_written_read_listed_and_deleted_with_times(server: Server, project: Path) -> None:
    bucket = server.bucket()
    code, check = doctor(project, server.url, bucket)
    assert (code, check["state"]) == (0, "ok")
    assert check["detail"].startswith(f"s3://{bucket}/tailrace: write ")
    assert [part.split()[0] for part in check["detail"].partition(": ")[2].split(", ")] == [
        *("write", "read", "list", "delete")
    ]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        assert list(S3ArtifactStore(bucket_name=bucket, endpoint_url=server.url).walk()) == []


def test_a_refusal_says_to_check_the_credentials(server: Server, proxy: FaultProxy, project: Path) -> None:
    bucket = server.bucket()
    proxy.fault("denied")
    code, check = doctor(project, proxy.url, bucket)
    assert (code, check["state"]) == (1, "failed")
    assert "Check the credentials, which come from AWS_* variables" in check["detail"]


def test_a_right_to_delete_that_is_missing_is_found(server: Server, proxy: FaultProxy, project: Path) -> None:
    proxy.fault("denied", matching="DELETE ")
    code, check = doctor(project, proxy.url, server.bucket())
    assert (code, check["state"]) == (1, "failed")
    assert "Cannot delete" in check["detail"]


def test_a_missing_bucket_is_told_by_name(server: Server, project: Path) -> None:
    code, check = doctor(project, server.url, "no-such-bucket")
    assert code == 1
    assert "there is no bucket 'no-such-bucket'" in check["detail"]


def test_missing_credentials_are_told_as_such(server: Server, project: Path, tmp_path: Path) -> None:
    nowhere = {name: str(tmp_path / "none") for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE")}
    gone = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "")
    code, check = doctor(project, server.url, server.bucket(), **nowhere, **gone)
    assert code == 1
    assert "credentials" in check["detail"].lower()
    assert "AWS_PROFILE" in check["detail"]


@pytest.mark.parametrize("kind", ["busy", "black hole"])
def test_what_may_pass_is_told_apart_and_waits_no_longer_than_the_user_says(
    kind: str, server: Server, proxy: FaultProxy, project: Path
) -> None:
    bucket = server.bucket()
    proxy.fault(kind)  # type: ignore[arg-type]  # one of the kinds
    begin = time.monotonic()
    code, check = doctor(project, proxy.url, bucket)
    assert (code, proxy.hits) == (1, 2)
    assert "It was tried 2 times. Check the network and the endpoint" in check["detail"]
    assert time.monotonic() - begin < 60


def test_a_store_that_gives_back_something_else_is_not_sound(tmp_path: Path) -> None:
    class Stale(LocalArtifactStore):
        def read(self, key: str) -> bytes:
            return b"old"

    with pytest.raises(StoreError, match="does not read what was just written"):
        probe(Stale(tmp_path / "store"))
    assert list((tmp_path / "store").iterdir()) == [], "and nothing is left in it"


def test_the_times_are_those_of_all_four(tmp_path: Path) -> None:
    assert list(probe(LocalArtifactStore(tmp_path / "store"))) == ["write", "read", "list", "delete"]
