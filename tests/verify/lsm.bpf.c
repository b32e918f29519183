/* SPDX-License-Identifier: GPL-2.0-only */
/* Attached to a hook of the BPF LSM, which calls it where it is active. */
#include "program.h"

#include <bpf/bpf_tracing.h>

int opens;

SEC("lsm/file_open")
int BPF_PROG(counts_opens)
{
    __sync_fetch_and_add(&opens, 1);
    return 0;
}

SEC("fentry/bpf_lsm_file_open")
int BPF_PROG(on_the_hooks_function)
{
    return 0;
}
