// SPDX-License-Identifier: GPL-2.0-only
/* A line that loses packets: the sockets of a cgroup receive nothing while user space says so. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define DROP 0
#define PASS 1

__u32 deaf = 0;

SEC("cgroup_skb/ingress")
int lose_packets(struct __sk_buff *skb)
{
    (void)skb;
    return deaf ? DROP : PASS;
}

char _license[] SEC("license") = "GPL";
