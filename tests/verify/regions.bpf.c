/* SPDX-License-Identifier: GPL-2.0-only */
/* Kfuncs that come in pairs (6.2 and 6.4), without and with their counterparts. */
#include "program.h"

/* As in the kernel; headers before 6.4 do not have it. */
struct bpf_iter_num___own {
    __u64 opaque;
};

extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;
extern int bpf_iter_num_new(struct bpf_iter_num___own *it, int start, int end) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num___own *it) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num___own *it) __ksym;

SEC("tc")
int stays_inside(struct __sk_buff *skb)
{
    bpf_rcu_read_lock();
    return 0;
}

SEC("tc")
int stays_inside_cured(struct __sk_buff *skb)
{
    bpf_rcu_read_lock();
    bpf_rcu_read_unlock();
    return 0;
}

SEC("tc")
int begins_nowhere(struct __sk_buff *skb)
{
    struct bpf_iter_num___own iterator = {};

    return !bpf_iter_num_next(&iterator);
}

SEC("tc")
int begins_nowhere_cured(struct __sk_buff *skb)
{
    struct bpf_iter_num___own iterator;
    int *number, sum = 0;

    bpf_iter_num_new(&iterator, 0, 4);
    while ((number = bpf_iter_num_next(&iterator)))
        sum += *number;
    bpf_iter_num_destroy(&iterator);
    return sum == 0;
}
