/* SPDX-License-Identifier: GPL-2.0-only */
/* CO-RE relocations: fields that every kernel has, and what none has. */
#include "program.h"

#include <bpf/bpf_core_read.h>

struct task_struct {
    int pid;
} __attribute__((preserve_access_index));

struct task_struct___without {
    int vmtest_never_had_it;
} __attribute__((preserve_access_index));

struct vmtest_never_was {
    int field;
} __attribute__((preserve_access_index));

enum bpf_func_id___without {
    VMTEST_NEVER_HAD_IT = 1,
};

SEC("raw_tp/sched_switch")
int reads_a_field(void *ctx)
{
    struct task_struct *task = (void *)bpf_get_current_task();

    return BPF_CORE_READ(task, pid) & 1;
}

SEC("raw_tp/sched_switch")
int asks_before(void *ctx)
{
    struct task_struct___without *task = (void *)bpf_get_current_task();

    if (!bpf_core_field_exists(task->vmtest_never_had_it))
        return 0;
    return BPF_CORE_READ(task, vmtest_never_had_it) & 1;
}

SEC("raw_tp/sched_switch")
int reads_no_field(void *ctx)
{
    struct task_struct___without *task = (void *)bpf_get_current_task();

    return BPF_CORE_READ(task, vmtest_never_had_it) & 1;
}

SEC("raw_tp/sched_switch")
int reads_no_type(void *ctx)
{
    struct vmtest_never_was *task = (void *)bpf_get_current_task();

    return BPF_CORE_READ(task, field) & 1;
}

SEC("raw_tp/sched_switch")
int reads_no_value(void *ctx)
{
    return bpf_core_enum_value(enum bpf_func_id___without, VMTEST_NEVER_HAD_IT);
}

SEC("raw_tp/sched_switch")
int asks_for_a_value_before(void *ctx)
{
    if (!bpf_core_enum_value_exists(enum bpf_func_id___without, VMTEST_NEVER_HAD_IT))
        return 0;
    return bpf_core_enum_value(enum bpf_func_id___without, VMTEST_NEVER_HAD_IT);
}
