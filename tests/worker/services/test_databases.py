"""Real PostgreSQL and Redis as services, from images of Debian's packages."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dayfly.jobs.services import ServiceState
from dayfly.jobs.state import Outcome
from dayfly.runtime.images.store import ImageStore

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(900)]

_CACHE = Path(os.environ.get("DAYFLY_TEST_IMAGES", "/var/cache/dayfly-test-images"))
_SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list.d/ubuntu.sources")
_OPTIONS = (
    "--quiet",
    "--variant=essential",
    "--format=tar",
    '--aptopt=APT::Install-Recommends "false"',
    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")),
)

# As root, which may give the cluster to another user and become it: chown, setgid, setuid.
_POSTGRES = """
set -e
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
mkdir -p /srv/pg && chown postgres /srv/pg
su postgres -s /bin/sh -c "PATH=$PATH; initdb -D /srv/pg -A trust -N"
exec setpriv --reuid=postgres --regid=postgres --init-groups postgres -D /srv/pg -k /tmp -c listen_addresses=localhost
"""
_DATABASE = {
    "image": "postgres",
    "name": "db",
    "command": ["sh", "-c", _POSTGRES],
    "ready": "cmd:pg_isready -h 127.0.0.1",
    "stop_signal": "SIGINT",
    "stop_grace": "30s",
}
_CACHE_SERVER = {
    "image": "redis",
    "command": "redis-server --save ''",
    "user": "redis",
    "ready": "tcp:6379",
    "limits": {"memory": "64M"},
}


@pytest.fixture(scope="session")
def built(need_tool: Callable[[str], str], lacks: Callable[[str], None]) -> Callable[..., Path]:
    """`built("redis-server")`: a root file system with these packages, as a tarball; made once a machine and kept."""
    if platform.freedesktop_os_release()["ID"] not in ("debian", "ubuntu"):
        lacks("Debian or Ubuntu, whose packages make the images")
    mmdebstrap = need_tool("mmdebstrap")
    sources = [path for path in _SOURCES if Path(path).is_file() and Path(path).stat().st_size]

    def build(*packages: str) -> Path:
        suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
        key = hashlib.sha256(repr((suite, packages, _OPTIONS)).encode()).hexdigest()[:12]
        target = _CACHE / f"{packages[0]}-{key}.tar"
        if not target.exists():
            _CACHE.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_suffix(f".{os.getpid()}")
            command = [mmdebstrap, *_OPTIONS, f"--include={','.join(packages)}", suite, str(unfinished), *sources]
            if subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode:
                unfinished.unlink(missing_ok=True)
                lacks("this distribution's package mirror: mmdebstrap failed, see above")
            unfinished.rename(target)
        return target

    return build


@pytest.fixture
def images(home: Path, worker: object, built: Callable[..., Path]) -> None:
    """`postgres` and `redis` in the worker's home."""
    store = ImageStore(home)
    for name, package in (("postgres", "postgresql"), ("redis", "redis-server")):
        store.import_(str(built(package)), name)


@pytest.mark.usefixtures("images")
def test_a_job_uses_postgresql_and_redis(worker, queue, service_log):
    """Both are up before it begins, and PostgreSQL is given its time to shut down at the end."""
    worker.start()
    script = """
    export PGHOST=db PGUSER=postgres
    psql -qc 'create table t (n int); insert into t select generate_series(1, 1000)'
    psql -Atc 'select sum(n) from t'
    perl -MIO::Socket::INET -e '
        my $redis = IO::Socket::INET->new("redis:6379") or die "$!";
        print $redis "SET answer 42\\r\\nGET answer\\r\\n";
        print scalar <$redis> for 1 .. 3'
    """
    job = queue.submit(
        image="postgres", script=script, services=[_DATABASE, _CACHE_SERVER], limits={"memory": "400M", "disk": "400M"}
    )
    result = queue.result(job)
    assert result.outcome is Outcome.SUCCEEDED, (result.describe(), service_log(job, "db"))
    assert queue.log(job).split() == [b"500500", b"+OK", b"$2", b"42"]
    assert [(each.name, each.state) for each in result.services] == [
        ("db", ServiceState.STOPPED),
        ("redis", ServiceState.STOPPED),
    ]
    assert result.services[0].exit_code == 0
    assert b"database system is shut down" in service_log(job, "db")
    assert b"Ready to accept connections" in service_log(job, "redis")


@pytest.mark.usefixtures("images")
def test_two_jobs_have_a_postgresql_each_at_once(worker, queue):
    """On the same port of the same host: each sees its own tables only."""
    worker.fields |= {"memory_bytes": 800 << 20, "disk_bytes": 800 << 20}
    worker.start()
    script = """
    export PGHOST=localhost PGUSER=postgres
    psql -qc 'create table mine (n int)'
    sleep 3
    psql -Atc "select count(*) from pg_tables where schemaname = 'public'"
    """
    jobs = [queue.submit(image="postgres", script=script, services=[_DATABASE]) for _ in range(2)]
    results = [queue.result(job) for job in jobs]
    assert [each.outcome for each in results] == [Outcome.SUCCEEDED] * 2, [each.describe() for each in results]
    assert [queue.log(job) for job in jobs] == [b"1\n"] * 2
    starts, ends = zip(*((each.timings.started_at, each.timings.finished_at) for each in results), strict=True)
    assert max(starts) < min(ends), "they did not run at the same time"
