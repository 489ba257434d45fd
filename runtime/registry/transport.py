"""The connection to a registry: TLS with the certificates of its operator, proxies, patience.

Certificates lie where Docker and Podman have them: /etc/docker/certs.d/HOST:PORT/*.crt is a CA of that registry alone,
*.cert with *.key is ours. Proxies are the environment's (HTTPS_PROXY, NO_PROXY). Nothing is asked in plain HTTP but a
registry on this host's loopback that speaks no TLS, as Docker has it, and one that the operator lists as insecure.
"""

import ipaddress
import ssl
from collections.abc import Collection, Iterator
from pathlib import Path

import httpx2

from dayfly.jobs.errors import ImageError

_CERTIFICATES = (Path("/etc/docker/certs.d"), Path("/etc/containers/certs.d"))
_TIMEOUT = httpx2.Timeout(30.0, connect=10.0)
_CONNECTIONS = httpx2.Limits(max_connections=16, max_keepalive_connections=16)
_AGENT = "dayfly"


def connect(host: str, insecure: Collection[str] = ()) -> httpx2.Client:
    """A client whose base is the registry's, `https://HOST` or `http://HOST`. Raises ImageError.

    `insecure`: hosts that may be asked without TLS, or with a certificate that nobody vouches for.
    """
    if not is_loopback(host) and host not in insecure:
        return _client(f"https://{host}", host, trusts_all=False)
    encrypted = _client(f"https://{host}", host, trusts_all=True)
    if _answers(encrypted):
        return encrypted
    encrypted.close()
    return _client(f"http://{host}", host, trusts_all=True)


def is_loopback(host: str) -> bool:
    """Whether HOST or HOST:PORT is this very host, by its name or its address."""
    name, _, port = host.rpartition(":")
    name = (name if name and port.isdecimal() else host).strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _client(base: str, host: str, *, trusts_all: bool) -> httpx2.Client:
    return httpx2.Client(
        base_url=base,
        verify=_context(host, trusts_all=trusts_all),
        timeout=_TIMEOUT,
        limits=_CONNECTIONS,
        headers={"User-Agent": _AGENT},
        follow_redirects=False,
        trust_env=not is_loopback(host),
    )


def _context(host: str, *, trusts_all: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if trusts_all:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for directory in _directories(host):
        try:
            for path in sorted(directory.glob("*.crt")):
                context.load_verify_locations(path)
            for path in sorted(directory.glob("*.cert")):
                context.load_cert_chain(path, path.with_suffix(".key"))
        except (OSError, ssl.SSLError) as error:
            raise ImageError(f"cannot use the certificates in {directory}: {error}") from error
    return context


def _directories(host: str) -> Iterator[Path]:
    return (top / host for top in _CERTIFICATES if (top / host).is_dir())


def _answers(client: httpx2.Client) -> bool:
    try:
        with client.stream("GET", "/v2/"):
            return True
    except httpx2.ConnectError:  # what speaks no TLS ends the handshake so
        return False
    except httpx2.HTTPError:
        return True  # whatever it is, it is told by the request that matters
