/* SPDX-License-Identifier: GPL-2.0-only */
/* Addresses of either family. */
#ifndef ADDRESS_H
#define ADDRESS_H

#include "abi.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* uapi headers have no AF_*: they belong to libc's sys/socket.h. */
#define AF_INET  2
#define AF_INET6 10

/* ::ffff:a.b.c.d, an IPv4 peer of an AF_INET6 socket (RFC 4291, 2.5.5.2). */
static __always_inline bool is_v4_mapped(const struct ip_addr *addr)
{
    return addr->ip6[0] == 0 && addr->ip6[1] == 0 && addr->ip6[2] == bpf_htonl(0xffff);
}

/* The maps know a v4-mapped address as plain IPv4. */
static __always_inline void unmap_v4(struct ip_addr *addr)
{
    addr->ip4 = addr->ip6[3];
    addr->ip6[1] = 0;
    addr->ip6[2] = 0;
    addr->ip6[3] = 0;
}

static __always_inline bool is_zero(const struct ip_addr *addr)
{
    return !(addr->ip6[0] | addr->ip6[1] | addr->ip6[2] | addr->ip6[3]);
}

/* Whether an IPv4 socket can go there. The union does not say which family it holds, but no IPv6
 * address in use has 96 trailing zero bits. */
static __always_inline bool fits_ipv4(const struct ip_addr *addr)
{
    return !(addr->ip6[1] | addr->ip6[2] | addr->ip6[3]);
}

#endif
