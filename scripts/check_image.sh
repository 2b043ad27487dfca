#!/usr/bin/env bash
# Build the Docker image without a Docker engine and run it: scripts/check_image.sh
#
# With buildah and debootstrap, as root, on Debian or its kin; says "skipped" where one is missing.
# The base image is Debian with its own Python, made here, because nothing can be pulled without a
# registry. Then two containers of the image, a web process and a worker, over a real Valkey.
#
#   PORT=9191      port of the web process (default: a free one)
#   BASE=NAME      an image to build on instead of making one
#   KEEP=1         keep the images afterwards
set -euo pipefail
cd "$(dirname "$0")/.."

skip() { echo "check_image: skipped: $*"; exit 0; }
[ "$(id -u)" = 0 ] || skip "needs root"
for tool in buildah debootstrap python3; do
  command -v "$tool" >/dev/null || skip "needs $tool (apt-get install buildah debootstrap)"
done

PORT=${PORT:-$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}
WORK=$(mktemp -d)
TAG=localhost/doubtless-check
MADE_BASE=localhost/doubtless-check-base
STORE=(--storage-driver vfs --root "$WORK/storage" --runroot "$WORK/run")
PIDS=()
CONTAINERS=()
finish() {
  local code=$?
  for pid in "${PIDS[@]}"; do kill -- "-$pid" 2>/dev/null || true; done
  for pid in "${PIDS[@]}"; do wait "$pid" 2>/dev/null || true; done
  for container in "${CONTAINERS[@]}"; do buildah "${STORE[@]}" rm "$container" >/dev/null || true; done
  [ "${KEEP:-0}" = 1 ] || rm -rf "$WORK"
  exit "$code"
}
trap finish EXIT
step() { echo "check_image: $(date +%T) $*"; }

# --- a base image ---------------------------------------------------------------------------
if [ -z "${BASE:-}" ]; then
  CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/doubtless/base-bookworm.tar
  if [ ! -s "$CACHE" ]; then
    step "making a base with debootstrap (one to two minutes)"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
      bookworm "$WORK/root" >"$WORK/debootstrap.log" 2>&1 || { tail -5 "$WORK/debootstrap.log"; exit 1; }
    mkdir -p "$(dirname "$CACHE")"
    tar -C "$WORK/root" -cf "$CACHE.tmp" . && mv "$CACHE.tmp" "$CACHE"
    rm -rf "$WORK/root"
  fi
  step "importing the base"
  container=$(buildah "${STORE[@]}" from scratch)
  buildah "${STORE[@]}" add --quiet "$container" "$CACHE" / >/dev/null
  buildah "${STORE[@]}" commit --quiet "$container" "$MADE_BASE" >/dev/null
  buildah "${STORE[@]}" rm "$container" >/dev/null
  BASE=$MADE_BASE
fi

