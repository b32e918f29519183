/* SPDX-License-Identifier: GPL-2.0-only */
/* One PROG_ARRAY of two programs of one type, for two attach types. */
#include "program.h"

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} tails SEC(".maps");

SEC("cgroup/connect4")
int from_ipv4(struct bpf_sock_addr *ctx)
{
    bpf_tail_call(ctx, &tails, 0);
    return 1;
}

SEC("cgroup/connect6")
int from_ipv6(struct bpf_sock_addr *ctx)
{
    bpf_tail_call(ctx, &tails, 0);
    return 1;
}
