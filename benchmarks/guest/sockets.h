/* SPDX-License-Identifier: GPL-2.0-only */
/* What the server, the proxy and the client share: TCP over IPv4, blocking, an error ends it all. */
#ifndef SOCKETS_H
#define SOCKETS_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* As much as one recv() takes; Envoy reads 16 KiB at a time too. */
#define BUFFER_SIZE 16384

static inline int check(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
    return result;
}

static inline struct sockaddr_in address(const char *host, const char *port)
{
    struct sockaddr_in made = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};

    if (inet_pton(AF_INET, host, &made.sin_addr) != 1) {
        fprintf(stderr, "%s is no IPv4 address\n", host);
        exit(2);
    }
    return made;
}

static inline void send_at_once(int connection)
{
    int on = 1;

    check(setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), "TCP_NODELAY");
}

static inline int dial(const struct sockaddr_in *to)
{
    int connection = check(socket(AF_INET, SOCK_STREAM, 0), "socket");

    send_at_once(connection);
    check(connect(connection, (const struct sockaddr *)to, sizeof(*to)), "connect");
    return connection;
}

static inline int listener(const struct sockaddr_in *place)
{
    int listening = check(socket(AF_INET, SOCK_STREAM, 0), "socket");
    int on = 1;

    check(setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), "SO_REUSEADDR");
    check(bind(listening, (const struct sockaddr *)place, sizeof(*place)), "bind");
    check(listen(listening, 128), "listen");
    return listening;
}

static inline int accepted(int listening)
{
    int connection = check(accept(listening, NULL, NULL), "accept");

    send_at_once(connection);
    return connection;
}

static inline void send_all(int connection, const char *data, size_t size)
{
    while (size) {
        ssize_t sent = check(send(connection, data, size, MSG_NOSIGNAL), "send");
        data += sent;
        size -= sent;
    }
}

/* `data` comes back with the next event of `watched`. */
static inline void watch(int epoll, int watched, epoll_data_t data)
{
    struct epoll_event event = {.events = EPOLLIN, .data = data};

    check(epoll_ctl(epoll, EPOLL_CTL_ADD, watched, &event), "epoll_ctl");
}

/* One event at a time: none can follow of a descriptor that was closed a moment ago. */
static inline epoll_data_t next_event(int epoll)
{
    struct epoll_event event;

    while (epoll_wait(epoll, &event, 1, -1) != 1)
        if (errno != EINTR)
            check(-1, "epoll_wait");
    return event.data;
}

/* Says on stdout that whoever started this may go on. */
static inline void say_ready(void)
{
    puts("ready");
    fflush(stdout);
}

#endif
