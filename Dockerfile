# Doubtless: one image for the web process and the workers.
#
#   docker build -t doubtless .
#   docker build -t doubtless --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu .
#   docker build -t doubtless --target slim .      # without torch: cannot train boxes
#
# torch exports the pretrained networks to ONNX, in a stage of its own, and trains boxes. Everything
# else runs without it.

ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS backbones
# An index with CPU builds of torch; without one, `run` asks uv, which knows where they are.
ARG TORCH_INDEX_URL=""
WORKDIR /src
COPY run pyproject.toml requirements.lock ./
COPY backend/__init__.py backend/__init__.py
COPY backend/edges/__init__.py backend/edges/environments.py backend/edges/
RUN if [ -n "$TORCH_INDEX_URL" ]; then export PIP_EXTRA_INDEX_URL="$TORCH_INDEX_URL"; fi \
    && PIP_NO_CACHE_DIR=1 python3 run setup
COPY model model
COPY scripts/export_backbones.py scripts/export_backbones.py
RUN PYTHONPATH=/src .venv/bin/python scripts/export_backbones.py /opt/doubtless/cache

FROM ${BASE_IMAGE} AS slim
ENV PATH=/opt/doubtless/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    DOUBTLESS_HOME=/data \
    DOUBTLESS_CACHE=/opt/doubtless/cache \
    DOUBTLESS_HOST=0.0.0.0 \
    DOUBTLESS_PORT=9090
WORKDIR /src
COPY requirements-image.lock ./
RUN python3 -m venv /opt/doubtless/venv \
    && pip install --no-cache-dir --no-deps -r requirements-image.lock
COPY --from=backbones /opt/doubtless/cache /opt/doubtless/cache
COPY pyproject.toml README.md ./
COPY model model
COPY backend backend
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && python3 -m compileall -q /opt/doubtless/venv/lib \
    && rm -rf /src/* \
    && mkdir /data \
    && chown 10001:10001 /data

USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['DOUBTLESS_PORT'] + '/health', timeout=4)"]
CMD ["doubtless", "serve"]

FROM slim AS full
ARG TORCH_INDEX_URL=""
USER 0:0
COPY requirements-train.lock /src/
# As `run` installs it: a CPU build, or none.
RUN if [ -n "$TORCH_INDEX_URL" ]; then export PIP_EXTRA_INDEX_URL="$TORCH_INDEX_URL"; fi \
    && PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 python3 -c "import sys; from pathlib import Path; \
from backend.edges.environments import install_torch; \
install_torch(Path(sys.prefix), sys.argv[1], say=print)" \
        "$(sed -n 's/^torch==//p' /src/requirements-train.lock)" \
    && pip install --no-cache-dir --no-deps -r /src/requirements-train.lock \
    && rm -f /src/requirements-train.lock /opt/doubtless/venv/install.log
USER 10001:10001
