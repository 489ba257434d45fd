"""S1: a secret reaches its job and nothing else: not Redis, not the home, not a log, not the process table."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.key_text import KeyKind, generate
from dayfly.jobs.state import Outcome
from dayfly.queue.connection import connect
from dayfly.queue.key_files import write_key

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

CANARY = "cAnaRy/9f+27$e'51 0b"
_FORMS = {
    CANARY,
    *(
        base64.b64encode(bytes(before) + CANARY.encode())[-(-8 * before // 6) :][: 8 * len(CANARY) // 6 - 2].decode()
        for before in range(3)
    ),
    urllib.parse.quote(CANARY, safe=""),
    json.dumps(CANARY)[1:-1],
    CANARY.encode().hex(),
}

# It says its secret in every way it can, and then waits for the test to have looked around.
_LEAK = """\
set -x
echo "plain $TOKEN"
cat /run/secrets/key /opt/app/netrc
printf %s "$TOKEN" | base64
printf 'u:%s' "$TOKEN" | base64
printf 'us:%s' "$TOKEN" | base64 >&2
python3 - <<'END'
import json, os, sys, time, urllib.parse
token = os.environ["TOKEN"]
print(urllib.parse.quote(token), json.dumps([token]), token.encode().hex())
for letter in token:
    sys.stdout.write(letter); sys.stdout.flush(); time.sleep(0.002)
print(flush=True)
END
: > "$(printf %s "$TOKEN" | tr -d /)"
echo ready
while [ -e /marks/hold ]; do sleep 0.02; done
cat /proc/1/environ 2>/dev/null
exec "no-such-program-$TOKEN"
"""


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    path = tmp_path / "marks"
    path.mkdir()
    (path / "hold").touch()
    return path


@pytest.fixture
def sealed(host: Any, tmp_path: Path) -> Any:
    """The worker has its key in a file; the client knows the public half, and has set two secrets."""
    key = generate(KeyKind.X25519)
    write_key(tmp_path / "keys/worker", key)
    write_key(tmp_path / "public/worker", key.public())
    host.environment["DAYFLY_WORKER_SECRET_KEYS"] = str(tmp_path / "keys")
    host.environment["DAYFLY_CLIENT_SECRET_RECIPIENTS"] = str(tmp_path / "public/worker")
    for name in ("token", "key"):
        done = host.dayfly("secret", "set", name, stdin=None, input=f"{CANARY}\n")
        assert done.returncode == 0, done.stderr
        assert CANARY not in done.stdout + done.stderr
    return host


def _document(marks: Path, **fields: Any) -> dict[str, Any]:
    return {
        "image": "host",
        "script": _LEAK,
        "secrets": {"token": "TOKEN", "key": {"file": "/opt/app/netrc"}},
        "mounts": [{"source": str(marks), "target": "/marks"}],
        "limits": {"disk": "64M"},
        "keep": "always",
        "debug": True,
        "artifacts": {"changed": True, "exclude": ["/opt/app/netrc"]},
        **fields,
    }


def _leaks(text: str | bytes) -> list[str]:
    raw = text.encode() if isinstance(text, str) else text
    return [form for form in _FORMS if form.encode() in raw]


def _files(*directories: Path) -> Iterator[Path]:
    for directory in directories:
        yield from (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())


def _processes(uid: int) -> str:
    """Every command line and environment that the user `uid` can read, in a process of that user's."""
    command = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null || true"
    looked = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True, user=uid, group=uid, cwd="/")
    return looked.stdout.decode(errors="replace")


def _redis(url: str) -> bytes:
    """Everything in the server: each key as DUMP has it, and as its commands show it."""
    client = connect(url)
    found = b""
    for key in client.keys("*"):
        found += key + (client.dump(key) or b"")
        kind = client.type(key)
        if kind == b"hash":
            found += b"".join(name + value for name, value in client.hgetall(key).items())
        elif kind == b"stream":
            found += b"".join(value for _, fields in client.xrange(key) for value in fields.values())
    client.close()
    return found


