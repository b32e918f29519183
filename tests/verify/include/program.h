/* SPDX-License-Identifier: GPL-2.0-only */
/* What every program here begins with. */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

/* They are loaded and never run: most do nothing with what they are given. */
#pragma clang diagnostic ignored "-Wunused-parameter"

#ifndef PROGRAM_LICENSE
#define PROGRAM_LICENSE "GPL"
#endif

char LICENSE[] SEC("license") = PROGRAM_LICENSE;

#endif
