#!/usr/bin/env bash
# make.sh FOLDER: the root file systems of the base images, one tar file each, from Debian's packages:
#   busybox-amd64.tar, busybox-arm64.tar   one static busybox under all its names, with a shell's minimum of /etc
#   debian-amd64.tar                       a small Debian with apt
# Files that are there already are kept, so a second run costs nothing. Needs mmdebstrap; root is not needed.
set -euo pipefail
out=$1
mkdir -p "$out"
suite=bookworm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

busybox() { # ARCH
    local arch=$1 tar=$out/busybox-$1.tar root=$work/busybox-$1
    [ -e "$tar" ] && return
    mmdebstrap --quiet --format=tar --variant=extract --architectures="$arch" --include=busybox-static "$suite" "$work/$arch.tar"
    mkdir -p "$work/$arch" "$root"/{bin,dev,etc,home,proc,root,sbin,sys,tmp,usr/bin,usr/sbin,var/www}
    tar -C "$work/$arch" -xf "$work/$arch.tar" ./bin/busybox 2>/dev/null || tar -C "$work/$arch" -xf "$work/$arch.tar" ./usr/bin/busybox
    cp "$(find "$work/$arch" -type f -name busybox)" "$root/bin/busybox"
    # Both architectures carry the same applets; the list comes from one that runs here.
    local applet
    for applet in $(applets); do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    chmod 1777 "$root/tmp"
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    pack "$root" "$tar"
}

applets() {
    if [ "$(dpkg --print-architecture)" = amd64 ]; then "$work/busybox-amd64/bin/busybox" --list; else busybox --list; fi
}

pack() { # FOLDER TAR: the same bytes for the same files, whoever packs them
    tar --numeric-owner --owner=0 --group=0 --sort=name --mtime=@1700000000 -C "$1" -cf "$2.part" .
    mv "$2.part" "$2"
}

busybox amd64
if [ ! -e "$out/busybox-arm64.tar" ]; then
    # Its applet list is read from the amd64 root, which an earlier run may have packed and removed.
    mkdir -p "$work/busybox-amd64"
    tar -C "$work/busybox-amd64" -xf "$out/busybox-amd64.tar"
    busybox arm64
fi
if [ ! -e "$out/debian-amd64.tar" ]; then
    mmdebstrap --quiet --format=tar --variant=apt --architectures=amd64 \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*' \
        --customize-hook='rm -f "$1/etc/resolv.conf" "$1/etc/hostname"' \
        "$suite" "$out/debian-amd64.tar.part"
    mv "$out/debian-amd64.tar.part" "$out/debian-amd64.tar"
fi
