"""Where a registry may send us: it is a stranger, and we stand in the network of the host.

A registry of the internet that names a token server, or a place of its blobs, inside (loopback, private and link-local
ranges) would have us ask there in its name, and may learn the answer. One that stands inside itself may; so may one
that the operator lists ([images] inside), for where names of the internet lead inside ("split DNS").
"""

import ipaddress
import socket
from collections.abc import Callable, Collection, Iterable

import httpx2

from dayfly.jobs.errors import ImageError


def check_reach(own_host: str, url: httpx2.URL, name: str, inside: Collection[str] = ()) -> None:
    """Raises ImageError where the registry `name`, at `own_host`, must not send us to `url`.

    `inside`: registries that may send us anywhere.
    """
    if url.host == own_host or name in inside or not _stands_inside(url.host, any) or _stands_inside(own_host, all):
        return
    raise ImageError(f"{name} sends us to {url.host}, which is no address of the internet", "[images] inside lets it")


def read_url(text: str, name: str) -> httpx2.URL:
    """A URL that a registry names. Raises ImageError."""
    try:
        return httpx2.URL(text)
    except (httpx2.InvalidURL, ValueError) as error:
        raise ImageError(f"{name} names {text[:120]!r}, which is no URL") from error


def _stands_inside(host: str, how_many: Callable[[Iterable[bool]], bool]) -> bool:
    """Whether any, or all, of a host's addresses are none of the internet's; one without is a proxy's to find."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return how_many(not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global for *_, address in found)