def test_s1_a_secret_is_nowhere_but_in_its_job(sealed: Any, marks: Path, tmp_path: Path) -> None:
    """While the job runs and after it, in every form: 0 hits. The log shows that the job did print it."""
    host = sealed
    host.start()
    job = host.client.submit(_document(marks))
    host.until(lambda: any(b"ready" in line.data for line in job.logs()))
    assert not _leaks(_processes(65534))
    assert not _leaks(_redis(host.url))
    keeper = host.keeper_of(job.id)
    assert CANARY not in Path(f"/proc/{keeper}/environ").read_text()
    (marks / "hold").unlink()
    result = job.result()
    assert result.outcome is Outcome.FAILED
    live = b"".join(line.data for line in job.logs())
    assert live.count(b"***") > 10
    followed = host.dayfly("logs", job.id)
    told = "".join(host.dayfly(name, job.id).stdout for name in ("explain", "status", "artifacts"))
    told += json.dumps(result.to_json()) + followed.stdout + followed.stderr + live.decode(errors="replace")
    assert not _leaks(told)
    assert not _leaks(_redis(host.url))
    places = {path: _leaks(path.read_bytes()) for path in _files(host.home)}
    assert not {str(path): found for path, found in places.items() if found}
    assert any(path.name == "disk.ext4" for path in places)
    assert not _leaks(host.worker_log.read_text())
    assert not _leaks(Path(host.worker_log).read_bytes())


def test_s1_the_same_search_finds_what_is_no_secret(sealed: Any, marks: Path) -> None:
    """The control: the canary as a plain variable is in Redis, in the record, the log, the result and the disk."""
    host = sealed
    host.start()
    (marks / "hold").unlink()
    environment = {"env": {"TOKEN": CANARY}, "secrets": {}}
    script = _LEAK.replace(
        "cat /run/secrets/key /opt/app/netrc\n", 'mkdir -p /opt/app; echo "$TOKEN" > /opt/app/netrc\n'
    )
    job = host.client.submit(_document(marks, script=script, **environment))
    job.result()
    job.status()
    assert _leaks(b"".join(line.data for line in job.logs()))
    found = {path.name for path in _files(host.home) if _leaks(path.read_bytes())}
    assert {"record.json", "disk.ext4"} <= found


def test_s1_run_shows_it_masked_as_it_comes(sealed: Any) -> None:
    """The live stream of `run`, its stderr and its Result."""
    host = sealed
    host.start()
    words = (
        "--no-dir",
        "--secret",
        "token=TOKEN",
        "--debug",
        "--json",
        "--",
        "sh",
        "-c",
        'echo "a $TOKEN b"; "$TOKEN"',
    )
    done = host.dayfly("run", *words)
    assert "a *** b" in done.stderr
    assert not _leaks(done.stdout + done.stderr)


def test_s1_a_new_agent_ships_what_the_keeper_masked(sealed: Any, marks: Path) -> None:
    """The agent is killed while the job holds its secret; the keeper masks, so the next agent has nothing to know."""
    host = sealed
    host.start()
    script = 'while [ -e /marks/hold ]; do sleep 0.02; done; echo "now $TOKEN"; cat /run/secrets/key'
    job = host.client.submit(_document(marks, script=script))
    host.await_state(job, "running")
    host.kill_worker()
    host.start()
    host.await_worker()
    (marks / "hold").unlink()
    assert job.result().outcome is Outcome.SUCCEEDED
    shown = b"".join(line.data for line in job.logs() if line.stream == 1)
    assert shown == b"now ***\n***"
    assert not _leaks(_redis(host.url))


