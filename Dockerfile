# The images of kubeactor: Python, the locked packages and kubeactor, no compiler.
#   docker build --target host -t kubeactor/host:0.1.0 .
#   docker build --target operator -t kubeactor/operator:0.1.0 .
# A user's image is FROM kubeactor/host with their code in /app: examples/01-bank/Dockerfile.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS host-packages
# pip's own settings, for a mirror: --build-arg PIP_INDEX_URL=...; or for wheels put into requirements/wheels:
# --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/requirements/wheels
ARG PIP_INDEX_URL PIP_NO_INDEX PIP_FIND_LINKS
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv --without-pip /opt/kubeactor
RUN --mount=type=bind,source=requirements,target=/requirements \
    python3 -m pip --python /opt/kubeactor install --require-hashes --only-binary :all: -r /requirements/host.txt

FROM host-packages AS operator-packages
RUN --mount=type=bind,source=requirements,target=/requirements \
    python3 -m pip --python /opt/kubeactor install --require-hashes --only-binary :all: -r /requirements/operator.txt

FROM host-packages AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY host host
COPY operator operator
RUN python3 -m pip --python /opt/kubeactor wheel --no-deps --no-build-isolation --wheel-dir /wheel .

# The locks have what builds the wheel too: it does not go into an image.
FROM host-packages AS host-root
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    python3 -m pip --python /opt/kubeactor install --no-deps /wheel/*.whl && \
    python3 -m pip --python /opt/kubeactor uninstall --yes hatchling pathspec pluggy trove-classifiers

FROM operator-packages AS operator-root
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    python3 -m pip --python /opt/kubeactor install --no-deps /wheel/*.whl && \
    python3 -m pip --python /opt/kubeactor uninstall --yes hatchling pathspec pluggy trove-classifiers

FROM ${PYTHON} AS python
ENV PATH=/opt/kubeactor/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532

FROM python AS operator
COPY --from=operator-root /opt/kubeactor /opt/kubeactor
WORKDIR /
ENTRYPOINT ["kubeactor-operator"]

FROM python AS host
COPY --from=host-root /opt/kubeactor /opt/kubeactor
ENV PYTHONPATH=/app
WORKDIR /app
ENTRYPOINT ["kubeactor"]
