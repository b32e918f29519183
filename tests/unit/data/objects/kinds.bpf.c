/* SPDX-License-Identifier: GPL-2.0-only */
/* Types, maps and globals of every kind that BTF has, for tests/unit/test_objects_compared.py. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#define __kptr_tag   __attribute__((btf_type_tag("kptr")))
#define __percpu_tag __attribute__((btf_type_tag("percpu_kptr")))
struct task_struct;
struct fwd;
union ufwd;
enum efwd_ {
    E0
};
enum neg64 {
    NMIN = -0x7fffffffffffffffLL,
    NMAX = 5
};
enum neg {
    MINUS = -3,
    PLUS = 7
};
typedef int (*fn_t)(struct fwd *, int);
typedef int i32_t;
typedef i32_t i32b_t;
typedef const i32b_t ci_t;
typedef volatile ci_t vci_t;
struct e {
};
struct node {
    struct bpf_rb_node *n;
    struct fwd *f;
    union ufwd *u;
    void *v;
    const void *cv;
};
struct withk {
    struct task_struct __kptr_tag *t;
    struct node __percpu_tag *p;
    struct bpf_timer timer;
    struct bpf_spin_lock l;
} __attribute__((btf_decl_tag("map_value")));
struct bf {
    unsigned a : 1, b : 7, c : 24;
    long long d : 33;
    unsigned long e : 31;
    signed char f : 3;
    _Bool g : 1;
    enum neg h : 4;
    unsigned : 0;
    unsigned i : 5;
    struct {
        unsigned x : 3, y : 2;
    };
    union {
        unsigned p : 4;
        unsigned char q;
    };
};
struct packed {
    char a;
    int b;
    short c;
} __attribute__((packed));
struct al {
    char a;
} __attribute__((aligned(64)));
struct arr {
    int m[2][3][4];
    struct packed p[5];
    struct {
        int z;
    } anon[2][2];
    char zero[0];
    fn_t f;
    fn_t fs[3];
    int (*pa)[4];
    vci_t v;
    float fl;
    double db;
    __int128 big;
    struct e emp;
    struct al al;
    char s[7];
};
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4);
    __type(key, vci_t);
    __type(value, struct withk);
} kptrs SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 4);
    __type(key, unsigned);
    __type(value, struct arr[3]);
} arrs SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 4);
    __type(key, unsigned);
    __type(value, struct bf);
} bfs SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 4);
    __type(key, unsigned);
    __type(value, double);
} dbl SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 4);
    __type(key, unsigned);
    __type(value, __int128);
} i128 SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 4);
    __type(key, unsigned);
    __type(value, fn_t);
} fnm SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 4);
    __type(key, unsigned);
    __type(value, struct e);
} emp SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __uint(key_size, sizeof(int));
    __uint(value_size, sizeof(struct arr));
} sizes SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1U << 31);
    __type(key, unsigned);
    __type(value, int);
    __uint(numa_node, 3);
    __uint(map_extra, 9);
    __uint(map_flags, BPF_F_NUMA_NODE | BPF_F_MMAPABLE);
} huge SEC(".maps");
struct inner {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 3);
    __type(key, int);
    __type(value, struct bf);
    __uint(map_flags, BPF_F_INNER_MAP);
};
struct inner in1 SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
    __uint(max_entries, 4);
    __type(key, int);
    __type(value, int);
    __array(values, struct inner);
} mim SEC(".maps") = {.values = {&in1}};
struct {
    __uint(type, BPF_MAP_TYPE_STACK);
    __uint(max_entries, 4);
    __type(value, struct bf);
} stk SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_SOCKHASH);
    __uint(max_entries, 4);
    __type(
        key, struct {
            int a;
            short b;
        });
    __type(value, __u64);
} sh SEC(".maps");
struct {
    __uint(type, 33);
    __uint(max_entries, 4);
    __uint(map_flags, 1 << 10);
} are SEC(".maps");
struct {
    __uint(type, 77);
    __uint(max_entries, 4);
    __type(key, int);
    __type(value, int);
} odd SEC(".maps");
volatile float gf = 1.5f;
volatile double gd = -2.5;
volatile __int128 g128 = -5;
volatile enum neg64 gn = NMIN;
volatile enum neg gneg = MINUS;
volatile _Bool gb = 1;
volatile char gc = -1;
volatile unsigned char guc = 255;
const volatile short cs = -2;
volatile signed char gsc = -7;
const volatile struct packed gp = {1, 2, 3};
volatile struct arr ga;
fn_t gfn;
struct task_struct *gt;
char gstr[] = "hello";
const char *gps = "text";
volatile vci_t tv = 4;
static volatile int hidden_ = 9;
volatile int named SEC(".data.custom") = 3;
volatile int namedb SEC(".bss.other");
const volatile int namedr SEC(".rodata.ro") = 8;
volatile long long arr2[2][2] = {{1, -1}, {2, -2}};
volatile struct {
    int a;
    struct {
        short b;
    } c;
} ganon;
volatile union {
    int a;
    char b[9];
} gun;
struct fwd *pf;
volatile int __attribute__((weak)) gweak = 1;
int __attribute__((visibility("hidden"))) ghid = 2;
enum {
    ANONE = 3
} ganonenum = ANONE;
extern int LINUX_KERNEL_VERSION __kconfig;
extern const void bpf_prog_active __ksym __attribute__((weak));
static __attribute__((noinline)) int sub(int a)
{
    static volatile int counter = 3;
    return counter + a;
}
__attribute__((noinline)) int glob(struct bf *b)
{
    return b ? b->a : 0;
}
SEC("xdp") int a(struct xdp_md *c)
{
    struct bf b = {};
    return sub(c->rx_queue_index) + glob(&b) + LINUX_KERNEL_VERSION + hidden_ +
           ((long)&bpf_prog_active != 0);
}
SEC("xdp") int b(struct xdp_md *c)
{
    return sub(3) + ghid + (int)cs + gp.b;
}
SEC("?tc") int off(struct __sk_buff *s)
{
    return (long)gps != 0;
}
SEC("uretprobe//bin/sh:x+3") int up(void *c)
{
    return 0;
}
SEC("xdp.frags/devmap") int xf(void *c)
{
    return 0;
}
char LICENSE[] SEC("license") = "Dual BSD/GPL";
