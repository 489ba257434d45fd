"""A job and its services that serve: how they find each other, what they share, what stays of them."""

import os
import signal

import pytest

from dayfly.jobs.services import ServiceState
from dayfly.jobs.spec import Keep
from dayfly.jobs.state import Outcome

pytestmark = pytest.mark.kernel


def test_a_job_reaches_its_services_as_localhost_and_by_name(worker, queue, server, ask, service_log, warnings):
    """Each is ready before the job begins, has its own host name and environment, and is stopped with it."""
    worker.start()
    services = [server("db", 5432, env={"WHO": "me"}), server("cache", 6379)]
    job = queue.submit(command=ask("localhost", 5432, "db", 5432, "cache", 6379), services=services)
    result = queue.result(job)
    assert (result.outcome, warnings(result)) == (Outcome.SUCCEEDED, ()), result.describe()
    assert queue.log(job) == b"db me\ndb me\ncache \n"
    assert [(each.name, each.image, each.state) for each in result.services] == [
        ("db", "host", ServiceState.STOPPED),
        ("cache", "host", ServiceState.STOPPED),
    ]
    assert all(0 < each.ready_seconds < 60 for each in result.services)
    assert all(each.digest.startswith("host:") for each in result.services)
    assert [service_log(job, name) for name in ("db", "cache")] == [b"listening\n"] * 2
    assert [each.log_bytes for each in result.services] == [10, 10]


def test_services_see_each_other_and_none_sees_the_jobs_processes_or_files(worker, queue, server, ask, service_log):
    """They share the network and nothing else: processes, /tmp and /workspace are each one's own."""
    worker.start()
    look = '("$@" && ls /proc | grep -c "^[0-9]" && ls /tmp /workspace) > /tmp/seen 2>&1'
    watching = f"until {look}; do sleep 0.05; done; cat /tmp/seen; sleep 100"
    a = {"image": "host", "name": "a", "command": ["sh", "-c", watching, "-", *ask("b", 7002)]}
    job = queue.submit(
        script="touch /workspace/mine /tmp/mine; sleep 0.3; ls /tmp; ps ax | grep -c '[l]istener' || true",
        services=[{**a, "ready": "cmd:test -s /tmp/seen"}, server("b", 7002)],
    )
    result = queue.result(job)
    assert result.outcome is Outcome.SUCCEEDED, result.describe()
    assert queue.log(job) == b"mine\n0\n"
    seen = service_log(job, "a").decode()
    assert seen.startswith("b \n")
    assert "mine" not in seen


def test_two_jobs_have_services_on_the_same_port_at_once(worker, queue, server, ask):
    """Each job's network is its own, so the port is free in both."""
    worker.start()
    jobs = [
        queue.submit(
            command=["sh", "-c", 'sleep 1; exec "$@"', "-", *ask("db", 5432)],
            services=[server("db", 5432, env={"WHO": who})],
        )
        for who in ("one", "two")
    ]
    results = [queue.result(job) for job in jobs]
    assert [result.outcome for result in results] == [Outcome.SUCCEEDED] * 2, [each.describe() for each in results]
    assert [queue.log(job) for job in jobs] == [b"db one\n", b"db two\n"]
    starts, ends = zip(*((each.timings.started_at, each.timings.finished_at) for each in results), strict=True)
    assert max(starts) < min(ends), "they did not run at the same time"


def test_a_service_is_killed_at_the_end_unless_it_states_a_grace(worker, queue, sh, service_log, warnings):
    """One that states it gets its signal and its time; one that ignores the signal is killed when that is over."""
    worker.start()
    polite = "trap 'echo tidying; exit 0' TERM; touch /tmp/up; while :; do sleep 0.05; done"
    deaf = "trap '' TERM; touch /tmp/up; while :; do sleep 0.05; done"
    ready = {"ready": "cmd:test -e /tmp/up"}
    services = [
        sh("polite", polite, stop_grace=60, **ready),
        sh("deaf", deaf, stop_grace=1, **ready),
        sh("rude", polite, **ready),
    ]
    job = queue.submit(script="true", services=services)
    result = queue.result(job)
    assert result.outcome is Outcome.SUCCEEDED, result.describe()
    assert warnings(result) == ()
    ends = {each.name: (each.state, each.exit_code, each.signal) for each in result.services}
    assert ends == {
        "polite": (ServiceState.STOPPED, 0, None),
        "deaf": (ServiceState.STOPPED, None, signal.SIGKILL),
        "rude": (ServiceState.STOPPED, None, signal.SIGKILL),
    }
    assert [b"tidying\n" in service_log(job, name) for name in ends] == [True, False, False]


def test_services_go_on_while_the_agent_is_killed_and_another_adopts_the_job(
    worker, queue, tmp_path, server, ask, service_log
):
    """Nothing of a job's services needs the agent."""
    hold = tmp_path / "marks"
    hold.mkdir()
    (hold / "hold").touch()
    mounts = [{"source": str(hold), "target": "/marks"}]
    script = 'while [ -e /marks/hold ]; do sleep 0.02; done; exec "$@"'
    worker.start()
    command = ["sh", "-c", script, "-", *ask("db", 5432)]
    job = queue.submit(command=command, mounts=mounts, services=[server("db", 5432)])
    queue.await_state(job, "running")
    worker.kill()
    worker.start()
    worker.await_start()
    (hold / "hold").unlink()
    result = queue.result(job)
    assert result.outcome is Outcome.SUCCEEDED, result.describe()
    assert queue.log(job).endswith(b"db \n")
    assert result.services[0].state is ServiceState.STOPPED
    assert service_log(job, "db") == b"listening\n"


def test_a_kept_job_has_the_logs_and_the_files_of_its_services(worker, queue, server, until):
    """`keep` leaves the disk, where each service's uppers are, and its log beside the job's."""
    worker.start()
    job = queue.submit(script="true", keep=Keep.ALWAYS.value, services=[server("db", 5432)])
    result = queue.result(job)
    until(lambda: os.path.isdir(result.kept))
    assert sorted(name for name in os.listdir(result.kept) if not name.startswith("lock")) == [
        "disk.ext4",
        "exit.json",
        "log",
        "record.json",
        "service-db",
    ]


def test_debug_prints_the_plans_of_services_too(worker, queue, server):
    """`run --debug` says how each container beside the job is made."""
    worker.start()
    job = queue.submit(script="true", debug=True, services=[server("db", 5432)])
    queue.result(job)
    notes = b"".join(line.data for line in queue.stream.follow(job) if line.stream == 3).decode()
    assert "service db: become user root" in notes
    assert "have db mean 127.0.0.1 in /etc/hosts" in notes
