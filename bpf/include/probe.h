/* SPDX-License-Identifier: GPL-2.0-only */
/* Reports on TCP connections: km_tcp_probe. */
#ifndef PROBE_H
#define PROBE_H

#include "abi.h"
#include "ends.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <linux/in.h>

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 256 * 1024);
} km_tcp_probe SEC(".maps");

/* Switch of user space, at any time. */
__u32 enable_monitoring = 1;

/* An AF_INET6 socket stored its original destination in v6 form, a v4-mapped one too: there the
 * IPv4 address is the last word. */
static __always_inline void write_original(struct orig_dst_info *to, bool is_v4, bool is_v6_socket,
                                           const struct bpf_sock_tuple *original)
{
    if (is_v4) {
        to->ipv4.addr = is_v6_socket ? original->ipv6.daddr[3] : original->ipv4.daddr;
        to->ipv4.port = bpf_ntohs(is_v6_socket ? original->ipv6.dport : original->ipv4.dport);
        return;
    }
    __builtin_memcpy(to->ipv6.addr, original->ipv6.daddr, sizeof(to->ipv6.addr));
    to->ipv6.port = bpf_ntohs(original->ipv6.dport);
}

/* False: the ring is full, and nothing was reported. */
static __always_inline bool report(const struct ends *ends, bool is_v6_socket,
                                   const struct bpf_tcp_sock *tcp,
                                   const struct sock_storage_data *storage, enum probe_state state,
                                   __u64 now)
{
    struct tcp_probe_info *info = bpf_ringbuf_reserve(&km_tcp_probe, sizeof(*info), 0);

    if (!info)
        return false;
    /* Ring memory holds older records: what is not written below must not show through. */
    __builtin_memset(info, 0, sizeof(*info));
    info->type = ends->is_v4 ? PROBE_IPV4 : PROBE_IPV6;
    if (storage->direction == DIRECTION_OUTBOUND)
        write_tuple(&info->tuple, ends->is_v4, &ends->local, ends->local_port, &ends->remote,
                    ends->remote_port);
    else if (storage->direction == DIRECTION_INBOUND)
        write_tuple(&info->tuple, ends->is_v4, &ends->remote, ends->remote_port, &ends->local,
                    ends->local_port);
    if (storage->has_set_ip)
        write_original(&info->orig_dst, ends->is_v4, is_v6_socket, &storage->orig_dst);
    info->sent_bytes = tcp->bytes_acked;
    info->received_bytes = tcp->bytes_received;
    info->conn_success = storage->connect_success;
    info->direction = storage->direction;
    info->state = state;
    info->duration = now - storage->connect_ns;
    info->start_ns = storage->connect_ns;
    info->last_report_ns = now;
    info->protocol = IPPROTO_TCP;
    info->srtt_us = tcp->srtt_us;
    info->rtt_min = tcp->rtt_min;
    info->total_retrans = tcp->total_retrans;
    info->lost_out = tcp->lost_out;
    bpf_ringbuf_submit(info, 0);
    return true;
}

#endif
