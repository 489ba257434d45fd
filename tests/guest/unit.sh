#!/bin/bash
# Runs in the faithful guest, as dayfly-guest.service: the tests on the second serial line (the first has a getty,
# which hangs it up), then their exit status.
exec >/dev/ttyS1 2>&1
while read -r path; do
    mkdir -p "$path"
    mount --bind "/srv/host$path" "$path"
done </srv/host/paths
mapfile -t start </srv/host/start
mapfile -t arguments </srv/host/arguments
# An image without it is rare; a host whose network a job shares has one.
[ -e /etc/hosts ] || echo '127.0.0.1 localhost' >/etc/hosts
export HOME=/root LANG=C.UTF-8 CI=true PY_COLORS=0
cd "${start[1]}" && "${start[0]}" -m pytest -p no:cacheprovider -o timeout=900 "${arguments[@]}"
echo "dayfly-guest: exit $?"
