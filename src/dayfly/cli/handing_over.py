"""The end of `run`: what is said of its results, written down, and brought back.

Whatever fails here, the rest is done all the same, and the job's own exit code is kept where it says more than ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dayfly.cli.say import complain, print_out, say
from dayfly.jobs.errors import DayflyError
from dayfly.jobs.state import exit_code_of

if TYPE_CHECKING:
    from dayfly.client import Client
    from dayfly.jobs.result import Result


def hand_over(client: Client, results: Sequence[Result], flags: Mapping[str, Any]) -> int:
    """Report, write the Results, deliver the artifacts; returns the exit code."""
    report(*results)
    lines = "\n".join(json.dumps(result.to_json()) for result in results)
    steps: list[Callable[[], None]] = []
    if flags["result"] is not None:
        steps.append(partial(_write, flags["result"], lines))
    steps += [partial(_deliver, client, result, flags["out"]) for result in results if result.artifacts]
    if flags["as_json"]:
        steps.append(partial(print_out, lines))  # the last: its reader may have gone, which ends us
    failures = sum(not _is_done(step) for step in steps)
    worst = max((exit_code_of(result) for result in results), default=0)
    return worst or (DayflyError.exit_code if failures else 0)


def report(*results: Result) -> None:
    """What one has to know beyond the log: nothing of a job that succeeded without a warning."""
    for line in dict.fromkeys(line for result in results for line in _network(result)):
        say(line)  # once, for it is one worker's fault and not each job's
    for result in results:
        for line in _headlines(result):
            say(line)


def _network(result: Result) -> list[str]:
    if result.network is None or result.network.why is None:
        return []
    return [f"network: {result.network.mode}, for this worker has no bridge: {result.network.why}"]


def _headlines(result: Result) -> list[str]:
    from dayfly.jobs.verdict import summary

    return [f"warning: {warning}" for warning in result.warnings] if result.is_success else summary(result)


def _is_done(step: Callable[[], None]) -> bool:
    try:
        step()
    except DayflyError as error:
        complain(str(error))
        return False
    return True


def _write(file: str, lines: str) -> None:
    """One Result, or one a line when there are several."""
    try:
        Path(file).write_text(f"{lines}\n")
    except OSError as error:
        raise DayflyError(f"cannot write the result to {file}: {error.strerror}") from error


def _deliver(client: Client, result: Result, out: str) -> None:
    """Bring the artifacts to where the user wants them."""
    from dayfly.worker.delivery import deliver

    written = deliver(client.store(), result.artifacts, Path(out))
    say(f"{len(written)} artifact{'s' if len(written) > 1 else ''} in {out}")
