#!/bin/sh
# Jaeger with a Collector in front of it, on this machine and in this terminal, until Ctrl-C:
#
#   ./dev.sh
#
# Applications send to http://127.0.0.1:4317 (gRPC) or :4318 (HTTP); look at http://127.0.0.1:16686.
# It needs the programs `jaeger` and `otelcol` (or `otelcol-contrib`) on PATH, or where JAEGER and OTELCOL say.
# README.md says where to get them.
# Every port of jaeger.yaml and dev.yaml can be set in the environment.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
jaeger=$(command -v "${JAEGER:-jaeger}") ||
  { echo "dev.sh: no jaeger on PATH; see README.md beside this script" >&2; exit 1; }
otelcol=$(command -v "${OTELCOL:-otelcol}" || command -v otelcol-contrib) ||
  { echo "dev.sh: no otelcol on PATH; see README.md beside this script" >&2; exit 1; }

# The Collector has the ports that SDKs send to, so Jaeger moves aside.
export JAEGER_OTLP_GRPC_PORT="${JAEGER_OTLP_GRPC_PORT:-14317}"
export JAEGER_OTLP_HTTP_PORT="${JAEGER_OTLP_HTTP_PORT:-14318}"
export JAEGER_HEALTH_PORT="${JAEGER_HEALTH_PORT:-13134}"
export JAEGER_OTLP_ENDPOINT="127.0.0.1:$JAEGER_OTLP_GRPC_PORT"

"$jaeger" --config "$here/jaeger.yaml" &
jaeger_pid=$!
"$otelcol" --config "$here/dev.yaml" &
collector_pid=$!
trap 'kill $jaeger_pid $collector_pid 2>/dev/null; wait' EXIT
trap 'exit 130' INT TERM
# If one ends, stop the other: Jaeger ends at once if its port is taken, for instance.
while kill -0 $jaeger_pid 2>/dev/null && kill -0 $collector_pid 2>/dev/null; do sleep 1; done
echo "dev.sh: jaeger or otelcol has ended; its messages say why" >&2
exit 1
