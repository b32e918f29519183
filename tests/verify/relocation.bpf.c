/* SPDX-License-Identifier: GPL-2.0-only */
/* Data in a section in which libbpf looks for none. */
#include "program.h"

volatile int limit SEC("config") = 1;

SEC("xdp")
int reads_data_of_a_section_config(struct xdp_md *ctx)
{
    return limit ? XDP_PASS : XDP_DROP;
}
