/* SPDX-License-Identifier: GPL-2.0-only */
/* A variable of the kernel, an int, declared as a structure. */
#include "program.h"

extern const struct {
    int member;
} bpf_prog_active __ksym;

SEC("xdp")
int asks(struct xdp_md *ctx)
{
    return bpf_this_cpu_ptr(&bpf_prog_active) ? XDP_PASS : XDP_DROP;
}
