"""Bad input and faults: each has a message that says what to do, the documented exit code, and leaves nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq.job import Job as RqJob
from rq.serializers import JSONSerializer

pytestmark = pytest.mark.kernel


@pytest.fixture
def small_store(host: Any, tmp_path: Path, mount_tmpfs: Callable[..., Path]) -> Path:
    """The host's store lies on a file system of 2 MiB."""
    store = mount_tmpfs(tmp_path / "store", "size=2m")
    host.environment["DAYFLY_STORE_URL"] = f"file://{store}"
    return store


@pytest.fixture
def mount_tmpfs(nothing_left: None) -> Iterator[Callable[[Path, str], Path]]:
    """`mount_tmpfs(path, options)` mounts one there until the test ends."""
    mounted: list[Path] = []

    def mount(path: Path, options: str) -> Path:
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--image", "no-such-image", "--", "true"], 125, r"no image .*no-such-image.*dayfly image"),
        (["--", "no-such-command"], 127, r"no-such-command"),
        (["--", "/etc/passwd"], 126, r"/etc/passwd.*(not executable|ermission denied)"),
        (["--artifact", "no/such/**", "--", "true"], 0, r"warning: artifact pattern 'no/such/\*\*' matches no file"),
        (["--dir", "/no/such/directory", "--", "true"], 125, r"/no/such/directory"),
        (["--mount", "/no/such/source:/x", "--", "true"], 125, r"/no/such/source"),
        (["--mount", "/etc:/x", "--", "true"], 125, r"allow"),
        (["--network", "host", "--", "true"], 125, r"allow.*network_host"),
        (["--user", "nobody-of-that-name", "--", "true"], 126, r"the image has no user nobody-of-that-name"),
        (["--env", "A=1"], 125, r"nothing to run"),
    ],
)
def test_what_cannot_run_says_why(host: Any, arguments: list[str], code: int, said: str) -> None:
    """One line names what is wrong, with the exit code of the table."""
    host.start()
    done = host.dayfly("run", *arguments)
    assert done.returncode == code, done.stderr
    assert re.search(said, done.stderr, re.DOTALL), done.stderr
    assert "Traceback" not in done.stderr


def test_no_redis_is_said_at_once(host: Any, tmp_path: Path) -> None:
    """A client without a server ends with 125 and names the address."""
    done = host.dayfly("run", "--url", f"unix://{tmp_path}/none", "--", "true")
    assert done.returncode == 125
    assert re.search(r"cannot reach .*none.*is the server running", done.stderr, re.DOTALL), done.stderr


def test_a_wrong_password_is_said_and_never_shown(host: Any) -> None:
    """A refused password ends with 125, and is in no message; a worker with it waits, says so, and can be stopped."""
    url = host.url.replace("unix://", "unix://somebody:hunter2@")
    done = host.dayfly("run", "--url", url, "--", "true")
    assert done.returncode == 125
    assert re.search(r"refuses.*check the password", done.stderr, re.DOTALL), done.stderr
    assert "hunter2" not in done.stderr
    host.flags["url"] = url
    host.start()
    host.until(lambda: "check the password" in host.worker_log.read_text())
    assert "hunter2" not in host.worker_log.read_text()
    host.worker.send_signal(signal.SIGTERM)
    assert host.worker.wait(20) == 0


def test_a_job_waits_for_a_redis_that_comes_back(host: Any, tmp_path: Path) -> None:
    """The worker outlives its server's refusals: the job runs as soon as it is let in again."""
    with Redis.from_url(host.url) as redis:
        redis.execute_command("ACL", "SETUSER", "fleet", "on", ">old", "~*", "&*", "+@all")
        host.flags["url"] = host.url.replace("unix://", "unix://fleet:new@")
        host.start()
        host.until(lambda: "check the password" in host.worker_log.read_text())
        job = host.submit(script="echo hello")
        redis.execute_command("ACL", "SETUSER", "fleet", ">new")
        try:
            assert job.wait(60).is_success
            host.stop()
        finally:
            redis.execute_command("ACL", "DELUSER", "fleet")


_STOP_AT_IMPORT = """
import os, signal, sys
def stop(event, arguments):
    if event == "import" and arguments[0] == "dayfly.config":
        os.kill(os.getpid(), signal.SIGTERM)
sys.addaudithook(stop)
"""


def test_a_worker_that_is_told_to_stop_while_it_still_loads_leaves_in_order(host: Any, tmp_path: Path) -> None:
    """SIGTERM long before the worker serves is heeded as soon as it does: exit code 0, and nothing is left."""
    (tmp_path / "sitecustomize.py").write_text(_STOP_AT_IMPORT)
    host.environment["PYTHONPATH"] = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    host.start()
    assert host.worker.wait(60) == 0, host.worker_log.read_text()
    assert '"event": "worker ends"' in host.worker_log.read_text()


