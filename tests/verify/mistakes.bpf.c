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

struct {
    __uint(type, BPF_MAP_TYPE_SOCKHASH);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} sockets SEC(".maps");

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

SEC("xdp")
__attribute__((naked)) int malformed(void)
{
    asm volatile(".8byte 0x00000000000010b7; r0 = 0; exit");
}

SEC("xdp")
__attribute__((naked)) int malformed_cured(void)
{
    asm volatile("r0 = 0; exit");
}

SEC("xdp")
__attribute__((naked)) int loads_by_classic(void)
{
    asm volatile("r6 = r1; r0 = *(u8 *)skb[0]; exit");
}

SEC("tc")
int loads_by_classic_cured(struct __sk_buff *skb)
{
    __u8 first = 0;

    return bpf_skb_load_bytes(skb, 0, &first, sizeof(first));
}

SEC("xdp")
__attribute__((naked)) int outside(void)
{
    asm volatile("r1 = 0; *(u64 *)(r10 + 8) = r1; r0 = 0; exit");
}

SEC("xdp")
__attribute__((naked)) int outside_cured(void)
{
    asm volatile("r1 = 0; *(u64 *)(r10 - 8) = r1; r0 = 0; exit");
}

SEC("xdp")
__attribute__((naked)) int misaligned(void)
{
    asm volatile("r1 = 0; *(u64 *)(r10 - 13) = r1; r0 = 0; exit");
}

SEC("xdp")
__attribute__((naked)) int misaligned_cured(void)
{
    asm volatile("r1 = 0; *(u64 *)(r10 - 16) = r1; r0 = 0; exit");
}

SEC("tc")
__attribute__((naked)) int counts_in_context(void)
{
    asm volatile("r2 = 1; lock *(u32 *)(r1 + 8) += r2; r0 = 0; exit");
}

SEC("tc")
int counts_in_context_cured(struct __sk_buff *skb)
{
    __u32 key = 0;
    __u64 *count = bpf_map_lookup_elem(&counts, &key);

    if (count)
        __sync_fetch_and_add(count, 1);
    return 0;
}

SEC("xdp")
int pushes(struct xdp_md *ctx)
{
    __u64 value = 1;

    return bpf_map_push_elem(&counts, &value, 0) ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int pushes_cured(struct xdp_md *ctx)
{
    __u32 key = 0;
    __u64 value = 1;

    return bpf_map_update_elem(&counts, &key, &value, 0) ? XDP_PASS : XDP_DROP;
}

SEC("kprobe/do_nanosleep")
int traces_locked(void *ctx)
{
    __u32 key = 0;

    return bpf_map_lookup_elem(&locked, &key) != NULL;
}

SEC("kprobe/do_nanosleep")
int traces_locked_cured(void *ctx)
{
    __u32 key = 0;

    return bpf_map_lookup_elem(&counts, &key) != NULL;
}

SEC("tc")
int locks_nothing(struct __sk_buff *skb)
{
    __u32 key = 0;
    struct bpf_spin_lock *lock = bpf_map_lookup_elem(&counts, &key);

    if (lock) {
        bpf_spin_lock(lock);
        bpf_spin_unlock(lock);
    }
    return 0;
}

SEC("fentry/tcp_connect")
int fills_sockets(unsigned long long *ctx)
{
    __u32 key = 0;

    return bpf_map_update_elem(&sockets, &key, (void *)ctx[0], 0);
}

SEC("sockops")
int fills_sockets_cured(struct bpf_sock_ops *ctx)
{
    __u32 key = 0;

    return bpf_sock_hash_update(ctx, &sockets, &key, 0) == 0;
}

__attribute__((noinline)) int of_anything(void *anything)
{
    return anything && *(volatile char *)anything;
}

SEC("xdp")
int calls_global(struct xdp_md *ctx)
{
    char something = 0;

    return of_anything(&something) ? XDP_PASS : XDP_DROP;
}

static __attribute__((noinline)) int of_anything_cured(void *anything)
{
    return anything && *(volatile char *)anything;
}

SEC("xdp")
int calls_global_cured(struct xdp_md *ctx)
{
    char something = 0;

    return of_anything_cured(&something) ? XDP_PASS : XDP_DROP;
}

SEC("tp_btf/sched_switch")
int beyond(unsigned long long *ctx)
{
    return *(volatile int *)(ctx[1] + 999996);
}

SEC("tp_btf/sched_switch")
int beyond_cured(unsigned long long *ctx)
{
    int value = 0;

    bpf_probe_read_kernel(&value, sizeof(value), (void *)ctx[1]);
    return value;
}

SEC("fentry/bpf_fentry_test1")
int third_argument(unsigned long long *ctx)
{
    asm volatile("" : : "r"(ctx[2]));
    return 0;
}

SEC("fentry/bpf_fentry_test1")
int third_argument_cured(unsigned long long *ctx)
{
    asm volatile("" : : "r"(ctx[0]));
    return 0;
}

SEC("lsm/bprm_committed_creds")
int may_sleep(unsigned long long *ctx)
{
    int value = 0;

    bpf_copy_from_user(&value, sizeof(value), NULL);
    return 0;
}

SEC("lsm.s/bprm_committed_creds")
int may_sleep_cured(unsigned long long *ctx)
{
    int value = 0;

    bpf_copy_from_user(&value, sizeof(value), NULL);
    return 0;
}
