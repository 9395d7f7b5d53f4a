# Everything that `make serve` installs, in one image: Triton, the frontend and the export, for CPUs.
# Models and data are in volumes, and nothing else is written except in /tmp: the root file system may be read-only.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY Makefile README.md pyproject.toml hatch_build.py ./
COPY requirements requirements
# Kokoro is one of the starter models. Its dictionaries would otherwise be installed at its first export.
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/root/.cache/pip make .venv/kokoro.stamp PYTHON=python3 \
    && find .venv -type d -name tests -prune -exec rm -r {} + \
    && find .venv -name '*.so*' ! -path '*.libs/*' -exec strip --strip-unneeded {} + \
    && rm -r .venv/lib/python3*/site-packages/onnx/backend/test .venv/lib/python3*/site-packages/hf_xet* \
    && rm .venv/lib/python3*/site-packages/openvino/libs/libopenvino_intel_[gn]pu_plugin.so \
        .venv/lib/python3*/site-packages/openvino/libs/cache.json \
    && touch .venv/*.stamp \
    && python3 -m venv /sbom \
    && /sbom/bin/pip install --quiet --require-hashes -r requirements/sbom.lock \
    && /sbom/bin/cyclonedx-py environment .venv/bin/python --gather-license-texts --of JSON -o sbom.cdx.json
COPY . .
RUN .venv/bin/python -m compileall -q -j 0 contract frontend export trident

FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libpython3.11 make python3 tini \
    && apt-get clean && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --home-dir /models trident \
    && install -d -o 10001 -g 10001 /data
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    TRIDENT_CACHE=/models/cache \
    TRIDENT_MODEL_REPOSITORY=/models/repository \
    TRIDENT_DATA=/data \
    HF_HOME=/models/huggingface
USER 10001
WORKDIR /models
VOLUME ["/models", "/data"]
EXPOSE 10100
# The first start downloads the models.
HEALTHCHECK --interval=10s --timeout=10s --start-period=15m CMD ["trident", "status"]
ENTRYPOINT ["tini", "--", "trident"]
CMD ["serve", "--host", "0.0.0.0"]
