#include "cli/terminal.h"

#include "base/sys.h"

#include <string.h>
#include <sys/ioctl.h>

static int column_count(FILE *out)
{
    struct winsize size;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col >= 20)
        return size.ws_col;
    return 80;
}

void terminal_init(struct terminal *t, FILE *out)
{
    *t = (struct terminal){ .out = out,
                            .is_tty = sys_isatty(fileno(out)),
                            .width = column_count(out) };
    pthread_mutex_init(&t->lock, NULL);
}

void terminal_fini(struct terminal *t)
{
    terminal_status(t, NULL);
    pthread_mutex_destroy(&t->lock);
}

static void write_clean(FILE *out, const char *line)
{
    for (; *line; line++)
        fputc((u8)*line < 0x20 || *line == 0x7f ? '?' : *line, out);
}

static void erase_status(struct terminal *t)
{
    if (*t->status)
        fputs("\r\033[K", t->out);
}

static void draw_status(struct terminal *t)
{
    write_clean(t->out, t->status);
    fflush(t->out);
}

void terminal_line(struct terminal *t, const char *line)
{
    pthread_mutex_lock(&t->lock);
    erase_status(t);
    write_clean(t->out, line);
    fputc('\n', t->out);
    draw_status(t);
    pthread_mutex_unlock(&t->lock);
}

void terminal_status(struct terminal *t, const char *line)
{
    if (!t->is_tty)
        return;
    pthread_mutex_lock(&t->lock);
    erase_status(t);
    snprintf(t->status, sizeof t->status, "%.*s", t->width - 1, line ? line : "");
    draw_status(t);
    pthread_mutex_unlock(&t->lock);
}

void terminal_log(void *context, enum log_level level, const char *line)
{
    static const char *const prefix[] = { "debug: ", "", "warning: ", "error: " };
    char text[2200];
    snprintf(text, sizeof text, "%s%s", prefix[level], line);
    terminal_line(context, text);
}
