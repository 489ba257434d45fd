"""From a claim to a keeper that runs it: check, image, plan, record, rename, "go"."""

import dataclasses
import os
import time
from collections.abc import Collection, Mapping

from dayfly.jobs.build import Build
from dayfly.jobs.demand import Capacity
from dayfly.jobs.door import read_job
from dayfly.jobs.errors import DayflyError, ImageError, ImageNotFound, QueueError, SpecError
from dayfly.jobs.network import Network, NetworkUse
from dayfly.jobs.result import UNTRUSTED
from dayfly.jobs.signatures import SignatureError, TrustedKeys
from dayfly.jobs.spec import DEFAULT_IMAGE, JobSpec, PullPolicy
from dayfly.queue.claims import Claim
from dayfly.runtime.images.image import Image
from dayfly.runtime.images.naming import is_called
from dayfly.runtime.images.reference import is_pinned, is_remote
from dayfly.runtime.images.store import ImageStore
from dayfly.runtime.shape import Shape
from dayfly.worker import jobfiles, switches
from dayfly.worker.claims import earlier_of
from dayfly.worker.host import boot_id
from dayfly.worker.image_program import stop_signal_of
from dayfly.worker.places import Places
from dayfly.worker.plan import Identity, Planner
from dayfly.worker.record import Record, ServicePlan
from dayfly.worker.running import RunningJob
from dayfly.worker.selection import artifact_rules
from dayfly.worker.settings import WorkerSettings
from dayfly.worker.unsealing import Unsealer
from dayfly.worker.warm import Keeper, WarmKeepers

_HOST_IMAGE_SECONDS = 1.0


class Rejected(Exception):  # noqa: N818 - a fact about the job, no fault of ours
    """This worker must not or cannot run the job; the text says why, and `word` is the result's `reason`."""

    def __init__(self, reason: str, spec: JobSpec | None, word: str | None = None) -> None:
        super().__init__(reason)
        self.spec = spec
        self.word = word


class ImagesMissing(Exception):  # noqa: N818 - a fact, no fault
    """The job can be started once these images have been pulled; `is_fresh`: whatever is here does not count."""

    def __init__(self, spec: JobSpec, references: Collection[str], *, is_fresh: bool) -> None:
        super().__init__(", ".join(references))
        self.spec = spec
        self.references = tuple(references)
        self.is_fresh = is_fresh


class BuildWanted(Exception):  # noqa: N818 - a fact, no fault
    """The job is a build, which has no keeper; `context` is its directory, None for none."""

    def __init__(self, spec: JobSpec, context: str | None, seconds: float | None) -> None:
        super().__init__(spec.name or "")
        self.spec = spec
        self.context = context
        self.seconds = seconds


