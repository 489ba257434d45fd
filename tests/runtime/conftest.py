"""What tests of the runtime share: doing something irrevocable in a child, and seeing how it went."""

import json
import os
import select
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from dayfly.runtime.idrange import own_id_map

_DEADLINE_SECONDS = 30.0


@pytest.fixture(scope="session")
def needs_root(lacks: Callable[[str], None]) -> None:
    """The test makes control groups, mounts or loop devices."""
    if os.geteuid() != 0 and own_id_map() is None:
        lacks("root")


@pytest.fixture(scope="session")
def in_child() -> Callable[[Callable[[], Any]], Any]:
    """`in_child(function)` runs it in a forked child and gives its (JSON) result; a traceback there fails here."""

    def run(function: Callable[[], Any]) -> Any:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            _answer(writer, function)
        os.close(writer)
        with open(reader, "rb") as pipe:
            ready = select.select([pipe], [], [], _DEADLINE_SECONDS)[0]
            raw = pipe.read() if ready else b""
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status == 0, f"the child ended with {status}: {raw.decode(errors='replace')}"
        return json.loads(raw)

    return run


def _answer(writer: int, function: Callable[[], Any]) -> None:
    try:
        answer, status = json.dumps(function()).encode(), 0
    except BaseException:  # noqa: BLE001, whatever it is belongs to the parent
        answer, status = traceback.format_exc().encode(), 1
    # A filter may refuse anything but this.
    os.write(writer, answer)
    os._exit(status)
