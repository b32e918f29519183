/* SPDX-License-Identifier: GPL-2.0-only */
/* The header a waypoint reads in front of a connection's first byte.
 *
 * A sequence of type (u8), length (u32, big-endian), value: the original destination, then the end.
 */
#ifndef TLV_H
#define TLV_H

#include "abi.h"
#include <bpf/bpf_endian.h>

enum tlv_type {
    TLV_ORIGINAL_DESTINATION = 0x01,
    TLV_END = 0xfe,
};

struct tlv_v4 {
    __u8 type;
    __be32 length;
    __be32 addr;
    __be16 port;
    __u8 end_type;
    __be32 end_length;
} __attribute__((packed));
SIZE_IS(struct tlv_v4, 16);

struct tlv_v6 {
    __u8 type;
    __be32 length;
    __be32 addr[4];
    __be16 port;
    __u8 end_type;
    __be32 end_length;
} __attribute__((packed));
SIZE_IS(struct tlv_v6, 28);

#define TLV_V4_LENGTH (sizeof(__be32) + sizeof(__be16))
#define TLV_V6_LENGTH (4 * sizeof(__be32) + sizeof(__be16))

static __always_inline struct tlv_v4 tlv_of_v4(const struct bpf_sock_tuple *original)
{
    struct tlv_v4 header = {
        .type = TLV_ORIGINAL_DESTINATION,
        .length = bpf_htonl(TLV_V4_LENGTH),
        .addr = original->ipv4.daddr,
        .port = original->ipv4.dport,
        .end_type = TLV_END,
        .end_length = 0,
    };
    return header;
}

static __always_inline struct tlv_v6 tlv_of_v6(const struct bpf_sock_tuple *original)
{
    struct tlv_v6 header = {
        .type = TLV_ORIGINAL_DESTINATION,
        .length = bpf_htonl(TLV_V6_LENGTH),
        .port = original->ipv6.dport,
        .end_type = TLV_END,
        .end_length = 0,
    };
    __builtin_memcpy(header.addr, original->ipv6.daddr, sizeof(header.addr));
    return header;
}

#endif
