# The image of `authz serve`. In production name the base by digest, so that a build is repeatable:
#   docker build --build-arg BASE=docker.io/library/python:3.11-slim-bookworm@sha256:... .
# With --build-arg REQUIREMENTS=key-vault it also has the Azure SDK, which credential `key_vault` needs; with
# REQUIREMENTS=development the emulator and the demo's programs, for kubernetes/kind and never for production.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_COMPILE=1
# The environment has no pip of its own; the base image's fills it from outside.
RUN python3 -m venv --without-pip /opt/authz
ARG REQUIREMENTS=runtime
COPY requirements/runtime.txt requirements/key-vault.txt requirements/development.txt requirements/
RUN python3 -m pip --python /opt/authz/bin/python install \
      --require-hashes --only-binary :all: --requirement "requirements/${REQUIREMENTS}.txt"
COPY requirements/build.txt requirements/
RUN python3 -m venv /opt/build \
 && /opt/build/bin/python -m pip install --require-hashes --requirement requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY authz authz
COPY authz_dev authz_dev
# What is for development is a wheel of its own, and in no other image.
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && if [ "${REQUIREMENTS}" = development ]; then \
      /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist ./authz_dev; \
    fi \
 && python3 -m pip --python /opt/authz/bin/python install --no-deps dist/*.whl
# The root file system is read-only when it runs, so the bytecode has to be there and need not be checked.
RUN /opt/authz/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/authz/lib

FROM ${BASE}
LABEL org.opencontainers.image.title="entra-authz" \
      org.opencontainers.image.description="Envoy external authorization for Microsoft Entra Agent ID" \
      org.opencontainers.image.licenses="Apache-2.0"
# The group has a name because `listen.socket_group` gives the socket to it.
RUN groupadd --gid 65532 authz \
 && useradd --uid 65532 --gid authz --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin authz \
 && install --directory --owner authz --group authz --mode 0750 /run/authz
COPY --from=build /opt/authz /opt/authz
ENV PATH=/opt/authz/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# By number: Kubernetes can check `runAsNonRoot` of no other.
USER 65532:65532
EXPOSE 9902
ENTRYPOINT ["authz"]
CMD ["serve"]
