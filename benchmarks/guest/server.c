// SPDX-License-Identifier: GPL-2.0-only
/* server HOST PORT: sends back whatever it receives. */
#include "sockets.h"

int main(int argc, char **argv)
{
    static char buffer[BUFFER_SIZE];
    struct sockaddr_in place;
    int epoll, listening;

    if (argc != 3) {
        fprintf(stderr, "usage: server HOST PORT\n");
        return 2;
    }
    place = address(argv[1], argv[2]);
    listening = listener(&place);
    epoll = check(epoll_create1(0), "epoll_create1");
    watch(epoll, listening, (epoll_data_t){.fd = listening});
    say_ready();
    for (;;) {
        int ready = next_event(epoll).fd;
        ssize_t received;

        if (ready == listening) {
            int connection = accepted(listening);
            watch(epoll, connection, (epoll_data_t){.fd = connection});
            continue;
        }
        received = check(recv(ready, buffer, sizeof(buffer), 0), "recv");
        if (received)
            send_all(ready, buffer, received);
        else
            close(ready);
    }
}
