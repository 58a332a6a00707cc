#include "cli/terminal.h"

#include "base/sys.h"
#include "base/text.h"

#include <string.h>
#include <sys/ioctl.h>

enum { LEAST_WIDTH = 20 }; /* of a status: less says nothing */

void terminal_measure(struct terminal *t)
{
    struct winsize size;
    if (ioctl(fileno(t->out), TIOCGWINSZ, &size) != 0)
        return;
    if (size.ws_col > 0) /* 0: nobody knows */
        t->width = size.ws_col;
    if (size.ws_row > 0)
        t->height = size.ws_row;
}

bool terminal_has_status(const struct terminal *t)
{
    return t->is_tty && t->width >= LEAST_WIDTH;
}

/* TERM=dumb says that nothing moves there. */
static bool can_move(FILE *out)
{
    const char *term = sys_getenv("TERM");
    return sys_isatty(fileno(out)) && !(term && strcmp(term, "dumb") == 0);
}

void terminal_init(struct terminal *t, FILE *out)
{
    *t = (struct terminal){ .out = out, .is_tty = can_move(out), .width = 80, .height = 24 };
    terminal_measure(t);
    pthread_mutex_init(&t->lock, NULL);
}

void terminal_fini(struct terminal *t)
{
    terminal_status(t, NULL);
    pthread_mutex_destroy(&t->lock);
}

void terminal_clean(struct text *out, const char *line)
{
    i64 from = out->length;
    text_add(out, line);
    for (i64 i = from; i < out->length; i++)
        if ((u8)out->data[i] < 0x20 || out->data[i] == 0x7f)
            out->data[i] = '?';
}

/* Rows that the standing status takes: where the terminal has become narrower, its lines wrap. */
static int rows_of(const struct terminal *t)
{
    int rows = *t->status ? 1 : 0, column = 0;
    for (const char *c = t->status; *c; c++) {
        if (*c == '\n') {
            rows++;
            column = 0;
        } else if (((u8)*c & 0xc0) != 0x80 && ++column > t->width) {
            rows++;
            column = 1;
        }
    }
    return rows;
}

static void add_status(struct text *out, const struct terminal *t)
{
    for (const char *line = t->status; *line;) {
        i64 bytes = (i64)strcspn(line, "\n");
        char one[sizeof t->status];
        memcpy(one, line, (size_t)bytes);
        one[bytes] = '\0';
        terminal_clean(out, one);
        text_add(out, line[bytes] ? "\n" : "");
        line += bytes + (line[bytes] != '\0');
    }
}

/* To the begin of the status's first row, and all from there on erased. */
static void add_erase(struct text *out, int rows)
{
    if (rows > 1)
        text_printf(out, "\r\033[%dA\033[J", rows - 1);
    else if (rows == 1)
        text_add(out, "\r\033[K");
}

/* Erases `rows` of status, writes this line, then the status again: all in one write, because
 * other processes (ranks) may write to the same place. */
static void draw(struct terminal *t, const char *line, int rows)
{
    struct text all = { 0 };
    text_add(&all, "");
    add_erase(&all, rows);
    if (line) {
        terminal_clean(&all, line);
        text_add(&all, "\n");
    }
    add_status(&all, t);
    fwrite(all.data, 1, (size_t)all.length, t->out);
    fflush(t->out);
    text_fini(&all);
}

void terminal_line(struct terminal *t, const char *line)
{
    pthread_mutex_lock(&t->lock);
    draw(t, line, rows_of(t));
    pthread_mutex_unlock(&t->lock);
}

/* Bytes of the characters that so many columns hold. */
static int bytes_within(const char *text, int columns)
{
    int bytes = 0;
    for (; text[bytes]; bytes++)
        if (((u8)text[bytes] & 0xc0) != 0x80 && columns-- == 0)
            break;
    return bytes;
}

void terminal_status(struct terminal *t, const char *line)
{
    const char *text = line && terminal_has_status(t) ? line : "";
    if (!t->is_tty || (!*text && !*t->status))
        return;
    pthread_mutex_lock(&t->lock);
    int rows = rows_of(t), most = (int)sizeof t->status;
    bool single = !strchr(text, '\n');
    snprintf(t->status, sizeof t->status, "%.*s", single ? bytes_within(text, t->width - 1) : most,
             text);
    draw(t, NULL, rows);
    pthread_mutex_unlock(&t->lock);
}

void terminal_log(void *context, enum log_level level, const char *line)
{
    static const char *const prefix[] = { "debug: ", "", "warning: ", "error: " };
    char text[2200];
    snprintf(text, sizeof text, "%s%s", prefix[level], line);
    terminal_line(context, text);
}
