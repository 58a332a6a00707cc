/* libmicrohttpd behind report/http_table.h. One thread, which the caller lends by `turn`. */
#include "report/http_table.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

/* A connection that has not brought a whole request head yet, and since when. */
struct guest {
    int socket;
    double since;
};

struct http_server {
    struct MHD_Daemon *daemon;
    http_answer_fn answer;
    void *context;
    struct guest guests[HTTP_CONNECTIONS];
};

static char message[200];

static const char *last_error(void)
{
    return message;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* --- who is here, and for how long -------------------------------------------------- */

static int socket_of(struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    return info ? info->connect_fd : -1;
}

static struct guest *guest_of(struct http_server *s, int socket)
{
    for (int i = 0; i < HTTP_CONNECTIONS; i++)
        if (s->guests[i].socket == socket)
            return &s->guests[i];
    return NULL;
}

static void on_connection(void *context, struct MHD_Connection *c, void **socket_context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct http_server *s = context;
    struct guest *g = guest_of(s, what == MHD_CONNECTION_NOTIFY_STARTED ? -1 : socket_of(c));
    (void)socket_context;
    if (g && what == MHD_CONNECTION_NOTIFY_STARTED)
        *g = (struct guest){ socket_of(c), now() };
    else if (g)
        g->socket = -1;
}

/* The next request of the connection has as long as the first had. */
static void on_completed(void *context, struct MHD_Connection *c, void **request,
                         enum MHD_RequestTerminationCode why)
{
    struct guest *g = guest_of(context, socket_of(c));
    (void)why;
    free(*request);
    *request = NULL;
    if (g)
        g->since = now();
}

/* A byte now and then keeps the library's own timeout from ending a connection. */
static void show_out(struct http_server *s)
{
    for (int i = 0; i < HTTP_CONNECTIONS; i++)
        if (s->guests[i].socket >= 0 && now() - s->guests[i].since > HTTP_DEADLINE_S)
            shutdown(s->guests[i].socket, SHUT_RDWR);
}

/* --- requests ----------------------------------------------------------------------- */

static const char *field(struct MHD_Connection *c, const char *name)
{
    return MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);
}

/* Fields that a browser obeys, of every answer. */
static void add_fields(struct MHD_Response *r, const struct http_answer *a)
{
    static const char *const always[][2] = {
        { "Cache-Control", "no-store" }, { "X-Content-Type-Options", "nosniff" },
        { "Referrer-Policy", "no-referrer" }, { "X-Frame-Options", "DENY" },
        { "Cross-Origin-Resource-Policy", "same-origin" },
        { "Cross-Origin-Opener-Policy", "same-origin" },
    };
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++)
        MHD_add_response_header(r, always[i][0], always[i][1]);
    MHD_add_response_header(r, "Content-Type", a->type ? a->type : "text/plain; charset=utf-8");
    if (a->policy)
        MHD_add_response_header(r, "Content-Security-Policy", a->policy);
    if (a->status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(r, "Allow", "GET, HEAD");
}

enum { DECIDING = 3 };
static const char *const deciding[DECIDING] = { "Host", "Origin", "Sec-Fetch-Site" };

/* What is counted of a request's fields. */
struct head {
    struct http_request *request;
    int times[DECIDING];
};

static enum MHD_Result add_field(void *context, enum MHD_ValueKind kind, const char *name,
                                 const char *value)
{
    struct head *h = context;
    struct http_request *q = h->request;
    (void)kind;
    for (int i = 0; i < DECIDING; i++)
        if (strcasecmp(name, deciding[i]) == 0 && ++h->times[i] > 1)
            q->repeated = 1;
    q->fields++;
    q->head_bytes += (long long)(strlen(name) + (value ? strlen(value) : 0) + strlen(": \r\n"));
    return MHD_YES;
}

/* What is between "GET " and " HTTP/1.1", before the library has divided it up. */
struct line {
    size_t bytes; /* until a NUL */
    int unsound;
};

