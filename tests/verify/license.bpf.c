/* SPDX-License-Identifier: GPL-2.0-only */
/* A helper for GPL-compatible programs, in an object that says that it is not one. */
#define PROGRAM_LICENSE "Proprietary"
#include "program.h"

SEC("kprobe/do_nanosleep")
int reads(unsigned long *ctx)
{
    int value = 0;

    bpf_probe_read_kernel(&value, sizeof(value), (void *)ctx[0]);
    return value;
}
