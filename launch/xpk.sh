#!/usr/bin/env bash
# Trains on TPUs of a GKE cluster by xpk, which writes a JobSet and submits it:
#
#   CLUSTER=NAME ZONE=us-west4-a IMAGE=REGISTRY/interlcm_jax RUN=gs://BUCKET/runs/interlcm_3step DATA=gs://BUCKET/ffhq launch/xpk.sh
#
# Before: pip install xpk; the cluster (xpk cluster create --cluster NAME --zone us-west4-a --tpu-type v5litepod-16
# --num-slices 1 --spot); the image (Dockerfile, target train). Watch: xpk workload list --cluster NAME.
set -euo pipefail

: "${CLUSTER:?}" "${ZONE:?}" "${IMAGE:?}" "${RUN:?a bucket folder}" "${DATA:?what interlcm dataset wrote}"
SLICES=${SLICES:-1}

xpk workload create --cluster "$CLUSTER" --zone "$ZONE" --workload "${NAME:-interlcm}" \
  --tpu-type "${TYPE:-v5litepod-16}" --num-slices "$SLICES" --docker-image "$IMAGE" \
  --max-restarts 100 --restart-on-exit-codes 75 \
  --command "python train.py ${CONFIG:-configs/interlcm_3step.py} --distributed --mesh.slices $SLICES \
--data.path $DATA --run.folder $RUN --run.exit-code-on-preemption 75 ${OPTIONS:-}"
