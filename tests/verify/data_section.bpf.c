/* SPDX-License-Identifier: GPL-2.0-only */
/* Data in a section of its own, by a name that libbpf knows. */
#include "program.h"

volatile int limit SEC(".data.config") = 1;

SEC("xdp")
int reads_data_of_its_own_section(struct xdp_md *ctx)
{
    return limit ? XDP_PASS : XDP_DROP;
}
