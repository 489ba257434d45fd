"""Which Redis: a URL that was given, one that is configured, else the embedded stack."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dayfly.jobs.errors import ConfigError

if TYPE_CHECKING:
    from dayfly.config import Settings
    from dayfly.embedded import Stack


@dataclass(frozen=True, slots=True)
class Address:
    """A URL and who chose it. `stack` is set when it is the embedded one, which may have to be started first."""

    url: str
    origin: str
    stack: Stack | None = None

    def describe(self) -> str:
        """For people: without the password."""
        if self.stack is not None:
            return f"the embedded Redis ({self.stack.home})"
        return f"Redis at {without_password(self.url)} ({self.origin})"


def find_address(settings: Settings) -> Address:
    """The first of: flag or argument, DAYFLY_URL, DAYFLY_REDIS_URL, the file, the embedded stack."""
    url = settings.text("client.url")
    if url is None:
        from dayfly.config import home_directory
        from dayfly.embedded import Stack

        stack = Stack(home_directory(settings))
        return Address(stack.url, "default", stack)
    origin = settings.origin("client.url")
    if url.startswith(("http://", "https://")):
        raise ConfigError(
            origin, None, f"{url}: a Dayfly server is not built yet", "name the Redis itself: redis://HOST"
        )
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ConfigError(
            origin, None, f"{url!r} is no URL of a Redis", "write redis://HOST, rediss://HOST or unix:///PATH"
        )
    return Address(url, origin)


def without_password(url: str) -> str:
    """The URL for people's eyes; redis-py also takes a password from the query."""
    masked = re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", url)
    return re.sub(r"(?<=[?&])password=[^&#]*", "password=***", masked)
