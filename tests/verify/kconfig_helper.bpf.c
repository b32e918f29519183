/* SPDX-License-Identifier: GPL-2.0-only */
/* A helper that a kernel has only with CONFIG_BPF_KPROBE_OVERRIDE. */
#include <linux/ptrace.h>

#include "program.h"

SEC("kprobe/do_nanosleep")
int overrides(struct pt_regs *ctx)
{
    bpf_override_return(ctx, 0);
    return 0;
}
