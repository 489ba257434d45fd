"""A mount of memory: empty, the job's own, and nobody's leave is needed for it."""

import pytest

from dayfly.jobs.state import Outcome
from dayfly.worker.settings import Allowed

pytestmark = pytest.mark.kernel


def test_a_job_may_have_memory_at_a_path(worker, queue):
    """Writable to any user of the job, no larger than it asks for; the same path is as it was before without it."""
    worker.fields["allow"] = Allowed()
    worker.start()
    mount = {"source": "tmpfs", "target": "/srv/scratch", "size": "1M"}
    script = "grep ' /srv/scratch tmpfs' /proc/mounts; echo x > /srv/scratch/x; head -c 2M /dev/zero > /srv/scratch/y"
    job_id = queue.submit(script=script, mounts=[mount], user="65534")
    result = queue.result(job_id)
    assert (result.outcome, result.exit_code) == (Outcome.FAILED, 1), result.message
    assert b" /srv/scratch tmpfs rw,nosuid,nodev" in queue.log(job_id)
    assert queue.result(queue.submit(script="! test -e /srv/scratch")).outcome is Outcome.SUCCEEDED
    assert queue.result(queue.submit(script="echo x > /t/x", mounts="tmpfs:/t")).outcome is Outcome.SUCCEEDED
