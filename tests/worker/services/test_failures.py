"""Services that do not serve, end early or cannot be had: what becomes of the job, and what it says."""

import glob
import os
import signal

import pytest

from dayfly.jobs.result import SERVICE_NOT_READY
from dayfly.jobs.services import ServiceState
from dayfly.jobs.state import Outcome

pytestmark = pytest.mark.kernel


def _sh(name, script, **fields):
    return {"image": "host", "name": name, "command": ["sh", "-c", script], **fields}


@pytest.mark.parametrize(
    ("service", "told"),
    [
        (
            _sh("db", "echo warming up; sleep 100", ready="tcp:5432", ready_timeout=1),
            (
                "service db (host) was not ready within 1 s: a connection to 127.0.0.1:5432: Connection refused",
                "warming up",
            ),
        ),
        (
            _sh("db", "sleep 100", ready={"cmd": ["sh", "-c", "echo no such table >&2; exit 3"]}, ready_timeout=1),
            ("was not ready within 1 s", "exit code 3: no such table"),
        ),
        (
            _sh("db", "sleep 100", ready="cmd:sleep 100", ready_timeout=1),
            ("was not ready within 1 s: `sleep 100`: no answer",),
        ),
        (
            _sh("db", "echo no disk; exit 4", ready="tcp:5432"),
            ("service db (host) ended with exit code 4 before the job began", "its last output: no disk"),
        ),
        (_sh("db", "kill -9 $$", ready="tcp:5432"), ("was ended by SIGKILL before the job began",)),
        (_sh("db", "sleep 100", ready="cmd:no-such-check"), ("no-such-check: command not found",)),
        ({"image": "host", "name": "db", "command": "no-such-program"}, ("no-such-program: command not found",)),
        (
            _sh("db", "tail /dev/zero", ready="tcp:5432", limits={"memory": "8M"}),
            ("was killed by the kernel for memory before the job began",),
        ),
    ],
    ids=["port", "check", "hanging check", "exits", "killed", "no check", "no program", "out of memory"],
)
def test_a_job_whose_service_does_not_serve_is_not_started(worker, queue, service, told, server, warnings):
    """It fails with reason, the service's name, what was tried, why that failed and the service's last words."""
    worker.start()
    job = queue.submit(script="echo started", services=[service, server("other", 7001)], artifacts=["x"])
    result = queue.result(job)
    assert (result.outcome, result.reason) == (Outcome.FAILED, SERVICE_NOT_READY), result.describe()
    assert (result.exit_code, result.exit_status, result.timings.started_at) == (None, 1, None)
    for each in told:
        assert each in result.message
    assert b"started" not in queue.log(job)
    assert warnings(result) == ()
    assert [each.state for each in result.services if each.name == "db"] != [ServiceState.STOPPED]
    queue.await_discarded(job)


def test_a_service_that_ends_early_does_not_change_the_jobs_outcome(worker, queue, warnings):
    """The job goes on, and a warning says which service ended, how, and its last words."""
    worker.start()
    wait = "while python3 -c 'import socket; socket.create_connection((\"db\", 7001))'; do sleep 0.05; done"
    dying = _sh(
        "db",
        "python3 -c 'import socket, time; s = socket.create_server((\"\", 7001)); time.sleep(1)'; echo bye; exit 7",
    )
    job = queue.submit(script=f"{wait} 2>/dev/null; sleep 0.5", services=[{**dying, "ready": "tcp:7001"}])
    result = queue.result(job)
    assert result.outcome is Outcome.SUCCEEDED, result.describe()
    (service,) = result.services
    assert (service.state, service.exit_code, service.signal) == (ServiceState.EXITED, 7, None)
    assert warnings(result) == ("service db ended with exit code 7 before the job had ended; its last output: bye",)


def test_a_cancel_while_services_start_works_at_once(worker, queue, until):
    """The job is cancelled, not failed, though its service has an hour to be ready."""
    worker.start()
    job = queue.submit(script="true", services=[_sh("slow", "echo up; sleep 1000", ready="tcp:1", ready_timeout="1h")])
    queue.await_state(job, "starting")
    directory = worker.home / "jobs" / job
    until(lambda: (directory / "service-slow").exists())
    queue.producer.cancel(job)
    result = queue.result(job)
    assert (result.outcome, result.timings.started_at) == (Outcome.CANCELLED, None), result.describe()
    queue.await_discarded(job)


def test_the_wait_for_services_counts_against_the_jobs_timeout(worker, queue):
    """A job that may run for a second is timed out while it waits, and says for what."""
    worker.start()
    job = queue.submit(script="true", timeout=1, services=[_sh("slow", "sleep 1000", ready="tcp:1")])
    result = queue.result(job)
    assert (result.outcome, result.timings.started_at) == (Outcome.TIMED_OUT, None), result.describe()
    assert "slow" in result.message


@pytest.mark.parametrize(
    ("service", "why"),
    [
        ({"image": "no-such-image"}, "services[0].image: no image 'no-such-image'"),
        (_sh("a", "x", limits={"memory": "64G"}), "services[0].limits.memory: is 68719476736, more than the job has"),
        (_sh("a", "x", limits={"cpus": 64}), "services[0].limits.cpus: is 64.0, more than the job has"),
    ],
)
def test_what_cannot_be_had_is_rejected_with_its_path(worker, queue, service, why):
    """Before anything runs."""
    worker.start()
    result = queue.result(queue.submit(script="true", services=[service]))
    assert result.outcome is Outcome.REJECTED
    assert why in result.message


def test_a_killed_keeper_leaves_nothing_of_its_services(worker, queue, server, groups, until):
    """Processes and mounts die with it; the sweeper takes the groups within the job's group."""
    worker.start()
    job = queue.submit(script="sleep 100", retry=0, services=[server("db", 5432), server("cache", 6379)])
    queue.await_state(job, "running")
    inner = [path for path in groups() if glob.glob(f"{path}db/")]
    assert inner, "no group within the job's"
    os.kill(worker.keeper_of(job), signal.SIGKILL)
    assert queue.result(job).outcome is Outcome.LOST
    worker.stop()
    worker.start()
    worker.await_start()
    until(lambda: not any(os.path.isdir(path) for path in inner))
