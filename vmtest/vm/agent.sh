#!/bin/sh
# Runs in the guest as root.  The host sends it through the virtio-serial port, which is
# open as descriptor 3, with NETWORK, KEEP and, for a guest that is to be saved, PYTHON, RENEW,
# STANDBY, WARM_KEY, CODE and SIZE in front.  What is this guest's alone comes later, when it may
# have been saved.
# Every external command costs tens of milliseconds on an emulated CPU: hence
# builtins where they do, and busybox (static) where there is one.
set -eu
umask 077
box=/bin/busybox
[ -x "$box" ] || box=

$box mkdir -p /run/vmtest/home /run/sshd

# The home folder is private and the shell reads no dotfiles: none of a host's takes
# part.  /root itself stays: the interpreter may live there (root = "host").
$box sed 's|^root:\(.*\):[^:]*:[^:]*$|root:\1:/run/vmtest/home:/bin/sh|' /etc/passwd \
    >/run/vmtest/passwd
$box chmod 644 /run/vmtest/passwd
$box mount --bind /run/vmtest/passwd /etc/passwd
read -r flags </sys/class/net/lo/flags
[ $((flags & 1)) = 1 ] || ip link set lo up

# The addresses are those of QEMU's user-mode network, always the same: no DHCP.
network_card() {
    PATH=$PATH:/usr/sbin:/sbin
    modprobe virtio_net || return
    for card in /sys/bus/virtio/drivers/virtio_net/virtio*/net/*; do
        card=${card##*/}
        [ "$card" != '*' ] && ip address add 10.0.2.15/24 dev "$card" && ip link set "$card" up &&
            ip route add default via 10.0.2.2 && return
    done
    return 1
}
if [ -n "${NETWORK:-}" ]; then
    if ! network_card; then
        echo 'vmtest: the guest has no network card: virtio_net does not drive it' >/dev/console
        exit 1
    fi
    echo 'nameserver 10.0.2.3' >/run/vmtest/resolv.conf
    $box chmod 644 /run/vmtest/resolv.conf
    [ ! -e /etc/resolv.conf ] || $box mount --bind /run/vmtest/resolv.conf /etc/resolv.conf
fi

# A guest that runs out of memory shall say so instead of thrashing: its root is a
# disk whose pages it would read again and again.  MGLRU, 6.1 and later.
[ ! -e /sys/kernel/mm/lru_gen/min_ttl_ms ] || echo 1000 >/sys/kernel/mm/lru_gen/min_ttl_ms

printf '%s\n' \
    'HostKey /run/vmtest/host_key' \
    'AuthorizedKeysFile /run/vmtest/authorized_keys' \
    'AuthenticationMethods publickey' \
    'PermitRootLogin prohibit-password' \
    'UsePAM no' \
    'StrictModes no' \
    'PermitUserRC no' \
    'PrintLastLog no' \
    'PrintMotd no' \
    'UseDNS no' \
    'MaxSessions 64' \
    'Subsystem sftp internal-sftp' >/run/vmtest/sshd_config

# virtme-ng locks root in /etc/shadow; without PAM (0.3 s slower) sshd refuses
# a locked account its keys as well.  The file is a bind mount: write through it.
$box sed 's/^root:[^:]*:/root:*:/' /etc/shadow >/run/vmtest/shadow
$box cat /run/vmtest/shadow >/etc/shadow

