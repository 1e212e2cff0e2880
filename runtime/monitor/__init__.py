"""The status page of a running job: live frame, figures, metrics and health, for machines without a screen."""

from runtime.address import Address
from runtime.monitor.access import Access, open_access
from runtime.monitor.server import StatusServer
from runtime.monitor.stream import Stream

__all__ = ["Access", "Address", "StatusServer", "Stream", "open_access"]
