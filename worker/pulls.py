"""The images that are on their way to this host, each in a process of its own (pull_program.py)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from dayfly.worker.child_program import ChildProgram
from dayfly.worker.pull_program import request
from dayfly.worker.settings import WorkerSettings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class News:
    """Of one pull: how far it is, or, with `is_over`, how it ended. `error` in a sentence."""

    reference: str
    done_bytes: int = 0
    total_bytes: int = 0
    is_over: bool = False
    error: str | None = None


@dataclass
class _Pull:
    reference: str
    program: ChildProgram


class Pulls:
    """`listen` and `unlisten` are the agent's for descriptors; `heard` gets the news."""

    def __init__(
        self,
        settings: WorkerSettings,
        listen: Callable[[int, Callable[[], None]], None],
        unlisten: Callable[[int], object],
        heard: Callable[[News], None],
    ) -> None:
        self._settings = settings
        self._listen = listen
        self._unlisten = unlisten
        self._heard = heard
        self._pulls: dict[str, _Pull] = {}

    def begin(self, reference: str, *, is_fresh: bool) -> None:
        """Pull it, unless it is on its way. Raises OSError."""
        if reference in self._pulls:
            return
        log.info("image wanted", image=reference)
        asked = request(str(self._settings.home), reference, self._settings.images, is_fresh=is_fresh)
        program = ChildProgram("dayfly.worker.pull_program", asked)
        pull = self._pulls[reference] = _Pull(reference, program)
        self._listen(program.fd, lambda: self._hear(pull))

    def stop(self) -> None:
        """End all of them: nobody waits any more."""
        for pull in list(self._pulls.values()):
            pull.program.kill()
            self._bury(pull)

    def _hear(self, pull: _Pull) -> None:
        if self._pulls.get(pull.reference) is not pull:
            return  # it was ended in this very turn of the loop
        news = [_news(pull.reference, each) for each in pull.program.told()]
        if pull.program.is_over and not (news and news[-1].is_over):
            news.append(News(pull.reference, is_over=True, error=f"cannot pull {pull.reference}: its process died"))
        if any(each.is_over for each in news):
            self._bury(pull)
        for each in news:
            self._heard(each)

    def _bury(self, pull: _Pull) -> None:
        self._unlisten(pull.program.fd)
        pull.program.bury()
        del self._pulls[pull.reference]


def _news(reference: str, fields: Mapping[str, Any]) -> News:
    if "done_bytes" in fields:
        return News(reference, fields["done_bytes"], fields["total_bytes"])
    return News(reference, is_over=True, error=fields.get("error"))
