# What computes, in two targets:
#   docker build -f docker/worker.Dockerfile --target cpu  -t dream-worker .
#   docker build -f docker/worker.Dockerfile --target cuda -t dream-worker:latest-cuda .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
# What packages are installed with, where it is not the same: one that knows a company's certificates, for instance.
ARG BUILD_IMAGE=${PYTHON_IMAGE}

FROM ${BUILD_IMAGE} AS build
# Another package index. Its address, with a password perhaps, stays in this stage, of which no layer is shipped.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
# Other versions than those of constraints.txt, as "torch==2.14.0 torchvision==0.29.0".
ARG TORCH_PINS=
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
# Under empty packages: requirements are installed again only when they change.
# hadolint ignore=SC2086
RUN mkdir api client dream_core jobs worker \
 && python3 -m venv --without-pip /opt/requirements \
 && if [ -n "${TORCH_PINS}" ]; then \
      sed -i '/^torch\(vision\)\?==/d' constraints.txt && printf '%s\n' ${TORCH_PINS} >> constraints.txt; \
    fi

# torch as PyPI has it brings 5 GB of CUDA; without, it has an index of its own. Empty: where pip looks anyway.
FROM build AS requirements-cpu
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/requirements/bin/python install --constraint constraints.txt \
      ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"} torch torchvision \
 && python3 -m pip --python /opt/requirements/bin/python install --constraint constraints.txt '.[worker,postgres,s3]' \
 && python3 -m pip --python /opt/requirements/bin/python uninstall --yes dream-distillation

FROM build AS requirements-cuda
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/requirements/bin/python install --constraint constraints.txt '.[gpu,postgres,s3]' \
 && python3 -m pip --python /opt/requirements/bin/python uninstall --yes dream-distillation

FROM build AS project
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/requirements/bin/python install --no-deps --target /opt/dream .

# The compiler is for torch.compile and Triton; Python's headers, which they want, come with its official images.
FROM ${PYTHON_IMAGE} AS runtime
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 dream \
 && useradd --uid 10001 --gid dream --home-dir /var/lib/dream --no-create-home --shell /usr/sbin/nologin dream \
 && install --directory --owner dream --group dream /var/lib/dream /data
# What is compiled at run time is kept in the volume: nothing in /tmp may be executed, and it is lost.
ENV PATH=/opt/dream/bin:/opt/requirements/bin:$PATH \
    PYTHONPATH=/opt/dream \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    DREAM_HOME=/var/lib/dream \
    DREAM_DATA_DIR=/data \
    DREAM_BEAT_FILE=/tmp/worker.beat \
    TORCHINDUCTOR_CACHE_DIR=/var/lib/dream/cache/inductor \
    TRITON_CACHE_DIR=/var/lib/dream/cache/triton \
    CUPY_CACHE_DIR=/var/lib/dream/cache/cupy
WORKDIR /var/lib/dream
USER 10001:10001
# Starts no Python. A worker that hears the broker touches the file every two seconds, however busy it is.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=6 \
  CMD ["bash", "-c", "[ $(( $(date +%s) - $(stat -c %Y \"$DREAM_BEAT_FILE\") )) -lt 90 ]"]
CMD ["celery", "-A", "worker.app", "worker", "--pool", "threads", "-c", "1", "--without-mingle", "--without-gossip", "--loglevel", "INFO", "-n", "worker@%h"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="dream-worker" \
      org.opencontainers.image.description="Dataset distillation as a service: the worker" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM runtime AS cuda
ENV DREAM_DEVICE=cuda
COPY --from=requirements-cuda /opt/requirements /opt/requirements
COPY --from=project /opt/dream /opt/dream

# The last target is the one that is built where none is named.
FROM runtime AS cpu
ENV DREAM_DEVICE=cpu
COPY --from=requirements-cpu /opt/requirements /opt/requirements
COPY --from=project /opt/dream /opt/dream
