/* SPDX-License-Identifier: GPL-2.0-only */
/* An address in an arena is a number until it is cast, which clang does from 19 on; or by hand. */
#include "program.h"

struct {
    __uint(type, 33);           /* BPF_MAP_TYPE_ARENA: the host's header may lack it */
    __uint(map_flags, 1 << 10); /* BPF_F_MMAPABLE */
    __uint(max_entries, 1);
} arena SEC(".maps");

void *bpf_arena_alloc_pages(void *map, void *address, __u32 pages, int node, __u64 flags) __ksym;

/* The instruction `rX = addr_space_cast(rX, 0, 1)`, by its bytes: this assembler need not know it. */
static void *to_kernel(void *address)
{
    register void *cast asm("r1") = address;

    asm volatile(".byte 0xbf, 0x11, 0x01, 0x00, 0x01, 0x00, 0x00, 0x00" : "+r"(cast));
    return cast;
}

SEC("syscall")
int writes_without_a_cast(void *ctx)
{
    volatile __u64 *page = bpf_arena_alloc_pages(&arena, NULL, 1, -1, 0);

    if (page)
        *page = 1;
    return 0;
}

SEC("syscall")
int writes_after_a_cast(void *ctx)
{
    volatile __u64 *page = bpf_arena_alloc_pages(&arena, NULL, 1, -1, 0);

    if (page) {
        page = to_kernel((void *)page);
        *page = 1;
    }
    return 0;
}
