# syntax=docker/dockerfile:1
# The base is pinned by digest at build time: --build-arg BASE=docker.io/library/python:3.12-slim@sha256:...
ARG BASE=docker.io/library/python:3.12-slim

FROM ${BASE} AS build
WORKDIR /src
COPY requirements/runtime.txt requirements/build.txt requirements/
RUN python -m venv /build && /build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt \
 && python -m venv /app && /app/bin/pip install --no-cache-dir --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY rebalancer rebalancer
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
 && /app/bin/pip install --no-cache-dir --no-deps /dist/*.whl \
 && /app/bin/python -m compileall -q /app/lib \
 && /app/bin/pip uninstall --yes pip

FROM ${BASE}
COPY --from=build /app /app
# The user is in no passwd file, and may be any number in the cluster: its home has to be said.
ENV HOME=/ PATH=/app/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["rebalancer"]
CMD ["run"]
