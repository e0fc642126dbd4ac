# The one image: of a training, of Katib's trials, of every step of a pipeline.
#   docker build -t isotrain:0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" \
#     --build-arg CREATED="$(date -u +%Y-%m-%dT%H:%M:%SZ)" --build-arg VERSION=0.1.0 .
#   docker run --rm --network none isotrain:0.1.0 python image/prove.py
# Packages from an index of your own: --secret id=pip,src=FILE, a pip.conf that no layer keeps. More: docs/image.md

# The tag is for people, the digest is what is built on. A newer one: docker buildx imagetools inspect python:3.12-slim-bookworm
ARG BASE=docker.io/library/python:3.12-slim-bookworm@sha256:34386ef0cb081344d7ec1c103ba398e6e9f64e9ab3a1509accc92a4e24a07258
# cpu: an image for clusters without GPUs, 2 GiB smaller.
ARG ACCELERATOR=cuda

# 1. The packages: made again only when the lock changes, and nothing of how they were made is kept.
FROM ${BASE} AS packages
WORKDIR /build
COPY requirements-image.lock ./
# antlr4 comes as sources. What builds it is of the lock too, and so is there first.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    set -eu; \
    python3 -m venv /opt/venv; \
    sed -n '/^setuptools==/,/[^\\]$/p' requirements-image.lock > setuptools.lock; \
    for lock in setuptools.lock requirements-image.lock; do \
      /opt/venv/bin/pip install --disable-pip-version-check --no-cache-dir --no-build-isolation --no-deps \
        --require-hashes -r "$lock"; \
    done
ARG ACCELERATOR
COPY image/remove_gpu_libraries.py ./
RUN if [ "$ACCELERATOR" = cpu ]; then /opt/venv/bin/python remove_gpu_libraries.py; fi

# 2. What runs, with or without GPUs.
FROM ${BASE} AS cuda
FROM ${BASE} AS cpu
ENV CUDA_VISIBLE_DEVICES=""
FROM ${ACCELERATOR}
# Katib's and the pipelines' pods run as 1000. The folders are volumes' places, and anybody's, as /tmp is: with
# --user, too, and without volumes.
RUN set -eu; \
    groupadd --gid 1000 isotrain; \
    useradd --uid 1000 --gid 1000 --create-home --shell /usr/sbin/nologin isotrain; \
    install -d -m 1777 /runs /cache /mlflow /opt/isotrain
COPY --from=packages /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/isotrain/src \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8 \
    ISOTRAIN_CACHE=/cache \
    HF_HOME=/cache/huggingface \
    GIT_PYTHON_REFRESH=quiet
WORKDIR /opt/isotrain
# Under the name that run.json takes the lock's hash from.
COPY requirements-image.lock requirements.lock
COPY pyproject.toml README.md LICENSE train.py ./
COPY conf conf
COPY contracts contracts
COPY katib katib
COPY image/prove.py image/prove.py
COPY src src
# Readable whatever the umask of the checkout was. Runs that name no folder go to the volume.
RUN set -eu; \
    chmod -R a+rX,go-w conf contracts katib image src pyproject.toml README.md LICENSE train.py requirements.lock; \
    python -m compileall -q --invalidation-mode unchecked-hash src train.py; \
    ln -s /runs outputs

# Last, so that a new commit makes no layer again.
ARG BASE
ARG REVISION=""
ARG CREATED=""
ARG VERSION=""
ENV ISOTRAIN_REVISION=${REVISION}
LABEL org.opencontainers.image.title="isotrain" \
      org.opencontainers.image.description="One Lightning trainer: a training, a Katib trial and a pipeline step" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.version="${VERSION}"
USER 1000:1000
CMD ["python", "train.py", "--help"]
