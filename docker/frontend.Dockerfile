# Only the frontend, for Tritons that run elsewhere: `serve --triton HOST:PORT`, or instances in a settings file.
# It has no compiler and no pip. The root file system may be read-only; /tmp and the volume are written.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements/pip.lock requirements/build.lock requirements/frontend.lock requirements/swagger.lock \
    requirements/sbom.lock requirements/
COPY README.md pyproject.toml hatch_build.py ./
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv .venv \
    && .venv/bin/pip install --quiet --require-hashes -r requirements/pip.lock \
    && .venv/bin/pip install --quiet --require-hashes -r requirements/frontend.lock \
    && .venv/bin/pip install --quiet --require-hashes --no-deps -r requirements/swagger.lock \
    && .venv/bin/pip install --quiet --require-hashes --no-deps --target /build -r requirements/build.lock \
    && PYTHONPATH=/build .venv/bin/pip install --quiet --no-deps --no-build-isolation --editable . \
    && find .venv -type d -name tests -prune -exec rm -r {} + \
    && find .venv -name '*.so*' ! -path '*.libs/*' -exec strip --strip-unneeded {} + \
    && rm -r .venv/lib/python3*/site-packages/hf_xet* \
    && rm -r .venv/bin/pip* .venv/lib/python3*/site-packages/pip .venv/lib/python3*/site-packages/pip-* \
    && rm -rf .venv/lib/python3*/site-packages/setuptools* \
        .venv/lib/python3*/site-packages/_distutils_hack .venv/lib/python3*/site-packages/distutils-precedence.pth \
    && python3 -m venv /sbom \
    && /sbom/bin/pip install --quiet --require-hashes -r requirements/sbom.lock \
    && /sbom/bin/cyclonedx-py environment .venv/bin/python --gather-license-texts --of JSON -o sbom.cdx.json
COPY LICENSE NOTICE ./
COPY contract contract
COPY frontend frontend
COPY trident trident
COPY export export
RUN .venv/bin/python -m compileall -q -j 0 contract frontend export trident

FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 tini \
    && apt-get clean && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home trident \
    && install -d -o 10001 -g 10001 /data
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    TRIDENT_CACHE=/tmp/trident \
    TRIDENT_DATA=/data
USER 10001
VOLUME ["/data"]
EXPOSE 10100
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s CMD ["trident", "status"]
ENTRYPOINT ["tini", "--", "trident"]
CMD ["serve", "--host", "0.0.0.0"]
