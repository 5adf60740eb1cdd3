# The service in one container, with its files in /data:
#
#   docker build -t rankward .
#   docker run --init -p 8080:8080 -v rankward:/data rankward

FROM python:3.12-slim AS build
# EXTRAS: optional parts of the package. These are for nodes of a cluster, and for mirroring to containers and buckets;
# "worlds" is for the simulated worlds that need scikit-learn.
ARG EXTRAS="[mirror,nats]"
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/rankward
WORKDIR /source
COPY pyproject.toml requirements-dev.lock README.md LICENSE ./
COPY src ./src
# The lock only bounds the versions here: of what it names, no more is installed than the service needs.
RUN /opt/rankward/bin/pip install --constraint requirements-dev.lock ".${EXTRAS}"

FROM python:3.12-slim
LABEL org.opencontainers.image.title="rankward" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin rankward \
    && install -d -o rankward -g rankward -m 0750 /data
COPY --from=build /opt/rankward /opt/rankward
ENV PATH="/opt/rankward/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RANKWARD_DATA=/data
USER rankward
WORKDIR /data
VOLUME /data
EXPOSE 8080
# Alive, asked without any proxy and on the port the service was given; an answer other than 2xx raises.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ.get('RANKWARD_PORT', '8080') + '/healthz', timeout=4)"]
ENTRYPOINT ["rankward"]
CMD ["serve", "--host", "0.0.0.0"]
