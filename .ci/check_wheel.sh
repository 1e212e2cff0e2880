#!/usr/bin/env bash
# Builds the wheel and tries it outside the repository, in a clean environment of each Python:
#   .ci/check_wheel.sh [--export PYTHON] [PYTHON ...]
# Each PYTHON restores the demo clip with the runtime alone. The one after --export also installs torch and exports
# the bundled checkpoint.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
# The checks must see the installed wheel, not the repository.
unset PYTHONPATH

export_python=
if [ "${1:-}" = --export ]; then
    export_python=$2
    [[ $export_python == */* ]] && export_python=$root/$export_python
    shift 2
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# From a source archive in a temporary folder: what an earlier build left in build/ must not get into the wheel.
.venv/bin/python -m build --outdir "$folder/dist" . >"$folder/build.log" 2>&1 || { cat "$folder/build.log" >&2; exit 1; }
wheel=$(ls "$folder"/dist/*.whl)
cd "$folder"

install() { # ENVIRONMENT REQUIREMENT ...
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$root/constraints.txt" "${@:2}"
}

try_runtime() { # PYTHON: restores the demo clip of the wheel, in an environment without torch.
    local environment=$folder/runtime
    "$1" -m venv --clear "$environment"
    install "$environment" "$wheel"
    "$environment/bin/python" -c "import runtime.video, sys; assert 'torch' not in sys.modules"
    "$environment/bin/python" -m pip list 2>/dev/null | (! grep --quiet --ignore-case '^torch ')
    local clip
    clip=$("$environment/bin/python" -c "from benchmarks.assets import DEMO_BLURRED; print(DEMO_BLURRED)")
    "$environment/bin/deblur" -y --source "$clip" --out restored.mp4
    local frames
    frames=$("$environment/bin/python" -c \
        "import av; print(sum(1 for _ in av.open('restored.mp4').decode(video=0)))")
    [ "$frames" -eq 100 ] || { echo "error: restored.mp4 has $frames frames instead of 100" >&2; exit 1; }
    for script in deblur deblur-batch deblur-web deblur-bench; do
        "$environment/bin/$script" --help >/dev/null
    done
    echo "$("$environment/bin/python" --version): the runtime alone needs no torch and restores 100 frames"
}

try_export() { # PYTHON: exports the checkpoint of the wheel, which needs the calibration frames of the wheel.
    local environment=$folder/export
    "$1" -m venv --clear "$environment"
    install "$environment" torch
    install "$environment" "deblur-toolkit[export] @ file://$wheel"
    "$environment/bin/deblur-train" --help >/dev/null
    local checkpoint
    checkpoint=$("$environment/bin/python" -c \
        "from pathlib import Path; import runtime.models as m; print(Path(m.__file__).with_name('edge-s'))")
    "$environment/bin/deblur-export" "$checkpoint" --out engines --precision fp32
    ls engines/*_fp32.onnx
    echo "$("$environment/bin/python" --version): the wheel exports its checkpoint with its own frames"
}

for python in "$@"; do
    try_runtime "$python"
done
[ -z "$export_python" ] || try_export "$export_python"
