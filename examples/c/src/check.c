// SPDX-License-Identifier: GPL-2.0-only
/* Loads block.bpf.o, attaches it to a control group of its own, and tries it. Prints TAP. */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define GROUP      "/sys/fs/cgroup/check"
#define BLOCKED    4001
#define OTHER_PORT 4002

static int number;
static int failed;

static void check(bool good, const char *what)
{
    printf("%sok %d - %s\n", good ? "" : "not ", ++number, what);
    failed += !good;
}

static void need(bool good, const char *what)
{
    if (good)
        return;
    printf("Bail out! %s: errno %d\n", what, errno);
    exit(1);
}

/* Puts this process into a new control group; returns a descriptor of its folder. */
static int enter_group(void)
{
    need(mkdir(GROUP, 0755) == 0 || errno == EEXIST, "mkdir " GROUP);
    FILE *members = fopen(GROUP "/cgroup.procs", "w");
    need(members != NULL, "open " GROUP "/cgroup.procs");
    fprintf(members, "%d\n", getpid());
    need(fclose(members) == 0, "enter " GROUP);
    int group = open(GROUP, O_RDONLY | O_DIRECTORY);
    need(group >= 0, "open " GROUP);
    return group;
}

/* What connect() to a port of this machine says: nothing listens there. */
static int connect_errno(unsigned short port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int sock = socket(AF_INET, SOCK_STREAM, 0);
    need(sock >= 0, "socket");
    int error = connect(sock, (struct sockaddr *)&to, sizeof(to)) ? errno : 0;
    close(sock);
    return error;
}

int main(int argc, char **argv)
{
    struct bpf_object *object = bpf_object__open_file(argc > 1 ? argv[1] : "block.bpf.o", NULL);
    need(object && bpf_object__load(object) == 0, "load block.bpf.o");
    struct bpf_program *block = bpf_object__find_program_by_name(object, "block");
    need(block != NULL, "find the program block");
    struct bpf_link *link = bpf_program__attach_cgroup(block, enter_group());
    need(link != NULL, "attach block");
    int refused = bpf_object__find_map_fd_by_name(object, "refused");
    unsigned short port = BLOCKED;
    unsigned long long times = 0;
    need(bpf_map_update_elem(refused, &port, &times, BPF_ANY) == 0, "write the map refused");

    printf("1..3\n");
    check(connect_errno(BLOCKED) == EPERM, "a port in the map is refused");
    check(connect_errno(OTHER_PORT) == ECONNREFUSED, "another port reaches the machine");
    bpf_map_lookup_elem(refused, &port, &times);
    check(times == 1, "the refusal is counted");
    bpf_link__destroy(link);
    bpf_object__close(object);
    return failed ? 1 : 0;
}
