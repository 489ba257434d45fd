"""Dayfly's containers without a queue: a launcher, warm keepers, the record that an agent would write.

The default container of the default image and of the peers' small root, everything on that a user gets. Each is used
once. Seen from where the agent stands: inotify for the files of the keeper, its pidfd for its end.
"""

from __future__ import annotations

import os
import secrets
import select
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from dayfly.jobs.door import read_job
from dayfly.jobs.ids import new_id
from dayfly.runtime.cgroups.hierarchy import open_hierarchy
from dayfly.runtime.images.image import Image
from dayfly.worker import jobfiles
from dayfly.worker.capacity import open_ledger
from dayfly.worker.launcher_client import Launcher
from dayfly.worker.places import Places
from dayfly.worker.plan import Identity, Planner
from dayfly.worker.record import Record
from dayfly.worker.settings import Networking, WorkerSettings
from dayfly.worker.watches import Watches

_DEADLINE_SECONDS = 30.0
_NO_BRIDGE = Networking()


class WarmContainers(AbstractContextManager["WarmContainers"]):
    def __init__(self, home: Path, oci_runtime: str | None = None, network: Networking = _NO_BRIDGE) -> None:
        self._settings = WorkerSettings(home=home, url="", name="bench", network=network)
        self.tag = self._settings.cgroup_tag
        self._places = Places(home)
        self._places.make()
        self._hierarchy = hierarchy = open_hierarchy(self._settings.cgroup_tag)
        self._planner = Planner(self._settings, open_ledger(self._settings).share, hierarchy, None)
        self._watches = Watches()
        self._launcher = Launcher.start(home, self._settings.cgroup_tag, oci_runtime)

    def __exit__(self, *_: object) -> None:
        self._launcher.close()
        self._hierarchy.leave()
        self._watches.close()

    def contestant(self, name: str, image: Image, network: str = "none") -> Callable[[], dict[str, float]]:
        """One container a call: figures for its parts and their sum."""
        spec = read_job({"image": "host", "command": ["/bin/true"], "network": network})

        def run() -> dict[str, float]:
            job_id = new_id()
            plan = self._planner.plan(spec, image, Identity(job_id, 1), None)
            begin = time.perf_counter()
            token, pidfd, control, watch = self._prepare(plan.shape)
            ready = time.perf_counter()
            record = self._record(job_id, token, plan)
            go = time.perf_counter()
            jobfiles.write_record(self._places.keeper(token), record)
            os.rename(self._places.keeper(token), self._places.job(job_id))
            os.write(control, b"go\n")
            self._await(watch, "exit.json")
            seen = time.perf_counter()
            select.select([pidfd], [], [], _DEADLINE_SECONDS)
            gone = time.perf_counter()
            ended = jobfiles.read_exit(self._places.job(job_id))
            if ended is None or ended.exit_code != 0:
                raise RuntimeError(f"the job did not succeed: {ended}")
            self._places.throw_away(self._places.job(job_id))
            for fd in (pidfd, control):
                os.close(fd)
            return {
                f"{name}: go to exit seen": (seen - go) * 1000,
                f"{name}: prepare, ahead of need": (ready - begin) * 1000,
                f"{name}: clean-up, after the exit": (gone - seen) * 1000,
                f"{name}: all work": (ready - begin + gone - go) * 1000,
            }

        return run

    def _prepare(self, shape: object) -> tuple[str, int, int, int]:
        token = secrets.token_hex(8)
        os.mkdir(self._places.keeper(token), 0o700)
        watch = self._watches.watch(self._places.keeper(token))
        reader, control = os.pipe2(os.O_CLOEXEC)
        self._launcher.request(token, shape, reader)  # type: ignore[arg-type]
        os.close(reader)
        select.select([self._launcher.fd], [], [], _DEADLINE_SECONDS)
        replies = self._launcher.replies() or []
        if not replies or replies[0].pid is None:
            raise RuntimeError(f"no keeper: {replies}")
        pidfd = os.pidfd_open(replies[0].pid)
        self._await(watch, "ready")
        return token, pidfd, control, watch

    def _await(self, watch: int, name: str) -> None:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while True:
            if not select.select([self._watches.fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"no {name} within {_DEADLINE_SECONDS:.0f} s")
            if name in (self._watches.changes() or {}).get(watch, set()):
                return

    def _record(self, job_id: str, token: str, plan: object) -> Record:
        return Record(
            job_id=job_id,
            queue="bench",
            class_name="bench",
            execution_id=job_id,
            attempt=1,
            fence=job_id,
            worker_name="bench",
            token=token,
            boot_id="",
            claimed_at=time.time(),
            enqueued_at=time.time(),
            document={},
            container=plan,  # type: ignore[arg-type]
            timeout_seconds=60.0,
            stop_grace_seconds=1.0,
            stop_signal=15,
            log_limit_bytes=self._settings.log_limit_bytes,
            artifacts=None,
            store=str(self._settings.store),
        )
