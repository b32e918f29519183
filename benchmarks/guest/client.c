// SPDX-License-Identifier: GPL-2.0-only
/* client HOST PORT requests|connections COUNT SIZE PID...: how long, and at what expense?
 *
 * requests: COUNT times SIZE bytes there and back over one connection; a sample is from before the
 * send to the last byte. connections: COUNT connections one after the other; a sample is from
 * before socket() to the first byte of the answer. Some that are not counted come first.
 *
 * One JSON object on stdout: "peer", as getpeername() has it; "voluntary" and "involuntary", context
 * switches of the client and of the processes PID..., in this order; "system_switches" and
 * "segments", of the whole machine meanwhile; "ns", the samples.
 */
#include "sockets.h"
#include <stdbool.h>
#include <time.h>

#define MAX_PROCESSES 8
/* Enough for TCP to stop acknowledging at once, as it does in the beginning of a connection. */
#define WARM_UP 50

struct counters {
    long voluntary[MAX_PROCESSES];
    long involuntary[MAX_PROCESSES];
    long system_switches;
    long segments;
};

static const char *pids[MAX_PROCESSES] = {"self"};
static int processes = 1;

static FILE *opened(const char *path)
{
    FILE *file = fopen(path, "r");

    check(file ? 0 : -1, path);
    return file;
}

/* The number behind `name` at the beginning of a line. */
static long number_behind(const char *path, const char *name)
{
    FILE *file = opened(path);
    char line[8192];

    while (fgets(line, sizeof(line), file)) {
        if (strncmp(line, name, strlen(name)))
            continue;
        fclose(file);
        return atol(line + strlen(name));
    }
    fprintf(stderr, "%s has no %s\n", path, name);
    exit(1);
}

/* TCP segments sent, pure acknowledgements too: /proc/net/snmp has a line of names before the line
 * of values. */
static long segments_sent(void)
{
    char names[1024] = "", values[1024], *name, *value, *names_left, *values_left;
    FILE *file = opened("/proc/net/snmp");

    while (fgets(values, sizeof(values), file)) {
        if (!strncmp(values, "Tcp: ", 5) && !strncmp(names, "Tcp: ", 5))
            break;
        strcpy(names, values);
    }
    fclose(file);
    name = strtok_r(names, " \n", &names_left);
    value = strtok_r(values, " \n", &values_left);
    while (name && value) {
        if (!strcmp(name, "OutSegs"))
            return atol(value);
        name = strtok_r(NULL, " \n", &names_left);
        value = strtok_r(NULL, " \n", &values_left);
    }
    fprintf(stderr, "/proc/net/snmp has no OutSegs\n");
    exit(1);
}

static struct counters counted(void)
{
    struct counters now = {
        .system_switches = number_behind("/proc/stat", "ctxt"),
        .segments = segments_sent(),
    };
    char path[64];

    for (int i = 0; i < processes; i++) {
        snprintf(path, sizeof(path), "/proc/%s/status", pids[i]);
        now.voluntary[i] = number_behind(path, "voluntary_ctxt_switches:");
        now.involuntary[i] = number_behind(path, "nonvoluntary_ctxt_switches:");
    }
    return now;
}

/* How much each has grown, as a member of the JSON object. */
static void print_growth(const char *name, const long *before, const long *after)
{
    printf("\"%s\": [", name);
    for (int i = 0; i < processes; i++)
        printf("%s%ld", i ? ", " : "", after[i] - before[i]);
    printf("], ");
}

static long now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

/* Receives exactly the `size` bytes of `sent`; anything else ends the program. */
static void receive_back(int connection, const char *sent, size_t size)
{
    static char buffer[BUFFER_SIZE];
    size_t received = 0;

    while (received < size) {
        ssize_t piece = check(recv(connection, buffer + received, size - received, 0), "recv");
        if (!piece)
            break;
        received += piece;
    }
    if (received != size || memcmp(buffer, sent, size)) {
        fprintf(stderr, "%zu bytes sent, %zu came back, or others\n", size, received);
        exit(1);
    }
}

static long request(int connection, const char *data, size_t size)
{
    long began = now_ns();

    send_all(connection, data, size);
    receive_back(connection, data, size);
    return now_ns() - began;
}

static long connection_and_first_byte(const struct sockaddr_in *to, const char *data, size_t size)
{
    long began = now_ns(), took;
    int connection = dial(to);

    send_all(connection, data, size);
    receive_back(connection, data, 1);
    took = now_ns() - began;
    receive_back(connection, data + 1, size - 1);
    close(connection);
    return took;
}

int main(int argc, char **argv)
{
    char data[BUFFER_SIZE], host[INET_ADDRSTRLEN];
    bool over_one_connection;
    struct counters before, after;
    struct sockaddr_in to, peer;
    socklen_t length = sizeof(peer);
    long count, size, *samples;
    int connection;

    if (argc < 6 || argc > 5 + MAX_PROCESSES) {
        fprintf(stderr, "usage: client HOST PORT requests|connections COUNT SIZE PID...\n");
        return 2;
    }
    to = address(argv[1], argv[2]);
    over_one_connection = !strcmp(argv[3], "requests");
    if (!over_one_connection && strcmp(argv[3], "connections")) {
        fprintf(stderr, "requests or connections, not %s\n", argv[3]);
        return 2;
    }
    count = atol(argv[4]);
    size = atol(argv[5]);
    if (count < 1 || size < 1 || size > BUFFER_SIZE) {
        fprintf(stderr, "a COUNT of 1 and more, a SIZE of 1 to %d\n", BUFFER_SIZE);
        return 2;
    }
    for (int i = 6; i < argc; i++)
        pids[processes++] = argv[i];
    for (long i = 0; i < size; i++)
        data[i] = (char)i;
    samples = calloc(count, sizeof(*samples));
    check(samples ? 0 : -1, "calloc");

    connection = dial(&to);
    check(getpeername(connection, (struct sockaddr *)&peer, &length), "getpeername");
    for (int i = 0; i < WARM_UP; i++)
        over_one_connection ? request(connection, data, size)
                            : connection_and_first_byte(&to, data, size);
    before = counted();
    for (long i = 0; i < count; i++)
        samples[i] = over_one_connection ? request(connection, data, size)
                                         : connection_and_first_byte(&to, data, size);
    after = counted();

    inet_ntop(AF_INET, &peer.sin_addr, host, sizeof(host));
    printf("{\"peer\": \"%s:%d\", ", host, ntohs(peer.sin_port));
    print_growth("voluntary", before.voluntary, after.voluntary);
    print_growth("involuntary", before.involuntary, after.involuntary);
    printf("\"system_switches\": %ld, \"segments\": %ld, \"ns\": [",
           after.system_switches - before.system_switches, after.segments - before.segments);
    for (long i = 0; i < count; i++)
        printf("%s%ld", i ? ", " : "", samples[i]);
    puts("]}");
    return 0;
}
