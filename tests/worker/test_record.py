"""What passes between agent and keeper on disk survives the trip, and half a file is never taken for a whole one."""

import pytest

from dayfly.runtime.cgroups.readings import Pressure, Victim
from dayfly.runtime.shape import ContainerPlan, IoQuota, Mount, Process, Quotas, Shape, Workspace
from dayfly.worker.exit import Artifact, Disk, Exit, Fault, LogSize, Oom, Timings, Usage
from dayfly.worker.record import ArtifactRules, Record

_RECORD = Record(
    job_id="01JXABCDEFGHJKMNPQRSTVWXYZ",
    queue="ci",
    class_name="ci@-:-:-",
    enqueued_at=1.25,
    earlier=({"number": 1, "outcome": "lost"},),
    execution_id="x1",
    attempt=2,
    fence="f",
    worker_name="host-1",
    token="0123456789abcdef",
    boot_id="b",
    claimed_at=1.5,
    document={"image": "host", "command": ["true"]},
    container=ContainerPlan(
        shape=Shape(image_layers=("/l/2", "/l/1"), quotas=Quotas(cpus=1.5, io=(IoQuota(device="8:0", read_bps=1),))),
        process=Process(argv=("true",), env={"A": "b\udcff"}),
        mounts=(Mount(source="/data", target="/data"),),
        workspace=Workspace(source="/src", device=1, inode=2),
    ),
    timeout_seconds=None,
    stop_grace_seconds=10.0,
    stop_signal=15,
    log_limit_bytes=1 << 20,
    artifacts=ArtifactRules(include=("a",), within=("",), labels=("a",)),
    store="/var/lib/dayfly/store",
)

_EXIT = Exit(
    cause="exited",
    exit_code=1,
    fault=Fault("mount", "/x", 13, "cannot mount", "mend it"),
    timings=Timings(started_at=1.0),
    usage=Usage(memory_peak_bytes=5),
    samples=((0.1, 0.2, 3),),
    oom=Oom(1, (Victim("python", 4096),), 10, 11),
    disk=Disk(True, 5, 6, (("a", 1),)),
    pressure=Pressure(1.0, 2.0, 3.0),
    warnings=("w",),
    artifacts=(Artifact("a", 1, "00", 0o644, 1.0),),
    log=LogSize(1, 2, 3),
    effective={"pids": 5},
)


def test_a_record_comes_back_as_it_was_written():
    """Reading what was written gives an equal record."""
    assert Record.from_json(_RECORD.to_json()) == _RECORD


def test_an_exit_comes_back_as_it_was_written():
    """Reading what was written gives an equal exit, with every optional part present and with none."""
    assert Exit.from_json(_EXIT.to_json()) == _EXIT
    assert Exit.from_json(Exit(cause="cancelled").to_json()) == Exit(cause="cancelled")


@pytest.mark.parametrize("whole", [_RECORD, _EXIT], ids=["record", "exit"])
def test_a_truncated_file_is_refused_with_value_error(whole):
    """Wherever the text ends too early, and whatever else stands there, the reader raises ValueError alone."""
    text = whole.to_json()
    for raw in [*(text[:end] for end in range(0, len(text), 7)), b"[]", b"null", b'{"version":1}', b"\xff\xfe"]:
        with pytest.raises(ValueError):  # noqa: PT011 - the type is the promise, the text is json's
            type(whole).from_json(raw)
