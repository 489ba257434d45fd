# User-mode Linux: a kernel as a program. Sourced by `run`.

prepare() {
    local tool
    for tool in linux.uml mke2fs; do
        PATH=$PATH:/usr/sbin:/sbin command -v $tool >/dev/null && continue
        say "$tool is missing; install it with: apt-get install user-mode-linux e2fsprogs"
        exit 125
    done
    # What the guest writes: the host's own files it sees read-only.
    truncate -s "${DAYFLY_GUEST_DISK:-8G}" "$state/disk"
    PATH=$PATH:/usr/sbin:/sbin mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1 "$state/disk"
}

boot() {
    printf '%s\n' "$@" >"$state/arguments"
    # GUEST_… are no kernel parameters, so init gets them in its environment.
    exec linux.uml mem="${DAYFLY_GUEST_MEMORY:-2G}" quiet root=/dev/root rootfstype=hostfs rootflags=/ ro \
        ubd0="$state/disk" con=null con0=null,fd:1 \
        GUEST_CLONE="$clone" GUEST_ARGUMENTS="$state/arguments" GUEST_WITHOUT="${DAYFLY_GUEST_WITHOUT:-}" \
        init="$PYTHON" -- -u "$here/boot.py"
}
