/* SPDX-License-Identifier: GPL-2.0-only */
/* What the object itself asks of the kernel's config: Debian's rt flavour has it, amd64 has not. */
#include "program.h"

extern bool CONFIG_PREEMPT_RT __kconfig;

SEC("xdp")
int is_preemptible(struct xdp_md *ctx)
{
    return CONFIG_PREEMPT_RT ? XDP_PASS : XDP_DROP;
}
