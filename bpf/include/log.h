/* SPDX-License-Identifier: GPL-2.0-only */
/* Messages to user space: km_log_event.
 *
 * Texts are literals. Formatting in the kernel would need bpf_snprintf (5.13, commit
 * 7b15523a989b), and these programs load on 5.10.
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

/* A full ring loses the message and nothing else. */
#define LOG(level, literal)                                                                        \
    do {                                                                                           \
        _Static_assert(sizeof(literal) <= LOG_TEXT_SIZE, "log text too long");                     \
        struct log_event *event_;                                                                  \
        if ((level) > bpf_log_level)                                                               \
            break;                                                                                 \
        event_ = bpf_ringbuf_reserve(&km_log_event, sizeof(*event_), 0);                           \
        if (!event_)                                                                               \
            break;                                                                                 \
        __builtin_memset(event_, 0, sizeof(*event_));                                              \
        event_->length = sizeof(literal);                                                          \
        __builtin_memcpy(event_->text, literal, sizeof(literal));                                  \
        bpf_ringbuf_submit(event_, 0);                                                             \
    } while (0)

#endif
