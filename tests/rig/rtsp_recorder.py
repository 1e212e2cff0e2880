"""An RTSP server that stores a published stream, for Debian's own python3: `rtsp_recorder.py PORT FILE.mkv`.

It stores the stream that is published to rtsp://127.0.0.1:PORT/in as it arrives, until the process is killed.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - the versions have to be chosen before

port, place = sys.argv[1:3]
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(port)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
factory.set_launch(
    f"( rtph264depay name=depay0 ! h264parse ! matroskamux streamable=true ! filesink buffer-mode=2 location={place} )"
)
server.get_mount_points().add_factory("/in", factory)
server.attach(None)
print("serving", flush=True)
GLib.MainLoop().run()
