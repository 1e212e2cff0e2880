"""`python -m runtime.video`: a blurred stream in, a sharp one out."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import threading
import traceback
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from runtime.arguments import size
from runtime.engines import BUNDLED, MODES, PROVIDERS, Engine, Provider, open_engine
from runtime.engines.onnx import OnnxEngine
from runtime.engines.openvino import OpenVinoEngine
from runtime.engines.tiled import OVERLAP_PX, TiledEngine
from runtime.engines.watched import WatchedEngine
from runtime.errors import DeblurError, OutOfMemoryError, OutputError, UsageError
from runtime.frame import Frame, Pixels
from runtime.guard import OutputGuard
from runtime.interrupt import Interruption
from runtime.pipeline import Pipeline
from runtime.report import Progress, statistics, table, write_statistics
from runtime.serve import Address, StatusServer, Stream
from runtime.sharpness import SHARP
from runtime.sinks import NULL, Sink, Tee, WindowSink, in_the_way, open_sink
from runtime.sinks.video import VideoSink
from runtime.sources import LiveOptions, Source, Watch, open_source
from runtime.sources.video import VideoSource

_EPILOG = (
    "exit codes: 0 done, 2 usage, 3 source, 4 engine, 5 source lost, 6 output, 7 memory, 8 numbers, 130/143 interrupted"
)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked as far as it goes without opening anything."""
    parser = argparse.ArgumentParser(prog="python -m runtime.video", description=__doc__, epilog=_EPILOG)
    add = parser.add_argument
    add("--engine", type=Path, default=BUNDLED, metavar="E", help="engine file (default: the bundled one)")
    add(
        "--source",
        default="0",
        metavar="S",
        help="video, picture, folder, quoted pattern, - (standard input), address, or camera (default: 0)",
    )
    add("--out", metavar="O", help=f"video file, picture, folder of pictures, - (standard output), or {NULL}")
    add("--segment-s", type=float, default=0.0, metavar="S", help="record into files of so many seconds each")
    add("--pipe", choices=("y4m", "raw"), default="y4m", help="what --out - writes (raw: uint8 BGR)")
    add("--side-by-side", action="store_true", help="put the blurred frame to the left of the sharp one")
    add("--show", action="store_true", help="show the frames in a window; the default without --out")
    add("--stats", type=Path, metavar="FILE", help="write frame counts and latencies as JSON")
    add(
        "--serve",
        type=Address.parse,
        metavar="[HOST:]PORT",
        help="a page with the live picture and figures, /metrics and /healthz (default host: this machine alone)",
    )
    add("--provider", choices=PROVIDERS, default="auto", help="what runs an .onnx engine (default: the faster)")
    add("--mode", choices=MODES, default="latency", help="of a plan: one frame at a time, or several (throughput)")
    add("--rebuild", action="store_true", help="build a plan that does not fit this machine again, from its ONNX file")
    add("--tile", type=size, metavar="WxH", help="work in tiles of this size (default: only on frames that need it)")
    add("--overlap", type=int, default=OVERLAP_PX, metavar="PX", help=f"of tiles, blended (default: {OVERLAP_PX})")
    add("--watch-engine", action="store_true", help="change to a new engine when the file is replaced")
    add("--camera-size", type=size, metavar="WxH", help="asked of a camera")
    add("--camera-fps", type=float, metavar="F", help="asked of a camera")
    add("--transport", choices=("tcp", "udp"), default="tcp", help="of RTSP (default: tcp)")
    add("--timeout-s", type=float, default=10.0, metavar="S", help="open a live source again after so long a silence")
    add("--frozen-s", type=float, default=60.0, metavar="S", help="or with one picture alone for so long (0: never)")
    add(
        "--max-reconnects",
        type=int,
        metavar="N",
        help="end with 5 after so many failed tries in a row (default: never)",
    )
    add("--max-latency-ms", type=float, metavar="MS", help="drop frames of a live source that waited longer")
    add("--skip-sharp", type=_blur, default=0.0, metavar="auto|off|BLUR", help="pass on sharp frames (default: off)")
    add("--guard", choices=("on", "off"), default="on", help="pass on frames whose result is impossible (default: on)")
    add("--strict", action="store_true", help="end with 8 at such a frame instead")
    add("--threads", type=_count, default=0, metavar="N", help="CPU threads of the engine (default: every core)")
    add("--resume", action="store_true", help="finish the video that an earlier run with the same options left")
    add("-y", dest="overwrite", action="store_true", default=None, help="replace an existing output")
    add("-n", dest="overwrite", action="store_false", help="never replace an existing output")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = parse(arguments)
    with Interruption() as interruption:
        try:
            run(options, interruption)
        except KeyboardInterrupt:
            _say("interrupted")
        except Exception as error:  # noqa: BLE001 - whatever it is, the user gets one line
            return _report_error(error, debug=options.debug)
    return interruption.exit_code


