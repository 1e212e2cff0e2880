"""An RTSP server on loopback with a test pattern, for Debian's own python3 (python3-gi, gir1.2-gst-rtsp-server-1.0).

`rtsp_server.py PORT WIDTH HEIGHT FPS [PATTERN]` serves rtsp://127.0.0.1:PORT/live until the process is killed.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - the versions have to be chosen before

port, width, height, fps = sys.argv[1:5]
pattern = sys.argv[5] if len(sys.argv) > 5 else "ball"
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(port)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    f"( videotestsrc is-live=true pattern={pattern} ! video/x-raw,width={width},height={height},framerate={fps}/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 pt=96 config-interval=1 )"
)
factory.set_shared(True)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print("serving", flush=True)
GLib.MainLoop().run()
