"""A job's log without its secrets: the only way to the log of a job that has any."""

from dayfly.worker.logfile import NOTE, LogWriter
from dayfly.worker.masking import MaskedOutput, Masker


class MaskedLog:
    """Writes what supervision hands it, masked; a value that stdout and stderr share between them is not found."""

    def __init__(self, log: LogWriter, masker: Masker) -> None:
        self._log = log
        self._masker = masker
        self._outputs: dict[int, MaskedOutput] = {}

    @property
    def due_at(self) -> float | None:
        """When something that is held back is to be written (time.monotonic())."""
        return min((each.due_at for each in self._outputs.values() if each.due_at is not None), default=None)

    def write(self, stream: int, payload: bytes) -> None:
        if stream == NOTE:
            self._log.write(stream, self._masker.mask(payload))
            return
        output = self._outputs.setdefault(stream, MaskedOutput(self._masker))
        self._log.write(stream, output.feed(payload))

    def let_go(self, now: float) -> None:
        """Write what was held back for long enough."""
        for stream, output in self._outputs.items():
            if output.due_at is not None and now >= output.due_at:
                self._log.write(stream, output.flush())

    def close(self) -> None:
        for stream, output in self._outputs.items():
            self._log.write(stream, output.flush())
        self._log.close()
