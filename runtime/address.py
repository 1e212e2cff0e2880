"""Network addresses that a page is served at."""

from __future__ import annotations

import argparse
import ipaddress
import re
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
_ADDRESS = re.compile(r"(?:(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]]+)):)?(\d{1,5})", re.ASCII)


@dataclass(frozen=True)
class Address:
    """A host name or IP address without brackets, and a TCP port; port 0 takes any free port."""

    host: str
    port: int

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"port must be from 0 to 65535, got {self.port}")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse `8080` (on loopback), `0.0.0.0:8080`, `[::1]:8080` or `board.lan:8080`, as argparse's `type`."""
        match = _ADDRESS.fullmatch(text)
        if not match or int(match[3]) > 65_535:
            raise argparse.ArgumentTypeError(f"expected [HOST:]PORT such as 8080 or 0.0.0.0:8080, got {text!r}")
        return cls(match[1] or match[2] or LOOPBACK, int(match[3]))


def is_loopback(host: str) -> bool:
    """Whether a host, with or without brackets, is a loopback address: 127.0.0.0/8, ::1 or localhost."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
