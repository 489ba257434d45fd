"""The program that pulls one image for jobs that wait, in a process of its own: it takes minutes, and unpacks what a
stranger has made.

Its stdin is a JSON object of `request()`; its stdout has JSON objects, a line each: how far it is, then how it ended.
"""

import json
import signal
import sys
import threading
import time
from typing import Any

from dayfly.jobs.errors import DayflyError
from dayfly.jobs.plain import from_plain, to_plain
from dayfly.runtime import syscalls
from dayfly.runtime.images.store import ImageStore
from dayfly.runtime.title import set_title
from dayfly.worker.settings import Images

_SECONDS_BETWEEN = 0.5


def request(home: str, reference: str, images: Images, *, is_fresh: bool) -> dict[str, Any]:
    """`is_fresh`: what the registry has now, and not what may be here."""
    return {"home": home, "reference": reference, "images": to_plain(images), "is_fresh": is_fresh}


def main() -> None:
    """End with the agent, whose next one would ask again; what came stays, and is gone on with."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    fields = json.load(sys.stdin)
    set_title(f"dayfly: pull {fields['reference']}")
    try:
        _tell(**_pull(fields))
    except (DayflyError, OSError) as error:
        _tell(error=str(error))


def _pull(fields: dict[str, Any]) -> dict[str, object]:
    from dayfly.runtime.registry.pulling import pull

    images = from_plain(Images, fields["images"])
    store = ImageStore(fields["home"], images.limits)
    pulled = pull(store, fields["reference"], images.registries, _Progress(), only_if_missing=not fields["is_fresh"])
    return {"digest": pulled.image.digest, "warnings": list(pulled.warnings)}


class _Progress:
    """Told of each layer by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._layers: dict[str, tuple[int, int]] = {}
        self._next_at = 0.0

    def __call__(self, digest: str, done: int, total: int) -> None:
        with self._lock:
            self._layers[digest] = (done, total)
            now = time.monotonic()
            if now >= self._next_at:
                self._next_at = now + _SECONDS_BETWEEN
                sums = [sum(column) for column in zip(*self._layers.values(), strict=True)]
                _tell(done_bytes=sums[0], total_bytes=sums[1])


def _tell(**fields: object) -> None:
    print(json.dumps(fields), flush=True)
