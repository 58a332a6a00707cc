#include "cli/terminal.h"

#include "base/sys.h"
#include "base/text.h"

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

static void add_clean(struct text *out, const char *line)
{
    i64 from = out->length;
    text_add(out, line);
    for (i64 i = from; i < out->length; i++)
        if ((u8)out->data[i] < 0x20 || out->data[i] == 0x7f)
            out->data[i] = '?';
}

/* Erases the status line, writes this one, then the status again: all in one write, because
 * other processes (ranks) may write to the same place. */
static void draw(struct terminal *t, const char *line, bool erase)
{
    struct text all = { 0 };
    text_add(&all, erase ? "\r\033[K" : "");
    if (line) {
        add_clean(&all, line);
        text_add(&all, "\n");
    }
    add_clean(&all, t->status);
    fwrite(all.data, 1, (size_t)all.length, t->out);
    fflush(t->out);
    text_fini(&all);
}

void terminal_line(struct terminal *t, const char *line)
{
    pthread_mutex_lock(&t->lock);
    draw(t, line, *t->status);
    pthread_mutex_unlock(&t->lock);
}

void terminal_status(struct terminal *t, const char *line)
{
    if (!t->is_tty)
        return;
    pthread_mutex_lock(&t->lock);
    bool erase = *t->status;
    snprintf(t->status, sizeof t->status, "%.*s", t->width - 1, line ? line : "");
    draw(t, NULL, erase);
    pthread_mutex_unlock(&t->lock);
}

void terminal_log(void *context, enum log_level level, const char *line)
{
    static const char *const prefix[] = { "debug: ", "", "warning: ", "error: " };
    char text[2200];
    snprintf(text, sizeof text, "%s%s", prefix[level], line);
    terminal_line(context, text);
}
