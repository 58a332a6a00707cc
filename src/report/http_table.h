/* report/http_table.h - between the program and the HTTP library.
 *
 * HTTP is not ours: libmicrohttpd speaks it, in a small module (report/http/module.c)
 * that is loaded when somebody serves, so that training needs no HTTP library. The module
 * reads requests within limits and writes answers; what is answered is decided in
 * report/serve.h. Loopback only. */
#ifndef HEADWAY_HTTP_TABLE_H
#define HEADWAY_HTTP_TABLE_H

/* Strings live until the answer is given; NULL: the request has none. */
struct http_request {
    const char *method, *path; /* as it came, "%" and all, without what follows "?" */
    const char *host, *origin, *site; /* Host, Origin, Sec-Fetch-Site */
    int repeated;      /* one of these three came more than once: which counts is not known */
    const char *seen;  /* the value of "seen" behind "?" */
    const char *accept; /* Accept */
    int fields;        /* of the head */
    long long head_bytes;
    int has_body;
    int unsound;       /* control characters, NUL above all, in its line */
    double now;        /* seconds, of a clock that does not go back */
};

struct http_answer {
    int status;
    const char *type, *policy; /* Content-Type, Content-Security-Policy */
    const char *body;  /* copied */
    long long bytes;
};

typedef void (*http_answer_fn)(void *context, const struct http_request *request,
                               struct http_answer *answer);

enum {
    HTTP_CONNECTIONS = 64,
    HTTP_HEAD_BYTES = 8 << 10,  /* of a request: its line and its fields */
    HTTP_FIELDS = 64,
    HTTP_DEADLINE_S = 5,        /* from the first byte to the last of a request's head */
};

struct http_server;
struct http_table {
    int version; /* HTTP_TABLE_VERSION */
    /* port 0: any that is free; *port is the one that was taken. 0, or -1 with last_error. */
    int (*open)(struct http_server **out, int *port, http_answer_fn answer, void *context);
    /* Answers what has come, for as long as this at most. */
    int (*turn)(struct http_server *s, int milliseconds);
    void (*close)(struct http_server *s);
    const char *(*last_error)(void);
};

enum { HTTP_TABLE_VERSION = 4 };

/* What the module exports. */
#define HTTP_TABLE_SYMBOL "headway_http_table"
typedef const struct http_table *(*http_table_fn)(void);

#endif
