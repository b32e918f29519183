/* SPDX-License-Identifier: GPL-2.0-only */
/* Whether a client may talk to a server: user space decides, connection by connection.
 *
 * A request goes out through km_auth_req; the answer comes back into km_auth_res, under the same
 * tuple, for as long as the connection lasts.
 */
#ifndef AUTH_H
#define AUTH_H

#include "abi.h"
#include "ends.h"
#include "log.h"
#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} km_auth_req SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 8192);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct bpf_sock_tuple);
    __type(value, __u32);
} km_auth_res SEC(".maps");

/* `ends` of the server's socket. */
static __always_inline void write_auth_tuple(struct bpf_sock_tuple *tuple, const struct ends *ends)
{
    __builtin_memset(tuple, 0, sizeof(*tuple));
    write_tuple(tuple, ends->is_v4, &ends->remote, ends->remote_port, &ends->local,
                ends->local_port);
}

static __always_inline void request_authorization(const struct ends *ends)
{
    struct auth_request *request = bpf_ringbuf_reserve(&km_auth_req, sizeof(*request), 0);

    if (!request) {
        __u16 remote_port = ends->remote_port;
        __u16 local_port = ends->local_port;

        LOG(LOG_WARN, "auth: no room for a request", remote_port, local_port);
        return;
    }
    request->type = ends->is_v4 ? PROBE_IPV4 : PROBE_IPV6;
    write_auth_tuple(&request->tuple, ends);
    bpf_ringbuf_submit(request, 0);
}

static __always_inline void forget_authorization(const struct ends *ends)
{
    struct bpf_sock_tuple tuple;

    write_auth_tuple(&tuple, ends);
    bpf_map_delete_elem(&km_auth_res, &tuple);
}

#endif
