// SPDX-License-Identifier: GPL-2.0-only
/* Messages of every shape, for the tests of log.h: each program makes one on every connect(). */
#include "log.h"
#include <bpf/bpf_helpers.h>

#define ALLOW 1

/* What user space wants shown, and at which level. */
__u32 level = LOG_INFO;
__s64 a, b, c, d, e, f, g, h, i, j;

#define MESSAGE(name, ...)                                                                         \
    SEC("cgroup/connect4")                                                                         \
    int name(struct bpf_sock_addr *ctx)                                                            \
    {                                                                                              \
        (void)ctx;                                                                                 \
        LOG(level, "log: " #name __VA_OPT__(, ) __VA_ARGS__);                                      \
        TRACE(level, "log: " #name __VA_OPT__(, ) __VA_ARGS__);                                    \
        return ALLOW;                                                                              \
    }

MESSAGE(of_0)
MESSAGE(of_1, a)
MESSAGE(of_2, a, b)
MESSAGE(of_3, a, b, c)
MESSAGE(of_4, a, b, c, d)
MESSAGE(of_5, a, b, c, d, e)
MESSAGE(of_6, a, b, c, d, e, f)
MESSAGE(of_7, a, b, c, d, e, f, g)
MESSAGE(of_10, a, b, c, d, e, f, g, h, i, j)

/* One more character, and it would not compile: with the longest number the text fills a record. */
#define TEXT_8   "12345678"
#define TEXT_232 TEXT_58 TEXT_58 TEXT_58 TEXT_58
#define TEXT_58  "12" TEXT_8 TEXT_8 TEXT_8 TEXT_8 TEXT_8 TEXT_8 TEXT_8

SEC("cgroup/connect4")
int of_a_whole_record(struct bpf_sock_addr *ctx)
{
    (void)ctx;
    LOG(level, TEXT_232, a);
    return ALLOW;
}

char _license[] SEC("license") = "GPL";
