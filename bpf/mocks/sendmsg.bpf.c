// SPDX-License-Identifier: GPL-2.0-only
/* sendmsg, with what the kernel does to it only when it is out of memory, or never.
 *
 * The program is the real one, included below; user space chooses at any time what befalls it.
 */
#include "abi.h"
#include "address.h"
#include <bpf/bpf_helpers.h>

#define ENOMEM 12

enum push {
    PUSH_REAL = 0,
    PUSH_REFUSED = 1,
    PUSH_OUT_OF_REACH = 2, /* there is room, but msg->data shows another part of the message */
    PUSH_DIRTY = 3,        /* the new page is not all zeros, as it need not be */
};

__u32 push = PUSH_REAL;
__u32 pushes = 0; /* how often the program asked for room */

/* Whether sockets look to the program like those of another family. */
__u32 other_family = 0;

static __always_inline void soil(struct sk_msg_md *msg, __u32 len)
{
    __u8 *data = msg->data;
    __u8 *end = msg->data_end;

    for (__u32 i = 0; i < 28 && i < len && data + i + 1 <= end; i++)
        data[i] = 0xff;
}

/* The program may be changed so that it pushes nothing: what replaces the helper stays. */
static __always_inline __attribute__((unused)) long
mock_push_data(struct sk_msg_md *msg, __u32 start, __u32 len, __u64 flags)
{
    long result;

    pushes++;
    if (push == PUSH_REFUSED)
        return -ENOMEM;
    result = bpf_msg_push_data(msg, start, len, flags);
    if (result == 0 && push == PUSH_OUT_OF_REACH)
        bpf_msg_pull_data(msg, len, len + 1, 0);
    if (result == 0 && push == PUSH_DIRTY)
        soil(msg, len);
    return result;
}
#define bpf_msg_push_data mock_push_data

#undef AF_INET
#undef AF_INET6
#define AF_INET  (other_family ? 98U : 2U)
#define AF_INET6 (other_family ? 99U : 10U)

#include "../sendmsg.bpf.c"
