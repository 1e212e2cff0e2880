#!/usr/bin/env bash
# Start training on one of several machines: the same command on each, with its own rank; rank 0 runs on MASTER.
#
#   train/node.sh RANK NODES MASTER:PORT --recipe two_stage --data GOPRO_Large --out SHARED/RUN
#
# PYTHON: python of the environment; PROCESSES: number on this machine (default: GPUs, or CPU cores without a GPU).
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
rank=$1 nodes=$2 master=$3
shift 3
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # without it, some restarts hang
exec "${PYTHON:-python3}" -m torch.distributed.run --nnodes "$nodes" --node-rank "$rank" \
    --master-addr "${master%:*}" --master-port "${master##*:}" --nproc-per-node "${PROCESSES:-auto}" \
    --max-restarts 3 -m train "$@"