static void *on_line(void *context, const char *uri, struct MHD_Connection *c)
{
    struct line *l = calloc(1, sizeof *l);
    (void)context;
    (void)c;
    if (!l)
        return NULL;
    l->bytes = strlen(uri);
    for (size_t i = 0; i < l->bytes; i++)
        l->unsound |= (unsigned char)uri[i] < ' ' || uri[i] == 0x7f;
    return l;
}

/* The version stands behind it in the same memory: at once, unless a NUL was in its midst. */
static int is_unsound(const struct line *l, const char *url, const char *version)
{
    return !l || l->unsound || version != url + l->bytes + 1;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_bytes, void **request)
{
    struct http_server *s = context;
    const char *length = field(c, "Content-Length");
    struct http_request q = {
        .method = method, .path = url, .host = field(c, "Host"), .origin = field(c, "Origin"),
        .site = field(c, "Sec-Fetch-Site"),
        .seen = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "seen"),
        .accept = field(c, "Accept"),
        .head_bytes = (long long)strlen(url),
        .has_body = (length && strcmp(length, "0") != 0) || field(c, "Transfer-Encoding") ||
                    *upload_bytes > 0,
        .unsound = is_unsound(*request, url, version),
        .now = now(),
    };
    struct http_answer a = { .status = MHD_HTTP_NOT_FOUND };
    (void)upload;
    struct head head = { .request = &q };
    MHD_get_connection_values(c, MHD_HEADER_KIND, add_field, &head);
    s->answer(s->context, &q, &a);
    struct MHD_Response *r = MHD_create_response_from_buffer((size_t)a.bytes, (void *)a.body,
                                                             MHD_RESPMEM_MUST_COPY);
    if (!r)
        return MHD_NO;
    add_fields(r, &a);
    enum MHD_Result queued = MHD_queue_response(c, (unsigned)a.status, r);
    MHD_destroy_response(r);
    return queued;
}

/* No path here needs "%", and one with "%00" would end there. */
static size_t keep_escapes(void *context, struct MHD_Connection *c, char *text)
{
    (void)context;
    (void)c;
    return strlen(text);
}

static void on_log(void *context, const char *text, va_list args)
{
    (void)context;
    vsnprintf(message, sizeof message, text, args);
    message[strcspn(message, "\n")] = '\0';
}

/* --- the table ---------------------------------------------------------------------- */

static void close_server(struct http_server *s)
{
    if (s->daemon)
        MHD_stop_daemon(s->daemon);
    free(s);
}

static int open_server(struct http_server **out, int *port, http_answer_fn answer, void *context)
{
    struct http_server *s = calloc(1, sizeof *s);
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((unsigned short)*port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    snprintf(message, sizeof message, "out of memory");
    if (!s)
        return -1;
    s->answer = answer;
    s->context = context;
    for (int i = 0; i < HTTP_CONNECTIONS; i++)
        s->guests[i].socket = -1;
    /* A connection's memory is for its answer's head too; how long its own is, is asked then. */
    s->daemon = MHD_start_daemon(
        MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, s, MHD_OPTION_SOCK_ADDR, &at,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_CONNECTIONS,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)(2 * HTTP_HEAD_BYTES),
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)HTTP_DEADLINE_S, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
        s, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes,
        NULL, MHD_OPTION_URI_LOG_CALLBACK, on_line, NULL, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        s->daemon ? MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT) : NULL;
    if (!info) {
        if (errno)
            snprintf(message, sizeof message, "%s", strerror(errno));
        close_server(s);
        return -1;
    }
    *port = info->port;
    *out = s;
    return 0;
}

static int turn(struct http_server *s, int milliseconds)
{
    show_out(s);
    return MHD_run_wait(s->daemon, milliseconds) == MHD_NO ? -1 : 0;
}

const struct http_table *headway_http_table(void);
const struct http_table *headway_http_table(void)
{
    static const struct http_table table = { HTTP_TABLE_VERSION, open_server, turn, close_server,
                                             last_error };
    return &table;
}