def run(options: argparse.Namespace, interruption: Interruption) -> None:
    """Open the three parts, run the pipeline and report; raises what `main` makes a line of."""
    if options.resume and options.out and Path(options.out).is_file():
        _say(f"output  {options.out} is finished")
        return
    with ExitStack() as opened:
        server = opened.enter_context(closing(StatusServer(options.serve))) if options.serve else None
        if server:
            _say(f"page    {server.url}")
        engine = _open_engine(options)
        opened.callback(engine.close)
        source = open_source(
            options.source, _live_options(options)
        )  # the pipeline closes it, in the thread that reads it
        _say(f"engine  {engine.spec.name}, {engine.spec.precision}, {engine.backend}")
        _say(f"source  {source.info.name}")
        window = WindowSink() if options.show or options.out is None else None
        sink = _open_sink(options, source, window, job=_job(options, engine, source))
        opened.callback(sink.close, complete=False)
        if options.resume:
            _resume(source, sink)
        progress = Progress(expected=source.info.frame_count)
        guard = OutputGuard(strict=options.strict) if options.guard == "on" else None
        stream: Stream | None = None

        def on_frame(pipeline: Pipeline, frame: Frame, pixels: Pixels) -> None:
            progress(pipeline)
            if stream:
                stream.on_frame(pipeline, frame, pixels)

        pipeline = Pipeline(
            source,
            engine,
            sink,
            guard=guard,
            max_latency_ms=options.max_latency_ms,
            skip_sharp=options.skip_sharp,
            side_by_side=options.side_by_side,
            on_frame=on_frame,
        )
        stream = server.add(pipeline, source, engine) if server else None
        if stream:
            opened.enter_context(stream.running())
        interruption.on_signal = pipeline.stop
        if window:
            window.on_quit = pipeline.stop
        try:
            with closing(progress):
                pipeline.run()
        except BaseException:
            with suppress(OutputError):  # the first error is the one to tell
                _report(options, pipeline, engine, source, sink)
            raise
        _report(options, pipeline, engine, source, sink)


def _live_options(options: argparse.Namespace) -> LiveOptions:
    watch = Watch(timeout_s=options.timeout_s, frozen_s=options.frozen_s, max_reconnects=options.max_reconnects)
    return LiveOptions(
        camera_size=options.camera_size, camera_fps=options.camera_fps, transport=options.transport, watch=watch
    )


def _open_engine(options: argparse.Namespace) -> Engine:
    provider: Provider = options.provider

    def open_it() -> Engine:
        nonlocal provider
        engine = open_engine(
            options.engine,
            provider=provider,
            threads=options.threads,
            mode=options.mode,
            rebuild=options.rebuild,
        )
        if isinstance(engine, OnnxEngine | OpenVinoEngine):
            provider = engine.provider  # tried once; while frames run beside it, a trial would mislead
        return TiledEngine(engine, tile=options.tile, overlap_px=options.overlap, say=_say)

    return WatchedEngine(options.engine, open_it, say=_say) if options.watch_engine else open_it()


def _job(options: argparse.Namespace, engine: Engine, source: Source) -> str:
    """What decides the frames of an output; another run with the same makes the same."""
    files = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in source.info.files]
    what = (
        files,
        engine.spec.to_json(),
        engine.backend.split(" (")[0],
        options.side_by_side,
        options.guard,
        options.skip_sharp,
    )
    return f"deblur {hashlib.sha256(repr(what).encode()).hexdigest()[:16]}"


def _resume(source: Source, sink: Sink) -> None:
    if not isinstance(sink, VideoSink) or not isinstance(source, VideoSource):
        raise UsageError("only a video into a video can be resumed", hint="leave out --resume, or --show")
    done = sink.resume(source.start)
    if done:
        source.skip(done)
    _say(f"resume  after {done} frames")


def _open_sink(options: argparse.Namespace, source: Source, window: WindowSink | None, *, job: str) -> Sink:
    sinks: list[Sink] = [window] if window else []
    if options.out is not None:
        blocking = in_the_way(options.out)
        if blocking and not options.resume and not _may_replace(blocking, overwrite=options.overwrite):
            raise UsageError("output exists", blocking, hint="add -y to replace it, or give another --out")
        sinks.append(open_sink(options.out, source.info, job=job, segment_s=options.segment_s, pipe=options.pipe))
    return sinks[0] if len(sinks) == 1 else Tee(sinks)


def _may_replace(path: Path, *, overwrite: bool | None) -> bool:
    if overwrite is None and sys.stdin.isatty():
        print(f"{path} exists; replace it? [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    return bool(overwrite)


def _report(options: argparse.Namespace, pipeline: Pipeline, engine: Engine, source: Source, sink: Sink) -> None:
    warnings = source.warnings + sink.warnings
    if pipeline.frames_passed:
        warnings.append(f"{pipeline.frames_passed} frames passed on as they were: {pipeline.passed_because}")
    for warning in warnings:
        _say(f"warning: {warning}")
    if pipeline.frames_read:
        _say(table(pipeline))
    if pipeline.kept:
        _say(f"output  {pipeline.kept}")
    if options.stats:
        facts = {
            "engine": engine.spec.to_dict(),
            "backend": engine.backend,
            "source": source.info.name,
            "output": pipeline.kept,
            "warnings": warnings,
        }
        write_statistics(options.stats, statistics(pipeline, **facts))


def _report_error(error: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    if isinstance(error, MemoryError):
        error = OutOfMemoryError("not enough memory", hint="use smaller frames, or a machine with more")
    if isinstance(error, DeblurError):
        _say(f"error: {error}")
        return error.exit_code
    reason = " ".join(str(error).split()) or "no reason given"
    _say(f"error: this is a bug ({type(error).__name__}: {reason}); report it with the output of --debug")
    return 1


def _say(line: str) -> None:
    """Everything for people goes to standard error; standard output is for frames."""
    print(line, file=sys.stderr, flush=True)


def _blur(text: str) -> float:
    value = {"auto": SHARP, "off": 0.0}.get(text)
    value = float(text) if value is None else value
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be auto, off, or a blur from 0 to 1, got {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    code = main()
    if any(thread is not threading.current_thread() for thread in threading.enumerate()):
        # One is stuck in a library that blocks for ever; the interpreter would crash in taking itself down.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
