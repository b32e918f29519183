/* SPDX-License-Identifier: GPL-2.0-only */
/* Which network namespaces and which addresses the mesh takes care of: km_manage. */
#ifndef MANAGE_H
#define MANAGE_H

#include "abi.h"
#include "address.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 8192);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct manager_key);
    __type(value, __u32);
} km_manage SEC(".maps");

/* A control connection is a message from the container runtime's side (a CNI plugin, say) to these
 * programs: it runs in a pod's network namespace and dials 0.0.0.2 or ::2, where nobody listens. */
#define CONTROL_HOST  2
#define MANAGE_PORT   929
#define UNMANAGE_PORT 930

/* `addr` as unmap_v4() leaves it, `port` in network order. */
static __always_inline bool is_control_peer(const struct ip_addr *addr, __u32 port)
{
    if (port != bpf_htons(MANAGE_PORT) && port != bpf_htons(UNMANAGE_PORT))
        return false;
    if (addr->ip6[1] || addr->ip6[2])
        return false;
    return (addr->ip6[0] == bpf_htonl(CONTROL_HOST) && addr->ip6[3] == 0) ||
           (addr->ip6[0] == 0 && addr->ip6[3] == bpf_htonl(CONTROL_HOST));
}

/* For connections that their local address, and not their namespace, makes the mesh's own: the
 * value must be 0. */
static __always_inline bool is_managed_address(const struct ip_addr *local)
{
    struct manager_key key = {.addr = *local};
    __u32 *value = bpf_map_lookup_elem(&km_manage, &key);

    return value && *value == 0;
}

/* bpf_get_netns_cookie: 5.7, commit f318903c0bf4. */
static __always_inline bool is_managed_netns(struct bpf_sock_addr *ctx)
{
    struct manager_key key = {.addr = {}};

    key.netns_cookie = bpf_get_netns_cookie(ctx);
    return bpf_map_lookup_elem(&km_manage, &key) != NULL;
}

/* What a control connection to `port` (network order) says of `key`. */
static __always_inline void manage(const struct manager_key *key, __u32 port)
{
    __u32 value = 0;

    if (port == bpf_htons(MANAGE_PORT))
        bpf_map_update_elem(&km_manage, key, &value, BPF_ANY);
    else
        bpf_map_delete_elem(&km_manage, key);
}

/* Obeys a control connection, for the caller's network namespace. False: it was none. */
static __always_inline bool obey_control_connection(struct bpf_sock_addr *ctx,
                                                    const struct ip_addr *addr, __u32 port)
{
    struct manager_key key = {.addr = {}};

    if (!is_control_peer(addr, port))
        return false;
    key.netns_cookie = bpf_get_netns_cookie(ctx);
    manage(&key, port);
    return true;
}

#endif
