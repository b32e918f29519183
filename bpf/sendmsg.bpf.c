// SPDX-License-Identifier: GPL-2.0-only
/* sendmsg: tells a waypoint where a connection was meant to go.
 *
 * A connection that cgroup_sock redirected to a waypoint carries the original destination as a
 * header in front of its first byte. Runs on every message of the sockets in a SOCKHASH.
 */
#include "abi.h"
#include "address.h"
#include "log.h"
#include "sock_storage.h"
#include "tlv.h"
#include <bpf/bpf_helpers.h>

/* Makes room in front of the message and fills it. The message goes out bare if the kernel has no
 * room to give. */
#define PUSH_FRONT(msg, header)                                                                    \
    do {                                                                                           \
        void *data_;                                                                               \
        if (bpf_msg_push_data(msg, 0, sizeof(header), 0)) {                                        \
            LOG(LOG_ERROR, "sendmsg: no room for the original destination");                       \
            break;                                                                                 \
        }                                                                                          \
        data_ = msg->data;                                                                         \
        if (data_ + sizeof(header) > msg->data_end) {                                              \
            /* Better no header than one of whatever the new page held. */                         \
            bpf_msg_pop_data(msg, 0, sizeof(header), 0);                                           \
            LOG(LOG_ERROR, "sendmsg: the room for the original destination is out of reach");      \
            break;                                                                                 \
        }                                                                                          \
        __builtin_memcpy(data_, &header, sizeof(header));                                          \
    } while (0)

SEC("sk_msg")
int sendmsg_prog(struct sk_msg_md *msg)
{
    struct sock_storage_data *storage;
    struct bpf_sock *sk = msg->sk;

    if (msg->family != AF_INET && msg->family != AF_INET6)
        return SK_PASS;
    if (!sk)
        return SK_PASS;
    storage = bpf_sk_storage_get(&km_sockstorage, sk, NULL, 0);
    if (!storage || !storage->via_waypoint || storage->has_encoded)
        return SK_PASS;

    /* First, and whatever happens next: a header that could not go in front of the first byte must
     * not turn up in the middle of the stream. */
    storage->has_encoded = true;

    if (msg->family == AF_INET) {
        struct tlv_v4 header = tlv_of_v4(&storage->orig_dst);
        PUSH_FRONT(msg, header);
    } else {
        struct tlv_v6 header = tlv_of_v6(&storage->orig_dst);
        PUSH_FRONT(msg, header);
    }
    return SK_PASS;
}

char _license[] SEC("license") = "GPL";
