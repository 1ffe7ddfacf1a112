# syntax=docker/dockerfile:1
# One image for every role: `nearby serve`, and the commands beside it.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# What was downloaded and compiled is kept between builds; the executable is taken out of the cache.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p nearby && cp target/release/nearby /usr/local/bin/nearby

FROM debian:bookworm-slim
# The spool of history is on a volume, which takes its owner from here.
RUN useradd --system --uid 10001 --no-create-home nearby && install -d -o nearby /var/lib/nearby
COPY --from=build /usr/local/bin/nearby /usr/local/bin/nearby
USER nearby
WORKDIR /var/lib/nearby
EXPOSE 8080
# It handles SIGTERM itself, also as process 1: no init is needed.
ENTRYPOINT ["nearby"]
CMD ["serve"]
