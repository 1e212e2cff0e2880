#!/usr/bin/env bash
# Runs the steps of the Dockerfile in a chroot, where there is no Docker, and restores the demo clip there:
#   docker/check_in_chroot.sh MIRROR
# MIRROR is the address of a Debian mirror. Needs root and debootstrap. Settings of pip in PIP_* variables are kept.
set -euo pipefail
cd "$(dirname "$0")/.."
mirror=${1:?usage: docker/check_in_chroot.sh MIRROR}

scratch=$(mktemp -d)
root=$scratch/root
clean_up() {
    if mountpoint --quiet "$root/proc"; then umount "$root/proc"; fi
    rm -rf --one-file-system "$scratch"
}
trap clean_up EXIT

kept=()
while IFS= read -r name; do kept+=("$name=${!name}"); done < <(compgen -e PIP_ || true)
# Certificates that pip was given: outside /etc/ssl, where a Debian package writes its own.
if [ -n "${PIP_CERT:-}" ]; then kept+=(PIP_CERT=/var/pip-certificates.pem); fi

enter() { # USER FOLDER COMMAND ...
    local home
    home=$(chroot "$root" getent passwd "$1" | cut -d: -f6)
    chroot --userspec="$1" "$root" /usr/bin/env --ignore-environment --chdir="$2" ${kept[@]+"${kept[@]}"} \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME="$home" DEBIAN_FRONTEND=noninteractive "${@:3}"
}

start_from() { # IMAGE, as debian:SUITE-slim
    local suite=${1#debian:}
    debootstrap --variant=minbase "${suite%-slim}" "$root" "$mirror" >"$scratch/debootstrap.log" 2>&1 \
        || { tail "$scratch/debootstrap.log" >&2; exit 1; }
    mount -t proc proc "$root/proc"
    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    if [ -n "${PIP_CERT:-}" ]; then install --mode 644 "$PIP_CERT" "$root/var/pip-certificates.pem"; fi
}

copy() { # SOURCE TARGET: the folder of the Dockerfile without what .dockerignore names
    local patterns=()
    while IFS= read -r pattern; do patterns+=(--exclude "./$pattern"); done < <(grep -v '^\*\*/' .dockerignore)
    while IFS= read -r pattern; do patterns+=(--exclude "${pattern#"**/"}"); done < <(grep '^\*\*/' .dockerignore)
    mkdir -p "$root$2"
    tar --create --anchored --no-wildcards-match-slash "${patterns[@]}" --directory "$1" . | tar --extract --directory "$root$2"
}

user=root folder=/ entry=
while read -r instruction words; do
    case $instruction in
        FROM | COPY | RUN | USER | WORKDIR | ENTRYPOINT) echo "$instruction $words" ;;
    esac
    case $instruction in
        FROM) start_from "$words" ;;
        COPY) copy ${words} ;;
        RUN) enter "$user" "$folder" /bin/sh -c "$words" </dev/null ;;
        USER) user=$words ;;
        WORKDIR) folder=$words && mkdir -p "$root$folder" ;;
        ENTRYPOINT) entry=$(tr -d '[]",' <<<"$words") ;;
        "" | "#"* | CMD) ;;
        *) echo "error: docker/check_in_chroot.sh does not know the instruction $instruction" >&2 && exit 1 ;;
    esac
done < <(sed -e ':join' -e '/\\$/{N; s/\\\n */ /; b join}' Dockerfile)

cp benchmarks/clips/demo_blurred.mp4 "$root$folder/"
enter "$user" "$folder" "$entry" --source demo_blurred.mp4 --out restored.mp4
frames=$(enter "$user" "$folder" "${entry%/*}/python" -c \
    "import av; print(sum(1 for _ in av.open('restored.mp4').decode(video=0)))")
owner=$(stat --format %u "$root$folder/restored.mp4")
[ "$frames" -eq 100 ] || { echo "error: restored.mp4 has $frames frames instead of 100" >&2; exit 1; }
[ "$owner" -ne 0 ] || { echo "error: the container runs as root" >&2; exit 1; }
echo "the image of the Dockerfile restores 100 frames as user $owner; $(du -sm --one-file-system "$root" | cut -f1) MiB"
