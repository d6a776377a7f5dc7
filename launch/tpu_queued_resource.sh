#!/usr/bin/env bash
# Trains on a Cloud TPU (spot), from asking for it to the last step. Run it where gcloud is logged in:
#
#   NAME=interlcm ZONE=us-west4-a RUN=gs://BUCKET/runs/interlcm_3step DATA=gs://BUCKET/ffhq launch/tpu_queued_resource.sh
#
# It asks for the TPU, waits, and asks again whenever the TPU is preempted; each time the training goes on from its last
# checkpoint. It ends when the training is done, and gives the TPU back. TYPE has the chips: v5litepod-16 is a v5e 4x4.
# SLICES=2 trains on two of them.
set -euo pipefail

: "${NAME:?}" "${ZONE:?}" "${RUN:?a bucket folder}" "${DATA:?what interlcm dataset wrote}"
TYPE=${TYPE:-v5litepod-16}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}
SLICES=${SLICES:-1}
REPOSITORY=${REPOSITORY:-https://github.com/interlcm-jax/interlcm-jax}
CONFIG=${CONFIG:-configs/interlcm_3step.py}
OPTIONS=${OPTIONS:-}
HERE=$(dirname "$0")

state() {
  gcloud compute tpus queued-resources list --zone "$ZONE" --filter "name ~ /$NAME\$" --format 'value(state.state)' ||
    echo unknown
}

delete() {
  gcloud compute tpus queued-resources delete "$NAME" --zone "$ZONE" --force --quiet
}

create() {
  local nodes=(--node-id "$NAME")
  if ((SLICES > 1)); then
    nodes=(--node-count "$SLICES" --node-prefix "$NAME")
  fi
  gcloud compute tpus queued-resources create "$NAME" --zone "$ZONE" "${nodes[@]}" \
    --accelerator-type "$TYPE" --runtime-version "$RUNTIME" --spot \
    --metadata "^|^interlcm-repository=$REPOSITORY|interlcm-run=$RUN|interlcm-data=$DATA|interlcm-config=$CONFIG|interlcm-options=$OPTIONS --mesh.slices $SLICES" \
    --metadata-from-file "startup-script=$HERE/tpu_startup.sh"
}

until gcloud storage ls "$RUN/ended" >/dev/null 2>&1; do
  case "$(state)" in
    "") create ;;
    SUSPENDED | FAILED) # Preempted.
      delete
      sleep 60
      ;;
    *) sleep 60 ;;
  esac
done
echo "exit code of the training: $(gcloud storage cat "$RUN/ended")"
gcloud storage rm "$RUN/ended"
delete
