/* The shortest init: it says that it runs, and turns the machine off. No libc: see limit.py. */

static long call(long number, long first, long second, long third, long fourth)
{
    register long r10 __asm__("r10") = fourth;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(first), "S"(second), "d"(third), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

void _start(void)
{
    static const char says[] = "first instruction of init\n";

    call(1, 1, (long)says, sizeof(says) - 1, 0);     /* write */
    call(169, 0xfee1dead, 672274793, 0x4321fedc, 0); /* reboot, LINUX_REBOOT_CMD_POWER_OFF */
    for (;;)
        ;
}