def test_an_output_directory_that_cannot_be_written_is_refused_first(
    host: Any, tmp_path: Path, mount_tmpfs: Callable[..., Path]
) -> None:
    """Where artifacts shall go is looked at before the job runs."""
    out = mount_tmpfs(tmp_path / "out", "ro")
    host.start()
    done = host.dayfly("run", "--artifact", "made", "--out", str(out), "--", "touch", "made")
    assert done.returncode == 125
    assert re.search(r"--out .*may write", done.stderr), done.stderr
    assert host.client.records.ls() == []


def test_an_output_directory_that_fills_up_is_said_and_keeps_the_artifacts(
    host: Any, tmp_path: Path, mount_tmpfs: Callable[..., Path]
) -> None:
    """An artifact that does not fit where it shall go is an error of 125, leaves no half file, and is still there."""
    out = mount_tmpfs(tmp_path / "out", "size=1m")
    host.start()
    script = "head -c 4M /dev/urandom > made"
    done = host.dayfly("run", "--artifact", "made", "--out", str(out), "--", "sh", "-c", script)
    assert done.returncode == 125, done.stderr
    assert re.search(r"made.*[Nn]o space left", done.stderr), done.stderr
    assert list(out.iterdir()) == []
    again = host.dayfly("artifacts", "--out", str(tmp_path / "again"), "@last")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again/made").stat().st_size == 4 << 20


def test_a_full_store_is_a_warning_and_the_next_job_is_whole(host: Any, small_store: Path) -> None:
    """Artifacts that do not fit into the store are named; no half of one stays, smaller ones fit, the outcome stays."""
    host.start()
    script = "head -c 8M /dev/urandom > made; echo small > least; exit 3"
    done = host.dayfly("run", "--json", "--artifact", "made", "--artifact", "least", "--", "sh", "-c", script)
    result = json.loads(done.stdout)
    assert (result["outcome"], done.returncode) == ("failed", 3)
    assert [each["path"] for each in result["artifacts"]] == ["least"]
    assert any(re.search(r"'made' cannot be stored in .*[Nn]o space left", each) for each in result["warnings"]), result
    assert not list(small_store.glob("blobs/tmp-*"))
    small = host.dayfly("run", "--artifact", "made", "--", "sh", "-c", "echo small > made")
    assert small.returncode == 0, small.stderr
    assert (host.here / "made").read_text() == "small\n"


@pytest.mark.usefixtures("small_store")
def test_a_log_that_does_not_fit_into_the_store_is_a_warning(host: Any) -> None:
    """The job ends as it did, its log was followed live, and the result says that it is not kept."""
    host.start()
    done = host.dayfly("run", "--result", "result.json", "--", "sh", "-c", "head -c 6M /dev/urandom | base64")
    assert done.returncode == 0
    assert len(done.stdout) > 1 << 20
    result = json.loads((host.here / "result.json").read_text())
    assert any(warning.startswith("the log is not kept") for warning in result["warnings"]), result["warnings"]


def test_a_document_of_a_later_version_is_refused_at_the_door(host: Any) -> None:
    """The client says which version it knows and what to update."""
    (host.here / "job.json").write_text(json.dumps({"version": 2, "command": ["true"]}))
    done = host.dayfly("run", "-f", "job.json")
    assert done.returncode == 125
    assert re.search(r"version 2.*knows 1; update", done.stderr), done.stderr


def test_a_document_of_a_later_version_is_rejected_by_the_worker(host: Any) -> None:
    """A newer producer's job ends as rejected with the reason, exit code 125, and the worker goes on."""
    job = host.submit(script="true")
    _rewrite(host.url, job.id, {"version": 2, "script": "true", "quantum": True})
    host.start()
    waited = host.dayfly("wait", job.id)
    assert waited.returncode == 125
    assert re.search(r"version 2.*knows 1; update", job.result().message)
    assert host.dayfly("run", "--", "true").returncode == 0


def _rewrite(url: str, job_id: str, document: dict[str, Any]) -> None:
    """Put another document into a queued job, as a producer of another version would have written it."""
    with Redis.from_url(url) as redis:
        job = RqJob.fetch(job_id, connection=redis, serializer=JSONSerializer)
        assert job.func_name == "dayfly.execute"  # reads the payload, which is written anew below
        job.args = [document]
        redis.hset(job.key, "data", job.to_dict(include_meta=False)["data"])
