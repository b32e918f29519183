// SPDX-License-Identifier: GPL-2.0-only
/* Somebody else's sockops program, which runs beside ours: it wants to be told round trip times. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define NO_OPINION 1

__u32 round_trips = 0;

SEC("sockops")
int count_round_trips(struct bpf_sock_ops *ctx)
{
    switch (ctx->op) {
    case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
        bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_RTT_CB_FLAG);
        break;
    case BPF_SOCK_OPS_RTT_CB:
        round_trips++;
        break;
    }
    return NO_OPINION;
}

char _license[] SEC("license") = "GPL";
