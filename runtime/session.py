"""Opens what a command line asks for, and runs it: sources, engine and outputs."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, nullcontext, suppress
from pathlib import Path
from threading import Lock, Thread

from runtime.cli import report_error, say
from runtime.engines import Engine, Mode, Provider, open_engine
from runtime.engines.choice import choose
from runtime.engines.onnx import OnnxEngine
from runtime.engines.openvino import OpenVinoEngine
from runtime.engines.parallel import ParallelEngine
from runtime.engines.shared import Seat, SharedEngine
from runtime.engines.tiled import TiledEngine
from runtime.engines.watched import WatchedEngine
from runtime.errors import OutputError, UsageError
from runtime.frame import Size
from runtime.guard import OutputGuard
from runtime.interrupt import Interruption
from runtime.monitor import StatusServer, Stream
from runtime.pipeline import Pipeline
from runtime.report import Progress, report, write_statistics
from runtime.sinks import NULL, Sink, Tee, WindowSink, in_the_way, open_sink
from runtime.sinks.video import VideoSink
from runtime.sources import LiveOptions, Source, Watch, open_source
from runtime.sources.video import VideoSource

USUAL_SIZE: Size = (640, 360)
"""That engines are tried at, where a source does not know its own before (pictures)."""


def run(options: argparse.Namespace, interruption: Interruption) -> int:
    """Run every source to its end and report; 0, or the exit code of the first that failed.

    One that fails ends alone. Raises what is wrong before the first frame.
    """
    pairs = [(source, outs) for source, outs in _pairs(options) if not _finished(options, outs)]
    if not pairs:
        return 0
    with ExitStack() as opened:
        server = opened.enter_context(closing(StatusServer(options.serve))) if options.serve else None
        if server:
            say(f"page    {server.url}")
        progress = Progress()
        with ExitStack() as unstarted:
            sources = [_open_source(options, text, unstarted) for text, _ in pairs]
            # A file waits for the engine; of a camera the next frame is to be the newest.
            mode: Mode = options.mode or ("latency" if any(source.info.is_live for source in sources) else "throughput")
            engine = _open_engine(options, sources[0].info.size or USUAL_SIZE, mode)
            opened.callback(engine.close)
            say(f"engine  {engine.spec.name}, {engine.spec.precision}, {engine.backend}")
            shared = SharedEngine(engine)
            pipelines = [
                _pipeline(options, source, outs, shared.seat(), progress=progress, unstarted=unstarted)
                for source, (_, outs) in zip(sources, pairs, strict=True)
            ]
            shown = [server.add(pipeline, engine) for pipeline in pipelines] if server else []
            unstarted.pop_all()  # from here on whoever reads a source closes it, and each pipeline its sink

        def stop() -> None:
            for pipeline in pipelines:
                pipeline.stop()

        interruption.on_signal = stop
        codes = _run_all(pipelines, shown, progress, debug=options.debug)
        failed = next((code for code in codes if code), 0)
        if options.stats:
            with suppress(*[OutputError] if failed else []):  # the first error is the one to tell
                write_statistics(options.stats, engine, pipelines)
    return failed


def _pairs(options: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Each source with its outputs; raises UsageError where they do not fit together."""
    sources, outs = options.source or ["0"], options.out or []
    if len(sources) == 1:
        yield sources[0], outs
        return
    if options.show or not (outs or options.serve):
        raise UsageError(
            "a window shows one source", hint="give each --source an --out, or --serve a page, and leave out --show"
        )
    if outs in ([NULL], []):
        outs = [NULL] * len(sources)
    if len(outs) != len(sources):
        raise UsageError(f"{len(sources)} sources and {len(outs)} outputs", hint="give each --source an --out")
    if len(set(outs) - {NULL}) < sum(out != NULL for out in outs):
        raise UsageError("two sources have the same output", hint="give each --source an --out of its own")
    if {Path(out).resolve() for out in outs} & {Path(source).resolve() for source in sources}:
        raise UsageError("the output of one source is another", hint="give another --out")
    for source, out in zip(sources, outs, strict=True):
        yield source, [out]


def _finished(options: argparse.Namespace, outs: list[str]) -> bool:
    done = options.resume and bool(outs) and all(Path(out).is_file() for out in outs)
    if done:
        say(f"output  {', '.join(outs)} is finished")
    return done


