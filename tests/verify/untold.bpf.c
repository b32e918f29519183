/* SPDX-License-Identifier: GPL-2.0-only */
/* Sections that do not tell the type. */
#include "program.h"

SEC("classify")
int told_by_the_plan(struct __sk_buff *skb)
{
    return skb->len == 0;
}

SEC("elsewhere")
int told_by_nobody(struct __sk_buff *skb)
{
    return 0;
}
