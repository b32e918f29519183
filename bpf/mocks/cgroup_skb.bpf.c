// SPDX-License-Identifier: GPL-2.0-only
/* cgroup_skb, with a clock that user space sets and packets whose socket is no full one.
 *
 * The programs are the real ones, included below.
 */
#include "abi.h"
#include <bpf/bpf_helpers.h>

__u64 clock_ns = 0; /* what the programs take for CLOCK_MONOTONIC; 0: what it is */

/* Whether sockets look to the programs like request or time-wait ones, for which the kernel's hook
 * never calls them. */
__u32 no_full_socket = 0;

/* The programs may be changed so that they call no helper: what replaces it stays. */
#define MOCK static __always_inline __attribute__((unused))

MOCK __u64 mock_ktime_get_ns(void)
{
    return clock_ns ? clock_ns : bpf_ktime_get_ns();
}
#define bpf_ktime_get_ns mock_ktime_get_ns

MOCK struct bpf_sock *mock_sk_fullsock(struct bpf_sock *sk)
{
    if (no_full_socket)
        return NULL;
    return bpf_sk_fullsock(sk);
}
#define bpf_sk_fullsock mock_sk_fullsock

#include "../cgroup_skb.bpf.c"
