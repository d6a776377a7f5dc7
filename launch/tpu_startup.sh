#!/usr/bin/env bash
# What each host of a Cloud TPU runs when it boots, for launch/tpu_queued_resource.sh: install, train, and train on as
# long as the exit code says "start me again" (75). Its output: sudo journalctl -u google-startup-scripts
set -euo pipefail

metadata() {
  curl --silent --fail --header 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1" || true
}

export HOME=${HOME:-/root}
cd "$HOME"
if [[ ! -x interlcm_jax/.venv/bin/python ]]; then
  rm -rf interlcm_jax
  git clone --depth 1 "$(metadata interlcm-repository)" interlcm_jax
  # The image's own Python is too old.
  python3 -m pip install --quiet uv
  (cd interlcm_jax && python3 -m uv venv --quiet --python 3.12 && python3 -m uv pip install --quiet -e '.[train,tpu,bucket]')
fi
cd interlcm_jax

run=$(metadata interlcm-run)
read -ra options <<<"$(metadata interlcm-options)"
code=75
while ((code == 75)); do
  code=0
  .venv/bin/python train.py "$(metadata interlcm-config)" --distributed \
    --data.path "$(metadata interlcm-data)" --run.folder "$run" --run.exit-code-on-preemption 75 \
    "${options[@]}" || code=$?
done
echo "$code" | gcloud storage cp - "$run/ended"
