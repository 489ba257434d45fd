"""Everything Dayfly raises.

    DayflyError                     exit code 125 for all of them, as INTERFACE has it
    ├── SpecError                   the job's document is wrong: every wrong field, with its path
    │   └── NotBuilt                a field that Dayfly knows and does not have yet
    ├── JobFailed                   Result.check(): the job ended in anything but success
    ├── QueueError
    │   ├── QueueUnreachable        no Redis at that address, or it went away
    │   ├── QueueRefused            Redis answered no: password, memory
    │   │   └── QueueNotReady       it will not for long: it is loading, it has lost its primary
    │   ├── JobNotFound
    │   ├── AmbiguousId             a prefix of several ids
    │   └── DuplicateJob            a live job has the same `unique` key
    ├── HostError                   the host could not do a step for us
    │   └── Unsupported             the host cannot do it at all (kernel, cgroup, rights)
    ├── ImageError
    │   └── ImageNotFound
    ├── StoreError
    └── ConfigError                 a configuration file is wrong: file, line, reason

A job's own fault (exit code, timeout, out of memory) is data in its Result, never an exception.
A message says what was tried, on what, why it failed, and the remedy.
"""
# ruff: noqa: N818  (INTERFACE names JobFailed; the rest follows it: a name says what happened, not that it is an error)

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dayfly.jobs.result import Result


class DayflyError(Exception):
    """What was tried, on what and why it failed; `remedy` is what the reader can do about it."""

    exit_code = 125

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(f"{message}; {remedy}" if remedy else message)
        self.message = message
        self.remedy = remedy


class SpecError(DayflyError):
    """A job's document is wrong. `errors` holds one SpecError per wrong field, itself when there is one.

    `path` is the field's path ("limits.pids", "mounts[0].source", "" for the document itself).
    """

    def __init__(self, path: str, reason: str, *, source: str | None = None, line: int | None = None) -> None:
        place = _place(source, line)
        super().__init__(f"{path or 'document'}: {reason}{place}")
        self.path = path
        self.reason = reason
        self.source = source
        self.line = line
        self.errors: tuple[SpecError, ...] = (self,)

    @classmethod
    def together(cls, errors: Sequence[SpecError]) -> SpecError:
        """One error for all of `errors` (at least one): a line each; NotBuilt when all of them are."""
        first = errors[0]
        if len(errors) == 1:
            return first
        kind = NotBuilt if all(isinstance(error, NotBuilt) for error in errors) else SpecError
        whole = kind(first.path, first.reason, source=first.source, line=first.line)
        whole.args = ("\n".join(str(error) for error in errors),)
        whole.message = whole.args[0]
        whole.errors = tuple(errors)
        return whole


def _place(source: str | None, line: int | None) -> str:
    if line is None:
        return f" ({source})" if source else ""
    return f" ({source}, line {line})" if source else f" (line {line})"


class NotBuilt(SpecError):
    """A field, or a value of one, that INTERFACE names and this version does not have yet."""


class JobFailed(DayflyError):
    """Raised by Result.check(); carries the Result."""

    def __init__(self, result: Result) -> None:
        super().__init__(f"job {result.id} {result.describe()}")
        self.result = result


class QueueError(DayflyError):
    """Redis or what we keep in it."""


class QueueUnreachable(QueueError):
    """Nobody answers at the address, or the connection broke and could not be made again."""


class QueueRefused(QueueError):
    """Redis answered and refused: wrong password, out of memory."""


class QueueDamaged(DayflyError):
    """Redis answered, but what lies there is not what ours would be: somebody else has written it.

    No QueueError, which says something of the whole server: here it is one key, and the others go on.
    """


class QueueNotReady(QueueRefused):
    """Redis refuses as one does that has just started or lost its primary: asked again, it may answer."""


class JobNotFound(QueueError):
    """No job of that id, or none any more."""

    def __init__(self, job_id: str, remedy: str | None = "`dayfly ls` lists the jobs that are known") -> None:
        super().__init__(f"no job {job_id!r}", remedy)
        self.job_id = job_id


class AmbiguousId(QueueError):
    """A prefix that several ids share."""

    def __init__(self, prefix: str, candidates: Sequence[str]) -> None:
        shown = ", ".join(candidates[:5]) + (", …" if len(candidates) > 5 else "")
        super().__init__(f"{prefix!r} is the start of {len(candidates)} job ids ({shown})", "give more of it")
        self.prefix = prefix
        self.candidates = tuple(candidates)


class DuplicateJob(QueueError):
    """A job with the same `unique` key is not finished yet; `job_id` is that job."""

    def __init__(self, key: str, job_id: str) -> None:
        super().__init__(
            f"job {job_id} already has the unique key {key!r} and is not finished",
            f"`dayfly attach {job_id}` follows it",
        )
        self.key = key
        self.job_id = job_id


class HostError(DayflyError):
    """The host could not do `step` (an infinitive: "mount the overlay") on `path`.

    `is_jobs_own`: it is what one job asks for that cannot be done, and others may well run here.
    """

    def __init__(
        self,
        step: str,
        path: str | None = None,
        errno: int | None = None,
        remedy: str | None = None,
        *,
        reason: str | None = None,
        is_jobs_own: bool = False,
    ) -> None:
        where = f" {path}" if path else ""
        why = reason or (os.strerror(errno) if errno else None)
        super().__init__(f"cannot {step}{where}" + (f": {why}" if why else ""), remedy)
        self.step = step
        self.path = path
        self.errno = errno
        self.reason = reason
        self.is_jobs_own = is_jobs_own

    def fields(self) -> dict[str, str | int | None]:
        """What makes it again in another process, as JSON may carry it: `HostError(**fields)`."""
        names = ("step", "path", "errno", "remedy", "reason", "is_jobs_own")
        return {name: getattr(self, name) for name in names}


class Unsupported(HostError):
    """This host cannot do it whatever one tries: a kernel without it, rights that are missing."""


class ImageError(DayflyError):
    """An image that is broken, hostile, or could not be stored."""


class ContainerfileError(ImageError):
    """A Containerfile that cannot be built; `line` is where."""

    def __init__(self, line: int, message: str, remedy: str | None = None) -> None:
        super().__init__(f"line {line}: {message}", remedy)
        self.line = line


class ImageNotFound(ImageError):
    """No image of that name on this host."""

    def __init__(self, reference: str, remedy: str | None = "`dayfly image ls` lists those on this host") -> None:
        super().__init__(f"no image {reference!r}", remedy)
        self.reference = reference


class StoreError(DayflyError):
    """The store of logs and artifacts: full, unwritable, or an object that is missing or altered."""


class ConfigError(DayflyError):
    """A configuration file, environment variable or flag that is wrong; `file` names which."""

    def __init__(self, file: str, line: int | None, reason: str, remedy: str | None = None) -> None:
        place = f"{file}, line {line}" if line is not None else file
        super().__init__(f"{place}: {reason}", remedy)
        self.file = file
        self.line = line
        self.reason = reason
