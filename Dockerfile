# syntax=docker/dockerfile:1
# The operator: one static program and the public certificate authorities in an empty image, for amd64 and arm64. There is no shell in it, and no user but 65532.
#   docker buildx build --platform linux/amd64,linux/arm64 --tag IMAGE .
# Each platform builds for itself (Alpine's Rust links statically against musl), so that nothing is cross-compiled.
FROM docker.io/library/rust:1.95-alpine AS build
RUN apk add --no-cache build-base
WORKDIR /build
COPY . .
RUN cargo build --locked --release --package frappe-operator && cp target/release/frappe-operator /frappe-operator

FROM scratch
COPY --from=build /frappe-operator /frappe-operator
# The public certificate authorities: by them the Jobs of backups know an S3 service.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# What it consists of, and under which licences.
COPY LICENSE NOTICE /licenses/
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/frappe-operator"]
CMD ["run"]
