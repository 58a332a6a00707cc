/* Runs as a live page, for a browser of this machine. */
#include "base/err.h"
#include "base/log.h"
#include "base/sys.h"
#include "cli/command.h"
#include "report/serve.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>

struct serve_flags {
    i64 port;
};

static const struct option options[] = {
    { "port", OPTION_FIELD(INT, struct serve_flags, port), "0", .max = 65535,
      .help = "Where to listen, on loopback only; 0: any that is free." },
    { 0 },
};

static atomic_int stopped;

static void on_signal(int number)
{
    (void)number;
    atomic_store(&stopped, 1);
}

static int answer_all(struct serve *s, const struct http_table *http, int port)
{
    enum { TURN_MS = 250 };
    struct http_server *server;
    struct sigaction action = { .sa_handler = on_signal };
    if (http->open(&server, &port, serve_answer, s) != 0)
        return err_set(ERR_SYS, "listen at 127.0.0.1:%d: %s", port, http->last_error());
    s->port = port;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    printf("http://127.0.0.1:%d/%s/\n", port, s->token);
    fflush(stdout);
    log_line(LOG_INFO, "only this machine can open it, and only with the whole address; "
             "Ctrl-C ends");
    int rc = OK;
    while (!atomic_load(&stopped) && rc == OK)
        if (http->turn(server, TURN_MS) != 0)
            rc = err_set(ERR_SYS, "serving: %s", http->last_error());
    http->close(server);
    return rc;
}

static int run(struct invocation *v)
{
    const struct serve_flags *f = v->options;
    const struct http_table *http;
    struct run_page **runs = ARENA_ARRAY(v->arena, struct run_page *, v->n_args);
    struct serve *s = ARENA_NEW(v->arena, struct serve);
    int opened = 0, rc = OK;
    TRY(serve_load_http(&http));
    sys_be_nice();
    for (; opened < v->n_args && rc >= 0; opened++) {
        runs[opened] = ARENA_NEW(v->arena, struct run_page);
        TRY_TO(done, run_page_open(runs[opened], v->args[opened]));
    }
    const char *title = arena_printf(v->arena, "%s - Headway", runs[0]->name);
    TRY_TO(done, serve_init(s, runs, opened, title));
    rc = answer_all(s, http, (int)f->port);
    serve_fini(s);
done:
    while (opened-- > 0)
        run_page_close(runs[opened]);
    return rc;
}

static const struct example examples[] = {
    { "headway serve runs/tiny",
      "Prints an address; a browser of this machine shows the run there." },
    { "headway serve runs/a runs/b --port 8080",
      "Two runs beside each other, at a port of your own." },
    { 0 },
};

const struct command cmd_serve = {
    .name = "serve",
    .summary = "Show runs live, in a browser of this machine",
    .arguments = "RUN [RUN...]",
    .description = "The page of 'headway report', which follows the run while it goes "
                   "on. It listens on loopback alone, and answers only those who know "
                   "the address that is printed: it has a random token. Nothing can be "
                   "changed there. Behind that address, metrics is for Prometheus.\n\n"
                   "This is a process of its own that reads the run's folder, with the "
                   "lowest priority: no step is slower for it. To look from elsewhere, "
                   "forward the port: ssh -L 8080:127.0.0.1:8080 HOST.",
    .options = options,
    .options_bytes = sizeof(struct serve_flags),
    .min_args = 1,
    .max_args = 16,
    .examples = examples,
    .run = run,
};