# A guest that is to be saved (vmtest/vm/snapshot.py): QEMU refuses while a file system of the
# host's is mounted, and what sshd reads from its root it shall have read.  The answer on the
# port is "ready", or why this guest cannot be saved: then it goes on as any other.
modules=
renewer=
if [ -n "${KEEP:-}" ]; then
    printf '%s\n' "$WARM_KEY" >/run/vmtest/warm_key
    /usr/sbin/sshd -i -f /run/vmtest/sshd_config -h /run/vmtest/warm_key </dev/null >/dev/null \
        2>&1 3<&- || :
    $box rm /run/vmtest/warm_key
    answer=ready
    while read -r what where kind options _; do
        [ "$where" = /run/virtme/modules ] || continue
        if $box umount "$where" 2>/dev/null; then
            modules="-t $kind -o $options $what $where"
        else
            answer='a module was being loaded'
        fi
    done </proc/mounts
    if [ "$answer" = ready ]; then
        $box mkfifo /run/vmtest/renew /run/vmtest/renewer
        # shellcheck disable=SC2094 # it removes them, once it has read all
        "$PYTHON" -I -S -c "$RENEW" /run/vmtest/renew /run/vmtest/renewer \
            </run/vmtest/renew >/run/vmtest/renewer 2>/dev/null 3<&- &
        renewer=$!
        exec 4>/run/vmtest/renew
        # It says "ready" once it waits.
        read -r answer </run/vmtest/renewer || answer="$PYTHON does not start"
        [ "$answer" = ready ] || renewer=
    fi
    # Our own code, a gzipped archive of SIZE bytes, compiled.  A payload brings the same files, of
    # the same time, so that what was compiled is still theirs.
    (umask 022 && $box mkdir "$CODE" && $box head -c "$SIZE" <&3 | $box tar -xzf - -C "$CODE" &&
        "$PYTHON" -I -S -m compileall -q "$CODE" </dev/null >/dev/null 2>&1 3<&- 4>&-) || :
    # Not every image has a pytest: without, there is no standby (vmtest/vm/standby.py).
    fifo=/run/vmtest/standby
    $box mkfifo $fifo $fifo.status
    LANG=C.UTF-8 "$PYTHON" -B -c "$STANDBY" "$CODE" </dev/null >$fifo.status 2>/dev/null 3<&- 4>&- &
    echo $! >$fifo.pid
    { read -r loaded <$fifo.status && [ "$loaded" = ready ]; } || $box rm $fifo*
    echo "$answer" >&3
fi

# Here a saved guest goes on.  Read by builtins: a restored one has translated nothing yet.
read -r now seed how <&3
IFS= read -r authorized <&3
key=
while IFS= read -r line <&3; do
    key="$key$line
"
    case $line in -----END*) break ;; esac
done

# Two guests of one snapshot have one memory: before anything comes of it, they are told apart.
# One that cannot be ends here, and the host boots another.
if [ -n "$renewer" ]; then
    echo "$now $seed" >&4
    exec 4>&-
    wait "$renewer" || [ "$how" = booted ]
fi
# shellcheck disable=SC2086 # the arguments of mount, split into words
[ -z "$modules" ] || $box mount -n $modules
[ "$how" != restored ] ||
    { echo '<7>vmtest: restored from a snapshot' >/dev/kmsg; } 2>/dev/null || :

printf '%s' "$key" >/run/vmtest/host_key
printf '%s\n' "$authorized" >/run/vmtest/authorized_keys

# The end of the boot, told to the kernel's log (vmtest/vm/klog.py): whatever the
# kernel complains of from here on is the tests' doing.
{ echo '<7>vmtest: the guest is up' >/dev/kmsg; } 2>/dev/null || :

# sshd never gets the port itself: it polls two descriptors of it, and the
# second look takes the buffer off the ring before its interrupt is seen, so
# that nobody is woken (Linux drivers/char/virtio_console.c, port_has_data()).
# Here nobody polls the port: one process blocks reading it, one writing it.
$box cat <&3 | {
    /usr/sbin/sshd -i -f /run/vmtest/sshd_config -E /run/vmtest/sshd.log 3<&- || :
    # The first cat still waits on the port, so the host would hear nothing until its silence
    # deadline. It hangs up before it ends a guest: whoever gets here has lost its sshd.
    echo 'vmtest: the SSH server of the guest ended' >/dev/console
    echo o >/proc/sysrq-trigger
} | $box cat >&3
