# The gateway in an image without a shell. docs/installing.md says how it is built and run.
#
# Tags move: for an image that can be built again, put the digests of the day behind them
# (docker buildx imagetools inspect rust:1.95-slim-bookworm).
FROM rust:1.95-slim-bookworm AS build
ARG PROFILE=release
WORKDIR /src
COPY . .
# cargo and its registry are the builder's; between builds they and what is built are kept.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo install --locked --path . --profile "$PROFILE" --root /out

# glibc, libgcc and the authorities of certificates; a user "nonroot", and nothing that could be run.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="session-gateway" \
      org.opencontainers.image.description="Reverse proxy that shares a Django site's sessions with the services beside it" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /out/bin/session-gateway /usr/bin/session-gateway
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/session-gateway/
# A number, so that Kubernetes sees that it is not root.
USER 65532:65532
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
# Whoever runs it asks /healthz and /readyz at the address of [health]; a program for it here would be one more to keep.
HEALTHCHECK NONE
ENTRYPOINT ["/usr/bin/session-gateway"]
CMD ["run", "--config", "/etc/session-gateway/gateway.toml"]
