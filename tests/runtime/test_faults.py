"""Real faults of disks, pipes, memory and servers, through the command line."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import av
import cv2
import pytest

from runtime.errors import InputError, SourceLostError
from runtime.image_files import read_image
from runtime.sources import open_source
from runtime.sources.network import NetworkFeed
from tests.conftest import ROOT, SHARED, Survived, make_image, write_clip
from tests.rig import free_port, handles_signal, wait_until

OPTIONS = ["--guard", "off", "--provider", "cpu", "--threads", "1"]


def command(engine: Path, source: object, out: object, *more: object) -> list[str]:
    arguments = ["--engine", engine, f"--source={source}", f"--out={out}", *OPTIONS, *more]
    return [sys.executable, "-m", "runtime.video", *map(str, arguments)]


def run(*arguments: object, env: dict[str, str] | None = None) -> tuple[int, list[str], str]:
    """Return the exit code, the lines that begin with `error:`, and all of standard error."""
    done = subprocess.run(
        command(*arguments), cwd=ROOT, env=os.environ | (env or {}), capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("error: ")], done.stderr


def frames_in(path: Path) -> int:
    return sum(1 for _ in open_source(str(path)))


def counts(page: int) -> Counter[str]:
    """The `frames` of docs/stats.md for a run with `--serve PAGE`, by now; zeros before it has begun."""
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{page}/stats.json") as answer:
        streams = json.load(answer)["streams"]
        return Counter(streams[0]["frames"] if streams else {})
    return Counter()


# Files


@pytest.mark.fault("Files", "tail cut off", done="half of an MP4 and of a Matroska file")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_file_that_is_cut_off(suffix: str, invert: Path, tmp_path: Path, survived: Survived) -> None:
    path = tmp_path / f"in{suffix}"
    write_clip(path, size=(320, 240), pts=[512 * i for i in range(100)], options={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    code, errors, _ = run(invert, path, tmp_path / "out.mp4")
    assert code == 3
    assert "file is cut off after" in errors[0]
    there = frames_in(path)
    assert frames_in(tmp_path / "out.mp4") == there > 20
    survived("what is there is restored, and the end is missed", code=3, lost=0)


def test_an_image_that_is_cut_off(tmp_path: Path) -> None:
    """OpenCV 4 invents the missing rest of a JPEG; bytes after its end are allowed."""
    cv2.imwrite(str(tmp_path / "a.jpg"), make_image(200, 100))
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "more.jpg").write_bytes(whole + b"\0" * 100)
    assert read_image(tmp_path / "more.jpg").shape == (100, 200, 3)
    for share in (0.3, 0.7, 0.99):
        (tmp_path / "cut.jpg").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match="image is cut off"):
            read_image(tmp_path / "cut.jpg")


@pytest.mark.needs_shared_data
def test_complete_images_never_count_as_cut_off() -> None:
    pictures = [path for folder in ("train", "odd/image") for path in (SHARED / folder).rglob("*.jp*g")]
    refused = []
    for path in pictures:
        try:
            read_image(path)
        except InputError as error:
            refused += [path.name] if "cut off" in str(error) else []
    assert len(pictures) > 100
    assert sorted(refused) == ["sharpfx_corrupt-header.jpg", "sharpfx_truncated.jpg"]


@pytest.mark.fault("Files", "size changes in the middle", done="64x48, then 96x64, in one stream")
def test_a_size_that_changes_in_the_middle(
    invert: Path, tmp_path: Path, survived: Survived, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, size in (("a", (64, 48)), ("b", (96, 64))):
        write_clip(tmp_path / f"{name}.ts", size=size)
    joined = (tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes()
    (tmp_path / "in.ts").write_bytes(joined)
    code, _, said = run(invert, tmp_path / "in.ts", tmp_path / "out.mp4")
    assert code == 0
    assert "frames changed size and were scaled to the first" in said
    assert frames_in(tmp_path / "out.mp4") == frames_in(tmp_path / "in.ts") >= 19
    survived("later frames are scaled to the first, and counted", code=0, lost=0)


@pytest.mark.fault("Files", "strange names", done="a leading dash, a line break, spaces, other scripts, in and out")
@pytest.mark.parametrize("name", ["-in.mp4", "a\nb.mp4", "with spaces.mp4", "тест кадр.mp4"])
def test_strange_names(name: str, clip: Path, invert: Path, tmp_path: Path, survived: Survived) -> None:
    shutil.copy(clip, tmp_path / name)
    out = tmp_path / f"out {name}"
    assert run(invert, tmp_path / name, out)[0] == 0
    assert frames_in(out) == 10
    survived("taken as they are", code=0, lost=0)


@pytest.mark.fault("Files", "output is the input", done="by its name and a symbolic link, with -y")
@pytest.mark.parametrize("link", [None, os.symlink])
def test_output_that_is_the_input_is_refused(
    link: Callable[[Path, Path], None] | None, clip: Path, invert: Path, survived: Survived
) -> None:
    before, out = clip.read_bytes(), clip
    if link:
        out = clip.with_name("link.mp4")
        link(clip, out)
    code, errors, _ = run(invert, clip, out, "-y")
    assert code == 2
    assert "output is the source" in errors[0]
    assert clip.read_bytes() == before
    survived("refused, the input is untouched", code=2, lost=0)


@pytest.mark.fault("Files", "two runs on one output", done="the second while the first writes")
def test_two_runs_on_one_output(clip: Path, tmp_path: Path, invert: Path, survived: Survived) -> None:
    fifo = tmp_path / "fifo.mkv"
    os.mkfifo(fifo)
    partial = tmp_path / "out.partial.mp4"
    first = subprocess.Popen(command(invert, fifo, tmp_path / "out.mp4"), cwd=ROOT, stderr=subprocess.DEVNULL)
    write_clip(tmp_path / "in.mkv", size=(160, 120), pts=[512 * i for i in range(50)])
    with fifo.open("wb", buffering=0) as feed:
        feed.write((tmp_path / "in.mkv").read_bytes())
        wait_until(partial.exists)
        code, errors, _ = run(invert, clip, tmp_path / "out.mp4", "-y")
    assert code == 6
    assert "another run is writing this output" in errors[0]
    assert first.wait(30) == 0
    assert frames_in(tmp_path / "out.mp4") == 50
    survived("the second is refused, the first ends as if alone", code=6, lost=0)


@pytest.mark.fault("Files", "a pipe that falls silent", done="a FIFO and standard input that give nothing more; Ctrl-C")
@pytest.mark.parametrize("kind", ["fifo", "stdin"])
def test_a_pipe_that_stalls_can_be_interrupted(kind: str, invert: Path, tmp_path: Path, survived: Survived) -> None:
    write_clip(tmp_path / "in.mkv", size=(160, 120), pts=[512 * i for i in range(100)])
    content = (tmp_path / "in.mkv").read_bytes()
    fifo, partial = tmp_path / "fifo.mkv", tmp_path / "out.partial.mp4"
    os.mkfifo(fifo)
    source, page = fifo if kind == "fifo" else "-", free_port()
    whole = command(invert, source, tmp_path / "out.mp4", "--serve", page)
    child = subprocess.Popen(whole, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdin
    with fifo.open("wb", buffering=0) if kind == "fifo" else child.stdin as feed:
        feed.write(content[: 3 * len(content) // 4])
        feed.flush()
        wait_until(lambda: counts(page)["written"] > 20, 60)
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        assert child.wait(15) == 130
        took_s = time.monotonic() - began
    assert child.stderr
    child.stderr.close()
    if child.stdin:
        child.stdin.close()
    assert frames_in(partial) > 20
    assert took_s < 10
    survived("the run ends within seconds, what was written plays", code=130, lost=0)


@pytest.mark.fault("Files", "a second signal", done="SIGTERM twice while a pipe is silent")
def test_a_second_signal_ends_at_once(invert: Path, tmp_path: Path, survived: Survived) -> None:
    fifo = tmp_path / "fifo.mkv"
    os.mkfifo(fifo)
    write_clip(tmp_path / "in.mkv", size=(160, 120), pts=[512 * i for i in range(100)])
    child = subprocess.Popen(command(invert, fifo, tmp_path / "out.mp4"), cwd=ROOT, stderr=subprocess.DEVNULL)
    with fifo.open("wb", buffering=0) as feed:
        feed.write((tmp_path / "in.mkv").read_bytes()[:20_000])
        wait_until((tmp_path / "out.partial.mp4").exists)
        child.send_signal(signal.SIGTERM)
        wait_until(lambda: not handles_signal(child, signal.SIGTERM))  # the first has arrived
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) in {-signal.SIGTERM, 143}
    survived("ends at once", code=143, lost=0)


LIMITED = """
import os, resource, sys
import runtime.video
now = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
limit = now + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
code = runtime.video.main(sys.argv[2:])
sys.stderr.flush()
os._exit(code)
"""


@pytest.mark.fault("Files", "too little memory", done="an address space of 5 to 700 MiB more; PNG, WebP, video")
@pytest.mark.parametrize(
    ("kind", "mebibytes"),
    [("png", each) for each in (5, 20, 100, 200, 400)]
    + [("webp", 500)]
    + [("video", each) for each in (5, 100, 200, 400, 500, 700)],
)
def test_too_little_memory(kind: str, mebibytes: int, invert: Path, tmp_path: Path, survived: Survived) -> None:
    """Memory runs out while reading, decoding, starting threads, restoring or encoding."""
    if kind != "video":
        cv2.imwrite(str(tmp_path / "in.png"), make_image(8000, 6000))
        source, out = tmp_path / "in.png", tmp_path / f"out.{kind}"
    else:
        write_clip(tmp_path / "in.mp4", size=(3840, 2160), pts=[0, 512], options={"preset": "ultrafast"})
        source, out = tmp_path / "in.mp4", tmp_path / "out.mp4"
    limited = [sys.executable, "-c", LIMITED, str(mebibytes), *command(invert, source, out)[3:]]
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    if done.returncode == -signal.SIGABRT and "std::bad_alloc" in done.stderr:
        assert not out.exists()
        pytest.skip("ONNX Runtime ended the process: memory ran out where its code cannot report it")
    assert done.returncode == 7, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: not enough memory")
    assert not out.exists()
    survived("one line, nothing under the output's name", code=7, lost=0)


# Live sources


def serve_forever(url: str, kind: str, stop: threading.Event, *, fps: int = 50) -> None:
    """Send a moving image until the event is set or the reader is gone."""
    try:
        with av.open(url, "w", format=kind) as container:
            stream = container.add_stream("mpeg2video" if kind == "mpegts" else "libx264", rate=fps)
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = 160, 120, "yuv420p", 5
            index = 0
            while not stop.is_set():
                frame = av.VideoFrame.from_ndarray(make_image(160, 120, seed=index % 50), format="bgr24")
                frame.pts = index
                container.mux(stream.encode(frame))
                index += 1
                time.sleep(1 / fps)
    except av.FFmpegError:
        pass  # nobody takes it any more


class Television(http.server.ThreadingHTTPServer):
    """Endless MPEG-TS over HTTP; `hang_up` ends the current response."""

    daemon_threads = True

    def __init__(self, content: bytes, port: int) -> None:
        self.content, self.viewers, self.hung_up = content, 0, threading.Event()
        super().__init__(("127.0.0.1", port), _Broadcast)
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()

    def hang_up(self) -> None:
        self.hung_up.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None: ...


class _Broadcast(http.server.BaseHTTPRequestHandler):
    server: Television

    def do_GET(self) -> None:
        self.server.viewers += 1
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        for start in range(0, len(self.server.content), 4096):
            if self.server.hung_up.is_set():
                return
            self.wfile.write(self.server.content[start : start + 4096])
            time.sleep(0.02)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def broadcast(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("ts") / "a.ts"
    write_clip(path, size=(160, 120), pts=[512 * index for index in range(400)])
    return path.read_bytes()


def recorded(invert: Path, url: str, out: Path, stats: Path, *more: object) -> subprocess.Popen[str]:
    options = ["--timeout-s", "1", "--stats", stats, *more]
    return subprocess.Popen(command(invert, url, out, *options), cwd=ROOT, stderr=subprocess.PIPE, text=True)


def ended(child: subprocess.Popen[str], stats: Path, out: Path, *, code: int = 130) -> None:
    if code == 130:
        child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert child.returncode == code, said
    assert "Traceback" not in said
    assert frames_in(out) == json.loads(stats.read_text())["frames"]["written"] > 0


@pytest.mark.fault("Live sources", "HTTP server goes away", done="MPEG-TS over HTTP, hung up and started again")
def test_http_source_reconnects(broadcast: bytes, invert: Path, tmp_path: Path, survived: Survived) -> None:
    port = free_port()
    server = Television(broadcast, port)
    out, stats = tmp_path / "out.mp4", tmp_path / "s.json"
    page = free_port()
    child = recorded(invert, f"http://127.0.0.1:{port}/live.ts", out, stats, "--serve", page)
    wait_until(lambda: counts(page)["written"] > 0, 60)
    server.hang_up()
    server = Television(broadcast, port)
    wait_until(lambda: counts(page)["reconnects"] > 0, 60)
    before = counts(page)["written"]
    wait_until(lambda: counts(page)["written"] > before, 60)
    ended(child, stats, out)
    server.hang_up()
    survived("connected again, counted; the file plays", code=130)


@pytest.mark.fault("Live sources", "UDP sender goes away", done="MPEG-TS over UDP; silence of two seconds, then on")
def test_udp_source_reconnects(invert: Path, tmp_path: Path, survived: Survived) -> None:
    port, page = free_port(), free_port()
    out, stats = tmp_path / "out.mp4", tmp_path / "s.json"
    child = recorded(invert, f"udp://127.0.0.1:{port}", out, stats, "--serve", page)
    for silences in range(2):
        before = counts(page)["written"]
        stop = threading.Event()
        sender = threading.Thread(
            target=serve_forever, args=(f"udp://127.0.0.1:{port}?pkt_size=1316", "mpegts", stop), daemon=True
        )
        sender.start()
        wait_until(lambda before=before: counts(page)["written"] > before + 20, 60)
        stop.set()
        sender.join()
        time.sleep(2)
        wait_until(lambda silences=silences: counts(page)["reconnects"] > silences, 60)
    ended(child, stats, out)
    survived("connected again, counted; the file plays", code=130)


@pytest.fixture
def mute() -> Iterator[int]:
    """A server that accepts connections and sends nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener.getsockname()[1]


