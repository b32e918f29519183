/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A packet's byte read the old way (BPF_LD | BPF_ABS) in a callback of bpf_loop(). Such a load
 * leaves its function when the packet is too short, with a return value that a callback
 * must not have. 6.12.101 ("bpf: Fix ld_{abs,ind} failure path analysis in subprogs") stumbles over
 * it, with a warning in the kernel's log; 6.12.115 ("bpf: Reject legacy packet loads from
 * callbacks") refuses it by name.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

unsigned long long load_byte(void *skb, unsigned long long offset) asm("llvm.bpf.load.byte");

struct sum {
    struct __sk_buff *skb;
    __u64 bytes;
};

static int add(__u32 n, struct sum *sum)
{
    sum->bytes += load_byte(sum->skb, 0);
    return n > 8;
}

SEC("tc")
int sums(struct __sk_buff *skb)
{
    struct sum sum = {.skb = skb};

    bpf_loop(4, add, &sum, 0);
    return sum.bytes & 1;
}

char _license[] SEC("license") = "GPL";
