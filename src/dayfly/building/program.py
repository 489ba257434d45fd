"""The program that builds for a worker, in a process of its own (worker/builds.py): it reads what strangers wrote.

Its stdin is the worker's request, a JSON object; its stderr becomes the build's log; its stdout is one JSON object, how
it ended.
"""

import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from dayfly.building.builder import build
from dayfly.building.containerfiles import text_in
from dayfly.building.request import BuildRequest
from dayfly.building.workshop import Rules, Workshop
from dayfly.cli.follow import STDERR, Streams
from dayfly.cli.following import copy_log
from dayfly.cli.patience import patiently
from dayfly.cli.say import say
from dayfly.client import Client
from dayfly.companion import Companion
from dayfly.job import Job
from dayfly.jobs.build import WORKER_LABEL, Build
from dayfly.jobs.demand import MAX_PRIORITY
from dayfly.jobs.door import read_job
from dayfly.jobs.errors import ContainerfileError, DayflyError, QueueError
from dayfly.jobs.key_text import parse_key
from dayfly.jobs.plain import from_plain
from dayfly.jobs.result import Result
from dayfly.jobs.signatures import Signing, SigningKey, TrustedKeys
from dayfly.jobs.spec import JobSpec
from dayfly.runtime import syscalls
from dayfly.runtime.images.reference import repository_of
from dayfly.runtime.images.store import ImageStore
from dayfly.runtime.registry.address import parse_address
from dayfly.runtime.registry.push import mountable, push
from dayfly.runtime.registry.settings import RegistrySettings
from dayfly.runtime.title import set_title
from dayfly.worker.settings import Images
from dayfly.worker.switches import may_name

# A stranger wrote what is read here, outside of all containers.
_MOST_MEMORY = 1 << 30
_NICENESS = 5
_SECONDS_TO_LEAVE = 15


def main() -> None:
    """End with the agent, which gives the build back to the queue; what it would leave is taken away at SIGTERM too."""
    signal.signal(signal.SIGTERM, _leave)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))
    os.nice(_NICENESS)
    fields = json.load(sys.stdin)
    if os.getppid() != fields["agent"]:
        return  # it died before we could hear of it
    set_title(f"dayfly: build {fields['job']}")
    try:
        with tempfile.TemporaryDirectory() as nothing:
            _tell(digest=_build(fields, Path(fields["context"] or nothing)))
    except ContainerfileError as error:
        _tell(error=str(error), is_steps=True)
    except MemoryError:
        _tell(error=f"it takes more than {_MOST_MEMORY >> 20} MiB to read its Containerfile and files", is_steps=True)
    except (QueueError, OSError) as error:
        _tell(error=str(error), is_hosts=True)
    except DayflyError as error:
        _tell(error=str(error), is_hosts=isinstance(error.__cause__, OSError))


def _leave(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # the agent's own end would interrupt what is to be tidied up
    signal.alarm(_SECONDS_TO_LEAVE)
    raise SystemExit(128 + number)


def _build(fields: Mapping[str, Any], context: Path) -> str:
    """The digest of what was built; of what the registry has of it, if it is to be pushed."""
    spec = read_job(fields["document"])
    assert spec.build is not None
    images = from_plain(Images, fields["images"])
    home = Path(fields["home"])
    store = ImageStore(home, images.limits)
    request = _request(spec, spec.build, context, images)
    key = SigningKey(parse_key(fields["key"]))
    with Client(fields["url"], signing=lambda: Signing(key, TrustedKeys((key.key,)))) as client:
        run = _stepper(client, spec, fields)
        rules = _rules(fields["allowed"], spec.build)
        with Workshop(store, home, request, images.registries, run, say, spec.build.epoch, rules) as shop:
            digest = build(shop).image.digest
    return _push(store, spec.build.name, images.registries) if spec.build.push else digest


def _request(spec: JobSpec, wanted: Build, context: Path, images: Images) -> BuildRequest:
    return BuildRequest(
        text=wanted.containerfile or text_in(context, wanted.file),
        context=context,
        name=wanted.name,
        target=wanted.target,
        arguments=wanted.args,
        labels=wanted.labels,
        network=spec.network.mode.value,
        has_cache=wanted.use_cache,
        pull=spec.pull or images.pull,
    )


def _stepper(client: Client, spec: JobSpec, fields: Mapping[str, Any]) -> Callable[[JobSpec], Result]:
    """Runs a step as a job of the worker that builds, before all others, within the limits of the build."""

    def run(step: JobSpec) -> Result:
        network = replace(step.network, allow=spec.network.allow) if spec.network.allow else step.network
        own = replace(
            step,
            name=f"step of {fields['job']}",
            queue=fields["queue"],
            labels={WORKER_LABEL: fields["worker"]},
            priority=MAX_PRIORITY,
            limits=spec.limits,
            timeout_seconds=spec.timeout_seconds,
            network=network,
        )
        return _follow(client, own)

    return run


def _follow(client: Client, step: JobSpec) -> Result:
    """The step to its end, its output into the build's log. What ends this sooner cancels it, and waits for nobody."""
    job = Job(client, client.producer.submit(step, client_lease=True))
    try:
        with Companion(client.producer, [job.id], is_leased=True):
            copy_log(job, Streams(stdout=STDERR))
            return patiently(job.result)
    except BaseException:
        with suppress(QueueError):  # then its client's lease ends
            job.cancel()
        raise


def _rules(allowed: Mapping[str, Any], wanted: Build) -> Rules:
    """Of an operator; the embedded worker's user may have anything, and has caches for all images."""

    def why_not(name: str) -> str | None:
        if may_name(name, allowed["images"], allowed["default"]):
            return None
        return f"the operator of this worker does not allow the image {name} ([allow] images)"

    is_all = allowed["all"]
    return Rules(
        why_not,
        is_restricted="*" not in allowed["images"],
        may_fetch=is_all,
        cache_scope="" if is_all else repository_of(wanted.name) or "no name",
    )


def _push(store: ImageStore, name: str, registries: RegistrySettings) -> str:
    address = parse_address(name)
    with store.packaged(name) as image:
        pushed = push(image, address, registries, None, mountable(name, address))
    say(f"{address}: {pushed.sent} blobs sent, {pushed.mounted} mounted, {pushed.present} there already")
    return pushed.digest


def _tell(**fields: object) -> None:
    print(json.dumps(fields), flush=True)
