"""The VapourSynth script of the comparison; another Python runs it, which has VapourSynth but not this project.

Without arguments it prints the versions as JSON. With arguments it writes the restored clip to standard output as Y4M.
"""

import argparse
import json
import sys

import vapoursynth as vs

UNSPECIFIED = 2
"""Code of a matrix that the file does not state."""
HD_LINES = 720
"""Number of lines from which players take BT.709 for a file that states no matrix, and BT.601 below."""


def describe() -> dict[str, str]:
    """Return the version of VapourSynth and of each plug-in that is installed, with the library inside."""
    plugins = {plugin.namespace: plugin for plugin in vs.core.plugins()}
    facts = {"vapoursynth": str(vs.core.core_version.release_major)}
    if "bs" in plugins:
        facts["bestsource"] = str(plugins["bs"].version.major)
    libraries = (("ov", "OpenVINO", "openvino_version_build"), ("ort", "ONNX Runtime", "onnxruntime_version"))
    for name, library, key in libraries:
        if name in plugins:
            version = plugins[name].Version()
            facts[name] = f"{_text(version['version'])} ({library} {_text(version[key])})"
    return facts


def restore(options: argparse.Namespace) -> vs.VideoNode:
    """Return the clip, restored by a plug-in of vs-mlrt: decoded, converted to float RGB, and back to 4:2:0."""
    # Mode 4: the index is written at the first run and read at the others.
    clip = vs.core.bs.VideoSource(options.clip, cachemode=4, cachepath=options.index)
    properties = clip.get_frame(0).props
    matrix = int(properties.get("_Matrix", UNSPECIFIED))
    if matrix == UNSPECIFIED:
        matrix = int(vs.MATRIX_BT709 if clip.height >= HD_LINES else vs.MATRIX_ST170_M)
    rgb = vs.core.resize.Bicubic(clip, format=vs.RGBS, matrix_in=matrix)
    settings = json.loads(options.settings)
    arguments = {"num_streams": options.streams} if options.streams else {}
    if settings:
        arguments["config"] = lambda: settings
    restored = getattr(vs.core, options.plugin).Model(rgb, network_path=options.model, **arguments)
    colour_range = int(properties.get("_Range", vs.RANGE_LIMITED))
    return vs.core.resize.Bicubic(restored, format=vs.YUV420P8, matrix=matrix, range=colour_range)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def main() -> None:
    if not sys.argv[1:]:
        print(json.dumps(describe()))
        return
    parser = argparse.ArgumentParser()
    for name in ("--clip", "--index", "--model", "--plugin"):
        parser.add_argument(name, required=True)
    parser.add_argument("--streams", type=int, default=0)
    parser.add_argument("--settings", default="{}")
    restore(parser.parse_args()).output(sys.stdout.buffer, y4m=True)


if __name__ == "__main__":
    main()
