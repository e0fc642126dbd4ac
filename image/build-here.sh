#!/usr/bin/env bash
# Builds the image where there is no engine, and proves it inside: as root, with buildah, in a chroot.
#   sudo image/build-here.sh                            on the Dockerfile's base, or where that cannot be pulled, on a Debian made here
#   sudo BASE=debian image/build-here.sh                on a Debian made here (debootstrap), with its own Python
#   sudo BASE=debian PYTHON=/opt/py312 image/build-here.sh    with this Python in /usr/local, where the official base has its own
#   sudo image/build-here.sh --secret id=pip,src=/etc/pip.conf      all words go to `buildah bud`
# Other variables: WORK (a new folder with 20 GiB), DRIVER (overlay, or vfs where that does not work: 40 GiB), KEEP=1.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "build-here needs root" >&2; exit 2; }
command -v buildah >/dev/null || { echo "build-here needs buildah: apt-get install buildah" >&2; exit 2; }

made=${WORK:+no}
WORK=${WORK:-$(mktemp -d /var/tmp/isotrain-image.XXXXXX)}
mkdir -p "$WORK"
export BUILDAH_ISOLATION=chroot TMPDIR="$WORK" STORAGE_DRIVER="${DRIVER:-overlay}"
# A store of its own: no image or container of anybody else is touched.
b() { buildah --root "$WORK/storage" --runroot "$WORK/run" --storage-driver "$STORAGE_DRIVER" "$@"; }
finish() {
  [ -z "${KEEP:-}" ] || { echo "kept: $WORK" >&2; return; }
  b rm --all >/dev/null 2>&1 || true
  b rmi --all --force >/dev/null 2>&1 || true
  rm -rf "$WORK/storage" "$WORK/run"
  [ -n "$made" ] || rm -rf "$WORK"
}
trap finish EXIT

pinned=$(sed -n 's/^ARG BASE=//p' Dockerfile)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
revision=$(git describe --always --abbrev=40 --exclude '*' --dirty)

debian() {  # what the official base is made of: Debian's smallest, certificates, time zones, and what Python links to
  command -v debootstrap >/dev/null || { echo "build-here needs debootstrap: apt-get install debootstrap" >&2; exit 2; }
  local container root packages=ca-certificates,netbase,tzdata
  if [ -n "${PYTHON:-}" ]; then
    packages+=,libbz2-1.0,libdb5.3,libffi8,libgdbm6,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,libuuid1,zlib1g
  else
    packages+=,python3,python3-venv
  fi
  container=$(b from scratch)
  root=$(b mount "$container")
  debootstrap --variant=minbase --include="$packages" bookworm "$root" >"$WORK/debootstrap.log"
  if [ -n "${PYTHON:-}" ]; then
    tar -C "$PYTHON" --exclude='*/site-packages/*' --exclude='*/test' --exclude='__pycache__' -c bin lib | tar -C "$root/usr/local" -x
    chroot "$root" ldconfig
    chroot "$root" ln -sf python3 /usr/local/bin/python
  fi
  rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/archives/*.deb
  b umount "$container" >/dev/null
  b commit --quiet --rm "$container" isotrain-base >/dev/null
}

base=${BASE:-$pinned}
if [ "$base" != debian ] && ! b pull --quiet "$base" >"$WORK/pull.log" 2>&1; then
  echo "$base cannot be pulled: $(tail -n 1 "$WORK/pull.log")" >&2
  [ -z "${BASE:-}" ] || exit 1
  base=debian
fi
if [ "$base" = debian ]; then
  debian
  base=localhost/isotrain-base
fi

echo "building on $base" >&2
b bud --layers=false --build-arg BASE="$base" --build-arg REVISION="$revision" --build-arg VERSION="$version" \
  --build-arg CREATED="$(date -u +%Y-%m-%dT%H:%M:%SZ)" -t "isotrain:$version" "$@" . >"$WORK/build.log" 2>&1 ||
  { tail -n 40 "$WORK/build.log" >&2; exit 1; }

# Labels are not seen from inside.
[ "$(b inspect --type image --format '{{index .OCIv1.Config.Labels "org.opencontainers.image.revision"}}' "isotrain:$version")" = "$revision" ]
[ "$(b inspect --type image --format '{{.OCIv1.Config.User}}' "isotrain:$version")" = 1000:1000 ]

container=$(b from "isotrain:$version")
echo "$(du -sm --apparent-size "$(b mount "$container")" | cut -f1) MiB unpacked" >&2
# Nothing may come in or go out: a network with nothing in it but itself, where the kernel gives one.
inside() {
  local alone=()
  if unshare --net true 2>/dev/null; then
    alone=(unshare --net sh -c 'ip link set lo up 2>/dev/null; exec "$@"' sh)
  else
    echo "the proof has a network here" >&2
  fi
  "${alone[@]}" buildah --root "$WORK/storage" --runroot "$WORK/run" --storage-driver "$STORAGE_DRIVER" run "$@"
}
inside --user 1000:1000 "$container" -- python image/prove.py
echo "as somebody else, whom the image does not know:" >&2
inside --user 12345:12345 --env HOME=/tmp "$container" -- python image/prove.py user kfp training
