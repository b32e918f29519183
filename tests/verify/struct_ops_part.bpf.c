/* SPDX-License-Identifier: GPL-2.0-only */
/* A congestion control without ssthresh: its programs are right, and no kernel registers it. */
#include "congestion.h"

SEC(".struct_ops")
struct tcp_congestion_ops part = {
    .cong_avoid = (void *)cong_avoid,
    .undo_cwnd = (void *)undo_cwnd,
    .name = "vmtest_part",
};
