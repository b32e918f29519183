/* SPDX-License-Identifier: GPL-2.0-only */
/* A mistake that every kernel's verifier refuses, and beside it the same program with the remedy. */
#include "program.h"

struct counter {
    struct bpf_spin_lock lock;
    __u64 count;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} counts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct counter);
} locked SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_RDONLY_PROG);
    __type(key, __u32);
    __type(value, __u64);
} settings SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} events SEC(".maps");

SEC("xdp")
int null(struct xdp_md *ctx)
{
    __u32 key = ctx->rx_queue_index;
    __u64 *count = bpf_map_lookup_elem(&counts, &key);

    return *count ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int null_cured(struct xdp_md *ctx)
{
    __u32 key = ctx->rx_queue_index;
    __u64 *count = bpf_map_lookup_elem(&counts, &key);

    return count && *count ? XDP_PASS : XDP_DROP;
}

SEC("kprobe/tcp_connect")
int scalar(unsigned long *ctx)
{
    return *(volatile int *)ctx[0];
}

SEC("kprobe/tcp_connect")
int scalar_cured(unsigned long *ctx)
{
    int value = 0;

    bpf_probe_read_kernel(&value, sizeof(value), (void *)ctx[0]);
    return value;
}

SEC("xdp")
int bounds(struct xdp_md *ctx)
{
    __u32 key = 0;
    char *count = bpf_map_lookup_elem(&counts, &key);

    return count && count[ctx->ingress_ifindex] ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int bounds_cured(struct xdp_md *ctx)
{
    __u32 key = 0;
    char *count = bpf_map_lookup_elem(&counts, &key);

    return count && count[ctx->ingress_ifindex & 7] ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
__attribute__((naked)) int unset(void)
{
    asm volatile("exit");
}

SEC("xdp")
__attribute__((naked)) int unset_cured(void)
{
    asm volatile("r0 = 0; exit");
}

SEC("cgroup_skb/ingress")
int returns(struct __sk_buff *skb)
{
    return 2;
}

SEC("cgroup_skb/ingress")
int returns_cured(struct __sk_buff *skb)
{
    return 1;
}

SEC("xdp")
int leaks(struct xdp_md *ctx)
{
    return bpf_ringbuf_reserve(&events, 8, 0) ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int leaks_cured(struct xdp_md *ctx)
{
    void *event = bpf_ringbuf_reserve(&events, 8, 0);

    if (event)
        bpf_ringbuf_discard(event, 0);
    return XDP_PASS;
}

SEC("cgroup_skb/ingress")
int context(struct __sk_buff *skb)
{
    return skb->tc_classid != 0;
}

SEC("cgroup_skb/ingress")
int context_cured(struct __sk_buff *skb)
{
    return skb->len != 0;
}

SEC("xdp")
int writes(struct xdp_md *ctx)
{
    __u32 key = 0;
    __u64 *value = bpf_map_lookup_elem(&settings, &key);

    if (value)
        *value = 1;
    return XDP_PASS;
}

SEC("xdp")
int writes_cured(struct xdp_md *ctx)
{
    __u32 key = 0;
    __u64 *value = bpf_map_lookup_elem(&counts, &key);

    if (value)
        *value = 1;
    return XDP_PASS;
}

SEC("tc")
int locks(struct __sk_buff *skb)
{
    __u32 key = 0;
    struct counter *counter = bpf_map_lookup_elem(&locked, &key);

    if (counter)
        bpf_spin_lock(&counter->lock);
    return 0;
}

SEC("tc")
int locks_cured(struct __sk_buff *skb)
{
    __u32 key = 0;
    struct counter *counter = bpf_map_lookup_elem(&locked, &key);

    if (counter) {
        bpf_spin_lock(&counter->lock);
        bpf_spin_unlock(&counter->lock);
    }
    return 0;
}

SEC("xdp")
int argument(struct xdp_md *ctx)
{
    return bpf_map_lookup_elem(&counts, ctx) ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int argument_cured(struct xdp_md *ctx)
{
    __u32 key = ctx->rx_queue_index;

    return bpf_map_lookup_elem(&counts, &key) ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
__attribute__((naked)) int calculates(void)
{
    asm volatile("r1 *= 2; r0 = 0; exit");
}

SEC("xdp")
__attribute__((naked)) int calculates_cured(void)
{
    asm volatile("r0 = 2; r0 *= 2; r0 = 0; exit");
}

SEC("xdp")
__attribute__((naked)) int unreachable(void)
{
    asm volatile("r0 = 0; exit; r0 = 1; exit");
}

SEC("xdp")
__attribute__((naked)) int unreachable_cured(void)
{
    asm volatile("r0 = 0; exit");
}
