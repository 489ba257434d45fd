"""The function that a Dayfly job names in Redis. It is a name, not an implementation."""

from dayfly.jobs.errors import DayflyError


def execute(document: object = None, *_: object, **__: object) -> None:
    """Refuse: a job of Dayfly runs in a container, and only Dayfly's own worker makes one.

    A plain RQ worker that serves the same queue finds this function by its dotted name, calls it, and so fails the job
    with a reason instead of a puzzle.
    """
    raise DayflyError(
        "a plain RQ worker took a Dayfly job and cannot run it: the job needs a container of its own",
        remedy="start `dayfly worker` for this queue and let no plain RQ worker serve it",
    )
