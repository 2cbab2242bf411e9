# One image for processor, producer and agent: the command word chooses, `processor` without one.
#
#   docker build -t localhost/pertoken .
#   docker run --read-only -p 127.0.0.1:8080:8080 -e KAFKA_BOOTSTRAP=… -e MONGO_URL=… localhost/pertoken
#   docker run --read-only -e KAFKA_BOOTSTRAP=… -e GPU_SEED=/app/examples/gpu_seed.json localhost/pertoken produce --batch 0
#   docker run --read-only --gpus all --hostname box-7 -v spool:/data -e KAFKA_BOOTSTRAP=… localhost/pertoken agent
#
# The stages that run programs do so on the building machine's own processor and the last one runs none, so an image for
# both architectures needs no emulation: docker buildx build --platform linux/amd64,linux/arm64 .
# The same sources make the same layers, to the byte, where the builder sets all times (buildah bud --timestamp 0).
# Behind a package registry of your own: --secret id=npmrc,src=$HOME/.npmrc (it ends up in no layer).
ARG BASE=node:26-bookworm-slim

# What runs, and as whom: no dev dependency, native code for the image's architecture. Installation scripts stay off in
# both stages: the one that would do something brings a Node, which the base has.
FROM --platform=$BUILDPLATFORM ${BASE} AS dependencies
ARG TARGETARCH
WORKDIR /app
COPY package.json package-lock.json ./
RUN --mount=type=secret,id=npmrc,target=/root/.npmrc --mount=type=cache,target=/root/.npm \
    case "$TARGETARCH" in amd64) cpu=x64 ;; *) cpu=$TARGETARCH ;; esac && \
    npm ci --omit=dev --ignore-scripts --os=linux --cpu="$cpu" --no-audit --no-fund --loglevel=error && \
    mkdir /data && \
    groupadd --gid 10001 pertoken && \
    useradd --uid 10001 --gid 10001 --home-dir /app --no-create-home --shell /usr/sbin/nologin pertoken

# Compiles dist/ and lays out the rest, readable by everybody whatever the checkout's permissions are.
FROM --platform=$BUILDPLATFORM ${BASE} AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN --mount=type=secret,id=npmrc,target=/root/.npmrc --mount=type=cache,target=/root/.npm \
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
COPY . .
RUN npm run --silent build && \
    mkdir /out && \
    cp -r package.json LICENSE bin dist docs/schemas examples deploy/image/healthcheck.js /out/ && \
    chmod -R u=rwX,go=rX /out

FROM ${BASE}
# With Kafka and MongoDB nothing is written. The agent's spool and the embedded log and store want a volume at /data.
ENV NODE_ENV=production DATA_DIR=/data
WORKDIR /app
COPY --from=dependencies /etc/passwd /etc/group /etc/
COPY --from=dependencies --chown=10001:10001 /data /data
COPY --from=dependencies /app/node_modules node_modules
COPY --from=build /out ./
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["node", "/app/healthcheck.js"]
ENTRYPOINT ["node", "/app/bin/pertoken.js"]
CMD ["processor"]
# Last, so that a new commit with the same content shares all layers.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pertoken" \
      org.opencontainers.image.description="What a token costs you on GPUs that you rent or own" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
