# Images with the interlcm command; from the repository's root:
#   docker build --target cpu -t interlcm .          # for NVIDIA GPUs: --target cuda, and run with --gpus all
#   docker run --rm -v interlcm:/cache -v "$PWD":/photos --user "$(id -u)" interlcm restore . -o restored
#   docker run --rm -v interlcm:/cache -p 127.0.0.1:7860:7860 interlcm demo --host 0.0.0.0
# The image of launch/jobset.yaml and launch/xpk.sh; EXTRAS: train,tpu,bucket on TPUs, train,cuda,bucket on GPUs:
#   docker build --target train --build-arg EXTRAS=train,tpu,bucket -t REGISTRY/interlcm_jax .

FROM python:3.12-slim AS train
ARG EXTRAS=train,tpu,bucket
WORKDIR /interlcm_jax
COPY . .
RUN pip install --no-cache-dir -e ".[${EXTRAS}]"

FROM python:3.12-slim AS wheel
WORKDIR /interlcm_jax
COPY pyproject.toml README.md LICENSE MANIFEST.in ./
COPY interlcm_jax interlcm_jax
RUN pip install --no-cache-dir build && python -m build --wheel

FROM python:3.12-slim AS cpu
COPY --from=wheel /interlcm_jax/dist /dist
RUN pip install --no-cache-dir "$(echo /dist/*.whl)[demo,video]"
# Models, downloads and compiled programs, for whoever runs the image (docker run --user).
RUN useradd --create-home interlcm && mkdir /cache /photos && chown interlcm /cache /photos && chmod 1777 /cache
ENV INTERLCM_CACHE=/cache INTERLCM_MODELS=/cache/models HF_HOME=/cache/huggingface
VOLUME /cache
WORKDIR /photos
USER interlcm
EXPOSE 7860
# Python as process 1 hears Ctrl-C and docker stop only where it handles them, as interlcm does.
ENTRYPOINT ["interlcm"]
CMD ["--help"]

FROM cpu AS cuda
USER root
RUN pip install --no-cache-dir "$(echo /dist/*.whl)[demo,video,cuda]"
USER interlcm

# Where no target is named.
FROM cpu
