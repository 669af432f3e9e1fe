#!/usr/bin/env bash
# Build treegrpo-sandbox:test without a registry: Debian's python3 and numpy by debootstrap.
# Needs root, debootstrap and a running engine. Does nothing where the image exists.
set -euo pipefail

image=${1:-treegrpo-sandbox:test}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

if docker image inspect "$image" >/dev/null 2>&1; then
    echo "$image exists; to build it anew: docker image rm $image"
    exit 0
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=python3,python3-numpy bookworm "$root" "$mirror" \
    >"$root.log" 2>&1 || { tail -n 20 "$root.log"; exit 1; }
rm -f "$root.log"

# What a Python needs to run, and no more: no package lists, archives, documents or devices.
tar -C "$root" -c --exclude=./dev/\* --exclude=./proc/\* --exclude=./sys/\* \
    --exclude=./var/cache/apt/\* --exclude=./var/lib/apt/lists/\* --exclude=./var/log/\* \
    --exclude=./usr/share/doc/\* --exclude=./usr/share/man/\* --exclude=./usr/share/locale/\* . |
    docker import --change 'CMD ["python3"]' - "$image" >/dev/null
echo "$image built"
