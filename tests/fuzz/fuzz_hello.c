/* What strangers may send to rank 0, and what may stand in HEADWAY_ADDRESS. */
#include "base/err.h"
#include "comm/rendezvous.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

static void read_address(const u8 *data, size_t bytes)
{
    char text[300], host[64];
    int port;
    if (bytes >= sizeof text)
        return;
    memcpy(text, data, bytes);
    text[bytes] = '\0';
    if (rendezvous_address(text, host, sizeof host, &port) == OK &&
        (port < 1 || port > 65535 || host[0] == '\0' || strlen(host) >= sizeof host))
        err_panic("a bad address was accepted: %s", text);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    struct hello h, again;
    u8 written[HELLO_BYTES];
    read_address(data, bytes);
    if (bytes < HELLO_BYTES || !hello_read(&h, data))
        return 0;
    hello_write(&h, written);
    if (!hello_read(&again, written) || again.rank != h.rank || again.size != h.size ||
        again.pid != h.pid || again.machine != h.machine)
        err_panic("a hello does not read back");
    return 0;
}
