# Any Debian or Ubuntu image with Python 3.11 or later and its venv module.
ARG BASE=docker.io/library/python:3.13.16-slim-bookworm@sha256:a1165e272e578941b84abc79e4ab38a0305cd12803a5c4247979ac7655f4d641

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# The build backend and what it needs; nothing of it is copied on. The two secrets let pip reach a
# mirror with a certificate authority of its own; without them pip's defaults apply.
COPY requirements/build.txt requirements/
RUN --mount=type=secret,id=pip-conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca-certificates,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --only-binary :all: -r requirements/build.txt

# With what exports traces. Of the package kubernetes only the asynchronous client is used; the other
# one is as large.
COPY requirements/otel.txt requirements/
RUN --mount=type=secret,id=pip-conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca-certificates,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m venv --without-pip /opt/openfero-gitops \
    && /opt/build/bin/pip --python /opt/openfero-gitops \
        install --no-compile --require-hashes --only-binary :all: -r requirements/otel.txt \
    && cd /opt/openfero-gitops/lib/python3.*/site-packages/kubernetes \
    && rm -r client config dynamic informer leaderelection stream utils watch

COPY pyproject.toml LICENSE NOTICE ./
COPY operarios-example operarios-example/
COPY openfero_gitops openfero_gitops/
# Bytecode that names no time and no random order is the same in every build. The root file system
# is read-only, so Python could not write any.
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/build/bin/pip --python /opt/openfero-gitops \
        install --no-compile --no-deps --no-index --find-links /wheels openfero-gitops \
    && PYTHONHASHSEED=0 /opt/openfero-gitops/bin/python -m compileall -q \
        --invalidation-mode unchecked-hash -x 'aio/client/(api|models)/' /opt/openfero-gitops/lib
# To recognize it among the images without a name that a build leaves.
LABEL org.opencontainers.image.title="openfero-gitops"


FROM ${BASE}

# tini reaps what a killed fetch leaves behind (ssh, git-remote-https): as process 1 the
# controller would inherit them and keep them as zombies. ssh refuses a user ID without a name,
# which libnss-wrapper gives to any. gpg and ssh-keygen check signatures. Nothing needs a
# set-user-ID program, nor pip or the wheels from which venv would install it. Logs and caches
# would make each build another image.
RUN apt-get update \
    && apt-get upgrade --yes --no-install-recommends \
    && apt-get install --yes --no-install-recommends \
        ca-certificates \
        git \
        gpg \
        libnss-wrapper \
        openssh-client \
        tini \
    && if python3 -m pip --version 2>/dev/null; then \
        python3 -m pip uninstall --yes --root-user-action ignore pip; fi \
    && find / -xdev -name 'pip-*.whl' -delete \
    && echo 'openfero:x:65532:' >> /etc/group \
    && echo 'openfero:x:65532:65532::/nonexistent:/usr/sbin/nologin' >> /etc/passwd \
    && install --directory --owner 65532 --group 0 --mode 0770 /var/cache/openfero-gitops \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && rm -rf /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/cache/debconf/*-old \
        /var/cache/ldconfig/aux-cache /var/lib/apt/lists/* /var/lib/dpkg/*-old /var/log/*.log \
        /var/log/apt/*

COPY --from=build /opt/openfero-gitops /opt/openfero-gitops

ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="openfero-gitops" \
      org.opencontainers.image.description="Alertmanager alerts run reviewed Kubernetes Jobs, once, with their commit on them." \
      org.opencontainers.image.source="https://github.com/OpenFero/openfero-gitops" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# The two MALLOC variables make glibc return freed memory to the system; without them each thread
# keeps a hole of the size of the largest file that it has read. /api/about shows the two IMAGE_
# variables.
ENV PATH=/opt/openfero-gitops/bin:$PATH \
    IMAGE_REVISION=${REVISION} \
    IMAGE_CREATED=${CREATED} \
    MALLOC_ARENA_MAX=2 \
    MALLOC_MMAP_THRESHOLD_=131072 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["tini", "--", "openfero-gitops"]
CMD ["serve"]