@pytest.mark.fault(
    "Live sources", "mute after connecting", done="a server that accepts and says nothing: RTSP, HTTP, RTMP"
)
@pytest.mark.parametrize("scheme", ["rtsp", "http", "rtmp"])
def test_a_silent_server_is_given_up_in_time(scheme: str, mute: int, invert: Path, survived: Survived) -> None:
    began = time.monotonic()
    code, errors, _ = run(invert, f"{scheme}://127.0.0.1:{mute}/a", "null", "--open-s", "2")
    took_s = time.monotonic() - began
    assert code == 5
    assert "no frame for 2 s" in errors[0]
    assert 2 <= took_s < 9  # FFmpeg's own time out is 10 s, and has been seen to take twice as long
    survived("given up after --open-s, by our own clock", code=5)


def test_ffmpeg_gives_a_silent_server_up_in_our_words(mute: int) -> None:
    with pytest.raises(SourceLostError, match=r"^no frame for 0\.3 s"):
        NetworkFeed(f"http://127.0.0.1:{mute}/a", timeout_s=0.3)


@pytest.mark.fault("Live sources", "never back", done="the server is killed for good, --max-reconnects 2")
def test_a_server_that_is_gone_for_good(broadcast: bytes, invert: Path, tmp_path: Path, survived: Survived) -> None:
    port = free_port()
    server = Television(broadcast, port)
    out, stats = tmp_path / "out.mp4", tmp_path / "s.json"
    child = recorded(invert, f"http://127.0.0.1:{port}/live.ts", out, stats, "--max-reconnects", "2")
    partial = tmp_path / "out.partial.mp4"
    wait_until(lambda: partial.exists() and partial.stat().st_size > 0)
    server.hang_up()
    _, said = child.communicate(timeout=60)
    assert child.returncode == 5, said
    assert "did not come back in 2 tries" in said
    kept = next(path for path in (out, partial) if path.exists())
    assert frames_in(kept) == json.loads(stats.read_text())["frames"]["written"] > 0
    survived("the run ends, what was written plays", code=5)
