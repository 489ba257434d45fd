"""From what the keeper read (exit.json) and what the agent knows (the record) to the Result that people see."""

import time
from dataclasses import replace

from dayfly.jobs import result as results
from dayfly.jobs.network import NetworkFacts, RefusedTarget
from dayfly.jobs.result import EffectiveLimits, ImageUsed, LogSummary, Result
from dayfly.jobs.service_result import ServiceResult
from dayfly.jobs.services import ServiceState
from dayfly.jobs.spec import JobSpec
from dayfly.jobs.state import Cause, Outcome, State
from dayfly.jobs.verdict import Ending, decide, warnings_of
from dayfly.queue.claims import Claim
from dayfly.worker.builds import Building, Built
from dayfly.worker.claims import attempt_of
from dayfly.worker.exit import Artifact, Exit, ServiceExit
from dayfly.worker.host import host_id
from dayfly.worker.logfile import STDERR
from dayfly.worker.record import Record
from dayfly.worker.settings import JobDefaults

_DEAD_KEEPER = "its keeper was killed, by somebody or by a reboot of the host, and the job with it"
_NO_DIRECTORY = "its directory on the worker was removed while it ran, and with it how it ended"


def report(record: Record, spec: JobSpec, ending: Exit, log_location: str | None, defaults: JobDefaults) -> Result:
    """The result of one attempt that ended as `ending` says; without an outcome when it goes back to the queue."""
    facts = _ending(ending)
    log = ending.log
    return Result(
        id=record.job_id,
        name=spec.name,
        state=State.FINISHED,
        outcome=decide(facts),
        exit_code=ending.exit_code,
        signal=ending.signal,
        reason=results.SERVICE_NOT_READY if ending.cause == Cause.SERVICE_NOT_READY.value else None,
        message=_message(ending),
        queue=record.queue,
        host=host_id(),
        worker=record.worker_name,
        image=ImageUsed(record.image_ref or spec.image or "", record.image_digest),
        limits=_limits(record, ending),
        policy=_policy(spec, defaults),
        features=ending.features,
        timings=_timings(record, ending),
        usage=results.Usage(**vars(ending.usage)),
        samples=tuple(results.Sample(*row) for row in ending.samples),
        oom=_oom(ending),
        disk=_disk(ending),
        network=_network(record, ending),
        pressure=results.Pressure(**vars(ending.pressure)) if ending.pressure else None,
        warnings=(*warnings_of(facts), *ending.warnings),
        artifacts=tuple(_artifact(each) for each in ending.artifacts),
        services=tuple(_service(each, record) for each in ending.services),
        log=LogSummary(log_location, log.stdout_bytes, log.stderr_bytes, log.dropped_bytes),
    )


def refused(claim: Claim, spec: JobSpec | None, message: str, word: str | None) -> Result:
    """The result of a job that this worker must not or cannot run; `word` is its `reason`."""
    return Result(
        id=claim.job_id,
        name=spec.name if spec else None,
        state=State.FINISHED,
        outcome=Outcome.REJECTED,
        reason=word,
        message=message,
        queue=claim.queue,
        host=host_id(),
        worker=claim.worker_name,
        timings=results.Timings(queued_at=claim.enqueued_at, claimed_at=claim.claimed_at),
        attempts=claim.earlier,
    )


def built(build: Building, log_location: str | None, defaults: JobDefaults) -> Result:
    """The result of a build that has ended."""
    wanted, end = build.spec.build, build.ending
    assert end is not None
    result = replace(
        refused(build.claim, build.spec, "", None),
        outcome=_built_outcome(end),
        exit_code=0 if end.digest else 1 if end.is_steps else None,
        message=end.error,
        image=ImageUsed(wanted.name if wanted else "", end.digest) if end.digest else None,
        policy=_policy(build.spec, defaults),
        log=LogSummary(log_location, 0, build.writer.bytes_of[STDERR], build.writer.dropped_bytes),
    )
    timings = replace(result.timings, started_at=build.started_at, finished_at=time.time())
    result = replace(result, timings=timings)
    return replace(result, attempts=(*build.claim.earlier, attempt_of(build.claim, result)))


def _built_outcome(end: Built) -> Outcome:
    if end.digest is not None:
        return Outcome.SUCCEEDED
    if end.is_late:
        return Outcome.TIMED_OUT
    if end.is_hosts:
        return Outcome.LOST
    return Outcome.FAILED if end.is_steps else Outcome.REJECTED


def lost(claim: Claim, spec: JobSpec, message: str) -> Result:
    """The result of a job that ran, and of whose end nothing can be told but `message`."""
    return replace(refused(claim, spec, message, None), outcome=Outcome.LOST)


