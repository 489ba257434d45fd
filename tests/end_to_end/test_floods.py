"""More output than Redis keeps of a log reaches whoever follows it, byte for byte."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import pytest
import redis

pytestmark = pytest.mark.kernel

_BYTES = 24_000_000
_FLOOD = f"import sys; [sys.stdout.buffer.write(b'%023d\\n' % number) for number in range({_BYTES // 24})]"
_WHOLE = hashlib.sha256(b"".join(b"%023d\n" % number for number in range(_BYTES // 24))).hexdigest()


@pytest.mark.attack("D5")
def test_a_flood_comes_whole_through_a_pipe(host: Any) -> None:
    """`dayfly run` of 24 MB into a pipe that nobody reads for a moment, whole though Redis keeps 4 MiB."""
    host.start()
    command = [sys.executable, "-m", "dayfly", "run", "-q", "--no-dir", "--", "python3", "-c", _FLOOD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=host.environment, cwd=host.here) as run:
        assert run.stdout is not None
        begun = run.stdout.read(1)
        with redis.Redis.from_url(host.url) as server:  # the stream is full, and the rest of the log waits
            host.until(
                lambda: any(server.memory_usage(key, samples=0) > 4_000_000 for key in server.keys("dayfly:log:*"))
            )
        digest = hashlib.sha256(begun + run.stdout.read())
    assert (run.returncode, digest.hexdigest()) == (0, _WHOLE)


def test_one_who_stood_still_gets_the_rest_at_the_end(host: Any) -> None:
    """What had to go while a follower was not heard of comes from the store when the job is over."""
    host.start()
    job = host.submit(command=["python3", "-c", _FLOOD])
    lines = job.logs(follow=True)
    seen = [next(lines).data]
    readers = f"dayfly:readers:{job.id}"
    with redis.Redis.from_url(host.url) as server:

        def is_over() -> bool:
            for token in server.hkeys(readers):
                server.hset(readers, token, b"0 0.0")  # as if it had been silent for long
            return job.status().is_finished

        host.until(is_over)
    seen += [line.data for line in lines]
    assert hashlib.sha256(b"".join(seen)).hexdigest() == _WHOLE
