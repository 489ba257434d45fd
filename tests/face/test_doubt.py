"""What `run` says before it waits: whether any worker could ever take the job."""

from __future__ import annotations

import socket

import pytest

from dayfly.doubt import doubt_of
from dayfly.jobs.demand import Capacity
from dayfly.jobs.door import read_job
from dayfly.queue.serving import Server

_HERE = socket.gethostname()
_SMALL = Server(_HERE, Capacity(2000, 4096, 10240), {"disk": "nvme"})
_LARGE = Server("elsewhere", Capacity(64000, 262144, 1 << 20), {})
_LIVE = {"path": "/data", "host": "host-1", "device": 1, "inode": 2}


@pytest.mark.parametrize(
    ("document", "servers", "doubt"),
    [
        ({}, [_SMALL], None),
        ({"limits": {"cpus": 64}}, [_SMALL, _LARGE], None),
        ({"labels": ["disk=nvme"]}, [_SMALL], None),
        ({"dir": _LIVE}, [_SMALL, _LARGE], None),
        ({"queue": "ci"}, [], "no worker serves the queue ci now"),
        (
            {"limits": {"cpus": 64}},
            [_SMALL],
            "it asks for 64 cpus, more than any worker has (2 cpus, 4096 MiB of memory",
        ),
        ({"limits": {"memory": "1T"}}, [_SMALL, _LARGE], "it asks for 1048576 MiB of memory, more than any"),
        ({"limits": {"cpus": 64}, "labels": ["disk=nvme"]}, [_SMALL, _LARGE], "it asks for 64 cpus"),
        (
            {"labels": ["disk=nvme", "gpu"]},
            [_SMALL, _LARGE],
            "no worker of the queue default has the labels disk=nvme, gpu",
        ),
        ({"dir": _LIVE}, [_LARGE], "only one here can mount /data"),
    ],
)
def test_doubt_names_what_no_worker_has(document: dict[str, object], servers: list[Server], doubt: str | None) -> None:
    """A job that some worker can take raises none; else the sentence says what is missing, and that it waits."""
    said = doubt_of(read_job({"image": "host", "command": ["true"], **document}), servers)
    assert (said is None) if doubt is None else (doubt in str(said) and "the job waits until" in str(said))
