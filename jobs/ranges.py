"""Ranges of addresses as documents and configuration write them. What they mean is runtime/network/ranges.py's."""

from __future__ import annotations

INTERNET = "internet"
"""In a list of ranges: every address that is routed world-wide, and no private one."""


def check_range(text: str) -> str:
    """`internet`, an address, or a range such as 10.1.0.0/16, in its canonical form. Raises ValueError."""
    return text if text == INTERNET else check_addresses(text)


def check_addresses(text: str) -> str:
    """An address or a range, in its canonical form. Raises ValueError."""
    import ipaddress  # most documents have none

    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"must be an address or a range such as 10.1.0.0/16: {error}") from error
