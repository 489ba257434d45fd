"""What can go wrong around a job ends with 125 and one clear line, and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from open_way import OpenWay


def dayfly(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dayfly", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://127.0.0.1:1/0", "cannot reach Redis at 127.0.0.1:1"),
        ("unix:///nowhere/s", "cannot reach Redis at unix:///nowhere/s"),
        ("http://dayfly.example", "a Dayfly server is not built yet"),
        ("ftp://x", "is no URL of a Redis"),
    ],
)
def test_redis_that_cannot_be_used_is_said_with_the_remedy(url: str, reason: str) -> None:
    """No Redis at the address, or an address that is none: 125 and one line."""
    done = dayfly("run", "--", "true", DAYFLY_URL=url)
    assert (done.returncode, done.stdout) == (125, "")
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_password_is_said_and_never_shown(valkey: str) -> None:
    """A refused password is named as such; the password itself is in no message."""
    with redis.Redis.from_url(valkey) as server:
        server.config_set("requirepass", "right")
        try:
            done = dayfly("ls", DAYFLY_URL=valkey.replace("unix://", "unix://:secret@"))
            missing = dayfly("ls", DAYFLY_URL=valkey)
        finally:
            server.config_set("requirepass", "")
    assert (done.returncode, missing.returncode) == (125, 125)
    assert "password" in done.stderr
    assert "password" in missing.stderr
    assert "secret" not in done.stderr


def test_client_that_is_not_root_submits_to_a_configured_redis(valkey: str, open_way: OpenWay) -> None:
    """Anybody with a Redis can submit."""
    socket = Path(valkey.removeprefix("unix://"))
    socket.chmod(0o777)
    open_way(socket)
    code, out = _as_nobody("submit", "--", "true", DAYFLY_URL=valkey, DAYFLY_HOME="/nowhere")
    assert code == 0, out
    assert len(out.strip()) == 26


def test_run_says_when_nobody_serves_the_queue(valkey: str) -> None:
    """A job that no worker can take now is not waited for in silence."""
    running = subprocess.Popen(
        [sys.executable, "-m", "dayfly", "run", "--", "true"],
        stderr=subprocess.PIPE,
        env={**os.environ, "DAYFLY_URL": valkey},
        text=True,
    )
    assert running.stderr is not None
    lines = [running.stderr.readline(), running.stderr.readline()]
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=30)
    assert "environment DAYFLY_URL" in lines[0]
    assert "no worker serves the queue default" in lines[1]
    assert running.returncode == 130


def test_document_of_a_newer_version_is_refused(valkey: str, tmp_path: Path) -> None:
    """A version and fields that are not there yet are refused by name, with file and line."""
    file = tmp_path / "job.yaml"
    file.write_text("version: 2\ncommand: ['true']\n")
    done = dayfly("submit", "-f", str(file), DAYFLY_URL=valkey)
    assert (done.returncode, "version" in done.stderr, "line 1" in done.stderr) == (125, True, True)
    file.write_text("command: ['true']\ninputs: [a]\n")
    done = dayfly("submit", "-f", str(file), DAYFLY_URL=valkey)
    assert (done.returncode, "inputs" in done.stderr, "not built yet" in done.stderr) == (125, True, True)


def test_worker_needs_a_redis_and_says_how() -> None:
    """A plain worker starts no server of its own."""
    done = dayfly("worker")
    assert done.returncode == 125
    assert "dayfly up" in done.stderr


def _as_nobody(*arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of a command that runs as another user, in a child of ours: the interpreter itself may lie
    where that user cannot read, so everything is imported before."""
    import encodings.ascii
    import encodings.idna  # noqa: F401

    import dayfly.cli.following
    import dayfly.cli.run
    import dayfly.cli.submit
    import dayfly.cli.worker
    import dayfly.client
    import dayfly.embedded
    import dayfly.jobs.model
    import dayfly.worker.agent  # noqa: F401 - for the child, like the others
    from dayfly.cli.main import main

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.environ.update(environment)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - until _exit
        code = main(arguments)
        sys.stdout.flush()
        os._exit(code)
    os.close(writer)
    with open(reader) as output:
        text = output.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text
