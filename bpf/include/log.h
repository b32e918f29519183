/* SPDX-License-Identifier: GPL-2.0-only */
/* Messages: LOG() to user space's daemon (km_log_event), TRACE() to whoever reads trace_pipe.
 *
 * Both take a literal and then any number of integers, each shown by the name it has in the code:
 *
 *     LOG(LOG_WARN, "sockops: not in km_socket", err, port);
 *     -> sockops: not in km_socket err=-7 port=8080
 *
 * A value is to be a plain variable: of anything else the name would be what the preprocessor has
 * made of it. Formats are not written by hand, because the two ways there are do not fit:
 * bpf_snprintf and bpf_trace_vprintk are younger (5.13, commit 7b15523a989b; 5.16, commit
 * 10aceb629e19) than the kernels these programs load on.
 */
#ifndef LOG_H
#define LOG_H

#include "abi.h"
#include <bpf/bpf_helpers.h>

enum log_level {
    LOG_ERROR = 0,
    LOG_WARN = 1,
    LOG_INFO = 2,
    LOG_DEBUG = 3,
};

/* User space may change it at any time; messages above it are not made. */
__u32 bpf_log_level = LOG_INFO;

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 256 * 1024);
} km_log_event SEC(".maps");

/* "Once more for what is left" in a macro: the preprocessor expands a macro within itself only when
 * it scans again, which LOG_SCAN() makes it do, over 60 times. A message with more does not
 * compile. */
#define LOG_SCAN(...)   LOG_SCAN_2(LOG_SCAN_2(LOG_SCAN_2(LOG_SCAN_2(__VA_ARGS__))))
#define LOG_SCAN_2(...) LOG_SCAN_1(LOG_SCAN_1(LOG_SCAN_1(LOG_SCAN_1(__VA_ARGS__))))
#define LOG_SCAN_1(...) LOG_SCAN_0(LOG_SCAN_0(LOG_SCAN_0(LOG_SCAN_0(__VA_ARGS__))))
#define LOG_SCAN_0(...) __VA_ARGS__
#define LOG_PARENS      ()

/* TRACE: bpf_trace_printk takes three values a call and makes a line of each call, between which
 * those of other CPUs can come. So every line begins with the message's text: each can be
 * understood, and all found, alone. */
#define TRACE(level, text, ...)                                                                    \
    do {                                                                                           \
        if ((level) <= bpf_log_level) {                                                            \
            LOG_SCAN(TRACE_LINES_0##__VA_OPT__(1)(text __VA_OPT__(, ) __VA_ARGS__))                \
        }                                                                                          \
    } while (0)

/* TRACE_LINES_n: n values are known to be there and perhaps more; from the first the next line is
 * begun anew. */
#define TRACE_LINES_0(text) TRACE_LINE(text)
#define TRACE_LINES_01(text, a, ...)                                                               \
    TRACE_LINES_1##__VA_OPT__(2)(text, a __VA_OPT__(, ) __VA_ARGS__)
#define TRACE_LINES_1(text, a) TRACE_LINE(text " " #a "=%lld", TRACE_VALUE(a))
#define TRACE_LINES_12(text, a, b, ...)                                                            \
    TRACE_LINES_2##__VA_OPT__(3)(text, a, b __VA_OPT__(, ) __VA_ARGS__)
#define TRACE_LINES_2(text, a, b)                                                                  \
    TRACE_LINE(text " " #a "=%lld " #b "=%lld", TRACE_VALUE(a), TRACE_VALUE(b))
#define TRACE_LINES_23(text, a, b, c, ...)                                                         \
    TRACE_LINE(text " " #a "=%lld " #b "=%lld " #c "=%lld", TRACE_VALUE(a), TRACE_VALUE(b),        \
               TRACE_VALUE(c))                                                                     \
    __VA_OPT__(TRACE_LINES_AGAIN LOG_PARENS(text, __VA_ARGS__))
#define TRACE_LINES_AGAIN() TRACE_LINES_01

#define TRACE_VALUE(value) ((long long)(value))

/* No newline: from 5.9 on (commit ac5a72ea5c89) the kernel ends the line. */
#define TRACE_LINE(format, ...)                                                                    \
    {                                                                                              \
        static const char format_[] = format;                                                      \
        bpf_trace_printk(format_, sizeof(format_), ##__VA_ARGS__);                                 \
    }

/* LOG: one record of one line. A message that could be too long for it does not compile; a full
 * ring loses the message and nothing else. */
#define LOG(level, literal, ...)                                                                   \
    do {                                                                                           \
        struct log_event *event_;                                                                  \
        enum {                                                                                     \
            size_ = sizeof(literal) __VA_OPT__(+LOG_SCAN(LOG_SIZES(__VA_ARGS__))),                 \
        };                                                                                         \
        _Static_assert(size_ <= LOG_TEXT_SIZE, "log message too long");                            \
        if ((level) > bpf_log_level)                                                               \
            break;                                                                                 \
        event_ = bpf_ringbuf_reserve(&km_log_event, sizeof(*event_), 0);                           \
        if (!event_)                                                                               \
            break;                                                                                 \
        __builtin_memset(event_, 0, sizeof(*event_));                                              \
        log_literal(event_, literal, sizeof(literal) - 1);                                         \
        __VA_OPT__(LOG_SCAN(LOG_VALUES(event_, __VA_ARGS__)))                                      \
        event_->length++;                                                                          \
        bpf_ringbuf_submit(event_, 0);                                                             \
    } while (0)

#define LOG_VALUES(event, value, ...)                                                              \
    log_literal(event, " " #value "=", sizeof(" " #value "=") - 1);                                \
    log_number(event, value);                                                                      \
    __VA_OPT__(LOG_VALUES_AGAIN LOG_PARENS(event, __VA_ARGS__))
#define LOG_VALUES_AGAIN() LOG_VALUES

#define LOG_NUMBER_SIZE 20 /* of -9223372036854775808 */
#define LOG_SIZES(value, ...)                                                                      \
    (sizeof(" " #value "=") - 1 + LOG_NUMBER_SIZE)                                                 \
        __VA_OPT__(+LOG_SIZES_AGAIN LOG_PARENS(__VA_ARGS__))
#define LOG_SIZES_AGAIN() LOG_SIZES

/* While a message is made, `length` counts the text so far, without the NUL. It is read anew each
 * time, so that to the verifier it is any number: known numbers would be a path each. The bound is for
 * the verifier as well: LOG() has seen to it that the text fits. */
static __always_inline void log_literal(struct log_event *event, const char *literal, __u32 size)
{
    __u32 at = *(volatile __u32 *)&event->length;

    if (at > LOG_TEXT_SIZE - size)
        return;
    __builtin_memcpy(event->text + at, literal, size);
    event->length = at + size;
}

/* In decimal. */
static __always_inline void log_number(struct log_event *event, __s64 value)
{
    __u64 rest = value < 0 ? -(__u64)value : (__u64)value;
    __u64 unit = 1000000000000000000; /* 10^18: no more fit into 63 bits */
    bool begun = false;

    if (value < 0)
        log_literal(event, "-", 1);
#pragma clang loop unroll(disable)
    for (int i = 0; i < LOG_NUMBER_SIZE - 1; i++) {
        __u8 digit = '0' + rest / unit;

        begun = begun || digit != '0' || unit == 1;
        if (begun)
            log_literal(event, (const char *)&digit, 1);
        rest %= unit;
        unit /= 10;
    }
}

#endif
