/* Any bytes as a request of four lines (method, path, host, seen): only what knows the token and
 * the host is answered with 200. */
#include "folder.h"
#include "report/serve.h"

#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

static struct run_page page, *pages[] = { &page };
static struct serve server;

static void end(void)
{
    fuzz_file("metrics.jsonl", NULL, -1);
}

static void begin(void)
{
    if (server.port)
        return;
    fuzz_file("metrics.jsonl", "", 0);
    atexit(end);
    if (run_page_open(&page, fuzz_folder()) < 0 || serve_init(&server, pages, 1, "fuzz") < 0)
        err_panic("%s", err_message());
    memset(server.token, 'a', 32); /* that inputs can hit */
    server.port = 1;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    char text[2048], *line[4] = { text, text, text, text };
    static double now;
    struct http_answer a = { 0 };
    size_t n = bytes < sizeof text - 1 ? bytes : sizeof text - 1;
    memcpy(text, data, n);
    text[n] = '\0';
    begin();
    for (int i = 1; i < 4; i++) {
        char *newline = strchr(line[i - 1], '\n');
        line[i] = newline ? newline + 1 : line[i - 1] + strlen(line[i - 1]);
        if (newline)
            *newline = '\0';
    }
    const struct http_request q = { .method = line[0], .path = line[1], .host = line[2],
                                    .seen = line[3], .now = now += 1 };
    serve_answer(&server, &q, &a);
    bool right = strncmp(line[1], "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/", 34) == 0 &&
                 (strcmp(line[2], "127.0.0.1:1") == 0 || strcmp(line[2], "localhost:1") == 0);
    if (a.status < 200 || (a.status < 300 && !right))
        err_panic("answered %d", a.status);
    return 0;
}
