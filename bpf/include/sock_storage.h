/* SPDX-License-Identifier: GPL-2.0-only */
/* What the programs remember of one socket: km_sockstorage.
 *
 * connect4 and connect6 create it, sendmsg and cgroup_skb only read and mark it.
 */
#ifndef SOCK_STORAGE_H
#define SOCK_STORAGE_H

#include "abi.h"
#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct sock_storage_data);
} km_sockstorage SEC(".maps");

/* `port` in network order, as are all of these. */
static __always_inline void store_original_v4(struct sock_storage_data *storage, __u32 ip4,
                                              __u16 port)
{
    storage->orig_dst.ipv4.daddr = ip4;
    storage->orig_dst.ipv4.dport = port;
    storage->has_set_ip = true;
}

static __always_inline void store_original_v6(struct sock_storage_data *storage,
                                              const struct ip_addr *ip6, __u16 port)
{
    storage->orig_dst.ipv6.daddr[0] = ip6->ip6[0];
    storage->orig_dst.ipv6.daddr[1] = ip6->ip6[1];
    storage->orig_dst.ipv6.daddr[2] = ip6->ip6[2];
    storage->orig_dst.ipv6.daddr[3] = ip6->ip6[3];
    storage->orig_dst.ipv6.dport = port;
    storage->has_set_ip = true;
}

#endif
