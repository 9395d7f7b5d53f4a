# Triton with Trident's backends, on NVIDIA's image, for hosts with GPUs and without. The frontend has its own image.
# TRITON_VERSION must be 24.11 or later, which has Python 3.12. The tests build this file on a base made from Debian's
# packages and Triton's wheel, which has no GPU backends.
ARG TRITON_VERSION=26.08
ARG BASE=nvcr.io/nvidia/tritonserver:${TRITON_VERSION}-py3

FROM ${BASE} AS build
# hadolint ignore=DL3002
USER 0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/trident
COPY requirements/pip.lock requirements/serve.lock requirements/kokoro.lock requirements/sbom.lock requirements/
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv .venv \
    && .venv/bin/pip install --quiet --require-hashes -r requirements/pip.lock \
    && .venv/bin/pip install --quiet --require-hashes -r requirements/serve.lock \
    && .venv/bin/pip install --quiet --require-hashes -r requirements/kokoro.lock \
    && find .venv -type d -name tests -prune -exec rm -r {} + \
    && find .venv -name '*.so*' ! -path '*.libs/*' -exec strip --strip-unneeded {} + \
    && rm -r .venv/lib/python3*/site-packages/onnx/backend/test .venv/lib/python3*/site-packages/hf_xet* \
    && rm .venv/lib/python3*/site-packages/openvino/libs/libopenvino_intel_[gn]pu_plugin.so \
        .venv/lib/python3*/site-packages/openvino/libs/cache.json \
    && rm -r .venv/bin/pip* .venv/lib/python3*/site-packages/pip .venv/lib/python3*/site-packages/pip-* \
    && python3 -m venv /sbom \
    && /sbom/bin/pip install --quiet --require-hashes -r requirements/sbom.lock \
    && /sbom/bin/cyclonedx-py environment .venv/bin/python --gather-license-texts --of JSON -o sbom.cdx.json
COPY contract contract
COPY backends backends
# The image has Triton's own onnxruntime backend.
RUN rm -r backends/onnxruntime && .venv/bin/python -m compileall -q -j 0 contract backends

FROM ${BASE}
USER 0
RUN useradd --uid 10001 --no-create-home trident \
    && install -d -o 10001 -g 10001 /models /engines
COPY --from=build /opt/trident/.venv /opt/trident/.venv
COPY --from=build /opt/trident/sbom.cdx.json /opt/trident/
COPY LICENSE NOTICE /opt/trident/
COPY --chmod=755 docker/start-triton /opt/trident/bin/
COPY --from=build /opt/trident/contract /opt/tritonserver/contract
COPY --from=build /opt/trident/backends /opt/tritonserver/backends
# Triton's Python backend finds installed packages through the first python on PATH, and imports `contract` and
# `backends` from the working directory.
ENV PATH=/opt/trident/.venv/bin:/opt/trident/bin:/opt/tritonserver/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    TRIDENT_MODEL_REPOSITORY=/models/repository
USER 10001
WORKDIR /opt/tritonserver
# onnxruntime keeps the engines of TensorRT in /engines.
VOLUME ["/models", "/engines"]
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=10s --start-period=15m \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=9)"]
# Arguments are added to those of tritonserver: `start-triton --log-verbose=1`. The base's entry point stays.
CMD ["start-triton"]
