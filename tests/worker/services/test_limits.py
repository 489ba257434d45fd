"""The limits of a job hold for it and its services together; a service's own hold for it alone."""

import pytest

from dayfly.jobs.services import ServiceState
from dayfly.jobs.state import Outcome

pytestmark = pytest.mark.kernel


def test_out_of_memory_in_a_service_is_the_services(worker, queue, sh, warnings):
    """Its own limit ends it; the job has no oom, fails by its own code, and the warning names the service."""
    worker.start()
    hungry = sh("hog", "sleep 0.5; exec tail /dev/zero", limits={"memory": "16M"})
    job = queue.submit(script="sleep 2; exit 5", services=[hungry])
    result = queue.result(job)
    assert (result.outcome, result.exit_code, result.oom) == (Outcome.FAILED, 5, None), result.describe()
    (service,) = result.services
    assert (service.state, service.oom_events) == (ServiceState.OUT_OF_MEMORY, 1)
    assert service.memory_peak_bytes <= 16 << 20
    assert warnings(result) == ("service hog was killed by the kernel for memory before the job had ended",)


def test_the_jobs_memory_limit_holds_for_all_together(worker, queue, sh):
    """A service without a limit of its own meets the job's."""
    worker.start()
    hungry = sh("hog", "sleep 0.5; exec tail /dev/zero")
    job = queue.submit(script="sleep 2", limits={"memory": "48M"}, services=[hungry])
    result = queue.result(job)
    assert result.outcome is Outcome.SUCCEEDED, result.describe()
    assert result.services[0].state is ServiceState.OUT_OF_MEMORY
    assert result.limits.memory_bytes == 48 << 20


def test_the_jobs_disk_is_shared_with_its_services(worker, queue, sh):
    """One quota: what a service takes is missing for the job, and named as the service's."""
    worker.start()
    full = sh("full", "head -c 30M /dev/zero > /var/x; sleep 100", ready="cmd:test -e /var/x")
    job = queue.submit(
        script="sleep 0.5; head -c 20M /dev/zero > x", limits={"disk": "40M"}, services=[full], timeout=60
    )
    result = queue.result(job)
    assert result.outcome is Outcome.DISK_FULL, result.describe()
    assert "full:/var/x" in [each.path for each in result.disk.biggest]


def test_a_flood_of_a_services_output_is_cut_and_the_job_is_not_held_up(worker, queue, sh, service_log):
    """Its log keeps head and tail within an eighth of the job's own limit."""
    worker.fields["log_limit_bytes"] = 1 << 20
    worker.start()
    flood = sh("flood", "yes | head -c 8M; touch /tmp/done; sleep 100", ready="cmd:test -e /tmp/done")
    job = queue.submit(script="echo fine", services=[flood])
    result = queue.result(job)
    assert result.outcome is Outcome.SUCCEEDED, result.describe()
    (service,) = result.services
    assert service.log_bytes == 8 << 20
    assert service.log_dropped_bytes > 7 << 20
    assert len(service_log(job, "flood")) <= 1 << 17
    assert queue.log(job) == b"fine\n"
