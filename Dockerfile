# The images of kubeactor: Python, the locked packages and kubeactor, no compiler.
#   docker build --target host -t kubeactor/host:0.1.0 .
#   docker build --target operator -t kubeactor/operator:0.1.0 .
# A user's image is FROM kubeactor/host with their code in /app: examples/01-bank/Dockerfile.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
# pip's own settings, for a mirror: --build-arg PIP_INDEX_URL=...; or for wheels put into requirements/wheels:
# --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/requirements/wheels
ARG PIP_INDEX_URL PIP_NO_INDEX PIP_FIND_LINKS
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_PYTHON=/opt/kubeactor
RUN python3 -m venv --without-pip /opt/kubeactor
RUN --mount=type=bind,source=requirements,target=/requirements \
    python3 -m pip install --require-hashes --only-binary :all: -r /requirements/host.txt

FROM build AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY host host
COPY operator operator
RUN python3 -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheel .

# The locks have what builds the wheel too: it does not go into an image.
FROM build AS packages
RUN python3 -m pip uninstall --yes hatchling pathspec pluggy trove-classifiers

# What comes on top of the packages, each apart, so that images share the large layer.
FROM packages AS kubeactor
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    python3 -m pip install --no-deps --prefix /added /wheel/*.whl

FROM build AS kopf
RUN --mount=type=bind,source=requirements,target=/requirements \
    python3 -m pip install --require-hashes --only-binary :all: --prefix /added -r /requirements/operator.txt

FROM ${PYTHON} AS base
ENV PATH=/opt/kubeactor/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=packages /opt/kubeactor /opt/kubeactor
# The base comes without the bytecode of the standard library, and a pod, whose root is read-only, would compile it at
# each start: half of the time in which a host starts.
RUN python3 -m compileall -q -x '/(tests?|lib2to3|idlelib)/' "$(python3 -c 'import os; print(os.path.dirname(os.__file__))')"
USER 65532:65532

FROM base AS operator
COPY --from=kopf /added /opt/kubeactor
COPY --from=kubeactor /added /opt/kubeactor
ENTRYPOINT ["kubeactor-operator"]

FROM base AS host
COPY --from=kubeactor /added /opt/kubeactor
ENV PYTHONPATH=/app
WORKDIR /app
ENTRYPOINT ["kubeactor"]
