#include "base/proc_text.h"

#include <ctype.h>
#include <string.h>

/* The digits that text begins with; *end behind them. */
static bool read_u64(const char *text, u64 *out, const char **end)
{
    u64 value = 0;
    const char *p = text;
    for (; isdigit((unsigned char)*p); p++)
        if (__builtin_mul_overflow(value, (u64)10, &value) ||
            __builtin_add_overflow(value, (u64)(*p - '0'), &value))
            return false;
    if (p == text)
        return false;
    *out = value;
    *end = p;
    return true;
}

static const char *skip_blanks(const char *p)
{
    return p + strspn(p, " \t");
}

/* The n-th number of a line of numbers, from 0. */
static bool nth_number(const char *text, int n, u64 *out)
{
    const char *p = skip_blanks(text);
    u64 value = 0;
    for (; n >= 0; n--) {
        if (!read_u64(p, &value, &p) || (*p && !isspace((unsigned char)*p)))
            return false;
        p = skip_blanks(p);
    }
    *out = value;
    return true;
}

bool proc_value(const char *text, const char *key, u64 *out)
{
    const size_t n = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        const char *rest = line + n;
        if (strncmp(line, key, n) != 0 || (*rest != ':' && *rest != ' '))
            continue;
        return nth_number(rest + (*rest == ':'), 0, out);
    }
    return false;
}

bool proc_schedstat(const char *text, u64 *run_ns, u64 *queue_ns)
{
    u64 run, queue;
    if (!nth_number(text, 0, &run) || !nth_number(text, 1, &queue))
        return false;
    *run_ns = run;
    *queue_ns = queue;
    return true;
}

bool proc_pressure(const char *text, u64 *total_us)
{
    const char *end = strchr(text, '\n'), *total = strstr(text, "total="), *p;
    if (strncmp(text, "some ", 5) != 0 || !total || (end && total > end))
        return false;
    u64 value;
    if (!read_u64(total + 6, &value, &p) || (*p != '\0' && *p != '\n'))
        return false;
    *total_us = value;
    return true;
}

bool proc_steal(const char *text, u64 *ticks)
{
    /* user nice system idle iowait irq softirq steal */
    return strncmp(text, "cpu ", 4) == 0 && nth_number(text + 4, 7, ticks);
}

bool proc_resident(const char *text, u64 *pages)
{
    return nth_number(text, 1, pages);
}

/* Whether a list such as "cpu,cpuacct" has the word. */
static bool lists(const char *list, const char *end, const char *word)
{
    const size_t n = strlen(word);
    for (const char *p = list; p < end; p += strcspn(p, ",:") + 1)
        if ((size_t)(end - p) >= n && strncmp(p, word, n) == 0 && (p[n] == ',' || p + n == end))
            return true;
    return false;
}

bool proc_cgroup(const char *text, const char *controller, char *path, i64 chars)
{
    for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        const size_t length = strcspn(line, "\n");
        const char *names = memchr(line, ':', length);
        const char *at = names ? memchr(names + 1, ':', length - (size_t)(names + 1 - line)) : NULL;
        if (!at || (controller ? !lists(names + 1, at, controller) : at != names + 1))
            continue;
        const size_t n = length - (size_t)(at + 1 - line);
        if (at[1] != '/' || (i64)n >= chars)
            return false;
        memcpy(path, at + 1, n);
        path[n] = '\0';
        return true;
    }
    return false;
}

bool proc_list_has(const char *text, u64 n)
{
    for (const char *p = skip_blanks(text);; p++) {
        u64 first, last;
        if (!read_u64(p, &first, &p))
            return false;
        last = first;
        if (*p == '-' && !read_u64(p + 1, &last, &p))
            return false;
        if (n >= first && n <= last)
            return true;
        if (*p != ',')
            return false;
    }
}

bool proc_distance(const char *text, int to, u64 *out)
{
    return to >= 0 && nth_number(text, to, out);
}

/* "7f12c0000000 default anon=512 dirty=512 N0=300 N1=212 kernelpagesize_kB=4" */
bool proc_numa_line(const char *line, u64 near_nodes, u64 *near_bytes, u64 *far_bytes)
{
    u64 node, pages, kib = 4, near = 0, far = 0;
    bool own = false;
    for (const char *p = line; *p && *p != '\n'; p += strcspn(p, " \n")) {
        p += strspn(p, " ");
        const char *end;
        if (strncmp(p, "anon=", 5) == 0)
            own = true;
        else if (strncmp(p, "kernelpagesize_kB=", 18) == 0 && !read_u64(p + 18, &kib, &end))
            return false;
        if (*p != 'N' || !read_u64(p + 1, &node, &end) || *end != '=' || node > 63 ||
            !read_u64(end + 1, &pages, &end))
            continue;
        *(near_nodes >> node & 1 ? &near : &far) += pages;
    }
    if (!own || near + far == 0 || kib > 1 << 30 || near > 1ull << 40 || far > 1ull << 40)
        return false;
    *near_bytes += near * kib * 1024;
    *far_bytes += far * kib * 1024;
    return true;
}
