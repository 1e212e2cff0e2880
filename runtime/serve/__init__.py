"""A page with the live picture, figures and health of a run, for machines without a screen."""

from runtime.serve.address import Address
from runtime.serve.server import StatusServer
from runtime.serve.stream import Stream

__all__ = ["Address", "StatusServer", "Stream"]
