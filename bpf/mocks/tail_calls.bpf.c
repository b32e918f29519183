// SPDX-License-Identifier: GPL-2.0-only
/* Stubs for the program arrays of cgroup_sock: they do nothing but tell that they were called. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define ALLOW 1

__u32 connect4_calls = 0;
__u32 connect6_calls = 0;

SEC("cgroup/connect4")
int stub_connect4(struct bpf_sock_addr *ctx)
{
    (void)ctx;
    connect4_calls++;
    return ALLOW;
}

SEC("cgroup/connect6")
int stub_connect6(struct bpf_sock_addr *ctx)
{
    (void)ctx;
    connect6_calls++;
    return ALLOW;
}

char _license[] SEC("license") = "GPL";
