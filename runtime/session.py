"""A session: opens the engine, sources and outputs that `RunOptions` names, and runs their pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock, Thread

from runtime.bit_depth import describe_pixels, find_pale_viewers, keep_10_bits
from runtime.cli import report_error, say
from runtime.engines import (
    DEFAULT_SIZE,
    Engine,
    Mode,
    TiledEngine,
    open_engine,
    require_engine,
    resolve_engine,
)
from runtime.engines.shared import EngineClient, SharedEngine
from runtime.errors import OutputError, SourceLostError, UsageError
from runtime.frame import Pixels
from runtime.interrupt import Interruption
from runtime.jobs import is_finished, pair_sources, require_distinct_files, require_replaceable
from runtime.monitor import StatusServer, Stream, open_access
from runtime.options import RunOptions
from runtime.pipeline import Pipeline
from runtime.pixel_choice import ENGINE_TAKES_BGR, choose_pixels, may_take_planes
from runtime.report import Progress, print_report, write_statistics
from runtime.resume import EngineFile, Job, adopt_engine, is_resumable, resume
from runtime.run_engine import open_run_engine
from runtime.sinks import Sink, Tee, WindowSink, is_video_output, open_sink
from runtime.sinks.encoder_trial import require_encoder
from runtime.sources import Source, open_source
from runtime.sources.base import PlanesSource
from runtime.spec import PixelFormat
from runtime.urls import is_url


def restore(image: Pixels, engine: str | Path | Engine = "edge-s") -> Pixels:
    """Restore one image uint8[H, W, 3] BGR and return the result with the same shape.

    `engine` is an open engine, or what `open_engine` takes; it is then opened for this call alone. Open an engine
    once for several images: `with open_engine("edge-s") as engine: ...`. Raises ValueError for another shape or dtype
    and EngineError if the engine cannot be used.
    """
    if not isinstance(engine, str | Path):
        return (engine if isinstance(engine, TiledEngine) else TiledEngine(engine))(image)
    with open_engine(engine) as opened:
        return opened(image)


def run(options: RunOptions, interruption: Interruption) -> int:
    """Run every source completely and print a report; return 0, or the exit code of the first source that failed.

    A source that fails does not stop the others. Errors before the first frame are raised.
    """
    engine_path = resolve_engine(options.engine)
    require_engine(engine_path)  # before a camera is opened
    if options.watch_engine and engine_path.is_dir():
        raise UsageError("--watch-engine watches one engine", engine_path, hint="give a file of the folder")
    require_distinct_files(options, engine_path)
    jobs = list(_open_jobs(options))
    if not jobs:
        return 0
    with ExitStack() as resources:
        server = resources.enter_context(closing(_open_status_server(options))) if options.serve else None
        progress = Progress()
        with ExitStack() as not_started:
            options = replace(options, live=replace(options.live, planes=may_take_planes(options)))
            sources = [_open_source(options, name, not_started) for name, _ in jobs]
            resumable = [
                is_resumable(source, outputs, options) for source, (_, outputs) in zip(sources, jobs, strict=True)
            ]
            for (_, outputs), can_resume in zip(jobs, resumable, strict=True):
                require_replaceable(outputs, options, is_resumable=can_resume)
            # A file waits for the engine; the next frame of a camera should be the newest.
            has_camera = any(source.info.is_live for source in sources)
            mode: Mode = options.mode or ("latency" if has_camera else "throughput")
            all_outputs = [output for _, outputs in jobs for output in outputs]
            if options.resume:
                options = adopt_engine(options, all_outputs)
            _require_encoder(options, sources, all_outputs)
            pixels, reason = choose_pixels(options, sources)
            engine, file = open_run_engine(options, sources[0].info.size or DEFAULT_SIZE, mode, pixels)
            resources.callback(engine.close)
            _set_pixels(options, sources, all_outputs, engine.spec.pixels, reason)
            say(f"engine  {engine.spec.name}, {engine.spec.precision}, {engine.backend}")
            shared = SharedEngine(engine)
            pipelines = [
                _open_pipeline(options, source, outputs, shared.create_client(), file=file, not_started=not_started)
                for source, (_, outputs) in zip(sources, jobs, strict=True)
            ]
            for pipeline in pipelines:
                pipeline.listeners.append(progress)
            streams = [server.add(pipeline, engine) for pipeline in pipelines] if server else []
            not_started.pop_all()  # from here on a source is closed by its reader, and a sink by its pipeline

        def stop() -> None:
            for pipeline in pipelines:
                pipeline.stop()

        interruption.on_signal = stop
        codes = _run_all(pipelines, streams, progress, resumable=resumable, debug=options.debug)
        failed = next((code for code in codes if code), 0)
        if options.stats:
            with suppress(*[OutputError] if failed else []):  # the first error is the one to report
                write_statistics(options.stats, engine, pipelines)
    return failed


def _open_jobs(options: RunOptions) -> Iterator[tuple[str, list[str]]]:
    """Yield each source with its outputs, without those that `--resume` finds finished."""
    for source, outputs in pair_sources(options):
        if options.resume and is_finished(outputs):
            say(f"output  {', '.join(outputs)} is finished")
        else:
            yield source, outputs


def _open_status_server(options: RunOptions) -> StatusServer:
    assert options.serve
    access = open_access(options.serve_token, options.serve_cert, options.serve_key)
    server = StatusServer(options.serve, access)
    say(f"page    {server.login_url}")
    return server


def _run_all(
    pipelines: list[Pipeline], streams: list[Stream], progress: Progress, *, resumable: list[bool], debug: bool
) -> list[int]:
    """Run one pipeline in this thread, which owns the window, or several in a thread each; return their exit codes.

    `resumable` says for each pipeline whether `--resume` can continue what it leaves unfinished.
    """
    codes = [0] * len(pipelines)
    reporting = Lock()

    def run_one(index: int) -> None:
        error: Exception | None = None
        try:
            with streams[index].track_run() if streams else nullcontext():
                pipelines[index].run()
        except Exception as caught:  # noqa: BLE001 - the user gets one line, whatever it is
            error = caught
        with reporting:
            progress.close()
            print_report(pipelines[index], with_source=len(pipelines) > 1, is_resumable=resumable[index])
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


def _open_source(options: RunOptions, name: str, not_started: ExitStack) -> Source:
    try:
        outputs = [Path(output) for output in options.outputs]
        source = open_source(
            name,
            options.live,
            raw=options.raw,
            deinterlace=options.deinterlace,
            outputs=outputs,
            decoder=options.decoder,
            say=say,
        )
    except SourceLostError as error:
        if options.sources is not RunOptions.sources:
            raise
        raise SourceLostError(
            error.what, error.path, hint="camera 0 is the default source; give --source FILE for a file"
        ) from error
    not_started.callback(source.close)
    say(f"source  {source.info.name}")
    return source


def _require_encoder(options: RunOptions, sources: list[Source], outputs: list[str]) -> None:
    """Raise UsageError if this machine cannot encode the frames of a source as the options say."""
    encoded = [output for output in outputs if is_video_output(output)]
    for source in sources if encoded else ():
        width, height = source.info.size or DEFAULT_SIZE
        if all(map(is_url, encoded)):  # an odd last column or row is not published
            width, height = width - width % 2, height - height % 2
        require_encoder(options.encoder, source.info, (width * (1 + options.side_by_side), height))


def _set_pixels(
    options: RunOptions, sources: list[Source], outputs: list[str], pixels: PixelFormat, reason: str
) -> None:
    """Let the sources deliver the form of frames that the engine takes; `reason`: why that is BGR, if it is known."""
    for source in sources:
        if pixels == "yuv420" and isinstance(source, PlanesSource):
            source.deliver_planes()
        elif pixels == "bgr":
            keep_10_bits(source, outputs, options.pipe)
    say(f"pixels  {describe_pixels(pixels, reason or ENGINE_TAKES_BGR, sources)}")
    for warning in find_pale_viewers(options, outputs, sources):
        say(f"warning: {warning}")


def _open_pipeline(
    options: RunOptions,
    source: Source,
    outputs: list[str],
    engine: EngineClient,
    *,
    file: EngineFile,
    not_started: ExitStack,
) -> Pipeline:
    window = WindowSink() if options.show or not (outputs or options.serve) else None
    job = Job.create(source, engine, file, options)
    sink = _open_sinks(options, outputs, source, window, job=str(job), not_started=not_started)
    if options.resume:
        frames = resume(source, sink)
        say(f"resume  after {frames} frames")
    pipeline = Pipeline(source, engine, sink, options, turn=engine.turn)
    if window:
        window.on_quit = pipeline.stop
    return pipeline


def _open_sinks(
    options: RunOptions,
    outputs: list[str],
    source: Source,
    window: WindowSink | None,
    *,
    job: str,
    not_started: ExitStack,
) -> Sink:
    sinks: list[Sink] = [window] if window else []
    for output in outputs:
        sink = open_sink(
            output,
            source.info,
            job=job,
            segment_s=options.segment_s,
            pipe=options.pipe,
            encoder=options.encoder,
        )
        not_started.callback(sink.close, complete=False)
        sinks.append(sink)
    return sinks[0] if len(sinks) == 1 else Tee(sinks)  # an empty Tee where only the status page shows the frames
