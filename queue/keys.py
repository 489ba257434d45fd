"""The names of every key: RQ's as RQ itself makes them, and ours beside them.

RQ's prefix is read when rq is imported (RQ_KEY_PREFIX). Ours follows it, so that two installations that share one
Redis under two prefixes stay apart in our keys too.
"""

from __future__ import annotations

from rq.defaults import RQ_KEY_PREFIX

RQ = RQ_KEY_PREFIX
OWN = "dayfly" if RQ == "rq" else f"{RQ}:dayfly"

QUEUES = f"{RQ}:queues"  # every list that RQ knows, by its key
WORKERS = f"{RQ}:workers"

JOBS = f"{OWN}:jobs"  # job ids by the time of their submission
IDS = f"{OWN}:ids"  # job ids by their letters, for prefixes
LEASES = f"{OWN}:leases"  # executions by the end of their lease
CLIENTS = f"{OWN}:clients"  # jobs of `dayfly run` by the end of their client's lease
DEADLINES = f"{OWN}:deadlines"  # waiting jobs by the end of their queue_timeout
RESERVED = f"{OWN}:reserved"  # which worker is kept free for which job
SECRETS = f"{OWN}:secrets"  # a hash: sealed secrets by name
REDIS = f"{OWN}:redis"  # which server process this is, and since when it answers


def job(job_id: str) -> str:
    return f"{RQ}:job:{job_id}"


def jobs_list(name: str) -> str:
    """The list of one class, or of what plain RQ producers put into a queue."""
    return f"{RQ}:queue:{name}"


def results(job_id: str) -> str:
    return f"{RQ}:results:{job_id}"


def execution(job_id: str, execution_id: str) -> str:
    return f"{RQ}:execution:{job_id}:{execution_id}"


def worker(name: str) -> str:
    return f"{RQ}:worker:{name}"


def executions(worker_name: str) -> str:
    return f"{RQ}:worker:{worker_name}:executions"


def workers_of(queue: str) -> str:
    return f"{RQ}:workers:{queue}"


def index(queue: str) -> str:
    """The classes of a queue that hold jobs, in the order in which they are to be tried."""
    return f"{OWN}:index:{queue}"


def unique(key: str) -> str:
    return f"{OWN}:unique:{key}"


def log(job_id: str) -> str:
    return f"{OWN}:log:{job_id}"


def readers(job_id: str) -> str:
    """A hash: how far each follower has read the job's log, and when it was heard of."""
    return f"{OWN}:readers:{job_id}"


def wake_channel(queue: str) -> str:
    """Published when a job of `queue` can be claimed."""
    return f"{OWN}:wake:{queue}"


def job_channel(job_id: str) -> str:
    """Published with the job's new state."""
    return f"{OWN}:job:{job_id}"


def worker_channel(name: str) -> str:
    """Published with the id of a job whose cancel was asked for."""
    return f"{OWN}:worker:{name}"


def command_channel(name: str) -> str:
    """RQ's own channel of commands to a worker (rq.command)."""
    return f"{RQ}:pubsub:{name}"
