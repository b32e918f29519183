/* SPDX-License-Identifier: GPL-2.0-only */
/* Pointers that a call released or moved, and releases of what is not held; each with its remedy. */
#include "program.h"

#include <linux/pkt_cls.h>

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} events SEC(".maps");

SEC("xdp")
int used_after_submit(struct xdp_md *ctx)
{
    volatile __u32 *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

    if (!event)
        return XDP_PASS;
    bpf_ringbuf_submit((void *)event, 0);
    return *event ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int used_before_submit(struct xdp_md *ctx)
{
    volatile __u32 *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
    __u32 seen;

    if (!event)
        return XDP_PASS;
    seen = *event;
    bpf_ringbuf_submit((void *)event, 0);
    return seen ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int reads_after_move(struct xdp_md *ctx)
{
    volatile __u8 *data = (void *)(long)ctx->data;

    if ((void *)(data + 1) > (void *)(long)ctx->data_end)
        return XDP_PASS;
    if (bpf_xdp_adjust_head(ctx, 4))
        return XDP_PASS;
    return *data ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int reads_anew_after_move(struct xdp_md *ctx)
{
    volatile __u8 *data;

    if (bpf_xdp_adjust_head(ctx, 4))
        return XDP_PASS;
    data = (void *)(long)ctx->data;
    if ((void *)(data + 1) > (void *)(long)ctx->data_end)
        return XDP_PASS;
    return *data ? XDP_PASS : XDP_DROP;
}

static struct bpf_sock *found(struct __sk_buff *skb)
{
    struct bpf_sock_tuple tuple = {};

    return bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
}

SEC("tc")
int releases_twice(struct __sk_buff *skb)
{
    struct bpf_sock *sk = found(skb);

    if (!sk)
        return TC_ACT_OK;
    bpf_sk_release(sk);
    bpf_sk_release(sk);
    return TC_ACT_OK;
}

SEC("tc")
int releases_once(struct __sk_buff *skb)
{
    struct bpf_sock *sk = found(skb);

    if (sk)
        bpf_sk_release(sk);
    return TC_ACT_OK;
}

SEC("tc")
int releases_what_it_does_not_hold(struct __sk_buff *skb)
{
    struct bpf_sock *sk = skb->sk;

    if (!sk)
        return TC_ACT_OK;
    sk = bpf_sk_fullsock(sk);
    if (!sk)
        return TC_ACT_OK;
    bpf_sk_release(sk);
    return TC_ACT_OK;
}