def test_s1_a_crash_leaves_no_core(sealed: Any, marks: Path) -> None:
    """Of the job (RLIMIT_CORE) or of its keeper, which is not dumpable while it knows the value."""
    host = sealed
    host.start()
    job = host.client.submit(_document(marks, script="while [ -e /marks/hold ]; do sleep 0.02; done; kill -SEGV $$"))
    host.await_state(job, "running")
    keeper = host.keeper_of(job.id)
    # proc(5): what is not dumpable belongs to root in /proc, and gcore(1) and crash handlers cannot read it
    status = subprocess.run(["/bin/cat", f"/proc/{keeper}/environ"], capture_output=True, check=False, user=65534)
    assert status.returncode != 0
    (marks / "hold").unlink()
    assert job.result().signal == signal.SIGSEGV
    assert not [path for path in _files(host.home) if path.name.startswith("core")]


def test_a_secret_is_only_for_jobs_of_its_queues(sealed: Any) -> None:
    """A job of another queue is rejected, one that names no secret there is, too; each with the field's path."""
    host = sealed
    host.flags["queues"] = "default,other"
    host.start()
    other = host.submit(image="host", script="true", queue="other", secrets=["token"])
    missing = host.submit(image="host", script="true", secrets=["nothing"])
    right = host.submit(image="host", script='[ "$token" ]', secrets=["token"])
    for job, reason in ((other, "secrets.token: is not for jobs of the queue other"), (missing, "secrets.nothing")):
        result = job.result()
        assert result.outcome is Outcome.REJECTED
        assert reason in str(result.message)
    assert right.result().outcome is Outcome.SUCCEEDED


def test_old_keys_open_what_was_sealed_for_them(sealed: Any, tmp_path: Path) -> None:
    """Rotation: the new key is added, secrets are set again, the old key goes. No worker is restarted for it."""
    host = sealed
    host.start()
    new = generate(KeyKind.X25519)
    write_key(tmp_path / "keys/z-new", new)
    write_key(tmp_path / "public/new", new.public())
    assert host.submit(image="host", script='[ "$token" ]', secrets=["token"]).result().is_success
    done = host.dayfly("secret", "set", "token", "--to", str(tmp_path / "public/new"), stdin=None, input=CANARY)
    assert new.id in done.stderr
    os.unlink(tmp_path / "keys/worker")
    assert host.submit(image="host", script='[ "$token" ]', secrets=["token"]).result().is_success
    gone = host.submit(image="host", script="true", secrets={"key": {}}).result()
    assert "has none of these keys" in str(gone.message)


_ECHO = """\
import socket
listener = socket.create_server(("127.0.0.1", 7900))
while True:
    connection = listener.accept()[0]
    got = connection.makefile("rb").readline().decode().strip()
    print("got", got, flush=True)
    connection.sendall(b"ok")
    if got.endswith("!"):
        raise SystemExit(f"no more of {got}")
"""
_TELL = """\
for end in '' '!'; do
    python3 -c 'import socket, sys
with socket.create_connection(("echo", 7900)) as to:
    to.sendall(sys.argv[1].encode() + b"\\n"); to.recv(2)' "$TOKEN$end"
done
sleep 1
"""


def test_s1_what_a_service_writes_of_its_jobs_secret_is_masked_too(sealed: Any) -> None:
    """Its log, its last words in the result's warnings, and the home: 0 hits; a service is given no secret itself."""
    host = sealed
    host.start()
    echo = {"image": "host", "name": "echo", "command": ["python3", "-c", _ECHO], "ready": "tcp:7900"}
    job = host.client.submit(image="host", script=_TELL, secrets={"token": "TOKEN"}, services=[echo])
    result = job.result()
    assert result.outcome is Outcome.SUCCEEDED, result.describe()
    log = b"".join(line.data for line in job.logs(service="echo"))
    assert log.count(b"got") == 3, log
    assert any("no more of" in warning for warning in result.warnings)
    assert not _leaks(log)
    assert not _leaks(json.dumps(result.to_json()))
    assert not [path for path in _files(host.home) if _leaks(path.read_bytes())]
