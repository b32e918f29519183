// SPDX-License-Identifier: GPL-2.0-only
/* cgroup_sock: sends connections where the mesh wants them.
 *
 * Runs when a process of a cgroup calls connect(), and, for DNS over UDP, sendmsg() and recvmsg().
 * The destination may be rewritten; the call is always allowed.
 */
#include "abi.h"
#include "address.h"
#include "load_balance.h"
#include "log.h"
#include "manage.h"
#include "sock_storage.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <linux/in.h>

#define ALLOW 1

#define DNS_PORT    53
#define DNS_BACKEND 0 /* key of the mesh's own name server in km_backend */

/* connect4 and connect6 call themselves once more through these, so that a waypoint's own virtual
 * address is resolved as well; the loader fills them. Two arrays, because one would be shared by
 * two attach types, which kernels refuse once they compare them (as a fix of Kmesh #1808 found). */
struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 8);
    __uint(key_size, sizeof(__u32));
    __uint(value_size, sizeof(__u32));
} km_cgr_tailcall SEC(".maps"), km_cgr_tail6 SEC(".maps");

#define TAIL_CONNECT4 0 /* in km_cgr_tailcall */
#define TAIL_CONNECT6 1 /* in km_cgr_tail6 */

static __always_inline struct sock_storage_data *create_storage(struct bpf_sock_addr *ctx)
{
    struct bpf_sock *sk = ctx->sk;
    struct sock_storage_data *storage;

    if (!sk)
        return NULL;
    storage = bpf_sk_storage_get(&km_sockstorage, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
    if (!storage)
        LOG(LOG_ERROR, "cgroup_sock: no storage for a socket");
    return storage;
}

/* The mesh's name server, if there is one that IPv4 can reach. */
static __always_inline struct backend_value *dns_server(void)
{
    __u32 id = DNS_BACKEND;
    struct backend_value *server = bpf_map_lookup_elem(&km_backend, &id);

    return server && fits_ipv4(&server->addr) ? server : NULL;
}

/* The port stays 53. */
static __always_inline void redirect_dns(struct bpf_sock_addr *ctx)
{
    struct sock_storage_data *storage;
    struct backend_value *server = dns_server();

    if (!server)
        return;
    storage = create_storage(ctx);
    if (!storage)
        return;
    /* A UDP socket asks one server after the other: its latest query is the one to be answered. */
    if (!storage->has_set_ip || ctx->protocol == IPPROTO_UDP)
        store_original_v4(storage, ctx->user_ip4, ctx->user_port);
    ctx->user_ip4 = server->addr.ip4;
}

SEC("cgroup/connect4")
int cgroup_connect4_prog(struct bpf_sock_addr *ctx)
{
    struct ip_addr addr = {.ip6 = {ctx->user_ip4}};
    struct sock_storage_data *storage;
    struct destination to = {};
    enum route route;

    if (obey_control_connection(ctx, &addr, ctx->user_port))
        return ALLOW;
    if (!is_managed_netns(ctx))
        return ALLOW;
    if (ctx->user_port == bpf_htons(DNS_PORT)) {
        redirect_dns(ctx);
        return ALLOW;
    }
    if (ctx->protocol != IPPROTO_TCP)
        return ALLOW;
    storage = create_storage(ctx);
    if (!storage)
        return ALLOW;
    storage->connect_ns = bpf_ktime_get_ns();

    route = resolve(&addr, ctx->user_port, &to);
    if (route == ROUTE_LEAVE || !fits_ipv4(&to.addr))
        return ALLOW;
    /* Once: after the tail call below the destination is the waypoint, not the original. */
    if (!storage->has_set_ip)
        store_original_v4(storage, addr.ip4, ctx->user_port);
    if (route == ROUTE_REMEMBER)
        return ALLOW;
    ctx->user_ip4 = to.addr.ip4;
    ctx->user_port = to.port;
    if (route == ROUTE_WAYPOINT) {
        storage->via_waypoint = true;
        bpf_tail_call(ctx, &km_cgr_tailcall, TAIL_CONNECT4);
        LOG(LOG_DEBUG, "cgroup_sock: connect4 did not resolve a waypoint's address");
    }
    return ALLOW;
}

SEC("cgroup/connect6")
int cgroup_connect6_prog(struct bpf_sock_addr *ctx)
{
    struct ip_addr dialled = {
        .ip6 = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]},
    };
    struct ip_addr addr = dialled;
    bool mapped = is_v4_mapped(&addr);
    struct sock_storage_data *storage;
    struct destination to = {};
    enum route route;

    if (mapped)
        unmap_v4(&addr);
    if (obey_control_connection(ctx, &addr, ctx->user_port))
        return ALLOW;
    if (!is_managed_netns(ctx))
        return ALLOW;
    if (ctx->protocol != IPPROTO_TCP)
        return ALLOW;
    storage = create_storage(ctx);
    if (!storage)
        return ALLOW;
    storage->connect_ns = bpf_ktime_get_ns();

    route = resolve(&addr, ctx->user_port, &to);
    if (route == ROUTE_LEAVE || (mapped && !fits_ipv4(&to.addr)))
        return ALLOW;
    if (!storage->has_set_ip)
        store_original_v6(storage, &dialled, ctx->user_port);
    if (route == ROUTE_REMEMBER)
        return ALLOW;
    if (mapped) {
        /* The words before the last one say "mapped" already. */
        ctx->user_ip6[3] = to.addr.ip4;
    } else {
        ctx->user_ip6[0] = to.addr.ip6[0];
        ctx->user_ip6[1] = to.addr.ip6[1];
        ctx->user_ip6[2] = to.addr.ip6[2];
        ctx->user_ip6[3] = to.addr.ip6[3];
    }
    ctx->user_port = to.port;
    if (route == ROUTE_WAYPOINT) {
        storage->via_waypoint = true;
        bpf_tail_call(ctx, &km_cgr_tail6, TAIL_CONNECT6);
        LOG(LOG_DEBUG, "cgroup_sock: connect6 did not resolve a waypoint's address");
    }
    return ALLOW;
}

/* An unconnected UDP socket never calls connect(): its queries are redirected one by one. */
SEC("cgroup/sendmsg4")
int bpf_redirect_dns_send(struct bpf_sock_addr *ctx)
{
    struct ip_addr addr = {.ip6 = {ctx->user_ip4}};

    if (obey_control_connection(ctx, &addr, ctx->user_port))
        return ALLOW;
    if (!is_managed_netns(ctx))
        return ALLOW;
    if (ctx->user_port == bpf_htons(DNS_PORT))
        redirect_dns(ctx);
    return ALLOW;
}

/* ... and resolvers drop an answer that does not come from where they asked. `user_ip4` is the
 * sender here. No control connection is looked for: a sender must not be able to manage us. */
SEC("cgroup/recvmsg4")
int bpf_restore_dns_recv(struct bpf_sock_addr *ctx)
{
    struct sock_storage_data *storage;
    struct backend_value *server;
    struct bpf_sock *sk = ctx->sk;

    if (!sk || !is_managed_netns(ctx))
        return ALLOW;
    /* A socket can have other correspondents than the name server: those keep their address. */
    server = dns_server();
    if (!server || ctx->user_ip4 != server->addr.ip4 || ctx->user_port != bpf_htons(DNS_PORT))
        return ALLOW;
    storage = bpf_sk_storage_get(&km_sockstorage, sk, NULL, 0);
    if (storage && storage->has_set_ip)
        ctx->user_ip4 = storage->orig_dst.ipv4.daddr;
    return ALLOW;
}

char _license[] SEC("license") = "GPL";
