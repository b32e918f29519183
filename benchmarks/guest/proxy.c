// SPDX-License-Identifier: GPL-2.0-only
/* proxy HOST PORT TO_HOST TO_PORT: a connection of its own for each that it takes, and bytes copied
 * between the two. What a sidecar does at the very least: no TLS, no parsing, no policy.
 */
#include "sockets.h"
#include <stdint.h>

/* A pair of descriptors as an event's data: the one that is ready, and where its bytes go. */
static epoll_data_t pair(int from, int to)
{
    return (epoll_data_t){.u64 = (uint64_t)to << 32 | (uint32_t)from};
}

int main(int argc, char **argv)
{
    static char buffer[BUFFER_SIZE];
    struct sockaddr_in place, upstream;
    int epoll, listening;

    if (argc != 5) {
        fprintf(stderr, "usage: proxy HOST PORT TO_HOST TO_PORT\n");
        return 2;
    }
    place = address(argv[1], argv[2]);
    upstream = address(argv[3], argv[4]);
    listening = listener(&place);
    epoll = check(epoll_create1(0), "epoll_create1");
    watch(epoll, listening, pair(listening, -1));
    say_ready();
    for (;;) {
        epoll_data_t data = next_event(epoll);
        int from = (int)(uint32_t)data.u64, to = (int)(data.u64 >> 32);
        ssize_t received;

        if (from == listening) {
            int downstream = accepted(listening), onward = dial(&upstream);
            watch(epoll, downstream, pair(downstream, onward));
            watch(epoll, onward, pair(onward, downstream));
            continue;
        }
        received = check(recv(from, buffer, sizeof(buffer), 0), "recv");
        if (received) {
            send_all(to, buffer, received);
        } else {
            close(from);
            close(to);
        }
    }
}
