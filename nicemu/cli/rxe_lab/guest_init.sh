#!/usr/bin/bash
# The guest's first process: modules, network, rxe0, then the command of /lab/argv; see docs/rxe-lab.md.
# It talks to the host over virtio-serial ports found by their names: nicemu.control takes lines (`stage NAME`,
# `rxe0 SECONDS`, `fail REASON`, `status N`), nicemu.out and nicemu.err the command's output, nicemu.dmesg the kernel's log.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm /dev/infiniband
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
hostname rxe

[ -e "/lib/modules/$(uname -r)/modules.dep.bin" ] || depmod
modprobe -qa virtio_pci virtio_console 9pnet_virtio 9p virtio_net virtio_rng

port() { # port NAME: the device of a virtio-serial port
    local name
    for name in /sys/class/virtio-ports/*/name; do
        [ "$(<"$name")" = "$1" ] && name=${name%/name} && echo "/dev/${name##*/}" && return
    done
}
fail() { # the host ends the guest when it reads this
    echo "fail $*" >&9
    sleep 1000
}

control=$(port nicemu.control)
[ -n "$control" ] || echo "nicemu: no virtio-serial port nicemu.control" >/dev/console
exec 9>"$control"
echo "stage modules" >&9

share() { # share TAG FOLDER OPTIONS
    mount -t 9p -o "trans=virtio,version=9p2000.L,msize=262144,cache=none,$3" "$1" "$2" ||
        fail "the 9p share $1 could not be mounted on $2"
}
share lab /lab ro
. /lab/settings # mtu, hugepages, shared, interactive, rows, columns, TERM
[ "$shared" = yes ] && share share /share rw
cd /share

[ "$hugepages" -gt 0 ] && echo "$hugepages" >/proc/sys/vm/nr_hugepages
for each in all default eth0; do # no wait before a link-local address, and its GID, may be used
    [ -e "/proc/sys/net/ipv6/conf/$each" ] && echo 0 >"/proc/sys/net/ipv6/conf/$each/accept_dad"
done
ip link set lo up
ip link set eth0 mtu "$mtu" up || fail "no network device eth0, or it does not take an MTU of $mtu"
ip address add 10.0.0.2/24 dev eth0
echo "stage network" >&9

modprobe -a ib_uverbs rdma_ucm ib_umad || fail "the kernel has no module ib_uverbs, rdma_ucm or ib_umad"
modprobe rdma_rxe || fail "the kernel has no soft-RoCE driver: modprobe rdma_rxe failed"
rdma link add rxe0 type rxe netdev eth0 || fail "rdma link add rxe0 type rxe netdev eth0 failed"
for each in /sys/class/infiniband_verbs/uverbs*/dev /sys/class/misc/rdma_cm/dev /sys/class/infiniband_mad/*/dev; do
    name=${each%/dev} # udev, which the guest has not, would put these into a folder
    [ -e "/dev/infiniband/${name##*/}" ] || IFS=: read -r major minor <"$each" &&
        mknod "/dev/infiniband/${name##*/}" c "$major" "$minor" 2>/dev/null
done
for ((tries = 0; ; tries++)); do # the GID of the IPv4 address comes a moment after the device
    grep -qs ffff:0a00:0002 /sys/class/infiniband/rxe0/ports/1/gids/* && break
    [ "$tries" -lt 100 ] || fail "rxe0 has no GID for 10.0.0.2"
    sleep 0.1
done
read -r uptime _ </proc/uptime
echo "rxe0 $uptime" >&9

if [ "$interactive" = yes ]; then
    stty rows "$rows" cols "$columns" </dev/ttyS0 2>/dev/null
    export TERM
    setsid bash -c 'exec bash -i <>/dev/ttyS0 >&0 2>&0' 9>&-
    status=$?
else
    mapfile -d '' argv </lab/argv
    mkfifo /run/out /run/err # pipes, so that the command finds what it expects behind /dev/stdout
    cat /run/out >"$(port nicemu.out)" 9>&- &
    out=$!
    cat /run/err >"$(port nicemu.err)" 9>&- &
    err=$!
    if type -P -- "${argv[0]}" >/dev/null; then
        (exec "${argv[@]}")
    else
        echo "${argv[0]}: not found in the guest" >&2
        (exit 127)
    fi </dev/null >/run/out 2>/run/err 9>&-
    status=$?
    for ((tries = 0; tries < 20; tries++)); do # what the command left running may keep them open
        kill -0 "$out" 2>/dev/null || kill -0 "$err" 2>/dev/null || break
        sleep 0.1
    done
fi
log=$(port nicemu.dmesg)
[ -n "$log" ] && dmesg >"$log"
sync
echo "status $status" >&9
sleep 1000
