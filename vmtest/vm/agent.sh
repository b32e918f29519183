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

# sshd never gets the port itself: it polls two descriptors of it, and the
# second look takes the buffer off the ring before its interrupt is seen, so
# that nobody is woken (Linux drivers/char/virtio_console.c, port_has_data()).
# Here nobody polls the port: one process blocks reading it, one writing it.
talk() {
    $box mkfifo /run/vmtest/in /run/vmtest/out
    $box cat <&3 >/run/vmtest/in &
    $box cat </run/vmtest/out >&3 &
    exec 3</run/vmtest/in 4>/run/vmtest/out
    $box rm /run/vmtest/in /run/vmtest/out
}

# A guest that is to be saved (vmtest/vm/snapshot.py): QEMU refuses while a file system of the
# host's is mounted, and what sshd reads from its root it shall have read.  The answer on the
# port is "ready", or why this guest cannot be saved: then it goes on as any other.
modules=
renewed=
waits=
answer=
if [ -n "${KEEP:-}" ]; then
    printf '%s\n' "$WARM_KEY" >/run/vmtest/warm_key
    printf 'SSH-2.0-vmtest\r\n' | /usr/sbin/sshd -i -f /run/vmtest/sshd_config \
        -h /run/vmtest/warm_key >/dev/null 2>&1 3<&- || :
    $box rm /run/vmtest/warm_key
    while read -r what where kind options _; do
        [ "$where" = /run/virtme/modules ] || continue
        if $box umount "$where" 2>/dev/null; then
            modules="$what $where $kind $options"
        else
            answer='a module was being loaded'
        fi
    done </proc/mounts
    # Our own code, a gzipped archive of SIZE bytes, compiled.  A payload brings the same files, of
    # the same time, so that what was compiled is still theirs.
    (umask 022 && $box mkdir "$CODE" && $box head -c "$SIZE" <&3 | $box tar -xzf - -C "$CODE" &&
        "$PYTHON" -I -S -m compileall -q "$CODE" </dev/null >/dev/null 2>&1 3<&-) || :
    # Not every image has a pytest: without, there is no standby (vmtest/vm/standby.py).
    fifo=/run/vmtest/standby
    $box mkfifo $fifo $fifo.status
    LANG=C.UTF-8 "$PYTHON" -B -c "$STANDBY" "$CODE" </dev/null >$fifo.status 2>/dev/null 3<&- &
    echo $! >$fifo.pid
    { read -r loaded <$fifo.status && [ "$loaded" = ready ]; } || $box rm $fifo*
    talk
    if [ -z "$answer" ]; then
        # sshd itself waits in the saved guest, for its key, where it starts a new program for each
        # connection: no random number of the old one is used (OpenSSH 9.8 and later).
        if $box grep -q sshd-session /usr/sbin/sshd; then
            $box mkfifo /run/vmtest/host_key
            waits=yes
        fi
        # What the host says next is the renewer's to read, and what it answers to say.  An sshd
        # that waits for a renewer that was killed reads an end.
        $box mkfifo /run/vmtest/renewer
        {
            # shellcheck disable=SC2086 # the words of a line of /proc/mounts
            "$PYTHON" -I -S -c "$RENEW" $modules || :
            [ ! -p /run/vmtest/host_key ] || : <>/run/vmtest/host_key
        } <&3 >&4 5>/run/vmtest/renewer 2>/dev/null 3<&- 4>&- &
        exec 5</run/vmtest/renewer
        $box rm /run/vmtest/renewer
        # It says "loaded" once it can do its work.
        if ! { read -r renewed <&5 && [ "$renewed" = loaded ]; }; then
            answer="$PYTHON does not start, or has no ctypes"
            waits=
            $box rm -f /run/vmtest/host_key
        fi
    fi
    [ -z "$answer" ] || echo "$answer" >&4
else
    talk
fi

# A saved guest goes on in its renewer and its sshd; one of them waits for the other.
if [ "$renewed" = loaded ]; then
    [ -n "$waits" ] || read -r renewed <&5 || :
else
    # shellcheck disable=SC2086 # the words of a line of /proc/mounts
    if [ -n "$modules" ]; then
        set -- $modules
        $box mount -n -t "$3" -o "$4" "$1" "$2"
    fi
    # Read by builtins: what it says of the time and of random numbers is for a restored guest.
    read -r _ <&3
    IFS= read -r authorized <&3
    while IFS= read -r line <&3; do
        printf '%s\n' "$line"
        case $line in -----END*) break ;; esac
    done >/run/vmtest/host_key
    printf '%s\n' "$authorized" >/run/vmtest/authorized_keys
    # The end of the boot, told to the kernel's log (vmtest/vm/klog.py): whatever the
    # kernel complains of from here on is the tests' doing.
    { echo '<7>vmtest: the guest is up' >/dev/kmsg; } 2>/dev/null || :
fi

/usr/sbin/sshd -i -f /run/vmtest/sshd_config -E /run/vmtest/sshd.log <&3 >&4 3<&- 4>&- 5<&- || :
# The first cat still waits on the port, so the host would hear nothing until its silence
# deadline. It hangs up before it ends a guest: whoever gets here has lost its sshd.
echo 'vmtest: the SSH server of the guest ended' >/dev/console
echo o >/proc/sysrq-trigger
