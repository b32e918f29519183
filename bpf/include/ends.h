/* SPDX-License-Identifier: GPL-2.0-only */
/* The two ends of a connection. */
#ifndef ENDS_H
#define ENDS_H

#include "abi.h"
#include "address.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct ends {
    bool is_v4; /* the addresses are IPv4 */
    struct ip_addr local;
    struct ip_addr remote;
    __u16 local_port;  /* host order */
    __u16 remote_port; /* host order */
};

/* Volatile, and read before any branch: otherwise clang likes to select the address of one of two
 * fields and to load once, and the verifier prohibits arithmetic on a socket's pointer. */
#define SK_READ(sk, field) (*(const volatile __typeof__((sk)->field) *)&(sk)->field)

/* As the socket itself names them: of an AF_INET6 socket as IPv6, v4-mapped or not. `sk` may be any
 * sock_common of AF_INET or AF_INET6. */
static __always_inline struct ends socket_ends_of(struct bpf_sock *sk)
{
    __u32 local_ip4 = SK_READ(sk, src_ip4);
    __u32 remote_ip4 = SK_READ(sk, dst_ip4);
    struct ends ends = {
        /* The kernel gives the local port in host order and the remote one in network order. */
        .local_port = SK_READ(sk, src_port),
        .remote_port = bpf_ntohs(SK_READ(sk, dst_port)),
        .local.ip6 = {SK_READ(sk, src_ip6[0]), SK_READ(sk, src_ip6[1]), SK_READ(sk, src_ip6[2]),
                      SK_READ(sk, src_ip6[3])},
        .remote.ip6 = {SK_READ(sk, dst_ip6[0]), SK_READ(sk, dst_ip6[1]), SK_READ(sk, dst_ip6[2]),
                       SK_READ(sk, dst_ip6[3])},
    };

    if (SK_READ(sk, family) == AF_INET) {
        ends.is_v4 = true;
        ends.local = (struct ip_addr){.ip6 = {local_ip4}};
        ends.remote = (struct ip_addr){.ip6 = {remote_ip4}};
    }
    return ends;
}

/* As the mesh names them: a v4-mapped pair is an IPv4 pair. */
static __always_inline struct ends ends_of(struct bpf_sock *sk)
{
    struct ends ends = socket_ends_of(sk);

    if (!ends.is_v4 && is_v4_mapped(&ends.local)) {
        ends.is_v4 = true;
        unmap_v4(&ends.local);
        unmap_v4(&ends.remote);
    }
    return ends;
}

/* Only the bytes of the family; whoever passes `tuple` has zeroed it. */
static __always_inline void write_tuple(struct bpf_sock_tuple *tuple, bool is_v4,
                                        const struct ip_addr *from, __u16 from_port,
                                        const struct ip_addr *to, __u16 to_port)
{
    if (is_v4) {
        tuple->ipv4.saddr = from->ip4;
        tuple->ipv4.daddr = to->ip4;
        tuple->ipv4.sport = from_port;
        tuple->ipv4.dport = to_port;
        return;
    }
    __builtin_memcpy(tuple->ipv6.saddr, from->ip6, sizeof(from->ip6));
    __builtin_memcpy(tuple->ipv6.daddr, to->ip6, sizeof(to->ip6));
    tuple->ipv6.sport = from_port;
    tuple->ipv6.dport = to_port;
}

#endif
