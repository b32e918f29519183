#!/bin/sh
# PID 1, from the copy: lets go of the host's folder, and virtme-ng's own init takes over.
box=/bin/busybox
[ -x $box ] || box=
cd /
$box umount /run/virtme/guesttools && $box mount --bind /run/virtme/tools /run/virtme/guesttools
exec /run/virtme/guesttools/bin/virtme-ng-init.real
