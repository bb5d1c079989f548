# The HTTP API, which also brings the database up to date. No torch, no compiler.
#   docker build -f docker/api.Dockerfile -t dream-api .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
# What packages are installed with, where it is not the same: one that knows a company's certificates, for instance.
ARG BUILD_IMAGE=${PYTHON_IMAGE}

FROM ${BUILD_IMAGE} AS requirements
# Another package index. Its address, with a password perhaps, stays in this stage, of which no layer is shipped.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
# Under empty packages: what follows is done again only when the requirements change.
RUN --mount=type=cache,target=/root/.cache/pip \
    mkdir api client dream_core jobs worker \
 && python3 -m venv --without-pip /opt/requirements \
 && python3 -m pip --python /opt/requirements/bin/python install --constraint constraints.txt '.[api,postgres,s3]' \
 && python3 -m pip --python /opt/requirements/bin/python uninstall --yes dream-distillation

FROM requirements AS project
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/requirements/bin/python install --no-deps --target /opt/dream .

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 dream \
 && useradd --uid 10001 --gid dream --home-dir /var/lib/dream --no-create-home --shell /usr/sbin/nologin dream \
 && install --directory --owner dream --group dream /var/lib/dream /data
ENV PATH=/opt/dream/bin:/opt/requirements/bin:$PATH \
    PYTHONPATH=/opt/dream \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    DREAM_HOME=/var/lib/dream \
    DREAM_DATA_DIR=/data
WORKDIR /var/lib/dream
USER 10001:10001
EXPOSE 8000
# Starts no Python. /livez asks neither the database nor the broker: that they are away is no fault of this container.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=6 \
  CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /livez HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ code _ <&3 && [ \"$code\" = 200 ]"]
CMD ["python", "-m", "api", "--host", "0.0.0.0", "--port", "8000"]
COPY --from=requirements /opt/requirements /opt/requirements
COPY --from=project /opt/dream /opt/dream
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="dream-api" \
      org.opencontainers.image.description="Dataset distillation as a service: the HTTP API" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
