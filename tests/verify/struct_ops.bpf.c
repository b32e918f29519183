/* SPDX-License-Identifier: GPL-2.0-only */
/* A congestion control that every kernel registers. */
#include "congestion.h"

SEC("struct_ops/ssthresh")
int ssthresh(unsigned long long *ctx)
{
    return 2;
}

SEC(".struct_ops")
struct tcp_congestion_ops whole = {
    .ssthresh = (void *)ssthresh,
    .cong_avoid = (void *)cong_avoid,
    .undo_cwnd = (void *)undo_cwnd,
    .name = "vmtest_whole",
};