# --- what pip needs in the build: its configuration here, certificates, local package folders ----
MOUNTS=()
CERTIFICATES=/etc/ssl/certs/ca-certificates.crt
if [ -f $CERTIFICATES ]; then MOUNTS+=(-v "$(readlink -f $CERTIFICATES):$CERTIFICATES:ro"); fi
{
  echo "[global]"
  python3 -m pip config list 2>/dev/null | sed -n "s/^\(global\|:env:\)\.\{0,1\}\([a-z-]*\)='\(.*\)'$/\2 = \3/p" | sort -u -t= -k1,1
} >"$WORK/pip.conf"
MOUNTS+=(-v "$WORK/pip.conf:/etc/pip.conf:ro")
for folder in $(grep -oE '(file://)?/[^ ]+' "$WORK/pip.conf" | sed 's,^file://,,' | sort -u); do
  # A local index links to files beside it.
  case $folder in "$CERTIFICATES") continue ;; */simple) folder=$(dirname "$folder") ;; esac
  case $folder in /etc/*) [ -f "$folder" ] || continue ;; esac  # constraints, but no system folder
  if [ -e "$folder" ]; then MOUNTS+=(-v "$folder:$folder:ro"); fi
done
# --- build ------------------------------------------------------------------------------------
step "building the image"
buildah "${STORE[@]}" bud --isolation chroot --network host --format docker --quiet \
  --build-arg BASE_IMAGE="$BASE" "${MOUNTS[@]}" -t "$TAG" . >"$WORK/build.log" 2>&1 ||
  { tail -20 "$WORK/build.log"; exit 1; }
buildah "${STORE[@]}" images "$TAG"

# --- run --------------------------------------------------------------------------------------
start() { # NAME COMMAND...: in a container of the image, as the image's user
  local name=$1 container; shift
  container=$(buildah "${STORE[@]}" from --quiet "$TAG")
  CONTAINERS+=("$container")
  setsid buildah "${STORE[@]}" run --isolation chroot --network host \
    --env DOUBTLESS_REDIS_URL="$REDIS" --env DOUBTLESS_PORT="$PORT" --env DOUBTLESS_HOST=127.0.0.1 \
    -v "$WORK/data:/data" "$container" -- "$@" >"$WORK/$name.log" 2>&1 &
  PIDS+=($!)
}
fetch() { python3 -c 'import sys, urllib.request as u; print(u.build_opener(u.ProxyHandler({})).open(sys.argv[1], timeout=3).read().decode())' "$1"; }
await() { # WHAT SECONDS LOG COMMAND...
  local what=$1 left=$2 log=$3; shift 3
  until "$@" >/dev/null 2>&1; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || { echo "check_image: $what did not happen"; tail -20 "$WORK/$log.log"; exit 1; }
    sleep 1
  done
  step "$what"
}
mkdir -p "$WORK/data" && chown 10001:10001 "$WORK/data"
REDIS=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
VALKEY_PORT=$REDIS
REDIS=redis://127.0.0.1:$REDIS/0
# The image carries a Valkey server too, for running everything in one container.
start valkey python3 -c "import os, sys; from backend.edges.valkey import server_binary as b; os.execv(b(), [b(), '--port', '$VALKEY_PORT', '--bind', '127.0.0.1', '--save', ''])"
await "Valkey answers" 30 valkey bash -c "exec 3<>/dev/tcp/127.0.0.1/$VALKEY_PORT"
start web doubtless serve
await "the web process answers at /health" 60 web fetch "http://127.0.0.1:$PORT/health"
start worker doubtless worker
workers() { # the set in which rq's workers register
  exec 3<>"/dev/tcp/127.0.0.1/$VALKEY_PORT" && printf 'SCARD rq:workers\r\n' >&3 &&
    read -r -t 2 answer <&3 && [ "${answer%$'\r'}" = :1 ]
}
await "the worker is at work" 60 worker workers
fetch "http://127.0.0.1:$PORT/health"
ps -eo uid,args | grep -E '^ *10001 .*doubtless (serve|worker)$' | sed 's/^/check_image: user/'
container=$(buildah "${STORE[@]}" from --quiet "$TAG")
CONTAINERS+=("$container")
buildah "${STORE[@]}" run --isolation chroot "$container" -- python3 -c "
import importlib.util as u
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from model.backbones import load_backbone
from model.backbones.pyramid import DEFAULT_PYRAMID, load_pyramid
from model.detection.engine import BoxConfig, fit
from model.detection.maps import ImageMaps
from model.detection.outcomes import LabelledImages
from model.detection.types import BoxLabels
cache = Path('/opt/doubtless/cache')
assert u.find_spec('psycopg') is not None, 'psycopg is not in the image'
sys.modules['torch'] = None  # as in the slim image
print('check_image: backbone of', load_backbone('efficientnet-lite2+lite0', cache).dim, 'values, without torch')
del sys.modules['torch']
pyramid = load_pyramid(DEFAULT_PYRAMID, cache)
maps, drawn = [], []
for n in range(4):
    image = Image.new('RGB', (320, 240), 'white')
    image.paste('red', (40 * n, 40, 40 * n + 120, 160))
    maps.append(ImageMaps.of(pyramid.maps(image), image.size))
    box = [40 * n / 320, 40 / 240, (40 * n + 120) / 320, 160 / 240]
    drawn.append(BoxLabels.of(boxes=[box], labels=[0]))
data = LabelledImages(maps, [m.size for m in maps], drawn, np.ones(4, bool))
bundle = fit(data, ['square'], config=BoxConfig(steps=60))
print('check_image: boxes are trained;', len(bundle.look(maps[0])[0]), 'regions found')
"
step "fine"
