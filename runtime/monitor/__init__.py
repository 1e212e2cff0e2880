"""A page with the live picture, figures and health of a run, for machines without a screen."""

from runtime.address import Address
from runtime.monitor.server import StatusServer
from runtime.monitor.stream import Stream

__all__ = ["Address", "StatusServer", "Stream"]
