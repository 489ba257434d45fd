"""The jobs that an agent follows, found by whatever names them: their execution, their watch, their keeper."""

from collections.abc import Iterator

from dayfly.worker.running import RunningJob


class Roster:
    """A job stays from its start, or its adoption, until its end is settled and its keeper is gone."""

    def __init__(self) -> None:
        self._jobs: dict[str, RunningJob] = {}
        self._by_watch: dict[int, RunningJob] = {}
        self.touched: set[RunningJob] = set()
        """Those with something to do: tell a state, ship a log, settle an end, go."""

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[RunningJob]:
        return iter(list(self._jobs.values()))

    def add(self, job: RunningJob) -> None:
        self._jobs[job.claim.execution_id] = job
        self._by_watch[job.watch] = job
        self.touched.add(job)

    def remove(self, job: RunningJob) -> None:
        self._jobs.pop(job.claim.execution_id, None)
        self._by_watch.pop(job.watch, None)
        self.touched.discard(job)

    def has(self, execution_id: str) -> bool:
        return execution_id in self._jobs

    def changed(self, watch: int, names: set[str]) -> bool:
        """Files have changed below a watch. True when it is a job's."""
        job = self._by_watch.get(watch)
        if job is None:
            return False
        job.changed(names)
        self.touched.add(job)
        return True

    def look_at_all(self) -> None:
        """Events were lost: look at every directory."""
        for job in self:
            job.look()
            self.touched.add(job)

    def leaving(self) -> list[RunningJob]:
        """Those with nothing left to come: settled, and their keeper is dead."""
        return [job for job in self._jobs.values() if job.is_settled and job.is_gone]

    def unsettled(self) -> list[RunningJob]:
        return [job for job in self._jobs.values() if not job.is_settled]
