"""Which addresses may be asked: a guard against pages that lead into the private network.

A name is resolved here, every address it has is checked, and the connection goes to exactly
the address that was checked, so a name that changes its address in between gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from treegrpo.envs.retrieval.base import PageFailed

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name, in the system's order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]).partition("%")[0] for entry in found]


@dataclass(frozen=True)
class Guard:
    """What may be asked.

    Attributes:
        hosts: only these hosts and their subdomains; empty for every host.
        allow_private: whether the hosts' addresses may be private: for an endpoint that the
            user named, never for pages.
        allow_loopback: whether this machine may be asked: for tests.
        resolve: how names become addresses.
    """

    hosts: tuple[str, ...] = ()
    allow_private: bool = False
    allow_loopback: bool = False
    resolve: Resolve = resolve

    def addresses(self, url: httpx.URL) -> list[str]:
        """Return the addresses to connect to for a URL, in the order to try.

        Raises:
            PageFailed: it may not be asked, with the reason.
        """
        host = url.host.rstrip(".").lower()
        if url.scheme not in ("http", "https") or not host:
            raise PageFailed("its address is not one of the web (http or https)")
        if url.userinfo:
            raise PageFailed("its address carries a user name")
        if self.hosts and not any(_belongs(host, one) for one in self.hosts):
            raise PageFailed(f"the host {host} is not one of those that may be opened")
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            found = self.resolve(host, port)
        except (OSError, UnicodeError):
            found = []
        if not found:
            raise PageFailed(f"the host {host} is not known")
        for text in found:
            self._check(host, ipaddress.ip_address(text))
        return list(dict.fromkeys(found))

    def _check(self, host: str, address: IP) -> None:
        inner = _unwrapped(address)
        if self.allow_private or (self.allow_loopback and inner.is_loopback):
            return
        if not inner.is_global or inner.is_multicast:
            raise PageFailed(f"the host {host} is at a private address, which is never opened")


def _belongs(host: str, allowed: str) -> bool:
    allowed = allowed.rstrip(".").lower()
    return host == allowed or host.endswith(f".{allowed}")


def _unwrapped(address: IP) -> IP:
    """Return the IPv4 address inside an IPv6 one, where there is one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
