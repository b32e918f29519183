// SPDX-License-Identifier: GPL-2.0-only
/* sockops, with what the kernel refuses only when it is out of memory, or never.
 *
 * The program is the real one, included below; user space chooses at any time what befalls it.
 */
#include "abi.h"
#include <bpf/bpf_helpers.h>

__u32 no_storage = 0;    /* none can be created */
__u32 no_tcp_socket = 0; /* a full socket of TCP is none of TCP */

static __always_inline void *mock_sk_storage_get(void *map, struct bpf_sock *sk, void *value,
                                                 __u64 flags)
{
    if (no_storage && flags & BPF_SK_STORAGE_GET_F_CREATE)
        return NULL;
    return bpf_sk_storage_get(map, sk, value, flags);
}
#define bpf_sk_storage_get mock_sk_storage_get

static __always_inline struct bpf_tcp_sock *mock_tcp_sock(struct bpf_sock *sk)
{
    if (no_tcp_socket)
        return NULL;
    return bpf_tcp_sock(sk);
}
#define bpf_tcp_sock(sk) mock_tcp_sock(sk) /* and not the structure of the same name */

#include "../sockops.bpf.c"
