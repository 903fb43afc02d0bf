// SPDX-License-Identifier: Apache-2.0
// An echo server in C, for one connection after the other: what the sockets themselves cost.
//
//     echo SOCKET

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static char data[65536];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listening = socket(AF_UNIX, SOCK_STREAM, 0);

    if (argc != 2 || strlen(argv[1]) >= sizeof address.sun_path)
        return 2;
    strcpy(address.sun_path, argv[1]);
    if (bind(listening, (struct sockaddr *)&address, sizeof address) || listen(listening, 1)) {
        perror(argv[1]);
        return 1;
    }
    puts("event=ready");
    fflush(stdout);
    for (;;) {
        int connection = accept(listening, NULL, NULL);
        ssize_t size;

        while ((size = read(connection, data, sizeof data)) > 0)
            for (ssize_t sent = 0, n; sent < size; sent += n)
                if ((n = write(connection, data + sent, size - sent)) < 0)
                    break;
        close(connection);
    }
}
