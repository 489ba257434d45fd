"""What a job or a service runs, where it leaves something of that to its image."""

from dayfly.jobs.errors import SpecError
from dayfly.jobs.program import no_command
from dayfly.jobs.signals import parse_signal
from dayfly.runtime.images.image import Image

_SIGTERM = 15


def argv_of(
    entrypoint: tuple[str, ...] | None, command: tuple[str, ...] | None, image: Image, path: str
) -> tuple[str, ...]:
    """As Docker has it: `command` follows the entrypoint; a stated entrypoint drops the image's own command.

    Raises SpecError for the field `path` when that makes no program.
    """
    if command is None:
        command = image.config.cmd if entrypoint is None else ()
    argv = (*(image.config.entrypoint if entrypoint is None else entrypoint), *command)
    if not argv or not argv[0]:
        raise SpecError(path, no_command(image.name))
    return argv


def stop_signal_of(stated: int | None, image: Image) -> int:
    """The signal that asks for the end."""
    if stated is not None:
        return stated
    if not image.config.stop_signal:
        return _SIGTERM
    try:
        return parse_signal(image.config.stop_signal)
    except ValueError:
        return _SIGTERM  # an image's own nonsense does not keep its jobs from running
