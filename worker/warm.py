"""Keepers that stand ready before there is a job: as many as there are slots, of the shape that the last job had.

    asked ──(launcher: pid)──► born ──(file `ready`)──► ready ──take()──► a job's
      └──────────── dies, or the launcher says no ───────────┘  → the next one after a pause that grows

A keeper whose guess was wrong prepares once more at "go"; it is used all the same, for it has the rest.
"""

import os
import secrets
import select
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dayfly.jobs.errors import HostError
from dayfly.runtime.shape import Shape
from dayfly.worker import handover, jobfiles
from dayfly.worker.launcher_client import Launcher, Reply
from dayfly.worker.places import Places
from dayfly.worker.watches import Watches

LAYERS = "layers"

_LONGEST_PAUSE_SECONDS = 30.0


@dataclass
class Keeper:
    """A keeper without a job. `pidfd` is -1 until the launcher has said that it is born."""

    token: str
    shape: Shape
    directory: str
    watch: int
    control_fd: int
    pid: int = 0
    pidfd: int = -1
    is_ready: bool = False
    asked_at: float = field(default_factory=time.monotonic)

    @property
    def is_takeable(self) -> bool:
        """It stands ready, and we know its process: the two are told by different descriptors, in any order."""
        return self.is_ready and self.pidfd >= 0

    def go(self, secrets: Mapping[str, bytes]) -> bool:
        """Let it run the record that lies in its directory, with the job's secrets. False when it is dead."""
        try:
            handover.tell(self.control_fd, secrets)
        except BrokenPipeError:
            return False
        finally:
            self.let_go()
        return True

    def let_go(self) -> None:
        """Close our end of the control pipe: without "go" before it the keeper undoes everything and exits."""
        if self.control_fd >= 0:
            os.close(self.control_fd)
            self.control_fd = -1


