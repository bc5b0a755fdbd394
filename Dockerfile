# Builds the control plane. Plan and cook first, so that dependencies are a layer of their own.
FROM rust:1.95-bookworm AS chef
RUN cargo install cargo-chef --version 0.1.78 --locked
WORKDIR /src

FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
COPY --from=plan /src/recipe.json recipe.json
RUN cargo chef cook --release --locked --recipe-path recipe.json
COPY . .
RUN cargo build --release --locked -p tidegate -p tidegate-agent -p tidegate-guard && mkdir /data \
    && .ci/notice >/NOTICE

# Not distroless: the demo and health checks run shell scripts.
FROM debian:bookworm-slim
# The slim image has no certificate authorities: S3, and commands that ask other servers, need them.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/tidegate /usr/local/bin/tidegate
COPY --from=build /src/target/release/tidegate-agent /usr/local/bin/tidegate-agent
COPY --from=build /src/target/release/tidegate-guard /usr/local/bin/tidegate-guard
COPY --from=build /NOTICE /src/LICENSE /usr/share/doc/tidegate/
COPY --from=build --chown=65532:65532 /data /data
ENV TIDEGATE_DATA=/data \
    TIDEGATE_LISTEN=0.0.0.0:8420 \
    TIDEGATE_LOG_FORMAT=json
VOLUME /data
EXPOSE 8420
USER 65532
HEALTHCHECK --interval=10s --timeout=5s --retries=3 CMD ["/usr/local/bin/tidegate", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/tidegate"]
CMD ["serve"]
