// SPDX-License-Identifier: GPL-2.0-only
/* Somebody else's sockops program, which runs beside ours: it wants to be told round trip times,
 * and congestion to be told to its connections. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define NO_OPINION 1

__u32 round_trips = 0;
__u32 callbacks = 0; /* what a socket calls for, as of its last change of state */

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
    case BPF_SOCK_OPS_STATE_CB:
        callbacks = ctx->bpf_sock_ops_cb_flags;
        break;
    case BPF_SOCK_OPS_NEEDS_ECN:
        ctx->reply = 1;
        break;
    }
    return NO_OPINION;
}

char _license[] SEC("license") = "GPL";