class WarmKeepers:
    """The keepers ahead of need. The agent brings the events; `problem` says why there are none, else None."""

    def __init__(self, places: Places, watches: Watches, launcher: Launcher, wanted: int) -> None:
        self.problem: str | None = None
        self._places = places
        self._watches = watches
        self._launcher = launcher
        self._wanted = wanted
        self._keepers: dict[str, Keeper] = {}
        self._by_watch: dict[int, Keeper] = {}
        self._leaving: dict[str, Keeper] = {}
        self._has_succeeded = False
        self._failures = 0
        self._not_before = 0.0
        self._held_layers: frozenset[str] = frozenset()

    @property
    def ready(self) -> int:
        return sum(keeper.is_takeable for keeper in self._keepers.values())

    @property
    def is_hopeless(self) -> bool:
        """None has ever stood ready here, and a second try failed as the first did."""
        return not self._has_succeeded and self._failures > 1

    @property
    def is_failing(self) -> bool:
        """The last one did not come to stand ready, and it is time to try another."""
        return self._failures > 0 and self.pause_seconds is None and len(self._keepers) < self._wanted

    @property
    def pause_seconds(self) -> float | None:
        """How long until another one may be asked for after failures; None when nothing is held back."""
        left = self._not_before - time.monotonic()
        return left if left > 0 else None

    def fill(self, shape: Shape) -> None:
        """Ask for as many as are missing, of `shape`."""
        if self.pause_seconds is not None:
            return
        if self._failures and shape.bridge is not None:
            # The bridge may be what fails: a job that wants it hears so itself, those that do not must not wait for it.
            shape = replace(shape, network="none", bridge=None)
        for _ in range(self._wanted - len(self._keepers)):
            if not self._ask(shape):
                return

    def take(self, shape: Shape) -> Keeper | None:
        """A ready keeper, one of that very shape before all others; None when none is ready."""
        ready = [keeper for keeper in self._keepers.values() if keeper.is_takeable]
        if not ready:
            return None
        keeper = next((each for each in ready if each.shape == shape), ready[0])
        self._forget(keeper)
        return keeper

    def dismiss(self, keeper: Keeper) -> None:
        """One that was taken and cannot be given its job: it undoes what it prepared and ends."""
        keeper.let_go()
        self._leaving[keeper.token] = keeper

    def born(self, reply: Reply) -> Keeper | None:
        """The launcher's answer. Returns the keeper, with its pidfd open, when there is one to watch."""
        keeper = self._keepers.get(reply.token) or self._leaving.get(reply.token)
        if keeper is None:
            return None
        if reply.pid is None:
            self._fail(keeper, reply.error or "the launcher gave no reason")
            return None
        try:
            keeper.pid, keeper.pidfd = reply.pid, os.pidfd_open(reply.pid)
        except ProcessLookupError:
            self._fail(keeper, self._reason(keeper))
            return None
        return keeper

    def changed(self, watch: int, names: set[str]) -> bool:
        """A directory changed. True when it is one of ours."""
        keeper = self._by_watch.get(watch)
        if keeper is not None and jobfiles.READY in names:
            keeper.is_ready = self._has_succeeded = True
            self._failures = 0
            self.problem = None
        return keeper is not None

    def died(self, keeper: Keeper) -> None:
        """Its pidfd became readable though it had no job, or could not take the one it was given."""
        if keeper.token in self._keepers:
            self._fail(keeper, self._reason(keeper))
        else:
            self._bury(keeper)

    def relaunch(self, launcher: Launcher) -> None:
        """The launcher is a new one: what was asked of the old one and not born will never be."""
        self._launcher = launcher
        for keeper in [each for each in self.all() if each.pidfd < 0]:
            self._forget(keeper)
            keeper.let_go()
            self._bury(keeper)

    def let_go(self) -> None:
        """Take no more: each undoes what it prepared and ends, and `died` hears of it."""
        for keeper in list(self._keepers.values()):
            self._forget(keeper)
            keeper.let_go()
            self._leaving[keeper.token] = keeper

    def close(self, within_seconds: float) -> None:
        """let_go(), and wait until all are gone, though not for ever."""
        self.let_go()
        deadline = time.monotonic() + within_seconds
        while any(keeper.pidfd < 0 for keeper in self._leaving.values()):
            if not select.select([self._launcher.fd], [], [], max(deadline - time.monotonic(), 0.0))[0]:
                break
            for reply in self._launcher.replies() or self._unborn():
                self.born(reply)
        for keeper in list(self._leaving.values()):
            if keeper.pidfd >= 0:
                select.select([keeper.pidfd], [], [], max(deadline - time.monotonic(), 0.0))
            self._bury(keeper)

    def all(self) -> list[Keeper]:
        """Every keeper that lives without a job."""
        return [*self._keepers.values(), *self._leaving.values()]

    def _unborn(self) -> list[Reply]:
        """The launcher is dead: its answers, had it given them."""
        return [Reply(keeper.token, None, "the launcher died") for keeper in self._leaving.values() if keeper.pidfd < 0]

    def _ask(self, shape: Shape) -> bool:
        token = secrets.token_hex(8)
        directory = self._places.keeper(token)
        try:
            self._hold_layers(shape)
            os.mkdir(directory, 0o700)
            watch = self._watches.watch(directory)
        except OSError as error:
            self._pause(str(HostError("prepare a keeper in", directory, error.errno)))
            return False
        reader, writer = os.pipe2(os.O_CLOEXEC)
        keeper = Keeper(token, shape, directory, watch, writer)
        self._keepers[token] = self._by_watch[watch] = keeper
        try:
            is_asked = self._launcher.request(token, shape, reader)
        finally:
            os.close(reader)
        if not is_asked:
            self._forget(keeper)
            keeper.let_go()
            self._bury(keeper)
        return is_asked

    def _hold_layers(self, shape: Shape) -> None:
        """Say which layers warm keepers use, before they do: the image store must not take them away (in_use.py)."""
        if self._held_layers.issuperset(shape.image_layers):
            return
        held = {layer for keeper in self._keepers.values() for layer in keeper.shape.image_layers}
        self._held_layers = frozenset(held | set(shape.image_layers))
        path = f"{self._places.keepers}/{LAYERS}"
        with open(f"{path}.new", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write("\n".join(sorted(self._held_layers)))
        os.rename(f"{path}.new", path)

    def _fail(self, keeper: Keeper, reason: str) -> None:
        if keeper.token in self._keepers:
            self._pause(reason)
        self._forget(keeper)
        keeper.let_go()
        self._bury(keeper)

    def _pause(self, reason: str) -> None:
        """One failure is tried again at once; then ever later, so that a broken host is not kept busy."""
        self.problem = reason
        pause = 0.0 if not self._failures else min(0.1 * 2**self._failures, _LONGEST_PAUSE_SECONDS)
        self._failures = min(self._failures + 1, 12)
        self._not_before = time.monotonic() + pause

    def _reason(self, keeper: Keeper) -> str:
        ending = jobfiles.read_exit(keeper.directory)
        if ending is None or ending.fault is None:
            return "a keeper died while it prepared a container"
        return "; ".join(filter(None, (ending.fault.message, ending.fault.remedy)))

    def _bury(self, keeper: Keeper) -> None:
        """It is dead, or was never born: nothing of it stays."""
        self._leaving.pop(keeper.token, None)
        if keeper.pidfd >= 0:
            os.close(keeper.pidfd)
            keeper.pidfd = -1
        self._watches.unwatch(keeper.watch)
        if not jobfiles.discard(keeper.directory):
            self._places.throw_away(keeper.directory)

    def _forget(self, keeper: Keeper) -> None:
        self._keepers.pop(keeper.token, None)
        self._by_watch.pop(keeper.watch, None)


def layers_held(places: Places) -> list[str]:
    """The layers that warm keepers of this home use."""
    try:
        with open(f"{places.keepers}/{LAYERS}", encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []
