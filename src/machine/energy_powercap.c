#include "machine/energy_powercap.h"

#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* More than any zone draws: a gap in which it could have gone around is not to be trusted. */
static const double most_watts = 1000;

static bool read_line(const char *path, char *out, size_t size)
{
    int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return false;
    i64 n = sys_read_full(fd, out, (i64)size - 1);
    int cause = errno;
    sys_close(fd);
    errno = cause;
    if (n <= 0)
        return false;
    out[n] = '\0';
    out[strcspn(out, "\n")] = '\0';
    return true;
}

static bool read_count(const char *path, u64 *value)
{
    char text[40], *end;
    if (!read_line(path, text, sizeof text))
        return false;
    errno = EINVAL; /* said when the text is no number */
    *value = strtoull(text, &end, 10);
    return end != text;
}

/* "intel-rapl:0:2" is a part of "intel-rapl:0". */
static bool name_zone(const char *root, const char *folder, char *out, size_t size)
{
    char path[320], own[40], parent[40];
    snprintf(path, sizeof path, "%s/%s/name", root, folder);
    if (!read_line(path, own, sizeof own))
        return false;
    if (strcmp(own, "dram") != 0) {
        snprintf(out, size, "%s", own);
        return true;
    }
    int to = (int)(strrchr(folder, ':') - folder);
    snprintf(path, sizeof path, "%s/%.*s/name", root, to, folder);
    if (!read_line(path, parent, sizeof parent))
        return false;
    snprintf(out, size, "%s/dram", parent);
    return true;
}

static bool has(const struct powercap *p, const char *name)
{
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->zone[i].name, name) == 0)
            return true;
    return false;
}

/* false: this zone should count and cannot be read. */
static bool add_zone(struct powercap *p, const char *root, const char *folder, const char *name)
{
    char path[320];
    struct powercap_zone z;
    if (has(p, name) || p->n == POWERCAP_ZONES)
        return true;
    snprintf(z.name, sizeof z.name, "%s", name);
    snprintf(z.path, sizeof z.path, "%s/%s/energy_uj", root, folder);
    snprintf(path, sizeof path, "%s/%s/max_energy_range_uj", root, folder);
    if (!read_count(z.path, &z.last) || !read_count(path, &z.range) || z.range == 0) {
        snprintf(p->why, sizeof p->why, "%.100s: %s%s", z.path, strerror(errno),
                 errno == EACCES ? "; root may allow it: chmod a+r" : "");
        return false;
    }
    p->zone[p->n++] = z;
    return true;
}

static bool add_zones(struct powercap *p, const char *root, char **folders, int n, bool psys)
{
    char name[80];
    bool whole = true;
    for (int i = 0; i < n; i++) {
        if (!strchr(folders[i], ':') || !name_zone(root, folders[i], name, sizeof name))
            continue;
        bool counts = psys ? strcmp(name, "psys") == 0 : strncmp(name, "package-", 8) == 0;
        if (counts && !add_zone(p, root, folders[i], name))
            whole = false;
    }
    return whole;
}

void powercap_open(struct powercap *p, const char *root, u64 now_ns)
{
    char **folders;
    *p = (struct powercap){ .read_ns = now_ns };
    int n = sys_list(root, &folders);
    if (n < 0) {
        snprintf(p->why, sizeof p->why, "%.100s: %s", root, strerror(errno));
        return;
    }
    snprintf(p->why, sizeof p->why, "%.100s has no counter of a processor", root);
    bool whole = add_zones(p, root, folders, n, false);
    if (whole && p->n == 0)
        whole = add_zones(p, root, folders, n, true);
    if (!whole)
        p->n = 0;
    sys_free(folders);
}

bool powercap_read(struct powercap *p, u64 now_ns)
{
    double seconds = 1e-9 * (double)(now_ns - p->read_ns), joules = 0, unsure = 0;
    for (int i = 0; i < p->n; i++) {
        struct powercap_zone *z = &p->zone[i];
        u64 now;
        if (!read_count(z->path, &now)) {
            snprintf(p->why, sizeof p->why, "%.100s: %s", z->path, strerror(errno));
            p->n = 0;
            return false;
        }
        u64 passed = now >= z->last ? now - z->last : z->range - z->last + now;
        joules += 1e-6 * (double)passed;
        unsure += seconds * most_watts > 1e-6 * (double)z->range ? 1e-6 * (double)z->range : 0;
        z->last = now;
    }
    p->joules += joules;
    p->unsure_j += unsure;
    p->read_ns = now_ns;
    return p->n > 0;
}
