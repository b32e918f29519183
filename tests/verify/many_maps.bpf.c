/* SPDX-License-Identifier: GPL-2.0-only */
/* More maps than one program may use, and the same values in one map. */
#include "program.h"

#define MAP(name)                                                                                  \
    struct {                                                                                       \
        __uint(type, BPF_MAP_TYPE_ARRAY);                                                          \
        __uint(max_entries, 1);                                                                    \
        __type(key, __u32);                                                                        \
        __type(value, __u32);                                                                      \
    } name SEC(".maps");
#define EIGHT(each, a)                                                                             \
    each(a##0) each(a##1) each(a##2) each(a##3) each(a##4) each(a##5) each(a##6) each(a##7)
#define ALL(each)                                                                                  \
    EIGHT(each, a)                                                                                 \
    EIGHT(each, b)                                                                                 \
    EIGHT(each, c)                                                                                 \
    EIGHT(each, d) EIGHT(each, e) EIGHT(each, f) EIGHT(each, g) EIGHT(each, h) each(last)
#define LOOK(name) found += bpf_map_lookup_elem(&name, &key) != NULL;

ALL(MAP)

SEC("xdp")
int uses_all(struct xdp_md *ctx)
{
    __u32 key = 0, found = 0;

    ALL(LOOK)
    return found ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int uses_all_cured(struct xdp_md *ctx)
{
    __u32 key = 0, found = 0;

    LOOK(a0)
    return found ? XDP_PASS : XDP_DROP;
}
