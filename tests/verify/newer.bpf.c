/* SPDX-License-Identifier: GPL-2.0-only */
/* What older kernels lack, or give to other programs only; beside it the same with the remedy. */
#include "program.h"

#include <bpf/bpf_core_read.h>

extern bool CONFIG_PREEMPT_RT __kconfig __weak;
extern const int vmtest_never_was __ksym __weak;
extern void *vmtest_never_kfunc(void *task) __ksym __weak;

/* The loader sets it where the kernel gives the helper to this type. */
const volatile bool has_cookies = false;

char editable[] = "%d";

/* 6.1 */
SEC("tc")
int tells_time(struct __sk_buff *skb)
{
    return bpf_ktime_get_tai_ns() == 0;
}

SEC("tc")
int tells_time_cured(struct __sk_buff *skb)
{
    if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_ktime_get_tai_ns))
        return bpf_ktime_get_tai_ns() == 0;
    return 0;
}

/* For tracing programs. */
SEC("xdp")
int has_a_cookie(struct xdp_md *ctx)
{
    return bpf_get_attach_cookie(ctx) ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int has_a_cookie_cured(struct xdp_md *ctx)
{
    return has_cookies && bpf_get_attach_cookie(ctx) ? XDP_PASS : XDP_DROP;
}

/* For connect4 and connect6. */
SEC("cgroup/sendmsg4")
int binds(struct bpf_sock_addr *ctx)
{
    struct sockaddr {
        __u16 family;
        __u8 rest[14];
    } address = {.family = 2};

    return bpf_bind(ctx, (void *)&address, sizeof(address)) == 0;
}

SEC("cgroup/connect4")
int binds_cured(struct bpf_sock_addr *ctx)
{
    struct sockaddr {
        __u16 family;
        __u8 rest[14];
    } address = {.family = 2};

    return bpf_bind(ctx, (void *)&address, sizeof(address)) == 0;
}

/* 5.17, and a function as an argument: 5.13 */
static int step(__u32 n, void *context)
{
    return 0;
}

SEC("xdp")
int loops(struct xdp_md *ctx)
{
    bpf_loop(4, step, NULL, 0);
    return XDP_PASS;
}

SEC("xdp")
int loops_cured(struct xdp_md *ctx)
{
    for (int i = 0; i < 4; i++)
        bpf_get_prandom_u32();
    return XDP_PASS;
}

/* 5.12: an atomic addition that returns the old value. */
SEC("xdp")
__attribute__((naked)) int fetches(void)
{
    asm volatile("r1 = 1; *(u64 *)(r10 - 8) = r1; .8byte 0x00000001fff81adb; r0 = 2; exit");
}

SEC("xdp")
__attribute__((naked)) int fetches_cured(void)
{
    asm volatile("r1 = 1; *(u64 *)(r10 - 8) = r1; .8byte 0x00000000fff81adb; r0 = 2; exit");
}

/* 6.9: may_goto; kernels before 6.14 refuse a jump of zero instructions. */
SEC("xdp")
__attribute__((naked)) int may_go_on(void)
{
    asm volatile("r0 = 2; .8byte 0x00000000000100e5; r0 = 1; exit");
}

SEC("xdp")
__attribute__((naked)) int may_go_on_cured(void)
{
    asm volatile("r0 = 2; exit");
}

SEC("xdp")
int uses_symbol_weakly(struct xdp_md *ctx)
{
    return &vmtest_never_was ? XDP_PASS : XDP_DROP;
}

SEC("tp_btf/sched_switch")
int calls_kfunc_cured(unsigned long long *ctx)
{
    if (vmtest_never_kfunc)
        vmtest_never_kfunc((void *)ctx[1]);
    return 0;
}

/* 6.14: a may_goto that jumps over nothing. */
SEC("xdp")
__attribute__((naked)) int may_go_nowhere(void)
{
    asm volatile("r0 = 2; .8byte 0x00000000000000e5; exit");
}

SEC("xdp")
int asks_config_weakly(struct xdp_md *ctx)
{
    return CONFIG_PREEMPT_RT ? XDP_PASS : XDP_DROP;
}

/* 5.13, and a format that is known. */
SEC("xdp")
int formats(struct xdp_md *ctx)
{
    char out[16];
    __u64 number = ctx->rx_queue_index;

    bpf_snprintf(out, sizeof(out), editable, &number, sizeof(number));
    return XDP_PASS;
}

SEC("xdp")
int formats_cured(struct xdp_md *ctx)
{
    static const char format[] = "%d";
    char out[16];
    __u64 number = ctx->rx_queue_index;

    if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_snprintf))
        bpf_snprintf(out, sizeof(out), format, &number, sizeof(number));
    return XDP_PASS;
}

/* 5.18 */
SEC("xdp.frags")
int in_buffers(struct xdp_md *ctx)
{
    return XDP_PASS;
}

SEC("xdp")
int in_buffers_cured(struct xdp_md *ctx)
{
    return XDP_PASS;
}
