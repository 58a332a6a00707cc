#include "base/proc_text.h"
#include "base/sys.h"
#include "base/sys_usage.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { MOST_NODES = 64, MASK_WORDS = 16, TEXT = 4096, WINDOW = 1 << 14 };

static bool read_text(char text[TEXT], const char *fmt, int node)
{
    char path[80];
    snprintf(path, sizeof path, fmt, node);
    int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    ssize_t n = fd >= 0 ? sys_pread(fd, text, TEXT - 1, 0) : -1;
    if (fd >= 0)
        sys_close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

struct nodes {
    u64 there, near; /* masks: all; those of the processors that may be used */
};

static bool has_own_processor(const char *list, const u64 mask[MASK_WORDS])
{
    for (u64 cpu = 0; cpu < 64 * MASK_WORDS; cpu++)
        if ((mask[cpu / 64] >> cpu % 64 & 1) && proc_list_has(list, cpu))
            return true;
    return false;
}

static struct nodes find_nodes(void)
{
    struct nodes n = { 0, 0 };
    u64 mask[MASK_WORDS];
    char text[TEXT];
    if (!read_text(text, "/sys/devices/system/node/online", 0))
        return n;
    for (u64 i = 0; i < MOST_NODES; i++)
        n.there |= (u64)proc_list_has(text, i) << i;
    if ((n.there & (n.there - 1)) == 0)
        return n;
    sys_cpu_mask(mask, MASK_WORDS);
    for (int i = 0; i < MOST_NODES; i++)
        if ((n.there >> i & 1) && read_text(text, "/sys/devices/system/node/node%d/cpulist", i))
            n.near |= (u64)has_own_processor(text, mask) << i;
    return n;
}

/* Mean over pairs of a node that is near and one that is not: 10 is a node's own distance. */
static double far_speed(const struct nodes *n)
{
    char text[TEXT];
    double sum = 0, pairs = 0;
    for (int i = 0; i < MOST_NODES; i++) {
        if (!(n->near >> i & 1) || !read_text(text, "/sys/devices/system/node/node%d/distance", i))
            continue;
        for (int to = 0; to < MOST_NODES; to++) {
            u64 distance;
            if ((n->near >> to & 1) || !(n->there >> to & 1) ||
                !proc_distance(text, to, &distance) || distance < 10)
                continue;
            sum += 10 / (double)distance;
            pairs++;
        }
    }
    return pairs > 0 ? sum / pairs : 0;
}

/* Whole lines of the window; returns how many bytes of it they are. */
static i64 take_lines(char *window, i64 bytes, u64 near, struct sys_numa *out)
{
    i64 at = 0;
    for (char *end; (end = memchr(window + at, '\n', (size_t)(bytes - at))) != NULL;
         at = end + 1 - window) {
        *end = '\0';
        proc_numa_line(window + at, near, &out->near_bytes, &out->far_bytes);
    }
    return at;
}

bool sys_numa_read(struct sys_numa *out)
{
    char window[WINDOW];
    const struct nodes nodes = find_nodes();
    i64 kept = 0;
    ssize_t got;
    *out = (struct sys_numa){ 0 };
    if (!nodes.near || nodes.near == nodes.there)
        return false;
    out->far_speed = far_speed(&nodes);
    int fd = sys_open("/proc/self/numa_maps", O_RDONLY | O_CLOEXEC, 0);
    while (fd >= 0 && (got = sys_read(fd, window + kept, WINDOW - kept)) > 0) {
        const i64 done = take_lines(window, kept + got, nodes.near, out);
        kept = kept + got - done;
        if (kept == WINDOW) /* a line that is too long */
            kept = 0;
        memmove(window, window + done, (size_t)kept);
    }
    if (fd >= 0)
        sys_close(fd);
    return out->far_speed > 0 && out->near_bytes + out->far_bytes > 0;
}
