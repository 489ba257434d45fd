"""Finds what a SIGKILL left behind in this home and takes it away: directories, control groups, trash.

Everything bears the token or the job id of a keeper. Whoever holds the lock in a directory lives, and what is his is
left alone. Another home has other directories and another cgroup tag, so another agent's things are never seen.
What the kernel frees by itself (mounts, loop devices, network namespaces, processes) is none of our business here.
"""

import time
from collections.abc import Collection

from dayfly.runtime.cgroups.hierarchy import Hierarchy
from dayfly.runtime.removal import remove_tree
from dayfly.worker import jobfiles, joblock
from dayfly.worker.places import Places, names_in
from dayfly.worker.warm import LAYERS


class Sweeper:
    """`is_behind`: there was no time to delete all that was thrown away."""

    def __init__(self, places: Places, hierarchy: Hierarchy) -> None:
        self.is_behind = False
        self._places = places
        self._hierarchy = hierarchy

    def sweep(self, known_tokens: Collection[str], within_seconds: float) -> int:
        """Take away what nobody needs; returns how many things. `known_tokens`: keepers that the agent follows.

        Directories of jobs are left to adoption and to the agent: they may hold a result that Redis has not seen.
        """
        deadline = time.monotonic() + within_seconds
        swept = self._sweep_keepers(known_tokens)
        living_tokens = {*known_tokens, *self._living_tokens()}
        swept += self._sweep_groups(living_tokens)
        self._sweep_disks(living_tokens)
        return swept + self._empty_trash(deadline)

    def _empty_trash(self, deadline: float) -> int:
        """Delete what was thrown away; returns how many. One that resists stays for the next time."""
        removed = sum(remove_tree(f"{self._places.trash}/{name}", deadline) for name in names_in(self._places.trash))
        self.is_behind = time.monotonic() >= deadline
        return removed

    def _sweep_keepers(self, known_tokens: Collection[str]) -> int:
        dead = [
            name
            for name in names_in(self._places.keepers)
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
        tokens = {name for name in names_in(self._places.keepers) if joblock.holder(self._places.keeper(name))}
        for job_id in names_in(self._places.jobs):
            directory = self._places.job(job_id)
            if joblock.holder(directory) is not None and (record := jobfiles.read_record(directory)) is not None:
                tokens.add(record.token)
        return tokens

    def _sweep_groups(self, living_tokens: Collection[str]) -> int:
        dead = [token for token in self._hierarchy.existing() if token not in living_tokens]
        return sum(self._hierarchy.remove(token) for token in dead)

    def _sweep_disks(self, living_tokens: Collection[str]) -> None:
        """A disk that is a directory: its keeper deletes it, unless it was killed first."""
        for token in names_in(self._places.disks):
            if token not in living_tokens:
                self._places.throw_away(f"{self._places.disks}/{token}")
