#!/usr/bin/env bash
# Boots a machine for tests: machine-boot.sh FOLDER NAME ADDRESS, in namespaces of its own (see machine.ts). Its disk is
# this machine's, copy-on-write in memory; its init is a real systemd; its network has one address. What would reach
# through to the kernel that all share (settings, devices, kernel modules) is read-only or masked.
set -euo pipefail
folder=$1 name=$2 address=$3
root=$folder/root

mount --make-rprivate /
mount -t tmpfs -o size=4g tmpfs "$folder"
mkdir "$folder"/{upper,work,root}
mount -t overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" overlay "$root"

mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for place in run tmp; do mount -t tmpfs tmpfs "$root/$place"; done
chmod 1777 "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root"/dev/{pts,shm}
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

hostname "$name"
echo "$name" >"$root/etc/hostname"
ip link set lo up
# A bridge without a port: an interface that needs no other end.
ip link add eth0 type bridge
ip address add "$address/24" dev eth0
ip link set eth0 up

units=$root/etc/systemd/system
: >"$root/etc/machine-id"
rm -rf "$units"/*.wants "$root/var/log/journal"
for unit in systemd-{sysctl,modules-load,remount-fs,udevd,udev-trigger,logind,random-seed,update-utmp}.service \
  systemd-udevd-{control,kernel}.socket {console-getty,getty@tty1,e2scrub_reap}.service \
  {dev-hugepages,sys-kernel-debug,sys-kernel-tracing,sys-kernel-config,sys-fs-fuse-connections}.mount; do
  ln -sf /dev/null "$units/$unit"
done

cd "$root"
mkdir .before
pivot_root . .before
exec env -i container=pertoken-test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  chroot . /bin/bash -c 'umount -l /.before; rmdir /.before; exec /lib/systemd/systemd --system --log-target=journal --show-status=0' </dev/null
