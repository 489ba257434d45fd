"""What Redis has to say, and how the embedded one stands."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dayfly.address import find_address, without_password
from dayfly.config import Settings
from dayfly.doctor_check import Check, missing, ok, warning
from dayfly.jobs.errors import DayflyError

if TYPE_CHECKING:
    from redis import Redis

_CLOCK_SECONDS = 2.0


def examine(settings: Settings) -> Iterator[Check]:
    try:
        address = find_address(settings)
    except DayflyError as error:
        yield missing("redis", error.message, error.remedy or "")
        return
    if address.stack is not None and not address.stack.is_up():
        yield _embedded_program()
        return
    try:
        yield from _examine_server(address.url)
    except DayflyError as error:
        yield missing("redis", f"{without_password(address.url)}: {error.message}", error.remedy or "")


def _embedded_program() -> Check:
    from dayfly.valkey import find_program

    try:
        return ok("redis", f"embedded, not running now; the first `dayfly run` starts {find_program()}")
    except DayflyError as error:
        return missing("redis", error.message, error.remedy or "")


def _examine_server(url: str) -> Iterator[Check]:
    from dayfly.queue.connection import connect, translated

    with translated():
        server = connect(url)
        facts = server.info()
        yield _version(url, facts)
        yield from _advice(server)
        yield _clock(server)
        server.close()


def _version(url: str, facts: dict[str, object]) -> Check:
    name = "Valkey" if "valkey_version" in facts else "Redis"
    version = str(facts.get("valkey_version") or facts.get("redis_version", "0"))
    text = f"{name} {version} at {without_password(url)}"
    if [int(part) for part in version.split(".")[:2]] < [6, 2]:
        return missing("redis", text, "Redis 6.2 or newer is needed (BLMOVE)")
    return ok("redis", text)


def _advice(server: "Redis") -> Iterator[Check]:
    from redis.exceptions import ResponseError

    try:
        policy = _setting(server, "maxmemory-policy")
        appendonly, fsync = _setting(server, "appendonly"), _setting(server, "appendfsync")
    except ResponseError as error:
        yield warning("  settings", f"CONFIG GET: {error}", "ask its operator: noeviction, appendonly yes")
        return
    if policy == "noeviction":
        yield ok("  eviction", "noeviction")
    else:
        yield warning("  eviction", f"maxmemory-policy {policy}", "set noeviction: jobs must not be evicted")
    if appendonly != "yes":
        yield warning("  durability", "appendonly no", "set appendonly yes: jobs die with the server")
    elif fsync != "always":
        yield ok("  durability", f"appendfsync {fsync}: a power cut may lose the last second; `always` loses nothing")
    else:
        yield ok("  durability", "appendfsync always")


def _setting(server: "Redis", name: str) -> str:
    found = {_text(key): _text(value) for key, value in server.config_get(name).items()}
    return found.get(name, "")


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _clock(server: "Redis") -> Check:
    seconds, micros = server.time()
    apart = abs(time.time() - seconds - micros / 1e6)
    if apart > _CLOCK_SECONDS:
        return warning(
            "  clock", f"{apart:.1f} s apart from Redis", "run an NTP client on both; timings are misleading"
        )
    return ok("  clock", f"{apart * 1000:.0f} ms apart from Redis")
