"""Services as people see them: a document, `run`, `logs --service`, `explain`, Python."""

from __future__ import annotations

from typing import Any

import pytest

import dayfly
from dayfly.jobs.errors import DayflyError

pytestmark = pytest.mark.kernel

_SERVER = """\
import socket
listener = socket.create_server(("127.0.0.1", 5432))
print("listening", flush=True)
while True:
    listener.accept()[0].sendall(b"hello\\n")
"""
_ASK = "import socket; print(socket.create_connection(('db', 5432)).makefile().readline(), end='')"


def _document(host: Any, **service: Any) -> str:
    """A file with a job that asks its service `db`."""
    import yaml

    db = {"image": "host", "name": "db", "command": ["python3", "-c", _SERVER], "ready": "tcp:5432", **service}
    job = {"image": "host", "command": ["python3", "-c", _ASK], "services": [db]}
    (host.here / "job.yaml").write_text(yaml.safe_dump(job))
    return "job.yaml"


def test_run_logs_and_explain_tell_of_services(host: Any) -> None:
    """The job's own streams stay its own; what the service wrote is a command away."""
    host.start()
    ran = host.dayfly("run", "--no-dir", "-f", _document(host))
    assert (ran.returncode, ran.stdout) == (0, "hello\n"), ran.stderr
    logs = host.dayfly("logs", "--service", "db", "@last")
    assert (logs.returncode, logs.stdout, logs.stderr) == (0, "listening\n", "")
    explained = host.dayfly("explain", "@last").stdout
    assert "service db (host): ready after " in explained
    assert "stopped with the job" in explained
    none = host.dayfly("logs", "--service", "cache", "@last")
    assert (none.returncode, "no service 'cache'" in none.stderr, "it has db" in none.stderr) == (125, True, True)


def test_run_ends_with_1_and_says_why_when_a_service_is_not_ready(host: Any) -> None:
    """In the summary: which service, what was tried, why it failed, and its last words."""
    host.start()
    late = ["sh", "-c", "echo recovering; exec sleep 100"]
    ran = host.dayfly("run", "--no-dir", "-f", _document(host, command=late, ready_timeout=1))
    assert (ran.returncode, ran.stdout) == (1, ""), ran.stderr
    told = (
        "failed before it began: service db (host) was not ready within 1 s: "
        "a connection to 127.0.0.1:5432: Connection refused; its last output: recovering"
    )
    assert told in ran.stderr
    assert "not ready, ended by SIGKILL" in host.dayfly("explain", "@last").stdout


def test_a_program_waits_for_the_log_of_a_service(host: Any) -> None:
    """Before the job's end there is an error that says so; `follow` waits."""
    host.start()
    db = {"image": "host", "name": "db", "command": ["python3", "-c", _SERVER], "ready": "tcp:5432"}
    job = host.client.submit(image="host", script="sleep 2", services=[db])
    host.await_state(job, "running")
    with pytest.raises(DayflyError, match="its services' logs come when it has ended"):
        list(job.logs(service="db"))
    assert b"".join(line.data for line in job.logs(follow=True, service="db")) == b"listening\n"
    result = dayfly.Client(host.url).job(job.id).status()
    assert [(each.name, each.state.value, each.log_bytes) for each in result.services] == [("db", "stopped", 10)]
