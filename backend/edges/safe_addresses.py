"""Which hosts may be fetched from: public ones, or those allowed by name.

Private, loopback, link-local, reserved and metadata addresses are refused, also when an IPv6
address hides them.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from backend.errors import MediaError

# Public by number, yet a cloud's own: Azure's host agent.
_METADATA = frozenset({ipaddress.ip_address("168.63.129.16")})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], list[str]]


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port: what may share a token."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of an http or https address.

        Raises:
            MediaError: another scheme, no host, a password inside, or an impossible port.
        """
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port
            if not host.isascii():
                host = host.encode("idna").decode("ascii")
        except (ValueError, UnicodeError) as exc:
            raise MediaError(f"it is no valid address ({exc})") from exc
        scheme = parts.scheme.lower()
        if scheme not in ("http", "https"):
            raise MediaError(f"addresses of the kind '{scheme}:' are not fetched")
        if not host:
            raise MediaError("it names no host")
        if parts.username is not None or parts.password is not None:
            raise MediaError("it carries a user name or password, which is not sent; use a storage")
        return cls(scheme, host.lower(), port or (443 if scheme == "https" else 80))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


@dataclass(frozen=True)
class AllowList:
    """Hosts that may be on private addresses: names, ``name:port``, addresses or networks."""

    names: frozenset[str] = frozenset()
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    origins: frozenset[Origin] = frozenset()

    @classmethod
    def parse(cls, text: str, origins: Iterable[Origin] = ()) -> AllowList:
        """Read ``fetch_allow_hosts``: entries separated by commas."""
        names: set[str] = set()
        networks = []
        for entry in (part.strip().lower() for part in text.split(",")):
            try:
                networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                if entry:
                    names.add(entry)
        return cls(frozenset(names), tuple(networks), frozenset(origins))

    def covers(self, origin: Origin) -> bool:
        """Whether this host may be anywhere."""
        return (
            origin in self.origins
            or origin.host in self.names
            or f"{origin.host}:{origin.port}" in self.names
        )

    def covers_address(self, address: Address) -> bool:
        """Whether this very address was allowed."""
        return any(address in network for network in self.networks)


def is_public(address: Address) -> bool:
    """Whether an address is on the internet, also when an IPv6 address hides an IPv4 one."""
    if isinstance(address, ipaddress.IPv6Address):
        hidden = address.ipv4_mapped or address.sixtofour
        if address.teredo is not None:
            hidden = address.teredo[1]
        if address in _NAT64:
            hidden = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if hidden is not None:
            return is_public(hidden)
    return address.is_global and not address.is_multicast and address not in _METADATA


def resolve(host: str, port: int) -> list[str]:
    """Numeric addresses of a host, in the order to try them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def allowed_addresses(origin: Origin, allow: AllowList, resolver: Resolver) -> list[str]:
    """Addresses of a host that may be connected to.

    Raises:
        MediaError: the name is unknown (``transient``), or all addresses are private.
    """
    try:
        found = resolver(origin.host, origin.port)
    except (OSError, UnicodeError) as exc:
        raise unavailable(f"the host '{origin.host}' is not known") from exc
    if allow.covers(origin):
        return found
    parsed = [(text, ipaddress.ip_address(text.split("%")[0])) for text in found]
    open_ = [t for t, a in parsed if is_public(a) or allow.covers_address(a)]
    if not open_:
        raise MediaError(
            f"'{origin.host}' is on the private or reserved address {', '.join(found)}. If "
            f"images belong there, add {origin.host} to DOUBTLESS_FETCH_ALLOW_HOSTS"
        )
    return open_


def unavailable(message: str) -> MediaError:
    """A failure that may pass by itself."""
    return MediaError(message, transient=True)
