"""A worker that was told to have its jobs started by an OCI runtime."""

import pytest

pytestmark = pytest.mark.kernel


def test_a_worker_without_its_runtime_does_not_start(worker):
    """Nothing is run by another runtime than the one that the operator chose; the reason names it."""
    worker.fields["oci_runtime"] = "no-such-runtime"
    worker.start()
    assert worker.wait() != 0
    said = worker.log_path.read_text()
    assert "cannot find the OCI runtime no-such-runtime: no such program on this host" in said


def test_a_jobs_plan_names_the_runtime(worker, queue, need_tool):
    """`run --debug` prints what is done by whom."""
    worker.fields["oci_runtime"] = "runc"
    program = need_tool("runc")
    worker.start()
    job_id = queue.submit(command=["true"], debug=True)
    queue.result(job_id)
    notes = b"".join(line.data for line in queue.stream.follow(job_id) if line.stream not in (1, 2)).decode()
    assert "move root to /run/dayfly/root\n" in notes
    assert f"have the rest done by {program}:\n" in notes
    assert "pivot" not in notes
