"""Finds what a SIGKILL left behind in this home and takes it away: directories, control groups, trash.

Everything bears the token or the job id of a keeper. Whoever holds the lock in a directory lives, and what is his is
left alone. Another home has other directories and another cgroup tag, so another agent's things are never seen.
What the kernel frees by itself (mounts, loop devices, network namespaces, processes) is none of our business here.
"""

import os
import shutil
from collections.abc import Collection

from dayfly.runtime.cgroups.hierarchy import Hierarchy
from dayfly.worker import jobfiles, joblock
from dayfly.worker.places import Places
from dayfly.worker.warm import LAYERS


class Sweeper:
    """`hierarchy` None: this host has no control groups for us."""

    def __init__(self, places: Places, hierarchy: Hierarchy | None) -> None:
        self._places = places
        self._hierarchy = hierarchy

    def sweep(self, known_tokens: Collection[str]) -> int:
        """Take away what nobody needs; returns how many things. `known_tokens`: keepers that the agent follows.

        Directories of jobs are left to adoption and to the agent: they may hold a result that Redis has not seen.
        """
        swept = self._sweep_keepers(known_tokens)
        swept += self._sweep_groups({*known_tokens, *self._living_tokens()})
        return swept + self.empty_trash()

    def empty_trash(self) -> int:
        """Delete what was thrown away. Returns how many directories; one that resists stays for the next time."""
        names = _names(self._places.trash)
        for name in names:
            # A job never writes here (its uppers lie on its own disk), so no walk can be led astray.
            shutil.rmtree(f"{self._places.trash}/{name}", ignore_errors=True)
        return len(names)

    def _sweep_keepers(self, known_tokens: Collection[str]) -> int:
        dead = [
            name
            for name in _names(self._places.keepers)
            if name not in known_tokens
            and not name.startswith(LAYERS)
            and joblock.holder(self._places.keeper(name)) is None
        ]
        for name in dead:
            if not jobfiles.discard(self._places.keeper(name)):
                self._places.throw_away(self._places.keeper(name))
        return len(dead)

    def _living_tokens(self) -> set[str]:
        """Tokens of keepers that hold a lock, wherever their directory is by now."""
        tokens = {name for name in _names(self._places.keepers) if joblock.holder(self._places.keeper(name))}
        for job_id in _names(self._places.jobs):
            directory = self._places.job(job_id)
            if joblock.holder(directory) is not None and (record := jobfiles.read_record(directory)) is not None:
                tokens.add(record.token)
        return tokens

    def _sweep_groups(self, living_tokens: Collection[str]) -> int:
        if self._hierarchy is None:
            return 0
        dead = [token for token in self._hierarchy.existing() if token not in living_tokens]
        return sum(self._hierarchy.remove(token) for token in dead)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
