// SPDX-License-Identifier: GPL-2.0-only
/* cgroup_skb: reports on connections that have been open for a while.
 *
 * Runs on every packet of the sockets in a cgroup, lets all of them pass, and every 5 seconds at
 * most makes one record of a connection that has traffic. sockops makes a connection's first and
 * its last record; a connection without a first one (last_report_ns == 0) gets none here.
 */
#include "abi.h"
#include "address.h"
#include "ends.h"
#include "manage.h"
#include "probe.h"
#include "sock_storage.h"
#include <bpf/bpf_helpers.h>

#define REPORT_INTERVAL_NS (5ULL * 1000 * 1000 * 1000)

/* Switch of user space, at any time, beside enable_monitoring. */
__u32 enable_periodic_report = 0;

static __always_inline void observe(struct __sk_buff *skb)
{
    struct sock_storage_data *storage;
    struct bpf_tcp_sock *tcp;
    struct bpf_sock *sk;
    struct ends ends;
    bool is_v6_socket;
    __u64 now;

    if (enable_monitoring != 1 || enable_periodic_report != 1)
        return;
    sk = skb->sk;
    if (!sk)
        return;
    if (sk->family != AF_INET && sk->family != AF_INET6)
        return;
    is_v6_socket = sk->family == AF_INET6;
    ends = ends_of(sk);
    if (is_control_peer(&ends.remote, bpf_htons(ends.remote_port)))
        return;
    if (!is_managed_address(&ends.local))
        return;

    /* A packet's socket can also be a request or a time-wait one, which have neither storage nor
     * counters. */
    sk = bpf_sk_fullsock(sk);
    if (!sk)
        return;
    tcp = bpf_tcp_sock(sk);
    if (!tcp)
        return;
    /* On skb->sk from 5.10 on, commit 592a3498648a. */
    storage = bpf_sk_storage_get(&km_sockstorage, sk, NULL, 0);
    if (!storage || !storage->last_report_ns)
        return;
    now = bpf_ktime_get_ns();
    if (now - storage->last_report_ns <= REPORT_INTERVAL_NS)
        return;
    /* Only a report that was made counts: with the ring full, the next packet tries again. */
    if (report(&ends, is_v6_socket, tcp, storage, PROBE_ESTABLISHED, now))
        storage->last_report_ns = now;
}

SEC("cgroup_skb/ingress")
int cgroup_skb_ingress_prog(struct __sk_buff *skb)
{
    observe(skb);
    return SK_PASS;
}

SEC("cgroup_skb/egress")
int cgroup_skb_egress_prog(struct __sk_buff *skb)
{
    observe(skb);
    return SK_PASS;
}

char _license[] SEC("license") = "GPL";
