/* SPDX-License-Identifier: GPL-2.0-only */
/* The binary interface with user space: what the maps and the ring buffers hold, byte for byte.
 *
 * Names and layouts follow Kmesh (workload mode). Whoever fills the maps was compiled separately, so
 * every size and every offset is asserted here: a change of layout is a compile error and not a
 * connection that goes astray.
 *
 * Addresses are in network order. Ports in map values are a network-order u16, zero-extended to
 * u32 (as bpf_sock_addr.user_port is). Ports in ring buffer records and in the keys of km_auth_res
 * are in host order.
 */
#ifndef ABI_H
#define ABI_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

#define SIZE_IS(type, size) _Static_assert(sizeof(type) == (size), #type " has another size")
#define FIELD_IS_AT(type, field, offset)                                                           \
    _Static_assert(__builtin_offsetof(type, field) == (offset), #type "." #field " moved")

/* Packed in the ABI. Every field is a u32 and every map value is 8-byte aligned, so that claiming
 * an alignment of 4 changes no offset and spares byte-wise loads. */
#define PACKED_U32 __attribute__((packed, aligned(4)))

#define PRIORITIES       7  /* localities a service ranks its endpoints by, 0 the nearest */
#define SERVICE_PORTS    10 /* ports of one service */
#define BACKEND_SERVICES 10 /* services one backend may belong to */

/* An IPv4 address is the first word, the other three zero; a v4-mapped one never appears. */
struct ip_addr {
    union {
        __u32 ip4;
        __u32 ip6[4];
    };
};
SIZE_IS(struct ip_addr, 16);
FIELD_IS_AT(struct ip_addr, ip4, 0);
FIELD_IS_AT(struct ip_addr, ip6, 0);

/* Key of km_manage: either a network namespace (its cookie) or a local address. */
struct manager_key {
    union {
        __u64 netns_cookie;
        struct ip_addr addr;
    };
};
SIZE_IS(struct manager_key, 16);
FIELD_IS_AT(struct manager_key, netns_cookie, 0);
FIELD_IS_AT(struct manager_key, addr, 0);

enum lb_policy {
    LB_RANDOM = 0,
    LB_LOCALITY_STRICT = 1,
    LB_LOCALITY_FAILOVER = 2,
};

struct service_value {
    __u32 prio_endpoint_count[PRIORITIES];
    __u32 lb_policy;
    __u32 service_port[SERVICE_PORTS]; /* what clients dial */
    __u32 target_port[SERVICE_PORTS];  /* what the backends listen on, index by index */
    struct ip_addr wp_addr;
    __u32 waypoint_port;
} PACKED_U32;
SIZE_IS(struct service_value, 132);
FIELD_IS_AT(struct service_value, prio_endpoint_count, 0);
FIELD_IS_AT(struct service_value, lb_policy, 28);
FIELD_IS_AT(struct service_value, service_port, 32);
FIELD_IS_AT(struct service_value, target_port, 72);
FIELD_IS_AT(struct service_value, wp_addr, 112);
FIELD_IS_AT(struct service_value, waypoint_port, 128);

struct endpoint_key {
    __u32 service_id;
    __u32 prio;
    __u32 backend_index; /* from 1 to service_value.prio_endpoint_count[prio] */
} PACKED_U32;
SIZE_IS(struct endpoint_key, 12);
FIELD_IS_AT(struct endpoint_key, service_id, 0);
FIELD_IS_AT(struct endpoint_key, prio, 4);
FIELD_IS_AT(struct endpoint_key, backend_index, 8);

struct backend_value {
    struct ip_addr addr;
    __u32 service_count;
    __u32 service[BACKEND_SERVICES];
    struct ip_addr wp_addr;
    __u32 waypoint_port;
} PACKED_U32;
SIZE_IS(struct backend_value, 80);
FIELD_IS_AT(struct backend_value, addr, 0);
FIELD_IS_AT(struct backend_value, service_count, 16);
FIELD_IS_AT(struct backend_value, service, 20);
FIELD_IS_AT(struct backend_value, wp_addr, 60);
FIELD_IS_AT(struct backend_value, waypoint_port, 76);

/* Who opened a connection, seen from the socket. 0: nobody has said yet. */
enum direction {
    DIRECTION_UNKNOWN = 0,
    DIRECTION_INBOUND = 1,
    DIRECTION_OUTBOUND = 2,
};

/* What the programs remember of one socket (km_sockstorage). */
struct sock_storage_data {
    __u64 connect_ns;     /* CLOCK_MONOTONIC */
    __u64 last_report_ns; /* CLOCK_MONOTONIC; 0: never reported */
    __u8 direction;
    __u8 connect_success;
    bool via_waypoint; /* the peer is a waypoint, which must be told the original destination */
    bool has_encoded;  /* ... and has been told */
    bool has_set_ip;   /* orig_dst is filled */
    /* What the application dialled, as destination of the tuple: of an AF_INET socket in ipv4,
     * of an AF_INET6 socket (v4-mapped included) in ipv6. Network order throughout. */
    struct bpf_sock_tuple orig_dst;
};
SIZE_IS(struct bpf_sock_tuple, 36);
FIELD_IS_AT(struct bpf_sock_tuple, ipv4.saddr, 0);
FIELD_IS_AT(struct bpf_sock_tuple, ipv4.daddr, 4);
FIELD_IS_AT(struct bpf_sock_tuple, ipv4.sport, 8);
FIELD_IS_AT(struct bpf_sock_tuple, ipv4.dport, 10);
FIELD_IS_AT(struct bpf_sock_tuple, ipv6.saddr, 0);
FIELD_IS_AT(struct bpf_sock_tuple, ipv6.daddr, 16);
FIELD_IS_AT(struct bpf_sock_tuple, ipv6.sport, 32);
FIELD_IS_AT(struct bpf_sock_tuple, ipv6.dport, 34);
SIZE_IS(struct sock_storage_data, 64);
FIELD_IS_AT(struct sock_storage_data, connect_ns, 0);
FIELD_IS_AT(struct sock_storage_data, last_report_ns, 8);
FIELD_IS_AT(struct sock_storage_data, direction, 16);
FIELD_IS_AT(struct sock_storage_data, connect_success, 17);
FIELD_IS_AT(struct sock_storage_data, via_waypoint, 18);
FIELD_IS_AT(struct sock_storage_data, has_encoded, 19);
FIELD_IS_AT(struct sock_storage_data, has_set_ip, 20);
FIELD_IS_AT(struct sock_storage_data, orig_dst, 24);

struct orig_dst_info {
    union {
        struct {
            __be32 addr;
            __u16 port;
        } ipv4;
        struct {
            __be32 addr[4];
            __u16 port;
        } ipv6;
    };
};
SIZE_IS(struct orig_dst_info, 20);
FIELD_IS_AT(struct orig_dst_info, ipv4.addr, 0);
FIELD_IS_AT(struct orig_dst_info, ipv4.port, 4);
FIELD_IS_AT(struct orig_dst_info, ipv6.addr, 0);
FIELD_IS_AT(struct orig_dst_info, ipv6.port, 16);

enum probe_type {
    PROBE_IPV4 = 0, /* v4-mapped connections too */
    PROBE_IPV6 = 1,
};

enum probe_state {
    PROBE_ESTABLISHED = 1,
    PROBE_CLOSED = 7,
};

/* A record of km_tcp_probe. */
struct tcp_probe_info {
    __u32 type;
    struct bpf_sock_tuple tuple; /* from the side that opened the connection to the other */
    struct orig_dst_info orig_dst;
    __u32 sent_bytes; /* acknowledged by the peer */
    __u32 received_bytes;
    __u32 conn_success;
    __u32 direction;
    __u32 state;
    __u64 duration; /* ns since start_ns */
    __u64 start_ns;
    __u64 last_report_ns; /* when this record was made */
    __u32 protocol;       /* IPPROTO_TCP */
    __u32 srtt_us;        /* as the kernel keeps it: microseconds << 3 */
    __u32 rtt_min;
    __u32 total_retrans;
    __u32 lost_out;
};
SIZE_IS(struct tcp_probe_info, 128);
FIELD_IS_AT(struct tcp_probe_info, type, 0);
FIELD_IS_AT(struct tcp_probe_info, tuple, 4);
FIELD_IS_AT(struct tcp_probe_info, orig_dst, 40);
FIELD_IS_AT(struct tcp_probe_info, sent_bytes, 60);
FIELD_IS_AT(struct tcp_probe_info, received_bytes, 64);
FIELD_IS_AT(struct tcp_probe_info, conn_success, 68);
FIELD_IS_AT(struct tcp_probe_info, direction, 72);
FIELD_IS_AT(struct tcp_probe_info, state, 76);
FIELD_IS_AT(struct tcp_probe_info, duration, 80);
FIELD_IS_AT(struct tcp_probe_info, start_ns, 88);
FIELD_IS_AT(struct tcp_probe_info, last_report_ns, 96);
FIELD_IS_AT(struct tcp_probe_info, protocol, 104);
FIELD_IS_AT(struct tcp_probe_info, srtt_us, 108);
FIELD_IS_AT(struct tcp_probe_info, rtt_min, 112);
FIELD_IS_AT(struct tcp_probe_info, total_retrans, 116);
FIELD_IS_AT(struct tcp_probe_info, lost_out, 120);

/* A record of km_auth_req: may this client talk to this server? */
struct auth_request {
    __u32 type;                  /* enum probe_type */
    struct bpf_sock_tuple tuple; /* from client to server, as km_auth_res has it as key */
};
SIZE_IS(struct auth_request, 40);
FIELD_IS_AT(struct auth_request, type, 0);
FIELD_IS_AT(struct auth_request, tuple, 4);

#define LOG_TEXT_SIZE 256

/* A record of km_log_event. */
struct log_event {
    __u32 length; /* of text, its NUL included */
    char text[LOG_TEXT_SIZE];
};
SIZE_IS(struct log_event, 260);
FIELD_IS_AT(struct log_event, length, 0);
FIELD_IS_AT(struct log_event, text, 4);

#endif
