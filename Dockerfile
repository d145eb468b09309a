FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches are mounts and so no part of a layer; the binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin runmill \
    && install -D target/release/runmill /out/runmill

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/runmill --create-home --shell /usr/sbin/nologin runmill
COPY --from=build /out/runmill /usr/local/bin/runmill
USER runmill
WORKDIR /var/lib/runmill
ENV RUNMILL_DATA_DIR=/var/lib/runmill \
    RUNMILL_TELEMETRY__FORMAT=json
# Platform API, AgentOS, ops (health and metrics).
EXPOSE 8037 7777 9464
STOPSIGNAL SIGTERM
# Asks /livez of the ops listener in this container: progress, not only a pulse.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["runmill", "doctor", "--live"]
ENTRYPOINT ["runmill"]
