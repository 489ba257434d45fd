"""The switches that loosen a job's confinement: each one only as far as the operator allows it.

A SpecError names the switch and the key in `[allow]` that would let it.
"""

import fnmatch
import os
import stat
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from dayfly.jobs.build import Build
from dayfly.jobs.errors import HostError, SpecError
from dayfly.jobs.privileges import ALL, DEFAULT_CAPABILITIES, Seccomp, kept
from dayfly.jobs.spec import JobSpec
from dayfly.runtime import capabilities, seccomp
from dayfly.runtime.images.image import Image
from dayfly.runtime.images.reference import Kind, parse, spellings
from dayfly.runtime.operations import remedy_for
from dayfly.runtime.shape import Device, Privileges
from dayfly.worker.settings import Allowed, WorkerSettings


def check(spec: JobSpec, allow: Allowed) -> None:
    """Refuse what the operator does not allow, of all switches but devices. Raises SpecError."""
    if spec.privileged and not allow.privileged:
        raise _refused("privileged", "privileged", "privileged")
    if spec.seccomp is Seccomp.UNCONFINED and not allow.seccomp_unconfined:
        raise _refused("seccomp", "seccomp: unconfined", "seccomp_unconfined")
    for number, name in enumerate(spec.cap_add):
        if not _may_add(name, allow):
            raise _refused(f"cap_add[{number}]", f"the capability {name}", "cap_add")


def privileges(spec: JobSpec, home: Path) -> Privileges | None:
    """What init gives the job that not every job has, None for nothing; compiles the filter for it into `home`.

    Raises HostError.
    """
    if not (spec.privileged or spec.cap_add or spec.cap_drop or spec.seccomp is Seccomp.UNCONFINED):
        return None
    names = kept(spec.cap_add, spec.cap_drop, privileged=spec.privileged)
    mask = capabilities.mask(names)
    is_filtered = not spec.privileged and spec.seccomp is Seccomp.DEFAULT
    return Privileges(
        capabilities=mask,
        ambient=capabilities.mask(names if ALL in spec.cap_add else names.intersection(spec.cap_add)),
        filter_path=_filter(home, mask) if is_filtered else None,
        gains=spec.privileged,
    )


def devices(spec: JobSpec, allow: Allowed, lacking: Mapping[str, str]) -> tuple[Device, ...]:
    """The devices with their numbers: a node that is put in their place later does not count. Raises SpecError."""
    if spec.devices and "devices" in lacking:
        raise SpecError("devices", f"this worker cannot enforce it: {lacking['devices']}")
    return tuple(_device(number, spec, allow) for number in range(len(spec.devices)))


def check_name(path: str, name: str, settings: WorkerSettings) -> None:
    """Refuse an image whose name the operator has not allowed; a directory is `check_image`'s. Raises SpecError.

    A glob is compared with the name as people write it and in full, each with its tag and without.
    """
    if parse(name).kind is not Kind.DIRECTORY and not may_name(name, settings.allow.images, settings.defaults.image):
        raise _refused(path, f"the image {name}", "images")


def may_name(name: str, globs: Collection[str], default: str) -> bool:
    """Whether jobs may name this image; the default one they have without naming it, and pinned to a digest."""
    return "*" in globs or default in (name, name.partition("@")[0]) or is_named(name, globs)


def check_build(build: Build, allow: Allowed) -> None:
    """Refuse to build where the operator does not allow it, and names that are not a stranger's to give.

    A name decides what others' jobs run on, and where what was built is pushed to. Raises SpecError.
    """
    if not allow.builds:
        raise _refused("build", "builds", "builds")
    if build.name and not is_named(build.name, allow.builds):
        raise _refused("build.name", f"the name {build.name}", "builds")


def is_named(name: str, globs: Iterable[str]) -> bool:
    """Whether one of the globs matches the name as it is written or in full, with its tag or without."""
    return any(fnmatch.fnmatchcase(form, glob) for form in spellings(name) for glob in globs)


def check_image(path: str, image: Image, settings: WorkerSettings) -> None:
    """Refuse a directory in place of an image that the operator has not allowed: all in it is the job's root to read.

    The operator's own default image is allowed. `path` is the field's. Raises SpecError.
    """
    real, allowed = image.directory, settings.allow.image_dirs
    if real is None or allowed is None or any(Path(real).is_relative_to(each) for each in allowed):
        return
    if real != os.path.realpath(settings.defaults.image):
        raise _refused(path, f"the directory {real} as an image", "image_dirs")


def _filter(home: Path, mask: int) -> str:
    try:
        return seccomp.cached(str(home), mask)
    except OSError as error:
        raise HostError("write a filter of system calls below", str(home), error.errno, remedy_for(error)) from error


def _device(number: int, spec: JobSpec, allow: Allowed) -> Device:
    wanted, path = spec.devices[number], f"devices[{number}].source"
    try:
        real = os.path.realpath(wanted.source, strict=True)
        facts = os.stat(real)
    except OSError as error:
        raise SpecError(path, f"{wanted.source} cannot be used on this worker: {error.strerror}") from error
    kind = "c" if stat.S_ISCHR(facts.st_mode) else "b" if stat.S_ISBLK(facts.st_mode) else None
    if kind is None:
        raise SpecError(path, f"{real} is not a device")
    if allow.devices is not None and not _matches(real, allow.devices):
        raise _refused(path, f"the device {real}", "devices")
    major, minor = os.major(facts.st_rdev), os.minor(facts.st_rdev)
    return Device(kind, major, minor, wanted.permissions, wanted.target)


def _may_add(name: str, allow: Allowed) -> bool:
    return allow.cap_add is None or name in allow.cap_add or name in DEFAULT_CAPABILITIES


def _matches(path: str, globs: Iterable[str]) -> bool:
    """As a shell would match them: `*` ends at a slash."""
    parts = path.split("/")
    for glob in globs:
        patterns = glob.split("/")
        if len(patterns) == len(parts) and all(map(fnmatch.fnmatchcase, parts, patterns)):
            return True
    return False


def _refused(path: str, what: str, key: str) -> SpecError:
    return SpecError(path, f"the operator of this worker does not allow {what} ([allow] {key})")
