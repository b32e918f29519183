/* SPDX-License-Identifier: GPL-2.0-only */
/* What the struct_ops programs here have in common: the operations of a congestion control. */
#ifndef CONGESTION_H
#define CONGESTION_H

#include "program.h"

/* libbpf finds the members in the kernel's own struct by their names: these are enough. */
struct tcp_congestion_ops {
    __u32 (*ssthresh)(void *sk);
    void (*cong_avoid)(void *sk, __u32 ack, __u32 acked);
    __u32 (*undo_cwnd)(void *sk);
    char name[16];
};

SEC("struct_ops/undo_cwnd")
int undo_cwnd(unsigned long long *ctx)
{
    return 2;
}

SEC("struct_ops/cong_avoid")
int cong_avoid(unsigned long long *ctx)
{
    return 0;
}

#endif