class Starter:
    """Starts jobs of one worker in its warm keepers."""

    def __init__(
        self,
        settings: WorkerSettings,
        places: Places,
        planner: Planner,
        images: ImageStore,
        warm: WarmKeepers,
        trusted: TrustedKeys | None,
        unsealer: Unsealer,
        steps: TrustedKeys,
    ) -> None:
        """`trusted`: whose jobs are run; None: anybody's. `steps`: who signs the steps of this worker's own builds."""
        self._settings = settings
        self._places = places
        self._planner = planner
        self._images = images
        self._warm = warm
        self._trusted = trusted
        self._unsealer = unsealer
        self._steps = steps
        self._host_image: Image | None = None
        self._host_image_until = 0.0
        self._guess: Shape | None = None
        self._last: RunningJob | None = None

    @property
    def guess(self) -> Shape | None:
        """The shape that the next job probably has: that of the last one, once a container of it has stood.

        What stood once may not stand again (an image that was removed, a device): after a failure it is the default.
        """
        if self._warm.is_failing:
            self.guess_default()
        elif self._last is not None and self._last.has_run:
            self._guess, self._last = self._last.record.container.shape, None
        return self._guess

    def guess_default(self) -> None:
        """Guess a job that states nothing; of the host's image where the default one is not there (yet).

        What comes to an embedded worker comes from `dayfly run`, which has a bridge where there is one.
        """
        try:
            image = self._images.resolve(self._settings.defaults.image)
        except ImageError:
            image = self._resolve(DEFAULT_IMAGE)
        network = NetworkUse(Network.AUTO if self._settings.is_embedded else Network.NONE)
        self._guess, self._last = self._planner.shape(JobSpec(network=network), image), None

    def start(self, claim: Claim, lease_seconds_left: float, pulled: Collection[str] = ()) -> RunningJob | None:
        """Start the job; None when no keeper lives that could run it. Raises Rejected, ImagesMissing, BuildWanted.

        `pulled`: the images that were pulled for it.
        """
        is_step = is_signed(claim, self._steps)
        spec = check(claim, None if is_step else self._trusted)
        try:
            self._check_labels(spec)
            if spec.build is not None:
                raise self._build_wanted(spec, spec.build)
            if not is_step:  # the build itself has looked at its images
                spec = self._pinned(claim, spec)
                self._check_images(spec, pulled)
            return self._start(claim, spec, lease_seconds_left, is_step=is_step)
        except QueueError:
            raise  # it says nothing of the job, which is found again when the queue answers
        except DayflyError as error:
            raise Rejected(str(error), spec) from error

    def _check_labels(self, spec: JobSpec) -> None:
        """The list that a job waits in says what its worker must have, and anybody may have moved it to another."""
        for name, value in spec.labels.items():
            if self._settings.offered_labels.get(name) != value:
                raise SpecError(f"labels.{name}", f"this worker does not have {name}={value}")

    def _build_wanted(self, spec: JobSpec, build: Build) -> BuildWanted:
        switches.check_build(build, self._settings.allow)
        return BuildWanted(spec, self._planner.build_context(spec), self._planner.timeout_seconds(spec))

    def _pinned(self, claim: Claim, spec: JobSpec) -> JobSpec:
        """The same job on the very images of its first attempt; believed where the rest of the job is."""
        if not claim.images or self._trusted is not None:
            return spec

        def pinned(ref: str) -> str:
            digest = claim.images.get(ref)
            return f"{ref}@{digest}" if digest and is_remote(ref) and not is_pinned(ref) else ref

        services = tuple(dataclasses.replace(each, image=pinned(each.image)) for each in spec.services)
        return dataclasses.replace(spec, image=pinned(spec.image or self._settings.defaults.image), services=services)

    def _check_images(self, spec: JobSpec, pulled: Collection[str]) -> None:
        """Raises SpecError for what the operator does not allow, ImagesMissing for what has to be pulled first."""
        policy = spec.pull or self._settings.images.pull
        is_restricted = "*" not in self._settings.allow.images
        named = {"image": spec.image or self._settings.defaults.image}
        named |= {f"services[{number}].image": each.image for number, each in enumerate(spec.services)}
        for path, ref in named.items():
            switches.check_name(path, ref, self._settings)
            if is_restricted and policy is PullPolicy.NEVER and not is_called(self._images, ref):
                raise SpecError(path, f"no image {ref} is known here by that name")
        if policy is PullPolicy.NEVER:
            return
        is_fresh = policy is PullPolicy.ALWAYS
        wanted = [ref for ref in dict.fromkeys(named.values()) if ref not in pulled and is_remote(ref)]
        missing = [ref for ref in wanted if (is_fresh and not is_pinned(ref)) or not self._is_here(ref)]
        # A digest leads to any image of the store, whoever has it from where: its registry is to have it by that name.
        doubtful = [ref for ref in wanted if is_restricted and not is_called(self._images, ref) and ref not in missing]
        if missing or doubtful:
            raise ImagesMissing(spec, [*missing, *doubtful], is_fresh=is_fresh or bool(doubtful))

    def _is_here(self, ref: str) -> bool:
        try:
            self._images.resolve(ref)
        except ImageNotFound:
            return False
        return True

    def need(self, spec: JobSpec) -> Capacity:
        """What the job takes of the host."""
        return self._planner.need(spec)

    def _start(self, claim: Claim, spec: JobSpec, lease_seconds_left: float, *, is_step: bool) -> RunningJob | None:
        with self._images.hold():
            ref = spec.image or self._settings.defaults.image
            image = self._resolve(ref)
            record = self._record(claim, spec, image, ref, is_step=is_step)
            if spec.services:
                record = dataclasses.replace(record, services=self._services(spec, record.container.shape))
            secrets = self._unsealer.values(spec, claim.queue)  # opened last: what fails before has none to tell
            while (keeper := self._warm.take(record.container.shape)) is not None:
                record = dataclasses.replace(record, token=keeper.token)
                try:
                    job = self._hand_over(keeper, claim, record, spec, secrets, lease_seconds_left)
                except Exception:
                    self._warm.dismiss(keeper)
                    raise
                if job is not None:
                    self._last = job
                    return job
        return None

    def _services(self, spec: JobSpec, job: Shape) -> tuple[ServicePlan, ...]:
        images = []
        for number, service in enumerate(spec.services):
            try:
                images.append(self._resolve(service.image))
            except ImageError as error:
                raise SpecError(f"services[{number}].image", str(error)) from error
        return self._planner.services(spec, images, job)

    def _resolve(self, ref: str) -> Image:
        """The host's own image is looked over at most once a second: that takes 150 lstat(2), names take one read."""
        if ref != DEFAULT_IMAGE:
            image = self._images.resolve(ref)
            self._images.mark_used(ref)
            return image
        now = time.monotonic()
        if self._host_image is None or now >= self._host_image_until:
            self._host_image = self._images.resolve(ref)
            self._host_image_until = now + _HOST_IMAGE_SECONDS
        return self._host_image

    def _hand_over(
        self,
        keeper: Keeper,
        claim: Claim,
        record: Record,
        spec: JobSpec,
        secrets: Mapping[str, bytes],
        lease_seconds_left: float,
    ) -> RunningJob | None:
        """Write down what is to be done, then let the keeper do it. None when it is dead."""
        jobfiles.write_record(keeper.directory, record)
        jobfiles.write_lease(keeper.directory, lease_seconds_left)
        if spec.stdin is not None:
            jobfiles.write_stdin(keeper.directory, spec.stdin)
        directory = self._places.job(claim.job_id)
        if os.path.exists(directory):  # an earlier attempt, whose keeper is still tidying up
            self._places.throw_away(directory)
        os.rename(keeper.directory, directory)
        if not keeper.go(secrets):
            jobfiles.discard(directory)
            return None
        return RunningJob(claim, record, spec, directory, keeper.watch, keeper.pid, keeper.pidfd)

    def _record(self, claim: Claim, spec: JobSpec, image: Image, ref: str, *, is_step: bool) -> Record:
        identity = Identity(claim.job_id, claim.attempt)
        stdin = None if spec.stdin is None else jobfiles.stdin_path(self._places.job(claim.job_id))
        return Record(
            job_id=claim.job_id,
            queue=claim.queue,
            class_name=claim.class_name,
            execution_id=claim.execution_id,
            attempt=claim.attempt,
            fence=claim.fence,
            worker_name=claim.worker_name,
            token="",
            boot_id=boot_id(),
            claimed_at=claim.claimed_at,
            document=claim.document,
            container=self._planner.plan(spec, image, identity, stdin, is_step=is_step),
            timeout_seconds=self._planner.timeout_seconds(spec),
            stop_grace_seconds=self._planner.stop_grace_seconds(spec),
            stop_signal=stop_signal_of(spec.stop_signal, image),
            log_limit_bytes=self._settings.log_limit_bytes,
            artifacts=artifact_rules(spec.artifacts, self._settings.defaults.artifacts_when),
            store=str(self._settings.store),
            enqueued_at=claim.enqueued_at,
            client_lease=claim.client_lease,
            earlier=earlier_of(claim),
            image_ref=ref,
            image_digest=image.digest,
            why_no_bridge=self._planner.bridging.why_none(spec),
        )


def check(claim: Claim, trusted: TrustedKeys | None = None) -> JobSpec:
    """The spec in a claim, checked again: anybody may have written it. Raises Rejected."""
    if claim.refusal is not None:
        raise Rejected(f"it cannot be read: {claim.refusal}", None)
    if trusted is not None:
        _check_signature(claim, trusted)
    try:
        return read_job(claim.document)
    except DayflyError as error:
        raise Rejected(str(error), None) from error


def is_signed(claim: Claim, keys: TrustedKeys) -> bool:
    """Whether one of `keys` has signed the very job that is claimed."""
    try:
        keys.verify_job(claim.signature, claim.job_id, claim.queue, claim.document)
    except SignatureError:
        return False
    return True


def _check_signature(claim: Claim, trusted: TrustedKeys) -> None:
    try:
        trusted.verify_job(claim.signature, claim.job_id, claim.queue, claim.document)
    except SignatureError as error:
        raise Rejected(f"refused from queue {claim.queue}: {error}", None, UNTRUSTED) from error
