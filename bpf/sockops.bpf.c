// SPDX-License-Identifier: GPL-2.0-only
/* sockops: follows the connections of a cgroup from the first packet to the end.
 *
 * Runs at the turning points of a TCP connection. Makes its first and its last record, has user
 * space authorize who connects to us, and hands sockets that go to a waypoint over to sendmsg.
 */
#include "abi.h"
#include "address.h"
#include "auth.h"
#include "ends.h"
#include "log.h"
#include "manage.h"
#include "probe.h"
#include "sock_storage.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Several programs may run at a turning point: 1 leaves the others' answers as they are. */
#define NO_OPINION 1

/* Filled by the loader, an IPv4 address v4-mapped; all zero: none. Both dial pods to see whether
 * they are alive: nobody's traffic. */
__u32 node_ip[4];
__u32 pod_gateway[4];

/* The sockets that sendmsg runs on. */
struct {
    __uint(type, BPF_MAP_TYPE_SOCKHASH);
    __uint(max_entries, 8192);
    __type(key, struct bpf_sock_tuple);
    __type(value, __u32);
} km_socket SEC(".maps");

static __always_inline bool is_at(const struct ip_addr *peer, const __u32 place[4])
{
    struct ip_addr at = {.ip6 = {place[0], place[1], place[2], place[3]}};

    if (is_v4_mapped(&at))
        unmap_v4(&at);
    return at.ip6[0] == peer->ip6[0] && at.ip6[1] == peer->ip6[1] && at.ip6[2] == peer->ip6[2] &&
           at.ip6[3] == peer->ip6[3];
}

static __always_inline void report_state(struct bpf_sock *sk, const struct ends *ends,
                                         struct sock_storage_data *storage, enum probe_state state)
{
    __u8 direction = storage->direction;
    __u16 local_port = ends->local_port;
    __u16 remote_port = ends->remote_port;
    __u64 now = bpf_ktime_get_ns();
    struct bpf_tcp_sock *tcp;
    bool reported;

    if (enable_monitoring != 1)
        return;
    tcp = bpf_tcp_sock(sk);
    if (!tcp)
        return;
    reported = report(ends, sk->family == AF_INET6, tcp, storage, state, now);
    if (reported)
        storage->last_report_ns = now;
    TRACE(LOG_DEBUG, "sockops: record", state, direction, local_port, remote_port, reported);
}

/* From here on STATE_CB runs as well. What other programs have asked for stays. */
static __always_inline void follow_to_the_end(struct bpf_sock_ops *ctx)
{
    bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

static __always_inline void hand_over_to_sendmsg(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
    struct ends ends = socket_ends_of(sk);
    __u16 local_port = ends.local_port;
    __u16 remote_port = ends.remote_port;
    struct bpf_sock_tuple key = {};
    long err;

    write_tuple(&key, ends.is_v4, &ends.local, bpf_htons(local_port), &ends.remote,
                bpf_htons(remote_port));
    err = bpf_sock_hash_update(ctx, &km_socket, &key, BPF_ANY);
    if (err)
        LOG(LOG_ERROR, "sockops: a waypoint will not be told the original destination", err,
            local_port, remote_port);
}

/* connect() has found a route and an address of our own, and the first packet is about to go. */
static __always_inline void on_connect(struct bpf_sock *sk)
{
    struct ends ends = ends_of(sk);
    struct manager_key key = {.addr = ends.local};
    __u32 port = bpf_htons(ends.remote_port);

    if (is_control_peer(&ends.remote, port))
        manage(&key, port);
}

static __always_inline void on_active_established(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
    struct ends ends = ends_of(sk);
    struct sock_storage_data *storage;

    if (!is_managed_address(&ends.local))
        return;
    /* Made by connect4 or connect6, or else the connection is not the mesh's. */
    storage = bpf_sk_storage_get(&km_sockstorage, sk, NULL, 0);
    if (!storage)
        return;
    storage->direction = DIRECTION_OUTBOUND;
    storage->connect_success = true;
    report_state(sk, &ends, storage, PROBE_ESTABLISHED);
    follow_to_the_end(ctx);
    if (storage->via_waypoint)
        hand_over_to_sendmsg(ctx, sk);
}

static __always_inline void on_passive_established(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
    struct ends ends = ends_of(sk);
    struct sock_storage_data *storage;

    if (!is_managed_address(&ends.local))
        return;
    if (is_at(&ends.remote, node_ip) || is_at(&ends.remote, pod_gateway))
        return;
    storage = bpf_sk_storage_get(&km_sockstorage, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
    if (storage) {
        storage->connect_ns = bpf_ktime_get_ns();
        storage->direction = DIRECTION_INBOUND;
        storage->connect_success = true;
        report_state(sk, &ends, storage, PROBE_ESTABLISHED);
    } else {
        LOG(LOG_ERROR, "sockops: no storage for a socket");
    }
    follow_to_the_end(ctx);
    request_authorization(&ends);
}

/* Whoever closes first, and also after a reset. The addresses are still there. */
static __always_inline void on_close(struct bpf_sock *sk)
{
    struct ends ends = ends_of(sk);
    struct sock_storage_data *storage;

    storage = bpf_sk_storage_get(&km_sockstorage, sk, NULL, 0);
    if (storage)
        report_state(sk, &ends, storage, PROBE_CLOSED);
    /* A client's socket has none; its tuple is nobody's. */
    forget_authorization(&ends);
}

SEC("sockops")
int sockops_prog(struct bpf_sock_ops *ctx)
{
    struct bpf_sock *sk = ctx->sk;

    /* A request of a connection to be has no full socket. */
    if (!sk || (sk->family != AF_INET && sk->family != AF_INET6))
        return NO_OPINION;

    switch (ctx->op) {
    case BPF_SOCK_OPS_TCP_CONNECT_CB:
        on_connect(sk);
        break;
    case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
        on_active_established(ctx, sk);
        break;
    case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
        on_passive_established(ctx, sk);
        break;
    case BPF_SOCK_OPS_STATE_CB:
        if (ctx->args[1] == BPF_TCP_CLOSE)
            on_close(sk);
        break;
    }
    return NO_OPINION;
}

char _license[] SEC("license") = "GPL";
