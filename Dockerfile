# A static binary on an image with nothing but CA certificates, time zones and a non-root user.
#
#     docker build --build-arg GIT_COMMIT=$(git rev-parse HEAD) -t ghcr.io/tandem/tandem:0.1.0 .

FROM rust:1.95.0-alpine AS build
# The allocator is C with a makefile.
RUN apk add --no-cache make
# What keda_build_info says of the build.
ARG GIT_COMMIT=unknown
WORKDIR /source
COPY . .
# Alpine's target is musl, which links statically. The caches outlive the layer, so that an edit recompiles its crate only.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --locked --profile dist --package tandem --bin tandem \
    && cp target/dist/tandem /tandem

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /tandem /tandem
# By number, so that a kubelet can tell that it is not root (runAsNonRoot).
USER 65532:65532
# Metrics API, webhooks, metrics, probes.
EXPOSE 6443 9443 8080 8081
ENTRYPOINT ["/tandem"]
CMD ["run"]