def _run_all(pipelines: list[Pipeline], shown: list[Stream], progress: Progress, *, debug: bool) -> list[int]:
    """One in this thread, which has the window; several in threads of their own."""
    codes = [0] * len(pipelines)
    reporting = Lock()

    def run_one(index: int) -> None:
        error: Exception | None = None
        try:
            with shown[index].running() if shown else nullcontext():
                pipelines[index].run()
        except Exception as caught:  # noqa: BLE001 - whatever it is, the user gets one line
            error = caught
        with reporting:
            progress.close()
            report(pipelines[index], named=len(pipelines) > 1)
            if error:
                codes[index] = report_error(error, debug=debug)

    if len(pipelines) == 1:
        run_one(0)
    else:
        threads = [Thread(target=run_one, args=(index,), name=f"stream-{index}") for index in range(len(pipelines))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return codes


def _open_source(options: argparse.Namespace, text: str, unstarted: ExitStack) -> Source:
    source = open_source(text, _live_options(options), raw=options.raw)
    unstarted.callback(source.close)
    say(f"source  {source.info.name}")
    return source


def _pipeline(
    options: argparse.Namespace,
    source: Source,
    outs: list[str],
    seat: Seat,
    *,
    progress: Progress,
    unstarted: ExitStack,
) -> Pipeline:
    """One source on its way to its outputs."""
    window = WindowSink() if options.show or not (outs or options.serve) else None
    job = job_name(source, seat, options.side_by_side, options.guard, options.skip_sharp)
    sink = _open_sinks(options, outs, source, window, job=job)
    unstarted.callback(sink.close, complete=False)
    if options.resume:
        _resume(source, sink)
    pipeline = Pipeline(
        source,
        seat,
        sink,
        guard=OutputGuard(strict=options.strict) if options.guard == "on" else None,
        max_latency_ms=options.max_latency_ms,
        skip_sharp=options.skip_sharp,
        side_by_side=options.side_by_side,
        turn=seat.turn,
    )
    pipeline.listeners.append(progress)
    if window:
        window.on_quit = pipeline.stop
    return pipeline


def _live_options(options: argparse.Namespace) -> LiveOptions:
    watch = Watch(
        timeout_s=options.timeout_s,
        open_s=options.open_s,
        frozen_s=options.frozen_s,
        max_reconnects=options.max_reconnects,
    )
    return LiveOptions(
        camera_size=options.camera_size, camera_fps=options.camera_fps, transport=options.transport, watch=watch
    )


def _open_engine(options: argparse.Namespace, size: Size, mode: Mode) -> Engine:
    """`size`: of the frames, which decides between the engines of a folder."""
    provider: Provider = options.provider

    def open_one(path: Path) -> Engine:
        return open_engine(
            path,
            provider=provider,
            threads=options.threads,
            mode=mode,
            rebuild=options.rebuild,
        )

    def open_it() -> Engine:
        nonlocal provider
        if options.engine.is_dir():
            settings = (options.provider, options.threads, mode)
            engine, why = choose(options.engine, open_one, size=size, settings=settings)
            say(f"chosen  {why}")
        else:
            engine = open_one(options.engine)
        if isinstance(engine, OnnxEngine | OpenVinoEngine | ParallelEngine):
            provider = engine.provider  # tried once; while frames run beside it, a trial would mislead
        return TiledEngine(engine, tile=options.tile, overlap_px=options.overlap, say=say)

    if options.watch_engine and options.engine.is_dir():
        raise UsageError("--watch-engine watches one engine", options.engine, hint="give the file")
    return WatchedEngine(options.engine, open_it, say=say) if options.watch_engine else open_it()


def job_name(source: Source, engine: Engine, *settings: object) -> str:
    """What decides the frames of an output; another run with the same makes the same."""
    files = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in source.info.files]
    what = (files, engine.spec.to_json(), engine.backend.split(" (")[0], *settings)
    return f"deblur {hashlib.sha256(repr(what).encode()).hexdigest()[:16]}"


def _resume(source: Source, sink: Sink) -> None:
    if not isinstance(sink, VideoSink) or not isinstance(source, VideoSource):
        raise UsageError("only a video into a video can be resumed", hint="leave out --resume, or --show")
    done = sink.resume(source.start)
    if done:
        source.skip(done)
    say(f"resume  after {done} frames")


def _open_sinks(
    options: argparse.Namespace, outs: list[str], source: Source, window: WindowSink | None, *, job: str
) -> Sink:
    sinks: list[Sink] = [window] if window else []
    for out in outs:
        blocking = in_the_way(out)
        if blocking and not options.resume and not _may_replace(blocking, overwrite=options.overwrite):
            raise UsageError("output exists", blocking, hint="add -y to replace it, or give another --out")
        sinks.append(open_sink(out, source.info, job=job, segment_s=options.segment_s, pipe=options.pipe))
    return sinks[0] if len(sinks) == 1 else Tee(sinks)  # of none, if the page alone shows the frames


def _may_replace(path: Path, *, overwrite: bool | None) -> bool:
    if overwrite is None and sys.stdin.isatty():
        print(f"{path} exists; replace it? [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    return bool(overwrite)
