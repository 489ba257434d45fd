"""At an agent's start: go on with the jobs that an earlier agent of this home left, dead or alive.

    lock held                    the keeper lives: follow it
    lock free, exit.json         it ended while nobody looked: tell the queue
    lock free, none, it ran      lost with its keeper; the retry policy decides
    lock free, none, never ran   back to the queue, no attempt counted
    written before a reboot      as lock free
    no record that can be read   nothing to go on with: the queue's own list of what we hold gives it back

A finish that the queue refuses (the lease ran out meanwhile) only means: clean up.
"""

import os
import signal

from dayfly.jobs.door import read_job
from dayfly.jobs.errors import SpecError
from dayfly.worker import jobfiles, joblock
from dayfly.worker.claims import claim_of
from dayfly.worker.host import boot_id
from dayfly.worker.places import Places
from dayfly.worker.record import Record
from dayfly.worker.running import RunningJob
from dayfly.worker.watches import Watches


def adopt(places: Places, watches: Watches) -> list[RunningJob]:
    """Every job below this home that can be gone on with; what cannot be is thrown away."""
    found = (_adopt_one(places, watches, name) for name in sorted(os.listdir(places.jobs)))
    return [job for job in found if job is not None]


def _adopt_one(places: Places, watches: Watches, name: str) -> RunningJob | None:
    directory = places.job(name)
    record = jobfiles.read_record(directory)
    try:
        if record is None or record.job_id != name:
            raise SpecError("", "no record that can be read")
        spec = read_job(record.document)
    except SpecError:
        _kill(directory)
        places.throw_away(directory)
        return None
    # Watch before looking: what the keeper writes between the two is then seen twice, not never.
    watch = watches.watch(directory)
    pid, pidfd = _keeper(directory, record)
    job = RunningJob(claim_of(record), record, spec, directory, watch, pid, pidfd)
    job.stop_reason = jobfiles.read_stop(directory)
    job.is_log_placed = False
    job.has_new_log = True
    if job.is_gone:
        job.find_ending()
    else:
        job.look()
    return job


def _keeper(directory: str, record: Record) -> tuple[int, int]:
    """(pid, pidfd); (0, -1) when it is dead."""
    if record.boot_id != boot_id():
        return 0, -1
    return joblock.follow(directory) or (0, -1)


def _kill(directory: str) -> None:
    """End a keeper whose job nobody can name: the container dies with it."""
    keeper = joblock.follow(directory)
    if keeper is not None:
        _, pidfd = keeper
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