def without_exit(was_running: bool, stop_reason: str | None, has_directory: bool) -> Exit:
    """Stands for the exit.json of a keeper that left none, `has_directory` says whether it could have.

    A stop that was asked for has happened, one way or the other. A job whose command never ran is given back to the
    queue; one that ran is lost, and its retry policy decides.
    """
    if stop_reason is not None:
        return Exit(cause=stop_reason)
    if not was_running:
        return Exit(cause=Cause.REQUEUED.value)
    return Exit(cause=Cause.LEASE_LOST.value, message=_DEAD_KEEPER if has_directory else _NO_DIRECTORY)


def _ending(ending: Exit) -> Ending:
    return Ending(
        cause=Cause(ending.cause),
        exit_code=ending.exit_code,
        signal=ending.signal,
        oom_events=ending.oom.events if ending.oom else 0,
        is_disk_reached=ending.disk is not None and ending.disk.reached,
        fault_errno=ending.fault.errno if ending.fault else None,
    )


def _message(ending: Exit) -> str | None:
    if ending.fault is None:
        return ending.message
    return f"{ending.fault.message}; {ending.fault.remedy}" if ending.fault.remedy else ending.fault.message


def _limits(record: Record, ending: Exit) -> EffectiveLimits:
    """The limits as they were in force: the disk's own size may be more than was asked for."""
    shape, effective = record.container.shape, ending.effective
    disk_bytes = ending.disk.limit_bytes if ending.disk else None
    burst_us = effective.get("cpu_burst_us")
    return EffectiveLimits(
        cpus=effective.get("cpus"),
        cpu_burst_seconds=None if burst_us is None else burst_us / 1_000_000,
        cpu_weight=effective.get("cpu_weight"),
        memory_bytes=effective.get("memory_bytes"),
        swap_bytes=effective.get("swap_bytes"),
        disk_bytes=shape.disk_bytes if disk_bytes is None else disk_bytes,
        pids=effective.get("pids"),
        shm_bytes=shape.shm_bytes,
        timeout_seconds=record.timeout_seconds,
        stop_grace_seconds=record.stop_grace_seconds,
    )


def _policy(spec: JobSpec, defaults: JobDefaults) -> results.Policy:
    retry = spec.retry or defaults.retry
    when = (spec.artifacts.when or defaults.artifacts_when).value if spec.artifacts.is_wanted else None
    return results.Policy(retry.max, tuple(each.value for each in retry.when), retry.exit_codes, when)


def _timings(record: Record, ending: Exit) -> results.Timings:
    return results.Timings(queued_at=record.enqueued_at, claimed_at=record.claimed_at, **vars(ending.timings))


def _oom(ending: Exit) -> results.OomFacts | None:
    oom = ending.oom
    if oom is None:
        return None
    victims = tuple(results.OomVictim(victim.name, victim.rss_bytes) for victim in oom.victims)
    return results.OomFacts(oom.events, victims, oom.limit_bytes, oom.peak_bytes)


def _disk(ending: Exit) -> results.DiskFacts | None:
    disk = ending.disk
    if disk is None:
        return None
    biggest = tuple(results.PathSize(path, size) for path, size in disk.biggest)
    return results.DiskFacts(disk.reached, disk.used_bytes, disk.limit_bytes, biggest)


def _network(record: Record, ending: Exit) -> NetworkFacts:
    mode, network = record.container.shape.network, ending.network
    if network is None:
        return NetworkFacts(mode, why=record.why_no_bridge)
    addresses = tuple(address for address in (network.address4, network.address6) if address)
    refused = tuple(RefusedTarget(*target) for target in network.targets)
    return NetworkFacts(mode, addresses, network.refused_connections, refused)


def _artifact(artifact: Artifact) -> results.ArtifactEntry:
    return results.ArtifactEntry(**vars(artifact))


def _service(service: ServiceExit, record: Record) -> ServiceResult:
    plan = next(each for each in record.services if each.name == service.name)
    return ServiceResult(
        name=service.name,
        image=plan.image_ref,
        digest=plan.image_digest,
        state=ServiceState(service.state),
        exit_code=service.exit_code,
        signal=service.signal,
        ready_seconds=service.ready_seconds,
        oom_events=service.oom_events,
        cpu_seconds=service.cpu_seconds,
        memory_peak_bytes=service.memory_peak_bytes,
        log_bytes=service.log.stdout_bytes + service.log.stderr_bytes,
        log_dropped_bytes=service.log.dropped_bytes,
    )
