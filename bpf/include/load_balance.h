/* SPDX-License-Identifier: GPL-2.0-only */
/* Where a dialled address leads: km_frontend -> km_service -> km_endpoint -> km_backend.
 *
 * resolve() only computes; what becomes of the socket is the caller's business.
 */
#ifndef LOAD_BALANCE_H
#define LOAD_BALANCE_H

#include "abi.h"
#include "address.h"
#include "log.h"
#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 105000);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct ip_addr);
    __type(value, __u32); /* id of a service or of a backend */
} km_frontend SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 5000);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u32);
    __type(value, struct service_value);
} km_service SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 105000);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct endpoint_key);
    __type(value, __u32); /* id of a backend */
} km_endpoint SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 100000);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u32);
    __type(value, struct backend_value);
} km_backend SEC(".maps");

/* What is to be done with a connection. */
enum route {
    ROUTE_LEAVE,    /* nothing */
    ROUTE_REMEMBER, /* the destination stays, but is remembered as the original one */
    ROUTE_REDIRECT, /* to a backend */
    ROUTE_WAYPOINT, /* to a waypoint, which forwards to the original destination */
};

struct destination {
    struct ip_addr addr;
    __u32 port; /* network order */
};

static __always_inline enum route to_waypoint(const struct ip_addr *addr, __u32 port,
                                              struct destination *to)
{
    to->addr = *addr;
    to->port = port;
    return ROUTE_WAYPOINT;
}

/* One of the endpoints of a priority, each as likely as another. */
static __always_inline enum route to_endpoint(__u32 service_id, const struct service_value *service,
                                              __u32 prio, __u32 count, __u32 port,
                                              struct destination *to)
{
    struct endpoint_key key = {
        .service_id = service_id,
        .prio = prio,
        .backend_index = bpf_get_prandom_u32() % count + 1,
    };
    struct backend_value *backend;
    __u32 *backend_id;

    backend_id = bpf_map_lookup_elem(&km_endpoint, &key);
    backend = backend_id ? bpf_map_lookup_elem(&km_backend, backend_id) : NULL;
    if (!backend) {
        /* User space fills several maps, not at one instant: the count can be ahead. */
        LOG(LOG_WARN, "cgroup_sock: an endpoint is counted but absent");
        return ROUTE_LEAVE;
    }
    if (backend->waypoint_port)
        return to_waypoint(&backend->wp_addr, backend->waypoint_port, to);

#pragma unroll
    for (int i = 0; i < SERVICE_PORTS; i++) {
        if (service->service_port[i] == port) {
            to->addr = backend->addr;
            to->port = service->target_port[i];
            return ROUTE_REDIRECT;
        }
    }
    return ROUTE_LEAVE;
}

static __always_inline enum route to_service(__u32 service_id, const struct service_value *service,
                                             __u32 port, struct destination *to)
{
    __u32 count = service->prio_endpoint_count[0];
    __u32 prio = 0;

    if (service->waypoint_port && !is_zero(&service->wp_addr))
        return to_waypoint(&service->wp_addr, service->waypoint_port, to);

    switch (service->lb_policy) {
    case LB_RANDOM:
        if (!count)
            return ROUTE_REMEMBER;
        break;
    case LB_LOCALITY_STRICT:
        break;
    case LB_LOCALITY_FAILOVER:
#pragma unroll
        for (int i = 1; i < PRIORITIES; i++) {
            if (!count) {
                prio = i;
                count = service->prio_endpoint_count[i];
            }
        }
        break;
    default:
        return ROUTE_LEAVE;
    }
    if (!count)
        return ROUTE_LEAVE;
    return to_endpoint(service_id, service, prio, count, port, to);
}

/* A pod dialled by its own address is not balanced, but its waypoint still comes first. */
static __always_inline enum route to_backend(const struct backend_value *backend,
                                             struct destination *to)
{
    if (backend->waypoint_port)
        return to_waypoint(&backend->wp_addr, backend->waypoint_port, to);
    return ROUTE_REMEMBER;
}

/* `addr` as unmap_v4() leaves it, `port` in network order. Fills `to` for ROUTE_REDIRECT and
 * ROUTE_WAYPOINT. */
static __always_inline enum route resolve(const struct ip_addr *addr, __u32 port,
                                          struct destination *to)
{
    struct service_value *service;
    struct backend_value *backend;
    __u32 *upstream_id;

    upstream_id = bpf_map_lookup_elem(&km_frontend, addr);
    if (!upstream_id)
        return ROUTE_LEAVE;
    service = bpf_map_lookup_elem(&km_service, upstream_id);
    if (service)
        return to_service(*upstream_id, service, port, to);
    backend = bpf_map_lookup_elem(&km_backend, upstream_id);
    if (backend)
        return to_backend(backend, to);
    return ROUTE_LEAVE;
}

#endif
