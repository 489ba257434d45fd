# A machine with systemd and its distribution's own kernel, under qemu without KVM. Sourced by `run`.
#
# The root is built once with mmdebstrap from this machine's own package sources and kept; each boot writes to a
# snapshot. The clone and the interpreter travel on a second disk and appear in the guest at their own paths.

cache=${DAYFLY_GUEST_CACHE:-/var/cache/dayfly-guest}
packages=systemd-sysv,udev,dbus,kmod,iproute2,e2fsprogs,uidmap,runc,crun,gcc,libc6-dev,python3,python3-venv,ca-certificates

prepare() {
    local tool
    for tool in qemu-system-x86_64 mmdebstrap mke2fs; do
        command -v $tool >/dev/null && continue
        say "$tool is missing; install it with: apt-get install qemu-system-x86 mmdebstrap e2fsprogs"
        exit 125
    done
    # shellcheck source=/dev/null
    . /etc/os-release
    local kernel
    case $ID in
        debian) kernel=linux-image-cloud-amd64 ;;
        ubuntu) kernel=linux-image-virtual ;;
        *) say "cannot build a guest from the packages of $ID: only Debian and Ubuntu are known"; exit 125 ;;
    esac
    root=$cache/$(printf "%s\n" "$VERSION_CODENAME $kernel $packages" | cat - "$here/dayfly-guest.service" | sha256sum | cut -c1-12)
    [ -e "$root/complete" ] || build_root "$VERSION_CODENAME" "$kernel"
    build_disk
}

build_root() {
    local suite=$1 kernel=$2 sources=() file tree=$state/tree
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/{debian,ubuntu}.sources; do
        [ ! -s $file ] || sources+=("$file")
    done
    say "building a $suite machine, once, in $root (about a minute)"
    mkdir -p "$root"
    mmdebstrap --quiet --variant=apt --include="$kernel,$packages" \
        --aptopt='APT::Install-Recommends "false"' --dpkgopt=path-exclude=/usr/share/{doc,locale,man}/* \
        "$suite" "$tree" "${sources[@]}"
    install -m 644 "$here/dayfly-guest.service" "$tree/etc/systemd/system/"
    ln -s ../dayfly-guest.service "$tree/etc/systemd/system/multi-user.target.wants/"
    cp "$tree"/boot/vmlinuz-* "$root/kernel"
    cp "$tree"/boot/initrd.img-* "$root/initrd"
    mke2fs -q -t ext4 -O ^has_journal -d "$tree" "$root/disk" 8G >"$state/mke2fs"
    rm -rf --one-file-system "$tree"
    touch "$root/complete"
}

build_disk() {
    local path tree=$state/tree
    mkdir "$tree"
    # What lies below /usr is the distribution's, which the guest has itself.
    "$PYTHON" - "$clone" >"$state/paths" <<'END'
import sys
paths = [sys.argv[1], sys.prefix, sys.base_prefix]
print("\n".join(path for path in dict.fromkeys(paths) if not (path + "/").startswith("/usr/")))
END
    while read -r path; do
        case $path in "$clone"/*) continue ;; esac
        # An interpreter that a virtual environment stands on needs only its standard library here.
        tar -C / --exclude="$(base_packages)" -cf - "${path#/}" | tar -C "$tree" -xf -
    done <"$state/paths"
    cp "$state/paths" "$here/unit.sh" "$tree"
    printf '%s\n' "$PYTHON" "$clone" >"$tree/start"
}

base_packages() {
    "$PYTHON" -c 'import sys, sysconfig as c
venv, base = c.get_path("purelib"), c.get_path("purelib", vars={"base": sys.base_prefix})
print(base[1:] if base != venv else "/nothing")'
}

boot() {
    printf '%s\n' "$@" >"$state/tree/arguments"
    mke2fs -q -t ext4 -O ^has_journal -d "$state/tree" "$state/disk" 4G >"$state/mke2fs"
    rm -rf "$state/tree"
    exec qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 -no-reboot -nic none -display none \
        -serial "file:$state/machine" -serial "file:$state/console" \
        -kernel "$root/kernel" -initrd "$root/initrd" -append "root=/dev/vda rw console=ttyS0 quiet panic=-1" \
        -drive "file=$root/disk,if=virtio,format=raw,snapshot=on" -drive "file=$state/disk,if=virtio,format=raw"
}
